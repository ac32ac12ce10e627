"""The books of this process: every attempt is opened once and settled once.

``Books`` is shared by all threads that use a dispatcher; its lock is held for a few additions and
never across anything that waits. ``Stats`` is a frozen copy of the books.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

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
    cached: int = 0
    """Requests that were answered from the cache; nobody was asked, and they are in no figures."""


class Sums:
    """The figures of one model while they grow. Adding allocates nothing but numbers."""

    __slots__ = ("cost", "counts", "estimated", "first_s", "first_tokens", "latency_s", "unpriced")

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*Outcome, *_TOKENS), 0)
        self.estimated = False
        self.cost = self.unpriced = self.first_tokens = 0
        self.latency_s = self.first_s = 0.0

    @classmethod
    def of(cls, several: Iterable[Sums]) -> Sums:
        """Sum up those of several models."""
        made = cls()
        for each in several:
            for name, count in each.counts.items():
                made.counts[name] += count
            made.estimated |= each.estimated
            made.cost += each.cost
            made.unpriced += each.unpriced
            made.latency_s += each.latency_s
            made.first_s += each.first_s
            made.first_tokens += each.first_tokens
        return made

    def add(self, attempt: Attempt) -> None:
        """Add one settled attempt."""
        usage = attempt.usage
        self.counts[attempt.outcome] += 1
        self.counts["prompt_tokens"] += usage.prompt_tokens
        self.counts["completion_tokens"] += usage.completion_tokens
        self.counts["cached_tokens"] += usage.cached_tokens
        self.counts["cache_write_tokens"] += usage.cache_write_tokens
        self.counts["reasoning_tokens"] += usage.reasoning_tokens
        self.estimated |= usage.estimated
        if attempt.cost_microusd is None:
            self.unpriced += 1
        else:
            self.cost += attempt.cost_microusd
        if attempt.outcome is Outcome.SERVED:
            self.latency_s += attempt.latency_s
            if attempt.first_token_s is not None:
                self.first_s += attempt.first_token_s
                self.first_tokens += 1

    def figures(self) -> Figures:
        """Copy the sums."""
        return Figures(
            served=self.counts[Outcome.SERVED],
            failed=self.counts[Outcome.FAILED],
            cancelled=self.counts[Outcome.CANCELLED],
            usage=Usage(**{name: self.counts[name] for name in _TOKENS}, estimated=self.estimated),
            cost_microusd=self.cost,
            unpriced=self.unpriced,
            latency_s=self.latency_s,
            first_token_s=self.first_s,
            first_tokens=self.first_tokens,
        )


_TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class Books:
    """Counts attempts as they open and settle.

    The lock can be taken again by the thread that has it: a garbage collection may end a forgotten
    stream, and so settle its attempt, wherever this thread is.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._requests = self._cached = 0
        self._open = 0
        self._by_model: dict[str, Sums] = {}

    def begin(self) -> None:
        """Count a request."""
        with self._lock:
            self._requests += 1

    def hit(self) -> None:
        """Count a request that the cache answered."""
        with self._lock:
            self._requests += 1
            self._cached += 1

    def open(self) -> None:
        """Count an attempt as open."""
        with self._lock:
            self._open += 1

    def settle(self, attempt: Attempt) -> None:
        """Close an attempt that was opened, and add it up."""
        name = f"{attempt.vendor}/{attempt.model}"
        with self._lock:
            self._open -= 1
            sums = self._by_model.get(name) or self._by_model.setdefault(name, Sums())
            sums.add(attempt)

    def snapshot(self) -> Stats:
        """Copy the books."""
        with self._lock:
            return Stats(
                requests=self._requests,
                in_flight=self._open,
                total=Sums.of(self._by_model.values()).figures(),
                by_model={name: sums.figures() for name, sums in self._by_model.items()},
                cached=self._cached,
            )
