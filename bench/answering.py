"""What ways to answer are right in, and what they cost: curves, mixes, resampled intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from llmdispatcher.models.confidence import Calibration, Signals

RESAMPLES = 2000

Vector = NDArray[np.float64]


@attrs.frozen(eq=False)
class Told:
    """What a tier, or a cascade, made of every question."""

    right: Vector
    cost: Vector
    """Micro-dollars."""
    signals: tuple[Signals | None, ...] = ()

    def part(self, chosen: slice) -> Told:
        """Return some of the questions."""
        return Told(self.right[chosen], self.cost[chosen], self.signals[chosen])


def chances(told: Told, calibration: Calibration) -> Vector:
    """Return how sure a tier was of each of its answers."""
    return np.array([calibration.chance(each) if each else 0.0 for each in told.signals])


def climbed(tiers: Sequence[Told], sure: Sequence[Vector], threshold: float) -> Told:
    """Return what a cascade of tiers makes of every question at a threshold."""
    right, cost = tiers[-1].right.copy(), sum(tier.cost for tier in tiers)
    cost = np.array(cost)
    for at in reversed(range(len(tiers) - 1)):
        is_good = sure[at] >= threshold
        right = np.where(is_good, tiers[at].right, right)
        cost = np.where(is_good, sum(tier.cost for tier in tiers[: at + 1]), cost)
    return Told(right, cost)


def oracle(tiers: Sequence[Told]) -> Told:
    """Return what asking the cheapest that is right makes of every question."""
    right, cost = np.zeros(len(tiers[0].right)), tiers[0].cost.copy()
    for tier in reversed(tiers):
        right = np.maximum(right, tier.right)
        cost = np.where(tier.right > 0, tier.cost, cost)
    return Told(right, cost)


def cost_at(accuracy: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the least cost of a mix by lot of these (cost, accuracy) that is so right."""
    best = np.inf
    for one_cost, one in points:
        if one >= accuracy:
            best = min(best, one_cost)
        for other_cost, other in points:
            if one < accuracy < other:
                share = (accuracy - one) / (other - one)
                best = min(best, one_cost + share * (other_cost - one_cost))
    return float(best)


def interval(values: Iterable[float]) -> list[float]:
    """Return the middle 95 % of resampled values."""
    finite = [value for value in values if np.isfinite(value)]
    return [round(float(x), 4) for x in np.quantile(finite, (0.025, 0.975))] if finite else []


def estimate(value: float, resampled: Iterable[float]) -> dict[str, Any]:
    """Return a figure with its interval."""
    is_there = np.isfinite(value)
    return {"value": round(float(value), 4) if is_there else None, "interval": interval(resampled)}


class Comparison:
    """All ways to answer, on the same questions and on the same resamples of them."""

    def __init__(self, ways: Mapping[str, Sequence[Told]], largest: Told) -> None:
        """Each way is a curve of one or more points."""
        random, count = np.random.default_rng(0), len(largest.right)
        self.ways = ways
        self._draws = [np.arange(count)]
        self._draws += [random.integers(0, count, count) for _ in range(RESAMPLES)]
        self._right = {name: self._means([t.right for t in way]) for name, way in ways.items()}
        self._cost = {name: self._means([t.cost for t in way]) for name, way in ways.items()}
        self._large = self._means([largest.right])[:, 0], self._means([largest.cost])[:, 0]

    def _means(self, rows: Sequence[Vector]) -> Vector:
        table = np.stack(rows, axis=1)
        return np.stack([table[draw].mean(axis=0) for draw in self._draws])

    def point(self, name: str, at: int = 0) -> dict[str, Any]:
        """Return accuracy, the part of the largest's cost, and the difference in accuracy."""
        right, cost = self._right[name][:, at], self._cost[name][:, at] / self._large[1]
        less = right - self._large[0]
        return {
            "accuracy": estimate(right[0], right[1:]),
            "cost_share": estimate(cost[0], cost[1:]),
            "accuracy_less_largest": estimate(less[0], less[1:]),
        }

    def equal(self, name: str, less: float, *, mixes: bool) -> dict[str, Any]:
        """Return the least part of the largest model's cost at its accuracy less some points."""
        found = []
        for draw in range(len(self._draws)):
            target = self._large[0][draw] - less
            points = list(zip(self._cost[name][draw], self._right[name][draw], strict=True))
            if mixes:
                cost = cost_at(target, points)
            else:
                cost = min((c for c, r in points if r >= target), default=np.inf)
            found.append(cost / self._large[1][draw])
        told = estimate(found[0], found[1:])
        told["reached_in"] = round(float(np.isfinite(found[1:]).mean()), 3)
        return told

    def curve(self, name: str) -> list[list[float]]:
        """Return cost share and accuracy of every point, with the interval of the accuracy."""
        rows = []
        for at in range(self._right[name].shape[1]):
            right, cost = self._right[name][:, at], self._cost[name][:, at] / self._large[1]
            low, high = interval(right[1:].tolist())
            rows.append([round(float(cost[0]), 4), round(float(right[0]), 4), low, high])
        return rows
