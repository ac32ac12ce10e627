"""Grammars for calls: what they let through and what they refuse, over an alphabet of bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from call_forms import BAR
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from spoken import NOW, ROME, STYLES, TOOLS, Scene, Style

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.speech.callrules import call_rule, schema_for
from llmdispatcher.vendors.llamacpp.speech.families import GENERIC
from llmdispatcher.vendors.llamacpp.speech.speech import Speech, speech_of

EOS = 256


class Alphabet:
    """A vocabulary of every byte, an end, and control tokens with these texts."""

    eos_token_id = EOS
    bos_token_id = None

    def __init__(self, control: tuple[str, ...] = ()) -> None:
        self.control = control
        self.tokens = [*(bytes([byte]) for byte in range(EOS)), b"<end>"]
        self.tokens += [text.encode() for text in control]
        self.special_token_ids = list(range(EOS, len(self.tokens)))

    def __call__(self, data: bytes) -> list[int]:
        """Return the bytes as they are."""
        return list(data)

    def token_of(self, text: str) -> int | None:
        """Return the id of a control token."""
        return EOS + 1 + self.control.index(text) if text in self.control else None

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens of a text, with its control tokens."""
        parts = re.split("|".join(map(re.escape, self.control)) or "(?!)", text)
        marks = re.findall("|".join(map(re.escape, self.control)) or "(?!)", text)
        found = list(parts[0].encode())
        for mark, part in zip(marks, parts[1:], strict=True):
            found += [self.control.index(mark) + EOS + 1, *part.encode()]
        return found


def read(rule: str, alphabet: Alphabet, text: str) -> str | None:
    """Return what stands in front of where a grammar refuses a text; None where it takes all.

    A text that may not end where it does is refused at its end.
    """
    tokenizer = LLTokenizer(TokenizerWrapper(alphabet), n_vocab=len(alphabet.tokens), eos_token=EOS)
    matcher = LLMatcher(tokenizer, rule, log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{rule}"
    tokens = [*alphabet.tokens_of(text), EOS]
    taken = matcher.validate_tokens(tokens)
    if taken == len(tokens):
        return None
    return b"".join(alphabet.tokens[token] for token in tokens[:taken]).decode(errors="replace")


def ways() -> list[tuple[Style, Alphabet]]:
    """List every style, its markers control tokens and not."""
    longest_first = (sorted(style.speech.markers, key=len, reverse=True) for style in STYLES)
    found = [
        (style, Alphabet(tuple(marks))) for style, marks in zip(STYLES, longest_first, strict=True)
    ]
    return found + [(style, Alphabet()) for style in STYLES]


WAYS = ways()


def named(value: object) -> str | None:
    """Name a style or an alphabet in a test's id."""
    if isinstance(value, Alphabet):
        return "tokens" if value.control else "text"
    return (value.template or value.family) if isinstance(value, Style) else None


def in_json(_: int, name: str, arguments: Mapping[str, Any]) -> str:
    """Write a call as in Python with the values of JSON."""
    told = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items()
    )
    return f"{name}({told})"


def spoken(style: Style, alphabet: Alphabet) -> tuple[Style, list[Scene]]:
    """Return a style for replies to prompts that opened nothing, and what it can say.

    Control tokens cannot stand in a string.
    """
    writing = attrs.evolve(style, opened="")
    if style.speech.pythonic and not style.speech.bare:
        writing = attrs.evolve(writing, call=in_json)
    scenes = style.scenes()
    return writing, [s for s in scenes if not (alphabet.control and "markers" in s.label)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_calls_as_they_are_written_are_taken(style: Style, alphabet: Alphabet) -> None:
    """Where calls are required, every call that can be written is taken, and text is not."""
    rule = call_rule(style.speech, TOOLS, "required", parallel=True, token_of=alphabet.token_of)
    assert rule is not None
    writing, scenes = spoken(style, alphabet)
    for scene in scenes:
        raw = writing.reply(scene)
        if scene.calls and not scene.text:
            assert read(rule, alphabet, raw) is None, (scene.label, raw)
        elif not scene.calls:
            assert read(rule, alphabet, raw) is not None, scene.label


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_text_is_free_until_a_call_begins(style: Style, alphabet: Alphabet) -> None:
    """Where the model may choose, text, reasoning and calls are all taken."""
    rule = call_rule(style.speech, TOOLS, "auto", parallel=True, token_of=alphabet.token_of)
    if style.speech.bare or style.speech.harmony:
        assert rule is None
        return
    assert rule is not None
    writing, scenes = spoken(style, alphabet)
    for scene in scenes:
        raw = writing.reply(scene)
        assert read(rule, alphabet, raw) is None, (scene.label, raw)


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_what_is_no_call_is_refused(style: Style, alphabet: Alphabet, choice: str) -> None:
    """An unknown tool, a missing parameter and one of a wrong type are refused where they stand."""
    rule = call_rule(style.speech, TOOLS, choice, parallel=True, token_of=alphabet.token_of)
    if rule is None:
        return
    writing, _ = spoken(style, alphabet)
    unknown = writing.write([("other", {})])
    refused = read(rule, alphabet, unknown)
    assert refused is not None
    assert "other" not in refused
    if style.speech.quoted:
        return  # it follows no schema
    for wrong in ({"days": 3}, {"city": "a", "days": "x"}, {"city": "a", "colour": "red"}):
        assert read(rule, alphabet, writing.write([("get_weather", wrong)])) is not None, wrong


@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_a_named_tool_is_the_only_one(style: Style, alphabet: Alphabet) -> None:
    """A choice of one tool lets no other be called."""
    rule = call_rule(style.speech, TOOLS, "now", parallel=True, token_of=alphabet.token_of)
    assert rule is not None
    writing, _ = spoken(style, alphabet)

    assert read(rule, alphabet, writing.write([NOW])) is None
    assert read(rule, alphabet, writing.write([ROME])) is not None


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_one_call_where_no_more_are_wanted(style: Style, alphabet: Alphabet, choice: str) -> None:
    """Without parallel calls a second one is refused."""
    if not style.parallel:
        return
    several, single = (
        call_rule(style.speech, TOOLS, choice, parallel=parallel, token_of=alphabet.token_of)
        for parallel in (True, False)
    )
    if several is None or single is None:
        return
    writing, _ = spoken(style, alphabet)

    assert read(single, alphabet, writing.write([NOW])) is None
    assert read(single, alphabet, writing.write([NOW, ROME])) is not None
    assert read(several, alphabet, writing.write([NOW, ROME, NOW])) is None


def test_nothing_is_enforced_without_tools_or_choice() -> None:
    """No tools, or a choice of none, is no rule."""
    speech = STYLES[0].speech

    assert call_rule(speech, [], "auto", parallel=True, token_of=lambda _: None) is None
    assert call_rule(speech, TOOLS, "none", parallel=True, token_of=lambda _: None) is None


THINKING = speech_of("<tool_call></think>", has_tokens=lambda _: True)


@pytest.mark.parametrize("alphabet", [Alphabet(THINKING.markers), Alphabet()], ids=named)
def test_a_forced_call_may_be_thought_about(alphabet: Alphabet) -> None:
    """Reasoning may come first; where the prompt opened it, the reply must close it."""
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'

    def taken(text: str, *, reasons: bool) -> bool:
        rule = call_rule(
            THINKING, TOOLS, "now", parallel=False, token_of=alphabet.token_of, reasons=reasons
        )
        assert rule is not None
        return read(rule, alphabet, text) is None

    assert taken(call, reasons=False)
    assert taken(f"<think>\na < b\n</think>\n\n{call}", reasons=False)
    assert not taken(f"a{call}", reasons=False)
    assert taken(f"a < b\n</think>\n\n{call}", reasons=True)
    assert not taken(call, reasons=True)


def test_strings_of_a_set_are_of_that_set() -> None:
    """A parameter that is written as bare text is still one of its enum."""
    tool = ToolSpec(
        "paint", "", {"properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    )
    style = next(style for style in STYLES if style.template == "Qwen3-Coder")
    rule = call_rule(style.speech, [tool], "required", parallel=False, token_of=lambda _: None)
    assert rule is not None

    assert read(rule, Alphabet(), style.write([("paint", {"colour": "red"})])) is None
    assert read(rule, Alphabet(), style.write([("paint", {"colour": "green"})])) is not None


ALL = {"type": "array", "items": {"$ref": "#/$defs/p"}}
NESTED = {
    "$defs": {"p": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/p"}, "all": ALL},
    "required": ["at"],
}  # fmt: skip


@pytest.mark.parametrize(("style", "alphabet"), WAYS, ids=named)
def test_references_in_a_schema_are_followed(style: Style, alphabet: Alphabet) -> None:
    """Definitions of a tool's schema hold wherever its parameters stand in the grammar."""
    tools = [ToolSpec("go", "", NESTED), *TOOLS]
    rule = call_rule(style.speech, tools, "go", parallel=False, token_of=alphabet.token_of)
    assert rule is not None
    writing, _ = spoken(style, alphabet)

    good, bad = {"at": {"x": 1}, "all": [{"x": 2}]}, {"at": {"y": 1}}
    assert read(rule, alphabet, writing.write([("go", good)])) is None
    if not style.speech.quoted:
        assert read(rule, alphabet, writing.write([("go", bad)])) is not None


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "é😀", "a/b", f"{BAR}", "%json {}", "<x>"])
@pytest.mark.parametrize("speech", [GENERIC, THINKING, STYLES[8].speech], ids=lambda s: s.name)
def test_any_name_can_be_written(speech: Speech, name: str) -> None:
    """No name of a tool breaks a grammar."""
    rule = call_rule(speech, [ToolSpec(name)], name, parallel=False, token_of=lambda _: None)
    assert rule is not None
    quoted = json.dumps({"name": name, "arguments": {}}, ensure_ascii=False)
    raws = [
        '{"tool_calls": [' + quoted + "]}",
        f"<tool_call>\n{quoted}\n</tool_call>",
        f"[TOOL_CALLS]{name}[ARGS]{{}}",
    ]

    assert any(read(rule, Alphabet(), raw) is None for raw in raws)


def test_parameters_that_are_not_named_are_not_taken() -> None:
    """A schema that is silent about other members allows none; one that speaks is obeyed."""
    assert schema_for(ToolSpec("f"))["additionalProperties"] is False
    assert schema_for(ToolSpec("f", "", {"additionalProperties": True}))["additionalProperties"]
    assert "additionalProperties" not in schema_for(ToolSpec("f", "", {"anyOf": [{}]}))
