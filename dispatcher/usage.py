"""The books of this process: every attempt is opened once and settled once.

``Books`` is shared by all threads that use a dispatcher; its lock is held for a few additions and
never across anything that waits. ``Stats`` is a frozen copy of the books.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import attrs

from llmdispatcher.models.reply import Attempt, Outcome, Usage


@attrs.frozen(kw_only=True)
class Figures:
    """Sums over the attempts of one model, or of all of them."""

    served: int = 0
    failed: int = 0
    cancelled: int = 0
    usage: Usage = attrs.field(factory=Usage)
    cost_microusd: int = 0
    """Sum over the attempts whose cost is known."""
    unpriced: int = 0
    """Attempts whose cost is not known, and so is not in ``cost_microusd``."""
    latency_s: float = 0.0
    """Sum over served attempts; divide by ``served`` for the mean."""
    first_token_s: float = 0.0
    """Sum over served attempts that had a first token."""
    first_tokens: int = 0
    """Served attempts that had a first token."""

    @property
    def attempts(self) -> int:
        """All that were settled."""
        return self.served + self.failed + self.cancelled

    def plus(self, attempt: Attempt) -> Figures:
        """Add one settled attempt."""
        served = attempt.outcome is Outcome.SERVED
        first = attempt.first_token_s if served else None
        return Figures(
            served=self.served + served,
            failed=self.failed + (attempt.outcome is Outcome.FAILED),
            cancelled=self.cancelled + (attempt.outcome is Outcome.CANCELLED),
            usage=self.usage + attempt.usage,
            cost_microusd=self.cost_microusd + (attempt.cost_microusd or 0),
            unpriced=self.unpriced + (attempt.cost_microusd is None),
            latency_s=self.latency_s + (attempt.latency_s if served else 0.0),
            first_token_s=self.first_token_s + (first or 0.0),
            first_tokens=self.first_tokens + (first is not None),
        )


@attrs.frozen(kw_only=True)
class Stats:
    """The books at one moment."""

    requests: int
    """Requests that were begun."""
    in_flight: int
    """Attempts that are open now."""
    total: Figures
    by_model: Mapping[str, Figures]
    """Figures by ``vendor/model``."""


class Books:
    """Counts attempts as they open and settle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._open = 0
        self._total = Figures()
        self._by_model: dict[str, Figures] = {}

    def begin(self) -> None:
        """Count a request."""
        with self._lock:
            self._requests += 1

    def open(self) -> None:
        """Count an attempt as open."""
        with self._lock:
            self._open += 1

    def settle(self, attempt: Attempt) -> None:
        """Close an attempt that was opened, and add it up."""
        name = f"{attempt.vendor}/{attempt.model}"
        with self._lock:
            self._open -= 1
            self._total = self._total.plus(attempt)
            self._by_model[name] = self._by_model.get(name, Figures()).plus(attempt)

    def snapshot(self) -> Stats:
        """Copy the books."""
        with self._lock:
            return Stats(
                requests=self._requests,
                in_flight=self._open,
                total=self._total,
                by_model=dict(self._by_model),
            )
