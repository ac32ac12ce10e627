"""What a router recovers of the gap between two models, as RouteLLM measures it.

A router gives each question a score; the questions with the highest go to the strong model. Share
is that of the questions that do, recovered the part of the gap in right answers between weak alone
(0) and strong alone (1) that is closed: RouteLLM's PGR. Its ``routellm/evals/evaluate.py`` looks at
the shares that eleven quantiles of the scores give; so does ``by_quantiles``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

BINS = 10
"""As RouteLLM has them."""

CONFIDENCE = 0.95


@attrs.frozen(eq=False)
class Curve:
    """Points in the order of their share: from none to all to the strong model."""

    share: Vector
    recovered: Vector

    def stretched(self, factor: float) -> Curve:
        """Return it with each share as so many times as much."""
        return Curve(self.share * factor, self.recovered)

    def at(self, shares: Vector) -> Vector:
        """Return what is recovered at shares, straight between the points."""
        return np.interp(shares, self.share, self.recovered)


@attrs.frozen
class Estimate:
    """A figure of all questions, with the interval that resampled questions give."""

    value: float
    low: float
    high: float

    def told(self) -> dict[str, float]:
        """Return it as data."""
        return {"value": _short(self.value), "low": _short(self.low), "high": _short(self.high)}


def by_quantiles(score: Vector, weak: Vector, strong: Vector) -> Curve:
    """Return the eleven points of RouteLLM: those at or above a quantile go to the strong model."""
    order = np.argsort(score)
    score, gained = score[order], (strong - weak)[order]
    quantiles = np.quantile(score, np.linspace(0, 1, BINS + 1))
    first = np.searchsorted(score, quantiles, side="left")  # all from here on go to the strong one
    first[-1] = len(score)
    above = np.append(np.cumsum(gained[::-1])[::-1], 0.0)[first]
    return Curve((1 - first / len(score))[::-1], above[::-1] / gained.sum())


def whole(score: Vector, weak: Vector, strong: Vector) -> Curve:
    """Return a point for each score that occurs; questions with the same one go together."""
    order = np.argsort(-score, kind="stable")
    score, gained = score[order], (strong - weak)[order]
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    share = np.append(0.0, (ends + 1) / len(score))
    return Curve(share, np.append(0.0, np.cumsum(gained)[ends] / gained.sum()))


def apgr(curve: Curve) -> float:
    """Return the mean of what is recovered over shares from 0 to 1; what goes beyond is cut off."""
    inside = curve.share < 1
    share = np.append(curve.share[inside], 1.0)
    return float(np.trapezoid(np.append(curve.recovered[inside], curve.at(share[-1:])), share))


def cpt(curve: Curve, level: float) -> float:
    """Return the least share that recovers so much of the gap; infinite if none does."""
    reached = np.flatnonzero(curve.recovered >= level)
    if not len(reached):
        return math.inf
    if (index := int(reached[0])) == 0:
        return float(curve.share[0])
    (x0, x1), (y0, y1) = (v[index - 1 : index + 1] for v in (curve.share, curve.recovered))
    return float(x0 + (level - y0) / (y1 - y0) * (x1 - x0))


def separation(score: Vector, right: Vector) -> float:
    """Return the chance that one which is right has the higher score than one which is not."""
    good, bad = score[right == 1], np.sort(score[right == 0])
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / 2 / len(bad))


def miscalibration(chances: Vector, right: Vector) -> float:
    """Return by how much chances miss what happened, on average over ten bins of equal size."""
    bins = np.array_split(np.argsort(chances, kind="stable"), BINS)
    missed = [len(each) * abs(chances[each].mean() - right[each].mean()) for each in bins]
    return float(sum(missed) / len(chances))


def resamples(rows: int, times: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw so many samples of as many rows, with replacement. The first is the rows themselves."""
    random = np.random.default_rng(seed)
    return [np.arange(rows), *(random.integers(0, rows, rows) for _ in range(times))]


def estimate(values: Sequence[float]) -> Estimate:
    """Return a figure, the first of the values, with the interval of those of resampled rows."""
    value, *others = values
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(others, [tail, 100 - tail], method="nearest")
    return Estimate(value, float(low), float(high))


def _short(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else value
