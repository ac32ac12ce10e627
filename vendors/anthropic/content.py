"""From messages to turns as the API takes them: system apart, one turn a role, made of blocks.

Turns of one role that follow each other become one; answers of tools are blocks of the user's turn;
what the vendor wanted back with a turn goes first in it, as it came. Parts without text are left
out, since the API refuses them and nothing is lost. Nothing else is.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.message import Image, Message, Part, Role, ToolCall
from llmdispatcher.vendors.anthropic.known import Family

Block = dict[str, Any]
Turn = dict[str, Any]

DIALECT = "anthropic"
"""Of keepsakes."""

MEDIA_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

MAX_MARKS = 4
"""Places of one request up to which the vendor remembers it; more are refused."""

_SHOWN_CHARS = 80
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def split(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """Return the messages of the system that come first, and the rest."""
    first = next((i for i, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    return messages[:first], messages[first:]


def instructions(messages: Iterable[Message]) -> list[Block]:
    """Return what the system says, as blocks. Raises Unsupported for pictures."""
    return [block for message in messages for block in _spoken(message)]


def turns(messages: Iterable[Message], family: Family) -> list[Turn]:
    """Return a conversation without its beginning by the system.

    Raises Unsupported or BadRequest for what cannot be said.
    """
    made: list[Turn] = []
    for message in messages:
        role = "user" if message.role is Role.TOOL else str(message.role)
        blocks = _blocks(message, family)
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
    _check_late_system(made, family)
    return made


def mark(blocks: Iterable[Block]) -> None:
    """Take marks away that are too many, the first ones first: the last remember the most."""
    marked = [block for block in blocks if "cache_control" in block]
    for block in marked[: max(0, len(marked) - MAX_MARKS)]:
        del block["cache_control"]


def _check_late_system(made: list[Turn], family: Family) -> None:
    """Refuse a turn of the system where it cannot stand."""
    if not family.is_claude:
        return
    for index, turn in enumerate(made):
        if turn["role"] != "system":
            continue
        before = made[index - 1]["role"] if index else ""
        behind = made[index + 1]["role"] if index + 1 < len(made) else "assistant"
        if not family.takes_late_system or (before, behind) != ("user", "assistant"):
            raise Unsupported(
                "system",
                "this model takes no message of the system at this place: put it first, or, for"
                " models from Opus 4.8 on, between a turn of the user and the assistant's",
            )


def _blocks(message: Message, family: Family) -> list[Block]:
    match message.role:
        case Role.ASSISTANT:
            blocks = [*_thoughts(message, family), *map(_part, _there(message.content))]
            return [*blocks, *map(_call, message.tool_calls)]
        case Role.TOOL:
            return [_result(message)]
        case Role.SYSTEM:
            return _spoken(message)
    return [_part(part) for part in _there(message.content)] or [{"type": "text", "text": ""}]


def _there(parts: Iterable[Part]) -> list[Part]:
    return [part for part in parts if isinstance(part, Image) or part.text]


def _spoken(message: Message) -> list[Block]:
    if any(isinstance(part, Image) for part in message.content):
        raise Unsupported("images", "the system can only say text: show pictures as the user")
    return [_part(part) for part in _there(message.content)]


def _part(part: Part) -> Block:
    if isinstance(part, Image):
        return {"type": "image", "source": _source(part)}
    block: Block = {"type": "text", "text": part.text}
    if part.cache:
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _result(message: Message) -> Block:
    """Return the answer of a tool; a mark inside it becomes one of the whole."""
    if message.tool_call_id is None:
        raise BadRequest("tool_call_id", None, "the id of the call that the message answers")
    inside = [_part(part) for part in _there(message.content)]
    marks = [block.pop("cache_control") for block in inside if "cache_control" in block]
    block: Block = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id)}
    if inside:
        block["content"] = inside
    if marks:
        block["cache_control"] = marks[0]
    return block


def _id(given: str) -> str:
    """Return the id of a call as the API takes it: another vendor may have made it."""
    return _NOT_IN_IDS.sub("_", given) or "call"


# -- what the assistant said --------------------------------------------------------------------


def _thoughts(message: Message, family: Family) -> list[Block]:
    """Return what the vendor wants back; servers of other models take thoughts as plain text."""
    kept = [_kept(k.data) for k in message.keepsakes if k.dialect == DIALECT]
    if kept or family.is_claude or not message.reasoning:
        return kept
    return [{"type": "thinking", "thinking": message.reasoning, "signature": ""}]


def _kept(data: str) -> Block:
    try:
        block = json.loads(data)
    except (ValueError, RecursionError):
        block = None
    if not isinstance(block, dict):
        raise BadRequest("keepsakes", data, "those of a reply, unchanged")
    return block


def _call(call: ToolCall) -> Block:
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": _input(call)}


def _input(call: ToolCall) -> dict[str, Any]:
    try:
        value = json.loads(call.arguments or "{}", parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unsupported(
            "tool_calls",
            "this vendor takes back only calls whose arguments are a JSON object, and those of"
            f" {call.name!r} are {call.arguments[:_SHOWN_CHARS]!r}: leave the call out, or mend it",
        )
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


# -- pictures -----------------------------------------------------------------------------------


def _source(image: Image) -> Block:
    if image.data:
        return _inline(image.media_type, base64.b64encode(image.data).decode())
    scheme = image.url.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        return {"type": "url", "url": image.url}
    head, comma, data = image.url.partition(",")
    media_type, *parameters = head[len("data:") :].split(";")
    if scheme != "data" or not comma or [p.lower() for p in parameters[-1:]] != ["base64"]:
        raise Unsupported(
            "images",
            f"{image.url[:_SHOWN_CHARS]!r} is no address of a picture: give Image(data=…), or a"
            " URL with https: or data:…;base64,",
        )
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("url", image.url, "a data: URL with base64 behind the comma") from None
    return _inline(media_type, data)


def _inline(media_type: str, data: str) -> Block:
    media_type = media_type.strip().lower()
    if media_type not in MEDIA_TYPES:
        raise Unsupported(
            "images",
            f"this vendor sees {', '.join(sorted(MEDIA_TYPES))}, and this is {media_type!r}:"
            " convert the picture",
        )
    return {"type": "base64", "media_type": media_type, "data": data}
