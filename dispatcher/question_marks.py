"""What can be counted in a question that tells how hard it is. Words are English ones.

Pure. Work is bounded: of a long text, its beginning and its end are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

WINDOW = 6_000
"""Characters that are read from each end of a text."""


@attrs.frozen
class Mark:
    """One thing that is counted.

    ``phrase`` says it to a person, with the count in place of ``{}``. ``sign`` is the direction in
    which it may move the chance of a good answer, whatever the data for training says: -1 down, 1
    up, 0 either. ``prior`` is by how much (in logits) the first of its kind is believed to move it
    where that data has too little to say.
    """

    phrase: str
    sign: int = 0
    prior: float = 0.0


MARKS: Mapping[str, Mark] = {
    "length": Mark("characters: {}", -1),
    "sentences": Mark("sentences: {}", -1),
    "steps": Mark("sentences with quantities: {}", -1),
    "numbers": Mark("numbers: {}", -1),
    "magnitude": Mark("digits of the largest number: {}", -1),
    "decimals": Mark("decimal fractions: {}", -1),
    "percent": Mark("percentages: {}", -1),
    "fractions": Mark("fractions such as 1/3 or “half”: {}", -1),
    "multiples": Mark("words such as “twice”, “as many”: {}", -1),
    "comparisons": Mark("comparisons such as “more than”: {}", -1),
    "rates": Mark("words such as “each”, “per”: {}", -1),
    "conditions": Mark("words such as “if”, “when”: {}", -1),
    "remainders": Mark("words such as “left”, “rest”: {}", -1),
    "changes": Mark("words such as “then”, “after”: {}", -1),
    "units": Mark("units of time: {}", -1),
    "money": Mark("sums of money: {}"),
    "averages": Mark("words such as “average”, “profit”: {}", -1),
    "names": Mark("names: {}"),
    "negations": Mark("words such as “not”, “except”: {}", -1),
    "asks_how_many": Mark("asks “how many”"),
    "asks_how_much": Mark("asks “how much”"),
    "asks_total": Mark("asks for a total"),
    "asks_why": Mark("asks to explain, prove or design", -1, -0.3),
    "questions": Mark("question marks: {}", -1),
    "code": Mark("marks of code: {}", -1, -0.3),
    "maths": Mark("marks of higher mathematics: {}", -1, -0.5),
}

_NUMBER = re.compile(r"\d[\d,]{0,20}(?:\.\d{1,12})?")
_SENTENCE = re.compile(r"[^.!?\n]+(?:\.\d[^.!?\n]*)*")
_QUANTITY = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty"
    r"|fifty|sixty|hundred|thousand|dozen|half|third|quarter|twice|double|triple)\b"
)
_SPELLED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|"
    r"fifty|sixty|hundred|thousand|dozen)\b"
)
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{1,30}")
_COUNTED: Mapping[str, re.Pattern[str]] = {
    "decimals": re.compile(r"\d\.\d"),
    "percent": re.compile(r"\d ?%|\bpercent"),
    "fractions": re.compile(
        r"\d/\d|\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|tenths?|fractions?)\b"
    ),
    "multiples": re.compile(
        r"\b(?:twice|thrice|double[sd]?|triple[sd]?|times (?:as|more|the|older|that|bigger)"
        r"|as (?:many|much|old|long|big|tall|far))\b"
    ),
    "comparisons": re.compile(r"\b(?:more|less|fewer|older|younger|longer|taller|greater) than\b"),
    "rates": re.compile(r"\b(?:each|every|per|apiece|daily|weekly|hourly)\b"),
    "conditions": re.compile(r"\b(?:if|unless|when|while|until|provided|assuming)\b"),
    "remainders": re.compile(r"\b(?:left|remain\w{0,5}|rest|still|leftover)\b"),
    "changes": re.compile(r"\b(?:then|after|before|later|next|first|second|finally|last)\b"),
    "money": re.compile(r"[$€£]|\b(?:dollars?|cents?|euros?)\b"),
    "averages": re.compile(
        r"\b(?:averages?|mean|ratio|difference|equal\w{0,4}|profit|discount|interest|speed)\b"
    ),
    "negations": re.compile(r"\b(?:not|no|never|except|only|without|but|however|instead)\b|n't\b"),
    "asks_how_many": re.compile(r"\bhow many\b"),
    "asks_how_much": re.compile(r"\bhow (?:much|long|far|old)\b"),
    "asks_total": re.compile(r"\b(?:total|altogether|in all|combined|sum)\b"),
    "asks_why": re.compile(r"\b(?:why|prove|explain|derive|justify|compare|analy[sz]e|design)\b"),
    "questions": re.compile(r"\?"),
    "code": re.compile(
        r"```|[{};][ \t]*(?:\n|$)|\bdef \w{1,40}\(|\w\(\)|=>|::|</\w|#include|\bselect \*"
        r"|\b(?:python|javascript|java|sql|html|regex|algorithm|compile[rs]?|function)\b"
    ),
    "maths": re.compile(
        r"\\[a-z]{2,12}|[∫∑√∂∀∃≤≥∈]|\^\d|\b(?:theorem|integral|derivative|matrix|modulo|prime"
        r"|polynomial|logarithm|probability|equation)\b"
    ),
}
_ONCE = frozenset({"asks_how_many", "asks_how_much", "asks_total", "asks_why"})
_UNITS = re.compile(r"\b(second|minute|hour|day|week|month|year)s?\b")


def window(text: str) -> str:
    """Return what is read of a text: all of it, or its beginning and its end."""
    if len(text) <= 2 * WINDOW:
        return text
    return f"{text[:WINDOW]}\n{text[-WINDOW:]}"


def question_marks(text: str) -> dict[str, float]:
    """Count each of ``MARKS`` in what ``window`` leaves; the length is that of the whole."""
    read = window(text)
    small = read.lower()
    numbers = _NUMBER.findall(read)
    sentences = [part for part in _SENTENCE.findall(small) if not part.isspace()]
    marks = {name: float(len(what.findall(small))) for name, what in _COUNTED.items()}
    marks |= {name: min(1.0, marks[name]) for name in _ONCE}
    marks["length"] = float(len(text))
    marks["sentences"] = float(len(sentences))
    marks["steps"] = float(sum(_QUANTITY.search(part) is not None for part in sentences))
    marks["numbers"] = float(len(numbers) + len(_SPELLED.findall(small)))
    marks["magnitude"] = float(max((digits(number) for number in numbers), default=0))
    marks["units"] = float(len(set(_UNITS.findall(small))))
    marks["names"] = float(len(set(_NAME.findall(read))))
    return {name: marks[name] for name in MARKS}


def digits(number: str) -> int:
    """Return how many digits a number has before its point."""
    return sum(each.isdigit() for each in number.partition(".")[0])
