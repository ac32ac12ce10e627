"""The table that the difficulty router learns from, and what can be counted in it.

CSV has a row for each question: ``prompt``, whether the weak model was right (True or False),
whether the strong one was, the weak model's answer, the strong one's; the columns after ``prompt``
are found by their place.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from logistic import Task, Vector

from llmdispatcher import answer_marks, question_marks
from llmdispatcher.question_marks import Mark

COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Trials:
    """What two models made of the same questions."""

    weak_model: str
    strong_model: str
    prompts: tuple[str, ...]
    weak_right: Vector
    strong_right: Vector
    weak_answers: tuple[str, ...]
    strong_answers: tuple[str, ...]
    digest: str
    """SHA-256 of the table, in hexadecimal."""


def read(path: Path) -> Trials:
    """Read the table. Exits with what is wrong, and where, if it is not such a one."""
    text = path.read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    if len(header) != COLUMNS or header[0] != "prompt":
        raise SystemExit(f"{path}: the columns are {header}, not prompt and four more")
    if not rows:
        raise SystemExit(f"{path}: there is no row of a question in it")
    for number, row in enumerate(rows, 1):
        if len(row) != COLUMNS or not {row[1], row[2]} <= {"True", "False"}:
            raise SystemExit(f"{path}: row {number} is not {header}, with True or False")
    prompts, weak, strong, weak_answers, strong_answers = zip(*rows, strict=True)
    return Trials(
        weak_model=header[1],
        strong_model=header[2],
        prompts=prompts,
        weak_right=_truths(weak),
        strong_right=_truths(strong),
        weak_answers=weak_answers,
        strong_answers=strong_answers,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _truths(words: Sequence[str]) -> Vector:
    return np.array([word == "True" for word in words], dtype=np.float64)


def questions(trials: Trials) -> Task:
    """Return what can be counted before anybody answers."""
    counted = [question_marks.question_marks(prompt) for prompt in trials.prompts]
    return _task(question_marks.MARKS, counted, trials.weak_right)


def answers(trials: Trials) -> Task:
    """Return what can be counted in the weak model's answers, and in the questions."""
    pairs = zip(trials.prompts, trials.weak_answers, strict=True)
    counted = [answer_marks.answer_marks(question, answer) for question, answer in pairs]
    return _task({**question_marks.MARKS, **answer_marks.MARKS}, counted, trials.weak_right)


def _task(marks: Mapping[str, Mark], counted: Sequence[Mapping[str, float]], right: Vector) -> Task:
    return Task(marks, np.array([[row[name] for name in marks] for row in counted]), right)


PARTS: Mapping[str, Callable[[Trials], Task]] = {"difficulty": questions, "doubt": answers}
