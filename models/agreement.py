"""How far several answers to one question agree: self-consistency. Pure.

An answer that a model gives again and again is more often right than one it gives once (Wang et al.
2023, "Self-Consistency Improves Chain of Thought Reasoning in Language Models").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs


@attrs.frozen
class Agreement:
    """The answer that came most often."""

    index: int
    """Of the first answer that says so."""
    count: int
    """How many say so."""
    of: int
    """How many were to be asked; those that failed agree with nobody."""

    @property
    def share(self) -> float:
        """The part that agrees."""
        return self.count / self.of

    def is_decided(self, asked: int, threshold: float) -> bool:
        """Whether those who were not asked yet cannot change on which side of it the share is."""
        return self.share >= threshold or (self.count + self.of - asked) / self.of < threshold


def agreement(answers: Sequence[str | None], of: int) -> Agreement:
    """Find the answer that came most often; of equals, the one that came first.

    Answers are given in one form, so that those who say the same are equal. None is no answer, and
    agrees with nobody.
    """
    counts = Counter(each for each in answers if each is not None)
    if not counts:
        return Agreement(0, 0, of)
    most = max(counts.values())
    index = next(at for at, each in enumerate(answers) if each is not None and counts[each] == most)
    return Agreement(index, most, of)
