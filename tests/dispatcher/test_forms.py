"""Replies with a form: what is not of it is asked for again, told what was wrong, and paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from books import read
from http_hosts import HOSTS, is_streamed
from loopback import Answer, Got, Loopback
from worlds import WORLDS, World

from llmdispatcher import (
    FREE,
    AllVendorsFailed,
    BadReply,
    Capability,
    Dispatcher,
    Event,
    Fallback,
    Ledger,
    ModelCard,
    NoCandidate,
    OpenAICompatible,
    Price,
    Request,
    Restarted,
    Retried,
    RetryPolicy,
    Scripted,
    StreamInterrupted,
    ToolSpec,
    assistant,
    system,
    user,
)
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.forms import MISFIT_CHARS, SHOWN_CHARS, put_right, tell
from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Usage
from llmdispatcher.typed import parsed
from llmdispatcher.vendors.scripted import ABLE

CHAT = frozenset({Capability.CHAT})
NATIVE = frozenset({*ABLE, Capability.JSON, Capability.SCHEMA, Capability.TOOLS})

RIGHT, WRONG = '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": "old"}'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
DEAR = Price.per_million(1, 1)


@attrs.frozen
class Person:
    """Somebody."""

    name: str
    age: int


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads and asyncio."""
    return WORLDS[request.param]


@attrs.frozen
class Place:
    """A server of the OpenAI API whose replies are written down, the last one for ever."""

    server: Loopback
    replies: list[str]

    def vendor(self, name: str = "first", able: Any = NATIVE, price: Price = DEAR) -> Any:
        """Make the vendor, whose model can do what is said."""
        card = ModelCard(vendor=name, model="m", local=False, capabilities=able, price=price)
        return OpenAICompatible(name=name, base_url=self.server.url, models=[card])

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests for replies."""
        return [got.body for got in self.server.got if got.method == "POST"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Place]]:
    """Make servers."""
    host = next(host for host in HOSTS if host.preset == "openai-compatible")
    running: list[Loopback] = []

    def made(*replies: str) -> Place:
        left = list(replies)

        def answer(got: Got) -> Answer:
            text = left.pop(0) if len(left) > 1 else left[0]
            parts = host.spoken(text=text, usage=(10, 5, 0), streams=is_streamed(got))
            return host.answer(parts, streams=is_streamed(got))

        running.append(Loopback(answer).__enter__())
        return Place(running[-1], left)

    yield made
    for each in running:
        each.__exit__()


def tried(reply: Any) -> list[tuple[str, str]]:
    """Return who was asked, and how that ended."""
    return [(each.vendor, str(each.outcome)) for each in reply.decision.attempts]


def test_a_misfit_is_asked_for_again_and_told_what_was_wrong(
    world: World, serve: Callable[..., Place]
) -> None:
    """The same vendor sees its reply as a turn, and behind it the place and what was there."""
    place = serve(WRONG, RIGHT)
    events: list[Event] = []
    heard = world((place.vendor(),), "send", "Who?", schema=Person, on_event=events.append)

    assert heard.error is None
    assert heard.reply is not None
    assert heard.reply.parsed == Person("Ada", 36)
    assert tried(heard.reply) == [("first", "failed"), ("first", "served")]
    first, second = place.asked
    assert second["messages"][: len(first["messages"])] == first["messages"]
    shown, told = second["messages"][len(first["messages"]) :]
    assert (shown["role"], shown["content"], told["role"]) == ("assistant", WRONG, "user")
    assert "$.age" in told["content"]
    assert '"old"' in told["content"]
    assert second["response_format"] == first["response_format"]
    (retried,) = [each for each in events if isinstance(each, Retried)]
    assert retried.waited_s == 0


def test_all_attempts_are_paid_for_and_counted(serve: Callable[..., Place], tmp_path: Path) -> None:
    """What a misfit used is in the reply's cost, in the books and in the ledger."""
    place = serve(WRONG, WRONG, RIGHT)
    ledger = Ledger(tmp_path / "ledger.db")
    with Dispatcher(place.vendor(), ledger=ledger) as d:
        reply = d.send("Who?", schema=SCHEMA, max_tokens=50)
        figures = d.stats()
    ledger.close()
    rows = read(tmp_path / "ledger.db", "SELECT sum(cost_microusd), count(*) FROM attempts")

    assert reply.parsed == {"name": "Ada", "age": 36}
    assert [each.usage.total_tokens for each in reply.decision.attempts] == [15, 15, 15]
    assert reply.cost_microusd == 45
    assert figures.total.cost_microusd == 45
    assert rows == [(45, 3)]


def test_twice_wrong_goes_to_the_next_who_knows_nothing_of_it(serve: Callable[..., Place]) -> None:
    """After two more tries another vendor is asked, with the request as it was."""
    bad, good = serve(WRONG), serve(RIGHT)
    events: list[Event] = []
    vendors = [bad.vendor("bad"), good.vendor("good", price=Price.per_million(9, 9))]
    with Dispatcher(*vendors, on_event=events.append) as d:
        reply = d.send("Who?", schema=SCHEMA)

    assert tried(reply) == [("bad", "failed")] * 3 + [("good", "served")]
    assert good.asked[0]["messages"] == bad.asked[0]["messages"]
    assert [len(body["messages"]) for body in bad.asked] == [1, 3, 3]
    assert len([each for each in events if isinstance(each, Fallback)]) == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_one_allowance_bounds_asking_again(attempts: int, serve: Callable[..., Place]) -> None:
    """With no attempt left the error names the place and the value."""
    place = serve(WRONG)
    with (
        Dispatcher(place.vendor(), retry=RetryPolicy(attempts=attempts)) as d,
        pytest.raises(BadReply, match=r'\$\.age: .*"old"') as caught,
    ):
        d.send("Who?", schema=SCHEMA)

    assert caught.value.is_unfit
    assert "$.age" in caught.value.misfit
    assert len(place.asked) == attempts


def test_where_all_write_something_else_all_are_named(serve: Callable[..., Place]) -> None:
    """AllVendorsFailed holds every misfit with its vendor."""
    vendors = [serve(WRONG).vendor("one"), serve("no JSON").vendor("two")]
    with (
        Dispatcher(*vendors, retry=RetryPolicy(same_target=0)) as d,
        pytest.raises(AllVendorsFailed, match=r"one/m.*\$\.age.*two/m.*no JSON"),
    ):
        d.send("Who?", schema=SCHEMA)


def test_a_call_that_was_demanded_and_did_not_come_is_asked_for_again() -> None:
    """The rule holds for tools as for JSON."""
    vendor = Scripted(
        "I will not.",
        [Delta("", tool_calls=(_call(),)), Finish(FinishReason.STOP, Usage())],
        capabilities=NATIVE,
    )
    with Dispatcher() as d:
        engine = d.register_vendor(vendor)
        reply = d.send("Add.", tools=[ToolSpec("add")], tool_choice="required", vendor="scripted")
        told = engine.requests[-1].messages  # type: ignore[attr-defined]

    assert reply.tool_calls[0].name == "add"
    assert [message.text for message in told[:2]] == ["Add.", "I will not."]
    assert "a call of a tool was demanded" in told[2].text


def _call() -> Any:
    from llmdispatcher import CallDelta  # noqa: PLC0415 - used once

    return CallDelta(0, "c", "add", "{}")


# -- streams -----------------------------------------------------------------------------------


def test_a_stream_that_was_shown_is_not_taken_back(
    world: World, serve: Callable[..., Place]
) -> None:
    """Its end raises StreamInterrupted, because of what was wrong, and nobody is asked again."""
    place = serve(WRONG, RIGHT)
    heard = world((place.vendor(),), "stream", "Who?", schema=SCHEMA)

    assert heard.text == WRONG
    assert isinstance(heard.error, StreamInterrupted)
    assert heard.error.partial == WRONG
    assert isinstance(heard.error.__cause__, BadReply)
    assert "$.age" in str(heard.error)
    assert len(place.asked) == 1


@pytest.mark.parametrize("resume", ["restart", "continue"])
def test_a_whole_misfit_is_begun_anew_and_never_continued(
    world: World, resume: str, serve: Callable[..., Place]
) -> None:
    """Behind a reply that was rejected nobody goes on; a restart says that it counts no more."""
    place = serve(WRONG, RIGHT)
    events: list[Event] = []
    heard = world(
        (place.vendor(),), "stream", "Who?", schema=SCHEMA, resume=resume, on_event=events.append
    )

    if resume == "continue":
        assert isinstance(heard.error, StreamInterrupted)
        assert len(place.asked) == 1
        return
    assert heard.reply is not None
    assert (heard.reply.text, heard.reply.parsed) == (RIGHT, json.loads(RIGHT))
    assert [delta.restarts for delta in heard.deltas].count(True) == 1
    assert [type(each) for each in events if isinstance(each, Restarted)] == [Restarted]
    assert not any("prefill" in json.dumps(body) for body in place.asked)


# -- in words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        RIGHT,
        f"```json\n{RIGHT}\n```",
        f"Here you are:\n\n{RIGHT}\n\nAnything else?",
        f"Sure! {RIGHT}",
    ],
)
def test_a_model_that_nobody_holds_to_a_schema_is_told_it(
    said: str, world: World, serve: Callable[..., Place]
) -> None:
    """Where no other can, whoever can chat is instructed, and read as far as it is unambiguous."""
    place = serve(said)
    heard = world((place.vendor(able=CHAT),), "send", "Who?", schema=Person)

    assert heard.reply is not None, heard.error
    assert heard.reply.parsed == Person("Ada", 36)
    (body,) = place.asked
    assert body["messages"][0]["role"] == "system"
    assert '"required":["name","age"]' in body["messages"][0]["content"]
    assert "response_format" not in body


def test_one_that_is_told_in_words_is_told_again_after_a_misfit(
    serve: Callable[..., Place],
) -> None:
    """What was wrong comes behind the instruction, which stays."""
    place = serve(f"Well, {WRONG}", RIGHT)
    with Dispatcher(place.vendor(able=CHAT)) as d:
        assert d.send("Who?", schema=SCHEMA).parsed == json.loads(RIGHT)

    roles = [message["role"] for message in place.asked[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_those_that_can_be_held_to_it_go_first(serve: Callable[..., Place]) -> None:
    """A cheaper model that must be told is no candidate while another needs no telling."""
    plain, native = serve(RIGHT), serve(RIGHT)
    vendors = [plain.vendor("plain", CHAT, FREE), native.vendor("native")]
    with Dispatcher(*vendors) as d:
        assert d.send("Who?", schema=SCHEMA).vendor == "native"
        assert d.send("Who?", schema=SCHEMA, vendor="plain").vendor == "plain"
        assert "cannot do schema" in str(d.explain("Who?", schema=SCHEMA))
        assert "told in words" in str(d.explain("Who?", schema=SCHEMA, vendor="plain"))


def test_a_raw_prompt_and_a_grammar_are_told_to_nobody(serve: Callable[..., Place]) -> None:
    """A prompt has no place for an instruction, and a grammar no words."""
    able = {Capability.CHAT, Capability.COMPLETION}
    with Dispatcher(serve(RIGHT).vendor(able=able)) as d:
        with pytest.raises(NoCandidate, match="cannot do schema"):
            d.send(Request(prompt="Who?", response_format=ResponseFormat.of(SCHEMA)))
        with pytest.raises(NoCandidate, match="cannot do grammar"):
            d.send("Who?", response_format=ResponseFormat(Shape.GRAMMAR, grammar="root ::= [a]"))


def card(*able: Capability) -> ModelCard:
    """Make a card."""
    return ModelCard(vendor="v", model="m", local=True, capabilities=able)


def test_one_that_can_be_held_to_json_is_held_to_that_much() -> None:
    """The schema goes into words, and the form becomes JSON."""
    asked = Request.of([system("Be brief."), user("Who?")], schema=SCHEMA)
    told = tell(asked, card(Capability.CHAT, Capability.JSON))

    assert told.response_format == ResponseFormat(Shape.JSON)
    assert told.messages[0].text.startswith("Be brief.\n\nReply with JSON alone")
    assert told.messages[1:] == asked.messages[1:]
    assert tell(asked, card(Capability.CHAT, Capability.SCHEMA)) is asked
    assert tell(Request.of("Who?"), card(Capability.CHAT)).messages == (user("Who?"),)


def draft(text: str, n: int = 1) -> ReplyDraft:
    """Make a draft that holds a text."""
    made = ReplyDraft(n, ResponseFormat.of(SCHEMA))
    made.add(Delta(text))
    return made


def misfit(told: str = "at $.age: too old") -> BadReply:
    """Make the error of a misfit."""
    error = BadReply("no")
    error.is_unfit, error.misfit = True, told
    return error


def test_what_a_model_is_shown_is_bounded() -> None:
    """Of a long reply beginning and end are shown, and of what was wrong as much as helps."""
    told = put_right(Request.of("Who?"), draft("x" * 10**6 + "end"), misfit("y" * 10**5))

    assert told is not None
    shown, words = told.messages[1:]
    assert len(shown.text) <= SHOWN_CHARS + 3
    assert shown.text.endswith("end")
    assert len(words.text) <= MISFIT_CHARS + 200


@pytest.mark.parametrize(
    ("request_", "held", "error"),
    [
        (Request(prompt="Who?"), draft("x"), misfit()),
        (Request.of("Who?", n=2), draft("x", 2), misfit()),
        (Request.of("Who?"), draft("  "), misfit()),
        (Request.of("Who?"), draft("x"), BadReply("a broken chunk")),
    ],
    ids=["raw", "choices", "empty", "broken"],
)
def test_nothing_is_told_where_there_is_nothing_to_tell(
    request_: Request, held: ReplyDraft, error: BadReply
) -> None:
    """Then the same is asked again as it was."""
    assert put_right(request_, held, error) is None


def test_a_prefill_is_part_of_what_was_said() -> None:
    """The reply that is shown begins as it was to begin."""
    told = put_right(Request.of("Who?", prefill='{"name": '), draft('"Ada"}'), misfit())

    assert told is not None
    assert told.messages[1] == assistant('{"name": "Ada"}')
    assert told.prefill == '{"name": '


LOOSE = ResponseFormat.of({"type": "object"})


@pytest.mark.parametrize(
    "text",
    [
        'One: {"a": 1} Two: {"b": 2}',
        '{"a": 1}\n{"b": 2}',
        'Set {x} so: {"a": 1}',
        'so {"a": 1}}',
        'so {"a": 1',
        'so {"a": 1, "a": 2}',
        'so {"a": NaN}',
        "so {'a': 1}",
        "nothing",
        "",
    ],
)
def test_what_might_mean_two_things_is_refused(text: str) -> None:
    """Two objects, half of one, a key twice: loosely read is not guessed."""
    with pytest.raises(BadReply):
        parsed(text, LOOSE, loose=True)


def test_text_around_an_object_is_refused_of_one_that_is_held_to_json() -> None:
    """A vendor that promises JSON and sends more has broken its promise."""
    with pytest.raises(BadReply):
        parsed('so {"a": 1}', LOOSE)
    assert parsed('so {"a": {"b": "}"}} and so on', LOOSE, loose=True) == {"a": {"b": "}"}}
