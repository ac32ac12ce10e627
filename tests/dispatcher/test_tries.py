"""What becomes of a request whose vendors fail: asked again, elsewhere, later, or given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from waits import SOON_S, until
from worlds import WORLDS, World

from llmdispatcher import (
    AllVendorsFailed,
    AttemptEnded,
    AuthRejected,
    BadReply,
    BadRequest,
    BreakerMoved,
    BreakerOpen,
    BreakerPolicy,
    BudgetExceeded,
    Capability,
    ContentRefused,
    ContextOverflow,
    Deadlines,
    Dispatcher,
    DispatcherError,
    Event,
    Fallback,
    Ledger,
    LimitReached,
    Limits,
    Overloaded,
    Price,
    RateLimited,
    Request,
    Restarted,
    Retried,
    RetryPolicy,
    Scripted,
    SpendingCap,
    StreamInterrupted,
    TimedOut,
    ToolSpec,
)
from llmdispatcher.vendors.scripted import ABLE, CUT, Step

SOON = RetryPolicy(backoff_s=0.01, backoff_cap_s=0.05)
PAID = Price.per_million(input=1, output=1)


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads and asyncio."""
    return WORLDS[request.param]


def attempts(d: Dispatcher, reply: Any) -> list[tuple[str, str]]:
    """Return who was asked, and how that ended."""
    return [(each.vendor, str(each.outcome)) for each in reply.decision.attempts]


def test_one_that_fails_once_is_asked_again() -> None:
    """A failure that passes costs a pause, and no other vendor is asked."""
    events: list[Event] = []
    flaky = Scripted(Overloaded("busy", status=500), "here", name="first", local=False)
    with Dispatcher(flaky, Scripted("no", name="second"), retry=SOON, on_event=events.append) as d:
        reply = d.send("hi")

    assert (reply.text, attempts(d, reply)) == ("here", [("first", "failed"), ("first", "served")])
    assert [type(e) for e in events if isinstance(e, Retried | Fallback)] == [Retried]


def test_one_that_goes_on_failing_is_left_for_the_next() -> None:
    """It is asked as often as the policy says, and then never again by this request."""
    broken = Scripted(Overloaded("busy", status=503), name="first", local=False)
    with Dispatcher(broken, Scripted("here", name="second"), retry=SOON) as d:
        reply = d.send("hi")

    assert attempts(d, reply) == [("first", "failed")] * 3 + [("second", "served")]


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (TimedOut("first_token", 1.0), 1),
        (AuthRejected("no", status=401), 1),
        (ContextOverflow(10, 5), 1),
        (Overloaded("busy", status=504), 1),
    ],
)
def test_what_does_not_pass_is_asked_once(error: DispatcherError, asked: int) -> None:
    """Silence, keys, and prompts that are too long are the same the second time."""
    with Dispatcher(
        Scripted(error, name="first"), Scripted("here", name="second"), retry=SOON
    ) as d:
        reply = d.send("hi")

    assert attempts(d, reply) == [("first", "failed")] * asked + [("second", "served")]


def test_a_rejected_key_is_the_accounts() -> None:
    """Other models of a vendor that rejected the key are not asked."""
    with Dispatcher(Scripted(AuthRejected("no", status=401)), retry=SOON) as d:
        with pytest.raises(AuthRejected):
            d.send("hi")

        assert d.stats().total.failed == 1


def test_a_refusal_of_content_ends_it() -> None:
    """Nobody asks around for someone who answers."""
    with (
        Dispatcher(
            Scripted(ContentRefused("no"), name="first"),
            Scripted("here", name="second"),
            retry=SOON,
        ) as d,
        pytest.raises(ContentRefused),
    ):
        d.send("hi")


def test_the_only_vendors_error_is_raised_as_it_is() -> None:
    """After several attempts at one vendor its last error comes, with what was before beside it."""
    errors = [Overloaded(f"busy {number}", status=503) for number in range(3)]
    with (
        Dispatcher(Scripted(*errors, local=False), retry=SOON) as d,
        pytest.raises(Overloaded, match="busy 2") as caught,
    ):
        d.send("hi")

    assert [note.split(": ")[-1] for note in caught.value.__notes__] == ["busy 0", "busy 1"]


def test_a_limit_that_ends_soon_is_waited_for(world: World) -> None:
    """The same vendor is asked again when it said, though there is another one."""
    limited = Scripted(RateLimited("slow", status=429, retry_after_s=0.3), "here", name="first")
    began_s = time.monotonic()
    heard = world((limited, Scripted("no", name="second")), "send", "hi", retry=RetryPolicy())

    assert heard.reply is not None
    assert heard.reply.text == "here"

    assert time.monotonic() - began_s >= 0.3


def test_a_limit_that_ends_late_is_left_to_others() -> None:
    """Nobody waits an hour where somebody else can serve, and later requests do not ask either."""
    limited = Scripted(RateLimited("slow", status=429, retry_after_s=3600), name="first")
    with Dispatcher(limited, Scripted("here", name="second"), retry=SOON) as d:
        assert d.send("hi").vendor == "second"
        assert attempts(d, d.send("hi")) == [("second", "served")]


def test_all_that_is_tried_has_one_allowance() -> None:
    """Retries of several vendors never add up to more than the policy's attempts."""
    busy = Overloaded("busy", status=503)
    vendors = [Scripted(busy, name=name, local=False) for name in "abcd"]
    policy = RetryPolicy(attempts=5, same_target=2, backoff_s=0.001)
    with Dispatcher(*vendors, retry=policy) as d, pytest.raises(AllVendorsFailed) as caught:
        d.send("hi")

    assert len(caught.value.exceptions) == 5
    assert d.stats().total.failed == 5


def test_a_pause_ends_when_the_request_is_stopped() -> None:
    """Closing a stream releases whoever waits for the next attempt."""
    slow = RetryPolicy(backoff_s=3000, backoff_cap_s=3600, max_wait_s=86400, total_s=None)
    with Dispatcher(Scripted(RateLimited("slow", retry_after_s=3000.0)), retry=slow) as d:
        stream = d.stream("hi")
        reader = threading.Thread(target=lambda: list(stream))
        reader.start()
        until(lambda: d.stats().total.failed == 1)
        stream.close()
        reader.join(SOON_S)

        assert not reader.is_alive()


def test_a_deadline_is_not_slept_through() -> None:
    """Where the pause would end after the deadline, the error comes at once."""
    limited = Scripted(RateLimited("slow", status=429, retry_after_s=30))
    began_s = time.monotonic()
    with Dispatcher(limited, deadlines=Deadlines(total_s=20)) as d, pytest.raises(RateLimited):
        d.send("hi")

    assert time.monotonic() - began_s < SOON_S


# -- breaker -----------------------------------------------------------------------------------


def test_one_that_failed_too_often_is_left_alone() -> None:
    """Its breaker opens, the next requests do not ask it, and one of them finds out it is back."""
    events: list[Event] = []
    broken = [Overloaded("down", status=503)] * 3
    with Dispatcher(
        Scripted(*broken, "back", name="first", local=False),
        Scripted("here", name="second"),
        retry=RetryPolicy(same_target=0),
        breaker=BreakerPolicy(failures=3, open_s=600, cap_s=600, jitter=0),
        on_event=events.append,
    ) as d:
        later_s = 0.0
        d._desk._clock = d._desk.chooser._clock = lambda: time.monotonic() + later_s
        asked = [attempts(d, d.send("hi"))[0][0] for _ in range(5)]
        later_s = 601.0
        back = d.send("hi")

    assert asked == ["first"] * 3 + ["second"] * 2
    assert back.text == "back"
    moved = [(e.before, e.after) for e in events if isinstance(e, BreakerMoved)]
    assert moved == [("closed", "open"), ("half-open", "closed")]


def test_whoever_is_left_alone_and_alone_there_is_waited_for() -> None:
    """With nobody else to ask, a request waits until the breaker lets it go; or says until when."""
    down = [Overloaded("down", status=503)] * 2
    policy = BreakerPolicy(failures=2, open_s=4, jitter=0)
    vendor = Scripted(*down, "back", local=False)
    with Dispatcher(vendor, retry=RetryPolicy(same_target=0), breaker=policy) as d:
        for _ in range(2):
            with pytest.raises(Overloaded):
                d.send("hi")
        with pytest.raises(BreakerOpen) as caught:
            d.send("hi", deadlines=Deadlines(total_s=1))

        assert 0 < (caught.value.retry_after_s or 0) <= 4
        assert d.send("hi").text == "back"


UNFIT: dict[str, dict[str, Any]] = {
    "schema": {"schema": {"type": "object"}},
    "call": {"tools": [ToolSpec("add", "Adds.", {"type": "object"})], "tool_choice": "required"},
}


@pytest.mark.parametrize("asked", UNFIT)
@pytest.mark.parametrize("verb", ["send", "stream"])
def test_a_model_that_misses_the_form_is_not_left_alone(
    world: World, verb: str, asked: str
) -> None:
    """It is there and writes: the next request, which may ask for less, is not refused."""
    able = frozenset({*ABLE, Capability.JSON, Capability.SCHEMA, Capability.TOOLS})
    vendor = Scripted("no JSON, no call", capabilities=able)
    moved: list[Event] = []
    patience = {"retry": RetryPolicy(same_target=0), "breaker": BreakerPolicy(failures=1)}

    heard = world((vendor,), verb, "hi", on_event=moved.append, **UNFIT[asked], **patience)

    assert isinstance(heard.error, BadReply | StreamInterrupted), heard.error
    assert not [event for event in moved if isinstance(event, BreakerMoved)]


# -- limits ------------------------------------------------------------------------------------


def test_no_more_are_served_at_once_than_the_limit() -> None:
    """Who comes on top waits for a turn, and all get theirs."""
    there, most, lock = [0], [0], threading.Lock()

    def reply(_: Request) -> Sequence[Step]:
        with lock:
            there[0] += 1
            most[0] = max(most[0], there[0])
        return [0.02, "ok"]

    def heard(event: Event) -> None:
        if isinstance(event, AttemptEnded):
            with lock:
                there[0] -= 1

    limits = {"scripted": Limits(concurrency=2)}
    with Dispatcher(Scripted(reply), limits=limits, on_event=heard) as d:
        results = d.send_many(["hi"] * 12, concurrency=12)

    assert [str(result) for result in results] == ["ok"] * 12
    assert 1 <= most[0] <= 2 * 2, "the end of each may be told just after its turn is given back"


def test_a_limit_that_is_used_up_refuses_or_lets_the_next_serve() -> None:
    """With ``waits=False`` nobody waits: another vendor is asked, or LimitReached is raised."""
    used_up = {"first": Limits(requests_per_day=1, waits=False)}
    first, second = Scripted("a", name="first"), Scripted("b", name="second")
    with Dispatcher(first, second, limits=used_up) as d:
        assert [d.send("hi").vendor for _ in range(3)] == ["first", "second", "second"]
    with Dispatcher(first, limits=used_up, retry=RetryPolicy(max_wait_s=0)) as d:
        d.send("hi")
        with pytest.raises(LimitReached) as caught:
            d.send("hi")

    assert (caught.value.retry_after_s or 0) > 1000


@pytest.mark.parametrize("limits", [3, {"first": 3}])
def test_limits_that_are_none_are_refused(limits: Any) -> None:
    """Whatever is no limit is named."""
    with pytest.raises(BadRequest, match="limits"):
        Dispatcher(Scripted("a"), limits=limits)


# -- money -------------------------------------------------------------------------------------


def rows(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Return what is in the ledger's file: who, which attempt, how it ended, what it cost."""
    import sqlite3  # noqa: PLC0415 - for these tests
    from contextlib import closing  # noqa: PLC0415 - as above

    ledger.flush()
    with closing(sqlite3.connect(ledger.path)) as file:
        return file.execute(
            "SELECT vendor, number, fate, cost_microusd FROM attempts ORDER BY vendor, number"
        ).fetchall()


def test_every_attempt_is_a_row(tmp_path: Path, world: World) -> None:
    """What failed and was absorbed, and what was served, with what it cost."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    first = Scripted(TimedOut("first_token", 1.0), name="first", price=PAID)
    second = Scripted("one two", name="second", price=PAID)
    heard = world((first, second), "send", "hi", ledger=ledger, tags=["night"])

    found = rows(ledger)
    ledger.close()
    assert heard.reply is not None
    reply = heard.reply
    assert [row[:3] for row in found] == [("first", 1, "absorbed"), ("second", 2, "served")]
    assert found[1][3] == reply.decision.attempts[1].cost_microusd


def test_a_stream_that_is_left_is_a_row_too(tmp_path: Path) -> None:
    """Of a reply that was partly shown the ledger says so."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    left = Scripted(["one ", 30.0, "two"])
    with Dispatcher(left, ledger=ledger) as d, d.stream("hi") as stream:
        next(stream)

    assert [row[:3] for row in rows(ledger)] == [("scripted", 1, "partial")]
    ledger.close()


def test_a_cap_holds_before_anything_is_sent(tmp_path: Path) -> None:
    """A request whose worst case does not fit is refused, or served by who is free."""
    ledger = Ledger(tmp_path / "ledger.sqlite3", caps=[SpendingCap("0.0004", period="day")])
    asked: list[str] = []

    def paid(_: Request) -> str:
        asked.append("paid")
        return "one two"

    with Dispatcher(Scripted(paid, name="paid", price=PAID), ledger=ledger) as d:
        d.send("hi", max_tokens=10)
        with pytest.raises(BudgetExceeded):
            d.send("hi", max_tokens=1000)
        d.register_vendor(Scripted("free", name="free"))
        assert d.send("hi", max_tokens=1000).vendor == "free"

    assert asked == ["paid"]
    ledger.close()


def test_a_request_has_a_limit_of_its_own() -> None:
    """``max_cost_usd`` refuses what may cost more, and asks for ``max_tokens`` where it must."""
    with Dispatcher(Scripted("one two", price=PAID)) as d:
        assert d.send("hi", max_tokens=10, max_cost_usd="0.01").text == "one two"
        with pytest.raises(BudgetExceeded, match="max_cost_usd"):
            d.send("hi", max_tokens=100_000, max_cost_usd=0.01)
        with pytest.raises(BudgetExceeded, match="max_tokens"):
            d.send("hi", max_cost_usd=0.01)
        with pytest.raises(BadRequest, match="max_cost_usd"):
            d.send("hi", max_cost_usd=-1)


# -- streams that break ------------------------------------------------------------------------


def broken(*steps: Step) -> Scripted:
    """Return a vendor whose reply breaks in the middle."""
    return Scripted([*steps, CUT], name="first")


def going_on(request: Request) -> str:
    """Continue "one two three four" behind the prefill, or say all of it."""
    whole = "one two three four"
    return whole.removeprefix(request.prefill)


def test_another_goes_on_exactly_there(world: World) -> None:
    """The text so far is given as a prefill; what is shown and the reply are the whole."""
    vendors = broken("one ", "two "), Scripted(going_on, name="second")
    heard = world(vendors, "stream", "hi", retry=SOON, resume="continue")

    assert heard.reply is not None
    assert heard.text == heard.reply.text == "one two three four"
    assert not any(delta.restarts for delta in heard.deltas)
    assert heard.reply.vendor == "second"


def test_who_cannot_go_on_begins_anew_if_that_was_asked(world: World) -> None:
    """A delta and an event say that what was shown counts no more."""
    events: list[Event] = []
    blunt = Scripted("all of it", name="second", capabilities=[Capability.CHAT])
    vendors = broken("one ", "two "), blunt
    told: dict[str, Any] = {"retry": SOON, "on_event": events.append}
    heard = world(vendors, "stream", "hi", resume="restart", **told)

    again = [delta.restarts for delta in heard.deltas].index(True)
    assert heard.reply is not None
    assert "".join(heard.pieces[:again]) == "one two "
    assert "".join(heard.pieces[again:]) == heard.reply.text == "all of it"
    assert [(e.name, e.shown_chars) for e in events if isinstance(e, Restarted)] == [
        ("second/script", 8)
    ]


def test_who_cannot_go_on_is_passed_over_if_that_was_not_asked() -> None:
    """With "continue" nothing is shown twice: the cut is raised, with all that came."""
    blunt = Scripted("all of it", name="second", capabilities=[Capability.CHAT])
    with (
        Dispatcher(
            broken("one ", "two "), blunt, retry=RetryPolicy(attempts=2, same_target=0)
        ) as d,
        d.stream("hi", resume="continue") as stream,
        pytest.raises(StreamInterrupted) as caught,
    ):
        list(stream)

    assert caught.value.partial.startswith("one two ")
    assert d.stats().by_model.keys() == {"first/script"}


def test_a_prefill_that_is_refused_is_no_failure() -> None:
    """Whoever refuses to go on is asked to begin anew."""

    def stiff(request: Request) -> Any:
        return BadRequest("prefill", "", "left out") if request.prefill else "all of it"

    with Dispatcher(broken("one "), Scripted(stiff, name="second"), retry=SOON) as d:
        with d.stream("hi", resume="restart") as stream:
            shown = [delta for delta in stream if delta]

        assert stream.reply.text == stream.partial == "all of it"
        assert [delta.restarts for delta in shown].count(True) == 1


def test_a_stream_breaks_as_before_unless_told_otherwise() -> None:
    """Without ``resume`` a cut is raised, and nobody else is asked."""
    with (
        Dispatcher(broken("one "), Scripted("b", name="second"), retry=SOON) as d,
        d.stream("hi") as stream,
        pytest.raises(StreamInterrupted) as caught,
    ):
        list(stream)

    assert caught.value.partial == "one "
    assert d.stats().by_model.keys() == {"first/script"}


def test_a_resume_that_is_none_is_refused() -> None:
    """The words are told."""
    with pytest.raises(BadRequest, match="continue"):
        Request(messages="hi", resume="perhaps")
