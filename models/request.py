"""What a caller asks for: messages, sampling, tools, the shape of the reply, deadlines.

All values are frozen and validated once, when they are made. A value outside its range raises
``BadRequest``, which names the field, shows the value and says what is allowed. ``None`` always
means "the vendor's own default": a field that is None is not sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypedDict, Unpack

import attrs

from llmdispatcher.models.check import (
    as_tuple,
    at_most,
    flag,
    instance,
    integer,
    mapping,
    nearest,
    number,
    words,
)
from llmdispatcher.models.errors import BadRequest

MAX_STOPS = 64
"""Stop strings of one request; each is searched for at every token."""

MAX_SEED = 2**32 - 2
"""llama.cpp keeps seeds in 32 bits and reserves the highest value for "choose one"."""


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


@attrs.frozen
class Image:
    """A part of a message that is a picture: its bytes, or an address, never both."""

    data: bytes = b""
    url: str = ""
    media_type: str = "image/png"

    def __attrs_post_init__(self) -> None:
        """Exactly one source."""
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


def _tool_calls(values: Iterable[ToolCall | Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall.of(value) for value in values)


Content = str | Part | Iterable[str | Part | Mapping[str, Any]]
"""What the content of a message may be made of; mappings are those of the OpenAI API."""


def _parts(content: Content) -> tuple[Part, ...]:
    """Accept text, a part or several of either."""
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
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return Image(url=url)
    raise BadRequest("content", item, "text, a Text, an Image, or a mapping of type text")


@attrs.frozen
class Message:
    """One turn of a conversation.

    ``content`` takes text, a part or a sequence of both, and is kept as a tuple of parts.
    """

    role: Role = attrs.field(converter=_role)
    content: tuple[Part, ...] = attrs.field(converter=_parts, default=())
    tool_calls: tuple[ToolCall, ...] = attrs.field(converter=_tool_calls, default=())
    tool_call_id: str | None = None

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
        known = {"role", "content", "tool_calls", "tool_call_id"}
        if unknown := set(value) - known:
            raise BadRequest("message", sorted(unknown), f"made of {', '.join(sorted(known))}")
        return cls(
            value.get("role", ""),
            _parts(value.get("content") or ()),
            value.get("tool_calls") or (),
            value.get("tool_call_id"),
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


@attrs.frozen(kw_only=True)
class Sampling:
    """How the next token is drawn. None leaves the choice to the vendor.

    The names are those of llama.cpp and of the OpenAI API where the two agree.
    """

    temperature: float | None = number("temperature", 0, 100)
    top_k: int | None = integer("top_k", 0, 2**31 - 1)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float | None = number("top_p", 0, 1)
    """Keep the likeliest tokens whose probabilities reach p (Holtzman et al. 2019)."""
    min_p: float | None = number("min_p", 0, 1)
    """Drop tokens less likely than p times the likeliest (Nguyen et al. 2024)."""
    typical_p: float | None = number("typical_p", 0, 1)
    """Locally typical sampling (Meister et al. 2022); 1 is off."""
    repeat_penalty: float | None = number("repeat_penalty", 0.01, 100)
    """Divide the logits of recent tokens by this; 1 is off."""
    repeat_last_n: int | None = integer("repeat_last_n", 0, 2**31 - 1)
    """How many recent tokens the three penalties look at."""
    presence_penalty: float | None = number("presence_penalty", -2, 2)
    frequency_penalty: float | None = number("frequency_penalty", -2, 2)
    dry_multiplier: float | None = number("dry_multiplier", 0, 100)
    """Strength of the "don't repeat yourself" sampler of llama.cpp; 0 is off."""
    dry_base: float | None = number("dry_base", 1, 100)
    dry_allowed_length: int | None = integer("dry_allowed_length", 0, 2**31 - 1)
    xtc_probability: float | None = number("xtc_probability", 0, 1)
    """Chance of excluding the top choices at a token; 0 is off."""
    xtc_threshold: float | None = number("xtc_threshold", 0, 1)
    seed: int | None = integer("seed", 0, MAX_SEED)
    """None draws a fresh seed for every request. A local model repeats itself exactly for the same
    seed, prompt and number of threads; ``LlamaCpp(max_threads=1)`` keeps the latter the same."""

    def given(self) -> dict[str, float | int]:
        """Return only the fields that are set."""
        return {k: v for k, v in attrs.asdict(self).items() if v is not None}


@attrs.frozen
class ToolSpec:
    """A tool that the model may call; ``parameters`` is a JSON schema of an object."""

    name: str = attrs.field(validator=words)
    description: str = attrs.field(default="", validator=words)
    parameters: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)


class Shape(StrEnum):
    """The shape that a reply must have."""

    TEXT = "text"
    JSON = "json"
    SCHEMA = "schema"
    GRAMMAR = "grammar"


@attrs.frozen
class ResponseFormat:
    """What the reply must look like; ``schema`` and ``grammar`` go with the shape of their name."""

    shape: Shape = attrs.field(converter=Shape, default=Shape.TEXT)
    schema: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)
    grammar: str = attrs.field(default="", validator=words)

    def __attrs_post_init__(self) -> None:
        """A schema or grammar is there exactly when the shape asks for it."""
        if bool(self.schema) != (self.shape is Shape.SCHEMA):
            raise BadRequest("schema", dict(self.schema), "given exactly when shape is 'schema'")
        if bool(self.grammar) != (self.shape is Shape.GRAMMAR):
            raise BadRequest("grammar", self.grammar, "given exactly when shape is 'grammar'")


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long each phase of a request may take, in seconds; None is no limit.

    ``first_token_s`` and ``idle_s`` bound *silence*: they start again whenever the vendor shows
    progress (a token, a piece of the prompt read, a place gained in its queue). ``load_s`` counts
    only the loading of a model, and no other limit counts that time.
    """

    connect_s: float | None = number("connect_s", 0, math.inf, default=5.0)
    first_token_s: float | None = number("first_token_s", 0, math.inf, default=60.0)
    idle_s: float | None = number("idle_s", 0, math.inf, default=30.0)
    total_s: float | None = number("total_s", 0, math.inf)
    load_s: float | None = number("load_s", 0, math.inf, default=300.0)


def _stops(value: str | Iterable[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else as_tuple("stop", value)


def _tools(value: Iterable[ToolSpec] | None) -> tuple[ToolSpec, ...]:
    return as_tuple("tools", value)


def _format(value: ResponseFormat | None) -> ResponseFormat:
    return ResponseFormat() if value is None else value


def _messages(value: object) -> tuple[Message, ...]:
    if isinstance(value, str | Message | Mapping):
        return (Message.of(value),)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise BadRequest("messages", value, "text, a message or a sequence of messages")
    return tuple(Message.of(item) for item in value)


@attrs.frozen(kw_only=True)
class Request:
    """One request: a conversation (``messages``) or a raw completion (``prompt``), never both.

    ``prompt`` goes to the model as it is, without a chat template. ``max_tokens`` left out means
    the rest of the context on a local model. ``vendor`` and ``model`` restrict who may answer.
    """

    messages: tuple[Message, ...] = attrs.field(converter=_messages, default=())
    prompt: str | None = attrs.field(default=None, validator=attrs.validators.optional(words))
    max_tokens: int | None = integer("max_tokens", 1, 2**31 - 1)
    stop: tuple[str, ...] = attrs.field(converter=_stops, validator=at_most(MAX_STOPS), default=())
    sampling: Sampling = attrs.field(
        factory=Sampling, validator=instance(Sampling, "Sampling(temperature=0)")
    )
    tools: tuple[ToolSpec, ...] = attrs.field(
        converter=_tools,
        default=(),
        validator=attrs.validators.deep_iterable(instance(ToolSpec, "ToolSpec('add', 'Adds.')")),
    )
    response_format: ResponseFormat = attrs.field(
        factory=ResponseFormat,
        converter=_format,
        validator=instance(ResponseFormat, "ResponseFormat('json')"),
    )
    vendor: str | None = None
    model: str | None = None
    allow_cloud: bool = flag(default=True)
    deadlines: Deadlines | None = attrs.field(
        default=None, validator=instance(Deadlines, "Deadlines(total_s=30)")
    )

    def __attrs_post_init__(self) -> None:
        """Exactly one of the two kinds of prompt."""
        if bool(self.messages) == (self.prompt is not None):
            raise BadRequest(
                "Request",
                {"messages": len(self.messages), "prompt": self.prompt},
                "made with either messages or a prompt",
            )

    @property
    def text_bytes(self) -> int:
        """Size of all text in the prompt, in UTF-8 bytes."""
        texts = [self.prompt] if self.prompt is not None else [m.text for m in self.messages]
        return sum(len(text.encode(errors="surrogatepass")) for text in texts)

    @classmethod
    def of(cls, prompt: Prompt, **options: Unpack[Options]) -> Request:
        """Build a request from what ``send`` and ``stream`` take.

        ``prompt`` is text, a message, a sequence of messages, or a request, of which the options
        given replace fields. Raises BadRequest for a value out of range and TypeError for an
        option that does not exist.
        """
        if unknown := set(options) - Options.__optional_keys__:
            raise TypeError(_unknown_option(min(unknown)))
        given: dict[str, Any] = dict(options)
        drawn = {name: given.pop(name) for name in _SAMPLING_FIELDS & given.keys()}
        base = prompt if isinstance(prompt, Request) else cls(messages=prompt)
        if drawn:
            given["sampling"] = attrs.evolve(base.sampling, **drawn)
        return attrs.evolve(base, **given) if given else base


def _unknown_option(name: str) -> str:
    hint = _MEANT.get(name) or nearest(name, Options.__optional_keys__)
    return f"unknown option {name!r}; {hint}"


_MEANT = {
    "timeout": "for limits of time give deadlines=Deadlines(total_s=…)",
    "system": "put a system(…) message first in the messages",
}
"""What people try that has another name here."""


Prompt = str | Message | Sequence[Message | Mapping[str, Any]] | Request
"""What a caller may hand to ``send`` and ``stream``."""


class Options(TypedDict, total=False):
    """Keyword options of ``send`` and ``stream``: the fields of Request and of Sampling."""

    max_tokens: int | None
    stop: str | Sequence[str] | None
    tools: Sequence[ToolSpec] | None
    response_format: ResponseFormat | None
    vendor: str | None
    model: str | None
    allow_cloud: bool
    deadlines: Deadlines | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    xtc_probability: float | None
    xtc_threshold: float | None
    seed: int | None


_SAMPLING_FIELDS = frozenset(field.name for field in attrs.fields(Sampling))
