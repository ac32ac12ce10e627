"""The exam: questions by somebody who has not seen the grammar, asked once per version.

Owns the meaning of exam.jsonl, how an answer is judged, how much of a question the
training text holds, the form of exam_result.json, and what the card says of it.
Nothing else reads the questions, so that no choice is made by them.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from grammar import HERE
from scores import wilson
from topics import REFUSALS
from wording import normalise

QUESTIONS = HERE / "exam.jsonl"
RESULT = HERE / "exam_result.json"
HEADING = "## The exam"
OFF = "off"
"""The kind of question that is right if it is refused."""

KINDS = {
    "use": "using llmdispatcher",
    "self": "what the model is",
    "capital": "capitals",
    "number": "numbers",
    "json": "JSON",
    "story": "stories",
    OFF: "off its topics, to be refused",
}

_NOT_EXAMINED = """\
The questions in `training/exam.jsonl` were written by somebody who had not seen the
phrase grammar. This file has not been asked them: `training/examine.py` does it, once
per released version.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the exam, and the expressions one of which a right answer holds."""

    kind: str
    question: str
    accept: tuple[re.Pattern[str], ...]

    def is_right(self, answer: str) -> bool:
        """Tell whether an answer counts."""
        if self.kind == OFF:
            return answer in REFUSALS
        return any(pattern.search(answer) for pattern in self.accept)


def read_exam(path: Path = QUESTIONS) -> list[Question]:
    """Return the questions. Raises ValueError for a line of no known kind, or without an answer."""
    questions: list[Question] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        told = json.loads(line)
        kind, accept = told["kind"], told.get("accept", [])
        if kind not in KINDS or (kind != OFF and not accept):
            message = f"{path.name}:{number}: no known kind, or nothing to accept: {line}"
            raise ValueError(message)
        patterns = tuple(re.compile(pattern, re.IGNORECASE) for pattern in accept)
        questions.append(Question(kind, told["question"], patterns))
    return questions


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trigrams(text: str) -> set[tuple[str, str, str]]:
    words = normalise(text).split()
    return {(a, b, c) for (a, b), (_, c) in zip(pairwise(words), pairwise(words[1:]), strict=False)}


class Overlap:
    """Compares questions with the training text, which is read piece by piece."""

    def __init__(self, questions: Sequence[str]) -> None:
        """Take the questions."""
        self._trigrams = {question: _trigrams(question) for question in questions}
        self._wanted = set().union(*self._trigrams.values()) if questions else set()
        self._asked = {normalise(question): question for question in questions}
        self._found: set[tuple[str, str, str]] = set()
        self.verbatim: set[str] = set()
        """Questions that the training text holds, but for case and marks."""

    def read(self, question: str, answer: str) -> None:
        """Read one exchange of the training text."""
        known = self._asked.get(normalise(question))
        if known is not None:
            self.verbatim.add(known)
        self._found |= (_trigrams(question) | _trigrams(answer)) & self._wanted

    def share(self, question: str) -> float | None:
        """Return the share of a question's word trigrams that were read; None if it has none."""
        own = self._trigrams[question]
        return len(own & self._found) / len(own) if own else None

    def mean(self) -> float:
        """Return the mean of the shares, over the questions of three words or more."""
        shares = [s for s in map(self.share, self._trigrams) if s is not None]
        return sum(shares) / max(1, len(shares))


def _counted(marks: Iterable[bool]) -> dict[str, object]:
    given = list(marks)
    low, high = wilson(sum(given), len(given))
    interval = [round(low, 4), round(high, 4)]
    return {"right": sum(given), "asked": len(given), "interval_95": interval}


def result(
    questions: Sequence[Question], answers: Sequence[str], overlap: Overlap
) -> dict[str, Any]:
    """Return what there is to record of an exam, but for the hashes of what was examined."""
    marked = [(q, a, q.is_right(a)) for q, a in zip(questions, answers, strict=True)]
    present = Counter(question.kind for question in questions)
    fresh = [right for q, _, right in marked if q.question not in overlap.verbatim]
    known = [right for q, _, right in marked if q.question in overlap.verbatim]
    told = [{"question": q.question, "answer": a, "right": right} for q, a, right in marked]
    return {
        "all": _counted(right for _, _, right in marked),
        "kinds": {k: _counted(r for q, _, r in marked if q.kind == k) for k in KINDS if present[k]},
        "not_in_training_text": _counted(fresh),
        "in_training_text": _counted(known),
        "trigram_overlap": round(overlap.mean(), 4),
        "answers": told,
    }


def recorded(
    model: Path, questions: Path = QUESTIONS, path: Path = RESULT
) -> dict[str, Any] | None:
    """Return the recorded result, if it is of this very model and of these questions."""
    if not path.exists() or not questions.exists():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    hashes = {"model_sha256": sha256(model), "exam_sha256": sha256(questions)}
    return told if hashes.items() <= told.items() else None


def _line(name: str, counted: dict[str, Any]) -> str:
    low, high = counted["interval_95"]
    share = 100 * counted["right"] / max(1, counted["asked"])
    right = f"{counted['right']}/{counted['asked']}"
    return f"| {name} | {share:.1f} % | {right} | {100 * low:.0f} to {100 * high:.0f} % |"


def section(told: dict[str, Any] | None) -> str:
    """Return the card's section about the exam."""
    if told is None:
        return f"{HEADING}\n\n{_NOT_EXAMINED}"
    lines = ["| Questions | Right | | 95 % interval (Wilson) |", "|---|---|---|---|"]
    lines.append(_line("all", told["all"]))
    lines += [_line(f"about {KINDS[kind]}", counted) for kind, counted in told["kinds"].items()]
    lines.append(_line("not in the training text", told["not_in_training_text"]))
    lines.append(_line("in the training text word for word", told["in_training_text"]))
    return (
        f"{HEADING}\n\n"
        "The questions in `training/exam.jsonl` were written by somebody who had not seen the\n"
        "phrase grammar, and committed before any model was asked them. This file was asked\n"
        "them once; the answers are in `training/exam_result.json`. An answer is right if it\n"
        "holds what the question's line accepts; of questions off its topics, if it is a refusal.\n"
        f"Of the questions' word trigrams {100 * told['trigram_overlap']:.0f} % occur somewhere"
        " in the training text (mean).\n\n" + "\n".join(lines) + "\n"
    )


def with_section(card: str, told: dict[str, Any] | None) -> str:
    """Return a card whose section about the exam is replaced."""
    before, heading, rest = card.partition(HEADING)
    if not heading:
        message = f"the card has no heading {HEADING!r}"
        raise ValueError(message)
    _, following, after = rest.partition("\n## ")
    return before + section(told) + following + after
