"""The SDKs of the vendors that speak the chat-completions dialect, told that a server is theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import groq
import mistralai.client
import openai
import together
from groq.types.chat import completion_create_params as of_groq
from mistralai.client import models as of_mistral
from openai.types.chat import completion_create_params as of_openai
from oracle import KEY
from together.types.chat import completion_create_params as of_together

from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Exchange, Site

VERSION = "2025-02-01-preview"


@attrs.frozen(kw_only=True)
class Sdk:
    """A vendor's SDK, and where it is to be told that its vendor is."""

    make: Callable[[str], Any]
    """Make a client of the address of the server."""
    base: str = "/v1"
    """What our paths are behind."""
    model: str = "gpt-4o"
    whole: Any = of_openai.CompletionCreateParamsNonStreaming
    streamed: Any = of_openai.CompletionCreateParamsStreaming
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    """Names of fields that differ from OpenAI's."""
    untyped: frozenset[str] = frozenset()
    """Fields that the vendor takes and its SDK has no type for."""

    def said(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return OpenAI's fields as this SDK has them."""
        return {self.renamed.get(name, name): value for name, value in fields.items()}


SDKS: dict[str, Sdk] = {
    "openai": Sdk(make=lambda url: openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)),
    "azure": Sdk(
        make=lambda url: openai.OpenAI(api_key=KEY, base_url=f"{url}/openai/v1", max_retries=0),
        base="/openai/v1",
        model="my-deployment",
    ),
    "azure-dated": Sdk(
        make=lambda url: openai.AzureOpenAI(
            api_key=KEY, azure_endpoint=url, api_version=VERSION, max_retries=0
        ),
        base="/openai",
        model="my-deployment",
    ),
    "groq": Sdk(
        make=lambda url: groq.Groq(api_key=KEY, base_url=url, max_retries=0),
        base="/openai/v1",
        model="openai/gpt-oss-120b",
        whole=of_groq.CompletionCreateParams,
        streamed=of_groq.CompletionCreateParams,
    ),
    "together": Sdk(
        make=lambda url: together.Together(api_key=KEY, base_url=url, max_retries=0),
        model="moonshotai/Kimi-K3",
        whole=of_together.CompletionCreateParamsNonStreaming,
        streamed=of_together.CompletionCreateParamsStreaming,
        renamed={"max_completion_tokens": "max_tokens"},
        untyped=frozenset({"parallel_tool_calls", "stream_options"}),
    ),
    "mistral": Sdk(
        make=lambda url: mistralai.client.Mistral(api_key=KEY, server_url=url),
        model="mistral-large-latest",
        whole=of_mistral.ChatCompletionRequest,
        streamed=of_mistral.ChatCompletionStreamRequest,
        renamed={"max_completion_tokens": "max_tokens", "seed": "random_seed"},
    ),
}


def wire(preset: str, *, streaming: bool = True) -> OpenAIWire:
    """Return our dialect at a vendor."""
    return OpenAIWire(Site(vendor=preset, streaming=streaming), ROWS[preset].ways)


def exchange(preset: str, request: Request, *, streaming: bool = True, model: str = "") -> Exchange:
    """Return what we ask."""
    made = wire(preset, streaming=streaming)
    (one,) = made.exchanges(request, made.card(model or SDKS[preset].model))
    return one
