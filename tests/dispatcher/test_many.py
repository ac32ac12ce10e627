"""Many requests at once: order, errors in place, bounded concurrency, and stopping."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from waits import WAIT_S, auntil, until

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Cancelled,
    Dispatcher,
    DispatcherError,
    RateLimited,
    Reply,
    Request,
    Scripted,
)
from llmdispatcher.vendors.scripted import Steps


def echo(request: Request) -> Steps:
    """Say what was asked, late for the first ones; fail where that is asked for."""
    text = request.messages[-1].text
    if text == "fail":
        return RateLimited("slow down")
    return [0.05 if text in {"0", "1"} else 0.0, text]


def told(results: Sequence[Reply | DispatcherError]) -> list[str]:
    """Return texts, and names of errors."""
    return [r.text if isinstance(r, Reply) else type(r).__name__ for r in results]


def in_an_event_loop(prompts: Sequence[str], concurrency: int) -> list[Reply | DispatcherError]:
    """Send from asyncio."""

    async def main() -> list[Reply | DispatcherError]:
        async with AsyncDispatcher(Scripted(echo)) as d:
            return await d.send_many(prompts, concurrency=concurrency)

    return asyncio.run(main())


def in_threads(prompts: Sequence[str], concurrency: int) -> list[Reply | DispatcherError]:
    """Send from threads."""
    with Dispatcher(Scripted(echo)) as d:
        return d.send_many(prompts, concurrency=concurrency)


@pytest.mark.parametrize("world", [in_threads, in_an_event_loop])
@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_results_stand_in_the_order_of_the_requests(world: object, concurrency: int) -> None:
    """Whoever is done first, each result is in its request's place, and an error is, too."""
    assert callable(world)
    prompts = ["0", "1", "fail", *map(str, range(2, 20))]

    assert told(world(prompts, concurrency)) == [
        "0",
        "1",
        "RateLimited",
        *map(str, range(2, 20)),
    ]


def test_a_prompt_that_cannot_be_sent_is_an_error_in_its_place() -> None:
    """The others are sent all the same."""
    with Dispatcher(Scripted(echo)) as d:
        results = d.send_many(["a", b"b", "c"])  # type: ignore[list-item]

    assert told(results) == ["a", "BadRequest", "c"]


def test_no_requests_are_no_results() -> None:
    """An empty batch is one, too."""
    with Dispatcher(Scripted(echo)) as d:
        assert d.send_many([]) == []


@pytest.mark.parametrize("concurrency", [0, -1, 1025, True, 2.0])
def test_a_concurrency_that_cannot_be_is_refused(concurrency: int) -> None:
    """Before anything is sent."""
    with Dispatcher(Scripted(echo)) as d, pytest.raises(BadRequest, match="concurrency"):
        d.send_many(["a"], concurrency=concurrency)


def test_wrong_options_are_refused_once() -> None:
    """What is wrong for all is raised, and not repeated in every place."""
    with Dispatcher(Scripted(echo)) as d:
        with pytest.raises(BadRequest, match="temperature"):
            d.send_many(["a"] * 3, temperature=-1)
        with pytest.raises(TypeError, match="temprature"):
            d.send_many(["a"], temprature=1)  # type: ignore[call-arg]
        assert d.stats().requests == 0


def test_no_more_run_at_once_than_allowed() -> None:
    """The bound holds at every moment."""
    lock, running, most = threading.Lock(), 0, 0

    def watched(request: Request) -> Steps:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return request.messages[-1].text

    with Dispatcher(Scripted(watched)) as d:
        d.send_many([str(i) for i in range(30)], concurrency=3)

    assert 1 <= most <= 3


def test_a_dispatcher_that_is_closed_meanwhile_leaves_no_place_empty() -> None:
    """Those under way and those that wait are told as errors."""
    with Dispatcher(Scripted(["a", WAIT_S, "b"])) as d:

        def close() -> None:
            until(lambda: d.vendors()[0].status.running == 2)
            d.close()

        button = threading.Thread(target=close)
        button.start()
        results = d.send_many(["x"] * 5, concurrency=2)
        button.join()

    assert len(results) == 5
    assert all(isinstance(result, DispatcherError) for result in results)


def test_a_cancelled_task_stops_all() -> None:
    """No call goes on behind the back of who gave up."""

    async def main() -> None:
        async with AsyncDispatcher(Scripted(["a", WAIT_S, "b"])) as d:
            task = asyncio.create_task(d.send_many(["x"] * 5, concurrency=2))
            await auntil(lambda: d.stats().in_flight == 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert d.stats().in_flight == 0

    asyncio.run(main())


def test_a_cancelled_request_is_told_as_one() -> None:
    """The error of a place that was never reached says why."""
    assert "stopped" in str(Cancelled())
