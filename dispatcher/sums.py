"""Sums that a text states, such as ``3 * $4.50 = $13.50``, and whether they hold.

Pure, and it evaluates nothing but numbers with ``+ - * / %`` and brackets. A statement that cannot
be read for certain (unknowns, units that change, numbers too long) is left out: one that is
reported not to hold is wrong as it stands, in all readings that are tried.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import attrs

LONGEST_TOKENS = 40
"""Of one side of a statement; what is longer is not read."""

LONGEST_UNIT = 4
"""Words that may stand after a number as what it counts."""

NUMBER = (
    r"(?<![A-Za-wyz\d.])"
    r"(?:\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,12})?|\d{1,15}(?:\.\d{1,12})?|\.\d{1,12})(?!\d|,\d{3})"
)
"""A number, with or without commas, that is not a part of a longer one or of a name."""

_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})|(?P<other>\d+)|(?P<word>[^\W\d_]{{1,40}})"
    r"|(?P<sign>[-+*/\u00d7\u00f7\u2212\u2013\u00b7=\u2248%()\[\]])"
    r"|(?P<stop>[.;:!?\n,|<>^])"
)
"""Currency signs, backslashes and the like are passed over."""

_SIGNS = {
    "\u00d7": "*",  # times sign
    "\u00b7": "*",  # dot
    "\u00f7": "/",  # division sign
    "\u2212": "-",  # minus sign
    "\u2013": "-",  # en dash
    "\u2248": "=",  # about
    "[": "(",
    "]": ")",
}
_SPELLED = {"x": "*", "X": "*", "times": "*", "of": "*", "plus": "+", "minus": "-"}
_MARKED = re.compile(r"<<([^<>\n]{1,200})>>")
"""How the answers of GSM8K, and models that learned from them, note a sum on the side."""

_MEASURES = {
    name: kind
    for kind, names in {
        "time": "second minute hour day week month year decade",
        "money": "cent penny dollar quarter dime nickel",
        "length": "inch foot yard mile centimeter meter kilometer cm m km",
        "weight": "ounce pound gram kilogram ton oz lb g kg",
        "volume": "pint cup quart gallon liter milliliter",
    }.items()
    for name in names.split()
} | {"feet": "length", "inches": "length", "pennies": "money"}

_COUNTS = frozenset({"dozen", "dozens", "pair", "pairs", "half", "percent"})
"""Words that change the number before them."""


@attrs.frozen
class Statement:
    """A sum as it was stated.

    ``result`` is what the text says comes out of ``operands``; ``signs`` are some of ``+-*/``.
    """

    operands: tuple[float, ...]
    signs: frozenset[str]
    result: float
    holds: bool


@attrs.frozen
class _Side:
    """One side of a statement: numbers, signs and brackets, and the words beside them."""

    terms: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def numbers(self) -> tuple[float, ...]:
        return tuple(float(term) for term in self.terms if _is_number(term))

    @property
    def decimals(self) -> int:
        """The most digits after the point of any of its numbers."""
        return max(len(term.partition(".")[2]) for term in self.terms)

    @property
    def signs(self) -> frozenset[str]:
        return frozenset(self.terms) & set("+-*/")

    @property
    def is_sum(self) -> bool:
        return any(term in "+-*/" for term in self.terms[1:])

    @property
    def is_rough(self) -> bool:
        """Whether what comes out of it may have been rounded."""
        return "/" in self.terms or "%" in self.terms or any("." in term for term in self.terms)


def statements(text: str) -> Iterator[Statement]:
    """Yield the sums that a text states, in its order, those noted on the side included."""
    for line in text.splitlines():
        for aside in _MARKED.finditer(line):
            yield from _in_line(aside.group(1))
        yield from _in_line(_MARKED.sub("", line))


def value_of(written: str) -> float:
    """Return the number that is written, with or without commas."""
    return float(written.replace(",", ""))


def _in_line(line: str) -> Iterator[Statement]:
    tokens = [(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(line)]
    at = 0
    while at < len(tokens):
        side, after = _side(tokens, at)
        if side is None:
            at += 1
            continue
        clear = at == 0 or not _is_operator(tokens[at - 1])  # else: an unknown comes before it
        while after < len(tokens) and tokens[after][1] in "=\u2248":
            right, end = _side(tokens, after + 1)
            if right is None or (end < len(tokens) and _is_operator(tokens[end])):
                break
            made = _judge(side, right) if clear else None
            if made is not None:
                yield made
            side, after, clear = right, end, True
        at = after


def _is_operator(token: tuple[str, str]) -> bool:
    kind, text = token
    return (_SPELLED.get(text, "") if kind == "word" else _SIGNS.get(text, text)) in set("+-*/")


def _side(tokens: Sequence[tuple[str, str]], at: int) -> tuple[_Side | None, int]:
    """Read as much of a sum as stands at a place; return it, and where it ends."""
    terms: list[str] = []
    words: list[str] = []
    wants_number = True
    while at < len(tokens) and len(terms) < LONGEST_TOKENS:
        kind, text = tokens[at]
        sign = _SIGNS.get(text, text)
        if wants_number:
            if kind == "number":
                terms.append(text.replace(",", ""))
                wants_number = False
            elif sign == "(" or (sign == "-" and (not terms or terms[-1] == "(")):
                terms.append(sign)
            else:
                break
            at += 1
            continue
        if sign in {")", "%"}:
            terms.append(sign)
            at += 1
        elif (joined := _operator(tokens, at)) is not None:
            terms.append(joined)
            wants_number = True
            at += 1
        else:
            unit = _unit(tokens, at)
            if not unit:
                break
            words += _counted(tokens[at : at + unit])
            at += unit
    if wants_number:  # it ended in an operator, or is none at all
        return None, at
    return _Side(tuple(terms), tuple(words)), at


def _operator(tokens: Sequence[tuple[str, str]], at: int) -> str | None:
    """Return the operator that stands at a place before a number or a bracket."""
    kind, text = tokens[at]
    sign = _SPELLED.get(text) if kind == "word" else _SIGNS.get(text, text)
    if sign is None or sign not in "+-*/" or at + 1 >= len(tokens):
        return None
    following = tokens[at + 1]
    return sign if following[0] == "number" or following[1] in "([" else None


def _unit(tokens: Sequence[tuple[str, str]], at: int) -> int:
    """Return how many tokens from here say what a number counts: ``videos/week``."""
    end = at
    while end < len(tokens) and end - at < LONGEST_UNIT:
        kind, text = tokens[end]
        if text == "/" and end + 1 < len(tokens) and tokens[end + 1][0] == "word":
            end += 2
        elif kind == "word" and _operator(tokens, end) is None:
            end += 1
        else:
            break
    return end - at


def _counted(unit: Sequence[tuple[str, str]]) -> list[str]:
    """Return the words of a unit but those after a stroke: miles/hour counts miles."""
    found = []
    for place, (kind, text) in enumerate(unit):
        if kind == "word" and (place == 0 or unit[place - 1][1] != "/"):
            found.append(text)
    return found


def _judge(left: _Side, right: _Side) -> Statement | None:
    """Compare both sides; None where it is not a sum, or not one that can be read for certain."""
    if not (left.is_sum or right.is_sum) or _is_unclear(left, right):
        return None
    lefts, rights = _readings(left.terms), _readings(right.terms)
    if not lefts or not rights:
        return None
    head = right.numbers[0]  # 2 + 3 = 5 * 4 = 20 is written by many, and meant as two sums
    slack = _slack(left, right)
    holds = any(
        abs(a - b) <= max(slack, 1e-9 * abs(a), (2e-3 * abs(a)) if left.is_rough else 0.0)
        for a in lefts
        for b in (*rights, head)
    )
    result = head if head in lefts else rights[0]
    return Statement(left.numbers, left.signs, result, holds)


def _is_unclear(left: _Side, right: _Side) -> bool:
    """Whether there is an unknown in it, or a measure that changes on the way."""
    words = {word.lower() for word in left.words + right.words}
    if any(len(word) == 1 and word not in _MEASURES for word in words):
        return True
    if not words.isdisjoint(_COUNTS):
        return True
    seen: dict[str, set[str]] = {}
    for word in words:
        name = word if word in _MEASURES else word.removesuffix("s")
        if name in _MEASURES:
            seen.setdefault(_MEASURES[name], set()).add(name)
    return any(len(names) > 1 for names in seen.values())


def _slack(left: _Side, right: _Side) -> float:
    """Return by how much the sides may differ: half of the last digit, where it was rounded."""
    if not (left.is_rough or right.is_rough):
        return 0.0
    before, after = left.decimals, right.decimals
    return 0.501 * 10.0 ** -(min(before, after) if before else after)


def _readings(terms: Sequence[str]) -> list[float]:
    """Return what comes out, with ``%`` as a hundredth and as a mere word."""
    found = [_evaluate(terms)]
    if "%" in terms:
        found.append(_evaluate([term for term in terms if term != "%"]))
    return [value for value in found if value is not None and math.isfinite(value)]


def _evaluate(terms: Sequence[str]) -> float | None:
    """Return the value of a sum; None if its brackets do not match or it divides by zero."""
    reader = _Reader(terms)
    try:
        value = reader.added()
    except (ZeroDivisionError, ValueError, IndexError):
        return None
    return value if reader.at == len(terms) else None


class _Reader:
    """Reads terms by precedence. Not deeper than LONGEST_TOKENS, which bounds the recursion."""

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms, self.at = terms, 0

    def added(self) -> float:
        """Read products with ``+`` and ``-`` between them."""
        value = self.multiplied()
        while self._next() in {"+", "-"}:
            sign = self._take()
            other = self.multiplied()
            value = value + other if sign == "+" else value - other
        return value

    def multiplied(self) -> float:
        """Read numbers with ``*`` and ``/`` between them."""
        value = self.single()
        while self._next() in {"*", "/"}:
            sign = self._take()
            other = self.single()
            value = value * other if sign == "*" else value / other
        return value

    def single(self) -> float:
        """Read a number or what is in brackets, with the signs before and after it."""
        term = self._take()
        if term == "-":
            return -self.single()
        if term == "(":
            value = self.added()
            if self._take() != ")":
                raise ValueError
        else:
            value = float(term)
        while self._next() == "%":
            self._take()
            value /= 100
        return value

    def _next(self) -> str:
        return self.terms[self.at] if self.at < len(self.terms) else ""

    def _take(self) -> str:
        self.at += 1
        return self.terms[self.at - 1]


def _is_number(term: str) -> bool:
    return term[0].isdigit() or term[0] == "."
