"""What is said to a model: messages, and the parts that a message is made of.

All values are frozen and validated once, when they are made; see ``request.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from llmdispatcher.models.check import flag, title, words
from llmdispatcher.models.errors import BadRequest


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise BadRequest("role", role, f"one of {', '.join(Role)}") from None


@attrs.frozen
class Text:
    """A part of a message that is text."""

    text: str = attrs.field(validator=words)
    cache: bool = flag(default=False)
    """The conversation up to here will come again: a hint for vendors that remember a prompt only
    where they are told to (Anthropic). The others remember by themselves, or not at all."""


@attrs.frozen
class Image:
    """A part of a message that is a picture: its bytes, or an address, never both."""

    data: bytes = b""
    url: str = ""
    media_type: str = "image/png"

    def __attrs_post_init__(self) -> None:
        """Exactly one source, of the right kind."""
        if not isinstance(self.data, bytes):
            raise BadRequest("data", self.data, "the bytes of a file, as Path(…).read_bytes()")
        if not isinstance(self.url, str):
            raise BadRequest("url", self.url, "text (str)")
        if bool(self.data) == bool(self.url):
            raise BadRequest("Image", self.url or len(self.data), "either data or a url")


Part = Text | Image


@attrs.frozen
class ToolCall:
    """A call of a tool that the model made; ``arguments`` is the JSON text as it came."""

    id: str = attrs.field(validator=words)
    name: str = attrs.field(validator=words)
    arguments: str = attrs.field(validator=words)

    @classmethod
    def of(cls, value: ToolCall | Mapping[str, Any]) -> ToolCall:
        """Take a tool call, or the mapping that the OpenAI API uses for one."""
        if isinstance(value, ToolCall):
            return value
        match value:
            case {"function": {"name": str(name), "arguments": str(arguments)}}:
                return cls(str(value.get("id") or ""), name, arguments)
        allowed = "a ToolCall or {'id': …, 'function': {'name': …, 'arguments': JSON text}}"
        raise BadRequest("tool_calls", value, allowed)


def _keepsakes(values: Iterable[Keepsake]) -> tuple[Keepsake, ...]:
    given: tuple[Any, ...] = tuple(values)
    if foreign := [value for value in given if not isinstance(value, Keepsake)]:
        raise BadRequest("keepsakes", foreign[0], "those of the reply that the turn was")
    return given


def _tool_calls(values: Iterable[ToolCall | Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall.of(value) for value in values)


Content = str | Part | Iterable[str | Part | Mapping[str, Any]]
"""What the content of a message may be made of; mappings are those of the OpenAI API."""


def _parts(content: Content) -> tuple[Part, ...]:
    """Accept text, a part or several of either."""
    if type(content) is str:
        return (Text(content),)
    if isinstance(content, str | Text | Image):
        return (_part(content),)
    if isinstance(content, Mapping | bytes) or not isinstance(content, Iterable):
        raise BadRequest("content", content, "text, or a sequence of parts")
    return tuple(_part(item) for item in content)


def _part(item: object) -> Part:
    match item:
        case Text() | Image():
            return item
        case str():
            return Text(item)
        case {"type": "text", "text": str(text), "cache_control": {}}:
            return Text(text, cache=True)
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return Image(url=url)
    raise BadRequest("content", item, "text, a Text, an Image, or a mapping of type text")


@attrs.frozen
class Keepsake:
    """What a vendor wants back as it is with the turn that it came with: signed thoughts and such.

    Only vendors that speak the same dialect are shown it.
    """

    dialect: str = attrs.field(validator=title)
    data: str = attrs.field(validator=words)
    """JSON text, which nobody but the dialect reads."""


@attrs.frozen
class Message:
    """One turn of a conversation.

    ``content`` takes text, a part or a sequence of both, and is kept as a tuple of parts.
    """

    role: Role = attrs.field(converter=_role)
    content: tuple[Part, ...] = attrs.field(converter=_parts, default=())
    tool_calls: tuple[ToolCall, ...] = attrs.field(converter=_tool_calls, default=())
    tool_call_id: str | None = None
    reasoning: str = attrs.field(default="", validator=words)
    """What the assistant thought, as templates of models that think want it back."""
    keepsakes: tuple[Keepsake, ...] = attrs.field(converter=_keepsakes, default=())

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @classmethod
    def of(cls, value: Message | Mapping[str, Any] | str) -> Message:
        """Take a message, a ``{"role": …, "content": …}`` mapping, or text of the user."""
        if isinstance(value, Message):
            return value
        if isinstance(value, str):
            return cls(Role.USER, value)
        if not isinstance(value, Mapping):
            raise BadRequest("message", value, "text, a Message or a mapping with role and content")
        if not {"content", "tool_calls"} & set(value):
            raise BadRequest("message", value, "a mapping with role and content")
        known = {"role", "content", "tool_calls", "tool_call_id", "reasoning_content"}
        if unknown := set(value) - known:
            raise BadRequest("message", sorted(unknown), f"made of {', '.join(sorted(known))}")
        return cls(
            value.get("role", ""),
            _parts(value.get("content") or ()),
            value.get("tool_calls") or (),
            value.get("tool_call_id"),
            value.get("reasoning_content") or "",
        )


def system(content: Content) -> Message:
    """Make a message of the system."""
    return Message(Role.SYSTEM, content)


def user(content: Content) -> Message:
    """Make a message of the user."""
    return Message(Role.USER, content)


def assistant(content: Content) -> Message:
    """Make a message of the assistant."""
    return Message(Role.ASSISTANT, content)


def tool(call: ToolCall | str, content: Content) -> Message:
    """Make the message that answers a tool call, or the id of one."""
    return Message(Role.TOOL, content, tool_call_id=call.id if isinstance(call, ToolCall) else call)
