"""What is known of a model: where it runs, what it can do, what it costs.

Prices are exact: integer pico-dollars (1e-12 $) per token, so that one dollar per million tokens
is 1,000,000. The cost of an attempt is summed over all its parts and rounded up to micro-dollars
once. Zero means free; an unknown price is ``None`` on the card, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from enum import StrEnum

import attrs

from llmdispatcher.models.check import flag, integer, title, words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import Usage

PICO_PER_MICRO = 1_000_000


class Capability(StrEnum):
    """What a model can do; a request that needs one is only sent where it is on the card."""

    CHAT = "chat"
    COMPLETION = "completion"
    """Continue raw text, without a chat template."""
    TOOLS = "tools"
    JSON = "json"
    """Reply in JSON on demand."""
    SCHEMA = "schema"
    """Reply in JSON that follows a given schema."""
    GRAMMAR = "grammar"
    VISION = "vision"
    CHOICES = "choices"
    """Draw several replies from one prompt."""
    LOGPROBS = "logprobs"
    """Tell the log-probabilities of tokens."""
    PREFILL = "prefill"
    """Continue a reply whose beginning is given."""
    INFILL = "infill"
    """Fill in what is between a prompt and a suffix."""
    ADAPTERS = "adapters"
    """Apply LoRA adapters by request."""
    EFFORT = "effort"
    """Think as hard as a word says."""
    EMBED = "embed"
    """Turn texts into vectors."""
    RERANK = "rerank"
    """Score documents by how well they answer a query."""


@attrs.frozen(kw_only=True)
class Price:
    """Integer pico-dollars per token, by kind of token, and micro-dollars per request."""

    input_pico: int = integer("input_pico", 0, 10**18, default=0)
    cached_input_pico: int | None = integer("cached_input_pico", 0, 10**18)
    """For prompt tokens read from the vendor's cache; None costs the same as input."""
    cache_write_pico: int | None = integer("cache_write_pico", 0, 10**18)
    """For prompt tokens written to the vendor's cache; None costs the same as input."""
    output_pico: int = integer("output_pico", 0, 10**18, default=0)
    request_microusd: int = integer("request_microusd", 0, 10**18, default=0)
    version: str = attrs.field(default="", validator=words)
    """Where and when this price was read; stamped on every row of the books."""

    @classmethod
    def per_million(  # noqa: PLR0913 - one keyword for each kind of token
        cls,
        input: str | float | Decimal,  # noqa: A002 - the field's word
        output: str | float | Decimal,
        *,
        cached_input: str | float | Decimal | None = None,
        cache_write: str | float | Decimal | None = None,
        per_request: str | float | Decimal = 0,
        version: str = "",
    ) -> Price:
        """Make a price from dollars per million tokens, and dollars per request.

        Input and output have no default: what was forgotten must not be free. A float is read by
        its shortest decimal form, so that 0.15 means exactly 0.15.
        """
        return cls(
            input_pico=_exact("input", input),
            output_pico=_exact("output", output),
            cached_input_pico=None
            if cached_input is None
            else _exact("cached_input", cached_input),
            cache_write_pico=None if cache_write is None else _exact("cache_write", cache_write),
            request_microusd=_exact("per_request", per_request),
            version=version,
        )

    @property
    def is_free(self) -> bool:
        """Nothing of this is ever charged."""
        rates = (self.input_pico, self.cached_input_pico, self.cache_write_pico, self.output_pico)
        return not any(rates) and not self.request_microusd

    def cost_pico(self, usage: Usage) -> int:
        """Return the exact cost of one request with this usage, in pico-dollars."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        plain = max(0, usage.prompt_tokens - cached - written)
        read_rate = self.input_pico if self.cached_input_pico is None else self.cached_input_pico
        write_rate = self.input_pico if self.cache_write_pico is None else self.cache_write_pico
        return (
            plain * self.input_pico
            + cached * read_rate
            + written * write_rate
            + usage.completion_tokens * self.output_pico
            + self.request_microusd * PICO_PER_MICRO
        )

    def cost_microusd(self, usage: Usage) -> int:
        """Return the cost of one request, rounded up to a whole micro-dollar, once."""
        return -(-self.cost_pico(usage) // PICO_PER_MICRO)


FREE = Price(version="free")
"""The price of a model that runs on the caller's own machine, unless the caller sets another."""


def _exact(name: str, usd: str | float | Decimal) -> int:
    """Dollars per million tokens as integer pico-dollars per token (the same number times 10^6)."""
    try:
        scaled = Decimal(str(usd)) * PICO_PER_MICRO
    except InvalidOperation:
        raise BadRequest(name, usd, "an amount in dollars") from None
    if not scaled.is_finite() or scaled < 0 or scaled != int(scaled):
        raise BadRequest(name, usd, "an amount in dollars of at least 0 with at most 6 decimals")
    return int(scaled)


def _aliases(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _capabilities(values: Iterable[Capability | str]) -> frozenset[Capability]:
    return frozenset(map(Capability, values))


@attrs.frozen(kw_only=True)
class ModelCard:
    """One model of one vendor. ``None`` is "not known" throughout."""

    vendor: str = attrs.field(validator=title)
    model: str = attrs.field(validator=title)
    local: bool
    """It runs on this machine: no text leaves it."""
    capabilities: frozenset[Capability] = attrs.field(converter=_capabilities, default=())
    price: Price | None = None
    context_tokens: int | None = integer("context_tokens", 1, 2**40)
    max_output_tokens: int | None = integer("max_output_tokens", 1, 2**40)
    parameters: int | None = integer("parameters", 0, 2**63 - 1)
    size_bytes: int | None = integer("size_bytes", 0, 2**63 - 1)
    quality: int | None = integer("quality", 1, 5)
    """Tier from 1 (toy) to 5 (frontier): a prior for how good its answers are."""
    aliases: tuple[str, ...] = attrs.field(converter=_aliases, default=())
    """Other names by which a request may name it."""
    last_resort: bool = flag(default=False)
    """A candidate only when no other model can serve the request, or when it is named."""
    named_only: bool = flag(default=False)
    """A candidate only when the request names it: one of the many of a cloud, which nobody chose
    to pay for."""

    @property
    def name(self) -> str:
        """``vendor/model``."""
        return f"{self.vendor}/{self.model}"
