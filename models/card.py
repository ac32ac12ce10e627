"""What is known of a model: where it runs, what it can do, what it costs.

Prices are exact: integer pico-dollars (1e-12 $) per token, so that one dollar per million tokens
is 1,000,000. The cost of an attempt is summed over all its parts and rounded up to micro-dollars
once. Zero means free; an unknown price is ``None`` on the card, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

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
class Rates:
    """Integer pico-dollars per token, by kind of token."""

    input_pico: int = integer("input_pico", 0, 10**18, default=0)
    cached_input_pico: int | None = integer("cached_input_pico", 0, 10**18)
    """For prompt tokens read from the vendor's cache; None costs the same as input."""
    cache_write_pico: int | None = integer("cache_write_pico", 0, 10**18)
    """For prompt tokens written to the vendor's cache; None costs the same as input."""
    output_pico: int = integer("output_pico", 0, 10**18, default=0)


@attrs.frozen(kw_only=True)
class Tier(Rates):
    """What a request costs whose prompt is long: all of its tokens, not only those above."""

    above_tokens: int = integer("above_tokens", 1, 2**40, default=1)
    """A prompt of more tokens than this."""


def _tiers(values: Iterable[Tier]) -> tuple[Tier, ...]:
    given: list[Any] = [*values]
    if foreign := [each for each in given if not isinstance(each, Tier)]:
        raise BadRequest("tiers", foreign[0], "Tier values")
    return tuple(sorted(given, key=lambda tier: tier.above_tokens))


@attrs.frozen(kw_only=True)
class Price(Rates):
    """What a request costs: by its tokens, and micro-dollars for itself."""

    request_microusd: int = integer("request_microusd", 0, 10**18, default=0)
    version: str = attrs.field(default="", validator=words)
    """Where and when this price was read; stamped on every row of the books."""
    tiers: tuple[Tier, ...] = attrs.field(default=(), converter=_tiers)
    """What longer prompts cost, where that is more; the shortest first."""

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
        above: Mapping[str, Any] | Iterable[Mapping[str, Any]] = (),
    ) -> Price:
        """Make a price from dollars per million tokens, and dollars per request.

        Input and output have no default: what was forgotten must not be free. A float is read by
        its shortest decimal form, so that 0.15 means exactly 0.15. ``above`` says what longer
        prompts cost: ``{"tokens": 272_000, "input": 4, "output": 15}``, with ``cached_input`` and
        ``cache_write`` where they differ, or several of these.
        """
        several = [above] if isinstance(above, Mapping) else above
        if not isinstance(several, Iterable):
            raise BadRequest("above", above, "a mapping with tokens, input and output, or several")
        return cls(
            **_rates(input, output, cached_input, cache_write),
            request_microusd=_exact("per_request", per_request),
            version=version,
            tiers=[_tier(each) for each in several],
        )

    @property
    def is_free(self) -> bool:
        """Nothing of this is ever charged."""
        rates = [
            (each.input_pico, each.cached_input_pico, each.cache_write_pico, each.output_pico)
            for each in (self, *self.tiers)
        ]
        return not any(map(any, rates)) and not self.request_microusd

    def rates(self, prompt_tokens: int) -> Rates:
        """Return what a token costs in a request whose prompt is so long."""
        reached = [tier for tier in self.tiers if prompt_tokens > tier.above_tokens]
        return reached[-1] if reached else self

    def cost_pico(self, usage: Usage) -> int:
        """Return the exact cost of one request with this usage, in pico-dollars."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        plain = max(0, usage.prompt_tokens - cached - written)
        rates: Rates = self.rates(usage.prompt_tokens) if self.tiers else self
        read_rate = rates.input_pico if rates.cached_input_pico is None else rates.cached_input_pico
        write_rate = rates.input_pico if rates.cache_write_pico is None else rates.cache_write_pico
        return (
            plain * rates.input_pico
            + cached * read_rate
            + written * write_rate
            + usage.completion_tokens * rates.output_pico
            + self.request_microusd * PICO_PER_MICRO
        )

    def cost_microusd(self, usage: Usage) -> int:
        """Return the cost of one request, rounded up to a whole micro-dollar, once."""
        return -(-self.cost_pico(usage) // PICO_PER_MICRO)


FREE = Price(version="free")
"""The price of a model that runs on the caller's own machine, unless the caller sets another."""


def _rates(
    input_usd: str | float | Decimal,
    output_usd: str | float | Decimal,
    cached_usd: str | float | Decimal | None,
    write_usd: str | float | Decimal | None,
) -> dict[str, Any]:
    """Return the four rates of a price, or of one of its tiers."""
    return {
        "input_pico": _exact("input", input_usd),
        "output_pico": _exact("output", output_usd),
        "cached_input_pico": None if cached_usd is None else _exact("cached_input", cached_usd),
        "cache_write_pico": None if write_usd is None else _exact("cache_write", write_usd),
    }


_TIER_KEYS = {"tokens", "input", "output", "cached_input", "cache_write"}


def _tier(told: object) -> Tier:
    if not isinstance(told, Mapping) or not {"tokens", "input", "output"} <= told.keys():
        raise BadRequest("above", told, "a mapping with tokens, input and output")
    if unknown := told.keys() - _TIER_KEYS:
        raise BadRequest("above", sorted(unknown), f"made of {', '.join(sorted(_TIER_KEYS))}")
    rates = _rates(told["input"], told["output"], told.get("cached_input"), told.get("cache_write"))
    return Tier(above_tokens=told["tokens"], **rates)


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


STRENGTHS = (
    "code",
    "long_context",
    "multilingual",
    "reasoning",
    "speed",
    "summarisation",
    "vision",
    "writing",
)
"""The words of ``ModelCard.strengths``."""


def _strengths(values: Iterable[str]) -> frozenset[str]:
    told: Any = values
    given: list[Any] = (
        [*told] if isinstance(told, Iterable) and not isinstance(told, str) else [None]
    )
    if any(each not in STRENGTHS for each in given):
        raise BadRequest("strengths", told, f"a list of some of {', '.join(STRENGTHS)}")
    return frozenset(given)


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
    strengths: frozenset[str] = attrs.field(converter=_strengths, default=())
    """What it is made for, in words of ``STRENGTHS``; empty is not known."""
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
