"""Laws of dispatching, over random vendors: both worlds agree, the books conserve."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Heard, in_asyncio, in_threads

from llmdispatcher import (
    AllVendorsFailed,
    BadReply,
    ContentRefused,
    Dispatcher,
    DispatcherError,
    Price,
    RateLimited,
    Scripted,
    StreamInterrupted,
    VendorError,
)
from llmdispatcher.models.event import AttemptEnded, AttemptStarted, Event, LoadProgress
from llmdispatcher.models.reply import Outcome
from llmdispatcher.vendors.scripted import CUT

ERRORS = [RateLimited("slow"), BadReply("junk"), ContentRefused("no"), CUT]
STEPS = st.lists(st.sampled_from(["a", "b", "long words ", ""]), max_size=3)
ENDS = st.sampled_from([[], *[[error] for error in ERRORS]])
REPLIES = st.builds(lambda steps, end: [*steps, *end], STEPS, ENDS)
VERB = st.sampled_from(["send", "stream"])
ASKED = st.fixed_dictionaries({"n": st.integers(1, 3), "logprobs": st.sampled_from([None, 0])})
PRICES = st.sampled_from([None, *[Price.per_million(*rates) for rates in [(1, 2), (0, 0), (5, 1)]]])


@st.composite
def vendors(draw: st.DrawFn) -> tuple[Scripted, ...]:
    """One to four vendors with random replies, prices and failing loads."""
    return tuple(
        Scripted(
            draw(REPLIES),
            name=f"v{index}",
            price=draw(PRICES),
            load_error=draw(st.sampled_from([None, None, None, VendorError("no load")])),
        )
        for index in range(draw(st.integers(1, 4)))
    )


def story(heard: Heard) -> tuple[Any, ...]:
    """Say what happened, without times."""
    reply = heard.reply
    return (
        heard.deltas,
        reply and reply.choices,
        reply and (reply.text, reply.vendor, reply.usage, reply.cost_microusd, reply.finish_reason),
        reply and [(a.vendor, a.outcome, a.cost_microusd) for a in reply.decision.attempts],
        heard.error and (type(heard.error), str(heard.error)),
        (heard.stats.total.served, heard.stats.total.failed, heard.stats.total.cost_microusd),
    )


@settings(max_examples=60, deadline=None)
@given(specs=vendors(), verb=VERB, asked=ASKED)
def test_both_worlds_tell_the_same_story(
    specs: tuple[Scripted, ...], verb: str, asked: dict[str, Any]
) -> None:
    """Threads and asyncio give the same pieces, reply, attempts, error and figures."""
    threads = in_threads(specs, verb, "one two", **asked)

    assert story(threads) == story(in_asyncio(specs, verb, "one two", **asked))


@settings(deadline=None)
@given(
    specs=vendors(),
    verb=VERB,
    asked=ASKED,
    give_up_after=st.none() | st.integers(0, 4),
)
def test_the_books_conserve(
    specs: tuple[Scripted, ...], verb: str, asked: dict[str, Any], give_up_after: int | None
) -> None:
    """However a request ends, each attempt starts once, ends once and is added up once."""
    events: list[Event] = []
    with Dispatcher(*specs, on_event=events.append) as d:
        with contextlib.suppress(DispatcherError):
            if verb == "send":
                d.send("one two", **asked)
            else:
                with d.stream("one two", **asked) as stream:
                    for index, _ in enumerate(stream):
                        if index == give_up_after:
                            break
        stats = d.stats()

    started = [(e.vendor, e.number) for e in events if isinstance(e, AttemptStarted)]
    ended = [(e.attempt.vendor, e.number) for e in events if isinstance(e, AttemptEnded)]
    attempts = [e.attempt for e in events if isinstance(e, AttemptEnded)]
    assert started == ended
    assert stats.in_flight == 0
    assert stats.total.attempts == len(attempts)
    assert stats.total.cost_microusd == sum(a.cost_microusd or 0 for a in attempts)
    assert stats.total.unpriced == sum(a.cost_microusd is None for a in attempts)
    assert stats.total.served == sum(a.outcome is Outcome.SERVED for a in attempts) <= 1
    assert {type(e) for e in events} >= ({LoadProgress} if stats.total.served else set())


@settings(deadline=None)
@given(specs=vendors(), verb=VERB, asked=ASKED)
def test_a_reply_is_one_vendors_words(
    specs: tuple[Scripted, ...], verb: str, asked: dict[str, Any]
) -> None:
    """Text is what the serving vendor said, whole; without a reply, every failure is kept."""
    heard = in_threads(specs, verb, "one two", **asked)

    if heard.reply is not None:
        (server,) = [spec for spec in specs if spec.name == heard.reply.vendor]
        assert not callable(server.replies)
        said = "".join(step for step in server.replies[0] if isinstance(step, str))  # type: ignore[union-attr]
        assert [choice.text for choice in heard.reply.choices] == [said] * asked["n"]
        assert heard.reply.text == said
        for choice in heard.reply.choices:
            tokens = "".join(each.token for each in choice.logprobs)
            assert tokens == (said if asked["logprobs"] is not None else "")
        assert heard.text == (said * asked["n"] if verb == "stream" else "")
    elif isinstance(heard.error, AllVendorsFailed):
        assert len(heard.error.exceptions) == heard.stats.total.failed > 1
    else:
        assert heard.stats.total.failed == 1
    if isinstance(heard.error, StreamInterrupted) and verb == "stream":
        assert heard.error.partial == heard.text
