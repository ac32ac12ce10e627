"""Our reading of replies against llama.cpp's own parser: same content, reasoning and calls.

White space at the edges of text and reasoning is not compared: llama.cpp keeps or drops it as each
template happens to have it, and we drop what stands around reasoning. Where llama.cpp answers with
an error, as for every broken call, ours delivers what there is: those are told apart below.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from spoken import STYLES, TOOLS, Scene, Style, hear
from upstream.conftest import SERVER, told

from llmdispatcher.vendors.llamacpp.speech.speech import opens_reasoning, speech_of

pytestmark = pytest.mark.upstream

Ask = Callable[[str, str], dict[str, Any]]
"""The name of a template and a reply; what llama.cpp makes of it."""

REFUSED = "does not match the expected"
LIBRARIES = ("llama-common", "llama", "ggml", "ggml-base")


@pytest.fixture(scope="session")
def ask(llama_cpp_sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Compile the program that parses, and ask it."""
    folder = told(SERVER, "the program llama-server, built from the sources of llama.cpp").parent
    program = tmp_path_factory.mktemp("chat") / "chat_parse"
    includes = [f"-I{llama_cpp_sources / name}" for name in ("common", "include", "ggml/include")]
    libraries = [f"-l:lib{name}.so" for name in LIBRARIES]
    source = Path(__file__).with_name("chat_parse.cpp")
    command = ["c++", "-std=c++17", "-O0", *includes, str(source), "-o", str(program)]
    subprocess.run([*command, f"-L{folder}", *libraries, f"-Wl,-rpath,{folder}"], check=True)
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8"}, encoding="utf-8",
    ) as process:  # fmt: skip
        templates = llama_cpp_sources / "models" / "templates"

        def asked(name: str, text: str, *, partial: bool = False) -> dict[str, Any]:
            template = (templates / f"{name}.jinja").read_text(encoding="utf-8")
            body = {"template": template, "text": text, "tools": OFFERED, "is_partial": partial}
            body |= {"messages": [{"role": "user", "content": "Hi"}], "bos": "<s>", "eos": "</s>"}
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(body) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return {"source": template, **answer}

        yield asked
        assert process.stdin is not None
        process.stdin.close()


OFFERED = [
    {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }
    for tool in TOOLS
]


def alike(arguments: str) -> str:
    """Write arguments so that equal ones are equal text; those that were cut, without spaces."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return "".join(arguments.split())


Compared = tuple[str, str, list[tuple[str, str, str]]]


def both(ask: Ask, template: str, raw: str) -> tuple[Compared, Compared | str]:
    """Return what we make of a reply, and what llama.cpp does, or its error."""
    theirs = ask(template, raw)
    speech = speech_of(theirs["source"], has_tokens=lambda _: True)
    said = hear(speech, [raw], reasons=opens_reasoning(speech, theirs["prompt"]))
    calls = [(identity.removeprefix("-"), name, alike(told)) for identity, name, told in said.calls]
    ours = said.text.strip(), said.reasoning.strip(), calls
    if "error" in theirs:
        return ours, theirs["error"]
    made = [(call["id"], call["name"], alike(call["arguments"])) for call in theirs["calls"]]
    return ours, (theirs["content"].strip(), theirs["reasoning"].strip(), made)


def expected(style: Style, scene: Scene) -> Compared:
    """Return what is to be heard of a scene, without ids."""
    calls = [("", name, alike(json.dumps(arguments))) for name, arguments in scene.calls]
    return scene.text, scene.thought, calls


DIFFERENT = {
    ("*", "Mistral-Small-3.2-24B-Instruct-2506"): "its derived parser refuses [CALL_ID]",
    ("*", "upstage-Solar-Open-100B"): "its derived parser takes the first call's id for a marker",
    ("*", "google-gemma-2-2b-it"): "it knows no calls where the template has no tools",
    ("text alone", "meta-llama-Llama-3.1-8B-Instruct"): "it refuses braces that are no call",
    ("text alone", "meta-llama-Llama-3.2-3B-Instruct"): "it refuses braces that are no call",
    ("two calls", "MiniMax-M2"): "it wants a comma between calls that the template has not",
    ("two calls", "meetkai-functionary-medium-v3.2"): "it wants no >>> between calls",
    ("text and a call", "meetkai-functionary-medium-v3.2"): "it takes the call for text",
}
"""A scene and a template that are read differently, and what llama.cpp does there."""

SPOKEN = [(style, scene) for style in STYLES if style.template for scene in style.scenes()]


def differs(scene: Scene, template: str) -> bool:
    """Whether a difference is known; all of a template are about calls."""
    if ("*", template) in DIFFERENT:
        return bool(scene.calls)
    return (scene.label, template) in DIFFERENT


def test_enough_is_compared() -> None:
    """All families of the table, and more than 120 replies."""
    same = [scene for style, scene in SPOKEN if not differs(scene, style.template)]

    assert len(same) > 350
    assert len({style.family for style in STYLES}) >= 24


@pytest.mark.parametrize(
    ("style", "scene"), SPOKEN, ids=lambda value: getattr(value, "template", None) or value.label
)
def test_replies_are_read_alike(ask: Ask, style: Style, scene: Scene) -> None:
    """What a model says is the same to both, and what was meant."""
    ours, theirs = both(ask, style.template, style.reply(scene))

    if differs(scene, style.template):
        assert theirs != ours
        meant = expected(style, scene)
        assert (ours[0], ours[1], [call[1:] for call in ours[2]]) == (
            meant[0], meant[1], [call[1:] for call in meant[2]],
        )  # fmt: skip
    else:
        assert theirs == ours


EDGES = [
    ("Qwen-Qwen2.5-7B-Instruct", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ro'),
    ("Qwen-Qwen2.5-7B-Instruct", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "R"'),
    ("Qwen-Qwen2.5-7B-Instruct", '<tool_call>\n{"name": "now", "arguments": {}'),
    ("Qwen-Qwen2.5-7B-Instruct", "a <tool_call> b"),
    ("Qwen-Qwen2.5-7B-Instruct", "<think>a</think>b"),
    ("Qwen-Qwen3-0.6B", "<think>never closed"),
    ("Qwen-Qwen3-0.6B", "<think>\n\n</think>\n\nHi"),
    ("Qwen-Qwen3-0.6B", "a <think>b</think>"),
    ("Qwen-QwQ-32B", '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
    ("Qwen-QwQ-32B", "hm</think>text <tool_cal b"),
    ("meta-llama-Llama-3.1-8B-Instruct", '{"name": "get_weather", "parameters": {"city": "R'),
    ("meta-llama-Llama-3.1-8B-Instruct", '{"type": "function", "name": "now", "parameters": {}}'),
    ("meta-llama-Llama-3.1-8B-Instruct", 'Sure: {"name": "now", "parameters": {}}'),
    ("mistralai-Mistral-Nemo-Instruct-2407", "[TOOL_CALL no"),
    ("unsloth-mistral-Devstral-Small-2507", '[TOOL_CALLS]get_weather[ARGS]{"city": "R'),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "[THINK]hm"),
    ("llama-cpp-deepseek-r1", "hm"),
    ("Qwen3-Coder", "#include <functional>"),
    ("Qwen3-Coder", "<function=now>\n</function>\n</tool_call>"),
    ("Qwen3-Coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRo"),
    ("Qwen3-Coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</param"),
    ("Qwen3-Coder", ("<tool_call>\n<function=get_weather>\n<parameter=city>\na</parameter>b\n"
        "</parameter>\n</function>\n</tool_call>")),
    ("Qwen3-Coder", ("<tool_call>\n<function=get_weather>\n<parameter=city>\n  a\n\n"
        "</parameter>\n</function>\n</tool_call>")),
    ("Qwen3-Coder", ("<tool_call>\n<function=get_weather>\n<parameter=city>\n5\n"
        "</parameter>\n</function>\n</tool_call>")),
    ("Qwen3.5-4B", "<tool_call>\n<function=now>\n</function>\n</tool_call>"),
    ("Kimi-K2-Thinking", ("<think>hm<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>")),
    ("openai-gpt-oss-120b", " to=functions.now<|channel|>commentary json<|message|>{}"),
    ("openai-gpt-oss-120b", "<|channel|>analysis<|message|>cut"),
    ("openai-gpt-oss-120b", ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>"
        "commentary<|message|>b<|end|><|start|>assistant<|channel|>commentary to=functions.now"
        " <|constrain|>json<|message|>{}")),
    ("GLM-4.6", "<think></think>\nHi"),
    ("GLM-4.6", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Ro"),
    ("LFM2-8B-A1B", "<|tool_call_start|>[get_weather(city=\"R\\\"o'me\")]<|tool_call_end|>"),
    ("LFM2-8B-A1B", "<|tool_call_start|>[get_weather(city='a', exact=true)]<|tool_call_end|>"),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "<|START_RESPONSE|>a"),
    ("ibm-granite-granite-4.0", "<tool_cal b"),
    ("microsoft-Phi-3.5-mini-instruct", "hi {} [TOOL_CALLS]"),
    ("google-gemma-4-31B-it", "<|channel>thought\nhm<channel|>hi"),
]  # fmt: skip
"""Replies that are cut, almost calls, or written a little otherwise than usual."""


@pytest.mark.parametrize(("template", "raw"), EDGES, ids=lambda value: ascii(value)[:60])
def test_edges_are_read_alike(ask: Ask, template: str, raw: str) -> None:
    """Cut replies, near calls and variants are the same to both."""
    ours, theirs = both(ask, template, raw)

    assert theirs == ours


UNREAD: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    ("a tool that was not offered", '<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>', "",
        [("x", "{}")]),
    ("arguments in front of the name", ('<tool_call>\n{"arguments": {"a": 1}, "name": "now"}\n'
        "</tool_call>"), "", [("now", '{"a": 1}')]),
    ("no arguments at all", '<tool_call>\n{"name": "now"}\n</tool_call>', "", [("now", "{}")]),
    ("text behind a call", '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call> a', "a",
        [("now", "{}")]),
    ("a list", '<tool_call>\n[{"name": "now", "arguments": {}}]\n</tool_call>', "",
        [("now", "{}")]),
    ("two in one", "<tool_call>\n" + '{"name": "now", "arguments": {}}' * 2 + "\n</tool_call>", "",
        [("now", "{}"), ("now", "{}")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "raw", "text", "calls"), UNREAD, ids=lambda value: str(value)[:40]
)
def test_what_llama_cpp_refuses_is_delivered(
    ask: Ask, label: str, raw: str, text: str, calls: list[tuple[str, str]]
) -> None:
    """llama-server answers such replies with an error; ours delivers them."""
    ours, theirs = both(ask, "Qwen-Qwen2.5-7B-Instruct", raw)

    assert REFUSED in theirs
    assert (ours[0], [call[1:] for call in ours[2]]) == (text, calls)


LOST = [
    ("text <tool_cal", "text", "text <tool_cal", []),
    ('<tool_call>\n{"name": "get_we', "", '<tool_call>\n{"name": "get_we', []),
    (
        '<tool_call>\n{"name": "now", "arguments": "{\\"a\\": 1}"}\n</tool_call>',
        "{}",
        "",
        ['{"a": 1}'],
    ),
    ('<tool_call>{"name": "now", "arguments": {}}</tool_call>', "", "", ["{}"]),
]


@pytest.mark.parametrize(
    ("raw", "theirs_said", "text", "calls"), LOST, ids=lambda value: str(value)[:40]
)
def test_what_llama_cpp_loses_or_takes_for_text_is_delivered(
    ask: Ask, raw: str, theirs_said: str, text: str, calls: list[str]
) -> None:
    """The beginning of a call is text, arguments in a string are arguments, a call is a call."""
    ours, theirs = both(ask, "Qwen-Qwen2.5-7B-Instruct", raw)

    assert theirs != ours
    assert (ours[0], [call[2] for call in ours[2]]) == (text, calls)


def test_every_template_of_llama_cpp_has_a_way(ask: Ask, llama_cpp_sources: Path) -> None:
    """All templates have a row but for those that are named, which get the generic way."""
    unknown = set()
    for path in sorted((llama_cpp_sources / "models" / "templates").glob("*.jinja")):
        theirs = ask(path.stem, "")
        speech = speech_of(theirs["source"], has_tokens=lambda _: True)
        if speech.name == "generic JSON":
            unknown.add(path.stem)

    assert unknown == NO_ROW


NO_ROW = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "HuggingFaceTB-SmolLM3-3B",
    "Kimi-K3",
    "MiniMax-M3",
    "google-gemma-2-2b-it",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
    "muse-glimmer",
}
"""Four of them know no tools; the others have ways of their own that are not read here."""
