r"""Patterns of JSON schemas (ECMA-262), written again so that all readers of them agree.

Dialects differ in what ``\d``, ``\w``, ``\s``, ``.`` and ``$`` take. What is written here takes
no more than any of them does, so a reply that fits it fits the pattern for every validator. What a
finite automaton cannot check, or what the dialects read differently, is refused. Pure.
"""

from __future__ import annotations

import re

MAX_PATTERN_CHARS = 1_000
"""Far beyond patterns that people write."""

MAX_PATTERN_DEPTH = 30
"""Groups inside groups; each is a step of recursion here and in the engine."""

MAX_TIMES = 1_000
"""Of one repetition. Nested ones multiply, which the engine's own limits catch."""

_ANY = "(?s:.*)"
_CLASSES = {
    "d": "0-9",
    "w": "A-Za-z0-9_",
    "s": r"\t\n\x{b}\x{c}\r\x{20}",
    "D": r"\P{Nd}",
    "W": r"[^\p{Alphabetic}\p{M}\p{N}\p{Pc}]",
    "S": r"[^\p{White_Space}\x{1c}-\x{1f}\x{feff}]",
}
"""Sets that are within the set of that name in ECMA-262, in Python and in Rust. The engine itself
would read ``\\w`` as ASCII, so it is spelt out."""

_OTHERS = {"d": r"\p{Nd}", "w": _CLASSES["W"][2:-1], "s": _CLASSES["S"][2:-1]}
"""Sets that hold the set of that name in all of them: for what must be none of these."""

_DOT = r"[^\n\r\x{2028}\x{2029}]"
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_TIMES = re.compile(r"\{(\d{1,9})(?:(,)(\d{0,9}))?\}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?)")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})")
_SURROGATES = range(0xD800, 0xE000)


class BadPattern(Exception):
    """A pattern that is refused; the message says why, and at which character."""


def rewritten(pattern: str) -> str:
    """Return the pattern as the engine is to read it. Raises BadPattern."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise BadPattern(f"it has {len(pattern)} characters, and {MAX_PATTERN_CHARS} are the most")
    reader = _Reader(pattern)
    branches = reader.branches(0)
    if reader.at < len(pattern):
        raise reader.refusal("a ) that closes nothing")
    return f"^(?:{'|'.join(branches)})$"


class _Reader:
    """Reads a pattern once, from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def refusal(self, what: str) -> BadPattern:
        """Say what was found where."""
        return BadPattern(f"{what}, at character {self.at}")

    def ahead(self, count: int = 1) -> str:
        """Return what comes next; fewer characters at the end."""
        return self.pattern[self.at : self.at + count]

    def branches(self, depth: int) -> list[str]:
        """Read alternatives up to a closing bracket or the end."""
        found = [self._branch(depth)]
        while self.ahead() == "|":
            self.at += 1
            found.append(self._branch(depth))
        return found

    def _branch(self, depth: int) -> str:
        """Read one alternative; outside of groups, it may be anchored at both ends."""
        parts: list[str] = []
        starts = ends = False
        if not depth and self.ahead() == "^":
            self.at += 1
            starts = True
        while (char := self.ahead()) and char not in "|)":
            if not depth and char == "$" and self.pattern[self.at + 1 : self.at + 2] in {"", "|"}:
                self.at += 1
                ends = True
                break
            parts.append(self._repeated(self._item(char, depth)))
        body = "".join(parts)
        return body if depth else f"{'' if starts else _ANY}{body}{'' if ends else _ANY}"

    def _item(self, char: str, depth: int) -> str:
        if char in "^$":
            raise self.refusal(f"a {char} that is not at an end of the pattern")
        if char in "*+?":
            raise self.refusal(f"a {char} that repeats nothing")
        if char == "(":
            return self._group(depth)
        self.at += 1
        if char == "[":
            return self._set()
        if char == ".":
            return _DOT
        if char == "\\":
            kind = self.ahead()
            if kind and kind in _CLASSES:
                self.at += 1
                return f"[{_CLASSES[kind]}]"
            return written(self._escaped())
        return written(self._code(char))

    def _group(self, depth: int) -> str:
        opened = _GROUP.match(self.pattern, self.at)
        if opened is None:
            raise self.refusal(f"{self.ahead(3)}, which is more than a group")
        if depth >= MAX_PATTERN_DEPTH:
            raise self.refusal(f"more than {MAX_PATTERN_DEPTH} groups inside each other")
        self.at = opened.end()
        inner = "|".join(self.branches(depth + 1))
        if self.ahead() != ")":
            raise self.refusal("a group that is not closed")
        self.at += 1
        return f"(?:{inner})"

    def _repeated(self, item: str) -> str:
        """Read what follows an item; a lazy repetition matches the same texts."""
        char = self.ahead()
        if char and char in "*+?":
            self.at += 1
            times = char
        elif char == "{" and (found := _TIMES.match(self.pattern, self.at)):
            low = int(found[1])
            high = int(found[3]) if found[3] else low
            if max(low, high) > MAX_TIMES or high < low:
                raise self.refusal(f"{found[0]}: counts go from low to high, up to {MAX_TIMES}")
            self.at = found.end()
            times = f"{{{low}{',' if found[2] else ''}{found[3] or ''}}}"
        else:
            return item
        if self.ahead() == "?":
            self.at += 1
        elif self.ahead() and self.ahead() in "*+":
            raise self.refusal("a repetition of a repetition")
        return f"(?:{item}){times}"

    def _escaped(self) -> int:
        """Read what follows a backslash, as one character."""
        if found := _HEX.match(self.pattern, self.at):
            self.at = found.end()
            return self._paired(int(found[1] or found[2], 16))
        char = self.ahead()
        digit = self.pattern[self.at + 1 : self.at + 2].isdigit()
        if char and char in _CONTROLS and not (char == "0" and digit):
            self.at += 1
            return _CONTROLS[char]
        if not char or char.isalnum() or not char.isascii():
            raise self.refusal(f"\\{char}, which not all dialects read alike")
        self.at += 1
        return ord(char)

    def _code(self, char: str) -> int:
        if ord(char) in _SURROGATES:
            raise self.refusal("half of a surrogate pair")
        return ord(char)

    def _paired(self, code: int) -> int:
        """Read the second half of a pair of surrogates, if this is the first."""
        if code not in _SURROGATES:
            return code
        second = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})").match(self.pattern, self.at)
        if code >= 0xDC00 or second is None:  # noqa: PLR2004 - where second halves begin
            raise self.refusal("half of a surrogate pair")
        self.at = second.end()
        return 0x10000 + ((code - 0xD800) << 10) + (int(second[1], 16) - 0xDC00)

    def _set(self) -> str:
        """Read a set of characters, whose bracket is open."""
        negated = self.ahead() == "^"
        self.at += negated
        parts: list[str] = []
        while self.ahead() != "]":
            low = self._member(negated=negated)
            if isinstance(low, str):
                parts.append(low)
                continue
            high = low
            if self.ahead() == "-" and self.ahead(2) != "-]":
                self.at += 1
                end = self._member(negated=negated)
                if isinstance(end, str) or end < low:
                    raise self.refusal("a range that does not go from low to high")
                high = end
            parts.append(written(low) if low == high else f"{written(low)}-{written(high)}")
        self.at += 1
        if not parts:
            raise self.refusal("a set of no characters")
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _member(self, *, negated: bool) -> int | str:
        char = self.ahead()
        if not char:
            raise self.refusal("a set that is not closed")
        self.at += 1
        if char != "\\":
            return self._code(char)
        kind = self.ahead()
        if kind == "b":
            raise self.refusal("\\b, which not all dialects read alike")
        if kind and kind in _CLASSES:
            if negated and kind not in _OTHERS:
                raise self.refusal(f"\\{kind} in a negated set, which not all dialects read alike")
            self.at += 1
            return _OTHERS[kind] if negated else _CLASSES[kind]
        return self._escaped()


def written(code: int) -> str:
    """Write a character so that it stands for itself, also in a set."""
    return f"\\x{{{code:x}}}"
