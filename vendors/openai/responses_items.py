"""Messages as the items of the responses endpoint. Pure.

A turn of the assistant is several items there: thoughts, texts and calls, in an order that the
endpoint wants back. ``Message`` holds the texts as one and the calls apart, so each *mark*, kept as
a ``Keepsake``, remembers how much of both came before it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply, BadRequest, Unsupported
from llmdispatcher.models.message import Image, Keepsake, Message, Role, Text

DIALECT = "openai-responses"
"""Whose keepsakes these are."""

Item = dict[str, Any]


@attrs.frozen
class Mark:
    """An item of a turn that is neither text nor call, or tells of the text behind it."""

    item: Mapping[str, Any]
    """Thoughts as they came, which only the vendor can read, or a message without its content."""
    chars: int
    """Of the turn's text that came before."""
    calls: int
    """Of the turn that came before."""

    def keepsake(self) -> Keepsake:
        """Return it as what travels with the turn. Raises BadReply for what nests too deep."""
        told = {"item": self.item, "chars": self.chars, "calls": self.calls}
        try:
            return Keepsake(DIALECT, json.dumps(told))
        except RecursionError:
            raise BadReply("the vendor sent thoughts that nest too deep") from None


def items(messages: Sequence[Message], *, developer: bool) -> list[Item]:
    """Return the items that the messages are; ``developer`` says the system's words.

    Raises Unsupported for a picture in a turn of the assistant, and BadRequest for a result that
    does not say of which call it is.
    """
    made: list[Item] = []
    for message in messages:
        match message.role:
            case Role.ASSISTANT:
                made += _turn(message)
            case Role.TOOL:
                made.append(_result(message))
            case Role.SYSTEM if developer:
                made.append(_said("developer", message))
            case role:
                made.append(_said(str(role), message))
    return made


def _said(role: str, message: Message) -> Item:
    return {"type": "message", "role": role, "content": _content(message)}


def _result(message: Message) -> Item:
    if message.tool_call_id is None:
        raise BadRequest("tool_call_id", None, "the id of the call that a tool's message answers")
    return {
        "type": "function_call_output",
        "call_id": message.tool_call_id,
        "output": _content(message),
    }


def _content(message: Message) -> str | list[Item]:
    if all(isinstance(part, Text) for part in message.content):
        return message.text
    return [_part(part) for part in message.content]


def _part(part: Text | Image) -> Item:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    url = part.url
    if part.data:
        url = f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


# -- turns of the assistant --------------------------------------------------------------------


def _turn(message: Message) -> Iterator[Item]:
    """Yield a turn's items in the order in which they came."""
    if any(isinstance(part, Image) for part in message.content):
        raise Unsupported(
            "images", "a turn of the assistant holds no pictures here: show it in a user's message"
        )
    text, phase = message.text, None
    chars = calls = 0
    for mark in (*_marks(message.keepsakes), None):
        end = len(text) if mark is None else min(mark.chars, len(text))
        if text[chars:end] or (mark is None and not text and not message.tool_calls):
            yield _uttered(text[chars:end], phase)
        last = len(message.tool_calls) if mark is None else min(mark.calls, len(message.tool_calls))
        for call in message.tool_calls[calls:last]:
            yield {
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments or "{}",
            }
        chars, calls = max(chars, end), max(calls, last)
        if mark is not None and mark.item["type"] == "reasoning":
            yield dict(mark.item)
        elif mark is not None:
            phase = mark.item.get("phase")


def _uttered(text: str, phase: object) -> Item:
    item: Item = {"type": "message", "role": "assistant", "content": text}
    return item if phase is None else {**item, "phase": phase}


def _marks(keepsakes: Sequence[Keepsake]) -> Iterator[Mark]:
    """Read those that are of this endpoint."""
    for keepsake in keepsakes:
        if keepsake.dialect == DIALECT:
            match _parsed(keepsake.data):
                case {
                    "item": {"type": "reasoning" | "message"} as item,
                    "chars": int(chars),
                    "calls": int(calls),
                } if min(chars, calls) >= 0:
                    yield Mark(item, chars, calls)
                case _:
                    allowed = "as the reply brought it: take Reply.message as it is"
                    raise BadRequest("keepsakes", keepsake.data, allowed)


def _parsed(data: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
