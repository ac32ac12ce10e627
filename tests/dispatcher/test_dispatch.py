"""Sending and streaming: fallback, errors, deadlines, events, money, in both worlds."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from worlds import WORLDS, World

from llmdispatcher import (
    AllVendorsFailed,
    BadReply,
    BadRequest,
    Cancelled,
    ConfigError,
    ContentRefused,
    ContextOverflow,
    Deadlines,
    Dispatcher,
    FinishReason,
    NoCandidate,
    Overloaded,
    Price,
    RateLimited,
    Refused,
    Request,
    Scripted,
    StreamInterrupted,
    TimedOut,
    Unreachable,
    Usage,
    VendorError,
)
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.event import AttemptEnded, AttemptStarted, Event, Fallback, LoadProgress
from llmdispatcher.models.reply import Finish, Outcome, Progress
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.scripted import CUT, ScriptedEngine

VERBS = ("send", "stream")

SHORT_S = 3.0
"""A deadline that passes while a test waits, and that no machine is too slow to begin before."""


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each test runs with threads and with asyncio."""
    made: World = WORLDS[request.param]
    return made


@pytest.mark.parametrize("verb", VERBS)
def test_a_reply_is_whole_and_accounted_for(world: World, verb: str) -> None:
    """Text, finish, usage, cost and who served stand in the reply and agree with the books."""
    usage = Usage(prompt_tokens=1000, completion_tokens=500)
    vendor = Scripted(
        ["Hel", "lo.", Finish(FinishReason.LENGTH, usage)], price=Price.per_million(0.15, 0.6)
    )

    heard = world((vendor,), verb, "hi")

    assert heard.error is None
    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.finish_reason) == ("Hello.", FinishReason.LENGTH)
    assert heard.pieces == (("Hel", "lo.") if verb == "stream" else ())
    assert (heard.reply.vendor, heard.reply.model) == ("scripted", "script")
    assert (heard.reply.usage, heard.reply.cost_microusd) == (usage, 450)
    assert str(heard.reply.cost_usd) == "0.00045"
    assert heard.stats.total.usage == usage
    assert (heard.stats.total.cost_microusd, heard.stats.in_flight) == (450, 0)


@pytest.mark.parametrize("verb", VERBS)
def test_the_next_vendor_serves_when_one_fails(world: World, verb: str) -> None:
    """A failure before anything was shown costs the caller nothing but time."""
    vendors = (Scripted(Unreachable("down"), name="a"), Scripted("from b", name="b"))

    heard = world(vendors, verb, "hi")

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("from b", "b")
    outcomes = [(a.vendor, a.outcome) for a in heard.reply.decision.attempts]
    assert outcomes == [("a", Outcome.FAILED), ("b", Outcome.SERVED)]
    assert heard.reply.decision.attempts[0].error == "Unreachable: down"


def test_text_of_a_failed_vendor_never_leaks_into_a_reply(world: World) -> None:
    """send() returns what the vendor that served said, not the start that another one made."""
    vendors = (Scripted(["half a", CUT], name="a"), Scripted("whole", name="b"))

    heard = world(vendors, "send", "hi")

    assert heard.reply is not None
    assert heard.reply.text == "whole"


def test_what_was_shown_is_not_taken_back(world: World) -> None:
    """A stream that breaks after its first piece raises StreamInterrupted with the text so far."""
    vendors = (Scripted(["half ", "a", CUT], name="a"), Scripted("whole", name="b"))

    heard = world(vendors, "stream", "hi")

    assert heard.text == "half a"
    assert isinstance(heard.error, StreamInterrupted)
    assert (heard.error.partial, heard.error.vendor) == ("half a", "a")
    assert heard.stats.total.failed == 1


def test_any_failure_after_the_first_piece_keeps_the_text(world: World) -> None:
    """A rate limit in the middle of a stream is a cut too, and its cause is kept."""
    heard = world((Scripted(["half", RateLimited("slow")]),), "stream", "hi")

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.error.partial == "half"
    assert isinstance(heard.error.__cause__, RateLimited)


@pytest.mark.parametrize("verb", VERBS)
def test_one_failure_is_raised_as_it_is(world: World, verb: str) -> None:
    """With a single vendor, its own error reaches the caller, naming vendor and model."""
    heard = world((Scripted(RateLimited("slow", retry_after_s=3), name="a"),), verb, "hi")

    assert isinstance(heard.error, RateLimited)
    assert (heard.error.vendor, heard.error.retry_after_s) == ("a", 3)


@pytest.mark.parametrize("verb", VERBS)
def test_all_failures_are_kept(world: World, verb: str) -> None:
    """When every vendor fails, the group holds each error in the order of the attempts."""
    vendors = (
        Scripted(RateLimited("slow"), name="a"),
        Scripted(Overloaded("full"), name="b"),
        Scripted(name="c", load_error=Unreachable("gone")),
    )

    heard = world(vendors, verb, "hi")

    assert isinstance(heard.error, AllVendorsFailed)
    told = [(type(e).__name__, getattr(e, "vendor", "")) for e in heard.error.exceptions]
    assert told == [("RateLimited", "a"), ("Overloaded", "b"), ("Unreachable", "c")]
    assert heard.stats.total.failed == 3
    assert "a/script" in str(heard.error)


@pytest.mark.parametrize("error", [ContentRefused("no"), Refused("no")])
def test_some_errors_stop_the_search(world: World, error: Exception) -> None:
    """Nobody asks the next vendor for what one refused on principle."""
    vendors = (Scripted(error, name="a"), Scripted("whole", name="b"))  # type: ignore[arg-type]

    heard = world(vendors, "send", "hi")

    assert type(heard.error) is type(error)


def test_a_longer_context_is_tried_next(world: World) -> None:
    """A prompt that is too long for one model goes to the next, as it may fit there."""
    vendors = (Scripted(ContextOverflow(600, 512), name="a"), Scripted("whole", name="b"))

    assert world(vendors, "send", "hi").reply is not None


def test_no_candidate_says_why(world: World) -> None:
    """With nobody to ask, the error lists each model with the reason, and nothing is counted."""
    heard = world((Scripted(name="a"),), "send", "hi", vendor="b")

    assert isinstance(heard.error, NoCandidate)
    assert heard.error.reasons == {"a/script": "the request names the vendor 'b'"}
    assert heard.stats.requests == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("steps", "deadlines", "phase"),
    [
        ([30], Deadlines(first_token_s=0.05), "first_token"),
        (["a", 30], Deadlines(idle_s=0.05), "idle"),
        (["a", 30], Deadlines(total_s=SHORT_S), "total"),
        ([30], Deadlines(total_s=SHORT_S), "total"),
    ],
)
def test_silence_ends_at_its_deadline(
    world: World, steps: list[Any], deadlines: Deadlines, phase: str
) -> None:
    """Each phase has its own limit, and the error names the phase and the limit."""
    heard = world((Scripted(steps),), "send", "hi", deadlines=deadlines)

    assert isinstance(heard.error, TimedOut)
    assert heard.error.phase == phase
    assert heard.error.limit_s == getattr(deadlines, f"{phase}_s")
    assert (heard.stats.total.failed, heard.stats.in_flight) == (1, 0)


def test_progress_is_not_silence(world: World) -> None:
    """A vendor that reports progress on the prompt is given time, piece by piece."""
    slow = [x for i in range(24) for x in (SHORT_S / 20, Progress("prompt", i, 24))]

    heard = world(
        (Scripted([*slow, "done"]),), "send", "hi", deadlines=Deadlines(first_token_s=SHORT_S)
    )

    assert heard.reply is not None
    assert heard.reply.text == "done"


def test_loading_counts_only_against_load(world: World) -> None:
    """A model that takes long to load is waited for, whatever the other deadlines say."""
    short = Deadlines(first_token_s=SHORT_S, idle_s=SHORT_S, total_s=SHORT_S)

    heard = world((Scripted("done", load_s=SHORT_S + 0.1),), "send", "hi", deadlines=short)

    assert heard.reply is not None
    assert heard.reply.decision.attempts[0].load_s > SHORT_S
    assert heard.reply.latency_s < SHORT_S


def test_a_load_that_takes_too_long_is_left_alone(world: World) -> None:
    """The load deadline ends the waiting, not the load, and the next vendor serves."""
    vendors = (Scripted(name="a", load_s=30), Scripted("from b", name="b"))

    heard = world(vendors, "send", "hi", deadlines=Deadlines(load_s=SHORT_S))

    assert heard.reply is not None
    assert heard.reply.vendor == "b"
    assert heard.reply.decision.attempts[0].error.startswith("TimedOut: timed out: loading")


def test_the_total_is_one_for_all_attempts(world: World) -> None:
    """Fallback does not multiply the total deadline."""
    vendors = (Scripted([30], name="a"), Scripted("from b", name="b"))

    heard = world(vendors, "send", "hi", deadlines=Deadlines(total_s=SHORT_S))

    assert isinstance(heard.error, TimedOut)
    assert heard.stats.total.attempts == 1


@pytest.mark.parametrize("verb", VERBS)
def test_events_tell_the_story_in_order(world: World, verb: str) -> None:
    """Every attempt starts and ends once, with the fallback between them."""
    events: list[Event] = []
    vendors = (Scripted(Unreachable("down"), name="a"), Scripted("ok", name="b"))

    heard = world(vendors, verb, "hi", on_event=events.append)

    told = [e for e in events if not isinstance(e, LoadProgress)]
    assert [type(e) for e in told] == [
        AttemptStarted,
        AttemptEnded,
        Fallback,
        AttemptStarted,
        AttemptEnded,
    ]
    assert told[2] == Fallback(failed="a/script", next="b/script", reason="Unreachable: down")
    assert heard.reply is not None
    ended = [e.attempt for e in told if isinstance(e, AttemptEnded)]
    assert tuple(ended) == heard.reply.decision.attempts


def test_a_listener_that_raises_breaks_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in on_event is logged and does not reach the request."""

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    assert world((Scripted("ok"),), "send", "hi", on_event=broken).reply is not None
    assert "on_event raised for AttemptStarted" in caplog.text


def test_unknown_cost_is_none_and_counted_as_unknown(world: World) -> None:
    """A reply at an unknown price has no cost, and the books say how many such there are."""
    heard = world((Scripted("ok", price=None),), "send", "hi")

    assert heard.reply is not None
    assert heard.reply.cost_microusd is None
    assert heard.reply.cost_usd is None
    assert (heard.stats.total.unpriced, heard.stats.total.cost_microusd) == (1, 0)


def test_failed_attempts_are_paid_for(world: World) -> None:
    """The cost of a reply holds what the failed attempts before it used."""
    price = Price.per_million(1, 1)
    vendors = (
        Scripted(["x", "y", BadReply("broken")], name="a", price=price),
        Scripted(["z"], name="b", price=price),
    )

    heard = world(vendors, "send", "one two")

    assert heard.reply is not None
    assert [a.cost_microusd for a in heard.reply.decision.attempts] == [4, 3]
    assert heard.reply.cost_microusd == 7
    assert heard.stats.total.cost_microusd == 7


def test_the_catalog_prices_a_model(world: World) -> None:
    """A price from the user's catalogue is used in routing and in the books."""
    rows = {"scripted/script": {"price": {"input": 0, "output": 0, "per_request": 0.001}}}

    heard = world((Scripted("ok"),), "send", "hi", catalog={"models": rows})

    assert heard.reply is not None
    assert heard.reply.cost_microusd == 1000


def test_a_vendor_is_registered_once() -> None:
    """Two vendors of one name are refused with the way out."""
    with Dispatcher(Scripted(name="a")) as d:
        d.register_vendor(Scripted(name="b"))
        with pytest.raises(ConfigError, match="name="):
            d.register_vendor(Scripted(name="a"))
        assert [vendor.name for vendor in d.vendors()] == ["a", "b"]


@pytest.mark.parametrize("vendor", [5, "no-such-vendor", "llamacpp", "model.gguf", object])
def test_what_is_no_vendor_is_refused(vendor: Any) -> None:
    """Anything but a vendor or the name of one is a ConfigError."""
    with pytest.raises(ConfigError):
        Dispatcher(vendor)


def test_a_function_among_written_replies_is_refused() -> None:
    """A script is written or made by one function; nothing of it is dropped."""
    with pytest.raises(BadRequest, match="a single function"):
        Scripted("a", lambda _: "b")


def test_deadlines_of_another_kind_are_refused() -> None:
    """A number for the deadlines is answered with how they are written."""
    with pytest.raises(BadRequest, match="Deadlines"):
        Dispatcher(Scripted(), deadlines=3)  # type: ignore[arg-type]


def test_a_vendor_by_name() -> None:
    """A name stands for an installed vendor with its defaults."""
    with Dispatcher("scripted") as d:
        assert d.send("hi").text == "ok"


def test_a_closed_dispatcher_refuses(world: World) -> None:
    """After close, sending is refused at once; closing twice is fine."""
    d = Dispatcher(Scripted("ok"))
    d.close()
    d.close()

    with pytest.raises(Refused, match="closed"):
        d.send("hi")
    with pytest.raises(Refused, match="closed"):
        d.register_vendor(Scripted(name="b"))


def test_a_stream_has_no_reply_before_its_end() -> None:
    """Asking for the reply too early is a RuntimeError that says what to do."""
    with Dispatcher(Scripted(["a", "b"])) as d:
        stream = d.stream("hi")
        with pytest.raises(RuntimeError, match="read it to its end"):
            _ = stream.reply
        next(stream)
        assert stream.partial == "a"
        assert [delta.text for delta in stream] == ["b"]
        assert stream.reply.text == "ab"
        assert list(stream) == []


def test_cancelled_is_never_a_vendors_failure() -> None:
    """A stopped request is counted as cancelled, not against the vendor."""
    with Dispatcher(Scripted(["a", Cancelled()])) as d:
        stream = d.stream("hi")
        assert [delta.text for delta in stream] == ["a"]
        assert d.stats().total.cancelled == 1


def test_a_failed_load_is_told_to_each_in_an_error_of_its_own() -> None:
    """Many wait for one load; its failure reaches each of them whole and unshared."""
    d = Dispatcher(Scripted(load_s=0.2, load_error=Unreachable("gone")))
    caught: list[Unreachable] = []

    def ask() -> None:
        with pytest.raises(Unreachable, match="gone") as error:
            d.send("hi")
        caught.append(error.value)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    d.close()

    assert len({id(error) for error in caught}) == 8


class Buggy(Scripted):
    """A vendor of somebody else's, with a bug where it is told to have one."""

    def start(self, report: Report) -> BuggyEngine:
        """Make the engine."""
        return BuggyEngine(self, report)


class BuggyEngine(ScriptedEngine):
    """Raises what no contract allows."""

    def submit(self, work: Work, model: str) -> Any:
        """Fail in the call itself, or at the first piece."""
        if isinstance(work, Request) and work.messages[0].text == "now":
            raise ZeroDivisionError("in submit")
        call: Any = super().submit(work, model)
        call.receive = call.areceive = self._broken
        return call

    @staticmethod
    def _broken(timeout_s: float | None) -> Any:
        raise ZeroDivisionError("in receive")


@pytest.mark.parametrize("when", ["now", "later"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_vendors_bug_is_that_vendors_failure(world: World, when: str, verb: str) -> None:
    """Whatever a vendor raises, it is entered as its failure, and the next one serves."""
    alone = world((Buggy(["x"], name="a"),), verb, when)
    saved = world((Buggy(["x"], name="a"), Scripted("whole", name="b")), verb, when)

    assert isinstance(alone.error, VendorError)
    assert isinstance(alone.error.__cause__, ZeroDivisionError)
    assert "a/script: a bug in the vendor: ZeroDivisionError: in" in str(alone.error)
    assert (alone.stats.total.failed, alone.stats.in_flight) == (1, 0)
    assert saved.reply is not None
    assert saved.reply.text == "whole"


def test_an_error_is_never_its_own_cause(world: World) -> None:
    """Whoever follows the causes of an error comes to an end."""
    error: BaseException | None = world((Scripted(RateLimited("slow")),), "send", "hi").error

    seen = 0
    while error is not None:
        error, seen = error.__cause__ or error.__context__, seen + 1
        assert seen < 10


def test_nothing_sent_costs_nothing(world: World) -> None:
    """A vendor that could not even load is not paid, whatever its price per request."""
    price = Price.per_million(1, 1, per_request="0.01")
    vendors = (
        Scripted(name="a", price=price, load_error=Unreachable("gone")),
        Scripted(name="b", price=None, load_error=Unreachable("gone")),
        Scripted("ok", name="c", price=Price.per_million(9999, 9999)),
    )

    heard = world(vendors, "send", "hi")

    assert heard.reply is not None
    costs = [a.cost_microusd for a in heard.reply.decision.attempts]
    assert costs[0] == 0
    assert heard.reply.cost_microusd == sum(cost or 0 for cost in costs)


def test_the_total_counts_the_callers_own_time() -> None:
    """A caller who reads slowly does not get more time than the total deadline."""
    with Dispatcher(Scripted(["a", "b", "c", 30])) as d:
        stream = d.stream("hi", deadlines=Deadlines(total_s=SHORT_S))
        next(stream)
        threading.Event().wait(SHORT_S)
        with pytest.raises(StreamInterrupted) as caught:
            list(stream)

    assert isinstance(caught.value.__cause__, TimedOut)
    assert caught.value.__cause__.phase == "total"


def test_a_listener_that_ends_the_program_leaves_the_books_balanced() -> None:
    """SystemExit in on_event goes to the caller, and nothing stays open."""

    def leave(event: Event) -> None:
        raise SystemExit(3)

    d = Dispatcher(Scripted("ok"), on_event=leave)
    with pytest.raises(SystemExit):
        d.send("hi")

    assert d.stats().in_flight == 0
    d.close()


def test_a_failed_registration_closes_what_was_started() -> None:
    """If the second vendor is refused, the first one is not left running."""
    before = set(threading.enumerate())
    with pytest.raises(ConfigError):
        Dispatcher(Scripted(name="a"), Scripted(name="a"))

    assert set(threading.enumerate()) <= before  # one that was told to end before may have done so
