"""Laws of plans that ask one after the other, over random vendors and random plans."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from telling import says, told
from worlds import Heard, in_asyncio, in_threads

from llmdispatcher import (
    BadReply,
    Cascade,
    Chain,
    Dispatcher,
    DispatcherError,
    FinishReason,
    Price,
    RateLimited,
    RetryPolicy,
    Scripted,
    Usage,
)
from llmdispatcher.models.reply import Finish, Outcome
from llmdispatcher.vendors.scripted import ABLE, CUT

CUT_SHORT = Finish(FinishReason.LENGTH, Usage(prompt_tokens=2, completion_tokens=3))
PIECES = st.sampled_from(["", "OK", "two words", told("sure", 0.99), told("unsure", 0.3)])
ENDS = st.sampled_from([[], [], [], [RateLimited("slow")], [BadReply("junk")], [CUT], [CUT_SHORT]])
REPLY = st.builds(lambda pieces, end: [*pieces, *end], st.lists(PIECES, max_size=2), ENDS)
PRICES = st.sampled_from([Price.per_million(usd, usd) for usd in (0, 1, 5, 100)])
CASCADES = st.builds(
    Cascade,
    st.sampled_from(["confidence", "samples", lambda reply: len(reply.text) / 100]),
    st.sampled_from([None, 0.0, 0.04, 0.9]),
    samples=st.sampled_from([None, 2, 3]),
    hand_over=st.booleans(),
)
STEPS = st.lists(st.sampled_from(["refine", "verify", "summarize"]), max_size=3)
CHAINS = st.builds(lambda steps, rounds: Chain(("draft", *steps), rounds), STEPS, st.integers(0, 2))
ATTEMPTS = st.integers(1, 6)


@st.composite
def vendors(draw: st.DrawFn) -> tuple[Scripted, ...]:
    """One to four vendors with random replies, prices and talents."""
    return tuple(
        Scripted(
            *draw(st.lists(REPLY, min_size=1, max_size=3)),
            name=f"v{index}",
            price=draw(PRICES),
            capabilities=draw(st.sampled_from([ABLE, ("chat",)])),
        )
        for index in range(draw(st.integers(1, 4)))
    )


def story(heard: Heard) -> tuple[Any, ...]:
    """Say what happened, without times."""
    reply = heard.reply
    return (
        heard.deltas,
        reply and (reply.choices, reply.vendor, reply.cost_microusd, reply.warnings),
        reply and reply.decision.notes,
        reply and [(a.vendor, a.outcome, a.cost_microusd) for a in reply.decision.attempts],
        heard.error and (type(heard.error), str(heard.error)),
        (heard.stats.total.served, heard.stats.total.failed, heard.stats.total.cost_microusd),
    )


@settings(max_examples=50, deadline=None)
@given(
    specs=vendors(),
    plan=CASCADES | CHAINS,
    verb=st.sampled_from(["send", "stream"]),
    attempts=ATTEMPTS,
)
def test_the_books_balance_in_both_worlds(
    specs: tuple[Scripted, ...], plan: Any, verb: str, attempts: int
) -> None:
    """Every attempt is in the reply and in the books, once; money and allowance hold for all."""
    retry = RetryPolicy(attempts=attempts, max_wait_s=0)
    heard = in_threads(specs, verb, "one two", strategy=plan, retry=retry)

    total, reply = heard.stats.total, heard.reply
    assert (heard.stats.in_flight, heard.stats.requests) == (0, 1)
    assert total.attempts <= attempts
    assert (reply is None) == isinstance(heard.error, DispatcherError)
    if reply is not None:
        tried = reply.decision.attempts
        assert len(tried) == total.attempts
        assert reply.cost_microusd == sum(a.cost_microusd or 0 for a in tried)
        assert reply.cost_microusd == total.cost_microusd
        assert reply.latency_s == sum(attempt.latency_s for attempt in tried)
        assert any(a.vendor == reply.vendor and a.outcome is Outcome.SERVED for a in tried)
        assert heard.text == (reply.text if verb == "stream" else "")
    assert story(heard) == story(in_asyncio(specs, verb, "one two", strategy=plan, retry=retry))


@settings(max_examples=40, deadline=None)
@given(specs=vendors(), plan=CASCADES | CHAINS, give_up_after=st.integers(0, 3))
def test_whoever_gives_up_leaves_nothing_open(
    specs: tuple[Scripted, ...], plan: Any, give_up_after: int
) -> None:
    """A stream that is closed anywhere leaves no attempt open."""
    with Dispatcher(*specs) as d:
        with d.stream("one two", strategy=plan) as stream, contextlib.suppress(DispatcherError):
            for _, delta in zip(range(give_up_after), stream, strict=False):
                assert delta, "something was shown that is nothing"
        assert d.stats().in_flight == 0


@settings(max_examples=60, deadline=None)
@given(
    chances=st.lists(st.sampled_from([0.1, 0.5, 0.99]), min_size=1, max_size=4),
    threshold=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_a_cascade_goes_up_and_stops_at_the_first_who_is_sure(
    chances: list[float], threshold: float
) -> None:
    """Nobody cheaper is asked after somebody dearer, and nobody after an answer is good enough."""
    tiers = [
        says(f"v{at}", [told(f"{at}", chance)], usd=at + 1) for at, chance in enumerate(chances)
    ]

    heard = in_threads(tuple(reversed(tiers)), "send", "hi", strategy=Cascade(threshold=threshold))

    assert heard.reply is not None
    asked = [attempt.vendor for attempt in heard.reply.decision.attempts]
    assert asked == [f"v{at}" for at in range(len(asked))]
    assert asked[-1] == heard.reply.vendor
