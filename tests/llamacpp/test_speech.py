"""Which way of writing a template shows, and what a model without one is told."""

from __future__ import annotations

import json

import pytest
from spoken import STYLES, TOOLS, hear

from llmdispatcher.vendors.llamacpp.speech.families import GENERIC, ROWS
from llmdispatcher.vendors.llamacpp.speech.speech import (
    Speech,
    needs_note,
    opens_reasoning,
    speech_of,
    tools_note,
)

FOUND = [
    ("{{ '<tool_call>' }}", "Hermes"),
    ("<tool_call> <function= <parameter=", "Qwen3-Coder XML"),
    ("<tool_call> <arg_key>", "GLM"),
    ("[TOOL_CALLS]", "Mistral JSON"),
    ("[TOOL_CALLS] [ARGS]", "Mistral"),
    ("[TOOL_CALLS] [CALL_ID] [ARGS]", "Mistral with ids"),
    ("<|channel|>analysis<|message|>", "harmony"),
    ('Respond in the format {"name": function name, "parameters": …}', "Llama 3"),
    ("<\uff5ctool\u2581call\u2581begin\uff5c>function ```json", "DeepSeek R1"),
    ("<\uff5ctool\u2581call\u2581begin\uff5c>", "DeepSeek V3.1"),
    ("<|tool_calls_section_begin|><|tool_call_begin|>", "Kimi K2"),
    ("<|im_start|>user {{ message.content }}", "generic JSON"),
    ("", "generic JSON"),
    (None, "generic JSON"),
]


def found(template: str | None) -> Speech:
    """Find a way of writing where every marker is a token."""
    return speech_of(template, has_tokens=lambda _: True)


@pytest.mark.parametrize(("template", "name"), FOUND)
def test_the_template_tells_the_way(template: str | None, name: str) -> None:
    """A way is found by the markers that the template contains."""
    assert found(template).name == name


@pytest.mark.parametrize(("needles", "speech"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_every_row_can_be_found(needles: tuple[str, ...], speech: Speech) -> None:
    """No row is hidden behind one that stands before it."""
    assert found(" ".join(needles)).name == speech.name


THOUGHTS = [
    ("content.split('</think>')", ("<think>", "</think>")),
    ("[THINK] [/THINK]", ("[THINK]", "[/THINK]")),
    ("<seed:tool_call> <seed:think>", ("<seed:think>", "</seed:think>")),
    ("<tool_call>", ("", "")),
    ("<|START_TEXT|> <|START_ACTION|>", ("<|START_THINKING|>", "<|END_THINKING|>")),
]


@pytest.mark.parametrize(("template", "think"), THOUGHTS)
def test_the_template_tells_how_the_model_thinks(template: str, think: tuple[str, str]) -> None:
    """The markers of reasoning are those that the template contains, beside any calls."""
    assert found(template).think == think


def test_what_is_preserved_are_tokens() -> None:
    """Only markers that are single tokens are asked for; others are plain text anyway."""
    template = "<tool_call></think>"

    assert found(template).preserved == ("<think>", "</think>", "<tool_call>", "</tool_call>")
    assert speech_of(template, has_tokens=lambda text: text == "<think>").preserved == ("<think>",)
    assert found(None).preserved == ()
    assert "[ARGS]" in found("[TOOL_CALLS] [ARGS]").preserved
    assert "<|channel|>" in found("<|channel|><|message|>").preserved


def test_a_prompt_may_open_reasoning() -> None:
    """The reply begins inside reasoning where the prompt ends with the marker that opens it."""
    thinking = found("<tool_call></think>")

    assert opens_reasoning(thinking, "<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning(thinking, "<think>\n\n</think>\n\n")
    assert not opens_reasoning(thinking, "What is <think>?<|im_end|>\n<|im_start|>assistant\n")
    assert not opens_reasoning(found("<tool_call>"), "<think>")
    harmony = found("<|channel|><|message|>")
    assert opens_reasoning(harmony, "<|start|>assistant<|channel|>analysis<|message|>")
    assert not opens_reasoning(harmony, "<|start|>assistant")


def test_a_model_without_tools_is_told_of_them() -> None:
    """The note names every tool with its schema, and an answer as it shows is heard as a call."""
    note = tools_note(TOOLS)
    shown = next(line for line in note.splitlines() if line.startswith('{"tool_calls"'))

    assert needs_note(GENERIC)
    assert not needs_note(found("<tool_call>"))
    for tool in TOOLS:
        assert json.dumps(dict(tool.parameters)) in note
    said = hear(GENERIC, [shown.replace("the tool's name", "get_weather")])
    assert said.made == (("get_weather", {"parameter": "value"}),)


def test_the_note_follows_the_choice() -> None:
    """A choice leaves only what may be called, and says whether text may be answered."""
    assert "plain text" in tools_note(TOOLS)
    assert "plain text" not in tools_note(TOOLS, "required")
    assert "get_weather" not in tools_note(TOOLS, "now")
    assert "one call" in tools_note(TOOLS, parallel=False)


def test_markers_of_a_way_are_different() -> None:
    """No two rows have the same name, and every style of the tests has a row."""
    names = [speech.name for _, speech in ROWS if speech is not GENERIC]

    assert len(set(names)) == len(names)
    assert {style.family for style in STYLES} == {*names, GENERIC.name} - {"DeepSeek V4"}
