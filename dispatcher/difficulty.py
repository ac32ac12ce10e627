"""How hard a question is for a small model, and how far its answer is to be trusted.

Both are chances, by a logistic regression over things that can be counted and named; its weights
are in ``models/difficulty.json``, which ``models/training/difficulty.py`` writes. Pure: no model is
asked, a usual text takes well under a millisecond, and of a long one both ends are read.

What it is worth is known for one pair of models and for grade-school sums in English alone: 1,319
questions of GSM8K, of which Mixtral 8x7B got 64 % right and GPT-4 Turbo 86 %, cross-validated, with
95 % intervals (``bench/difficulty.py``). APGR is the part of that gap that is closed, on average
over all shares of questions that go to the stronger model; by chance it is 0.5, and who knew who
was right would have 1.125.

- ``difficulty``, before anybody has answered, has 0.614 (0.574 to 0.658). The length of the prompt
  has 0.601 by itself: the difference of 0.013 (-0.013 to 0.042) may be none. Take it to tell very
  long and involved questions from short ones, and not for more.
- ``doubt``, on the weak model's answer, has 0.807 (0.761 to 0.862), above length by 0.206 (0.162 to
  0.257). On a third of the questions, kept aside while it was chosen what to count, it has
  0.770 (0.706 to 0.854). It closes half of the gap with 16 % of the calls to the stronger model and
  four fifths with 33 %. In money, where each weak answer is paid for as well, its APGR is 0.796
  where a weak call costs a twentieth of a strong one and 0.703 at a third; from about a half on it
  is better not to wait for the answer.

Much of that is particular to sums: that those stated hold, that the numbers of the question are
used, that children's sums come out whole. Without the last it has 0.781. On GPT-4's answers, which
it was not trained on, it ranks a right one above a wrong one in 76 of 100 pairs (81 on its own),
and in 73 where 12.00 is allowed for 12. Its chances are true to three points on this data, and
would not be for other models, whose share of right answers is another: order by them, or train
anew. It knows nothing of facts, code, other languages or longer work; ``familiar`` says where a
text is outside of what it has seen, which is not the only place where it is wrong.
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
