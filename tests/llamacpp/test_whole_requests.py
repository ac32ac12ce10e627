"""Replies that must have a form, through the public door: every option beside a form.

The model is the embedded one, or has random weights: those go wherever a rule lets them, which is
the harder test of the rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import attrs
import jsonschema
import pytest
from exact_gguf import exact_model
from stepped import Stepped, pieces_of, text_of
from tiny_gguf import tiny_model
from worlds import WORLDS, World

from llmdispatcher import (
    BadReply,
    CallDelta,
    Capability,
    Delta,
    Dispatcher,
    FinishReason,
    InvalidGrammar,
    LlamaCpp,
    Request,
    ResponseFormat,
    Sampling,
    Scripted,
    StreamInterrupted,
    ToolSpec,
    Unsupported,
    Usage,
    user,
)
from llmdispatcher.models.event import Event, Fallback
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.llamacpp.engine.guessing import MORE_ROWS, Guesser
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence

ROOM_TOKENS = 400
"""More than any of these replies takes, white space at its longest included."""


@attrs.frozen
class Light:
    """Some values of all kinds that a rule bounds."""

    on: bool
    level: int = attrs.field()
    colour: str | None = None


@attrs.frozen
class Lamp:
    """Values of which there are few: no model can go on for ever within one."""

    on: bool
    level: Literal[1, 2, 3]
    colour: Literal["red", "green"] | None = None


@dataclass
class Point:
    """A class of another make."""

    x: bool
    y: bool


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["lamp", "fan"]},
        "level": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["kind", "level"],
    "additionalProperties": False,
}
FORM = ResponseFormat.of(SCHEMA)
GRAMMAR = ResponseFormat("grammar", grammar='root ::= ("yes" | "no") " " [0-9]{2}')


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with room for long replies."""
    return tiny_model(tmp_path_factory.mktemp("models") / "wild.gguf", context=2048)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in F32."""
    return exact_model(tmp_path_factory.mktemp("models") / "exact.gguf")


@pytest.fixture
def door(wild: Path) -> Iterator[Dispatcher]:
    """A dispatcher with the model of random weights."""
    with Dispatcher(LlamaCpp(wild, max_threads=1, isolation="thread")) as d:
        yield d


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads, and asyncio."""
    return WORLDS[request.param]


# -- what comes of a form ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["send", "stream"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_schema_is_kept_and_read(wild: Path, world: World, verb: str, seed: int) -> None:
    """What a reply is made into is its text as JSON, whoever asks and however."""
    vendors = (LlamaCpp(wild, max_threads=1, isolation="thread"),)
    heard = world(vendors, verb, "Hi.", schema=SCHEMA, seed=seed, max_tokens=ROOM_TOKENS)

    assert heard.reply is not None, heard.error
    assert heard.reply.finish_reason is FinishReason.STOP
    assert json.loads(heard.reply.text) == heard.reply.parsed
    jsonschema.validate(heard.reply.parsed, SCHEMA)
    if verb == "stream":
        assert heard.text == heard.reply.text


def test_classes_are_made_of_each_of_several_replies(door: Dispatcher) -> None:
    """All choices are of the class, attrs' and Python's own."""
    reply = door.send("Hi.", schema=Point, n=3, seed=7, max_tokens=ROOM_TOKENS)

    made = [choice.parsed for choice in reply.choices]
    assert all(isinstance(point, Point) and isinstance(point.x, bool) for point in made)
    assert [json.loads(choice.text) for choice in reply.choices] == [vars(each) for each in made]


def test_attrs_classes_are_made_by_the_embedded_model() -> None:
    """A class with what is optional and what is not, by a model that was trained."""
    asked: dict[str, Any] = {"schema": Lamp, "temperature": 0, "max_tokens": ROOM_TOKENS}
    with Dispatcher("embedded") as d:
        lamp = d.send("Give me a lamp as JSON", **asked).parsed

    assert isinstance(lamp, Lamp)
    assert type(lamp.level) is int


def test_any_json_is_an_object_or_a_list() -> None:
    """Without a schema, the reply is JSON of any kind; one that is cut is no JSON and no error."""
    form = ResponseFormat("json")
    with Dispatcher("embedded") as d:
        reply = d.send("Hi.", response_format=form, n=4, seed=1, max_tokens=100)

    for choice in reply.choices:
        if choice.finish_reason is FinishReason.LENGTH:
            assert choice.parsed is None
        else:
            assert json.loads(choice.text) == choice.parsed
        assert choice.text[0] in "{["


@pytest.mark.parametrize("prompt", [Request(prompt="Hi"), "Hi"], ids=["raw", "chat"])
def test_a_grammar_is_kept(door: Dispatcher, prompt: Request | str) -> None:
    """The whole reply is what a grammar of the caller's makes, and is no JSON."""
    reply = door.send(prompt, response_format=GRAMMAR, n=4, seed=3, max_tokens=ROOM_TOKENS)

    assert all(re.fullmatch("(yes|no) [0-9]{2}", choice.text) for choice in reply.choices)
    assert reply.parsed is None


def test_a_seed_repeats_a_reply_in_a_form(door: Dispatcher) -> None:
    """The same seed gives the same JSON, and choice i is that of seed + i."""
    asked: dict[str, Any] = {"schema": SCHEMA, "max_tokens": ROOM_TOKENS}
    first = door.send("Hi.", seed=5, **asked).text

    assert door.send("Hi.", seed=5, **asked).text == first
    assert door.send("Hi.", seed=6, **asked).text != first


def test_logprobs_of_a_form_tell_its_tokens(door: Dispatcher) -> None:
    """The tokens that are told, joined, are the text; they are of the model's own distribution."""
    reply = door.send("Hi.", schema=SCHEMA, seed=1, logprobs=2, max_tokens=ROOM_TOKENS)

    assert b"".join(token.data for token in reply.logprobs).decode() == reply.text
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in reply.logprobs)


# -- forms beside what begins and ends replies -------------------------------------------------


def test_a_form_holds_for_what_is_drawn_behind_a_prefill(door: Dispatcher) -> None:
    """A prefill is the caller's own text: the form begins behind it, and so does the reply."""
    reply = door.send("Hi.", prefill="Sure:\n{", schema=SCHEMA, seed=1, max_tokens=ROOM_TOKENS)

    assert reply.text.startswith("{")
    jsonschema.validate(reply.parsed, SCHEMA)


def test_a_reply_in_a_form_that_is_cut_is_not_read(door: Dispatcher) -> None:
    """At max_tokens there is a beginning of JSON: the text is told, and nothing made of it."""
    reply = door.send("Hi.", schema=SCHEMA, seed=1, max_tokens=4)

    assert reply.finish_reason is FinishReason.LENGTH
    assert reply.text.startswith("{")
    assert reply.parsed is None


def test_a_stop_string_that_breaks_a_form_is_an_error(door: Dispatcher) -> None:
    """A stop string wins over the form: what is left is no JSON, which is said and not hidden."""
    with pytest.raises(BadReply, match="not the JSON that was asked for"):
        door.send("Hi.", schema=SCHEMA, stop=":", seed=1, max_tokens=ROOM_TOKENS)
    with door.stream("Hi.", schema=SCHEMA, stop=":", seed=1, max_tokens=ROOM_TOKENS) as stream:
        with pytest.raises(StreamInterrupted) as caught:
            list(stream)
        assert '"kind"' in caught.value.partial


def test_a_stop_string_that_does_not_come_changes_nothing(door: Dispatcher) -> None:
    """What is held back for a stop string is told after all."""
    asked: dict[str, Any] = {"schema": SCHEMA, "seed": 1, "max_tokens": ROOM_TOKENS}

    assert door.send("Hi.", stop='"kind"?', **asked).text == door.send("Hi.", **asked).text


# -- what cannot be ----------------------------------------------------------------------------

BAD: dict[str, dict[str, Any]] = {
    "a schema with what cannot be enforced": {"schema": {"type": "object", "not": {}}},
    "a schema of no type": {"schema": {"type": "objekt"}},
    "a grammar without a root": {"response_format": ResponseFormat("grammar", grammar='a ::= "b"')},
    "no grammar at all": {"response_format": ResponseFormat("grammar", grammar="root ::= (")},
    "a grammar without an end": {
        "response_format": ResponseFormat("grammar", grammar='root ::= "a" root')
    },
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_form_is_refused_and_hurts_nobody(door: Dispatcher, name: str) -> None:
    """It is an error of that request before it is queued; a stream that runs goes on as it was."""
    alone = door.send("Hi.", schema=SCHEMA, seed=1, max_tokens=ROOM_TOKENS).text
    with door.stream("Hi.", schema=SCHEMA, seed=1, max_tokens=ROOM_TOKENS) as stream:
        first = next(stream)
        with pytest.raises(InvalidGrammar):
            door.send("Hi.", **BAD[name])
        rest = "".join(delta.text for delta in stream)

    assert first.text + rest == alone
    assert door.stats().in_flight == 0


@pytest.mark.parametrize(
    "options",
    [
        {"schema": SCHEMA, "tool_choice": "required"},
        {"response_format": GRAMMAR},
    ],
    ids=["calls demanded and a schema", "calls and a grammar"],
)
def test_what_excludes_each_other_is_refused(door: Dispatcher, options: dict[str, Any]) -> None:
    """Two forms for one reply are an error that says so; neither is dropped."""
    with pytest.raises(Unsupported, match="call"):
        door.send("Hi.", tools=[ToolSpec("now")], **options)


# -- beside others, preempted, guessed ---------------------------------------------------------


def jobs() -> list[Request]:
    """Requests with and without a form, greedy."""
    greedy, texts = Sampling(temperature=0), ("What is a lamp?", "Tell me a story.", "2 + 3?")
    forms = (None, FORM, GRAMMAR, ResponseFormat.of(Light))
    return [
        Request(messages=(user(text),), sampling=greedy, response_format=form, max_tokens=60)
        for text in texts
        for form in forms
    ]


@pytest.fixture(scope="module")
def alone(exact: Path) -> list[str]:
    """What each of the jobs gives when nothing else runs."""
    engine = Stepped(exact, slots=8)
    texts = [engine.ask(request) for request in jobs()]
    engine.close()
    return texts


def test_forms_and_plain_requests_do_not_change_each_other(exact: Path, alone: list[str]) -> None:
    """All at once give the same as one after the other."""
    engine = Stepped(exact, slots=8, parallel=6, cells=2048)
    calls = [engine.submit(request) for request in jobs()]
    engine.run()

    assert [text_of(pieces_of(call)) for call in calls] == alone
    engine.close()


def test_a_preempted_reply_goes_on_in_its_form(tmp_path: Path) -> None:
    """Who is taken out for want of cells and read again later goes on where its form was."""
    # with these weights no two tokens are so near each other that rounding would decide
    path = tiny_model(tmp_path / "long.gguf", context=512, seed=2)
    form = ResponseFormat("grammar", grammar='root ::= ([a-f] [0-9]){180} "."')
    greedy = Sampling(temperature=0)
    requests = [
        Request(
            prompt=f"{index} and so on",
            max_tokens=400,
            sampling=greedy,
            response_format=form if index % 2 else None,
        )
        for index in range(6)
    ]
    engine = Stepped(path, parallel=6, cells=768)
    preempted: list[int] = []
    preempt = engine.loop._scheduler.preempt

    def counted() -> None:
        preempted.append(1)
        preempt()

    engine.loop._scheduler.preempt = counted  # type: ignore[method-assign]
    calls = [engine.submit(request) for request in requests]
    engine.run()
    together = [text_of(pieces_of(call)) for call in calls]

    assert preempted
    assert all(re.fullmatch(r"([a-f][0-9]){180}\.", text) for text in together[1::2])
    assert together == [engine.ask(request) for request in requests]
    engine.close()


class Parrot(Guesser):
    """Guesses that a reply goes on as it did before, or wrongly; always, whatever it costs."""

    def __init__(self, known: list[list[int]]) -> None:
        super().__init__(lambda: 0.0)
        self.known, self.made, self.right = known, 0, 0

    def _guesses(self, sequence: Sequence, rows: int, room: int) -> list[int]:
        del rows
        at = len(sequence.tokens)
        found = next((each for each in self.known if each[:at] == sequence.tokens), [])
        guesses = found[at : at + min(room, 4)]
        if guesses and at % 3 == 0:
            guesses[-1] = 100  # a byte that seldom comes
        self.made += len(guesses)
        return guesses

    def learn(self, step: Any, took_s: float) -> None:
        """Count what was right."""
        self.right += sum(sequence.accepted for sequence, chunk in step if chunk.rows > 1)
        super().learn(step, took_s)


def test_guesses_give_the_same_replies_in_a_form(exact: Path, alone: list[str]) -> None:
    """A form is followed through guesses that are right and those that are not."""
    known: list[list[int]] = []
    plain = Stepped(exact, slots=8)
    for request in jobs():
        plain.submit(request)
        tokens: dict[int, list[int]] = {}
        while plain.loop.step():
            tokens |= {s.number: [*s.tokens] for s in plain.loop._scheduler.running}
        known += tokens.values()
    plain.close()
    engine = Stepped(exact, slots=8, cells=2048, more_rows=MORE_ROWS)
    parrot = engine.loop._guesser = Parrot(known)
    calls = [engine.submit(request) for request in jobs()]
    engine.run()

    assert [text_of(pieces_of(call)) for call in calls] == alone
    assert 0 < parrot.right < parrot.made
    engine.close()


# -- what other vendors deliver ----------------------------------------------------------------

ABLE = tuple(Capability)
CALLING: Any = [
    Delta("", reasoning="Let me "),
    Delta("", reasoning="see."),
    Delta("", tool_calls=(CallDelta(0, "a1", "add", '{"x"'),)),
    Delta("", tool_calls=(CallDelta(0, "", "", ": 1}"), CallDelta(1, "a2", "now", "{}"))),
    Finish(FinishReason.TOOL_CALLS, Usage(completion_tokens=9, reasoning_tokens=3)),
]


def scripted(name: str, *replies: Any) -> Scripted:
    """A vendor that can do all things."""
    return Scripted(*replies, name=name, capabilities=ABLE)


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_calls_and_reasoning_of_any_vendor_are_put_together(world: World, verb: str) -> None:
    """Pieces become calls and reasoning; nobody looks for JSON in a reply that calls."""
    tools = [ToolSpec("add"), ToolSpec("now")]
    heard = world((scripted("a", CALLING),), verb, "Hi.", tools=tools, schema=Light)

    assert heard.reply is not None, heard.error
    assert heard.reply.reasoning == "Let me see."
    called = [(call.id, call.name, call.arguments) for call in heard.reply.tool_calls]
    assert called == [("a1", "add", '{"x": 1}'), ("a2", "now", "{}")]
    assert heard.reply.finish_reason is FinishReason.TOOL_CALLS
    assert heard.reply.usage.reasoning_tokens == 3
    assert heard.reply.parsed is None
    assert heard.reply.message.tool_calls == heard.reply.tool_calls


@pytest.mark.parametrize("bad", ["no JSON", '{"on": 1, "level": 2}', '{"on": true}', ""])
def test_json_that_does_not_fit_goes_to_the_next_vendor(world: World, bad: str) -> None:
    """Where nothing was shown, the next vendor is asked."""
    events: list[Event] = []
    good = '{"on": true, "level": 2, "colour": null}'
    vendors = (scripted("a", [bad or 0.0]), scripted("b", good))
    heard = world(vendors, "send", "Hi.", schema=Light, on_event=events.append)

    assert heard.reply is not None, heard.error
    assert heard.reply.parsed == Light(on=True, level=2)
    assert heard.reply.vendor == "b"
    assert "BadReply" in next(each for each in events if isinstance(each, Fallback)).reason


def test_json_that_does_not_fit_ends_a_stream(world: World) -> None:
    """What was shown cannot be taken back: the stream breaks, and tells what had come."""
    vendors = (scripted("a", ['{"on": ', "maybe}"]), scripted("b", "{}"))
    heard = world(vendors, "stream", "Hi.", schema=Light)

    assert heard.pieces == ('{"on": ', "maybe}")
    assert isinstance(heard.error, StreamInterrupted)
    assert heard.error.partial == '{"on": maybe}'
    assert isinstance(heard.error.__cause__, BadReply)


def test_a_piece_of_a_call_that_never_began_goes_to_the_next_vendor(world: World) -> None:
    """A vendor's mistake in counting calls is a bad reply."""
    lost: Any = [Delta("", tool_calls=(CallDelta(1, "", "", "{}"),))]
    vendors = (scripted("a", lost), scripted("b", "Hello."))
    heard = world(vendors, "send", "Hi.", tools=[ToolSpec("now")])

    assert heard.reply is not None, heard.error
    assert heard.reply.text == "Hello."
