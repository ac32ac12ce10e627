"""What Anthropic's dialect sends, held against the types of its SDK, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from pydantic import TypeAdapter

from llmdispatcher import Request, ToolSpec
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.vendors.anthropic.known import SAMPLING_VERSION
from llmdispatcher.vendors.anthropic.wire import AnthropicWire
from llmdispatcher.vendors.wire.exchange import Ask, Site

SENT: TypeAdapter[Any] = TypeAdapter(message_create_params.MessageCreateParams)
COUNTED: TypeAdapter[Any] = TypeAdapter(message_count_tokens_params.MessageCountTokensParams)

HOSTED = AnthropicWire(Site(vendor="anthropic"))
OLDER = AnthropicWire(Site(vendor="anthropic"), version=SAMPLING_VERSION)
WHOLE = AnthropicWire(Site(vendor="anthropic", streaming=False))
LOCAL = AnthropicWire(Site(vendor="llama-server", local=True))

NEW, OLD, THINKER = "claude-opus-4-8", "claude-haiku-4-5", "claude-fable-5-1"

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ADD = ToolSpec("add", "Adds.", SCHEMA)
SUB = ToolSpec("sub")


def drain(value: object) -> None:
    """Look at all that was validated: what the SDK types as Iterable is only checked then."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            drain(each)


def asked(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Ask:
    """Return what would be asked; what goes to Claude must be what its SDK takes."""
    (exchange,) = wire.exchanges(request, wire.card(model))
    assert exchange.ask.body is not None
    if wire is not LOCAL:
        drain(SENT.validate_python({**exchange.ask.body}))
    return exchange.ask


def body(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Any:
    """Return what would be sent."""
    return asked(request, model, wire).body


def refused(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Unsupported:
    """Return the refusal; it names the feature, the vendor and the model."""
    with pytest.raises(Unsupported) as caught:
        wire.exchanges(request, wire.card(model))
    return caught.value
