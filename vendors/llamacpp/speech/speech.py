"""Which way of writing replies a model has, and what it must be told to have one.

The chat template tells: it shows past calls and thoughts as the model is to write them. Names of
models play no part. A model whose template knows no tools gets the generic way: it is told of the
tools, and how to call them, in a note to the system message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import attrs

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.speech.dialect import Speech
from llmdispatcher.vendors.llamacpp.speech.families import GENERIC, ROWS, THOUGHTS

__all__ = ["Speech", "needs_note", "opens_reasoning", "speech_of", "tools_note"]


def speech_of(template: str | None, *, has_tokens: Callable[[str], bool]) -> Speech:
    """Return how a model writes whose chat template has this source.

    ``has_tokens`` says whether a text is a single token of the vocabulary.
    """
    source = template or ""
    rows = (speech for needles, speech in ROWS if all(needle in source for needle in needles))
    speech = next(rows, GENERIC)
    if not any(speech.think) and not speech.harmony:
        thoughts = (think for needles, think in THOUGHTS if all(n in source for n in needles))
        speech = attrs.evolve(speech, think=next(thoughts, ("", "")))
    if "<response></response>" in source:  # Granite 3.3 wraps its answer if it thinks
        speech = attrs.evolve(speech, wrap=("<response>", "</response>"))
    preserved = tuple(mark for mark in speech.markers if has_tokens(mark))
    ends = ("</assistant>",) if "laguna_glm_thinking" in source else ()
    return attrs.evolve(speech, preserved=preserved, ends=ends)


def opens_reasoning(speech: Speech, prompt: str, prefill: str = "") -> bool:
    """Say whether a prompt ends inside a block of reasoning, so that the reply begins there.

    ``prefill`` stands behind the prompt: it may close the block, open one, or be in the middle.
    """
    opener, closer = speech.think
    if speech.harmony:
        opener, closer = "<|channel|>analysis<|message|>", "<|end|>"
    if not opener:
        return False
    opened, closed = prefill.rfind(opener), prefill.rfind(closer)
    if opened == closed:  # neither is there
        return prompt.rstrip().endswith(opener)
    return opened > closed


def needs_note(speech: Speech) -> bool:
    """Say whether the model must be told of tools by ``tools_note``."""
    return speech.name == GENERIC.name


def tools_note(tools: Sequence[ToolSpec], choice: str = "auto", *, parallel: bool = True) -> str:
    """Return what tells a model of tools whose template does not.

    ``choice`` is "auto", "required" or the name of the only tool that may be called.
    """
    known = [tool for tool in tools if choice in {"auto", "required", tool.name}]
    told = "\n".join(
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            ensure_ascii=False,
            default=dict,
        )
        for tool in known
    )
    when = "If a tool helps, answer" if choice == "auto" else "Answer"
    how = "Several calls may stand in the list." if parallel else "Make one call."
    otherwise = " Otherwise answer in plain text." if choice == "auto" else ""
    return (
        "You can call these tools, each given as JSON with the schema of its arguments:\n"
        f"{told}\n\n"
        f"{when} with nothing but JSON of this form:\n"
        '{"tool_calls": [{"name": "the tool\'s name", "arguments": {"parameter": "value"}}]}\n'
        f"{how}{otherwise}"
    )
