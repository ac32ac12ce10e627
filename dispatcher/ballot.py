"""How answers vote: what of them is compared, and who has won. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import attrs

from llmdispatcher.models.quality import UNKNOWN_QUALITY
from llmdispatcher.models.reply import Choice, Reply

MAX_DIGITS = 100
"""A number of more digits is compared as text: nobody counts so far, and arithmetic takes long."""

SHOWN = 40
"""So much of an answer stands in a note."""

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+")
_SPACE = re.compile(r"\s+")
_AROUND = " \t\n\r.,;:!?\"'`*_()[]{}«»“”\u2018\u2019$€£"
"""What may stand around an answer without being a part of it."""


@attrs.frozen
class Vote:
    """One answer, with what counts for it."""

    name: str
    """Whose it is, ``vendor/model``."""
    quality: int | None
    form: str
    """What is compared."""
    shown: str
    """A little of its text."""


@attrs.frozen
class Count:
    """How a vote came out."""

    groups: tuple[tuple[Vote, ...], ...]
    """Votes that agree, the winners first; each group in the order of the ranking."""
    is_tied: bool
    """Another group has as many."""

    @property
    def winner(self) -> Vote:
        """The vote that stands for the group that has won: its first."""
        return self.groups[0][0]

    def notes(self) -> tuple[str, ...]:
        """Tell how they voted, a line for each group, and how a tie was broken."""
        total = sum(map(len, self.groups))
        lines = [
            f"{len(group)} of {total} for {group[0].shown!r}: {_names(group)}"
            for group in self.groups
        ]
        if self.is_tied:
            first, second = (_quality(group) for group in self.groups[:2])
            by = f"by quality {first} against {second}" if first != second else "by their order"
            lines.append(f"a tie, broken {by}")
        return tuple(lines)


def count(votes: Sequence[Vote]) -> Count:
    """Count votes, given in the order of the ranking. Raises ValueError where there is none."""
    if not votes:
        raise ValueError("there is no vote to count")
    by_form: dict[str, list[Vote]] = {}
    for vote in votes:
        by_form.setdefault(vote.form, []).append(vote)
    groups = sorted(by_form.values(), key=_place)
    is_tied = len(groups) > 1 and _place(groups[0])[:2] == _place(groups[1])[:2]
    return Count(tuple(map(tuple, groups)), is_tied)


def is_decided(votes: Sequence[Vote], outstanding: int) -> bool:
    """Whether those that are still to come cannot change who wins."""
    if not votes:
        return False
    first, *others = count(votes).groups
    second = len(others[0]) if others and others[0][0].form else 0
    return bool(first[0].form) and len(first) > second + outstanding


def vote(name: str, quality: int | None, reply: Reply, form: str | Callable[[str], str]) -> Vote:
    """Return the vote of a reply, of its first choice."""
    text = _SPACE.sub(" ", reply.text.strip())
    shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return Vote(name, quality, form_of(reply.choices[0], form), shown)


def form_of(choice: Choice, form: str | Callable[[str], str]) -> str:
    """Return what is compared of a choice: of calls of tools, which and with what."""
    if choice.tool_calls:
        calls = [(call.name, _json(call.arguments) or call.arguments) for call in choice.tool_calls]
        return json.dumps(calls)
    if callable(form):
        return form(choice.text)
    return last_number(choice.text) if form == "last_number" else answer(choice.text)


def answer(text: str) -> str:
    """Return a text without what makes no other answer of it.

    JSON has its keys in order and its numbers in one form; a number is the same with separators
    and zeros at its end; all else is compared without case, space and the punctuation around it.
    """
    stripped = _unfenced(text.strip())
    if (canonical := _json(stripped)) is not None:
        return canonical
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", stripped).casefold())
    figure = number(plain.lstrip(_AROUND.replace(".", "")).rstrip(_AROUND))
    return figure or plain.strip(_AROUND) or plain.strip()


def last_number(text: str) -> str:
    """Return the last number in a text in one form; without one, as ``answer`` has it."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return (number(found[-1]) or found[-1]) if found else answer(text)


def number(text: str) -> str | None:
    """Return a number in one form: "1,000" and "1000.0" are "1000". None for what is none."""
    if len(text) > MAX_DIGITS or not _NUMBER.fullmatch(text):
        return None
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    return _plain(value)


def _plain(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > MAX_DIGITS:
        return str(value)
    written = format(value.normalize(), "f")
    return "0" if value == 0 else written


def _json(text: str) -> str | None:
    """Return an object or a list of JSON in one form; None for all else."""
    if not text.startswith(("{", "[")):
        return None
    try:
        value = json.loads(text, parse_float=Decimal, parse_int=_whole, parse_constant=Decimal)
        return _written(value)
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> Decimal | str:
    return Decimal(digits) if len(digits) <= MAX_DIGITS else digits


def _written(value: Any) -> str:  # noqa: ANN401 - whatever JSON has
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_written(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return _plain(value) if isinstance(value, Decimal) else json.dumps(value)


def _unfenced(text: str) -> str:
    """Take a text out of the fence of a code block, where it is nothing else."""
    lines = text.splitlines()
    is_fenced = len(lines) > 2 and lines[0].startswith("```") and lines[-1] == "```"  # noqa: PLR2004 - two are the fence
    return "\n".join(lines[1:-1]).strip() if is_fenced else text


def _place(group: Sequence[Vote]) -> tuple[bool, int, int]:
    """Return by what a group comes before another; one of empty answers comes last."""
    return not group[0].form, -len(group), -_quality(group)


def _quality(group: Sequence[Vote]) -> int:
    return sum(UNKNOWN_QUALITY if vote.quality is None else vote.quality for vote in group)


def _names(group: Sequence[Vote]) -> str:
    return ", ".join(vote.name for vote in group)
