"""What comes back: pieces of a reply, the whole reply, what it used, and how it was decided."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import attrs

from llmdispatcher.models.check import integer

MICRO_PER_USD = 1_000_000
"""All money is kept in integer micro-dollars."""


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model was done, or a stop string came."""
    LENGTH = "length"
    """``max_tokens`` or the end of the context was reached."""
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"
    """The vendor gave a reason that has no counterpart here."""


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens that one attempt used; ``estimated`` where the vendor did not say.

    ``cached_tokens`` and ``cache_write_tokens`` are parts of ``prompt_tokens``, and
    ``reasoning_tokens`` is a part of ``completion_tokens``, whatever the vendor's own convention.
    """

    prompt_tokens: int = integer("prompt_tokens", 0, 2**63 - 1, default=0)
    completion_tokens: int = integer("completion_tokens", 0, 2**63 - 1, default=0)
    cached_tokens: int = integer("cached_tokens", 0, 2**63 - 1, default=0)
    cache_write_tokens: int = integer("cache_write_tokens", 0, 2**63 - 1, default=0)
    reasoning_tokens: int = integer("reasoning_tokens", 0, 2**63 - 1, default=0)
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        """Sum two usages; the sum is estimated if either is."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


@attrs.frozen
class Delta:
    """A piece of a reply as it streams. ``text`` never ends inside a character."""

    text: str


@attrs.frozen
class Progress:
    """A sign of life before the next piece: queued behind others, or reading the prompt."""

    phase: str
    """``"queued"`` or ``"prompt"``."""
    done: int
    """Prompt tokens read so far; for a queue, 0."""
    total: int
    """Prompt tokens in all; for a queue, how many requests are in front."""


@attrs.frozen
class Finish:
    """The end of a reply: why it ended and what it used. A reply without one was cut."""

    reason: FinishReason
    usage: Usage
    warnings: tuple[str, ...] = ()


Piece = Delta | Progress | Finish
"""What a vendor delivers while it serves a request, ending with exactly one Finish."""


class Outcome(StrEnum):
    """How one attempt ended."""

    SERVED = "served"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The caller stopped it."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One try of one vendor, whatever became of it."""

    vendor: str
    model: str
    outcome: Outcome
    usage: Usage
    cost_microusd: int | None
    """None where the price is not known."""
    latency_s: float
    """From asking to the end, without the loading of the model."""
    first_token_s: float | None = None
    load_s: float = 0.0
    """Time this attempt waited for the model to load."""
    error: str = ""
    """Class and message of the error that ended it, if one did."""


@attrs.frozen(kw_only=True)
class Candidate:
    """One model that was considered, and why it stands where it does."""

    vendor: str
    model: str
    expected_cost_microusd: int | None
    """None where the price is not known."""
    note: str
    """The arithmetic behind the place, or the reason for being left out."""


@attrs.frozen(kw_only=True)
class Decision:
    """How a request was routed: who was considered, who was left out, what was tried."""

    candidates: tuple[Candidate, ...] = ()
    excluded: tuple[Candidate, ...] = ()
    attempts: tuple[Attempt, ...] = ()


@attrs.frozen(kw_only=True)
class Reply:
    """A whole reply and its account."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    vendor: str
    model: str
    cost_microusd: int | None
    """What this reply cost, all attempts included; None where a price is not known."""
    latency_s: float
    """From the call to the end of the reply, without the loading of a model."""
    first_token_s: float | None
    """From asking the vendor that served to its first text; None if there was no text."""
    decision: Decision
    warnings: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> Decimal | None:
        """``cost_microusd`` in dollars."""
        if self.cost_microusd is None:
            return None
        return Decimal(self.cost_microusd) / MICRO_PER_USD

    def __str__(self) -> str:
        """Return the text, so that ``print(reply)`` shows it."""
        return self.text
