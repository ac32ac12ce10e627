"""The vendors that are known: a row each, and the dialect that each speaks.

``Preset`` is what users call: ``OpenAI(models=[…])`` makes a vendor of the row of that name. What
hosts of the OpenAI API differ in is in ``vendors.openai.rows``; they are rows here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import urlsplit

import attrs

from llmdispatcher.models.errors import ConfigError, Problem
from llmdispatcher.vendors.http.secret import Secret, secret
from llmdispatcher.vendors.http.vendor import HttpVendor

if TYPE_CHECKING:
    import httpx2

    from llmdispatcher.models.card import ModelCard
    from llmdispatcher.vendors.wire.exchange import Wire


@attrs.frozen(kw_only=True)
class Row:
    """How a vendor is reached."""

    name: str
    dialect: str
    base_url: str = ""
    api_path: str = ""
    """Put behind addresses without a path."""
    key_env: tuple[str, ...] = ()
    """Variables that the vendor's own client reads its key from; the first that is set counts."""
    key_header: str = "authorization"
    key_prefix: str = ""
    key_domains: tuple[str, ...] = ()
    """Domains to which a key that was found in such a variable may go."""
    needs_key: bool = False
    streams_always: bool = False
    """Replies are asked for in pieces also where only the whole is wanted."""
    idempotency_header: str = ""
    """In which a request is named so that it is done once, however often it is sent; empty where no
    vendor says that it reads one. None of those here does for replies, as of November 2026."""
    local: bool = False
    """It usually is a server on this machine."""


_OWN = {
    "anthropic": Row(
        name="anthropic",
        dialect="anthropic",
        base_url="https://api.anthropic.com",
        key_env=("ANTHROPIC_API_KEY",),
        key_header="x-api-key",
        key_domains=("anthropic.com",),
        needs_key=True,
    ),
    "gemini": Row(
        name="gemini",
        dialect="gemini",
        base_url="https://generativelanguage.googleapis.com",
        api_path="/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        key_header="x-goog-api-key",
        key_domains=("generativelanguage.googleapis.com",),
        needs_key=True,
    ),
    "ollama": Row(
        name="ollama",
        dialect="ollama",
        base_url="http://127.0.0.1:11434",
        key_env=("OLLAMA_API_KEY",),
        key_prefix="Bearer ",
        key_domains=("ollama.com",),
        local=True,
    ),
}

_AZURE = ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com")
_OPEN = frozenset({"openai-compatible", "litellm"})
"""Whether these need a key is their owner's choice."""


def row(name: str) -> Row:
    """Return the row of a preset. Raises ConfigError for one that is not known."""
    if (own := _OWN.get(name)) is not None:
        return own
    from llmdispatcher.vendors.openai.rows import ROWS  # noqa: PLC0415 - on first use

    if (theirs := ROWS.get(name)) is None:
        known = ", ".join(sorted([*_OWN, *ROWS]))
        raise ConfigError([Problem(f"is no known preset; known: {known}", f"preset {name!r}")])
    host = urlsplit(theirs.base_url).hostname or ""
    domain = ".".join(host.split(".")[-2:])  # api.openai.com and us.api.openai.com are one's
    is_bearer = theirs.key_header == "authorization"
    return Row(
        name=name,
        dialect="openai",
        base_url=theirs.base_url,
        api_path=theirs.api_path,
        key_env=theirs.key_env,
        key_header=theirs.key_header,
        key_prefix="Bearer " if is_bearer else "",
        key_domains=_AZURE
        if name.startswith("azure")
        else ()
        if theirs.local or not domain
        else (domain,),
        needs_key=bool(theirs.key_env) and not theirs.local and name not in _OPEN,
        streams_always=theirs.streams_always,
        idempotency_header=theirs.idempotency_header,
        local=theirs.local,
    )


def wire(vendor: HttpVendor, chosen: Row, host: str, *, local: bool, streaming: bool) -> Wire:
    """Make the dialect of a vendor that is at a host."""
    from llmdispatcher.vendors.http.address import is_under  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.wire.exchange import Site  # noqa: PLC0415 - as above

    is_own = not local and is_under(host, chosen.key_domains)
    site = Site(
        vendor=vendor.name,
        local=local,
        streaming=streaming,
        keep_alive_s=vendor.keep_alive_s,
        extra=vendor.extra,
        registry=chosen.name if is_own else "",  # elsewhere a name says nothing of the price
    )
    match chosen.dialect:
        case "anthropic":
            from llmdispatcher.vendors.anthropic import wire as anthropic  # noqa: PLC0415

            dated = {} if vendor.api_version is None else {"version": vendor.api_version}
            return anthropic.AnthropicWire(site, **dated)
        case "gemini":
            from llmdispatcher.vendors.gemini import wire as gemini  # noqa: PLC0415

            return gemini.GeminiWire(site)
        case "ollama":
            from llmdispatcher.vendors.ollama import wire as ollama  # noqa: PLC0415

            return ollama.OllamaWire(site, hosted=is_under(host, chosen.key_domains))
    from llmdispatcher.vendors.openai import rows  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.openai import wire as openai  # noqa: PLC0415
    from llmdispatcher.vendors.openai.ways import Pictures  # noqa: PLC0415

    ways = rows.ROWS[chosen.name].ways
    if vendor.api_version is not None:
        ways = attrs.evolve(ways, api_version=vendor.api_version)
    if vendor.loopback_only and ways.pictures is Pictures.ANY:
        ways = attrs.evolve(ways, pictures=Pictures.DATA)  # the server would fetch it
    return openai.OpenAIWire(site, ways)


class HttpOptions(TypedDict, total=False):
    """Keyword options of a preset: the fields of ``HttpVendor``."""

    name: str
    base_url: str | None
    models: Iterable[str | ModelCard] | str
    api_key: Secret | str | None
    api_key_env: str | None
    headers: Mapping[str, str] | None
    extra: Mapping[str, Any] | None
    streaming: bool | None
    keep_alive_s: float | None
    api_version: str | None
    idempotency_header: str | None
    local: bool | None
    proxy: str | None
    ca_file: str | None
    client: httpx2.Client | None
    async_client: httpx2.AsyncClient | None
    loopback_only: bool


@attrs.frozen
class Preset:
    """A known vendor; called with what is to differ, it gives the spec to register."""

    name: str

    def __call__(self, **options: Unpack[HttpOptions]) -> HttpVendor:
        """Make the spec. Raises BadRequest for a value that cannot be."""
        if "api_key" in options:  # first: a traceback would show it
            options["api_key"] = secret(options.pop("api_key"))
        given: dict[str, Any] = {"name": self.name, **options}
        preset = self.name
        if preset == "azure" and given.get("api_version") not in _UNDATED:
            preset = "azure-dated"
        return HttpVendor(preset=preset, **given)


_UNDATED = (None, "v1", "latest", "preview")
"""Versions of Azure's API that have no date: deployments are named in the body, as models are."""


OpenAI = Preset("openai")
Azure = Preset("azure")
Anthropic = Preset("anthropic")
Gemini = Preset("gemini")
Ollama = Preset("ollama")
VLLM = Preset("vllm")
LMStudio = Preset("lmstudio")
LocalAI = Preset("localai")
LlamaServer = Preset("llama-server")
Groq = Preset("groq")
Together = Preset("together")
Mistral = Preset("mistral")
DeepSeek = Preset("deepseek")
OpenRouter = Preset("openrouter")
Lightning = Preset("lightning")
LiteLLM = Preset("litellm")
OpenAICompatible = Preset("openai-compatible")
