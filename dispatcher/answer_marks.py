"""What can be counted in an answer that tells whether it is right, beside the question.

Pure, and bounded as ``question_marks`` is. That a sum holds is checked, not believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from llmdispatcher.question_marks import Mark, question_marks, window
from llmdispatcher.sums import NUMBER, Statement, statements, value_of

MARKS: Mapping[str, Mark] = {
    "answer_length": Mark("characters of the answer: {}", -1),
    "answer_ratio": Mark("length of the answer beside the question's: {}"),
    "answer_lines": Mark("lines of the answer: {}"),
    "sums": Mark("sums that can be checked: {}"),
    "no_sums": Mark("no sum that can be checked", -1),
    "broken_sums": Mark("sums that do not hold: {}", -1, -1.0),
    "no_result": Mark("does not end in a number", -1, -1.0),
    "fraction": Mark("ends in a decimal fraction", -1),
    "not_positive": Mark("ends in zero or below", -1),
    "contradicts": Mark("its result is none that it worked out", -1, -0.5),
    "several_results": Mark("results beside the last: {}", -1, -0.5),
    "copied": Mark("its result already stands in the question", -1),
    "groundless": Mark("numbers that come from nowhere: {}", -1),
    "unused": Mark("numbers of the question that are not used: {}", -1),
    "dangling": Mark("results that nothing is made of: {}", -1),
    "no_subtraction": Mark("nothing is taken away, where the question asks for it", -1),
    "hedges": Mark("hedging words: {}", -1, -0.3),
    "turns": Mark("words such as “wait”, “actually”: {}", -1, -0.3),
    "unknowns": Mark("unknowns such as x: {}", -1),
    "repeats": Mark("lines that repeat: {}", -1, -0.5),
    "unfinished": Mark("breaks off", -1, -1.0),
    "empty": Mark("is empty", -1, -6.0),
}

_NUMBER = re.compile(NUMBER)
_ASIDE = re.compile(r"<<[^<>\n]{0,200}>>")
_FINAL = re.compile(r"####|\\boxed|\banswer(?: is|:)|\bfinal result", re.IGNORECASE)
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|probably|possibly|might|not sure|unsure|unclear|i think|i guess|i believe"
    r"|assum\w{1,4}|approximately|roughly|cannot (?:be )?determine\w?|impossible|sorry|not enough"
    r"|as an ai|don't know|do not know)\b"
)
_TURNS = re.compile(r"\b(?:wait|however|actually|correction|mistake|instead|oops|but since)\b")
_UNKNOWNS = re.compile(r"(?<![\w'\u2019])[b-hj-z](?![\w'\u2019])")
_ENDS = re.compile(r"[.!?)\]}\"”'`$%\d]\s*$|[A-Za-z°€£]\s*$")
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
)
_SPELLED: Mapping[str, float] = {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "hundred": 100,
    "dozen": 12,
    "half": 0.5,
    "quarter": 0.25,
    "third": 3,
    "twice": 2,
    "double": 2,
    "triple": 3,
    **{name: float(value) for value, name in enumerate(_NAMES.split())},
}
_LESS = re.compile(
    r"\b(?:fewer|less|left|remain\w{0,5}|change|discount|off|los[te]|gave|gives|spen[dt]|ate|sold"
    r"|difference|profit|minus|than|rest|need|still)\b"
)
_WORD = re.compile(r"[a-z]{3,9}")
_COMMON = "0 0.5 1 2 3 4 5 7 10 12 24 30 52 60 100 365 1000"
_KNOWN = frozenset(float(number) for number in _COMMON.split())
"""Numbers that need no source: of the calendar, the clock, the percentage."""

MOST_SUMS = 40
"""Sums that are looked at."""

MOST_NUMBERS = 100
"""Numbers that are followed, of the question and of the sums."""


def answer_marks(question: str, answer: str) -> dict[str, float]:
    """Count ``MARKS`` in an answer, and those of the question."""
    read, asked = window(answer), window(question)
    small = read.lower()
    lines = [line.strip() for line in read.splitlines() if line.strip()]
    sums = list(islice(statements(read), MOST_SUMS))
    given = set(islice(_given(asked), MOST_NUMBERS))
    ends = _ends(lines, given, [each.result for each in sums])
    takes_away = any("-" in each.signs for each in sums)
    marks = ends | _sources(given, list(dict.fromkeys(sums)))
    marks |= {
        "answer_length": float(len(answer)),
        "answer_ratio": len(answer) / max(1, len(question)),
        "answer_lines": float(len(lines)),
        "sums": float(len(sums)),
        "no_sums": float(not sums),
        "broken_sums": float(min(2, sum(not each.holds for each in sums))),
        "no_subtraction": float(not takes_away and _LESS.search(asked.lower()) is not None),
        "hedges": float(len(_HEDGES.findall(small))),
        "turns": float(len(_TURNS.findall(small))),
        "unknowns": float(len(set(_UNKNOWNS.findall(small)))),
        "repeats": float(len(lines) - len(set(lines))),
        "empty": float(not lines),
    }
    return question_marks(question) | {name: marks[name] for name in MARKS}


def _ends(
    lines: Sequence[str], given: AbstractSet[float], worked: Sequence[float]
) -> dict[str, float]:
    """Look at what the answer ends in, beside the numbers given and those worked out."""
    last = _ASIDE.sub("", lines[-1]) if lines else ""
    written = _NUMBER.findall(last)
    final = [_NUMBER.findall(_ASIDE.sub("", line)) for line in lines if _FINAL.search(line)]
    stated = {value_of(numbers[-1]) for numbers in final if numbers}
    result = value_of(written[-1]) if written else None
    marks = {
        "no_result": float(result is None),
        "several_results": float(max(0, len(stated) - 1)),
        "unfinished": float(bool(lines) and _ENDS.search(lines[-1]) is None),
    }
    if result is None:
        return marks | dict.fromkeys(("fraction", "not_positive", "contradicts", "copied"), 0.0)
    return marks | {
        "fraction": float("." in written[-1]),
        "not_positive": float(result == 0 or f"-{written[-1]}" in last),
        "contradicts": float(bool(worked) and not _near(result, worked)),
        "copied": float(result in given),
    }


def _sources(given: AbstractSet[float], sums: Sequence[Statement]) -> dict[str, float]:
    """Follow where the numbers in the sums come from, and what becomes of the results."""
    known, groundless, used = given | _KNOWN, set[float](), set[float]()
    for each in sums:
        for number in each.operands:
            if len(used) < MOST_NUMBERS and number not in used:
                used.add(number)
                if not _near(number, known):
                    groundless.add(number)
        known = known | {each.result}
    return {
        "groundless": float(len(groundless)),
        "unused": float(sum(not _near(number, used) for number in given)),
        "dangling": float(sum(not _near(each.result, used) for each in sums[:-1])),
    }


def _given(question: str) -> Iterator[float]:
    """Yield the numbers that stand in a question, in digits or words."""
    for number in _NUMBER.finditer(question):
        yield value_of(number.group())
    for word in _WORD.finditer(question.lower()):
        if word.group() in _SPELLED:
            yield _SPELLED[word.group()]


def _near(number: float, others: Iterable[float]) -> bool:
    """Whether a number is one of the others, rounded or as a percentage of it or of its rest."""
    for other in others:
        for same in (other, other / 100, other * 100, 1 - other / 100, 1 + other / 100):
            if math.isclose(number, same, rel_tol=5e-3, abs_tol=5e-3):
                return True
    return False
