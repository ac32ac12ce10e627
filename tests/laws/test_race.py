"""Laws of plans that ask several: books balance whatever the vendors do, in both worlds."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Heard, in_asyncio, in_threads

from llmdispatcher import (
    BadReply,
    ContentRefused,
    Dispatcher,
    DispatcherError,
    Ensemble,
    Hedge,
    Overloaded,
    Parallel,
    Plan,
    Price,
    RateLimited,
    RetryPolicy,
    Scripted,
    VendorError,
)
from llmdispatcher.models.event import AttemptEnded, AttemptStarted, Event
from llmdispatcher.models.reply import Outcome
from llmdispatcher.vendors.scripted import CUT

pytestmark = pytest.mark.usefixtures("settled")

ERRORS = [RateLimited("slow"), BadReply("junk"), ContentRefused("no"), Overloaded("full"), CUT]
PAUSES = st.sampled_from([0.001, 0.004])
STEPS = st.lists(st.sampled_from(["a", "b", "long words ", "", 0.001, 0.003]), max_size=4)
ENDS = st.sampled_from([[], [], *[[error] for error in ERRORS]])
REPLIES = st.builds(lambda steps, end: [*steps, *end], STEPS, ENDS)
PRICES = st.sampled_from([None, *[Price.per_million(*rates) for rates in [(1, 2), (0, 0), (5, 1)]]])
VERB = st.sampled_from(["send", "stream"])
PLANS = st.sampled_from(
    [
        Parallel(),
        Parallel(count=None),
        Parallel(accept=lambda reply: "a" in reply.text),
        Hedge(after_s=0.001, max_extra=1),
        Hedge(after_s=0.0, max_extra=1),
        Ensemble(),
        Ensemble(same_model=True),
        Ensemble(by="best"),
        Ensemble(by="merge", count=2),
        Ensemble(by="consensus"),
    ]
)
HASTY = RetryPolicy(attempts=6, backoff_s=0.0, max_wait_s=0.2)


@st.composite
def vendors(draw: st.DrawFn) -> tuple[Scripted, ...]:
    """One to four vendors with random replies, prices and failing loads."""
    return tuple(
        Scripted(
            draw(REPLIES),
            name=f"v{index}",
            price=draw(PRICES),
            local=draw(st.booleans()),
            load_error=draw(st.sampled_from([None, None, None, VendorError("no load")])),
        )
        for index in range(draw(st.integers(1, 4)))
    )


GIVEN = given(
    specs=vendors(), verb=VERB, plan=PLANS, give_up_after=st.none() | st.none() | st.integers(0, 4)
)


@settings(max_examples=15)
@GIVEN
def test_the_books_conserve(**drawn: Any) -> None:
    """Each attempt starts, ends and is added up once, and no branch outlives its request."""
    conserve(**drawn)


@pytest.mark.soak
@settings(max_examples=1500)
@GIVEN
def test_the_books_conserve_ever_so_often(**drawn: Any) -> None:
    """The same, far more often."""
    conserve(**drawn)


def conserve(specs: tuple[Scripted, ...], verb: str, plan: Plan, give_up_after: int | None) -> None:
    """Send a request by a plan, and look at the books."""
    events: list[Event] = []
    with Dispatcher(*specs, on_event=events.append, retry=HASTY) as d:
        reply = None
        with contextlib.suppress(DispatcherError):
            if verb == "send":
                reply = d.send("one two", strategy=plan)
            else:
                with d.stream("one two", strategy=plan) as stream:
                    for index, _ in enumerate(stream):
                        if index == give_up_after:
                            break
                    reply = stream.reply if stream.is_over else None
        stats, branches = d.stats(), running()

    started = [(e.vendor, e.number) for e in events if isinstance(e, AttemptStarted)]
    ended = [(e.attempt.vendor, e.number) for e in events if isinstance(e, AttemptEnded)]
    attempts = [e.attempt for e in events if isinstance(e, AttemptEnded)]
    assert not branches
    assert sorted(started) == sorted(ended)
    assert len({number for _, number in started}) == len(started)
    assert stats.in_flight == 0
    assert stats.requests == 1
    assert stats.total.attempts == len(attempts)
    assert stats.total.cost_microusd == sum(a.cost_microusd or 0 for a in attempts)
    sent = [a for a in attempts if not a.error.startswith("BudgetExceeded")]
    assert len(sent) <= HASTY.attempts
    if reply is not None:
        assert {id(each) for each in attempts} == {id(each) for each in reply.decision.attempts}
        assert reply.decision.attempts[-1].outcome is Outcome.SERVED
        costs = [each.cost_microusd for each in attempts]
        known = [cost for cost in costs if cost is not None]
        assert reply.cost_microusd == (sum(known) if len(known) == len(costs) else None)


def running() -> list[str]:
    """Return the branches whose threads have not ended."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("llmdispatcher-branch")]


CALM = st.sampled_from(
    [
        Parallel(count=1),
        Parallel(count=1, accept=lambda reply: "a" in reply.text),
        Hedge(after_s=3600),
        Ensemble(same_model=True, count=1),
        Ensemble(by="best", count=1),
        Ensemble(by="merge", count=1),
    ]
)
"""Plans of which nothing depends on who is quicker."""


def story(heard: Heard) -> tuple[Any, ...]:
    """Say what happened, without times."""
    reply = heard.reply
    return (
        heard.deltas,
        reply and reply.choices,
        reply and (reply.text, reply.vendor, reply.usage, reply.cost_microusd, reply.warnings),
        reply and [(a.vendor, a.outcome, a.cost_microusd) for a in reply.decision.attempts],
        reply and reply.decision.notes,
        heard.error and (type(heard.error), str(heard.error)),
        (heard.stats.total.served, heard.stats.total.failed, heard.stats.total.cost_microusd),
    )


@settings(max_examples=10)
@given(specs=vendors(), verb=VERB, plan=CALM)
def test_both_worlds_tell_the_same_story(
    specs: tuple[Scripted, ...], verb: str, plan: Plan
) -> None:
    """Threads and tasks give the same pieces, reply, attempts, notes, error and figures."""
    threads = in_threads(specs, verb, "one two", strategy=plan, retry=HASTY)

    assert story(threads) == story(in_asyncio(specs, verb, "one two", strategy=plan, retry=HASTY))


@settings(max_examples=15)
@given(first=st.permutations(["a", "b", "c"]), verb=VERB, fails=st.sampled_from(["", "a", "b"]))
def test_both_worlds_have_the_same_winner(first: list[str], verb: str, fails: str) -> None:
    """Where each is slower than the one before by far, the same wins in threads and in tasks."""
    waits = {name: 0.001 if at == 0 else 30.0 * at for at, name in enumerate(first)}
    specs = tuple(
        Scripted(Overloaded("full") if name == fails else [waits[name], name], name=name)
        for name in "abc"
    )
    plan = Parallel(count=None)
    heards = [
        world(specs, verb, "hi", strategy=plan, retry=RetryPolicy(same_target=0))
        for world in (in_threads, in_asyncio)
        if first[0] != fails
    ]

    for heard in heards:
        assert heard.reply is not None
        assert heard.reply.vendor == first[0]
        outcomes = {a.vendor: a.outcome for a in heard.reply.decision.attempts}
        assert outcomes.pop(first[0]) is Outcome.SERVED
        assert outcomes.pop(fails, Outcome.FAILED) in {Outcome.FAILED, Outcome.CANCELLED}
        assert set(outcomes.values()) <= {Outcome.CANCELLED}
        assert heard.stats.in_flight == 0
