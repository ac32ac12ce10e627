"""Where llama.cpp has what a slot holds: for most models the n-th token is at position n.

A picture takes as many cells as it has patches, but some models give it fewer positions, so what
follows it lies at another place. A slot cannot be cut inside a picture. Pure.
"""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """A picture in a slot: the tokens that stand for it, and the shift of what comes after."""

    start: int
    end: int
    shift: int


class Places:
    """How many tokens each slot holds, and where."""

    def __init__(self, slots: int) -> None:
        self.lengths = [0] * slots
        """Tokens, those that stand for pictures included."""
        self.shifts = [0] * slots
        """What to add to the count of tokens for the position of the next."""
        self._spans: dict[int, tuple[Span, ...]] = {}

    def show(self, slot: int, count: int, advance: int) -> None:
        """Append a picture of so many cells, after which positions go on ``advance`` later."""
        start = self.lengths[slot]
        self.shifts[slot] += advance - count
        self.lengths[slot] = start + count
        span = Span(start, start + count, self.shifts[slot])
        self._spans[slot] = (*self._spans.get(slot, ()), span)

    def position(self, slot: int, count: int) -> int | None:
        """Return the position after the first tokens of a slot; None inside a picture."""
        shift = 0
        for span in self._spans.get(slot, ()):
            if count >= span.end:
                shift = span.shift
            elif count > span.start:
                return None
        return count + shift

    def copy(self, source: int, target: int, count: int) -> None:
        """Note that a slot holds the first tokens of another, or of its own, and nothing else."""
        spans = tuple(span for span in self._spans.get(source, ()) if span.end <= count)
        self._spans.pop(target, None)
        if spans:
            self._spans[target] = spans
        self.lengths[target] = count
        self.shifts[target] = spans[-1].shift if spans else 0
