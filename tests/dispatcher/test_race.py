"""Parallel and Hedge: who wins, what becomes of the others, and what all of it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from waits import SOON_S, until
from worlds import WORLDS, Heard

from llmdispatcher import (
    AllVendorsFailed,
    AttemptEnded,
    BadRequest,
    CallDelta,
    Capability,
    ContentRefused,
    Deadlines,
    Delta,
    Dispatcher,
    Event,
    Hedge,
    NoGoodAnswer,
    Overloaded,
    Parallel,
    Price,
    Reply,
    Request,
    ResponseFormat,
    RetryPolicy,
    Scripted,
    StreamInterrupted,
    ToolSpec,
    Usage,
)
from llmdispatcher.hedging import LEAST, PRIOR_S, Hedging
from llmdispatcher.models.reply import MICRO_PER_USD, Finish, FinishReason, Outcome
from llmdispatcher.vendors.scripted import ABLE, CUT, Step
from llmdispatcher.worst import worst_case

pytestmark = pytest.mark.usefixtures("settled")

World = Callable[..., Heard]
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
verbs = pytest.mark.parametrize("verb", ["send", "stream"])

NEVER = 60.0
"""Seconds that no test waits."""

SHORT_S = 3.0
"""A time that passes while a test waits, and that no machine is too slow to begin before."""


def price(dollars: float) -> Price:
    """A price per million tokens of either kind."""
    return Price.per_million(dollars, dollars)


def vendor(name: str, *replies: Any, **facts: Any) -> Scripted:
    """A vendor of a name."""
    return Scripted(*replies, name=name, **facts)


def cloud(name: str, *replies: Any, **facts: Any) -> Scripted:
    """A vendor that has nothing to load."""
    return Scripted(*replies, name=name, local=False, **facts)


class Asked:
    """Counts who was asked, so that another vendor can answer behind that and not before."""

    def __init__(self) -> None:
        self._times = threading.Semaphore(0)

    def never(self, _: Request) -> list[float]:
        """Take note of a request, and answer nothing."""
        self._times.release()
        return [NEVER]

    def before(self, *steps: Step) -> Callable[[Request], Iterator[Step]]:
        """Answer once the other one was asked as often as this one."""

        def answer(_: Request) -> Iterator[Step]:
            self._times.acquire(timeout=SOON_S)
            yield from steps

        return answer


def outcomes(reply: Reply | None) -> dict[str, Outcome]:
    """Return what became of each vendor."""
    assert reply is not None
    return {each.vendor: each.outcome for each in reply.decision.attempts}


def balanced(heard: Heard) -> None:
    """Check that every attempt was settled, and is in the decision."""
    assert heard.stats.in_flight == 0
    assert heard.stats.requests == 1
    if heard.reply is not None:
        assert heard.stats.total.attempts == len(heard.reply.decision.attempts)
        assert heard.reply.cost_microusd == heard.stats.total.cost_microusd


@worlds
@verbs
def test_the_first_good_answer_wins(world: World, verb: str) -> None:
    """Who answers first wins though it is not the cheapest, and the others are stopped."""
    specs = (
        vendor("slow", [NEVER, "slow"], price=price(1)),
        vendor("quick", ["qu", "ick"], price=price(2)),
        vendor("not_asked", "no", price=price(3)),
    )

    heard = world(specs, verb, "hi", strategy=Parallel())

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("quick", "quick")
    assert outcomes(heard.reply) == {"slow": Outcome.CANCELLED, "quick": Outcome.SERVED}
    assert heard.text == ("quick" if verb == "stream" else "")
    assert heard.reply.decision.notes == (
        "parallel: asked slow/script, quick/script",
        "quick/script won; stopped: slow/script",
    )
    balanced(heard)


@worlds
@verbs
def test_the_place_of_one_that_fails_is_taken(world: World, verb: str) -> None:
    """A failure is made up for by the next candidate, while others go on."""
    specs = (
        vendor("never", [NEVER, "x"], price=price(1)),
        vendor("fails", Overloaded("full"), price=price(2)),
        vendor("next", "ok", price=price(3)),
    )

    heard = world(specs, verb, "hi", strategy=Parallel(count=2))

    assert heard.reply is not None
    assert heard.reply.vendor == "next"
    assert outcomes(heard.reply) == {
        "never": Outcome.CANCELLED,
        "fails": Outcome.FAILED,
        "next": Outcome.SERVED,
    }
    balanced(heard)


@worlds
@verbs
def test_where_all_fail_every_error_is_kept(world: World, verb: str) -> None:
    """One error for each attempt that was made."""
    specs = tuple(vendor(name, ContentRefused(name)) for name in "abc")

    heard = world(specs, verb, "hi", strategy=Parallel(count=None))

    assert isinstance(heard.error, AllVendorsFailed)
    assert {str(error)[:1] for error in heard.error.exceptions} == set("abc")
    balanced(heard)


@worlds
def test_an_answer_that_is_not_good_does_not_win(world: World) -> None:
    """What a content filter cut is passed over, and another candidate asked in its place."""
    filtered: list[Any] = ["cut", Finish(FinishReason.CONTENT_FILTER, Usage())]
    specs = (vendor("a", filtered), vendor("b", [NEVER, "b"]), vendor("c", [0.05, "c"]))

    heard = world(specs, "send", "hi", strategy=Parallel(count=2))

    assert heard.reply is not None
    assert heard.reply.text == "c"
    assert "a/script is not good: a content filter cut it" in heard.reply.decision.notes
    balanced(heard)


@worlds
def test_where_none_is_good_the_first_comes_with_a_warning(world: World) -> None:
    """Nothing that was paid for is thrown away, and the caller is told."""
    filtered: list[Any] = ["cut", Finish(FinishReason.CONTENT_FILTER, Usage())]

    heard = world((vendor("a", filtered),), "send", "hi", strategy=Parallel())

    assert heard.reply is not None
    assert heard.reply.text == "cut"
    assert heard.reply.warnings == ("no answer was good; this one: a content filter cut it",)


@worlds
@verbs
def test_the_caller_says_what_is_good(world: World, verb: str) -> None:
    """``accept`` decides; a stream yields the whole answer in one piece."""
    specs = (vendor("a", ["no", "pe"]), vendor("b", [0.05, "y", "es"]))

    heard = world(specs, verb, "hi", strategy=Parallel(accept=lambda reply: reply.text == "yes"))

    assert heard.reply is not None
    assert heard.reply.text == "yes"
    assert heard.pieces == (("yes",) if verb == "stream" else ())
    balanced(heard)


@worlds
def test_answers_that_are_not_accepted_are_kept_in_the_error(world: World) -> None:
    """The caller gets all that was paid for, and why it was refused."""
    specs = (vendor("a", "one"), vendor("b", [0.02, "two"]), vendor("c", [0.04, "three"]))

    heard = world(specs, "send", "hi", strategy=Parallel(count=2, accept=lambda _: False))

    assert isinstance(heard.error, NoGoodAnswer)
    assert {reply.text for reply in heard.error.replies} == {"one", "two", "three"}
    assert set(heard.error.reasons) == {"it was not accepted"}
    balanced(heard)


@worlds
def test_what_accept_raises_is_the_callers(world: World) -> None:
    """A bug in the caller's own function comes to the caller, with everything settled."""

    def accept(_: Reply) -> bool:
        raise ZeroDivisionError

    heard = world(
        (vendor("a"), vendor("b", [NEVER])), "send", "hi", strategy=Parallel(accept=accept)
    )

    assert isinstance(heard.error, ZeroDivisionError)
    balanced(heard)


@worlds
def test_a_race_has_one_allowance(world: World) -> None:
    """No more attempts are made than the policy allows for one request, side by side or not."""
    specs = tuple(vendor(name, [0.02, Overloaded("full")]) for name in "abcdef")

    heard = world(
        specs, "send", "hi", strategy=Parallel(count=4), retry=RetryPolicy(attempts=3, backoff_s=0)
    )

    assert heard.stats.total.failed == 3
    assert isinstance(heard.error, AllVendorsFailed)


@worlds
def test_a_race_has_one_purse(world: World) -> None:
    """``max_cost_usd`` sets the worst case of each aside, so that together they keep to it."""
    refused = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, AttemptEnded) and event.attempt.error.startswith("BudgetExceeded"):
            refused.set()

    def answer(_: Request) -> Iterator[Step]:
        refused.wait(SOON_S)  # the others cost what they may until then
        yield "ok"

    specs = tuple(vendor(name, answer, price=price(100)) for name in "abc")
    worst = worst_case(specs[0].card, Request(messages="hi", max_tokens=8)).microusd
    assert worst is not None

    heard = world(
        specs,
        "send",
        "hi",
        strategy=Parallel(count=3),
        max_tokens=8,
        max_cost_usd=Decimal(worst * 5 // 2) / MICRO_PER_USD,
        on_event=hear,
    )

    assert heard.reply is not None
    errors = [each.error.partition(":")[0] for each in heard.reply.decision.attempts]
    assert sorted(errors) == ["", "", "BudgetExceeded"]
    balanced(heard)


@worlds
def test_the_total_deadline_holds_for_all(world: World) -> None:
    """A race of the silent ends when the time is over, and not when each has had it."""
    specs = tuple(vendor(name, [NEVER, "x"]) for name in "abc")

    deadlines = Deadlines(total_s=SHORT_S)
    heard = world(specs, "send", "hi", strategy=Parallel(count=2), deadlines=deadlines)

    assert heard.error is not None
    assert heard.stats.total.failed == 2
    balanced(heard)


@worlds
def test_a_winner_that_breaks_off_is_an_error(world: World) -> None:
    """Once something was shown, a stream that is cut raises, as of a single vendor."""
    heard = world(
        (vendor("a", ["half ", CUT]), vendor("b", [NEVER, "x"])),
        "stream",
        "hi",
        strategy=Parallel(),
    )

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.text == heard.error.partial == "half "
    balanced(heard)


@worlds
def test_a_winner_that_breaks_off_is_gone_on_with(world: World) -> None:
    """Where the request says so, another candidate goes on with what the winner has shown."""
    specs = (
        vendor("a", ["half ", CUT]),
        vendor("b", [NEVER, "x"]),
        vendor("c", lambda asked: f"and {asked.prefill}more"),
    )

    heard = world(specs, "stream", "hi", strategy=Parallel(), resume="continue")

    assert heard.reply is not None
    assert heard.reply.text == heard.text == "half and half more"
    assert outcomes(heard.reply)["b"] is Outcome.CANCELLED
    balanced(heard)


def test_the_vendor_of_a_loser_sees_that_it_is_stopped() -> None:
    """A loser is not left to write for nobody."""
    with Dispatcher(vendor("slow", ["x"] * 3 + [NEVER]), vendor("quick", [0.05, "ok"])) as d:
        assert d.send("hi", strategy="parallel").text == "ok"
        until(lambda: all(each.status.running == 0 for each in d.vendors()))


def test_races_leave_nothing_behind() -> None:
    """After three hundred races there are as many threads as before."""
    with Dispatcher(vendor("slow", [NEVER]), vendor("quick", "ok")) as d:
        d.send("hi", strategy=Parallel())
        before = threading.active_count()
        for _ in range(300):
            d.send("hi", strategy=Parallel())
        until(lambda: threading.active_count() <= before)
        assert d.stats().in_flight == 0
        assert d.stats().total.cancelled == 301


def test_leaving_a_race_stops_all() -> None:
    """A stream that is left settles the winner too."""
    with Dispatcher(vendor("a", ["x", NEVER]), vendor("b", [NEVER])) as d:
        with d.stream("hi", strategy=Parallel()) as stream:
            assert next(stream) == Delta("x")
        assert d.stats().in_flight == 0
        assert d.stats().total.cancelled == 2


def test_closing_a_race_from_another_thread() -> None:
    """``close`` releases whoever waits for the first of several."""
    with Dispatcher(vendor("a", [NEVER]), vendor("b", [NEVER])) as d:
        stream = d.stream("hi", strategy=Parallel())

        def close() -> None:
            until(lambda: sum(each.status.running for each in d.vendors()) == 2)
            time.sleep(0.05)  # by then the reader waits, most often
            stream.close()

        button = threading.Thread(target=close)
        button.start()
        assert list(stream) == []
        button.join()
        assert d.stats().in_flight == 0
        assert d.stats().total.cancelled == 2


# -- hedge -------------------------------------------------------------------------------------

EAGER = Hedge(after_s=0.02, max_extra=1)


@worlds
@verbs
def test_a_copy_is_sent_to_the_next_when_the_first_is_late(world: World, verb: str) -> None:
    """Whoever answers first wins, and the other is stopped and settled."""
    heard = world(
        (vendor("late", [NEVER, "x"]), cloud("next", ["o", "k"])), verb, "hi", strategy=EAGER
    )

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("ok", "next")
    assert outcomes(heard.reply) == {"late": Outcome.CANCELLED, "next": Outcome.SERVED}
    assert heard.reply.decision.notes[0] == (
        "hedge: late/script had not begun after 0.02 s, and a copy went to next/script"
    )
    balanced(heard)


@worlds
@verbs
def test_no_copy_is_sent_while_the_first_is_in_time(world: World, verb: str) -> None:
    """Who has begun to answer is not late, however long the answer takes."""
    plan = Hedge(after_s=SHORT_S, max_extra=1)

    heard = world((vendor("a", ["o", SHORT_S + 0.2, "k"]), cloud("b")), verb, "hi", strategy=plan)

    assert outcomes(heard.reply) == {"a": Outcome.SERVED}
    balanced(heard)


@worlds
def test_the_first_may_still_win(world: World) -> None:
    """A copy that is slower is stopped."""
    asked = Asked()
    specs = vendor("a", asked.before("a")), cloud("b", asked.never)

    heard = world(specs, "send", "hi", strategy=EAGER)

    assert outcomes(heard.reply) == {"b": Outcome.CANCELLED, "a": Outcome.SERVED}
    balanced(heard)


@worlds
def test_loading_is_not_late(world: World) -> None:
    """A local model that is being loaded is waited for, without a copy."""
    plan = Hedge(after_s=SHORT_S, max_extra=1)
    loads = vendor("loads", "ok", load_s=SHORT_S + 0.2)

    heard = world((loads, cloud("b")), "send", "hi", strategy=plan)

    assert outcomes(heard.reply) == {"loads": Outcome.SERVED}


@worlds
def test_a_model_that_would_have_to_be_loaded_gets_no_copy(world: World) -> None:
    """A copy goes to the first candidate that can begin at once."""
    specs = (
        vendor("late", [NEVER]),
        vendor("unloaded", "x", load_s=NEVER),
        cloud("cloud", "ok"),
    )

    heard = world(specs, "send", "hi", strategy=EAGER)

    assert outcomes(heard.reply) == {"late": Outcome.CANCELLED, "cloud": Outcome.SERVED}


@worlds
def test_a_cloud_that_is_alone_is_asked_twice(world: World) -> None:
    """Where there is nobody else, the copy goes to the same, by a name of its own."""
    heard = world((cloud("cloud", [NEVER], "ok"),), "send", "hi", strategy=EAGER)

    assert heard.reply is not None
    assert heard.reply.text == "ok"
    assert [a.outcome for a in heard.reply.decision.attempts] == ["cancelled", "served"]


@worlds
def test_a_local_model_that_is_alone_is_not_asked_twice(world: World) -> None:
    """The copy would only take its turn from the first."""
    heard = world((vendor("a", [0.6, "ok"]),), "send", "hi", strategy=EAGER)

    assert outcomes(heard.reply) == {"a": Outcome.SERVED}
    assert heard.reply is not None
    assert "no copy was sent: there is nobody else to ask" in heard.reply.decision.notes[0]


@worlds
def test_a_hedge_falls_back_like_any_request(world: World) -> None:
    """A failure before anybody is late goes to the next candidate."""
    heard = world((vendor("a", ContentRefused("no")), vendor("b")), "send", "x", strategy=EAGER)
    assert isinstance(heard.error, ContentRefused)

    heard = world((vendor("a", Overloaded("full")), vendor("b")), "send", "x", strategy=EAGER)
    assert outcomes(heard.reply) == {"a": Outcome.FAILED, "b": Outcome.SERVED}
    balanced(heard)


def test_copies_are_held_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thirteen slow requests with a share of a quarter, three have a copy.

    The slow one answers once the copy was asked, or was found to be none too many.
    """
    asked, take = threading.Semaphore(0), Hedging.take

    def decide(*given: Any) -> str:
        if why := take(*given):
            asked.release()
        return why

    def slow(_: Request) -> Iterator[Step]:
        asked.acquire(timeout=SOON_S)
        yield "x"

    def copy(_: Request) -> str:
        asked.release()
        return "ok"

    monkeypatch.setattr(Hedging, "take", decide)
    with Dispatcher(vendor("slow", slow), cloud("b", copy)) as d:
        for _ in range(13):
            d.send("hi", strategy=Hedge(after_s=0.0, max_extra=0.25))
        assert d.stats().total.attempts == 16


def test_copies_for_money_are_held_to_what_was_spent() -> None:
    """A copy that would cost more than a share of what was spent is not sent."""
    slow = vendor("slow", "x", [SHORT_S, "x"], price=price(1))
    specs = (slow, cloud("dear", "x", price=price(1000)))
    with Dispatcher(*specs) as d:
        d.send("hi", max_tokens=10)
        reply = d.send("hi", max_tokens=10, strategy=Hedge(after_s=0.0, max_extra=1))

    assert outcomes(reply) == {"slow": Outcome.SERVED}
    assert "copies may cost 100% of what is spent" in reply.decision.notes[0]


def test_what_is_late_is_learned() -> None:
    """After eight requests it is what the model has taken, and no longer two seconds."""
    turn = iter(range(100))

    def answers(_: Request) -> list[str | float]:
        return [NEVER if next(turn) == 10 else 0.001, "ok"]

    with Dispatcher(vendor("a", answers), cloud("b", "b")) as d:
        for _ in range(10):
            d.send("hi", vendor="a", strategy=Hedge(max_extra=1))
        reply = d.send("hi", strategy=Hedge(max_extra=1))

    assert (reply.vendor, outcomes(reply)["a"]) == ("b", Outcome.CANCELLED)
    assert reply.latency_s < SOON_S


def test_those_who_were_given_up_late_are_remembered() -> None:
    """The time until then counts, or what is slow would never be known to be."""
    with Dispatcher(vendor("late", [NEVER]), cloud("copy", "ok")) as d:
        hedging = d._desk._patience.hedging
        for _ in range(LEAST):
            hedging.heard("late/script", 0.001)
        for _ in range(3):
            d.send("hi", strategy=Hedge(max_extra=1, after_s=0.05))

        assert hedging.late_s("late/script", 0.5) == 0.001
        assert hedging.late_s("late/script", 0.95) >= 0.05


def test_a_copy_that_was_stopped_at_once_says_nothing_of_its_model() -> None:
    """It was not late when it was given up."""
    asked = Asked()
    with Dispatcher(vendor("first", asked.before("x")), cloud("copy", asked.never)) as d:
        for _ in range(LEAST):
            reply = d.send("hi", strategy=Hedge(max_extra=1, after_s=0.01))
            assert outcomes(reply)["copy"] is Outcome.CANCELLED

        assert d._desk._patience.hedging.late_s("copy/script", 0.5) == PRIOR_S


@worlds
def test_an_answer_that_does_not_fit_its_form_is_made_up_for(world: World) -> None:
    """What is no JSON fails, and the next candidate takes its place."""
    able = (*ABLE, Capability.JSON)
    specs = (
        vendor("text", "no JSON", capabilities=able, price=price(1)),
        vendor("never", [NEVER], capabilities=able, price=price(2)),
        vendor("json", '{"a": 1}', capabilities=able, price=price(3)),
    )

    heard = world(specs, "send", "hi", strategy=Parallel(), response_format=ResponseFormat("json"))

    assert heard.reply is not None
    assert heard.reply.parsed == {"a": 1}
    assert outcomes(heard.reply)["text"] is Outcome.FAILED
    balanced(heard)


@worlds
def test_calls_of_tools_are_shown_whole(world: World) -> None:
    """A stream that shows an answer in one piece shows its calls, thoughts and choices in it."""
    call = CallDelta(0, "1", "look", '{"at": 1}')
    told: list[Any] = [
        Delta("", reasoning="hm", tool_calls=(call,)),
        Finish(FinishReason.TOOL_CALLS, Usage()),
    ]
    tool = ToolSpec("look", "Look.", {"type": "object"})
    specs = (vendor("a", told, capabilities=(*ABLE, Capability.TOOLS)),)

    heard = world(specs, "stream", "hi", strategy=Parallel(accept=lambda reply: True), tools=[tool])

    assert heard.deltas == (Delta("", reasoning="hm", tool_calls=(call,)),)
    heard = world((vendor("a", "x"),), "stream", "hi", strategy=Parallel(accept=bool), n=2)
    assert heard.deltas == (Delta("x"), Delta("x", 1))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Parallel(count=0), "count"),
        (lambda: Parallel(accept=True), "accept"),  # type: ignore[arg-type]
        (lambda: Hedge(percentile=1.5), "percentile"),
        (lambda: Hedge(percentile=None), "percentile"),  # type: ignore[arg-type]
        (lambda: Hedge(after_s=-1), "after_s"),
        (lambda: Hedge(max_extra=2), "max_extra"),
    ],
)
def test_a_plan_of_wrong_values_is_refused(make: Callable[[], Any], field: str) -> None:
    """The error names the field."""
    with pytest.raises(BadRequest, match=field):
        make()
