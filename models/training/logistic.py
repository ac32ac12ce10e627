"""Logistic regression for a handful of named counts, with signs that it must keep and priors.

Owns fitting, the choice of the penalty and the calibration, all from the rows that it is given:
whoever tests on other rows tests what those could not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdispatcher.difficulty import RARE
from llmdispatcher.question_marks import Mark

Vector = NDArray[np.float64]
Rows = NDArray[np.float64]

PENALTIES = (0.01, 0.03, 0.1, 0.3)
INNER_FOLDS = 5
STEPS = 2_000
TOLERANCE = 1e-7
LEAST_SPREAD = 0.2
"""Of log(1 + count): what is rarer counts as if it spread so far, lest one row in a thousand
decide."""
DECIMALS = 4
"""Of what is written: more would say more than the data does, and differ between machines."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is fitted: counts by name, and whether the answer was right (1) or not (0)."""

    marks: Mapping[str, Mark]
    counts: Rows
    right: Vector

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.right)

    def part(self, chosen: NDArray[np.bool_]) -> "Task":
        """Return some of the rows."""
        return Task(self.marks, self.counts[chosen], self.right[chosen])


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights over counts that were scaled; ``weights`` are per unit of log(1 + count)."""

    weights: Vector
    centre: Vector
    intercept: float
    low: Vector
    high: Vector

    def logits(self, counts: Rows) -> Vector:
        """Return the log-odds of being right, for rows of counts."""
        clamped = np.clip(counts, self.low, np.maximum(self.high, RARE))
        found: Vector = (np.log1p(clamped) - self.centre) @ self.weights + self.intercept
        return found

    def calibrated(self, slope: float, offset: float) -> "Fitted":
        """Return it with its log-odds stretched and moved."""
        intercept = slope * self.intercept + offset
        return Fitted(slope * self.weights, self.centre, intercept, self.low, self.high)

    def written(self, marks: Sequence[str]) -> dict[str, Any]:
        """Return it as data."""
        columns = zip(self.weights, self.centre, self.low, self.high, strict=True)
        rows = {}
        for name, column in zip(marks, columns, strict=True):
            values = [round(float(value), DECIMALS) + 0.0 for value in column]
            rows[name] = dict(zip(("per_log", "centre", "low", "high"), values, strict=True))
        return {"intercept": round(self.intercept, DECIMALS), "marks": rows}


def chance(logits: Vector) -> Vector:
    """Return the chances of log-odds."""
    found: Vector = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return found


def folds(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Deal rows to folds of the same size, by chance."""
    dealt = np.arange(rows) % count
    return np.random.default_rng(seed).permutation(dealt)


def trained(task: Task, seed: int) -> Fitted:
    """Fit with the penalty that serves held-out rows best, and calibrate on those."""
    held = {penalty: held_out(task, penalty, seed) for penalty in PENALTIES}
    best = min(held, key=lambda penalty: _loss(held[penalty], task.right))
    slope, offset = _calibration(held[best], task.right)
    return fitted(task, best).calibrated(slope, offset)


def held_out(task: Task, penalty: float, seed: int) -> Vector:
    """Return the log-odds of each row from a fit that did not see it."""
    dealt = folds(task.rows, INNER_FOLDS, seed)
    found = np.zeros(task.rows)
    for fold in range(INNER_FOLDS):
        inside = dealt == fold
        found[inside] = fitted(task.part(~inside), penalty).logits(task.counts[inside])
    return found


def fitted(task: Task, penalty: float) -> Fitted:
    """Fit by accelerated proximal gradient: the signs hold, priors pull where data is thin."""
    logs = np.log1p(task.counts)
    centre, spread = logs.mean(axis=0), logs.std(axis=0)
    spread = np.maximum(spread, LEAST_SPREAD)
    scaled = (logs - centre) / spread
    sign = np.array([mark.sign for mark in task.marks.values()])
    prior = np.array([mark.prior for mark in task.marks.values()]) / np.log(2) * spread
    weights, intercept = _descend(scaled, task.right, penalty, (sign, prior))
    low, high = task.counts.min(axis=0), task.counts.max(axis=0)
    return Fitted(weights / spread, centre, intercept, low, high)


def _descend(
    scaled: Rows, right: Vector, penalty: float, belief: tuple[Vector, Vector]
) -> tuple[Vector, float]:
    """Minimise the loss with the penalty on what departs from the prior, within the signs."""
    sign, prior = belief
    low = np.where(sign > 0, 0.0, -np.inf)
    high = np.where(sign < 0, 0.0, np.inf)
    full = np.column_stack([scaled, np.ones(len(right))])
    low, high, prior = np.append(low, -np.inf), np.append(high, np.inf), np.append(prior, 0.0)
    penalties = np.append(np.full(scaled.shape[1], penalty), 0.0)
    step = 1 / (0.25 * np.linalg.eigvalsh(full.T @ full / len(right))[-1] + penalty)
    at = ahead = prior.copy()
    momentum = 1.0
    for _ in range(STEPS):
        gradient = full.T @ (chance(full @ ahead) - right) / len(right)
        gradient += penalties * (ahead - prior)
        after = np.clip(ahead - step * gradient, low, high)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / following * (after - at)
        moved = np.abs(after - at).max()
        at, momentum = after, following
        if moved < TOLERANCE:
            break
    return at[:-1], float(at[-1])


def _calibration(logits: Vector, right: Vector) -> tuple[float, float]:
    """Return slope and offset that make log-odds true, by Newton's steps; the slope is positive."""
    full = np.column_stack([logits, np.ones(len(logits))])
    found = np.array([1.0, 0.0])
    for _ in range(50):
        chances = chance(full @ found)
        slack = 1e-3 * (found - np.array([1.0, 0.0]))  # a pull to no change: data may be separable
        gradient = full.T @ (chances - right) / len(right) + slack
        weight = chances * (1 - chances)
        curvature = (full * weight[:, None]).T @ full / len(right) + 1e-3 * np.eye(2)
        found = found - np.linalg.solve(curvature, gradient)
    return max(0.05, float(found[0])), float(found[1])


def _loss(logits: Vector, right: Vector) -> float:
    """Return the mean of what the chances are surprised, in nats."""
    return float(np.mean(np.logaddexp(0, logits) - right * logits))
