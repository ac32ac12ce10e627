"""What is said, and what may be answered: messages, tools and forms as the dialect writes them.

Text alone goes as one string, which every host takes from every role; only pictures make a list,
and several texts where a host has its own way to join them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import Shape, ToolSpec
from llmdispatcher.models.message import Image, Message, Role, Text
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai.sampling import put, thinks
from llmdispatcher.vendors.openai.ways import Choosing, JsonMode, Pictures, Ways

MAX_SCHEMA_NODES = 100_000
"""How much of a schema is looked at before it is taken as one that breaks the rules."""

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


# -- messages ----------------------------------------------------------------------------------


def messages(request: Request, ways: Ways, system: str) -> list[dict[str, Any]]:
    """Return the conversation; ``system`` is the role of the system's words."""
    written = [_message(message, ways, system) for message in request.messages]
    if request.prefill:
        if ways.prefill is None:
            raise Unsupported("prefill", "this host cannot continue a reply: leave prefill out")
        written.append({"role": "assistant", "content": request.prefill, **ways.prefill.message})
    return written


def _message(message: Message, ways: Ways, system: str) -> dict[str, Any]:
    role = system if message.role is Role.SYSTEM else str(message.role)
    written: dict[str, Any] = {"role": role, "content": _content(message, ways)}
    if message.tool_calls:
        written["tool_calls"] = [
            {
                "id": _id(call.id, ways),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
                **({"index": place} if ways.numbered_calls else {}),
            }
            for place, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = _id(message.tool_call_id, ways)
    if message.role is Role.ASSISTANT:
        written |= _kept(message, ways) or _thoughts(message, ways, written["content"])
    return written


def _content(message: Message, ways: Ways) -> str | list[dict[str, Any]]:
    is_one = ways.joins_texts or len(message.content) < 2  # noqa: PLR2004 - nothing to join
    if is_one and all(isinstance(part, Text) for part in message.content):
        return message.text
    return [_part(part, ways) for part in message.content]


def _part(part: Text | Image, ways: Ways) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": _url(part, ways)}}


def _url(image: Image, ways: Ways) -> str:
    if ways.pictures is Pictures.NEVER:
        raise Unsupported("images", "this host takes no pictures: ask another model")
    if image.data:
        return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    if ways.pictures is Pictures.DATA and not image.url.lower().startswith("data:"):
        raise Unsupported(
            "images",
            f"this host fetches nothing, so it cannot see {image.url[:80]!r}: read the file"
            " yourself and give Image(data=…), or a data: URL",
        )
    return image.url


def _id(name: str, ways: Ways) -> str:
    """Return the id of a call; a made one, always the same, for a host that takes no other."""
    if not ways.short_ids or _SHORT_ID.fullmatch(name):
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:9]


def _kept(message: Message, ways: Ways) -> dict[str, Any]:
    """Return what the host wants back, of all keepsakes that are of its kind."""
    kept: list[Any] = []
    for keepsake in message.keepsakes:
        if keepsake.dialect == ways.keepsake:
            told = json.loads(keepsake.data)
            kept += told if isinstance(told, list) else [told]
    return {ways.keepsake: kept} if kept else {}


def _thoughts(message: Message, ways: Ways, content: object) -> dict[str, Any]:
    if not ways.thoughts or not (message.reasoning or ways.thoughts_always):
        return {}
    if ways.thoughts != "content":
        return {ways.thoughts: message.reasoning}
    own = [{"type": "text", "text": content}] if content and isinstance(content, str) else []
    thought = {"type": "text", "text": message.reasoning}
    return {"content": [{"type": "thinking", "thinking": [thought]}, *own]}


# -- tools -------------------------------------------------------------------------------------


def tools(request: Request, ways: Ways) -> dict[str, Any]:
    """Return the tools, and which of them may or must be called."""
    choice, specs = request.tool_choice, request.tools
    if not specs:
        return {}
    if choice != "none":
        _check_tools(request, ways)
    elif ways.choosing is Choosing.NEVER:
        return {}
    named = choice not in {"auto", "none", "required"}
    if named and ways.choosing is Choosing.WORDS:
        specs, choice, named = tuple(s for s in specs if s.name == choice), "required", False
    fields: dict[str, Any] = {"tools": [_tool(spec) for spec in specs]}
    if named:
        fields["tool_choice"] = {"type": "function", "function": {"name": choice}}
    elif choice != "auto":
        fields["tool_choice"] = choice
    if ways.says_parallel or not request.parallel_tools:
        fields["parallel_tool_calls"] = request.parallel_tools
    return fields


def _check_tools(request: Request, ways: Ways) -> None:
    demanded = request.tool_choice != "auto"
    if demanded and ways.choosing is Choosing.NEVER:
        raise Unsupported("tool_choice", "this host cannot demand a call: take tool_choice='auto'")
    if demanded and ways.thinking.forbids_demands and thinks(request, ways):
        raise Unsupported(
            "tool_choice",
            "this host demands no call of a model that thinks: give reasoning=False, or take"
            " tool_choice='auto'",
        )
    if not request.parallel_tools and not ways.parallel:
        raise Unsupported(
            "parallel_tools", "this host cannot be held to one call at a time: leave it out"
        )
    if request.response_format.shape is Shape.GRAMMAR:
        raise Unsupported(
            "response_format",
            "a grammar leaves no room for calls of tools; leave out one of the two, or forbid"
            " calls with tool_choice='none'",
        )


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": spec.name}
    if spec.description:
        function["description"] = spec.description
    function["parameters"] = {"type": "object", "properties": {}, **spec.parameters}
    return {"type": "function", "function": function}


# -- forms -------------------------------------------------------------------------------------


def form(request: Request, ways: Ways) -> dict[str, Any]:
    """Return the fields that give the reply its form."""
    wanted = request.response_format
    raw = request.prompt is not None
    match wanted.shape:
        case Shape.TEXT:
            return {}
        case Shape.GRAMMAR:
            if not ways.grammar:
                raise _formless("a grammar")
            return put(ways.grammar, wanted.grammar)
        case Shape.SCHEMA:
            return _raw_schema(wanted.schema, ways) if raw else _schema(wanted.schema, ways)
    if raw:
        return _raw_schema(ways.any_json, ways)
    if ways.json is JsonMode.NEVER:
        raise _formless("JSON")
    if ways.json is JsonMode.SCHEMA:
        return _schema(ways.any_json, ways)
    return {"response_format": {"type": "json_object"}}


def _schema(schema: Mapping[str, Any], ways: Ways) -> dict[str, Any]:
    if not ways.schema:
        raise Unsupported(
            "response_format",
            "this host takes no JSON schema: ask for ResponseFormat('json') and say in the prompt"
            " what it looks like",
        )
    strict = not ways.strict_by_rules or keeps_rules(schema)
    named = {"name": "reply", "schema": dict(schema), "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _raw_schema(schema: Mapping[str, Any], ways: Ways) -> dict[str, Any]:
    if not ways.raw_schema:
        raise _formless("a schema beside a raw prompt")
    if ways.raw_schema == "response_format":
        return _schema(schema, ways)
    return {ways.raw_schema: dict(schema)}


def _formless(what: str) -> Unsupported:
    return Unsupported("response_format", f"this host cannot be held to {what}: ask another model")


def keeps_rules(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is one that OpenAI's ``strict`` takes.

    Every object names all its properties as required, and allows no others; and none of the words
    that it refuses is there.
    """
    if schema.get("type") != "object":
        return False
    for count, node in enumerate(_nodes(schema)):
        if count > MAX_SCHEMA_NODES or _BEYOND_RULES & node.keys():
            return False
        is_object = node.get("type") == "object" or "properties" in node
        properties = node.get("properties", {})
        if is_object and not (
            node.get("additionalProperties") is False
            and isinstance(properties, Mapping)
            and {*properties} == {*_names(node.get("required"))}
        ):
            return False
    return True


_BEYOND_RULES = frozenset(
    (
        "allOf",
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxLength",
        "minLength",
        "not",
        "oneOf",
        "patternProperties",
        "prefixItems",
        "then",
        "unevaluatedProperties",
        "uniqueItems",
    )
)
"""Words of JSON Schema outside the subset that strict mode takes."""


def _nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every schema in a schema: itself, and those in it."""
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Mapping):
            continue
        yield node
        for name in ("properties", "$defs", "definitions"):
            if isinstance(inner := node.get(name), Mapping):
                waiting.extend(inner.values())
        if isinstance(inner := node.get("anyOf"), list | tuple):
            waiting.extend(inner)
        waiting.append(node.get("items"))


def _names(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
