"""Choosing, and going on after a failure, take no time that anybody would notice."""

from __future__ import annotations

import statistics
import time

import pytest
from enumerator import Asked, Offer
from shop import request, shop

from llmdispatcher import Dispatcher, Overloaded, RetryPolicy, Scripted
from llmdispatcher.models.event import AttemptEnded, AttemptStarted, Event

TIMES = 40
"""A bound that guards liveness is so many times the figure that ``bench/choice.py`` measures: four
times as long takes what coverage looks at, on another machine twice that."""

SOON_MS = 100.0
"""Twenty times the figure of that; any pause before a retry would be longer, in the usual case."""

CALLS, ROUNDS = 50, 5


@pytest.mark.parametrize(("models", "goal_us"), [(20, 25), (200, 250)])
def test_choosing_among_many_is_a_matter_of_microseconds(models: int, goal_us: float) -> None:
    """Processor time from a request to whom to ask first, at its best of some rounds."""
    offers = [
        Offer(name=f"v{n // 20}/m{n}", input=f"{1 + n / 1000:.3f}", output="2")
        for n in range(models)
    ]
    with shop(Asked(), offers) as d:
        desk, asking = d._desk, request(Asked(), offers)
        engines = desk._all()
        rounds = []
        for _ in range(ROUNDS):
            began_s = time.thread_time()
            for _ in range(CALLS):
                targets = desk.chooser.ranking(asking, engines, {}, desk._clock()).targets
            rounds.append((time.thread_time() - began_s) / CALLS * 1e6)

    assert targets[0].card.name == "v0/m0"
    assert min(rounds) < TIMES * goal_us


def test_whoever_is_next_is_asked_soon() -> None:
    """From the end of a failed attempt to the beginning of the next, in the usual case."""
    told: list[tuple[float, Event]] = []
    vendors = (
        Scripted(Overloaded("no room", status=503), name="a"),
        Scripted("ok", name="b", price=None),
    )
    policy = RetryPolicy(same_target=0)
    with Dispatcher(
        *vendors, retry=policy, on_event=lambda event: told.append((time.monotonic(), event))
    ) as d:
        for _ in range(CALLS):
            assert d.send("hi").vendor == "b"

    ended = [
        at_s for at_s, event in told if isinstance(event, AttemptEnded) and event.attempt.error
    ]
    begun = [
        at_s for at_s, event in told if isinstance(event, AttemptStarted) and event.number == 2
    ]
    gaps_ms = [(there - here) * 1e3 for here, there in zip(ended, begun, strict=True)]
    assert len(gaps_ms) == CALLS
    assert statistics.median(gaps_ms) < SOON_MS
