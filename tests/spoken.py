"""Replies as models write them: the same things said in every way that is known.

A ``Style`` writes calls, text and reasoning; ``SCENES`` are what is said, each a name and what is
to be heard.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
from call_forms import (
    BAR,
    Arguments,
    Made,
    coder,
    cohere,
    deepseek_r1,
    deepseek_v31,
    dsml,
    functionary,
    functionary_32,
    gemma,
    glm,
    glm_tight,
    harmony,
    hermes,
    hunyuan,
    keyed,
    kimi,
    llama,
    marked,
    minicpm,
    minimax,
    mistral,
    mistral_id,
    mistral_json,
    plain_json,
    pythonic,
    seed,
    solar,
)

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.speech.dialect import Speech
from llmdispatcher.vendors.llamacpp.speech.families import GENERIC, ROWS
from llmdispatcher.vendors.llamacpp.speech.reader import Heard, Reader

TOOLS = [
    ToolSpec(
        "get_weather",
        "The weather.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "exact": {"type": "boolean"},
                "ratio": {"type": "number"},
                "where": {"type": "object"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    ),
    ToolSpec("now", "The time.", {"type": "object", "properties": {}}),
]


@attrs.frozen
class Style:
    """How replies are written: ``template`` is the file among llama.cpp's that has this way.

    It is empty where llama.cpp has none, or reads no calls of it.
    """

    family: str
    template: str
    call: Callable[[int, str, Arguments], str]
    around: tuple[str, str, str] = ("", "", "")
    """What stands in front of all calls, between two of them, and behind them."""
    think: str = ""
    """Reasoning with ``{}`` for what is thought; empty: the model does not think."""
    text: str = "{}"
    opened: str = ""
    """What the prompt ends with that begins the reasoning."""
    parallel: bool = True
    mixed: bool = True
    """Whether text may stand in front of a call."""

    @property
    def speech(self) -> Speech:
        """The way of writing, as it is found by a template that has this style."""
        rows = [*(speech for _, speech in ROWS), GENERIC]
        known = next(speech for speech in rows if speech.name == self.family)
        if known.harmony or not self.think:
            return known
        opener, closer = self.think.split("{}")
        return attrs.evolve(known, think=(opener.strip(), closer.strip()))

    @property
    def reasons(self) -> bool:
        """Whether the prompt ends inside reasoning."""
        return bool(self.opened)

    def scenes(self) -> list[Scene]:
        """What can be said in this style."""
        return [
            scene
            for scene in SCENES
            if (self.think or not scene.thought)
            and (self.parallel or len(scene.calls) < 2)
            and (self.mixed or not (scene.text and scene.calls))
        ]

    def reply(self, scene: Scene) -> str:
        """Write what is said in a scene."""
        return self.write(list(scene.calls), scene.text, scene.thought)

    def write(self, calls: list[Made], text: str = "", thought: str = "") -> str:
        """Write a whole reply."""
        begun = self.think.format(thought).removeprefix(self.opened) if thought else ""
        if self.opened and not thought:
            begun = self.think.format("").removeprefix(self.opened)
        opener, separator, closer = self.around
        written = separator.join(
            self.call(place, name, arguments) for place, (name, arguments) in enumerate(calls)
        )
        said = self.text.format(text) if text else ""
        if not calls:
            return begun + said.removesuffix(">>>")
        return begun + said + opener + written + closer


_THINK = "<think>\n{}\n</think>\n\n"
_TIGHT = "<think>{}</think>"
_WORKING = "<|START_THINKING|>{}<|END_THINKING|>"
_OPENED = "<think>\n"
_ACTION = ("<|START_ACTION|>[\n    ", ",\n    ", "\n]<|END_ACTION|>")
_KIMI = ("<|tool_calls_section_begin|>", "", "<|tool_calls_section_end|>")
_SEEK = (marked("tool_calls_begin"), "\n", marked("tool_calls_end"))
_DSML = (f"\n\n<{BAR}DSML{BAR}function_calls>\n", "", f"</{BAR}DSML{BAR}function_calls>")
_LFM = ("<|tool_call_start|>[", ", ", "]<|tool_call_end|>")

STYLES = [
    Style("Hermes", "Qwen-Qwen2.5-7B-Instruct", hermes, ("", "\n", "")),
    Style("Hermes", "Qwen-Qwen3-0.6B", hermes, ("", "\n", ""), _THINK),
    Style("Hermes", "Qwen-QwQ-32B", hermes, ("", "\n", ""), _THINK, opened=_OPENED),
    Style("Hermes", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", hermes),
    Style("Hermes", "ibm-granite-granite-4.0", hermes),
    Style("Llama 3", "meta-llama-Llama-3.1-8B-Instruct", llama, parallel=False),
    Style("Llama 3", "meta-llama-Llama-3.2-3B-Instruct", llama, parallel=False),
    Style(
        "Mistral JSON",
        "mistralai-Mistral-Nemo-Instruct-2407",
        mistral_json,
        ("[TOOL_CALLS][", ", ", "]"),
    ),
    Style("Mistral", "unsloth-mistral-Devstral-Small-2507", mistral),
    Style("Mistral with ids", "Mistral-Small-3.2-24B-Instruct-2506", mistral_id),
    Style(
        "Mistral",
        "mistralai-Ministral-3-14B-Reasoning-2512",
        mistral,
        think="[THINK]{}[/THINK]",
    ),
    Style("DeepSeek R1", "llama-cpp-deepseek-r1", deepseek_r1, _SEEK, _THINK, opened=_OPENED),
    Style(
        "DeepSeek R1",
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        deepseek_r1,
        _SEEK,
        _THINK,
        opened=_OPENED,
    ),
    Style("DeepSeek V3.1", "deepseek-ai-DeepSeek-V3.1", deepseek_v31, (_SEEK[0], "", _SEEK[2])),
    Style("DeepSeek V3.2", "deepseek-ai-DeepSeek-V3.2", dsml, _DSML, _TIGHT, opened="<think>"),
    Style("Qwen3-Coder XML", "Qwen3-Coder", coder, ("", "\n", "")),
    Style("Qwen3-Coder XML", "Qwen3.5-4B", coder, ("", "\n", ""), _THINK, opened=_OPENED),
    Style(
        "Seed OSS",
        "ByteDance-Seed-OSS",
        seed,
        ("", "\n", ""),
        "<seed:think>{}</seed:think>\n",
    ),
    Style(
        "MiniMax M2",
        "MiniMax-M2",
        minimax,
        ("<minimax:tool_call>\n", "", "</minimax:tool_call>"),
        _THINK,
        opened=_OPENED,
    ),
    Style("MiniCPM5", "openbmb-MiniCPM5-1B", minicpm, think=_THINK, opened=_OPENED),
    Style("Functionary 3.1", "meetkai-functionary-medium-v3.1", functionary),
    Style(
        "Functionary 3.2",
        "meetkai-functionary-medium-v3.2",
        functionary_32,
        ("", ">>>", ""),
        text="all\n{}>>>",
    ),
    Style(
        "harmony",
        "openai-gpt-oss-120b",
        harmony,
        think="<|channel|>analysis<|message|>{}<|end|><|start|>assistant",
        text="<|channel|>final<|message|>{}",
        parallel=False,
        mixed=False,
    ),
    Style(
        "Command R7B",
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        cohere,
        _ACTION,
        _WORKING,
        text="<|START_RESPONSE|>{}<|END_RESPONSE|>",
        mixed=False,
    ),
    Style(
        "Cohere 2 MoE",
        "Cohere2MoE",
        cohere,
        _ACTION,
        _WORKING,
        text="<|START_TEXT|>{}<|END_TEXT|>",
        opened="<|START_THINKING|>",
        mixed=False,
    ),
    Style("Kimi K2", "Kimi-K2-Instruct", kimi, _KIMI),
    Style("Kimi K2", "Kimi-K2-Thinking", kimi, _KIMI, _TIGHT),
    Style("GLM", "GLM-4.6", glm, ("", "\n", ""), _TIGHT + "\n"),
    Style("GLM", "GLM-4.7-Flash", glm_tight, think=_TIGHT, opened="<think>"),
    Style("LFM2", "LFM2-8B-A1B", pythonic, _LFM),
    Style("LFM2.5", "LFM2.5-Instruct", pythonic, _LFM),
    Style(
        "Apertus", "Apertus-8B-Instruct", keyed, ("<|tools_prefix|>[", ", ", "]<|tools_suffix|>")
    ),
    Style(
        "Nemotron",
        "NVIDIA-Nemotron-Nano-v2",
        plain_json,
        ("<TOOLCALL>[", ", ", "]</TOOLCALL>"),
        _THINK,
        opened=_OPENED,
    ),
    Style(
        "tool_calls JSON",
        "unsloth-Apriel-1.5",
        plain_json,
        ("<tool_calls>[", ", ", "]</tool_calls>"),
    ),
    Style(
        "Firefunction",
        "fireworks-ai-llama-3-firefunction-v2",
        plain_json,
        ("functools[", ", ", "]"),
    ),
    Style("Solar Open", "upstage-Solar-Open-100B", solar, ("<|tool_calls|>", "", "<|calls|>")),
    Style("Phi 4", "", plain_json, ("<|tool_call|>[", ", ", "]<|/tool_call|>")),
    Style("Granite 3", "", plain_json, ("<|tool_call|>[", ", ", "]")),
    Style(
        "GigaChat 3.1",
        "GigaChat3.1-10B-A1.8B",
        plain_json,
        ("<|function_call|>", "", ""),
        parallel=False,
    ),
    Style(
        "GigaChat 3",
        "GigaChat3-10B-A1.8B",
        plain_json,
        ("<|message_sep|>\n\nfunction call<|role_sep|>\n", "", ""),
        parallel=False,
    ),
    Style(
        "Hunyuan 3",
        "tencent-Hy3",
        hunyuan,
        ("<tool_calls:opensource>\n", "\n", "\n</tool_calls:opensource>"),
    ),
    Style("Gemma 4", "google-gemma-4-31B-it", gemma, think="<|channel>thought\n{}<channel|>"),
    Style("generic JSON", "google-gemma-2-2b-it", plain_json, ('{"tool_calls": [', ", ", "]}")),
]


@attrs.frozen
class Scene:
    """Something said: what it is, and the parts."""

    label: str
    calls: tuple[Made, ...] = ()
    text: str = ""
    thought: str = ""


ROME: Made = ("get_weather", {"city": "Rome"})
NOW: Made = ("now", {})
_RICH = {
    "city": "New York",
    "days": 3,
    "exact": True,
    "ratio": -2.5e-3,
    "where": {"lat": 1.5, "deep": {"a": [1, None, {"b": "}"}]}},
    "tags": ["a", "b{", '"'],
}

SCENES = [
    Scene("one call", (ROME,)),
    Scene("text alone", text="It is 20 degrees.\n\nEnjoy {it} <b>now</b>!"),
    Scene("text and a call", (ROME,), text="Let me look."),
    Scene("two calls", (ROME, ("get_weather", {"city": "Oslo", "days": 2}))),
    Scene("no arguments", (NOW,)),
    Scene("thought and text", thought="The user asks <i>me</i>.", text="Rome is warm."),
    Scene("thought and a call", (ROME,), thought="I need\nthe weather."),
    Scene("all kinds of values", (("get_weather", _RICH),)),
    Scene("quotes and braces", (("get_weather", {"city": 'a "b" {c} [d] \\ e, f: g}'}),)),
    Scene("unicode", (("get_weather", {"city": "Żółć 日本 😀\u00a0é"}),)),
    Scene("line breaks", (("get_weather", {"city": "one\ntwo\n\n  three\ttabbed"}),)),
    Scene("markers in a string", (("get_weather", {"city": "a <tool_call> [ARGS] </think> b"}),)),
    Scene("almost a marker", text="use <tool_cal or [TOOL_ or <|tool or <functio of C"),
]


@attrs.frozen
class Said:
    """What was heard, joined: calls as id, name and the JSON text of the arguments."""

    text: str
    reasoning: str
    calls: tuple[tuple[str, str, str], ...]

    @property
    def made(self) -> tuple[Made, ...]:
        """The calls with parsed arguments."""
        return tuple((name, json.loads(arguments)) for _, name, arguments in self.calls)


def joined(pieces: list[Heard]) -> Said:
    """Join what was heard; ids and names are told once, with a call's first piece."""
    calls: list[tuple[str, str, list[str]]] = []
    for delta in (delta for piece in pieces for delta in piece.calls):
        if delta.index == len(calls):
            calls.append((delta.id, delta.name, []))
        else:
            assert delta.index == len(calls) - 1
            assert (delta.id, delta.name) == ("", "")
        calls[-1][2].append(delta.arguments)
    return Said(
        "".join(piece.text for piece in pieces),
        "".join(piece.reasoning for piece in pieces),
        tuple((identity, name, "".join(told)) for identity, name, told in calls),
    )


def hear(
    speech: Speech, pieces: list[str], *, reasons: bool = False, tools: list[ToolSpec] | None = None
) -> Said:
    """Read a reply that comes in these pieces; a call without an id has the id "-"."""
    reader = Reader(speech, TOOLS if tools is None else tools, reasons=reasons, new_id=lambda: "-")
    said = joined([*(reader.feed(piece) for piece in pieces), reader.flush()])
    assert reader.calls == len(said.calls)
    return said
