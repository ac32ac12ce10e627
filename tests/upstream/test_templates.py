"""Prompts out of chat templates: ours and llama-server's, byte for byte.

Every template of llama.cpp's own collection is put into a model, and every conversation through
both. Where they differ is a table with reasons; it is exact, so that it cannot grow unseen.
"""

from __future__ import annotations

import http
import json
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from tiny_gguf import tiny_model
from upstream.conversations import TALKS, Talk
from upstream.llama_server import LlamaServer, Settings

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.message import Message, Role, ToolCall, tool, user
from llmdispatcher.vendors.llamacpp.templates.style import Style
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate

if TYPE_CHECKING:
    from upstream.conftest import Serve

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.timeout(900),  # a server is started for each template
]

TEMPLATES = 70
BOS, EOS = "<s>", "</s>"
"""Of the tiny model, which adds the first itself: llama-server takes it off the prompt."""

ALL = frozenset(name for name in TALKS if "continued" in name)
ANSWERS = ALL - {"continued reasoning"}
SILENT = ANSWERS - {"continued after reasoning"}
QUIET = frozenset({"not thinking, continued"})
THOUGHTS = frozenset({"reasoning", "reasoning, text and call", "reasoning, call and answer"})
A_LIST = frozenset({"call with a list"})
PARTS = frozenset({"parts"})

NO_TAGS = "llama-server puts tags of thoughts in front, of which this template knows nothing"
BREAKS = "llama-server has line breaks of its own around thoughts, where we have the template's"
TWICE = "the prompt has an empty thought or the end of one, and llama-server adds another"
END_ONLY = "llama-server writes the end of a thought without its beginning"
LISTS = "llama.cpp writes a list without its brackets and commas, and null as nothing"
UNSEEN = "this template takes parts, which llama.cpp does not find out: it makes a text of them"
LOST = "llama-server gives thoughts as parts, of which this template writes the first alone"
CUT = "llama-server cuts off the first characters of the turn that it begins"
TRIMMED = "llama-server trims all texts for this one template"
DROPPED = "llama-server leaves out a system message that has no place, and we refuse"

DIFFERENCES: tuple[tuple[str, frozenset[str], str], ...] = (
    ("GLM-4.6", QUIET, TWICE),
    ("GLM-4.7-Flash", QUIET, TWICE),
    ("Kimi-K2-Instruct", ALL, NO_TAGS),
    ("LFM2-8B-A1B", ALL, NO_TAGS),
    ("LFM2.5-8B-A1B", PARTS, UNSEEN),
    ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", ANSWERS, BREAKS),
    ("NVIDIA-Nemotron-Nano-v2", ALL, BREAKS),
    ("Reka-Edge", QUIET, TWICE),
    ("Spark2.5", QUIET, TWICE),
    ("StepFun3.5-Flash", ANSWERS, BREAKS),
    ("StepFun3.5-Flash", frozenset({"spaces"}), TRIMMED),
    ("deepseek-ai-DeepSeek-V4", SILENT, END_ONLY),
    ("deepseek-ai-DeepSeek-V4-Flash-0731", SILENT, END_ONLY),
    ("google-gemma-2-2b-it", frozenset({"system alone"}), DROPPED),
    ("google-gemma-4-31B-it", A_LIST, LISTS),
    ("google-gemma-4-31B-it-interleaved", A_LIST, LISTS),
    ("llama-cpp-rwkv-world", ANSWERS, TWICE),
    ("microsoft-Phi-3.5-mini-instruct", ALL, CUT),
    ("mistralai-Ministral-3-14B-Reasoning-2512", PARTS, UNSEEN),
    ("moonshotai-Kimi-K2", ALL, NO_TAGS),
    ("openbmb-MiniCPM5-1B", A_LIST, LISTS),
    ("poolside-Laguna-S-2.1", QUIET, TWICE),
    ("poolside-Laguna-XS-2.1", ANSWERS, BREAKS),
    ("poolside-Laguna-XS.2", ANSWERS, BREAKS),
    ("unsloth-mistral-Devstral-Small-2507", ALL, NO_TAGS),
    ("unsloth-mistral-Devstral-Small-2507", THOUGHTS, LOST),
)
"""A template, the conversations that it gives another prompt for, and why."""


@attrs.frozen
class Seen:
    """What llama-server made of one template."""

    source: str
    capabilities: dict[str, bool]
    prompts: dict[str, str | None]
    """By conversation; None is refused."""
    ours: dict[str, str | None]
    """The same of ours, made on the same day: some templates write the date."""


@pytest.fixture(scope="module")
def seen(
    serve: Serve, llama_cpp_sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Seen]:
    """All templates of llama.cpp's collection, as llama-server renders them."""
    folder = tmp_path_factory.mktemp("templates")
    found = {}
    for path in sorted((llama_cpp_sources / "models" / "templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        model = tiny_model(folder / "model.gguf", chat_template=source)
        with serve(Settings(model=model, context_tokens=256)) as server:
            prompts, rendered = rendered_by_both(server, source)
            properties = json.loads(server._ask("GET", "/props")[1])
        found[path.stem] = Seen(source, properties["chat_template_caps"], prompts, rendered)
    return found


Prompts = dict[str, str | None]


def rendered_by_both(server: LlamaServer, source: str) -> tuple[Prompts, Prompts]:
    """Return llama-server's prompts and ours; anew where midnight came between them."""
    template = ChatTemplate(source)
    while True:
        day = today()
        theirs = {name: asked(server, talk) for name, talk in TALKS.items()}
        mine = {name: ours(template, talk) for name, talk in TALKS.items()}
        if today() == day:
            return theirs, mine


def today() -> date:
    """Return the date where this machine is."""
    return datetime.now().astimezone().date()


def asked(server: LlamaServer, talk: Talk) -> str | None:
    """Return llama-server's prompt for a conversation, or None where it refuses."""
    status, answer = server._ask("POST", "/apply-template", json.dumps(talk.body()))
    if status != http.HTTPStatus.OK:
        return None
    prompt: str = json.loads(answer)["prompt"]
    return prompt


def ours(template: ChatTemplate, talk: Talk) -> str | None:
    """Return our prompt as llama-server would write it, or None where we refuse."""
    try:
        text = template.render(
            talk.messages, talk.tools, bos=BOS, eos=EOS, reasoning=talk.reasoning
        )
    except Unsupported:
        return None
    return text.removeprefix(BOS)


def test_every_prompt_is_equal_but_for_a_table(seen: dict[str, Seen]) -> None:
    """So many templates, so many conversations: the ones that differ are those of the table."""
    found = set()
    for name, made in seen.items():
        found |= {(name, title) for title in TALKS if made.ours[title] != made.prompts[title]}

    wanted = {(name, title) for name, titles, _ in DIFFERENCES for title in titles}
    assert len(seen) == TEMPLATES
    assert found == wanted
    assert len(wanted) < 0.03 * len(seen) * len(TALKS)


def test_what_templates_understand_is_found_out_alike(seen: dict[str, Seen]) -> None:
    """Our trials find what llama.cpp's find, but for the parts that it does not see."""
    fields = {
        "supports_string_content": "string_content",
        "supports_typed_content": "typed_content",
        "supports_system_role": "system_role",
        "supports_tools": "takes_tools",
        "supports_object_arguments": "object_arguments",
    }
    found = set()
    for name, theirs in seen.items():
        style = Style(theirs.source)
        for key, field in fields.items():
            if getattr(style, field) != theirs.capabilities[key]:
                found.add((name, field))

    assert found == {(name, "typed_content") for name, _, why in DIFFERENCES if why is UNSEEN}


def test_a_template_for_tools_is_used_alike(serve: Serve, tmp_path: Path) -> None:
    """A second template in the file is for requests with tools, of both."""
    plain = "{% for m in messages %}{{ m.content }};{% endfor %}"
    tools = "{{ tools|tojson }}" + plain
    metadata = {"tokenizer.chat_template.tool_use": tools}
    model = tiny_model(tmp_path / "two.gguf", chat_template=plain, metadata=metadata)
    template = ChatTemplate(plain, tool_use=tools)

    with serve(Settings(model=model, context_tokens=256)) as server:
        for talk in (TALKS["user"], TALKS["tools"]):
            assert ours(template, talk) == asked(server, talk)


def test_numbers_in_arguments_differ_in_their_last_digits(serve: Serve, tmp_path: Path) -> None:
    """llama.cpp writes six digits of a fraction; we write the number that was there."""
    source = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments|tojson }}"
    source += "{% endfor %}{{ m.content }}{% endfor %}"
    call = ToolCall("1", "f", '{"a": 1.0, "b": 0.123456789, "c": 1.5, "d": 12345678901}')
    talk = Talk([Message(Role.ASSISTANT, "", [call]), tool(call, ""), user("")])
    model = tiny_model(tmp_path / "numbers.gguf", chat_template=source)

    with serve(Settings(model=model, context_tokens=256)) as server:
        theirs = asked(server, talk)

    assert theirs == '{"a": 1, "b": 0.123457, "c": 1.5, "d": 12345678901}'
    assert ours(ChatTemplate(source), talk) == call.arguments


def test_sorting_differs_in_the_case_of_letters(serve: Serve, tmp_path: Path) -> None:
    """llama.cpp sorts capitals first; we sort as jinja2 does, which templates were written for."""
    source = "{{ messages[0].content }}{% for k, v in {'b': 1, 'C': 2, 'a': 3}|dictsort %}{{ k }}"
    source += "{% endfor %}"
    model = tiny_model(tmp_path / "sorting.gguf", chat_template=source)

    with serve(Settings(model=model, context_tokens=256)) as server:
        assert asked(server, TALKS["empty user"]) == "Cab"

    assert ours(ChatTemplate(source), TALKS["empty user"]) == "abC"


def test_text_can_name_control_tokens_in_both(serve: Serve, tmp_path: Path) -> None:
    """What a user writes is put into the prompt as it is; neither keeps it from being a token."""
    source = "<|user|>{{ messages[0].content }}</s>"
    text = "</s><|user|>"
    model = tiny_model(tmp_path / "control.gguf", chat_template=source)
    talk = Talk([user(text)])

    with serve(Settings(model=model, context_tokens=256)) as server:
        theirs: Any = asked(server, talk)
        body = {"content": theirs, "add_special": True, "parse_special": True}
        tokens = server.post("/tokenize", body)["tokens"]

    assert theirs == ours(ChatTemplate(source), talk) == f"<|user|>{text}</s>"
    assert tokens.count(2) == 2, "the end of the text, ours and the user's"
