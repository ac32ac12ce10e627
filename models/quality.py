"""How likely a model is to give a good answer: a prior by its quality tier and the task's weight.

The figures are judgements, in the order and about the size of what public benchmarks show for such
tiers: nearly everybody answers a simple question, and only the best a hard one. They are where a
model starts; verdicts of callers and validators move them (``history``).
"""

from __future__ import annotations

UNKNOWN_QUALITY = 3
"""The tier that a model without one counts as: neither trusted nor distrusted."""

GOOD = {
    1: (0.60, 0.35, 0.15),
    2: (0.80, 0.60, 0.35),
    3: (0.92, 0.80, 0.60),
    4: (0.97, 0.92, 0.80),
    5: (0.99, 0.97, 0.92),
}
"""By quality tier: the chance of a good answer to a simple, an ordinary and a hard request."""


def chances(quality: int | None) -> tuple[float, float, float]:
    """Return the chances of a model of this tier, by complexity from simple to hard."""
    return GOOD[UNKNOWN_QUALITY if quality is None else quality]
