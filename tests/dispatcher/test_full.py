"""A local server that is full is waited for where the order is by cost, and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmdispatcher import (
    BadRequest,
    Chain,
    Dispatcher,
    Event,
    Fallback,
    Hedge,
    Overloaded,
    Price,
    Request,
    Retried,
    RetryPolicy,
    Routing,
    Scripted,
    Step,
    Strategy,
    Unreachable,
)
from llmdispatcher.breakers import Passage
from llmdispatcher.models.strategy import STRATEGIES

DEAR = Price.per_million(3, 15)


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Leave the product's own defaults: waiting is what is tested."""


def full(times: int) -> Scripted:
    """Make a free local server that is full so many times, and then answers."""
    return Scripted(*[Overloaded("full", retry_after_s=0.1)] * times, "at home", name="home")


def cloud() -> Scripted:
    """Make somebody elsewhere who charges."""
    return Scripted("elsewhere", name="cloud", price=DEAR, local=False)


def asked(*given: object, **options: Any) -> tuple[str, list[Event]]:
    """Ask once; return the text and what was told of the way there."""
    told: list[Event] = []
    with Dispatcher(*given, on_event=told.append, **options) as d:  # type: ignore[arg-type]
        return d.send("hi").text, told


def test_what_is_free_is_waited_for() -> None:
    """A place that comes free within the wait is taken, and nobody is paid."""
    text, told = asked(full(2), cloud(), retry=RetryPolicy(full_wait_s=0.9))

    assert text == "at home"
    waits = [each for each in told if isinstance(each, Retried)]
    assert [each.name for each in waits] == ["home/script"] * 2
    assert all(each.waited_s > 0 for each in waits)


def test_the_wait_ends() -> None:
    """One that stays full costs the wait, and then somebody elsewhere answers."""
    text, told = asked(full(1000), cloud(), retry=RetryPolicy(full_wait_s=0.9))

    assert text == "elsewhere"
    assert isinstance([each for each in told if isinstance(each, Fallback | Retried)][-1], Fallback)


def passage_of(d: Dispatcher, name: str) -> Passage:
    """Let a request go to a local server, as its breaker sees it."""
    passage = d._desk._patience.breakers.admit(name, time.monotonic(), is_local=True)
    assert isinstance(passage, Passage)
    return passage


OTHER: dict[str, dict[str, Any]] = {
    "latency": {"strategy": "latency", "routing": Routing(explore=0)},
    "priority": {"strategy": "priority"},
    "quality": {"strategy": Strategy(least_quality=3)},
    "time": {"routing": Routing(value_of_time_usd=20)},
    "critical": {"preset": "critical"},
    "speed": {"preset": "speed_first", "routing": Routing(explore=0)},
}


@pytest.mark.parametrize("options", [{}, *OTHER.values()], ids=["cost", *OTHER])
def test_only_who_goes_by_cost_waits(options: dict[str, Any]) -> None:
    """Where something else is worth money, nobody waits longer than for any backoff."""
    policy = RetryPolicy(full_wait_s=0.9, backoff_s=0.01, backoff_cap_s=0.01)
    text, told = asked(full(1), cloud(), retry=policy, **options)

    assert text == ("elsewhere" if options else "at home")
    assert any(isinstance(each, Fallback) for each in told) is bool(options)


def test_who_wants_clouds_first_is_not_by_cost() -> None:
    """Neither the order nor what follows from it: only where the cheapest is what is wanted."""
    with Dispatcher(full(1), cloud()) as d:
        chooser, engines = d._desk.chooser, d._desk._engines
        asked = {
            name: chooser.ranking(Request.of("hi", strategy=name), engines, {}, 0.0).is_by_cost
            for name in STRATEGIES
        }

    by_cost = {"auto", "cost", "local_only", "cloud_only", "local_first", "cost_saving"}
    assert {name for name, is_by_cost in asked.items() if is_by_cost} == by_cost


def test_a_cloud_that_goes_first_is_asked_first() -> None:
    """And whoever is behind it is waited for by nobody who would rather pay."""
    down = Scripted(Unreachable("gone"), name="down", price=DEAR, local=False)
    policy = RetryPolicy(full_wait_s=0.9, backoff_s=0.01, backoff_cap_s=0.01)
    text, told = asked(down, full(1), strategy="cloud_first", retry=policy)

    assert text == "at home"
    assert [type(each) for each in told if isinstance(each, Fallback | Retried)] == [
        Fallback,
        Retried,
    ]


def test_a_free_server_elsewhere_is_asked_at_once() -> None:
    """Nothing is spared by waiting where the next one costs nothing either."""
    lan = Scripted("next door", name="lan", local=False)
    text, told = asked(full(1), lan, cloud(), retry=RetryPolicy(full_wait_s=0.9))

    assert text == "next door"
    assert not [each for each in told if isinstance(each, Retried)]


@pytest.mark.parametrize("number", [1, 4, 8])
def test_however_many_are_full_somebody_answers(number: int) -> None:
    """Each request ends with somebody who is paid, also once breakers know that all are full."""
    homes = [Scripted(Overloaded("full", status=503), name=f"h{i}") for i in range(number)]
    with Dispatcher(*homes, cloud(), retry=RetryPolicy(full_wait_s=0.2)) as d:
        asked = [d.send("hi") for _ in range(5)]

    assert [reply.text for reply in asked] == ["elsewhere"] * 5
    assert all(len(reply.decision.attempts) <= min(8, number + 3) for reply in asked)


def test_whoever_gave_up_in_the_middle_is_not_waited_for() -> None:
    """It had room, and what it wrote may be billed: it fails as any other does."""
    half: list[list[Any]] = [["half a ", Overloaded("full")]] * 3
    policy = RetryPolicy(full_wait_s=0.9, backoff_s=0.01)
    with Dispatcher(Scripted(*half, name="home"), cloud(), retry=policy) as d:
        reply = d.send("hi")
        [broken] = [row for row in d.explain("hi").candidates if row.vendor == "home"]

    assert reply.text == "elsewhere"
    assert [each.vendor for each in reply.decision.attempts] == ["home"] * 3 + ["cloud"]
    assert "it failed too often" in broken.note


def test_a_full_server_is_looked_up_by_its_own_name() -> None:
    """One that is held when its turn comes again is full, whoever failed meanwhile."""
    early: list[Passage] = []

    def twin(_: Request) -> Overloaded | Unreachable:
        late = Overloaded("full", retry_after_s=0.4)  # of one that was sent to the first before
        breakers.report(early[0], late, time.monotonic())
        return Unreachable("gone")

    policy = RetryPolicy(full_wait_s=0.9)
    with Dispatcher(full(1), Scripted(twin, name="twin"), cloud(), retry=policy) as d:
        breakers = d._desk._patience.breakers
        early.append(passage_of(d, "home/script"))
        reply = d.send("hi")

    assert reply.text == "at home"
    assert [each.vendor for each in reply.decision.attempts] == ["home", "twin", "home"]


def test_explain_says_why_a_full_server_comes_last() -> None:
    """One that is full for longer than a request waits has a note of its own."""
    home = Scripted(Overloaded("full", retry_after_s=60.0), name="home")
    with Dispatcher(home, cloud()) as d:
        assert d.send("hi").text == "elsewhere"
        rows = d.explain("hi").candidates

    assert [row.vendor for row in rows] == ["cloud", "home"]
    assert "it is full, for longer than a request waits" in rows[1].note


@pytest.mark.parametrize("retry", [RetryPolicy(full_wait_s=0), RetryPolicy(same_target=0)], ids=str)
def test_who_allows_no_wait_goes_on_at_once(retry: RetryPolicy) -> None:
    """Somebody else is asked, and the same not again."""
    text, told = asked(full(1000), cloud(), retry=retry)

    assert text == "elsewhere"
    assert not [each for each in told if isinstance(each, Retried)]


def test_none_is_no_wait() -> None:
    """The wait is a number of seconds."""
    with pytest.raises(BadRequest, match="full_wait_s"):
        RetryPolicy(full_wait_s=None)  # type: ignore[arg-type]


def test_who_has_nobody_else_waits_until_there_is_room() -> None:
    """A server that is alone and full for a while serves whoever was patient."""
    home = Scripted(*[Overloaded("full", status=503)] * 5, "at home", name="home")
    policy = RetryPolicy(backoff_s=0.01, backoff_cap_s=0.02, full_wait_s=0.1)
    with Dispatcher(home, retry=policy) as d:
        assert d.send("hi").text == "at home"


@pytest.mark.parametrize("status", [408, 504, 522])
def test_who_let_somebody_wait_in_vain_was_not_full(status: int) -> None:
    """It is left alone after some failures, as any other, and no request waits for it in line."""
    late = Scripted(*[Overloaded("late", status=status)] * 9, name="home")
    with Dispatcher(late, cloud(), retry=RetryPolicy(same_target=0)) as d:
        asked = [[each.vendor for each in d.send("hi").decision.attempts] for _ in range(4)]

    assert asked == [["home", "cloud"]] * 3 + [["cloud"]]


def test_a_refusal_that_took_long_is_no_word_of_a_full_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is full says so at once; one that holds every request up is a server that fails."""
    monkeypatch.setattr("llmdispatcher.trial.HELD_S", 0.05)
    slow: list[list[Any]] = [[0.1, Overloaded("full", status=503)]] * 9
    with Dispatcher(Scripted(*slow, name="home"), cloud(), retry=RetryPolicy(same_target=0)) as d:
        asked = [[each.vendor for each in d.send("hi").decision.attempts] for _ in range(4)]

    assert asked == [["home", "cloud"]] * 3 + [["cloud"]]


@pytest.mark.parametrize(
    ("strategy", "first"),
    [
        ("cost", "home"),
        (Chain(("draft", "verify")), "home"),
        ("priority", "cloud"),
        (Hedge(after_s=60), "cloud"),
    ],
    ids=["cost", "chain", "priority", "hedge"],
)
def test_one_that_is_full_keeps_its_place_only_where_it_is_waited_for(
    strategy: Any, first: str
) -> None:
    """Where nobody would wait, whoever is free comes first."""
    full_s = 0.9 * RetryPolicy().full_wait_s  # it is waited for, and full while this test looks
    home = Scripted(Overloaded("full", retry_after_s=full_s), name="home")
    routing = Routing(priorities={"home": 1})
    with Dispatcher(home, cloud(), retry=RetryPolicy(), routing=routing) as d:
        d._desk._patience.breakers.report(
            passage_of(d, "home/script"), Overloaded("full", retry_after_s=full_s), time.monotonic()
        )
        ranked = d.explain("hi", strategy=strategy).candidates

    assert ranked[0].vendor == first


def test_a_step_that_can_be_left_out_does_not_wait_for_a_full_server() -> None:
    """What a chain has already is shown at once, and nobody is asked again and again."""
    judge = Scripted(*[Overloaded("full", status=503)] * 20, name="judge")
    chain = Chain((Step("draft", vendor="cloud"), Step("verify", vendor="judge")))
    policy = RetryPolicy(backoff_s=0.01, backoff_cap_s=0.02)
    with Dispatcher(cloud(), judge, retry=policy) as d:
        reply = d.send("hi", strategy=chain)

    asked = [each.vendor for each in reply.decision.attempts]
    assert reply.text == "elsewhere"
    assert asked == ["cloud"] + ["judge"] * (1 + policy.same_target)
