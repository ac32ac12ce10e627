"""Time that is waited for a turn, or for money, is told apart from what a vendor takes."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from waits import until

from llmdispatcher import (
    AttemptEnded,
    Deadlines,
    Dispatcher,
    Event,
    Ledger,
    LimitReached,
    Limits,
    Price,
    Reply,
    Scripted,
    SpendingCap,
)
from llmdispatcher.models.reply import Attempt

HELD_S = 0.5
"""How long a turn is held up that another one waits for."""

ONE_AT_A_TIME = {"scripted": Limits(concurrency=1)}


def attempt_of(reply: Reply) -> Attempt:
    """Return the only attempt."""
    (attempt,) = reply.decision.attempts
    return attempt


def waits(d: Dispatcher) -> int:
    """Return how many stand in the line."""
    return d._desk._patience.limiters.of("scripted", "script").waiting


def test_a_turn_is_waited_for_and_is_no_latency() -> None:
    """A vendor is not slow because the user let one request in at a time."""
    replies: list[Reply] = []
    with Dispatcher(Scripted(["a", "b"]), limits=ONE_AT_A_TIME) as d:
        with d.stream("first") as stream:
            next(iter(stream))
            began_s = time.monotonic()
            second = threading.Thread(target=lambda: replies.append(d.send("second")))
            second.start()
            until(lambda: waits(d))
            time.sleep(HELD_S)
        second.join(60)
        took_s = time.monotonic() - began_s
        summed_s = d.stats().total.latency_s

    attempt = attempt_of(replies[0])
    first_s = attempt.first_token_s
    assert first_s is not None
    assert attempt.waited_s >= HELD_S * 0.9
    assert 0 <= first_s <= attempt.latency_s
    assert attempt.waited_s + attempt.latency_s <= took_s
    assert replies[0].latency_s == attempt.latency_s
    assert summed_s == attempt.latency_s


def test_who_never_got_a_turn_took_no_time_of_the_vendor() -> None:
    """All of the attempt was waiting."""
    events: list[Event] = []
    vendor = Scripted(["a", "b"])
    made = Dispatcher(vendor, limits=ONE_AT_A_TIME, on_event=events.append)
    with made as d, d.stream("first") as stream:
        next(iter(stream))
        with pytest.raises(LimitReached):
            d.send("second", deadlines=Deadlines(total_s=4 * HELD_S))

    first = next(event.attempt for event in events if isinstance(event, AttemptEnded))
    assert first.error.startswith("LimitReached")
    assert first.waited_s >= HELD_S
    assert 0 <= first.latency_s < first.waited_s


def test_a_reservation_and_a_load_are_told_apart(tmp_path: Path) -> None:
    """What is set aside is waited for before the model is loaded, and neither counts twice."""
    price = Price.per_million(input=1, output=1)
    cap = SpendingCap(1, period="day")
    vendor = Scripted("a", price=price, load_s=0.2)
    made = closing(Ledger(tmp_path / "ledger.sqlite3", caps=[cap]))
    with made as ledger, Dispatcher(vendor, ledger=ledger) as d:
        began_s = time.monotonic()
        attempt = attempt_of(d.send("hi", max_tokens=5))
        took_s = time.monotonic() - began_s

    assert attempt.waited_s > 0
    assert attempt.load_s >= 0.2
    assert attempt.latency_s >= 0
    assert attempt.waited_s + attempt.load_s + attempt.latency_s <= took_s


def test_where_nothing_is_waited_for_nothing_is_told() -> None:
    """Without limits and without caps."""
    with Dispatcher(Scripted("a")) as d:
        assert attempt_of(d.send("hi")).waited_s == 0
