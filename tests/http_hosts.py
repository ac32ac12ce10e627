"""Every HTTP vendor and preset as a row: what it is called, and how its server speaks.

What each server says is in ``speaking_*.py``; here it is put behind one face, so that one suite
runs over all of them. A host that has no way to say something is left out of that test by its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import speaking_anthropic
import speaking_gemini
import speaking_ollama
import speaking_openai
from loopback import Answer, Got, Loopback

from llmdispatcher import HttpVendor
from llmdispatcher.models.errors import (
    AuthRejected,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestError,
    VendorError,
)
from llmdispatcher.vendors.http.preset import Preset

KEY = "sk-test-0123456789abcdef"

ERRORS: dict[str, type[DispatcherError] | tuple[type[DispatcherError], ...]] = {
    "auth": AuthRejected,
    "rate": RateLimited,
    "quota": QuotaExhausted,
    "overflow": ContextOverflow,
    "overloaded": Overloaded,
    "missing": ModelNotFound,
    "filter": ContentRefused,
    "bad": (RequestError, VendorError),
}

Speak = Callable[..., list[bytes]]


@attrs.frozen(kw_only=True)
class Host:
    """One vendor, with the server that plays it."""

    preset: str
    model: str
    spoken: Speak
    """Renders a reply; see ``speaking_openai.spoken``."""
    failed: Callable[[str], Answer]
    kinds: frozenset[str] = frozenset(ERRORS)
    """Of errors that it knows."""
    models: bytes = b""
    """Its list of models; nothing where it has none."""
    vectors: Callable[[int], bytes] | None = None
    embedder: str = ""
    lines: bool = False
    """It streams JSON by lines."""
    tells_thoughts: bool = True
    tells_cached: bool = True
    names_calls: bool = True
    """Calls keep the ids that the server gave them."""
    path: str = ""
    """Behind the address of the test's server."""

    def vendor(self, server: Loopback, **options: Any) -> HttpVendor:
        """Make the vendor, at the test's server."""
        given: dict[str, Any] = {
            "base_url": server.url + self.path,
            "models": [self.model],
            "api_key": KEY,
            "name": self.preset,
            **options,
        }
        return Preset(self.preset)(**given)

    def says(self, **reply: Any) -> Callable[[Got], Answer]:
        """Return what answers every request for a reply with the same one, as it was asked for."""

        def answer(got: Got) -> Answer:
            streams = is_streamed(got)
            return self.answer(self.spoken(**reply, streams=streams), streams=streams)

        return answer

    def answer(self, parts: Sequence[bytes | float], *, streams: bool, cut: bool = False) -> Answer:
        """Put a body under the head that belongs to it."""
        kind = "application/json"
        if streams:
            kind = "application/x-ndjson" if self.lines else "text/event-stream"
        return Answer(headers={"content-type": kind}, chunks=tuple(parts), cut=cut)


def is_streamed(got: Got) -> bool:
    """Whether a request asks for pieces, in any dialect."""
    return "stream" in got.path.lower() or (got.body or {}).get("stream") is True


NO_VECTORS = frozenset({"groq", "deepseek", "lightning"})
"""Hosts without embeddings."""


def _openai(preset: str) -> Host:
    return Host(
        preset=preset,
        model="model-1",
        spoken=partial(speaking_openai.spoken, preset),
        failed=partial(speaking_openai.failed, preset),
        models=b"" if preset == "azure-dated" else speaking_openai.models(preset),
        vectors=None
        if preset in NO_VECTORS
        else partial(speaking_openai.vectors, packed=preset in {"openai", "azure"}),
        embedder="text-embedding-3-small",
        tells_thoughts=preset in speaking_openai.THOUGHTS,
        tells_cached=preset not in speaking_openai.NO_CACHE,
    )


HOSTS = (
    *map(
        _openai,
        (
            "openai",
            "azure",
            "azure-dated",
            "vllm",
            "lmstudio",
            "localai",
            "llama-server",
            "groq",
            "together",
            "mistral",
            "deepseek",
            "openrouter",
            "lightning",
            "litellm",
            "openai-compatible",
        ),
    ),
    Host(
        preset="anthropic",
        model=speaking_anthropic.MODEL,
        spoken=speaking_anthropic.spoken,
        failed=speaking_anthropic.failed,
        models=speaking_anthropic.models(),
    ),
    Host(
        preset="gemini",
        model=speaking_gemini.MODEL,
        spoken=speaking_gemini.spoken,
        failed=speaking_gemini.failed,
        models=speaking_gemini.models(),
        vectors=speaking_gemini.vectors,
        embedder="gemini-embedding-001",
    ),
    Host(
        preset="ollama",
        model=speaking_ollama.MODEL,
        spoken=speaking_ollama.spoken,
        failed=speaking_ollama.failed,
        kinds=frozenset({"auth", "overflow", "overloaded", "missing", "bad"}),
        models=speaking_ollama.models(),
        vectors=speaking_ollama.vectors,
        embedder="all-minilm:latest",
        lines=True,
        tells_cached=False,
    ),
)
