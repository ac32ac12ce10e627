"""How fast tokens are drawn, from a count that grows. Pure."""

from __future__ import annotations

MEMORY_S = 5.0
"""Of the average: what was drawn so long ago counts for a third."""

PAUSE_S = 2.0
"""After so long without a word, the time between two counts was not spent on drawing."""


class Speed:
    """Tokens per second while any are drawn, for all replies together."""

    def __init__(self) -> None:
        self.tokens_per_s: float | None = None
        self._tokens = 0
        self._noted_s: float | None = None

    def note(self, tokens: int, running: int, now_s: float) -> None:
        """Take a count: so many tokens in all by now, and so many requests that go on."""
        passed_s = None if self._noted_s is None else now_s - self._noted_s
        drawn = tokens - self._tokens
        self._tokens = tokens
        self._noted_s = now_s if running else None
        if passed_s is None or not 0 < passed_s < PAUSE_S:
            return
        weight = passed_s / (passed_s + MEMORY_S)
        before = drawn / passed_s if self.tokens_per_s is None else self.tokens_per_s
        self.tokens_per_s = before + weight * (drawn / passed_s - before)
