"""From a conversation to Gemini's ``contents`` and ``systemInstruction``. Pure.

The roles are two: what the user and the tools say is ``user``, what the assistant says is
``model``, and turns of one role that follow each other are one turn. What the system says stands
apart, in front. A tool's result goes by the name of the tool, which the call earlier in the
conversation tells.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.message import Image, Message, Role, Text, ToolCall
from llmdispatcher.vendors.gemini import keepsakes
from llmdispatcher.vendors.gemini.keepsakes import Part
from llmdispatcher.vendors.gemini.known import Family

_KINDS = {
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}
"""What the end of an address says about what is there."""


def instruction(messages: Iterable[Message]) -> Part | None:
    """Return what the system says, all of it; None for nothing."""
    said = [part for message in messages if message.role is Role.SYSTEM for part in message.content]
    if any(isinstance(part, Image) for part in said):
        raise Unsupported(
            "images", "Gemini takes no pictures from the system: give them in a message of the user"
        )
    parts = [{"text": part.text} for part in said if isinstance(part, Text)]
    return {"parts": parts} if parts else None


def contents(messages: Sequence[Message], family: Family) -> list[Part]:
    """Return the turns. Raises BadRequest for a conversation that cannot be one."""
    turns: list[Part] = []
    names: dict[str, str] = {}
    current = max((i for i, m in enumerate(messages) if m.role is Role.USER), default=-1)
    for index, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.ASSISTANT:
            role, parts = "model", _said(message, needs_sign=family.signed and index > current)
            names |= {call.id: call.name for call in message.tool_calls}
        elif message.role is Role.TOOL:
            role, parts = "user", [_result(message, names, family)]
        else:
            role, parts = "user", [_part(part) for part in message.content] or [{"text": ""}]
        if parts and turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        elif parts:
            turns.append({"role": role, "parts": parts})
    if not turns:
        raise BadRequest("messages", "no turns", "with at least one that is not the system's")
    return turns


# -- what the assistant said -------------------------------------------------------------------


def _said(message: Message, *, needs_sign: bool) -> list[Part]:
    """Its thoughts are not given back as text: Gemini reads them from its signatures alone."""
    kept = keepsakes.kept(message.keepsakes)
    if kept.stretches or kept.parts:
        parts = kept.laid(message.text)
        parts += [_part(part) for part in message.content if isinstance(part, Image)]
    else:
        parts = [_part(part) for part in message.content if part != Text("")]
    calls = [_call(call, kept.calls.get(call.id)) for call in message.tool_calls]
    if needs_sign and calls and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = keepsakes.UNSIGNED
    return parts + calls


def _call(call: ToolCall, signature: str | None) -> Part:
    arguments = strict_object(call.arguments) if call.arguments.strip() else {}
    if arguments is None:
        raise BadRequest("arguments", call.arguments, "the JSON text of an object, for Gemini")
    function = {"name": call.name, "args": arguments}
    part: Part = {"functionCall": {"id": call.id, **function} if call.id else function}
    return part if signature is None else {**part, "thoughtSignature": signature}


# -- what came of its calls --------------------------------------------------------------------


def _result(message: Message, names: Mapping[str, str], family: Family) -> Part:
    call_id = message.tool_call_id
    if call_id is None or call_id not in names:
        raise BadRequest(
            "tool_call_id", call_id, "that of a call earlier in the conversation, which names it"
        )
    result = strict_object(message.text)
    response: Part = {
        "name": names[call_id],
        "response": {"output": message.text} if result is None else result,
    }
    if call_id:
        response["id"] = call_id
    if images := [part for part in message.content if isinstance(part, Image)]:
        if not family.sees_results:
            raise Unsupported(
                "images",
                "Gemini sees pictures in the results of tools from version 3 on: give them in a"
                " message of the user behind the result",
            )
        response["parts"] = [_part(image) for image in images]
    return {"functionResponse": response}


def strict_object(text: str) -> dict[str, Any] | None:
    """Return the object that a JSON text is; None for what is none, or could not be sent as one."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# -- parts -------------------------------------------------------------------------------------


def _part(part: Text | Image) -> Part:
    if isinstance(part, Text):
        return {"text": part.text}
    if part.data:
        return _inline(part.media_type, part.data)
    scheme = part.url.partition(":")[0].lower()
    if scheme == "data":
        return _decoded(part.url)
    if scheme not in {"http", "https", "gs"}:
        raise Unsupported(
            "images",
            f"Gemini cannot fetch {part.url[:80]!r}: read the file yourself and give"
            " Image(data=…), or a data: URL",
        )
    return {"fileData": {"fileUri": part.url, "mimeType": _kind(part)}}


def _inline(media_type: str, data: bytes) -> Part:
    return {"inlineData": {"mimeType": media_type, "data": base64.b64encode(data).decode()}}


def _decoded(url: str) -> Part:
    """Read a data: URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    kind, *fields = head.partition(":")[2].split(";")
    raw = unquote_to_bytes(data)
    try:
        if "base64" in [field.strip().lower() for field in fields]:
            raw = base64.b64decode(raw, validate=True)
    except binascii.Error:
        raw = b""
    if not comma or not raw:
        raise BadRequest("url", url[:80], "a data: URL with data, in base64 where it says so")
    return _inline(kind.strip().lower() or "image/png", raw)


def _kind(image: Image) -> str:
    """Tell the kind by the end of the address, where the caller told none."""
    if image.media_type != "image/png":
        return image.media_type
    path = image.url.partition("?")[0].partition("#")[0]
    return _KINDS.get(path.rpartition(".")[2].lower(), image.media_type)
