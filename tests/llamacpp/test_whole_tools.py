"""Tools and reasoning through the public door, in the way of every family.

The models have random weights: what they are let say, they say, and what they are not, they do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from families import FAMILIES, OPENED, THINKS, Family

from llmdispatcher import (
    Choice,
    Delta,
    Dispatcher,
    FinishReason,
    LlamaCpp,
    Message,
    ResponseFormat,
    ToolSpec,
    assistant,
    tool,
    user,
)

ROOM_TOKENS = 300

SET = ToolSpec(
    "set_light",
    "Switches a light.",
    {
        "type": "object",
        "properties": {
            "room": {"type": "string", "enum": ["kitchen", "hall"]},
            "level": {"type": "integer", "minimum": 0, "maximum": 9},
            "on": {"type": "boolean"},
        },
        "required": ["room", "level"],
    },
)
NOW = ToolSpec("now", "Tells the time.", {"type": "object", "properties": {}})
TOOLS = [SET, NOW]
NAMED = {each.name: each for each in TOOLS}
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


class Door:
    """A dispatcher for a model of a family, and what it asks."""

    def __init__(self, family: Family, folder: Path, **fields: Any) -> None:
        self.family = family
        path = family.model(folder / f"{family.name}.gguf", **fields)
        self.dispatcher = Dispatcher(LlamaCpp(path, max_threads=1, isolation="thread"))

    def ask(self, prompt: Any = "Hi.", **options: Any) -> tuple[Choice, ...]:
        """Ask for several replies; what was streamed is compared with what has become of it."""
        options = {"seed": 3, "n": 2, "max_tokens": ROOM_TOKENS, **options}
        with self.dispatcher.stream(prompt, **options) as stream:
            deltas = list(stream)
        for index, choice in enumerate(stream.reply.choices):
            _same([delta for delta in deltas if delta.index == index], choice)
        return stream.reply.choices


def _same(deltas: list[Delta], choice: Choice) -> None:
    """The pieces of a choice, joined, are the choice."""
    assert "".join(delta.text for delta in deltas) == choice.text
    assert "".join(delta.reasoning for delta in deltas) == choice.reasoning
    calls: dict[int, list[str]] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        made = calls.setdefault(piece.index, ["", "", ""])
        for place, text in enumerate((piece.id, piece.name, piece.arguments)):
            made[place] += text
    told = [[call.id, call.name, call.arguments] for call in choice.tool_calls]
    assert list(calls.values()) == told


def check(choice: Choice) -> None:
    """Calls of known tools, each with an id of its own; whole ones have arguments that fit."""
    whole = choice.tool_calls
    if choice.finish_reason is FinishReason.LENGTH:
        whole = whole[:-1]  # the last may be cut
    for call in whole:
        jsonschema.validate(json.loads(call.arguments), dict(NAMED[call.name].parameters))
    ids = [call.id for call in choice.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """A model of each family, whose markers are control tokens."""
    made = Door(request.param, tmp_path, seed=2)
    yield made
    made.dispatcher.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Door]:
    """A model whose prompt begins its reasoning."""
    made = Door(OPENED, tmp_path, seed=2)
    yield made
    made.dispatcher.close()


@pytest.fixture
def thinks(tmp_path: Path) -> Iterator[Door]:
    """A model that begins its reasoning by itself, or not."""
    made = Door(THINKS, tmp_path, seed=2)
    yield made
    made.dispatcher.close()


# -- calls -------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("choice", ["required", "set_light", "now"])
def test_calls_that_are_demanded_are_made(door: Door, choice: str, parallel: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """At least one, of the tool that is named if one is, and one only where no more may be."""
    choices = door.ask(tools=TOOLS, tool_choice=choice, parallel_tools=parallel)

    for each in choices:
        check(each)
        cut = each.finish_reason is FinishReason.LENGTH
        assert cut or each.finish_reason is FinishReason.TOOL_CALLS
        assert cut or each.tool_calls
        assert cut or not each.text.strip()
        assert parallel or len(each.tool_calls) <= 1
        assert choice == "required" or {call.name for call in each.tool_calls} <= {choice}
    assert any(each.tool_calls for each in choices)


def test_demanded_calls_bring_no_white_space_as_text(door: Door) -> None:
    """What a model writes between its turn's begin and a call is nobody's."""
    choices = door.ask(tools=TOOLS, tool_choice="now", parallel_tools=False, n=3)

    assert [c.text for c in choices if c.finish_reason is FinishReason.TOOL_CALLS]
    assert {c.text for c in choices if c.finish_reason is FinishReason.TOOL_CALLS} == {""}


def test_forbidden_calls_are_not_made(door: Door) -> None:
    """With "none" there is text alone, whatever the model writes."""
    for each in door.ask(tools=TOOLS, tool_choice="none", max_tokens=60):
        assert not each.tool_calls
        assert each.finish_reason is not FinishReason.TOOL_CALLS


def test_calls_that_a_model_makes_by_itself_are_whole(door: Door) -> None:
    """With "auto" a model says what it likes; a call that it begins is one that can be made."""
    for each in door.ask(tools=TOOLS, n=3, max_tokens=150):
        if door.family.marked:
            check(each)
        assert bool(each.tool_calls) or each.finish_reason is not FinishReason.TOOL_CALLS


def test_some_calls_are_made_by_themselves(tmp_path: Path) -> None:
    """A marker that is one token comes up by chance, and a whole call follows."""
    door = Door(FAMILIES[0], tmp_path, seed=2)
    choices = door.ask(tools=[NOW], n=24, max_tokens=250)
    door.dispatcher.close()

    assert any(each.finish_reason is FinishReason.TOOL_CALLS for each in choices)
    for each in choices:
        check(each)


def test_a_conversation_goes_on_behind_its_calls(door: Door) -> None:
    """The reply and what the tools returned are sent back, and the next reply is served."""
    first = user("Switch it on.")
    options: dict[str, Any] = {"tools": TOOLS, "max_tokens": ROOM_TOKENS, "seed": 3}
    reply = door.dispatcher.send(
        [first], tool_choice="set_light", parallel_tools=False, reasoning=None, **options
    )
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    results = [tool(call, "done") for call in reply.tool_calls]
    turns: list[Message] = [first, reply.message, *results]
    again = door.dispatcher.send(turns, tool_choice="now", **options)
    assert again.tool_calls
    last = door.dispatcher.send([*turns, assistant("It is on."), user("Thanks.")], max_tokens=5)
    assert last.usage.completion_tokens <= 5


def test_tools_may_be_those_of_the_openai_api(door: Door) -> None:
    """The mapping that the OpenAI API takes is the same tool."""
    function = {"name": NOW.name, "description": NOW.description, "parameters": NOW.parameters}
    tools: list[Any] = [{"type": "function", "function": function}]
    choices = door.ask(tools=tools, tool_choice="required", parallel_tools=False)

    called = [call for each in choices for call in each.tool_calls]
    assert called
    assert all(call.name == "now" and json.loads(call.arguments) == {} for call in called)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.name != "harmony"],  # its channels are control tokens
    ids=lambda family: family.name,
)
def test_markers_may_be_text_as_any_other(family: Family, tmp_path: Path) -> None:
    """A vocabulary without the family's control tokens writes them letter by letter."""
    door = Door(family, tmp_path, seed=2, control=False)
    for parallel in (True, False):
        choices = door.ask(tools=TOOLS, tool_choice="now", parallel_tools=parallel)
        for each in choices:
            check(each)
        assert any(each.tool_calls for each in choices)
    door.dispatcher.close()


@pytest.mark.sampled(2)
def test_a_schema_and_tools_are_either_followed(door: Door) -> None:
    """A model with tools and a schema calls, or answers in JSON, and does nothing else."""
    choices = door.ask(tools=TOOLS, schema=SCHEMA, n=6)

    for each in choices:
        check(each)
        if each.finish_reason is FinishReason.STOP:
            jsonschema.validate(each.parsed, SCHEMA)
        assert each.tool_calls or each.finish_reason is not FinishReason.TOOL_CALLS
    assert {each.finish_reason for each in choices} - {FinishReason.LENGTH}


def test_a_schema_alone_is_followed(door: Door) -> None:
    """In the way of every family, an answer in JSON is JSON, with nothing around it."""
    choices = door.ask(schema=SCHEMA)

    done = [each for each in choices if each.finish_reason is FinishReason.STOP]
    assert done
    for each in done:
        jsonschema.validate(each.parsed, SCHEMA)
        assert each.text == each.text.strip()


def test_an_answer_in_a_channel_streams(tmp_path: Path) -> None:
    """Harmony's answer in JSON has its header, so that it is told while it is written."""
    family = next(each for each in FAMILIES if each.name == "harmony")
    door = Door(family, tmp_path, seed=2)
    choices = door.ask(schema=SCHEMA, n=8)
    with door.dispatcher.stream("Hi.", schema=SCHEMA, n=8, seed=3, max_tokens=300) as stream:
        pieces = [delta.text for delta in stream if delta.text]
    door.dispatcher.close()

    done = [each for each in choices if each.finish_reason is FinishReason.STOP]
    assert any(each.reasoning for each in choices)
    assert len(pieces) > 3 * len(done) > 0


# -- reasoning ---------------------------------------------------------------------------------


def test_reasoning_and_answer_are_told_apart(opened: Door, thinks: Door) -> None:
    """Of a block that the prompt opened, or the model, nothing stands in the text."""
    for door in (opened, thinks):
        choices = door.ask(schema=SCHEMA, n=8)
        done = [each for each in choices if each.finish_reason is FinishReason.STOP]
        assert any(each.reasoning for each in done)
        for each in choices:
            assert "think>" not in each.text + each.reasoning
        for each in done:
            jsonschema.validate(each.parsed, SCHEMA)


def test_a_reply_that_is_cut_while_it_thinks_is_all_reasoning(opened: Door) -> None:
    """Every token of it is counted as one, also those that are parts of a character."""
    reply = opened.dispatcher.send("Hi.", schema=SCHEMA, seed=1, max_tokens=20)

    assert reply.text == ""
    assert reply.parsed is None
    assert reply.reasoning
    assert reply.finish_reason is FinishReason.LENGTH
    assert reply.usage.reasoning_tokens == reply.usage.completion_tokens == 20


def test_tokens_of_reasoning_are_those_up_to_its_end(opened: Door, thinks: Door) -> None:
    """As many as were drawn until the block was closed, its markers included."""
    for door in (opened, thinks):
        for seed in range(5):
            asked: dict[str, Any] = {"schema": SCHEMA, "max_tokens": ROOM_TOKENS, "seed": seed}
            reply = door.dispatcher.send("Hi.", logprobs=0, **asked)
            told = [token.token for token in reply.logprobs]
            begin = 0 if door is opened else [*told, "<think>"].index("<think>")
            end = told.index("</think>") + 1 if "</think>" in told else len(told)
            assert reply.usage.reasoning_tokens == max(0, end - begin)


def test_calls_are_demanded_behind_reasoning(opened: Door, thinks: Door) -> None:
    """A model thinks first, and calls then."""
    for door in (opened, thinks):
        choices = door.ask(tools=TOOLS, tool_choice="required", parallel_tools=False, n=12)
        done = [each for each in choices if each.finish_reason is FinishReason.TOOL_CALLS]
        assert any(each.reasoning for each in done)
        for each in choices:
            check(each)


def test_reasoning_can_be_switched_off(opened: Door, thinks: Door) -> None:
    """Where the template has a switch, nothing is thought in front of what is demanded."""
    for door in (opened, thinks):
        forms: list[dict[str, Any]] = [
            {"schema": SCHEMA},
            {"tools": TOOLS, "tool_choice": "required"},
        ]
        for form in forms:
            for each in door.ask(reasoning=False, **form):
                assert not each.reasoning
                assert each.text or each.tool_calls


@pytest.mark.parametrize(
    ("prefill", "thinks_first"),
    [("Well, ", True), ("Well.</think>\n", False), ("a</think><think>b", True)],
)
def test_a_prefill_goes_on_with_reasoning_or_ends_it(
    opened: Door,
    prefill: str,
    thinks_first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """What the caller lets the reply begin with decides whether it begins with reasoning."""
    reply = opened.dispatcher.send("Hi.", prefill=prefill, schema=SCHEMA, seed=1, max_tokens=30)

    assert bool(reply.reasoning) == thinks_first
    assert reply.text.startswith("{") or thinks_first


def test_reasoning_that_was_opened_can_be_closed_where_calls_are_text(tmp_path: Path) -> None:
    """A block closed by a control token ends, also where the marker of a call is letters."""
    family = Family(name="half", template=OPENED.template, control=("<think>", "</think>"))
    door = Door(family, tmp_path, seed=2)
    reply = door.dispatcher.send("Hi.", tools=TOOLS, n=12, max_tokens=200, seed=3, logprobs=0)
    door.dispatcher.close()

    told = [[token.token for token in each.logprobs] for each in reply.choices]
    closed = [each for each in told if "</think>" in each]
    assert any("<think>" not in each[: each.index("</think>")] for each in closed)
    assert any(each.text.strip() for each in reply.choices)


def test_thoughts_are_sent_back(opened: Door) -> None:
    """A reply's message holds its reasoning, and a template that wants it gets it."""
    choices = opened.ask(tools=TOOLS, tool_choice="required", parallel_tools=False, n=12)
    first = next(c for c in choices if c.finish_reason is FinishReason.TOOL_CALLS and c.reasoning)
    said = Message("assistant", first.text, first.tool_calls, reasoning=first.reasoning)
    turns = [user("Hi."), said, *(tool(call, "7") for call in first.tool_calls)]
    short = [user("Hi."), Message("assistant", first.text, first.tool_calls), *turns[2:]]
    tokens = [
        opened.dispatcher.send(each, tools=TOOLS, max_tokens=1).usage.prompt_tokens
        for each in (turns, short)
    ]

    assert tokens[0] > tokens[1]


def test_a_grammar_of_the_callers_is_the_whole_reply(opened: Door) -> None:
    """It holds from the first token on: whoever writes one says what is thought, too."""
    form = ResponseFormat("grammar", grammar='root ::= "yes" | "no"')
    for each in opened.ask(response_format=form):
        assert re.fullmatch("yes|no", each.text)
        assert not each.reasoning


def test_a_schema_that_cannot_be_enforced_is_told_of() -> None:
    """The call is made all the same, with any JSON object, and the reply says so."""
    odd = ToolSpec("odd", "", {"type": "object", "properties": {}, "not": {}})
    plain = ToolSpec("plain")
    with Dispatcher("embedded") as d:
        reply = d.send("Hi.", tools=[odd, plain], max_tokens=1)
        silent = d.send("Hi.", tools=[odd], tool_choice="none", max_tokens=1)

    (told,) = (text for text in reply.warnings if "odd" in text)
    assert "any JSON object" in told
    assert "not" in told
    assert not any("odd" in text for text in silent.warnings)


def test_a_switch_that_is_not_there_is_told_of() -> None:
    """A model whose template cannot be told to think, or not to, is left as it is, with a word."""
    with Dispatcher("embedded") as d:
        assert any("no switch" in text for text in d.send("Hi.", reasoning=True).warnings)
