"""How well labels were given: F1 of each class, and their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def f1_of_each(pairs: Iterable[tuple[str, str]], classes: Sequence[str]) -> dict[str, float]:
    """Return F1 by class, from pairs of the right label and the one that was given."""
    judged = list(pairs)
    scores = {}
    for name in classes:
        both = sum(right == given == name for right, given in judged)
        either = sum((right == name) + (given == name) for right, given in judged)
        scores[name] = 2 * both / either if either else 0.0
    return scores


def macro_f1(pairs: Iterable[tuple[str, str]], classes: Sequence[str]) -> float:
    """Return the mean of F1 over the classes, each counting the same."""
    scores = f1_of_each(pairs, classes)
    return sum(scores.values()) / len(scores)
