"""From messages to what a template is given, as llama-server does it.

What a template does not understand is said in another way: a system message becomes part of the
first turn, parts become one text, arguments of calls become objects. See llama.cpp's
``common/chat.cpp``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Image, Message, Role, Text, ToolCall
from llmdispatcher.vendors.llamacpp.templates.style import THOUGHT_BLOCK, Style, Turn, thinking

MEDIA_MARKER = "<__media__>"
"""Stands for a picture in a prompt; that of llama.cpp's library for pictures, mtmd."""


def written(messages: Sequence[Message], style: Style) -> list[Turn]:
    """Write messages as ``style`` understands them. Raises Unsupported."""
    turns = [_turn(message, style) for message in messages]
    if not style.system_role:
        turns = _merged(turns)
    if style.tool_responses:
        turns = _gathered(turns)
    if style.typed_content and not style.string_content:
        for each in turns:
            if isinstance(each["content"], str):
                each["content"] = [{"type": "text", "text": each["content"]}]
    return turns


def with_note(messages: Sequence[Message], note: str) -> list[Message]:
    """Put a text at the end of the system message, or make one of it."""
    if not messages or messages[0].role is not Role.SYSTEM:
        return [Message(Role.SYSTEM, note), *messages]
    first = messages[0]
    text = f"{joined(first)}\n\n{note}" if first.content else note
    return [attrs.evolve(first, content=text), *messages[1:]]


def tool(spec: ToolSpec) -> dict[str, Any]:
    """Write a tool in the shape of the OpenAI API."""
    function = {
        "name": spec.name,
        "description": spec.description,
        "parameters": dict(spec.parameters),
    }
    return {"type": "function", "function": function}


def joined(message: Message) -> str:
    """Write a message's parts as one text: a line each, pictures where they are."""
    text, after_image = "", False
    for part in message.content:
        image = isinstance(part, Image)
        if text and not image and not after_image:
            text += "\n"
        text += MEDIA_MARKER if isinstance(part, Image) else part.text
        after_image = image
    return text


def pictures(messages: Sequence[Message]) -> int:
    """Return how many pictures there are. Raises BadRequest for a text that looks like one."""
    count = sum(isinstance(part, Image) for message in messages for part in message.content)
    if count:  # without pictures, a marker in the prompt is no place of one
        for message in messages:
            for part in message.content:
                if isinstance(part, Text) and MEDIA_MARKER in part.text:
                    allowed = f"without {MEDIA_MARKER}, the place of a picture"
                    raise BadRequest("content", part.text, allowed)
    return count


def _turn(message: Message, style: Style) -> Turn:
    made: Turn = {"role": message.role.value, "content": _content(message, style)}
    if message.role is Role.ASSISTANT and (
        message.reasoning or style.thought_field == THOUGHT_BLOCK
    ):
        made = thinking(made, message.reasoning, style.thought_field)
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [_call(call, style) for call in message.tool_calls]
        if message.reasoning and not style.tells_beside_calls:
            made["content"] = ""  # refused beside a thought, which the model needs more
    return made


def _content(message: Message, style: Style) -> str | list[dict[str, str]]:
    if len(message.content) == 1 and isinstance(message.content[0], Text):
        return message.content[0].text
    texts = [part.text for part in message.content if isinstance(part, Text)]
    if style.typed_content and 1 < len(texts) == len(message.content):
        return [{"type": "text", "text": text} for text in texts]
    return joined(message)


def _call(call: ToolCall, style: Style) -> dict[str, Any]:
    arguments: Any = call.arguments
    if style.object_arguments:
        try:
            arguments = json.loads(arguments, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Unsupported(
                "tool_calls",
                f"the model's chat template needs the arguments of calls as JSON, and those of a"
                f" call of {call.name} are {arguments[:80]!r}: {error}; leave that call out",
            ) from error
    made = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {**made, "id": call.id} if call.id else made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _merged(turns: list[Turn]) -> list[Turn]:
    """Put a system message in front of the message that follows."""
    if not turns or turns[0]["role"] != "system":
        return turns
    if len(turns) == 1:
        raise Unsupported(
            "messages", "the model's chat template has no place for a system message alone"
        )
    system, first, *others = turns
    texts = [_plain(each["content"]) for each in (system, first)]
    return [{**first, "content": "\n".join(texts)}, *others]


def _plain(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _gathered(turns: list[Turn]) -> list[Turn]:
    """Put the results of calls, and an answer that follows, into the turn that made the calls."""
    made: list[Turn] = []
    for each in turns:
        last = made[-1] if made else {}
        open_calls = last.get("tool_calls") and "content" not in last
        if each.get("tool_calls"):
            made.append({key: value for key, value in each.items() if key != "content"})
        elif open_calls and each["role"] == "tool":
            responses = last.setdefault("tool_responses", [])
            names = [call["function"]["name"] for call in last["tool_calls"]]
            index = len(responses)
            name = names[index] if index < len(names) else each.get("tool_call_id", "")
            responses.append({"name": name, "response": _response(each["content"])})
        elif open_calls and each["role"] == "assistant" and each["content"]:
            last["content"] = each["content"]
        else:
            made.append(each)
    return made


def _response(content: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(content, str):
        return content
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content
