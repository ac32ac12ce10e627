"""Cascades: who is asked, what is good enough, what is paid, and what a reader sees."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from books import read
from loopback import Answer, Got, Loopback
from telling import says, sure, told
from worlds import WORLDS, World

from llmdispatcher import (
    AllVendorsFailed,
    BadReply,
    BadRequest,
    Capability,
    Cascade,
    ContentRefused,
    Delta,
    Dispatcher,
    FinishReason,
    Ledger,
    LlamaCpp,
    ModelCard,
    NoCandidate,
    OpenAICompatible,
    Overloaded,
    Price,
    RateLimited,
    Reply,
    RetryPolicy,
    Scripted,
    SpendingCap,
    StreamInterrupted,
    Unreachable,
    Usage,
)
from llmdispatcher.ladder import ladder
from llmdispatcher.models.confidence import AS_TOLD, Calibration, Signals
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Finish
from llmdispatcher.models.request import Request
from llmdispatcher.models.stages import HAND_OVER, HAND_OVER_CHARS
from llmdispatcher.shelf import Target
from llmdispatcher.vendors.llamacpp.vendor import embedded
from llmdispatcher.vendors.scripted import CUT, ScriptedEngine

CHAT = (Capability.CHAT,)
"""Of a model that neither tells log-probabilities nor draws several choices."""


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each test runs with threads and with asyncio."""
    made: World = WORLDS[request.param]
    return made


def asked(heard: Any) -> list[str]:
    """Return whom a request was sent to, in order."""
    return [attempt.vendor for attempt in heard.reply.decision.attempts]


# -- confidence --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_who_is_sure_is_not_asked_further(world: World, verb: str) -> None:
    """The cheapest answers, the dearer one is never asked, and nothing is paid for it."""
    vendors = (sure("dear", 0.5, "b", usd=50), sure("cheap", 0.97, "a"))

    heard = world(vendors, verb, "hi", strategy="cascade")

    assert heard.reply is not None
    assert (heard.reply.text, asked(heard)) == ("cheap", ["a"])
    assert heard.reply.logprobs == ()
    assert "good enough: confidence 0.97" in heard.reply.decision.notes[0]
    assert heard.stats.total.cost_microusd == heard.reply.cost_microusd


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_who_is_unsure_is_followed_by_a_better_one(world: World, verb: str) -> None:
    """The answer is the better one's, and both are paid, timed and counted."""
    vendors = (sure("cheap", 0.4, "a"), says("b", ["de", "ar"], usd=50))

    heard = world(vendors, verb, "one two", strategy=Cascade())

    assert heard.reply is not None
    reply = heard.reply
    assert (reply.text, reply.vendor, asked(heard)) == ("dear", "b", ["a", "b"])
    assert reply.cost_microusd == sum(a.cost_microusd or 0 for a in reply.decision.attempts)
    assert reply.latency_s == sum(attempt.latency_s for attempt in reply.decision.attempts)
    assert heard.stats.total.cost_microusd == reply.cost_microusd
    assert (heard.stats.requests, heard.stats.total.served) == (1, 2)
    assert heard.pieces == (("de", "ar") if verb == "stream" else ())


def test_only_the_last_answer_streams(world: World) -> None:
    """An answer that is judged comes in one piece once it is accepted; a rejected one never."""
    pieces = [told("al", 0.99), told("most", 0.99)]
    vendors = (Scripted(pieces, name="a"), sure("dear", 0.9, "b", usd=50))

    heard = world(vendors, "stream", "hi", strategy="cascade")

    assert heard.pieces == ("almost",)


def test_log_probabilities_are_as_many_as_were_asked_for(world: World) -> None:
    """What the plan asks for its own use is taken out again."""
    heard = world(
        (sure("x", 0.99, "a"), says("b", usd=9)), "stream", "hi", logprobs=1, strategy="cascade"
    )

    assert heard.reply is not None
    assert [len(token.top) for token in heard.reply.logprobs] == [1]
    assert heard.deltas[0].logprobs == heard.reply.logprobs


def test_the_threshold_and_the_calibration_are_the_callers() -> None:
    """A model's own calibration goes before its vendor's, and that before all others."""
    doubts = Calibration(bias=-9, weights=(0,) * 5)
    trusts = Calibration(bias=9, weights=(0,) * 5)
    vendors = sure("cheap", 0.6, "a"), sure("dear", 0.6, "b", usd=50)

    def by(**facts: Any) -> str:
        with Dispatcher(*vendors, strategy=Cascade(**facts)) as d:
            return d.send("hi").text

    assert by() == "dear"
    assert by(threshold=0.5) == "cheap"
    assert by(calibration=trusts) == "cheap"
    assert by(calibration={"local": trusts, "a": doubts}) == "dear"
    assert by(calibration={"a": doubts, "a/script": trusts}) == "cheap"


def test_of_several_choices_the_least_sure_counts() -> None:
    """A reply is as sure as the worst of what is in it."""
    pair: list[Delta | Finish] = [
        told("a", 0.99),
        told("b", 0.3, 1),
        Finish(FinishReason.STOP, Usage(), others=(FinishReason.STOP,)),
    ]

    with Dispatcher(Scripted(pair, name="a"), says("b", "c", usd=9), strategy="cascade") as d:
        reply = d.send("hi", n=2)

    assert reply.vendor == "b"
    assert len(reply.choices) == 2


PUZZLES = (
    "paris minus 3",
    "fox plus tea as JSON",
    "json joke about 44",
    "What is the capital of the budget?",
    "12 capital of",
)
"""Texts of which at least one leaves the embedded model unsure, however it was trained."""


def test_a_real_model_is_a_tier() -> None:
    """The embedded model is surer of what it knows, and answers that; the rest goes on."""
    known = "What is the capital of France?"
    small = LlamaCpp(embedded().model_path, name="small")
    with Dispatcher(small, says("big", "from the big one")) as d:
        signs = {
            text: Signals.of(d.send(text, vendor="small", logprobs=5, temperature=0).logprobs)
            for text in (known, *PUZZLES)
        }
        puzzling = min(PUZZLES, key=lambda text: signs[text].likelihood)
        between = (signs[known].likelihood + signs[puzzling].likelihood) / 2
        plan = Cascade(threshold=1 / (1 + math.exp(-between)), calibration=AS_TOLD)
        mine, other = (d.send(text, strategy=plan, temperature=0) for text in (known, puzzling))

    assert signs[known].likelihood > signs[puzzling].likelihood
    assert signs[known].weakest > signs[puzzling].weakest
    assert signs[known].entropy < signs[puzzling].entropy
    assert ("Paris" in mine.text, mine.vendor) == (True, "small")
    assert other.text == "from the big one"


def _over_http(chance: float | None) -> Callable[[Got], Answer]:
    """Return what a host of the OpenAI API answers, with a chance of its only token."""

    def answer(got: Got) -> Answer:
        if got.method == "GET":
            return Answer.json({"data": [{"id": "m"}]})
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "cheap"},
        }
        if chance is not None and got.body.get("logprobs"):
            assert got.body["top_logprobs"] == 5
            tokens = [told("cheap", chance).logprobs[0], *told("cheap", chance).logprobs[0].top]
            rows = [{"token": t.token, "logprob": t.logprob, "bytes": [*t.data]} for t in tokens]
            choice["logprobs"] = {"content": [{**rows[0], "top_logprobs": rows[1:]}]}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return Answer.json({"id": "x", "model": "m", "choices": [choice], "usage": usage})

    return answer


@pytest.mark.parametrize(("chance", "text"), [(0.95, "cheap"), (0.3, "dear"), (None, "cheap")])
def test_confidence_is_read_over_http(world: World, chance: float | None, text: str) -> None:
    """A host's log-probabilities decide as ours do; where it tells none after all, samples do."""
    with Loopback(_over_http(chance)) as server:
        http = OpenAICompatible(name="http", base_url=f"{server.url}/v1", models=["m"])
        catalog = {"models": {"http/m": {"price": {"input": 1, "output": 1}}}}
        heard = world(
            (http, says("b", "dear", usd=50)), "send", "hi", strategy="cascade", catalog=catalog
        )
        sent = [got for got in server.got if got.method == "POST"]

    assert heard.error is None
    assert heard.reply is not None
    assert heard.reply.text == text
    if chance is None:
        assert len(sent) == 3  # three of five agree, and that is enough
        assert "tells no log-probabilities, so samples decides" in heard.reply.decision.notes[0]


# -- other signals -----------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMED = (*CHAT, Capability.JSON, Capability.SCHEMA)


@pytest.mark.parametrize(
    ("text", "served"), [('{"a": 1}', ["a"]), ('{"a": "x"}', ["a", "b"]), ("no", ["a", "b"])]
)
def test_a_reply_of_the_form_asked_for_is_good(world: World, text: str, served: list[str]) -> None:
    """One of another form goes on to the better model, and is not asked for again."""
    vendors = (
        says("a", text, capabilities=FORMED),
        says("b", '{"a": 2}', usd=50, capabilities=FORMED),
    )

    heard = world(
        vendors, "send", "hi", schema=SCHEMA, strategy=Cascade("schema"), retry=RetryPolicy()
    )

    assert heard.reply is not None
    assert asked(heard) == served
    assert heard.reply.parsed == json.loads(heard.reply.text)


def test_a_form_that_nobody_keeps_is_an_error() -> None:
    """A reply of another form is no answer to fall back on."""
    vendors = (
        says("a", "no", capabilities=FORMED),
        says("b", Unreachable("down"), usd=50, capabilities=FORMED),
    )

    with (
        Dispatcher(*vendors, strategy=Cascade("schema")) as d,
        pytest.raises(AllVendorsFailed) as failed,
    ):
        d.send("hi", schema=SCHEMA)

    assert [type(error) for error in failed.value.exceptions] == [BadReply, Unreachable]


def test_schema_needs_a_form() -> None:
    """Judging by a form that was not asked for is a mistake, said when the request is made."""
    with (
        Dispatcher(says("a"), strategy=Cascade("schema")) as d,
        pytest.raises(BadRequest, match="response_format"),
    ):
        d.stream("hi")


def test_samples_are_choices_where_the_model_draws_them(world: World) -> None:
    """Five choices of one request, at a temperature at which they can differ; the most say it."""
    engines = []

    class Kept(Scripted):
        """Keeps its engine."""

        def start(self, report: Any) -> ScriptedEngine:
            engine = super().start(report)
            engines.append(engine)
            return engine

    texts = ["4", "5", "5.", " 5", "6"]
    steps = [told(text, 0.5, index) for index, text in enumerate(texts)]
    stop = FinishReason.STOP
    steps.append(Finish(stop, Usage(completion_tokens=5), others=(stop,) * 4))  # type: ignore[arg-type]
    vendor = Kept(steps, name="a", price=Price.per_million(1, 1))

    heard = world((vendor, says("b", usd=50)), "stream", "hi", strategy=Cascade("samples"))

    assert heard.reply is not None
    assert (heard.reply.text, heard.pieces) == ("5", ("5",))
    assert len(heard.reply.choices) == 1
    (request,) = engines[0].requests
    assert (request.n, request.sampling.temperature) == (5, 0.7)


@pytest.mark.parametrize(
    ("replies", "served"),
    [
        (["5", "5", "5"], 3),
        (["4", "5", "6", "7"], 4),
        (["4", "5", "5", "4", "4"], 5),
        (["4", RateLimited("slow")], 2),
    ],
)
def test_samples_are_asked_for_one_by_one_where_they_must_be(
    world: World, replies: list[Any], served: int
) -> None:
    """No more are asked for than it takes to decide, and each is an attempt that is paid."""
    vendors = (says("a", *replies, capabilities=CHAT), says("b", "dear", usd=50))

    heard = world(vendors, "send", "hi", strategy=Cascade("samples"), seed=7)

    assert heard.reply is not None
    assert asked(heard).count("a") == served
    agreeing = replies.count("5") > 2 or replies.count("4") > 2
    assert heard.reply.vendor == ("a" if agreeing else "b")
    assert heard.stats.total.cost_microusd == heard.reply.cost_microusd


@pytest.mark.parametrize(
    ("replies", "vendor", "text"),
    [
        (['{"a": 1}', "no", '{"a":  1}'], "a", '{"a": 1}'),
        (["no", '{"a": 1}', '{"a": 2}'], "a", '{"a": 1}'),
        (["no", "nor this", "{}"], None, ""),
    ],
)
def test_samples_of_another_form_agree_with_nobody(
    replies: list[str], vendor: str | None, text: str
) -> None:
    """They are compared by what they hold; one of the form is the best so far, and others never."""
    vendors = (
        says("a", *replies, capabilities=FORMED),
        says("b", Unreachable("down"), usd=50, capabilities=FORMED),
    )

    with Dispatcher(*vendors) as d:
        try:
            reply = d.send("hi", schema=SCHEMA, strategy=Cascade("samples", samples=3))
        except DispatcherError:
            assert vendor is None
        else:
            assert (reply.vendor, reply.text) == (vendor, text)


def test_choices_that_the_caller_wants_are_the_samples_where_there_is_nothing_else() -> None:
    """All of them come back, whoever tells no log-probabilities."""
    able = (Capability.CHAT, Capability.CHOICES)

    with Dispatcher(says("a", "4", capabilities=able), says("b", usd=9, capabilities=able)) as d:
        reply = d.send("hi", n=2, strategy="cascade")

    assert (reply.vendor, [choice.text for choice in reply.choices]) == ("a", ["4", "4"])


@pytest.mark.parametrize(("normalise", "vendor"), [("last_number", "a"), ("answer", "b")])
def test_what_is_compared_of_samples_is_the_callers(normalise: str, vendor: str) -> None:
    """Of answers with reasoning, the number at the end."""
    replies = "so 3 and 4 are 7", "it must be 7.0", "7, since 3 + 4 = 7"
    vendors = says("a", *replies, capabilities=CHAT), says("b", usd=50)

    with Dispatcher(*vendors) as d:
        reply = d.send("hi", strategy=Cascade("samples", samples=3, normalise=normalise))

    assert reply.vendor == vendor


def test_samples_leave_no_room_for_choices() -> None:
    """The plan draws several itself."""
    with (
        Dispatcher(says("a"), strategy=Cascade("samples")) as d,
        pytest.raises(BadRequest, match="n must be 1"),
    ):
        d.send("hi", n=2)


@pytest.mark.parametrize(
    ("accept", "threshold", "vendor"),
    [
        (lambda reply: "x" in reply.text, None, "a"),
        (lambda reply: reply.text == "y", None, "b"),
        (lambda _: 0.6, None, "a"),
        (lambda _: 0.6, 0.7, "b"),
        (lambda reply: len(reply.decision.attempts) == 1, None, "a"),
    ],
)
def test_the_callers_function_decides(
    world: World, accept: Any, threshold: float | None, vendor: str
) -> None:
    """It is given the reply with its account, and says yes or no, or how good it is."""
    plan = Cascade(accept, threshold)

    heard = world((says("a", "x"), says("b", "z", usd=50)), "send", "hi", strategy=plan)

    assert heard.reply is not None
    assert heard.reply.vendor == vendor


@pytest.mark.parametrize("said", ["yes", 2, None])
def test_a_function_that_does_not_judge_is_a_mistake(said: object) -> None:
    """Whatever is neither True nor False nor a share is refused, and the books balance."""
    accept: Any = lambda _: said  # noqa: E731 - it is a value here

    with Dispatcher(says("a"), says("b", usd=9), strategy=Cascade(accept)) as d:
        with pytest.raises(BadRequest, match="accept"):
            d.send("hi")
        assert d.stats().in_flight == 0


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
def test_an_answer_that_was_cut_or_filtered_goes_on(world: World, reason: FinishReason) -> None:
    """However sure the model was."""
    cut = [told("almost", 0.99), Finish(reason, Usage(completion_tokens=1))]

    heard = world((says("a", cut), says("b", "all", usd=50)), "send", "hi", strategy="cascade")

    assert heard.reply is not None
    assert heard.reply.text == "all"


# -- who is asked ------------------------------------------------------------------------------


def test_whoever_fails_is_followed_by_the_next(world: World) -> None:
    """A failing tier has accepted nothing, and costs an attempt like any other."""
    vendors = (says("a", Unreachable("down")), sure("mid", 0.99, "b", 10), says("c", usd=50))

    heard = world(vendors, "send", "hi", strategy="cascade")

    assert heard.reply is not None
    assert (heard.reply.text, asked(heard)) == ("mid", ["a", "b"])


def test_a_refused_request_is_not_asked_around_for() -> None:
    """What a content filter refuses as an error ends the request, as it does without a plan."""
    vendors = says("a", ContentRefused("no")), says("b", usd=50)

    with Dispatcher(*vendors, strategy="cascade") as d, pytest.raises(ContentRefused):
        d.send("hi")


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_where_nobody_better_answers_the_best_so_far_does(world: World, verb: str) -> None:
    """Nothing that was paid for is lost: the answer comes with a warning that says why."""
    vendors = (sure("cheap", 0.4, "a"), says("b", Unreachable("down"), usd=50))

    heard = world(vendors, verb, "hi", strategy="cascade")

    assert heard.reply is not None
    assert heard.reply.text == "cheap"
    assert "nobody better could be asked: Unreachable: down" in heard.reply.warnings[0]
    assert asked(heard) == ["a", "b"]
    assert heard.pieces == (("cheap",) if verb == "stream" else ())


def test_what_was_shown_cannot_be_taken_back(world: World) -> None:
    """A stream of the last tier that breaks raises, as every stream does."""
    vendors = (sure("cheap", 0.4, "a"), says("b", ["de", CUT], usd=50))

    heard = world(vendors, "stream", "hi", strategy="cascade")

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.pieces == ("de",)


def test_no_candidate_is_said_as_ever(world: World) -> None:
    """A request that nobody can serve raises NoCandidate."""
    heard = world((says("a"),), "send", "hi", vendor="nobody", strategy="cascade")

    assert isinstance(heard.error, NoCandidate)


def target(name: str, usd: float | None, **facts: Any) -> Target:
    """Make a model with a price; nobody asks its engine."""
    card = ModelCard(
        vendor=name,
        model="m",
        local=True,
        price=None if usd is None else Price.per_million(usd, usd),
        **facts,
    )
    engine: Any = None
    return Target(card, engine)


@pytest.mark.parametrize(
    ("targets", "rungs"),
    [
        ([("a", 1, {}), ("b", 5, {}), ("c", 3, {})], "acb"),
        ([("a", 1, {"quality": 3}), ("b", 5, {"quality": 2}), ("c", 9, {"quality": 4})], "ac"),
        ([("a", 1, {"quality": 3}), ("b", 5, {"quality": 3})], "a"),
        ([("a", 0, {"parameters": 70}), ("b", 0, {"parameters": 7})], "ba"),
        ([("a", 0, {"size_bytes": 7}), ("b", 0, {})], "b"),
        ([("a", None, {"quality": 5}), ("b", 1, {"quality": 2})], "ba"),
        ([("a", None, {}), ("b", 1, {})], "b"),
        ([(c, at + 1, {}) for at, c in enumerate("abcdefg")], "aceg"),
    ],
)
def test_the_ladder_goes_up(targets: list[tuple[str, Any, Any]], rungs: str) -> None:
    """By quality where it is known, else by price, else by size; who is no better is no tier."""
    made = [target(name, usd, **facts) for name, usd, facts in targets]

    found = ladder(Request(messages="hi"), made, None)

    assert "".join(each.card.vendor for each in found.rungs) == rungs
    assert sorted(each.card.vendor for each in found.targets) == sorted(t[0] for t in targets)


def test_tiers_are_asked_in_the_order_they_are_named(world: World) -> None:
    """By vendor, by model, or both; whoever is not named is not asked."""
    vendors = (sure("x", 0.1, "a"), sure("y", 0.1, "b", 5), sure("z", 0.1, "c", 50))

    heard = world(vendors, "send", "hi", strategy=Cascade(tiers=("c", "a/script")))

    assert heard.reply is not None
    assert (heard.reply.text, asked(heard)) == ("x", ["c", "a"])


def test_tiers_that_nobody_has_are_told(world: World) -> None:
    """Names that fit no model that can serve are refused with those that do."""
    heard = world((says("a"),), "send", "hi", strategy=Cascade(tiers=("z",)))

    assert isinstance(heard.error, BadRequest)
    assert "a/script" in str(heard.error)


def test_who_is_no_better_stands_in_where_all_else_fails(world: World) -> None:
    """A model outside the ladder is asked only when there is no answer at all."""
    cheap = says("a", Unreachable("down"))
    catalog = {"models": {"a/script": {"quality": 3}, "b/script": {"quality": 3}}}

    heard = world(
        (cheap, says("b", "peer", usd=5)), "send", "hi", strategy="cascade", catalog=catalog
    )

    assert heard.reply is not None
    assert heard.reply.text == "peer"


# -- hand-over ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "words"), [(True, HAND_OVER), ("Do better.", "Do better.")])
def test_a_draft_is_handed_over_within_bounds(given: Any, words: str) -> None:
    """The next one sees the draft as a turn, cut to so many characters, and what to do with it."""
    seen: list[Request] = []

    def better(request: Request) -> str:
        seen.append(request)
        return "better"

    vendors = sure("d" * 9999, 0.3, "a"), says("b", better, usd=50)
    with Dispatcher(*vendors, strategy=Cascade(hand_over=given)) as d:
        d.send("hi")

    turns = [message.text for message in seen[0].messages]
    assert turns == ["hi", "d" * HAND_OVER_CHARS, words]


def test_nothing_is_handed_over_unasked() -> None:
    """Without it the better model is asked what the caller asked."""
    seen: list[Request] = []

    def better(request: Request) -> str:
        seen.append(request)
        return "better"

    with Dispatcher(sure("d", 0.3, "a"), says("b", better, usd=50), strategy="cascade") as d:
        d.send("hi")

    assert [message.text for message in seen[0].messages] == ["hi"]


# -- one allowance -----------------------------------------------------------------------------


def test_attempts_are_one_allowance_over_all_tiers(world: World) -> None:
    """Once they are used up nobody better is asked."""
    vendors = (sure("cheap", 0.4, "a"), sure("mid", 0.4, "b", 5), says("c", "dear", usd=50))

    heard = world(vendors, "send", "hi", strategy="cascade", retry=RetryPolicy(attempts=2))

    assert heard.reply is not None
    assert heard.reply.text == "mid"
    assert "2 of 2 attempts are made" in heard.reply.warnings[0]


def test_money_is_one_allowance_over_all_tiers(world: World) -> None:
    """Where the next tier may cost more than is left, it is not asked, and a warning says so."""
    vendors = (sure("cheap", 0.4, "a", 1), says("b", "dear", usd=1000))

    heard = world(
        vendors, "send", "hi", strategy="cascade", max_tokens=10, max_cost_usd=Decimal("0.001")
    )

    assert heard.reply is not None
    assert heard.reply.text == "cheap"
    assert "max_cost_usd" in heard.reply.warnings[0]
    assert (heard.reply.cost_microusd or 0) <= 1000


def test_dollars_of_the_policy_end_the_climb(world: World) -> None:
    """No better one is asked once those before have cost as much as the policy allows."""
    vendors = (sure("cheap", 0.4, "a", 100), says("b", "dear", usd=1000))

    heard = world(
        vendors, "send", "hi", strategy="cascade", retry=RetryPolicy(max_cost_usd="0.0001")
    )

    assert heard.reply is not None
    assert heard.reply.text == "cheap"
    assert "micro-dollars are spent" in heard.reply.warnings[0]


def test_the_worst_case_is_of_what_is_sent(world: World) -> None:
    """Five choices may cost five times as much: they are refused where one would not be."""
    limit = Decimal("0.004")
    vendors = (says("a", "x", usd=10), says("b", "y", usd=10**6))

    alone = world(vendors, "send", "hi", max_tokens=100, max_cost_usd=limit)
    sampled = world(
        vendors, "send", "hi", max_tokens=100, max_cost_usd=limit, strategy=Cascade("samples")
    )

    assert alone.reply is not None
    assert isinstance(sampled.error, DispatcherError)
    assert sampled.stats.total.cost_microusd == 0


def test_a_retry_keeps_within_its_tier(world: World) -> None:
    """Whoever fails for a moment is asked again before anybody dearer is."""
    vendors = (says("a", Overloaded("a moment"), [told("cheap", 0.99)]), says("b", usd=50))

    heard = world(vendors, "send", "hi", strategy="cascade", retry=RetryPolicy(backoff_s=0.001))

    assert heard.reply is not None
    assert asked(heard) == ["a", "a"]


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"accept": "luck"}, "accept"),
        ({"threshold": 2}, "threshold"),
        ({"samples": 1}, "samples"),
        ({"normalise": "first_word"}, "normalise"),
        ({"tiers": "a"}, "tiers"),
        ({"tiers": ()}, "tiers"),
        ({"tiers": ("a", "a")}, "tiers"),
        ({"tiers": ("",)}, "tiers"),
        ({"hand_over": 3}, "hand_over"),
        ({"calibration": {"a": 1}}, "calibration"),
        ({"calibration": 3}, "calibration"),
    ],
)
def test_a_cascade_that_cannot_be_is_refused(facts: dict[str, Any], named: str) -> None:
    """By the name of what is wrong with it."""
    with pytest.raises(BadRequest, match=named):
        Cascade(**facts)


def test_a_cascade_is_a_value() -> None:
    """Two that say the same are equal, and none can be changed."""
    assert Cascade(threshold=0.5) == Cascade(threshold=0.5)
    assert hash(Cascade(calibration=AS_TOLD)) == hash(Cascade(calibration=AS_TOLD))
    with pytest.raises(AttributeError):
        Cascade().threshold = 1  # type: ignore[misc]


def test_a_reply_that_is_broken_is_kept_only_where_there_is_no_other() -> None:
    """Of an answer that was cut and a whole one before it, the whole one is the best so far."""
    cut = [told("half", 0.9), Finish(FinishReason.LENGTH, Usage(completion_tokens=1))]
    vendors = (
        sure("whole", 0.4, "a"),
        says("b", cut, usd=5),
        says("c", BadReply("junk"), usd=50),
    )

    with Dispatcher(*vendors, strategy="cascade") as d:
        reply: Reply = d.send("hi")

    assert reply.text == "whole"


def test_the_ledger_has_all_tiers_under_one_request(tmp_path: Path) -> None:
    """Every attempt is a row of the same request, numbered on, and the sums are the reply's."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    vendors = (
        says("a", Unreachable("down"), usd=1),
        sure("mid", 0.3, "b", 10),
        says("c", "dear", usd=50),
    )

    with Dispatcher(*vendors, ledger=ledger, strategy="cascade") as d:
        reply = d.send("hi", max_tokens=10)
        ledger.flush()
    ledger.close()

    rows = read(path, "SELECT request_id, number, vendor, fate, cost_microusd FROM attempts")
    assert len({row[0] for row in rows}) == 1
    assert [row[1:4] for row in rows] == [
        (1, "a", "absorbed"),
        (2, "b", "served"),
        (3, "c", "served"),
    ]
    assert sum(row[4] for row in rows) == reply.cost_microusd


def test_a_cap_holds_for_all_tiers(tmp_path: Path) -> None:
    """A dearer tier that a cap does not allow is not asked; the best answer so far is the reply."""
    ledger = Ledger(tmp_path / "ledger.db", caps=[SpendingCap("0.002", period="day")])
    vendors = sure("cheap", 0.4, "a"), says("b", "dear", usd=1000)

    with Dispatcher(*vendors, ledger=ledger, strategy="cascade") as d:
        reply = d.send("hi", max_tokens=10)
    ledger.close()

    assert reply.text == "cheap"
    assert "BudgetExceeded" in reply.warnings[0]


def test_what_the_callers_function_says_is_a_verdict_on_the_model() -> None:
    """A model whose answers are rejected is expected to cost more for a good one."""
    vendors = says("a", "no"), says("b", "yes", usd=50)

    with Dispatcher(*vendors) as d:
        before = d.explain("hi").candidates[0].note
        for _ in range(5):
            d.send("hi", strategy=Cascade(lambda reply: reply.text == "yes"))
        after = next(c for c in d.explain("hi").candidates if c.vendor == "a").note

    assert before != after
