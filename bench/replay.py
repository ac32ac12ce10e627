"""The routers of ``difficulty.py``: the score that each gives a question, without the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from curves import Vector
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent.parent / "models" / "training"))  # where ours is trained

from logistic import Task, folds, trained
from trials import PARTS, Trials, answers

FOLDS = 10
SEEDS = (0, 1, 2, 3, 4)

Scores = Mapping[str, Sequence[Vector]]
"""For each router a score of each question, by each seed: the highest go to the strong model."""

AFTER = frozenset({"answer length", "answer"})
"""Those that see the weak model's answer, which is paid for whatever they say."""

_INTEGER = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@attrs.frozen(eq=False)
class Truth:
    """Who was right: 1 or 0 for each question."""

    weak: Vector
    strong: Vector


def scored(trials: Trials) -> Scores:
    """Return the scores of all routers, ours by weights that never saw the question."""
    tasks = {name: count(trials) for name, count in PARTS.items()}
    rows = len(trials.prompts)
    length = np.array([len(prompt) for prompt in trials.prompts], dtype=np.float64)
    written = np.array([len(answer) for answer in trials.weak_answers], dtype=np.float64)
    return {
        "random": [np.random.default_rng(seed).random(rows) for seed in range(10)],
        "length": [length],
        "question": [-held_out(tasks["difficulty"], seed) for seed in SEEDS],
        "answer length": [written],
        "answer": [-held_out(tasks["doubt"], seed) for seed in SEEDS],
        "oracle": [trials.strong_right - trials.weak_right],
    }


def held_out(task: Task, seed: int, other: Task | None = None) -> Vector:
    """Return the log-odds of each row, or of the same row of another task, from the other folds."""
    dealt = folds(task.rows, FOLDS, seed)
    found = np.zeros(task.rows)
    for fold in range(FOLDS):
        inside = dealt == fold
        made = trained(task.part(~inside), 100 * seed + fold)
        found[inside] = made.logits((other or task).counts[inside])
    return found


def blinded(task: Task, name: str) -> Task:
    """Return a task in which one thing is not counted."""
    counts = task.counts.copy()
    counts[:, list(task.marks).index(name)] = 0
    return dataclasses.replace(task, counts=counts)


def of_strong(trials: Trials) -> Task:
    """Return what can be counted in the strong model's answers, and whether they were right."""
    turned = dataclasses.replace(
        trials, weak_answers=trials.strong_answers, weak_right=trials.strong_right
    )
    return answers(turned)


def sealed(trials: Trials) -> NDArray[np.bool_]:
    """Return which third of the questions was kept aside while it was chosen what to count."""
    digests = (hashlib.sha256(prompt.encode()).hexdigest() for prompt in trials.prompts)
    return np.array([int(digest, 16) % 3 == 0 for digest in digests])


def sealed_scores(trials: Trials, part: NDArray[np.bool_]) -> Scores:
    """Return the scores of that third, ours by weights of the other two."""
    found = {"length": [np.array([len(prompt) for prompt in trials.prompts])[part] * 1.0]}
    for router, name in (("question", "difficulty"), ("answer", "doubt")):
        task = PARTS[name](trials)
        found[router] = [-trained(task.part(~part), 0).logits(task.counts[part])]
    return found


def regraded(trials: Trials) -> Truth:
    """Return the truth by value where that can be told, and as it was marked elsewhere.

    The grader of the table took the last run of digits, so that 12.00 was wrong where 12 is right.
    What was to come out is known where one of both was marked right.
    """
    weak, strong = trials.weak_right.copy(), trials.strong_right.copy()
    pairs = zip(trials.weak_answers, trials.strong_answers, strict=True)
    for row, texts in enumerate(pairs):
        for right, text in zip((weak, strong), texts, strict=True):
            marked = trials.weak_right[row] or trials.strong_right[row]
            if marked and not right[row]:
                source = texts[0] if trials.weak_right[row] else texts[1]
                wanted = float(_INTEGER.findall(source.replace(",", ""))[-1])
                said = _NUMBER.findall(text.replace(",", ""))
                right[row] = float(bool(said) and float(said[-1]) == wanted)
    return Truth(weak, strong)
