"""What chat templates are given, and what becomes of what they do not understand."""

from __future__ import annotations

import json

import pytest

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import (
    Image,
    Message,
    Role,
    Text,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)
from llmdispatcher.vendors.llamacpp.templates.template import (
    PLAIN_STOPS,
    PLAIN_WARNING,
    ChatTemplate,
)
from llmdispatcher.vendors.llamacpp.templates.turns import MEDIA_MARKER

CHATML = """
{%- if tools %}{{- '<|im_start|>tools\n' }}
    {%- for tool in tools %}{{- tool.function | tojson ~ '\n' }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content %}
        {{- '<think>\n' + message.reasoning_content + '\n</think>\n' }}
    {%- endif %}
    {{- message.content }}
    {%- for call in message.tool_calls %}
        {{- '<call>' + call.function.name + call.function.arguments | tojson + '</call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\n\n</think>\n' }}
    {%- endif %}
{%- endif %}"""
"""Like Qwen's: tools, thoughts in a field of their own, and a switch for them."""

LLAMA = """{{ bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {%- if loop.first and date_string is defined and message['role'] == 'system' %}
        {{- 'Today: ' + date_string + '\n\n' }}
    {%- endif %}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
"""Like that of Llama 3: the date, and text that is trimmed."""

MISTRAL = """
{%- if messages[0].role == 'system' %}
    {%- set first, turns = messages[0].content + '\n\n', messages[1:] %}
{%- else %}
    {%- set first, turns = '', messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + (first if loop.last else '') + message.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}"""
"""Like Mistral's: the system message goes into the last turn, and nothing asks for a reply."""

GEMMA = """
{%- for message in messages %}
    {%- if message.role == 'system' %}{{- raise_exception('no system role') }}{%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\n' }}
    {%- for part in message.content %}
        {%- if part.type == 'text' %}{{- part.text | trim }}{%- endif %}
    {%- endfor %}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"""
"""Like Gemma's: no system role, and content in parts."""

PARTS = """
{%- for message in messages %}
    {%- if message.content is string %}{{- message.content }}
    {%- else %}{%- for part in message.content %}{{- '(' + part.text + ')' }}{%- endfor %}
    {%- endif %}
{%- endfor %}"""
"""Takes text and parts."""

TOOL = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
CALL = ToolCall("c1", "add", '{"a": 1}')
TURNS = [system("S"), user("U"), assistant("A"), user("V")]


def test_chatml_is_written_turn_by_turn() -> None:
    """Each turn is between its marks, and the next one is begun."""
    assert ChatTemplate(CHATML).render(TURNS) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_calls_and_results_are_written() -> None:
    """Tools are there when they are given; arguments of calls are objects; results have a role."""
    turns = [user("U"), Message(Role.ASSISTANT, "", [CALL]), tool(CALL, "2")]

    text = ChatTemplate(CHATML).render(turns, [TOOL])

    assert '<|im_start|>tools\n{"name": "add", "description": "Adds.", "parameters": ' in text
    assert '<call>add{"a": 1}</call>' in text
    assert "<|im_start|>tool\n2<|im_end|>" in text
    assert "tools" not in ChatTemplate(CHATML).render(turns)


def test_a_template_that_writes_arguments_as_they_are_gets_text() -> None:
    """Arguments are parsed only for templates that look into them."""
    source = "{% for m in messages %}{{ m.tool_calls[0].function.arguments }}{% endfor %}"
    turns = [Message(Role.ASSISTANT, "", [ToolCall("1", "f", "not JSON")]), tool("1", "x")]

    assert ChatTemplate(source).render(turns) == "not JSON"


@pytest.mark.parametrize("arguments", ["raw", "", "{", "NaN", "[" * 100_000])
def test_arguments_that_are_no_json_are_refused(arguments: str) -> None:
    """A template that looks into arguments cannot do so where they are no JSON."""
    turns = [user("U"), Message(Role.ASSISTANT, "", [ToolCall("1", "f", arguments)]), user("V")]

    with pytest.raises(Unsupported, match="arguments of calls as JSON"):
        ChatTemplate(CHATML).render(turns)


def test_thoughts_of_earlier_turns_are_written() -> None:
    """They go where the template looks for them."""
    turns = [user("U"), Message(Role.ASSISTANT, "A", (), None, "Hm."), user("V")]
    field = "{% for m in messages %}{{ m.thinking or m.content }};{% endfor %}"
    parts = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.thinking or p.text }},{% endfor %}{% endif %};{% endfor %}"
    )

    assert "assistant\n<think>\nHm.\n</think>\nA<|im_end|>" in ChatTemplate(CHATML).render(turns)
    assert ChatTemplate(field).render(turns) == "U;Hm.;V;"
    assert ChatTemplate(parts).render(turns) == "U;Hm.,A,;V;"


def test_thinking_is_switched() -> None:
    """It is on unless it is switched off, where the template knows how to think."""
    template = ChatTemplate(CHATML)
    asked = [user("U")]

    assert template.takes_reasoning
    assert template.render(asked) == template.render(asked, reasoning=True)
    assert template.render(asked, reasoning=False).endswith("<think>\n\n</think>\n")
    assert not ChatTemplate(LLAMA).takes_reasoning


def test_a_switch_that_is_no_thought_is_off() -> None:
    """As in llama-server, a template that only names the switch is not switched on."""
    source = "{% if enable_thinking %}on{% else %}off{% endif %}: {{ messages[0].content }}"

    assert ChatTemplate(source).render([user("U")]) == "off: U"
    assert ChatTemplate(source).render([user("U")], reasoning=True) == "on: U"


def test_the_last_turn_of_the_assistant_is_continued() -> None:
    """It is left open, after an empty thought where a thought comes first."""
    before = "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    thinking, template = Message(Role.ASSISTANT, "", (), None, "Let me"), ChatTemplate(CHATML)

    answered = template.render([user("U"), assistant("Once ")])
    thought = template.render([user("U"), thinking])

    assert answered == before + "<think>\n\n</think>\nOnce "
    assert thought == before + "<think>\nLet me"
    assert ChatTemplate(MISTRAL).render([user("U"), assistant("Once")]) == "[INST] U[/INST]Once"


def test_what_cannot_be_continued_is_refused() -> None:
    """Neither calls nor the second of two turns can be continued."""
    called = Message(Role.ASSISTANT, "", [CALL])

    with pytest.raises(Unsupported, match="add what they returned"):
        ChatTemplate(CHATML).render([user("U"), called])
    with pytest.raises(Unsupported, match="of two messages"):
        ChatTemplate(CHATML).render([user("U"), assistant("A"), assistant("B")])


def test_llama_gets_the_date_and_the_start() -> None:
    """The start of a text and the date come from us."""
    text = ChatTemplate(LLAMA).render([system("S"), user(" U ")], bos="<s>")

    assert text.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nToday: ")
    assert text.endswith("U<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


def test_mistral_refuses_what_does_not_alternate() -> None:
    """What a template objects to is said in its own words."""
    template = ChatTemplate(MISTRAL)

    assert template.render(TURNS, eos="</s>") == "[INST] U[/INST] A</s>[INST] S\n\nV[/INST]"
    with pytest.raises(Unsupported, match="roles must alternate"):
        template.render([user("U"), user("V")])


def test_a_system_message_without_a_place_goes_into_the_first_turn() -> None:
    """A template that refuses it, or leaves it out, gets it in front of what follows."""
    wanted = "<start_of_turn>user\nS\nU<end_of_turn>\n<start_of_turn>model\n"

    assert ChatTemplate(GEMMA).render([system("S"), user("U")]) == wanted
    with pytest.raises(Unsupported, match="system message alone"):
        ChatTemplate(GEMMA).render([system("S")])


def test_parts_are_written_as_the_template_takes_them() -> None:
    """They stay parts where those are understood, and are lines of one text elsewhere."""
    turns = [user([Text("A"), Text("B")]), assistant("C"), user("D")]

    assert ChatTemplate(PARTS).render(turns) == "(A)(B)CD"
    assert "user\nA\nB<|im_end|>" in ChatTemplate(CHATML).render(turns)
    assert "user\nA\nB<end_of_turn>" not in ChatTemplate(GEMMA).render(turns)
    assert "user\nAB<end_of_turn>" in ChatTemplate(GEMMA).render(turns)


@pytest.mark.parametrize("source", [CHATML, LLAMA, MISTRAL, GEMMA, PARTS, None])
def test_a_picture_is_a_marker_at_its_place(source: str | None) -> None:
    """No line is begun before or after it."""
    picture = Image(b"x")
    turns = [user(["A", "B", picture, "C", "D", picture])]

    text = ChatTemplate(source).render(turns)

    assert f"A\nB{MEDIA_MARKER}C\nD{MEDIA_MARKER}" in text


@pytest.mark.parametrize(
    "turns",
    [
        [user(f"a {MEDIA_MARKER}")],
        [user([Image(b"x"), MEDIA_MARKER])],
        [Message(Role.ASSISTANT, "A", (), None, MEDIA_MARKER), user("U")],
        [
            user("U"),
            Message(Role.ASSISTANT, "", [ToolCall("1", "f", json.dumps([MEDIA_MARKER]))]),
            tool("1", "R"),
        ],
    ],
    ids=["text", "beside a picture", "thought", "arguments"],
)
def test_text_cannot_pretend_to_be_a_picture(turns: list[Message]) -> None:
    """Whatever brings the marker of a picture into the prompt is refused."""
    with pytest.raises(BadRequest, match="__media__"):
        ChatTemplate(CHATML).render(turns)


def test_a_picture_that_is_left_out_is_refused() -> None:
    """A template without a place for it would answer about nothing."""
    with pytest.raises(Unsupported, match="leaves a picture out"):
        ChatTemplate("{{ messages|length }}").render([user(["A", Image(b"x")])])


def test_a_note_about_tools_goes_into_the_system_message() -> None:
    """It ends that message, or is one, or stands before the first turn."""
    template, note = ChatTemplate(LLAMA), "You may add."

    assert not template.takes_tools
    assert "S\n\nYou may add.<|eot_id|>" in template.render(TURNS, tools_note=note)
    alone = template.render([user("U")], tools_note=note)
    assert "system<|end_header_id|>" in alone
    assert "You may add.<|eot_id|><|start_header_id|>user" in alone
    assert "user\nYou may add.\nU<" in ChatTemplate(GEMMA).render([user("U")], tools_note=note)
    assert ChatTemplate(None).render([user("U")], tools_note=note).startswith(f"{note}\nUser: U")


def test_tools_may_have_a_template_of_their_own() -> None:
    """It is used when there are tools, and alone where there is no other."""
    both = ChatTemplate("plain {{ messages[0].content }}", tool_use=CHATML)

    assert both.takes_tools
    assert both.render([user("U")]) == "plain U"
    assert "<|im_start|>tools" in both.render([user("U")], [TOOL])
    assert ChatTemplate(None, tool_use=CHATML).render([user("U")]).startswith("<|im_start|>")
    assert not ChatTemplate("{{ messages[0].content }}").takes_tools


def test_results_go_where_a_template_has_them() -> None:
    """Some have them in the turn that made the calls, with the answer that follows."""
    source = """
    {%- for m in messages %}{{- m.role + ':' + (m.content or '') }}
    {%- for r in m.tool_responses %}{{- '<' + r.name + '=' + r.response | tojson + '>' }}
    {%- endfor %}{{- ';' }}{%- endfor %}"""
    turns = [user("U"), Message(Role.ASSISTANT, "", [CALL]), tool(CALL, '{"b": 2}')]

    assert ChatTemplate(source).render(turns) == 'user:U;assistant:<add={"b": 2}>;'
    answered = ChatTemplate(source).render([*turns, assistant("A"), user("V")])
    assert answered == 'user:U;assistant:A<add={"b": 2}>;user:V;'


def test_the_plain_format_is_continued_and_warned_about_once() -> None:
    """Without a template, a transcript is written, and whoever asks is told with one reply."""
    template = ChatTemplate(None)

    assert template.render(TURNS) == "S\nUser: U\nAssistant: A\nUser: V\nAssistant:"
    assert template.render([user("U"), assistant("A")]) == "User: U\nAssistant: A"
    assert template.stops == PLAIN_STOPS
    assert (template.source, ChatTemplate(CHATML).source) == (None, CHATML)
    assert (template.warning, template.takes_tools, template.takes_reasoning) == (
        PLAIN_WARNING,
        False,
        False,
    )
    assert [template.take_warning(), template.take_warning()] == [PLAIN_WARNING, ""]
    assert ChatTemplate(CHATML).take_warning() == ""
