"""Pauses between two requests: who waits for what, for how long, and who may end it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import misdeeds as do
from faults.exam import QUICK
from faults.misdeeds import ANSWER, first, saying
from faults.ours import settings, vendors
from faults.server import FaultServer

from llmdispatcher import AsyncDispatcher, Deadlines, Dispatcher, DispatcherError

WAIT_S = 4
"""What the primary asks for."""
SOON_S = 3.0
"""Whoever does not wait for that is done by then, on a busy machine too."""

FAR_S = 40
"""What it asks for where nobody is to wait."""
TOO_SHORT_S = 36
"""A deadline that comes before that is over."""
NOW_S = 20.0
"""Whoever waits for neither is done by then, however slow the machine."""

LIMITS = Deadlines(first_token_s=20, idle_s=20)
"""None of this is late, though the machine be slow."""


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A primary that wants a pause before it answers."""
    limited = do.limiting(retry_after=str(WAIT_S))
    with FaultServer(primary=first(1, limited, saying()), fallback=saying()) as server:
        yield server


def want_far(server: FaultServer) -> None:
    """Have the primary ask for a pause that nobody is to wait out."""
    server.begin(primary=first(1, do.limiting(retry_after=str(FAR_S)), saying()))


def dispatcher(server: FaultServer, count: int = 2) -> Dispatcher:
    """Return a dispatcher of the first so many roles."""
    both = vendors(server["primary"].url, server["fallback"].url)
    return Dispatcher(*both[:count], deadlines=LIMITS, **settings(QUICK))


def wait_for(server: FaultServer, requests: int) -> None:
    """Wait until the primary got so many."""
    deadline_s = time.monotonic() + NOW_S
    while len(server["primary"].seen) < requests and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert len(server["primary"].seen) == requests


def test_a_pause_is_waited_out_where_nobody_else_is(server: FaultServer) -> None:
    """A vendor that is the only one is asked again when it wants to be, and not given up."""
    with dispatcher(server, count=1) as d:
        reply = d.send("Tell me.")

    gap_s = server["primary"].seen[1].at_s - server["primary"].seen[0].at_s
    assert reply.text == ANSWER
    assert gap_s >= 0.9 * WAIT_S


def test_every_try_is_told(server: FaultServer) -> None:
    """What was absorbed stands in the decision of the reply and in the books."""
    server.begin(primary=first(1, do.broken, saying()))
    with dispatcher(server) as d:
        reply = d.send("Tell me.")
        stats = d.stats()

    attempts = [(attempt.vendor, attempt.outcome) for attempt in reply.decision.attempts]
    assert attempts == [("primary", "failed"), ("primary", "served")]
    assert (stats.requests, stats.in_flight) == (1, 0)
    assert (stats.total.failed, stats.total.served) == (1, 1)


def test_nobody_waits_longer_than_the_request_may_take(server: FaultServer) -> None:
    """Where the deadline comes before the pause is over, the next vendor is asked at once."""
    want_far(server)
    deadlines = Deadlines(total_s=TOO_SHORT_S)
    with dispatcher(server) as d:
        began_s = time.monotonic()
        reply = d.send("Tell me.", deadlines=deadlines)
        took_s = time.monotonic() - began_s

    assert (reply.text, reply.vendor) == (ANSWER, "fallback")
    assert took_s < NOW_S
    assert len(server["primary"].seen) == 1


def test_without_another_vendor_that_is_said_at_once(server: FaultServer) -> None:
    """Nobody waits for a deadline that cannot be kept: the error comes now, and says when."""
    want_far(server)
    deadlines = Deadlines(total_s=TOO_SHORT_S)
    with dispatcher(server, count=1) as d:
        began_s = time.monotonic()
        with pytest.raises(DispatcherError):
            d.send("Tell me.", deadlines=deadlines)
        took_s = time.monotonic() - began_s

    assert took_s < NOW_S
    assert len(server["primary"].seen) == 1


def test_whoever_leaves_during_a_pause_is_gone(server: FaultServer) -> None:
    """Closing a stream from another thread ends the pause, and nobody is asked after it."""
    with dispatcher(server, count=1) as d:
        stream = d.stream("Tell me.")
        thread = threading.Thread(target=lambda: list(stream))
        thread.start()
        wait_for(server, 1)
        began_s = time.monotonic()
        stream.close()
        thread.join(10)
        took_s = time.monotonic() - began_s

        assert took_s < SOON_S
        time.sleep(max(0.0, WAIT_S * 1.25 - took_s))
        assert len(server["primary"].seen) == 1
        assert d.stats().in_flight == 0


def test_a_task_that_is_cancelled_during_a_pause_is_gone(server: FaultServer) -> None:
    """Cancelling ends the pause in an event loop as well."""
    want_far(server)

    async def main() -> float:
        both = vendors(server["primary"].url, server["fallback"].url)
        async with AsyncDispatcher(both[0], deadlines=LIMITS, **settings(QUICK)) as d:
            task = asyncio.create_task(d.send("Tell me."))
            await asyncio.to_thread(wait_for, server, 1)
            await asyncio.sleep(0.1)
            began_s = time.monotonic()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            return time.monotonic() - began_s

    assert asyncio.run(main()) < NOW_S
    assert len(server["primary"].seen) == 1


def test_a_pause_holds_for_all_requests(server: FaultServer) -> None:
    """A vendor that wants to be left alone is not asked by the next request either."""
    server.begin(primary=do.limiting(retry_after="3600"))
    with dispatcher(server) as d:
        d.send("Tell me.")
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: d.send("Tell me."), range(16)))

    assert {reply.vendor for reply in replies} == {"fallback"}
    assert len(server["primary"].seen) == 1


def test_all_that_fails_is_one_budget(server: FaultServer) -> None:
    """Retries and fallbacks do not multiply: two vendors that are down are asked six times."""
    server.begin(primary=do.busy, fallback=do.busy)
    with dispatcher(server) as d, pytest.raises(DispatcherError):
        d.send("Tell me.")

    assert len(server["primary"].seen) + len(server["fallback"].seen) <= 6
