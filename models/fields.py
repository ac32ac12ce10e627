"""The fields of a request: their bounds, and how what a caller gives is read into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmdispatcher.models.check import as_tuple
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import Message
from llmdispatcher.models.sampling import UNSET, Sampling

MAX_STOPS = 64
"""Stop strings of one request; each is searched for at every token."""

MAX_TOOLS = 128
"""Tools of one request: as many as the OpenAI API takes."""

MAX_TAGS = 32
"""Tags of one request: each is a sum of its own."""

MAX_ADAPTERS = 16
"""LoRA adapters of one request; each costs a pass over its weights in every step."""

MAX_SCALE = 100
"""Of an adapter; beyond any use, and far from what overflows F16."""

TOOL_CHOICES = ("auto", "none", "required")

RESUMES = ("fail", "continue", "restart")

EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
"""How hard a model may be asked to think, in order; the words are those of the OpenAI API."""

MAX_CHOICES = 64
"""Choices of one request: a quarter of the sequences that llama.cpp can decode at once."""

MAX_LOGPROBS = 20
"""Likeliest tokens told at each place: as many as the OpenAI API tells."""


def read_stops(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Take one stop string or several."""
    return (value,) if isinstance(value, str) else as_tuple("stop", value)


def read_tools(value: Iterable[ToolSpec | Mapping[str, Any]] | None) -> tuple[ToolSpec, ...]:
    """Take tools, or mappings in the shape of the OpenAI API."""
    return tuple(ToolSpec.of(tool) for tool in as_tuple("tools", value))


def read_adapters(
    value: Mapping[str, float] | Iterable[str] | None,
) -> tuple[tuple[str, float], ...]:
    """Take names of adapters with their scales; in one order, so that equal sets are equal."""
    given = value if isinstance(value, Mapping) else dict.fromkeys(as_tuple("adapters", value), 1.0)
    for name, scale in given.items():
        if not isinstance(name, str):
            raise BadRequest("adapters", name, "the name of an adapter")
        if (
            isinstance(scale, bool)
            or not isinstance(scale, int | float)
            or not abs(scale) <= MAX_SCALE
        ):
            raise BadRequest(f"adapters[{name!r}]", scale, f"a number within ±{MAX_SCALE}")
    return tuple(sorted((name, float(scale)) for name, scale in given.items() if scale))


def known_effort(_: object, __: object, value: Any) -> None:  # noqa: ANN401 - what was given
    """Accept None and the words for how hard to think."""
    if value is not None and value not in EFFORTS:
        raise BadRequest("effort", value, f"one of {', '.join(EFFORTS)}")


TEXT = ResponseFormat()


def read_format(value: ResponseFormat | None) -> ResponseFormat:
    """Take no format as plain text."""
    return TEXT if value is None else value


def read_sampling(value: Sampling | None) -> Sampling:
    """Take no sampling as none of its fields."""
    return UNSET if value is None else value


def read_tool_choice(value: str | None) -> str:
    """Take no choice as the model's own."""
    return "auto" if value is None else value


def read_tags(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Take one tag or several."""
    return (value,) if isinstance(value, str) else as_tuple("tags", value)


def read_resume(value: str | None) -> str:
    """Take nothing as "fail"."""
    return "fail" if value is None else value


def read_prefill(value: str | None) -> str:
    """Take no text as the empty one."""
    return "" if value is None else value


def read_messages(value: object) -> tuple[Message, ...]:
    """Take a text, a message, or a sequence of either or of mappings."""
    if isinstance(value, str | Message | Mapping):
        return (Message.of(value),)
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise BadRequest("messages", value, "text, a message or a sequence of messages")
    return tuple(Message.of(item) for item in value)
