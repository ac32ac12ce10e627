"""How hard a question is for a small model, and how far its answer is to be trusted.

Both are chances, by a logistic regression over things that can be counted and named; its weights
are in ``models/difficulty.json``, which ``models/training/difficulty.py`` writes. Pure, without any
model being asked, in well under a millisecond for a usual text and bounded for any.

FIGURES
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import attrs

from llmdispatcher import answer_marks, question_marks
from llmdispatcher.models.errors import BadRequest

FILE = "difficulty.json"

LEAST_CHANCE = 0.01
"""A chance is never less, nor its opposite: so few questions cannot tell more."""

RARE = 3.0
"""Up to so many of what the training data hardly has are counted."""

TOLD = 0.1
"""Logits by which something must move the chance to be among the cues."""

MOST_CUES = 6


@attrs.frozen
class Difficulty:
    """What a question looks like before anybody has answered it."""

    chance_weak: float
    """Chance, 0 to 1, that the weak model's answer is good."""
    cues: tuple[str, ...]
    """What moved it away from that of a usual question, the weightiest first."""
    familiar: bool
    """Whether all counts are in the range of the questions that the weights come from. Where they
    are not, the chance is a guess."""


@attrs.frozen
class Doubt:
    """What a weak model's answer looks like."""

    chance_right: float
    """Chance, 0 to 1, that the answer is right."""
    cues: tuple[str, ...]
    """What moved it away from that of a usual answer, the weightiest first."""
    familiar: bool
    """As in ``Difficulty``, of question and answer."""


@attrs.frozen
class Weight:
    """How a count moves the chance: ``per_log`` logits for each unit of log(1 + count).

    Counts are measured from ``centre`` (in those units). The training data had counts from ``low``
    to ``high``; one beyond weighs as much as the nearest of those.
    """

    per_log: float
    centre: float
    low: float
    high: float

    def logits(self, count: float) -> float:
        """Return by how much a count moves the chance, in logits."""
        count = min(max(count, self.low), max(self.high, RARE))
        return self.per_log * (math.log1p(count) - self.centre)


@attrs.frozen
class Weights:
    """Those of one of the two chances."""

    intercept: float
    by_mark: Mapping[str, Weight]

    def chance(self, marks: Mapping[str, float]) -> float:
        """Return the chance that goes with what was counted."""
        logits = self.intercept + sum(
            weight.logits(marks[name]) for name, weight in self.by_mark.items()
        )
        chance = 1 / (1 + math.exp(-logits))
        return min(max(chance, LEAST_CHANCE), 1 - LEAST_CHANCE)

    def familiar(self, marks: Mapping[str, float]) -> bool:
        """Whether each count is one that the training data had."""
        return all(w.low <= marks[name] <= w.high for name, w in self.by_mark.items())

    def moved(self, marks: Mapping[str, float]) -> Sequence[tuple[str, float]]:
        """Return the marks that moved the chance, with the logits, the weightiest first."""
        moves = [(name, weight.logits(marks[name])) for name, weight in self.by_mark.items()]
        told = [(name, logits) for name, logits in moves if abs(logits) >= TOLD]
        return sorted(told, key=lambda move: -abs(move[1]))


def difficulty(text: str) -> Difficulty:
    """Judge a question, before it is answered. Raises BadRequest if it is no text."""
    marks = question_marks.question_marks(_words("text", text))
    weights = _read()["difficulty"]
    cues = _cues(weights, marks, ("harder", "easier"))
    return Difficulty(weights.chance(marks), cues, weights.familiar(marks))


def doubt(question: str, answer: str) -> Doubt:
    """Judge an answer beside its question. Raises BadRequest if one of them is no text."""
    marks = answer_marks.answer_marks(_words("question", question), _words("answer", answer))
    weights = _read()["doubt"]
    cues = _cues(weights, marks, ("against", "for"))
    return Doubt(weights.chance(marks), cues, weights.familiar(marks))


def parsed(told: Mapping[str, Any]) -> Weights:
    """Make weights of one of the two parts of the file."""
    rows = {name: Weight(**row) for name, row in told["marks"].items()}
    return Weights(told["intercept"], rows)


@cache
def _read() -> Mapping[str, Weights]:
    """Read the file, once, and not before it is asked for."""
    import json  # noqa: PLC0415 - as above

    text = resources.files("llmdispatcher.models").joinpath(FILE).read_text(encoding="utf-8")
    told = json.loads(text)
    return {name: parsed(told[name]) for name in ("difficulty", "doubt")}


def _words(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(name, value, "text")
    return value


def _cues(weights: Weights, marks: Mapping[str, float], sides: tuple[str, str]) -> tuple[str, ...]:
    """Say what moved the chance, each with the side on which it weighs."""
    cues = []
    for name, logits in weights.moved(marks):
        mark = question_marks.MARKS.get(name) or answer_marks.MARKS[name]
        if marks[name] or "{}" in mark.phrase:  # that something is not there has no phrase
            count = mark.phrase.format(f"{round(marks[name], 1):g}")
            cues.append(f"{count} ({sides[logits > 0]})")
    return tuple(cues[:MOST_CUES])
