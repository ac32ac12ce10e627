"""Chains: what each step is asked, what ends them, what is shown and what is paid."""

from __future__ import annotations

from typing import Any

import pytest
from telling import says, told
from worlds import WORLDS, World

from llmdispatcher import (
    BadRequest,
    Capability,
    Chain,
    Deadlines,
    Dispatcher,
    FinishReason,
    Request,
    RetryPolicy,
    Step,
    StreamInterrupted,
    ToolSpec,
    Unreachable,
    Usage,
)
from llmdispatcher.models.reply import CallDelta, Delta, Finish
from llmdispatcher.models.stages import CARRIED_CHARS, ROLES, VERIFY_TOKENS
from llmdispatcher.vendors.scripted import CUT


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each test runs with threads and with asyncio."""
    made: World = WORLDS[request.param]
    return made


class Model:
    """Says one thing after the other, and keeps what it was asked."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.asked = list(replies), list[Request]()

    def __call__(self, request: Request) -> Any:
        """Say the next thing, and the last one for ever."""
        self.asked.append(request)
        return self.replies[min(len(self.asked), len(self.replies)) - 1]

    def turns(self, at: int) -> list[str]:
        """Return the texts that it was asked with the so-manyth time."""
        return [message.text for message in self.asked[at].messages]


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_each_step_is_asked_with_the_last_text(world: World, verb: str) -> None:
    """The reply is the last step's; all steps are paid, timed, counted and told."""
    model = Model("a draft", ["a fin", "al text"])

    heard = world((says("a", model),), verb, "hi", strategy="chain")

    assert heard.reply is not None
    reply = heard.reply
    assert reply.text == "a final text"
    assert model.turns(0) == ["hi"]
    assert model.turns(1) == ["hi", "a draft", ROLES["refine"].prompt]
    assert heard.pieces == (("a fin", "al text") if verb == "stream" else ())
    assert [attempt.vendor for attempt in reply.decision.attempts] == ["a", "a"]
    assert reply.cost_microusd == heard.stats.total.cost_microusd
    assert reply.latency_s == sum(attempt.latency_s for attempt in reply.decision.attempts)
    assert reply.decision.notes == ("draft by a/script", "refine by a/script")
    assert (heard.stats.requests, heard.stats.total.served) == (1, 2)


def test_each_step_has_its_own_vendor_prompt_and_length(world: World) -> None:
    """What a step names holds for it alone."""
    cheap, dear = Model("draft"), Model("better")
    steps = (Step("draft", vendor="a", max_tokens=9), Step("refine", "Shorter!", vendor="b"))

    heard = world(
        (says("a", cheap), says("b", dear, usd=9)),
        "send",
        "hi",
        strategy=Chain(steps),
        max_tokens=99,
    )

    assert heard.reply is not None
    assert heard.reply.text == "better"
    assert (cheap.asked[0].max_tokens, dear.asked[0].max_tokens) == (9, 99)
    assert dear.turns(0) == ["hi", "draft", "Shorter!"]


@pytest.mark.parametrize("said", ["OK", " ok.\n", "Ok!"])
def test_a_verifier_that_says_ok_ends_the_work(world: World, said: str) -> None:
    """Steps that would refine or verify are left out; the draft is shown in one piece."""
    model = Model(["dra", "ft"], said, "never")

    heard = world(
        (says("a", model),), "stream", "hi", strategy=Chain(("draft", "verify", "refine"))
    )

    assert heard.reply is not None
    assert (heard.reply.text, heard.pieces) == ("draft", ("draft",))
    assert len(model.asked) == 2
    assert model.asked[1].max_tokens == VERIFY_TOKENS


def test_a_summary_follows_also_what_is_right() -> None:
    """OK leaves out what would mend the answer, and not what is made of it."""
    model = Model("long", "OK", "short")

    with Dispatcher(says("a", model), strategy=Chain(("draft", "verify", "summarize"))) as d:
        assert d.send("hi").text == "short"


@pytest.mark.parametrize(("rounds", "asked"), [(0, 2), (1, 3), (2, 5), (3, 7)])
def test_what_is_wrong_is_refined_so_often_and_no_oftener(
    world: World, rounds: int, asked: int
) -> None:
    """A verifier who is never content ends where the rounds do."""
    model = Model("draft", *["the sum is wrong", "mended"] * 9)

    heard = world(
        (says("a", model),),
        "send",
        "hi",
        strategy=Chain(("draft", "verify"), rounds=rounds),
        retry=RetryPolicy(attempts=99),
    )

    assert heard.reply is not None
    assert heard.reply.text == ("mended" if rounds else "draft")
    assert len(model.asked) == asked
    if rounds:
        assert "the sum is wrong" in model.turns(2)[-1]


def test_a_refined_answer_streams_where_it_is_the_last(world: World) -> None:
    """The round that ends the chain is shown as it comes, and nothing before it."""
    model = Model("draft", "wrong", ["men", "ded"])

    heard = world((says("a", model),), "stream", "hi", strategy=Chain(("draft", "verify")))

    assert heard.pieces == ("men", "ded")


@pytest.mark.parametrize("verb", ["send", "stream"])
@pytest.mark.parametrize("failing", [Unreachable("down"), "", "  "])
def test_a_later_step_that_fails_loses_nothing(world: World, verb: str, failing: Any) -> None:
    """The text of the one before is the reply, with a warning that says why."""
    vendors = (says("a", Model("draft")), says("b", failing))
    plan = Chain((Step("draft", vendor="a"), Step("refine", vendor="b"), Step("summarize")))

    heard = world(vendors, verb, "hi", strategy=plan)

    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.vendor) == ("draft", "a")
    assert "refine failed, so the text before it stands" in heard.reply.warnings[0]
    assert len(heard.reply.decision.attempts) == 2
    assert heard.pieces == (("draft",) if verb == "stream" else ())


def test_a_step_that_nobody_can_do_loses_nothing(world: World) -> None:
    """A vendor that is not there fails its step alone."""
    plan = Chain(("draft", Step("refine", vendor="nobody")))

    heard = world((says("a", "draft"),), "send", "hi", strategy=plan)

    assert heard.reply is not None
    assert heard.reply.text == "draft"
    assert "NoCandidate" in heard.reply.warnings[0]


def test_a_draft_that_fails_is_the_error(world: World) -> None:
    """There is nothing to fall back on."""
    heard = world((says("a", Unreachable("down")),), "send", "hi", strategy="chain")

    assert isinstance(heard.error, Unreachable)


def test_a_last_step_that_breaks_when_it_was_shown_raises(world: World) -> None:
    """What a reader saw cannot become another text."""
    heard = world((says("a", Model("draft", ["ref", CUT])),), "stream", "hi", strategy="chain")

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.pieces == ("ref",)


def test_steps_share_one_allowance(world: World) -> None:
    """Attempts that are used up end the chain, with what there is."""
    heard = world(
        (says("a", Model("one", "two", "three")),),
        "send",
        "hi",
        strategy=Chain(("draft", "refine", "refine")),
        retry=RetryPolicy(attempts=2),
    )

    assert heard.reply is not None
    assert heard.reply.text == "two"
    assert "2 of 2 attempts are made" in heard.reply.warnings[0]


def test_the_deadline_is_of_the_whole_chain() -> None:
    """A step that would end after it is given up, and the draft stands."""
    model = Model("draft", ["late", 30.0])

    with Dispatcher(says("a", model), strategy="chain") as d:
        reply = d.send("hi", deadlines=Deadlines(total_s=5))  # the draft is written long before

    assert reply.text == "draft"
    assert "TimedOut" in reply.warnings[0]


def test_money_is_of_the_whole_chain(world: World) -> None:
    """A step that may cost more than is left is not asked."""
    plan = Chain((Step("draft", vendor="a"), Step("refine", vendor="b")))

    heard = world(
        (says("a", "draft"), says("b", "dear", usd=10**5)),
        "send",
        "hi",
        strategy=plan,
        max_tokens=50,
        max_cost_usd="0.01",
    )

    assert heard.reply is not None
    assert heard.reply.text == "draft"
    assert "BudgetExceeded" in heard.reply.warnings[0]


def test_what_is_carried_is_bounded() -> None:
    """A step sees so much of a long text, and the reply says so."""
    model = Model("x" * (CARRIED_CHARS + 1), "short")

    with Dispatcher(says("a", model), strategy="chain") as d:
        reply = d.send("hi")

    assert len(model.turns(1)[1]) == CARRIED_CHARS
    assert f"refine saw {CARRIED_CHARS}" in reply.warnings[0]


def test_a_draft_that_calls_tools_ends_the_chain(world: World) -> None:
    """The caller has to run them before anybody can go on."""
    call = [
        Delta("", tool_calls=(CallDelta(0, "1", "add", "{}"),)),
        Finish(FinishReason.TOOL_CALLS, Usage(completion_tokens=1)),
    ]
    vendor = says("a", call, "never", capabilities=(Capability.CHAT, Capability.TOOLS))

    heard = world((vendor,), "stream", "hi", strategy="chain", tools=[ToolSpec("add")])

    assert heard.reply is not None
    assert heard.reply.tool_calls[0].name == "add"
    assert [d.tool_calls for d in heard.deltas] == [(CallDelta(0, "1", "add", "{}"),)]
    assert "the chain ends here" in heard.reply.decision.notes[-1]


def test_a_verifier_is_not_held_to_the_form_of_the_answer() -> None:
    """It says OK in plain words, while drafts and refined texts are of the form asked for."""
    model = Model('{"a": 1}', "OK")
    able = (Capability.CHAT, Capability.JSON, Capability.SCHEMA, Capability.LOGPROBS)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    with Dispatcher(says("a", model, capabilities=able)) as d:
        reply = d.send("hi", schema=schema, strategy=Chain(("draft", "verify")))

    assert reply.parsed == {"a": 1}
    assert model.asked[1].response_format.shape == "text"


def test_log_probabilities_are_those_of_the_text() -> None:
    """They are told of the answer that is returned, as many as were asked for."""
    model = Model("draft", [told("final", 0.9)])

    with Dispatcher(says("a", model), strategy="chain") as d:
        reply = d.send("hi", logprobs=1)

    assert "".join(token.token for token in reply.logprobs) == "final"


@pytest.mark.parametrize(
    ("options", "named"), [({"n": 2}, "n must"), ({"messages": (), "prompt": "raw"}, "prompt")]
)
def test_what_a_chain_cannot_do_is_refused(options: dict[str, Any], named: str) -> None:
    """A raw prompt has no turns, and several answers are not one."""
    request = Request(**({"messages": "hi"} | options))

    with Dispatcher(says("a"), strategy="chain") as d, pytest.raises(BadRequest, match=named):
        d.send(request)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"steps": "draft"}, "steps"),
        ({"steps": ()}, "steps"),
        ({"steps": ("refine",)}, "steps"),
        ({"steps": ("draft", "draft")}, "steps"),
        ({"steps": ("draft", 3)}, "steps"),
        ({"steps": ("draft", "polish")}, "role"),
        ({"steps": ("draft", *["refine"] * 16)}, "steps"),
        ({"rounds": 99}, "rounds"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(facts: dict[str, Any], named: str) -> None:
    """By the name of what is wrong with it."""
    with pytest.raises(BadRequest, match=named):
        Chain(**facts)


def test_a_step_is_one_request() -> None:
    """A plan within a plan is refused."""
    with pytest.raises(BadRequest, match="without a plan"):
        Step("refine", strategy="cascade")
