"""The strategies, through the public door, and what a dispatcher learns between requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from llmdispatcher import (
    BadRequest,
    BreakerPolicy,
    Delta,
    Dispatcher,
    DispatcherError,
    FinishReason,
    Overloaded,
    Price,
    Request,
    RetryPolicy,
    Routing,
    Scripted,
    Strategy,
    ToolSpec,
    Usage,
    assistant,
    user,
)
from llmdispatcher.models.reply import Finish
from llmdispatcher.models.strategy import PLANS, STRATEGIES
from llmdispatcher.models.task import Complexity, Reading, Task, TaskRule
from llmdispatcher.outlook import size
from llmdispatcher.worst import ENDLESS_BYTES


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Leave the product's own defaults: breakers are part of what is tested."""


CHEAP, DEAR = Price.per_million(1, 1), Price.per_million(2, 2)


def vendor(name: str, price: Price | None = CHEAP, *replies: Any, local: bool = False) -> Scripted:
    """Make a cloud, or a local model, that answers with its name."""
    return Scripted(*(replies or (name,)), name=name, price=price, local=local)


class Clock:
    """Time that passes only where a reply takes some: no machine is slow in it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def after(self, took_s: float, text: str) -> Callable[[Request], str]:
        """Make a reply that takes so long."""

        def reply(_: Request) -> str:
            self.now_s += took_s
            return text

        return reply

    def drive(self, d: Dispatcher) -> None:
        """Have a dispatcher go by it."""
        d._desk._clock = d._desk.chooser._clock = lambda: self.now_s


def order(d: Dispatcher, **options: Any) -> list[str]:
    """Return the vendors in the order in which they would be asked."""
    return [each.vendor for each in d.explain("hi", **options).candidates]


def test_every_name_is_a_strategy() -> None:
    """Names of strategies are rows; those of plans are loaded when they are used."""
    assert {"auto", "cost", "fast", "sophisticated", "cost_saving"} <= set(STRATEGIES)
    assert set(PLANS) == {"parallel", "hedge", "ensemble", "cascade", "chain"}
    assert Request.of("x", strategy="latency").strategy == Strategy(order="latency")


def test_an_unknown_strategy_names_the_nearest() -> None:
    """A misspelt name is refused before anything is sent, for a request and for a dispatcher."""
    with pytest.raises(BadRequest, match="did you mean 'latency'"):
        Request.of("x", strategy="latencyy")
    with pytest.raises(BadRequest, match="did you mean 'cost'"):
        Dispatcher(vendor("a"), strategy="costs")
    with pytest.raises(BadRequest, match=r"a Strategy\(…\) or a plan"):
        Dispatcher(vendor("a"), strategy=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("cost", ["cloud", "dear", "local"]),
        ("priority", ["dear", "local", "cloud"]),
        ("local_only", ["local"]),
        ("cloud_only", ["cloud", "dear"]),
        ("local_first", ["local", "cloud", "dear"]),
        ("cloud_first", ["cloud", "dear", "local"]),
    ],
)
def test_where_and_in_which_order(strategy: str, expected: list[str]) -> None:
    """By cost, by the caller's own order, and by where a model runs; for one request or for all."""
    vendors = (
        vendor("dear", DEAR),
        vendor("local", Price.per_million(9, 9), local=True),
        vendor("cloud"),
    )
    with Dispatcher(*vendors) as d:
        assert order(d, strategy=strategy) == expected
    with Dispatcher(*vendors, strategy=strategy) as d:
        assert order(d) == expected
        assert order(d, strategy="cost") == ["cloud", "dear", "local"]


def test_priorities_are_of_vendors_and_of_models() -> None:
    """The model's own counts more than its vendor's; the smaller comes first; none is 0."""
    routing = Routing(priorities={"a": 5, "b": 2, "b/script": -1})
    with Dispatcher(vendor("a"), vendor("c"), vendor("b"), routing=routing) as d:
        assert order(d, strategy="priority") == ["b", "c", "a"]
        assert order(d) == ["b", "c", "a"]  # they cost the same


def test_quality_comes_first_and_the_floor_holds() -> None:
    """The best tier first, or whoever reaches a tier before those who do not."""
    catalog = {"models": {"a/script": {"quality": 2}, "b/script": {"quality": 5}}}
    with Dispatcher(vendor("a"), vendor("b", DEAR), vendor("c"), catalog=catalog) as d:
        assert order(d, strategy="sophisticated") == ["b", "c", "a"]
        assert order(d, strategy=Strategy(least_quality=3)) == ["c", "b", "a"]


def test_round_robin_gives_everybody_a_turn() -> None:
    """Three requests, three vendors, and again."""
    with Dispatcher(vendor("a"), vendor("b", DEAR), vendor("c"), strategy="round_robin") as d:
        assert [d.send("hi").vendor for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_weights_are_shares() -> None:
    """Who weighs three times as much is asked three times as often; who weighs nothing, last."""
    routing = Routing(weights={"a": 3, "b": 1, "c": 0})
    vendors = vendor("a"), vendor("b"), vendor("c")
    with Dispatcher(*vendors, strategy="weighted", routing=routing) as d:
        firsts = Counter(order(d)[0] for _ in range(2000))

    assert firsts["c"] == 0
    assert firsts["a"] / 2000 == pytest.approx(0.75, abs=0.06)  # six standard deviations


def test_whoever_fails_gets_less_and_never_nothing() -> None:
    """The share of one that fails shrinks, and is enough to find it when it is back."""
    failing = vendor("a", CHEAP, *[Overloaded("full")] * 20, "back")
    refusing: dict[str, Any] = {
        "strategy": "weighted",
        "breaker": BreakerPolicy(failures=1000),
        "retry": RetryPolicy(same_target=0),
    }
    with Dispatcher(failing, vendor("b"), **refusing) as d:
        for _ in range(20):
            d.send("hi", vendor="b" if d.stats().by_model.get("b/script") is None else None)
        firsts = Counter(order(d)[0] for _ in range(1000))

    assert 0 < firsts["a"] < firsts["b"]


def test_the_sooner_is_asked_and_the_others_now_and_then() -> None:
    """By latency; who was never asked is tried; now and then another one goes first."""
    clock = Clock()
    slow = vendor("slow", CHEAP, clock.after(1.0, "late"))
    with Dispatcher(slow, vendor("quick", DEAR), strategy="latency") as d:
        clock.drive(d)
        for _ in range(4):
            d.send("hi")
        firsts = Counter(order(d)[0] for _ in range(1000))

    assert firsts["quick"] > 900
    assert firsts["slow"] > 0
    with Dispatcher(slow, vendor("quick", DEAR), routing=Routing(explore=0)) as d:
        clock.drive(d)
        d.send("hi", vendor="slow")
        d.send("hi", vendor="quick")
        assert {order(d, strategy="fast")[0] for _ in range(200)} == {"quick"}


def test_the_least_busy_is_asked() -> None:
    """Whoever has a request in hand stands behind who has none."""
    hold = vendor("a", CHEAP, ["a", 60.0, "b"])
    with Dispatcher(hold, vendor("b", DEAR), strategy="least_busy") as d:
        assert order(d) == ["a", "b"]
        with d.stream("hi", vendor="a") as stream:
            next(stream)
            assert order(d) == ["b", "a"]
        assert order(d) == ["a", "b"]


def test_equal_costs_go_by_latency_once_it_is_known() -> None:
    """Of two free ones the quicker is asked; a difference that nobody feels is none."""
    clock = Clock()
    slow = vendor("slow", Price.per_million(0, 0), clock.after(0.6, "late"))
    quick = vendor("quick", Price.per_million(0, 0))
    with Dispatcher(slow, quick) as d:
        clock.drive(d)
        assert order(d) == ["slow", "quick"]
        d.send("hi", vendor="slow")
        assert order(d) == ["slow", "quick"]  # nobody knows whether the other is quicker
        d.send("hi", vendor="quick")
        assert order(d) == ["quick", "slow"]


def test_a_model_that_is_not_loaded_waits_behind_one_that_is() -> None:
    """Of equal ones the loaded is asked; with a value of time a load has its price."""
    cold = Scripted("cold", name="cold", load_s=0.4, memory_mb=1)
    warm = vendor("warm", Price.per_million(0.001, 0.001))
    with Dispatcher(cold, warm) as d:
        d.load("script", vendor="cold")
        d.unload("script", vendor="cold")
        assert order(d) == ["cold", "warm"]
    routing = Routing(value_of_time_usd=Decimal(3600))
    with Dispatcher(cold, warm, routing=routing) as d:
        d.load("script", vendor="cold")
        assert order(d) == ["cold", "warm"]
        d.unload("script", vendor="cold")
        assert order(d) == ["warm", "cold"]
        assert "s of time included" in d.explain("hi").candidates[0].note


def test_verbose_models_are_known_by_their_replies() -> None:
    """A model with the lower price that writes ten times as much costs more, once that is seen."""
    long = Finish(FinishReason.STOP, Usage(prompt_tokens=5, completion_tokens=3000))
    short = Finish(FinishReason.STOP, Usage(prompt_tokens=5, completion_tokens=30))
    with Dispatcher(vendor("long", CHEAP, ["x", long]), vendor("short", DEAR, ["x", short])) as d:
        assert order(d) == ["long", "short"]
        for name in ("long", "short") * 10:
            d.send("hi", vendor=name)
        assert order(d) == ["short", "long"]


def test_a_conversation_stays_where_it_is_remembered() -> None:
    """Once cached tokens were billed for less, the next turn costs less where it was shown."""
    usage = Usage(prompt_tokens=4000, completion_tokens=10, cached_tokens=3900)
    price = Price.per_million(2, 2, cached_input="0.1")
    caching = vendor("caching", price, [Delta("x"), Finish(FinishReason.STOP, usage)])
    with Dispatcher(caching, vendor("plain", CHEAP)) as d:
        talk = [user("w " * 8000)]
        assert d.explain(talk).candidates[0].vendor == "plain"
        for _ in range(3):
            reply = d.send(talk, vendor="caching")
            talk += [assistant(reply.text), user("go on")]
        told = d.explain(talk).candidates

    assert told[0].vendor == "caching"
    assert "of them cached" in told[0].note


def test_verdicts_of_callers_move_the_order() -> None:
    """A cheap model whose answers are bad costs more for a good answer than one a little dearer."""
    dearer = Price.per_million("1.2", "1.2")
    with Dispatcher(vendor("cheap"), vendor("dear", dearer)) as d:
        assert order(d) == ["cheap", "dear"]
        reply = d.send("hi", vendor="cheap")
        for _ in range(20):
            d.judge(reply, good=False)
        assert order(d) == ["dear", "cheap"]
        for _ in range(200):
            d.judge(reply, good=True)
        assert order(d) == ["cheap", "dear"]
    with Dispatcher(vendor("other")) as d, pytest.raises(BadRequest, match="registered here"):
        d.judge(reply, good=True)


def test_failures_that_cost_money_are_in_the_price() -> None:
    """A cheap one whose broken replies are billed falls behind; the arithmetic says so."""
    half: list[str | DispatcherError] = ["word " * 2000, Overloaded("full")]
    cheap = Scripted(*[half] * 5, name="cheap", price=Price.per_million(1, 1000))
    dearer = vendor("dear", Price.per_million("1.2", "1200"))
    with Dispatcher(cheap, dearer, breaker=BreakerPolicy(failures=1000)) as d:
        assert order(d) == ["cheap", "dear"]
        for _ in range(3):
            assert d.send("hi").vendor == "dear"
        told = d.explain("hi").candidates

    assert [each.vendor for each in told] == ["dear", "cheap"]
    assert "lost where it fails" in told[1].note


def test_whoever_is_held_back_comes_last() -> None:
    """An open breaker puts a vendor at the end, with the reason, and takes it out of no list."""
    policy = BreakerPolicy(failures=1, open_s=60)
    failing = vendor("a", CHEAP, Overloaded("full"))
    with Dispatcher(failing, vendor("b", DEAR), breaker=policy) as d:
        assert d.send("hi").vendor == "b"
        told = d.explain("hi").candidates

    assert [each.vendor for each in told] == ["b", "a"]
    assert "left alone" in told[1].note


def test_a_prompt_that_does_not_fit_comes_last() -> None:
    """A context that seems too small for prompt and reply puts a model at the end."""
    catalog = {"models": {"small/script": {"context_tokens": 1000}}}
    with Dispatcher(vendor("small"), vendor("large", DEAR), catalog=catalog) as d:
        assert order(d) == ["small", "large"]
        assert order(d, max_tokens=1000) == ["large", "small"]
        told = d.explain("x" * 8000).candidates
    assert [each.vendor for each in told] == ["large", "small"]
    assert "too long for its context of 1000 tokens" in told[1].note


def test_what_is_too_dear_for_the_request_comes_last() -> None:
    """A worst case above max_cost_usd is told with its figure, before anything is sent."""
    price = Price.per_million(1, 1, per_request="0.5")
    with Dispatcher(vendor("fee", price), vendor("dear", Price.per_million(9000, 9000))) as d:
        told = d.explain("hi", max_tokens=10, max_cost_usd="0.3").candidates

    assert [each.vendor for each in told] == ["dear", "fee"]
    assert "max_cost_usd=0.3" in told[1].note


def test_routing_refuses_what_makes_no_sense() -> None:
    """Each field says what it takes."""
    with pytest.raises(BadRequest, match="an integer, the smaller the sooner"):
        Routing(priorities={"a": "first"})  # type: ignore[dict-item]
    with pytest.raises(BadRequest, match="of at least 0"):
        Routing(weights={"a": -1})
    with pytest.raises(BadRequest, match="a mapping of names"):
        Routing(weights=[1])  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="explore"):
        Routing(explore=2)


TIERS = {"models": {"small/script": {"quality": 2}, "large/script": {"quality": 5}}}
SUMMARY = "Summarise this article in two sentences: the harvest was late, and prices rose."


def test_auto_goes_by_the_task_and_says_so() -> None:
    """A tier below the task's rule comes last, and where it is best run comes first."""
    small, large = vendor("small"), vendor("large", DEAR)
    with Dispatcher(small, large, catalog=TIERS) as d:
        assert order(d) == ["small", "large"]
        told = d.explain("hi", strategy="auto", task="code_review")
        reply = d.send(SUMMARY, strategy="auto", max_tokens=5)

    assert [each.vendor for each in told.candidates] == ["large", "small"]
    assert "taken for code_review" in told.notes[0]
    assert "tiers below 4 come last" in told.notes[0]
    assert reply.vendor == "small"
    assert "taken for summarisation" in reply.decision.notes[0]


def test_a_task_without_auto_moves_nothing_but_the_chances() -> None:
    """Only a strategy that asks for it goes by the rules; how hard the task is counts always."""
    small, large = vendor("small"), vendor("large", Price.per_million("1.5", "1.5"))
    with Dispatcher(small, large, catalog=TIERS) as d:
        told = d.explain("hi", task="code_review")

    assert "tiers below" not in told.notes[0]


def test_delegate_is_send_for_a_task() -> None:
    """The verb names the task; options of send hold; an unknown task names the nearest."""
    small, large = vendor("small"), vendor("large", DEAR)
    with Dispatcher(small, large, catalog=TIERS) as d:
        assert d.delegate("debugging", "Why does it stop?", max_tokens=9).vendor == "large"
        assert d.delegate(Task.GENERAL, "A haiku, please.").vendor == "small"
        with pytest.raises(BadRequest, match="did you mean 'debugging'"):
            d.delegate("debuging", "Why?")


def test_rules_and_the_reader_are_the_callers_to_set() -> None:
    """A rule of one's own goes before ours, and so does a reader of one's own."""

    def read(_: Request) -> Reading:
        return Reading(Task.GENERAL, Complexity.HARD, cues=("as I say",))

    small, large = vendor("small"), vendor("large", DEAR)
    routing = Routing(tasks={"general": TaskRule(least_quality=5)}, classifier=read)
    with Dispatcher(small, large, catalog=TIERS, strategy="auto", routing=routing) as d:
        told = d.explain(SUMMARY)

    assert [each.vendor for each in told.candidates] == ["large", "small"]
    assert told.notes == ("taken for general (hard): as I say; tiers below 5 come last",)
    with pytest.raises(BadRequest, match="did you mean 'general'"):
        Routing(tasks={"generall": TaskRule()})
    with pytest.raises(BadRequest, match="a TaskRule"):
        Routing(tasks={"general": 5})  # type: ignore[dict-item]


def test_a_schema_that_is_a_part_of_itself_ends() -> None:
    """What has no end is weighed as more than anybody can read, and not for ever."""
    endless: dict[str, Any] = {"type": "object"}
    endless["properties"] = {"again": endless}
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep, deep]

    sizes = [
        size(Request.of("x", tools=[ToolSpec("f", "", {"type": "object", "default": each})]))
        for each in (endless, deep)
    ]

    assert [each.bytes >= ENDLESS_BYTES for each in sizes] == [True, True]
