"""How models write reasoning and tool calls: a row of data for each way that is known.

A row is found by what its chat template contains, never by the name of a model.
"""

from __future__ import annotations

import attrs

from llmdispatcher.vendors.llamacpp.speech.dialect import BAR, Head, Speech, Tags

_THINK = ("<think>", "</think>")
_XML = Tags(
    key=("<parameter=", ">"),
    value=("", "</parameter>"),
    end="</function>",
    write="<parameter={key}>\n{value}\n</parameter>{w}",
)
_FUNCTION = Head(
    form=r"<function=(?P<name>[^<>]+)",
    begin="<function=",
    ends=(">",),
    write="<function={name}>\n",
)
_DSML = f"{BAR}DSML{BAR}"


def _attribute_tags(tag: str, invoke: str, attribute: str = '"') -> Tags:
    """Parameters that tell their name in an attribute."""
    return Tags(
        key=(f'<{tag} name="', '"'),
        value=(">", f"</{tag}>"),
        end=f"</{invoke}>",
        write=f'<{tag} name="{{key}}{attribute}>{{value}}</{tag}>{{w}}',
    )


def _pairs(suffix: str = "") -> Tags:
    """Parameters in pairs of a key and a value."""
    key, value = (f"<arg_key{suffix}>", f"</arg_key{suffix}>"), "arg_value" + suffix
    return Tags(
        key=key,
        value=(f"<{value}>", f"</{value}>"),
        write=f"{{w}}{key[0]}{{key}}{key[1]}{{w}}<{value}>{{value}}</{value}>{{w}}",
    )


def _invoke(tag: str) -> Head:
    return Head(
        form=f'<{tag} name="(?P<name>[^"<>]+)"',
        begin=f'<{tag} name="',
        ends=(">",),
        write=f'<{tag} name="{{name}}">\n',
    )


def _mistral(name: str, write: str) -> Speech:
    form = r"\s*(?P<name>[^\[\]{}\s]+)\s*(?:\[CALL_ID\](?P<id>[^\[\]{}\s]+))?\s*"
    head = Head(form=form, ends=("[ARGS]", "{"), write=write)
    return Speech(name=name, call=("[TOOL_CALLS]", ""), head=head, id_length=9)


GENERIC = Speech(
    name="generic JSON",
    bare=True,
    call=("{", ""),
    fences=("```json\n{", "```\n{"),
    closers=("```",),
    json_list=True,
)

ROWS: list[tuple[tuple[str, ...], Speech]] = [
    (("]<]minimax[>[",), GENERIC),  # nested tags of its own, which are not read here
    (("<|channel|>", "<|message|>"), Speech(name="harmony", harmony=True)),
    (
        (">>>all", ">>>${recipient}"),
        Speech(
            name="Functionary 3.2",
            call=(">>>", ""),
            head=Head(form=r"(?P<name>[^\n{]+)", ends=("\n",), write="{name}\n"),
            recipients=True,
        ),
    ),
    (
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
        Speech(
            name="Kimi K2",
            section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            call=("<|tool_call_begin|>", "<|tool_call_end|>"),
            head=Head(
                form=r"\s*(?P<id>(?:functions\.)?(?P<name>.+?)(?::\d+)?)\s*",
                ends=("<|tool_call_argument_begin|>",),
                write="functions.{name}:{id}<|tool_call_argument_begin|>",
            ),
            calls_end_thought=True,
        ),
    ),
    (
        ("<|START_TEXT|>", "<|START_ACTION|>"),
        Speech(
            name="Cohere 2 MoE",
            think=("<|START_THINKING|>", "<|END_THINKING|>"),
            wrap=("<|START_TEXT|>", "<|END_TEXT|>", "<|END_OF_TURN_TOKEN|>"),
            section=("<|START_ACTION|>", "<|END_ACTION|>"),
            json_keys=("tool_name", "parameters"),
            json_list=True,
            id_key="tool_call_id",
        ),
    ),
    (
        ("<|START_ACTION|>", "<|START_RESPONSE|>"),
        Speech(
            name="Command R7B",
            think=("<|START_THINKING|>", "<|END_THINKING|>"),
            wrap=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
            section=("<|START_ACTION|>", "<|END_ACTION|>"),
            json_keys=("tool_name", "parameters"),
            json_list=True,
            id_key="tool_call_id",
        ),
    ),
    (
        ("<|tool_list_start|>", "<|tool_list_end|>"),
        Speech(name="LFM2", pythonic=True, section=("<|tool_call_start|>", "<|tool_call_end|>")),
    ),
    (
        ("List of tools: [",),
        Speech(name="LFM2.5", pythonic=True, section=("<|tool_call_start|>", "<|tool_call_end|>")),
    ),
    (
        ("dsml_token", "function_calls"),
        Speech(
            name="DeepSeek V3.2",
            section=(f"<{_DSML}function_calls>", f"</{_DSML}function_calls>"),
            head=_invoke(f"{_DSML}invoke"),
            tags=_attribute_tags(f"{_DSML}parameter", f"{_DSML}invoke", '" string="{string}"'),
            calls_end_thought=True,
        ),
    ),
    (
        ("dsml_token", "tool_calls"),
        Speech(
            name="DeepSeek V4",
            section=(f"<{_DSML}tool_calls>", f"</{_DSML}tool_calls>"),
            head=_invoke(f"{_DSML}invoke"),
            tags=_attribute_tags(f"{_DSML}parameter", f"{_DSML}invoke", '" string="{string}"'),
            calls_end_thought=True,
        ),
    ),
    (
        ("'<|tool_call>call:'",),
        Speech(
            name="Gemma 4",
            think=("<|channel>thought", "<channel|>"),
            wrap=("<|channel>", "<channel|>"),
            call=("<|tool_call>", "<tool_call|>"),
            closers=("<|tool_response>",),
            head=Head(form=r"\s*call:(?P<name>[^{}\s]+)\s*", ends=("{",), write="call:{name}"),
            quoted=True,
            calls_end_thought=True,
        ),
    ),
    (
        ("Tool usage guidelines:", '<function name="', '<param name="'),
        Speech(
            name="MiniCPM5",
            call=('<function name="', ""),
            head=Head(form=r'(?P<name>[^"<>]+)"', ends=(">",), write='{name}">'),
            tags=attrs.evolve(
                _attribute_tags("param", "function"),
                write='<param name="{key}">{value}</param>{w}',
            ),
        ),
    ),
    (
        ("<seed:tool_call>",),
        Speech(
            name="Seed OSS",
            call=("<seed:tool_call>", "</seed:tool_call>"),
            head=_FUNCTION,
            tags=attrs.evolve(_XML, write="<parameter={key}>{value}</parameter>{w}"),
        ),
    ),
    (
        ("<minimax:tool_call>",),
        Speech(
            name="MiniMax M2",
            section=("<minimax:tool_call>", "</minimax:tool_call>"),
            head=_invoke("invoke"),
            tags=_attribute_tags("parameter", "invoke"),
        ),
    ),
    (
        ("<tool_call>", "<function=", "<parameter="),
        Speech(
            name="Qwen3-Coder XML",
            call=("<tool_call>", "</tool_call>"),
            head=_FUNCTION,
            tags=_XML,
            calls_end_thought=True,
        ),
    ),
    (
        ("<tool_call{}>", "<tool_sep{}>", ":opensource"),
        Speech(
            name="Hunyuan 3",
            section=("<tool_calls:opensource>", "</tool_calls:opensource>"),
            call=("<tool_call:opensource>", "</tool_call:opensource>"),
            head=Head(
                form=r"\s*(?P<name>[^<>\s]+)\s*",
                ends=("<tool_sep:opensource>",),
                write="{name}<tool_sep:opensource>",
            ),
            tags=_pairs(":opensource"),
        ),
    ),
    (
        ("<tool_call>", "<arg_key>"),
        Speech(
            name="GLM",
            call=("<tool_call>", "</tool_call>"),
            head=Head(
                form=r"\s*(?P<name>[^<>\s{}\[\]]+)\s*", ends=("\n", "<arg_key>"), write="{name}"
            ),
            tags=_pairs(),
        ),
    ),
    (
        ("<TOOLCALL>",),
        Speech(name="Nemotron", call=("<TOOLCALL>", "</TOOLCALL>"), json_list=True),
    ),
    (
        ("<tool_calls>", "</tool_calls>"),
        Speech(name="tool_calls JSON", section=("<tool_calls>", "</tool_calls>"), json_list=True),
    ),
    (
        ("<|tools_prefix|>", "<|tools_suffix|>"),
        Speech(
            name="Apertus",
            section=("<|tools_prefix|>", "<|tools_suffix|>"),
            json_list=True,
            name_key=True,
        ),
    ),
    (
        ("<|tool_call:begin|>", "<|tool_call:args|>"),
        Speech(
            name="Solar Open",
            wrap=("<|content|>", "<|end|>", "<|begin|>assistant"),
            think=("<|think|>", "<|end|>"),
            section=("<|tool_calls|>", "<|calls|>"),
            call=("<|tool_call:begin|>", "<|tool_call:end|>"),
            head=Head(
                form=r"(?P<id>.*?)<\|tool_call:name\|>(?P<name>.+)",
                ends=("<|tool_call:args|>",),
                write="{id}<|tool_call:name|>{name}<|tool_call:args|>",
            ),
        ),
    ),
    (
        ("<|tool_call|>", "<|/tool_call|>"),
        Speech(name="Phi 4", section=("<|tool_call|>", "<|/tool_call|>"), json_list=True),
    ),
    (
        ("<|tool_call|>",),
        Speech(name="Granite 3", section=("<|tool_call|>", ""), json_list=True),
    ),
    (
        ("<|function_call|>", "<|message_sep|>"),
        Speech(name="GigaChat 3.1", section=("<|function_call|>", "")),
    ),
    (
        ("function call", "<|role_sep|>"),
        Speech(
            name="GigaChat 3",
            section=("<|message_sep|>\n\nfunction call<|role_sep|>\n", ""),
            fences=("function call<|role_sep|>\n",),
        ),
    ),
    (
        ("<tool_call>",),
        Speech(name="Hermes", call=("<tool_call>", "</tool_call>")),
    ),
    (
        (f"<{BAR}tool▁call▁begin{BAR}>", "```json"),
        Speech(
            name="DeepSeek R1",
            section=(f"<{BAR}tool▁calls▁begin{BAR}>", f"<{BAR}tool▁calls▁end{BAR}>"),
            call=(f"<{BAR}tool▁call▁begin{BAR}>", f"<{BAR}tool▁call▁end{BAR}>"),
            closers=("```",),
            head=Head(
                form=rf"\s*(?:function)?<{BAR}tool▁sep{BAR}>(?P<name>.+?)\s*",
                ends=("\n```json\n",),
                write=f"function<{BAR}tool▁sep{BAR}>{{name}}\n```json\n",
            ),
        ),
    ),
    (
        (f"<{BAR}tool▁call▁begin{BAR}>",),
        Speech(
            name="DeepSeek V3.1",
            section=(f"<{BAR}tool▁calls▁begin{BAR}>", f"<{BAR}tool▁calls▁end{BAR}>"),
            call=(f"<{BAR}tool▁call▁begin{BAR}>", f"<{BAR}tool▁call▁end{BAR}>"),
            head=Head(
                form=r"\s*(?P<name>.+?)\s*",
                ends=(f"<{BAR}tool▁sep{BAR}>",),
                write=f"{{name}}<{BAR}tool▁sep{BAR}>",
            ),
        ),
    ),
    (
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        _mistral("Mistral with ids", "{name}[CALL_ID]{id}[ARGS]"),
    ),
    (
        ("[TOOL_CALLS]", "[ARGS]"),
        _mistral("Mistral", "{name}[ARGS]"),
    ),
    (
        ("[TOOL_CALLS]",),
        Speech(
            name="Mistral JSON",
            section=("[TOOL_CALLS]", ""),
            json_list=True,
            id_key="id",
            late_id=True,
            id_length=9,
        ),
    ),
    (
        ("<function=", "</function>"),
        Speech(
            name="Functionary 3.1",
            call=("<function=", "</function>"),
            head=Head(form=r"(?P<name>[^<>\s{}]+)", ends=(">",), write="{name}>"),
        ),
    ),
    (
        ("functools",),
        Speech(name="Firefunction", section=("functools", ""), json_list=True),
    ),
    (
        ('{"name": function name',),
        Speech(
            name="Llama 3",
            bare=True,
            call=("{", ""),
            fences=("<|python_tag|>",),
            closers=(";",),
            json_keys=("name", "parameters"),
            pythonic=True,
        ),
    ),
]
"""The first row counts all of whose texts stand in the template. The order matters: what stands in
several kinds of template comes after the kinds that it is a part of."""

THOUGHTS: list[tuple[tuple[str, ...], tuple[str, str]]] = [
    (("<think{}>", ":opensource"), ("<think:opensource>", "</think:opensource>")),
    (("<seed:think>",), ("<seed:think>", "</seed:think>")),
    (("[THINK]", "[/THINK]"), ("[THINK]", "[/THINK]")),
    (("<|START_THINKING|>",), ("<|START_THINKING|>", "<|END_THINKING|>")),
    (("</think>",), _THINK),
    (("<think></think>",), _THINK),
]
