"""Ensemble: several answers, and one made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from worlds import WORLDS, Heard

from llmdispatcher import (
    AllVendorsFailed,
    AsyncDispatcher,
    BadRequest,
    ContentRefused,
    Dispatcher,
    Ensemble,
    NoGoodAnswer,
    Overloaded,
    Price,
    Request,
    RetryPolicy,
    Scripted,
)
from llmdispatcher.ensemble import read_verdict
from llmdispatcher.models.reply import Outcome

pytestmark = pytest.mark.usefixtures("settled")

World = Callable[..., Heard]
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
verbs = pytest.mark.parametrize("verb", ["send", "stream"])

NEVER = 60.0


def vendor(name: str, *replies: Any, cost: float = 1.0, **facts: Any) -> Scripted:
    """A vendor of a name and a price."""
    return Scripted(*replies, name=name, price=Price.per_million(cost, cost), **facts)


def balanced(heard: Heard) -> None:
    """Check that every attempt was settled, is in the decision, and is paid for."""
    assert (heard.stats.in_flight, heard.stats.requests) == (0, 1)
    if heard.reply is not None:
        assert heard.stats.total.attempts == len(heard.reply.decision.attempts)
        assert heard.reply.cost_microusd == heard.stats.total.cost_microusd


@worlds
@verbs
def test_the_most_frequent_answer_wins(world: World, verb: str) -> None:
    """Answers that are the same but for their dress are one; it is shown in one piece."""
    specs = (vendor("a", "Lyon"), vendor("b", ["Par", "is."]), vendor("c", " paris"))

    heard = world(specs, verb, "capital?", strategy=Ensemble())

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("Paris.", "b")
    assert heard.pieces == (("Paris.",) if verb == "stream" else ())
    notes = [note for note in heard.reply.decision.notes if note.startswith("vote")]
    assert notes in (
        [
            "vote: 2 of 3 for 'Paris.': b/script, c/script",
            "vote: 1 of 3 for 'Lyon': a/script",
        ],
        ["vote: 2 of 2 for 'Paris.': b/script, c/script"],  # the third could not change it
    )
    balanced(heard)


@worlds
def test_a_tie_is_broken_by_quality_and_then_by_order(world: World) -> None:
    """The decision says how."""
    plain = (vendor("a", "yes"), vendor("b", "no"))
    heard = world(plain, "send", "?", strategy=Ensemble(count=2))
    assert heard.reply is not None
    assert heard.reply.text == "yes"
    assert heard.reply.decision.notes[-1] == "vote: a tie, broken by their order"

    known = {"models": {"a/script": {"quality": 2}, "b/script": {"quality": 5}}}
    heard = world(plain, "send", "?", strategy=Ensemble(count=2), catalog=known)
    assert heard.reply is not None
    assert heard.reply.text == "no"
    assert heard.reply.decision.notes[-1] == "vote: a tie, broken by quality 5 against 2"
    balanced(heard)


@worlds
def test_a_vote_that_is_decided_is_not_waited_for(world: World) -> None:
    """Who cannot change the outcome is stopped."""
    specs = (vendor("a", "x"), vendor("b", "x"), vendor("c", [NEVER, "y"]))

    heard = world(specs, "send", "?", strategy=Ensemble())

    assert heard.reply is not None
    assert heard.reply.decision.notes[0] == "decided already, and so stopped: c/script"
    assert heard.stats.total.cancelled == 1
    balanced(heard)


@worlds
def test_the_answers_of_one_model_are_drawn_with_other_seeds(world: World) -> None:
    """``same_model`` asks the first alone, and each time with another seed."""
    seeds: list[int | None] = []

    def answer(asked: Request) -> str:
        seeds.append(asked.sampling.seed)
        return "even" if (asked.sampling.seed or 0) % 2 == 0 else "odd"

    heard = world(
        (vendor("a", answer), vendor("b", "no", cost=9)),
        "send",
        "?",
        seed=10,
        strategy=Ensemble(same_model=True),
    )

    assert {10, 12} <= set(seeds) <= {10, 11, 12}
    assert len(set(seeds)) == len(seeds)
    assert heard.reply is not None
    assert heard.reply.text == "even"
    balanced(heard)


@worlds
def test_one_that_fails_is_replaced_and_one_answer_is_enough(world: World) -> None:
    """The next candidate answers in its place; without one, those that came are enough."""
    specs = (vendor("a", Overloaded("full")), vendor("b", "x"), vendor("c", "x"))
    once = RetryPolicy(same_target=0)

    heard = world(specs, "send", "?", strategy=Ensemble(count=2), retry=once)
    assert heard.reply is not None
    assert {a.vendor: a.outcome for a in heard.reply.decision.attempts} == {
        "a": Outcome.FAILED,
        "b": Outcome.SERVED,
        "c": Outcome.SERVED,
    }
    balanced(heard)

    heard = world((specs[0], specs[1]), "send", "?", strategy=Ensemble(count=2), retry=once)
    assert heard.reply is not None
    assert heard.reply.text == "x"
    balanced(heard)


@worlds
@verbs
def test_where_all_fail_every_error_is_kept(world: World, verb: str) -> None:
    """The error holds each."""
    specs = tuple(vendor(name, ContentRefused(name)) for name in "abc")

    heard = world(specs, verb, "?", strategy=Ensemble())

    assert isinstance(heard.error, AllVendorsFailed)
    assert len(heard.error.exceptions) == 3
    balanced(heard)


def judge(asked: Request) -> str:
    """Judge that the answer with most letters is best."""
    answers = asked.messages[0].text.split("<answer number=")[1:]
    sizes = [len(each.split("</answer>")[0]) for each in answers]
    return f"I compared them.\nBEST: {sizes.index(max(sizes)) + 1}"


@worlds
@verbs
def test_a_judge_names_the_best(world: World, verb: str) -> None:
    """The judge sees the request and all answers, and what it costs is paid for."""
    specs = (
        vendor("a", "short"),
        vendor("b", "the longest of all"),
        vendor("c", "medium one"),
        vendor("judge", judge, model="judge", cost=100),
    )

    heard = world(
        specs, verb, "say", strategy=Ensemble(by="best", judge="judge/judge"), max_tokens=20
    )

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("the longest of all", "b")
    asked = [a.vendor for a in heard.reply.decision.attempts]
    assert [*sorted(asked[:2]), *asked[2:]] == ["a", "c", "judge", "b"]  # a and c began together
    assert heard.reply.decision.notes[0].startswith("best: judge/judge judged ")
    assert heard.reply.warnings == ()
    balanced(heard)


@worlds
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Overloaded("full"), "the judge failed, and they voted: Overloaded: full"),
        ("they are all fine", "the judge named no answer, and they voted: 'they are all fine'"),
        ("BEST: 7", "the judge named no answer, and they voted: 'BEST: 7'"),
    ],
)
def test_where_the_judge_cannot_say_they_vote(world: World, said: Any, why: str) -> None:
    """The answer is the vote's, with a warning; what the judge cost is there all the same."""
    specs = (
        vendor("a", "x"),
        vendor("b", "y"),
        vendor("c", "y"),
        vendor("judge", said, model="judge", cost=100),
    )
    once = RetryPolicy(same_target=0)

    heard = world(
        specs, "send", "say", strategy=Ensemble(by="best", judge="judge"), max_tokens=9, retry=once
    )

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.warnings) == ("y", (why,))
    assert "judge" in [a.vendor for a in heard.reply.decision.attempts]
    balanced(heard)


@worlds
@verbs
def test_one_answer_is_written_from_all(world: World, verb: str) -> None:
    """Whoever merges is given all answers, and streams what it writes."""

    def merge(asked: Request) -> list[str]:
        text = asked.messages[0].text
        return ["all ", "three" if all(word in text for word in ("one", "two", "three")) else "no"]

    specs = (
        vendor("a", "one"),
        vendor("b", "two"),
        vendor("c", "three"),
        vendor("writer", merge, model="writer", cost=100),
    )

    heard = world(specs, verb, "say", strategy=Ensemble(by="merge", judge="writer"))

    assert heard.reply is not None
    assert heard.reply.text == "all three"
    assert heard.pieces == (("all ", "three") if verb == "stream" else ())
    assert heard.reply.decision.notes == (
        "merge: writer/writer wrote from a/script, b/script, c/script",
    )
    balanced(heard)


@worlds
@verbs
def test_where_nobody_can_merge_they_vote(world: World, verb: str) -> None:
    """Answers that were paid for are not thrown away."""
    specs = (vendor("a", "x"), vendor("b", "x"))

    heard = world(specs, verb, "say", strategy=Ensemble(by="merge", count=2, judge="nobody"))

    assert heard.reply is not None
    assert heard.reply.text == "x"
    assert "nobody merged, and they voted: NoCandidate" in heard.reply.warnings[0]
    assert heard.text == ("x" if verb == "stream" else "")
    balanced(heard)


@worlds
def test_a_consensus_is_returned_or_refused(world: World) -> None:
    """Two of three agree, or the error has all answers."""
    agree = (vendor("a", "4"), vendor("b", "4.0"), vendor("c", "5"))
    heard = world(agree, "send", "2+2", strategy=Ensemble(by="consensus"))
    assert heard.reply is not None
    assert heard.reply.text == "4"
    balanced(heard)

    differ = (vendor("a", "4"), vendor("b", "6"), vendor("c", "5"))
    heard = world(differ, "send", "2+2", strategy=Ensemble(by="consensus"))
    assert isinstance(heard.error, NoGoodAnswer)
    assert [reply.text for reply in heard.error.replies] == ["4", "6", "5"]
    assert "1 of 3 answers agree, and a consensus takes 67%" in str(heard.error)
    balanced(heard)


@worlds
def test_a_single_answer_is_no_consensus(world: World) -> None:
    """Where all others failed there is nobody to agree with."""
    specs = (vendor("a", ContentRefused("no")), vendor("b", "4"))

    heard = world(specs, "send", "2+2", strategy=Ensemble(by="consensus", count=2))

    assert isinstance(heard.error, NoGoodAnswer)


@worlds
def test_reasoning_is_compared_by_its_last_number(world: World) -> None:
    """What leads to the number differs, the answer does not."""
    specs = (
        vendor("a", "12 and 30 are 42. So it is 42"),
        vendor("b", "Half of 84: 42.0"),
        vendor("c", [0.05, "I would say 41"]),
    )

    heard = world(specs, "send", "?", strategy=Ensemble(normalise="last_number"))

    assert heard.reply is not None
    assert heard.reply.vendor == "a"
    assert any("for '12 and 30 are 42" in note for note in heard.reply.decision.notes)
    assert any(": a/script, b/script" in note for note in heard.reply.decision.notes)


@worlds
def test_an_ensemble_keeps_to_the_allowance_of_its_request(world: World) -> None:
    """Answers and judge together are no more attempts than the policy allows."""
    specs = (vendor("a", "x"), vendor("b", "y"), vendor("judge", judge, model="judge", cost=9))

    heard = world(
        specs,
        "send",
        "say",
        strategy=Ensemble(by="best", count=2, judge="judge"),
        retry=RetryPolicy(attempts=2),
    )

    assert heard.reply is not None
    assert heard.stats.total.attempts == 2
    assert "nobody was asked: 2 of 2 attempts are made" in heard.reply.warnings[0]
    balanced(heard)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("BEST: 2", 2),
        ("Answer 1 is wrong.\nBest: **3**", 3),
        ("2", 2),
        ("Answer 2.", 2),
        ("BEST: 1 … no, BEST: 2", 2),
        ("BEST: 0", None),
        ("BEST: 4", None),
        ("the second", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_or_not(text: str, number: int | None) -> None:
    """The last that is named counts, if it is one of those shown."""
    assert read_verdict(text, 3) == number


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Ensemble(by="luck"), "by"),
        (lambda: Ensemble(count=0), "count"),
        (lambda: Ensemble(judge=""), "judge"),
        (lambda: Ensemble(same_model=1), "same_model"),  # type: ignore[arg-type]
        (lambda: Ensemble(normalise="numbers"), "normalise"),
        (lambda: Ensemble(agree=2), "agree"),
    ],
)
def test_a_plan_of_wrong_values_is_refused(make: Callable[[], Any], field: str) -> None:
    """The error names the field."""
    with pytest.raises(BadRequest, match=field):
        make()


def test_the_verb_is_short_for_the_strategy() -> None:
    """``ensemble`` sends by an ``Ensemble``, in both worlds."""
    specs = (vendor("a", "x"), vendor("b", "y"), vendor("c", [0.02, "y"]))

    async def go() -> str:
        async with AsyncDispatcher(*specs) as d:
            return (await d.ensemble("?", max_tokens=9)).text

    with Dispatcher(*specs) as d:
        assert d.ensemble("?", max_tokens=9).text == asyncio.run(go()) == "y"
        assert len(d.ensemble("?", count=2).decision.attempts) == 2
        with pytest.raises(BadRequest, match="by"):
            d.ensemble("?", by="luck")
