"""Messages, pictures and tools, as Ollama writes them. Pure.

A message is one text with its pictures before it: where in the text a picture stood is not kept.
Arguments of tool calls are objects here, not texts.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Image, Message, Role, ToolCall


def messages(said: Iterable[Message]) -> list[dict[str, Any]]:
    """Return a conversation. Raises Unsupported.

    Results of tools bear the name of the tool, which templates want: that of the last call with
    the same id.
    """
    names: dict[str, str] = {}
    written = []
    for message in said:
        names |= {call.id: call.name for call in message.tool_calls if call.id}
        written.append(_message(message, names))
    return written


def tools(specs: Iterable[ToolSpec]) -> list[dict[str, Any]]:
    """Return the tools that may be called."""
    return [{"type": "function", "function": _function(spec)} for spec in specs]


def _message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    written: dict[str, Any] = {"role": str(message.role), "content": message.text}
    if message.reasoning:
        written["thinking"] = message.reasoning
    if pictures := [_picture(part) for part in message.content if isinstance(part, Image)]:
        written["images"] = pictures
    if message.tool_calls:
        written["tool_calls"] = [
            _call(call, place) for place, call in enumerate(message.tool_calls)
        ]
    if message.role is Role.TOOL and message.tool_call_id:
        written["tool_call_id"] = message.tool_call_id
        if name := names.get(message.tool_call_id):
            written["tool_name"] = name
    return written


def _function(spec: ToolSpec) -> dict[str, Any]:
    """The server reads these fields of the parameters and writes "null" for properties left out."""
    parameters = {"type": "object", "properties": {}, **spec.parameters}
    return {"name": spec.name, "description": spec.description, "parameters": parameters}


def _call(call: ToolCall, place: int) -> dict[str, Any]:
    function = {"index": place, "name": call.name, "arguments": _arguments(call)}
    return {**({"id": call.id} if call.id else {}), "function": function}


def _arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments as the object that Ollama wants. Raises Unsupported."""
    try:
        read = json.loads(call.arguments or "{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, dict):
        return read
    raise Unsupported(
        "tool_calls",
        f"Ollama takes arguments of a call only as a JSON object, and those of {call.name!r} are"
        " none: send the call with arguments that are",
    )


def _no_number(name: str) -> float:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _picture(image: Image) -> str:
    """Return a picture in base64, without anything before it. Raises Unsupported."""
    if image.data:
        return base64.b64encode(image.data).decode()
    kind, _, data = image.url.partition(",")
    if not kind.lower().startswith("data:"):
        raise Unsupported(
            "images",
            "Ollama fetches no pictures by address: read the file yourself and give"
            " Image(data=Path(…).read_bytes())",
        )
    try:
        plain = unquote_to_bytes(data)
        inside = base64.b64decode(plain) if kind.lower().endswith(";base64") else plain
    except (ValueError, binascii.Error):
        inside = b""
    if not inside:
        raise Unsupported(
            "images",
            "there is no picture in a data: address: give Image(data=Path(…).read_bytes())",
        )
    return base64.b64encode(inside).decode()
