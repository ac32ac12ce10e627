"""Text that is still arriving, and what can be read from it a step at a time.

A reader is a generator: it yields where the text ends for now and is resumed when there is more.
So one piece of code reads a reply that comes whole and one that comes by the character, with the
same result. Everything is read once: the work is proportional to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""Reads a T; yields where more text is needed first."""

Put = Callable[[str], None]

_SPACE = re.compile(r"\s*")


class Marks:
    """Strings to look for, all at once; of several at one place the longest counts."""

    def __init__(self, marks: Iterable[str]) -> None:
        self.all = tuple(sorted({mark for mark in marks if mark}, key=len, reverse=True))
        self._longest = max(map(len, self.all), default=0)
        firsts = "".join(re.escape(first) for first in sorted({mark[0] for mark in self.all}))
        self._first = re.compile(f"[{firsts}]" if firsts else r"(?!)")

    def __contains__(self, mark: str) -> bool:
        """Whether it is one of them."""
        return mark in self.all

    def find(self, text: str, at: int, *, ended: bool) -> tuple[int, str]:
        """Say up to where there is no mark, and which one stands there.

        "" is none: what stands there may be the beginning of one, unless the text has ended.
        """
        for found in self._first.finditer(text, at):
            start = found.start()
            if not ended and len(text) - start < self._longest:
                tail = text[start:]
                if any(len(mark) > len(tail) and mark.startswith(tail) for mark in self.all):
                    return start, ""
            for mark in self.all:
                if text.startswith(mark, start):
                    return start, mark
        return len(text), ""


class Tape:
    """The text that has come and is not read yet; ``ended`` says that no more will come."""

    def __init__(self) -> None:
        self.ended = False
        self._text = ""
        self._at = 0
        self._record: list[str] | None = None

    def feed(self, text: str) -> None:
        """Take more text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def record(self, before: str = "") -> None:
        """Remember from here on what is read, behind ``before``."""
        self._record = [before]

    @property
    def recording(self) -> bool:
        """Whether what is read is remembered."""
        return self._record is not None

    def recorded(self) -> str:
        """Return what was read since ``record``, and remember no more."""
        text = "".join(self._record or ())
        self._record = None
        return text

    def take(self, length: int) -> str:
        """Read so many characters, which are known to be there."""
        text = self._text[self._at : self._at + length]
        self._at += length
        if self._record is not None:
            self._record.append(text)
        return text

    def back(self, mark: str) -> None:
        """Unread a mark that was just read, if any was."""
        self._at -= len(mark)
        if mark and self._record is not None:
            self._record.pop()

    def peek(self, length: int = 1) -> Reading[str]:
        """Return what comes next, and no less than ``length`` unless the text ends before."""
        while len(self._text) - self._at < length and not self.ended:
            yield
        return self._text[self._at : self._at + length]

    def next_is(self, mark: str) -> Reading[bool]:
        """Read a mark if it comes next. Waits for no more than it takes to tell."""
        while not self._text.startswith(mark, self._at):
            there = self._text[self._at : self._at + len(mark)]
            if self.ended or not mark.startswith(there):
                return False
            yield
        self.take(len(mark))
        return True

    def space(self) -> Reading[str]:
        """Read white space."""
        found = []
        while (yield from self.peek()):
            match = _SPACE.match(self._text, self._at)
            if not match or not match.group():
                break
            found.append(self.take(len(match.group())))
        return "".join(found)

    def some(self, marks: Marks) -> Reading[tuple[str, str]]:
        """Read what is certain to be no mark, and the mark behind it if one has come.

        Both are empty at the end of the text.
        """
        while True:
            start, mark = marks.find(self._text, self._at, ended=self.ended)
            if start > self._at or mark or self.ended:
                piece = self.take(start - self._at)
                return piece, self.take(len(mark)) if mark else ""
            yield

    def until(self, marks: Marks, put: Put) -> Reading[str]:
        """Read up to a mark and through it; return it, or "" where the text ends before."""
        while True:
            piece, mark = yield from self.some(marks)
            if piece:
                put(piece)
            if mark or not piece:
                return mark


STRING = Marks(('"', "\\"))
OPENING, CLOSING = "{[", "}]"


def read_string(tape: Tape, put: Put) -> Reading[bool]:
    """Read a JSON string behind its first quote, through the last; say whether that came."""
    while True:
        mark = yield from tape.until(STRING, put)
        if mark:
            put(mark)
        if mark != "\\":
            return bool(mark)
        if not (yield from tape.peek()):
            return False
        put(tape.take(1))


def read_nested(tape: Tape, put: Put, ends: Iterable[str]) -> Reading[bool]:
    """Read a JSON object or array; say whether it was whole.

    It is read generously: only quotes and brackets count. One of ``ends`` outside of any string
    cuts it, and is not read.
    """
    ends = tuple(ends)
    marks = Marks(('"', *OPENING, *CLOSING, *ends))
    depth = 0
    while True:
        mark = yield from tape.until(marks, put)
        if not mark or mark in ends:
            tape.back(mark)
            return False
        put(mark)
        if mark == '"' and not (yield from read_string(tape, put)):
            return False
        depth += (mark in OPENING) - (mark in CLOSING)
        if mark in CLOSING and depth <= 0:
            return True


def read_value(tape: Tape, put: Put, ends: Iterable[str]) -> Reading[bool]:
    """Read any JSON value; see ``read_nested``."""
    first = yield from tape.peek()
    if first == '"':
        put(tape.take(1))
        return (yield from read_string(tape, put))
    if first and first in OPENING:
        return (yield from read_nested(tape, put, ends))
    mark = yield from tape.until(Marks((",", *CLOSING, "\n", *ends)), put)
    tape.back(mark)
    return bool(mark)
