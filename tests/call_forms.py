"""Tool calls as models write them, one function for each form."""

from __future__ import annotations

import json
from typing import Any

Arguments = dict[str, Any]
Made = tuple[str, Arguments]
"""A call: the tool's name and the arguments."""

BAR = "\uff5c"
"""The wide bar of DeepSeek's control tokens."""


def made_id(place: int) -> str:
    """Return the id that a model with ids gives its calls here."""
    return f"callid{place:03}"


def as_json(value: object) -> str:
    """Write JSON as models do."""
    return json.dumps(value, ensure_ascii=False)


def hermes(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of hermes."""
    return f"<tool_call>\n{as_json({'name': name, 'arguments': arguments})}\n</tool_call>"


def llama(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of llama."""
    return as_json({"name": name, "parameters": arguments})


def mistral_json(place: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of mistral json."""
    return as_json({"name": name, "arguments": arguments, "id": made_id(place)})


def mistral(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of mistral."""
    return f"[TOOL_CALLS]{name}[ARGS]{as_json(arguments)}"


def mistral_id(place: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of mistral id."""
    return f"[TOOL_CALLS]{name}[CALL_ID]{made_id(place)}[ARGS]{as_json(arguments)}"


def marked(name: str) -> str:
    """Write a control token of DeepSeek's."""
    return f"<{BAR}{name.replace('_', chr(0x2581))}{BAR}>"


def deepseek_r1(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of deepseek r1."""
    head = f"{marked('tool_call_begin')}function{marked('tool_sep')}{name}\n```json\n"
    return f"{head}{as_json(arguments)}\n```{marked('tool_call_end')}"


def deepseek_v31(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of deepseek v31."""
    head = f"{marked('tool_call_begin')}{name}{marked('tool_sep')}"
    return f"{head}{as_json(arguments)}{marked('tool_call_end')}"


def as_text(value: object) -> str:
    """Write a value as a parameter without quotes."""
    return value if isinstance(value, str) else as_json(value)


def tags(form: str, arguments: Arguments) -> str:
    """Write parameters one by one."""
    return "".join(form.format(key, as_text(value)) for key, value in arguments.items())


def coder(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of coder."""
    told = tags("<parameter={}>\n{}\n</parameter>\n", arguments)
    return f"<tool_call>\n<function={name}>\n{told}</function>\n</tool_call>"


def seed(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of seed."""
    told = tags("<parameter={}>{}</parameter>\n", arguments)
    return f"<seed:tool_call>\n<function={name}>\n{told}</function>\n</seed:tool_call>"


def minimax(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of minimax."""
    return (
        f'<invoke name="{name}">\n'
        + tags('<parameter name="{}">{}</parameter>\n', arguments)
        + "</invoke>\n"
    )


def minicpm(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of minicpm."""
    told = tags('<param name="{}">{}</param>', arguments)
    return f'<function name="{name}">{told}</function>'


def dsml(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of dsml."""
    mark = f"{BAR}DSML{BAR}"
    told = "".join(
        f'<{mark}parameter name="{key}" string="{as_json(isinstance(value, str))}">'
        f"{as_text(value)}</{mark}parameter>\n"
        for key, value in arguments.items()
    )
    return f'<{mark}invoke name="{name}">\n{told}</{mark}invoke>\n'


def functionary(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of functionary."""
    return f"<function={name}>{as_json(arguments)}</function>"


def functionary_32(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of functionary 32."""
    return f"{name}\n{as_json(arguments)}"


def harmony(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of harmony."""
    head = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    return head + as_json(arguments)


def cohere(place: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of cohere."""
    return as_json({"tool_call_id": made_id(place), "tool_name": name, "parameters": arguments})


def kimi(place: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of kimi."""
    head = f"<|tool_call_begin|>functions.{name}:{place}<|tool_call_argument_begin|>"
    return f"{head}{as_json(arguments)}<|tool_call_end|>"


def glm(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of glm."""
    told = tags("<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n", arguments)
    return f"<tool_call>{name}\n{told}</tool_call>"


def hunyuan(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of hunyuan."""
    key, value = "arg_key:opensource", "arg_value:opensource"
    pair = f"<{key}>{{}}</{key}>\n<{value}>{{}}</{value}>\n"
    head = f"<tool_call:opensource>{name}<tool_sep:opensource>\n"
    return f"{head}{tags(pair, arguments)}</tool_call:opensource>"


def glm_tight(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of glm tight."""
    told = tags("<arg_key>{}</arg_key><arg_value>{}</arg_value>", arguments)
    return f"<tool_call>{name}{told}</tool_call>"


def pythonic(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of pythonic."""
    told = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({told})".replace(r"\xa0", "\u00a0")


def gemma(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of gemma."""
    return f"<|tool_call>call:{name}{unquoted(arguments)}<tool_call|>"


def unquoted(value: object) -> str:
    """Write a value with control tokens for quotes."""
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{unquoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(unquoted, value)) + "]"
    return as_json(value)


def keyed(_: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of keyed."""
    return as_json({name: arguments})


def plain_json(_: int, name: str, arguments: Arguments) -> str:
    """Write the JSON of most families."""
    return as_json({"name": name, "arguments": arguments})


def solar(place: int, name: str, arguments: Arguments) -> str:
    """Write a call in the form of solar."""
    head = f"<|tool_call:begin|>{made_id(place)}<|tool_call:name|>{name}<|tool_call:args|>"
    return f"{head}{as_json(arguments)}<|tool_call:end|>"
