"""Reading replies: text, reasoning and calls in every way of writing, whole, broken and hostile."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from call_forms import marked
from spoken import ROME, STYLES, Scene, Style, hear, joined

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.speech.arguments import as_json, parameter_types
from llmdispatcher.vendors.llamacpp.speech.families import GENERIC, ROWS
from llmdispatcher.vendors.llamacpp.speech.reader import Reader, fresh_id
from llmdispatcher.vendors.llamacpp.speech.speech import Speech, speech_of
from llmdispatcher.vendors.llamacpp.speech.tape import Marks

SPOKEN = [(style, scene) for style in STYLES for scene in style.scenes()]


def named(value: object) -> str | None:
    """Name a style or scene in a test's id."""
    if isinstance(value, Style):
        return value.template or value.family
    return getattr(value, "label", None)


def way(name: str) -> Speech:
    """Return a way of writing by its name."""
    return next(speech for speech in [GENERIC, *(row[1] for row in ROWS)] if speech.name == name)


HERMES, LLAMA, CODER = way("Hermes"), way("Llama 3"), way("Qwen3-Coder XML")
THINKING = speech_of("<tool_call></think>", has_tokens=lambda _: True)
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(("style", "scene"), SPOKEN, ids=named)
def test_what_is_said_is_heard(style: Style, scene: Scene) -> None:
    """Text, reasoning, names and arguments come out as they went in."""
    said = hear(style.speech, [style.reply(scene)], reasons=style.reasons)

    assert said.text.strip() == scene.text
    assert said.reasoning == scene.thought
    assert said.made == scene.calls


@pytest.mark.parametrize("style", STYLES, ids=named)
def test_a_cut_reply_is_delivered_as_far_as_it_came(style: Style) -> None:
    """However short a reply is cut: no call changes its name, and no text is made up."""
    raw = style.write([ROME])
    begun = 0
    for end in range(len(raw)):
        said = hear(style.speech, [raw[:end]], reasons=style.reasons)
        assert begun <= len(said.calls)
        begun = len(said.calls)
        assert {name for _, name, _ in said.calls} <= {"get_weather"}
        if not said.calls:
            assert said.text in raw
        for _, _, arguments in said.calls:
            assert json.dumps(ROME[1]).startswith(arguments.rstrip()) or not style.speech.tags
    assert begun == 1


@pytest.mark.parametrize("style", STYLES, ids=named)
def test_without_tools_calls_are_text(style: Style) -> None:
    """Where nothing may be called, nothing is: the markers of calls are text like any."""
    said = hear(style.speech, [style.write([ROME])], reasons=style.reasons, tools=[])

    assert not said.calls
    assert "Rome" in said.text


BROKEN: list[tuple[Speech, str, str, list[tuple[str, str]]]] = [
    (HERMES, "<tool_call>\n", "<tool_call>\n", []),
    (HERMES, "a <tool_call> b", "a <tool_call> b", []),
    (HERMES, '<tool_call>{"name": "now"', '<tool_call>{"name": "now"', []),
    (HERMES, '<tool_call>{"name": "now"}</tool_call>', "", [("now", "{}")]),
    (HERMES,
        '<tool_call>{"name": 7, "arguments": {}}', '<tool_call>{"name": 7, "arguments": {}}', []),
    (HERMES,
        '<tool_call>{"name": "x", "arguments": {"a": tru}}</tool_call>', "", [("x", '{"a": tru}')]),
    (HERMES, '<tool_call>{"name": "x", "arguments": {"a": 1</tool_call>!', "!", [("x", '{"a": 1')]),
    (HERMES,
        '<tool_call>{"name": "x", "arguments": "{\\"a\\": 1}"}</tool_call>', "",
        [("x", '{"a": 1}')]),
    (HERMES, '<tool_call>{"name": "x", "arguments": null}</tool_call>', "", [("x", "{}")]),
    (HERMES,
        '<tool_call>{"arguments": {"a": 1}, "name": "x"}</tool_call>', "", [("x", '{"a": 1}')]),
    (HERMES,
        '<tool_call>{"function": {"name": "x", "arguments": {}}}</tool_call>', "", [("x", "{}")]),
    (HERMES,
        '<tool_call>[{"name": "x"}, {"name": "y"}]</tool_call>', "", [("x", "{}"), ("y", "{}")]),
    (HERMES, '<tool_call>{"name": "x"}{"name": "y"}</tool_call>', "", [("x", "{}"), ("y", "{}")]),
    (HERMES, "<tool_call>{'name': 'x'}</tool_call>", "<tool_call>{'name': 'x'}</tool_call>", []),
    (HERMES, f"{CALL} bye {CALL} \n", " bye ", [("now", "{}"), ("now", "{}")]),
    (HERMES, f"<tool_call><tool_call>{CALL[11:]}", "<tool_call>", [("now", "{}")]),
    (HERMES, "</tool_call>", "</tool_call>", []),
    (LLAMA, '{"name": "nobody", "parameters": {}}', '{"name": "nobody", "parameters": {}}', []),
    (LLAMA, '{"name": "now"}', '{"name": "now"}', []),
    (LLAMA, '{"title": "now", "parameters": {}} {', '{"title": "now", "parameters": {}} {', []),
    (LLAMA, '{"type": "function", "name": "now", "parameters": {}}', "", [("now", "{}")]),
    (LLAMA, '<|python_tag|>{"name": "now", "parameters": {}}', "", [("now", "{}")]),
    (LLAMA, '<|python_tag|>now.call(a="b")', "", [("now", '{"a": "b"}')]),
    (LLAMA, "<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
    (
        LLAMA,
        '{"name": "now", "parameters": {}}; {"name": "now", "parameters": {}}',
        "",
        [("now", "{}"), ("now", "{}")],
    ),
    (CODER, "<function=now>\n</function>", "", [("now", "{}")]),
    (CODER, "#include <functional>", "#include <functional>", []),
    (CODER, "<tool_call>\n<function=now", "<tool_call>\n<function=now", []),
    (
        CODER,
        "<tool_call>\n<function=x>\n<parameter=code>\na</parameter>b\n</parameter>\n</function>\n</tool_call>",
        "",
        [("x", '{"code": "a</parameter>b"}')],
    ),
    (
        CODER,
        "<tool_call>\n<function=x>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nyes\n</parameter>\n</tool_call>",
        "",
        [("x", '{"a": 1, "b": "yes"}')],
    ),
    (GENERIC,
        '```json\n{"tool_calls": [{"name": "now", "arguments": {}}]}\n```', "", [("now", "{}")]),
    (GENERIC, '{"tool_calls": []}', '{"tool_calls": []}', []),
    (GENERIC, '{"name": "now", "arguments": {}}', "", [("now", "{}")]),
    (way("Mistral JSON"), '[TOOL_CALLS][{"name": "x", "arguments": {}', "", [("x", "{}")]),
    (way("Mistral"), '[TOOL_CALLS]x{"a": 1}', "", [("x", '{"a": 1}')]),
    (way("Mistral"), '[TOOL_CALLS][{"name": "x", "arguments": {"a": 1}}]', "", [("x", '{"a": 1}')]),
    (way("LFM2"),
        "<|tool_call_start|>[x(1, 'b')]<|tool_call_end|>", "", [("x", '{"0": 1, "1": "b"}')]),
    (way("LFM2"), "<|tool_call_start|>[x(a=b c)]<|tool_call_end|>", "", [("x", '{"a": "b c"}')]),
    (way("harmony"), "hello", "hello", []),
    (way("harmony"), "<|channel|>final <|constrain|>json<|message|>{}", "{}", []),
    (way("DeepSeek R1"),
        f"{marked('tool_calls_begin')} x", f"{marked('tool_calls_begin')} x", []),
]  # fmt: skip
"""A way of writing, a reply, and what is heard: text, and calls by name and arguments."""


@pytest.mark.parametrize(
    ("speech", "raw", "text", "calls"), BROKEN, ids=lambda value: ascii(value)[:50]
)
def test_broken_calls_are_delivered_as_well_as_can_be(
    speech: Speech, raw: str, text: str, calls: list[tuple[str, str]]
) -> None:
    """A call that cannot be one is text; one that has begun stays one; nothing is lost."""
    for pieces in ([raw], list(raw)):
        said = hear(speech, pieces)

        assert said.text == text
        assert [call[1:] for call in said.calls] == calls


THOUGHTS = [
    ("<think>a</think>b", False, "a", "b"),
    (" \n<think>\n a \n</think>\n\nb\n", False, "a", "b\n"),
    ("a</think>b", True, "a", "b"),
    ("a", True, "a", ""),
    ("<think>a", False, "a", ""),
    ("<think></think>a", False, "", "a"),
    ("  a", False, "", "  a"),
    ("a <think>b</think>", False, "", "a <think>b</think>"),
    ("<think>a</thinkb</think>c", False, "a</thinkb", "c"),
    ("<thinking>", False, "", "<thinking>"),
    (f"<think>{CALL}</think>a", False, CALL, "a"),
]


@pytest.mark.parametrize(("raw", "reasons", "thought", "text"), THOUGHTS)
def test_reasoning_stands_at_the_beginning(
    raw: str, *, reasons: bool, thought: str, text: str
) -> None:
    """What stands between the markers is reasoning, without the white space around it."""
    for pieces in ([raw], list(raw)):
        said = hear(THINKING, pieces, reasons=reasons)

        assert (said.reasoning, said.text, said.calls) == (thought, text, ())


def test_a_call_may_end_reasoning_where_models_do_that() -> None:
    """Qwen3.5 calls in the middle of a thought, and never closes it."""
    style = next(style for style in STYLES if style.template == "Qwen3.5-4B")

    said = hear(style.speech, ["I look. " + style.call(0, *ROME)], reasons=True)

    assert (said.reasoning, said.made) == ("I look.", (ROME,))


def test_a_call_is_told_as_it_comes() -> None:
    """Id and name come first, then the arguments by the piece, and nothing is told twice."""
    reader = Reader(HERMES, [ToolSpec("f")], new_id=lambda: "1")
    told = [
        [(call.index, call.id, call.name, call.arguments) for call in reader.feed(piece).calls]
        for piece in (
            "<tool_call>",
            '{"name": "f", "argu',
            'ments": {"a"',
            ': "b c',
            ' d"',
            "}",
            "}",
        )
    ]

    assert told == [
        [],
        [],
        [(0, "1", "f", '{"a"')],
        [(0, "", "", ': "b c')],
        [(0, "", "", ' d"')],
        [(0, "", "", "}")],
        [],
    ]
    assert reader.calls == 1
    assert not reader.flush().calls


def test_text_is_held_back_only_where_a_marker_may_begin() -> None:
    """Text goes out at once but for what may be the beginning of a call."""
    reader = Reader(HERMES, [ToolSpec("f")])

    told = [reader.feed(piece).text for piece in ("a ", "<", "b", " <tool", "s>", "<tool_call>")]

    assert told == ["a ", "", "<b", " ", "<tools>", ""]
    assert reader.flush().text == "<tool_call>"
    assert reader.flush() == ("", "", ())


def test_ids_are_the_models_or_fresh() -> None:
    """An id that the model gave is kept; others are made, of nine characters for Mistral."""
    raw = '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefgh1"}, {"name": "f"}]'
    reader = Reader(way("Mistral JSON"), [ToolSpec("f")])
    said = joined([reader.feed(raw), reader.flush()])

    assert said.calls[0] == ("abcdefgh1", "f", '{"a": 1}')
    assert re.fullmatch("[a-zA-Z0-9]{9}", said.calls[1][0])
    assert re.fullmatch("call_[0-9a-f]{24}", fresh_id())
    (called,) = hear(way("Kimi K2"), [
        "<|tool_call_begin|>functions.now:7<|tool_call_argument_begin|>{}<|tool_call_end|>"
    ]).calls  # fmt: skip
    assert called == ("functions.now:7", "now", "{}")


VALUES: list[tuple[str, Any, str]] = [
    ("5", {"type": "integer"}, "5"),
    ("5", {"type": "string"}, '"5"'),
    ("5", {}, "5"),
    ("five", {"type": "integer"}, '"five"'),
    ("true", {"type": ["string", "boolean"]}, "true"),
    ("5", {"type": ["string", "boolean"]}, '"5"'),
    ("True", {"type": "boolean"}, "true"),
    ("None", {"anyOf": [{"type": "null"}, {"type": "integer"}]}, "null"),
    ('"a"', {"type": "string"}, '"\\"a\\""'),
    ("\n[1]\n", {"type": "array"}, "[1]"),
    ("\n a\n\n", {"type": "string"}, '" a\\n"'),
    ("NaN", {"type": "number"}, '"NaN"'),
    ("a", {"enum": ["a", "b"]}, '"a"'),
    ("1", {"enum": [1, 2]}, "1"),
    ("1", {"const": "1"}, '"1"'),
    ("1", {"$ref": "#/properties/a"}, "1"),
    ("1", {"$ref": "#/nowhere"}, "1"),
    ("[" * 100_000, {"type": "array"}, json.dumps("[" * 100_000)),
]


@pytest.mark.parametrize(("raw", "schema", "written"), VALUES, ids=lambda value: str(value)[:30])
def test_parameters_get_the_type_of_their_schema(raw: str, schema: Any, written: str) -> None:
    """A parameter that is written as bare text becomes JSON of the type that the schema names."""
    types = parameter_types({"properties": {"a": schema}}, "a")

    assert as_json(raw, types, whole=True) == written


def steps(monkeypatch: pytest.MonkeyPatch, speech: Speech, pieces: list[str]) -> int:
    """Count the characters that are looked through for marks while a reply is read."""
    looked = 0
    find = Marks.find

    def counted(self: Marks, text: str, at: int, *, ended: bool) -> tuple[int, str]:
        nonlocal looked
        start, mark = find(self, text, at, ended=ended)
        looked += start - at + 1
        return start, mark

    with monkeypatch.context() as patched:
        patched.setattr(Marks, "find", counted)
        hear(speech, pieces)
    return looked


LONG = [
    (HERMES, '<tool_call>{"name": "x", "arguments": {"a": "%s"}}</tool_call>', "a\\n<"),
    (HERMES, '<tool_call>{"arguments": {"a": [%s]}, "name": "x"}</tool_call>', '"{",'),
    (CODER, "<tool_call><function=x><parameter=a>%s</parameter></function></tool_call>", "</para"),
    (LLAMA, "%s", '{"name": '),
    (GENERIC, "%s", "```json\n{"),
    (THINKING, "<think>%s</think>", "\n \n<"),
    (way("LFM2"), "<|tool_call_start|>[x(a='%s')]<|tool_call_end|>", "\\'("),
]


@pytest.mark.parametrize(("speech", "form", "filling"), LONG, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("by_character", [True, False])
def test_the_work_is_proportional_to_the_text(
    monkeypatch: pytest.MonkeyPatch, speech: Speech, form: str, filling: str, *, by_character: bool
) -> None:
    """Four times the text takes about four times the steps, however it comes."""
    counts = []
    for times in (2_000, 8_000):
        raw = form % (filling * times)
        counts.append(steps(monkeypatch, speech, list(raw) if by_character else [raw]))

    assert counts[1] < 5 * counts[0]
    assert counts[1] < 5 * len(raw)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [17_000, pytest.param(170_000, marks=pytest.mark.soak)])
def test_much_of_arguments_a_character_at_a_time(times: int) -> None:
    """Long arguments, of a tenth of a megabyte or a whole one, are passed on whole and soon."""
    told = '{"a": "' + 'x\\"{}<' * times + '"}'
    raw = '<tool_call>{"name": "now", "arguments": ' + told + "}</tool_call>"
    reader = Reader(HERMES, [ToolSpec("now")], new_id=lambda: "-")

    said = joined([*map(reader.feed, raw), reader.flush()])

    assert len(raw) > 6 * times
    assert said.calls == (("-", "now", told),)


MANY = 100_000
HOSTILE = [
    (HERMES, "<tool_call>" * MANY),
    (HERMES, '<tool_call>{"name": "now", "arguments": ' + '{"a":' * MANY),
    (HERMES, '<tool_call>{"name": "now", "arguments": ' + "[" * MANY + "]" * MANY + "}"),
    (HERMES, "<tool_call>" + '{"function":' * MANY),
    (HERMES, CALL * 10_000),
    (GENERIC, '{"tool_calls":[' * MANY),
    (GENERIC, '{"tool_calls":[{"tool_calls":' * MANY),
    (LLAMA, "{" * MANY),
    (LLAMA, '{"name": "now", "parameters": ' + "{" * MANY),
    (way("LFM2"), "<|tool_call_start|>[now(a=" + "[(" * MANY),
    (way("LFM2"), "<|tool_call_start|>" + "[" * MANY),
    (CODER, "<tool_call><function=now>" + "<parameter=a>" * MANY),
    (CODER, "<tool_call><function=now>" * MANY),
    (way("GLM"), "<tool_call>now" + "<arg_key>" * MANY),
    (way("harmony"), "<|start|>" * MANY),
    (way("harmony"), "<|channel|>analysis<|message|>" * MANY),
    (way("Gemma 4"), "<|tool_call>call:now" + "{a:" * MANY),
    (way("Functionary 3.2"), ">>>" * MANY),
    (way("Mistral"), "[TOOL_CALLS]" * MANY),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("speech", "raw"), HOSTILE, ids=lambda value: ascii(value)[:40])
def test_hostile_replies_are_read_to_their_end(speech: Speech, raw: str) -> None:
    """Markers by the thousand and endless nesting are text or arguments, and never an error."""
    said = hear(speech, [raw])

    told = len(said.text) + len(said.reasoning) + sum(map(len, map("".join, said.calls)))
    assert told <= 3 * len(raw)


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\udfff\ud83d", "\x7f\u2028\ufeff", "a\rb"])
@pytest.mark.parametrize("style", STYLES, ids=named)
def test_odd_characters_are_text_like_any(style: Style, odd: str) -> None:
    """NUL, lone surrogates and the like pass through text and arguments."""
    assert odd in hear(style.speech, list(style.write([], f"a{odd}b")), reasons=style.reasons).text
    said = hear(style.speech, list(style.write([("get_weather", {"city": f"a{odd}b"})])),
        reasons=style.reasons)  # fmt: skip

    assert [name for _, name, _ in said.calls] == ["get_weather"]
