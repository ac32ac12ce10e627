"""Reads the arguments of a call that is written as in Python, and passes them on as JSON.

What is read is the text between the parentheses: ``city="Rome", days=[1, 2], exact=True``. It is
never executed, nor is its nesting followed by recursion.
"""

from __future__ import annotations

import re

from llmdispatcher.vendors.llamacpp.speech.arguments import Invalid, dumped, parsed
from llmdispatcher.vendors.llamacpp.speech.tape import Marks, Put, Reading, Tape

_VALUE = Marks(("'", '"', *"()[]{},"))
_KEY = Marks(("=", ",", ")", "'", '"', *"([{"))
_QUOTES = {quote: Marks((quote, "\\")) for quote in "'\""}
_BRACKETS = {"(": "[", ")": "]"}
"""Tuples are lists in JSON."""
_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_arguments(tape: Tape, put: Put) -> Reading[bool]:
    """Read arguments up to the closing parenthesis; say whether it came.

    An argument without a name gets its place, counted from 0, for one.
    """
    before, place = "{", 0
    while True:
        yield from tape.space()
        key: list[str] = []
        mark = yield from tape.until(_KEY, key.append)
        name = "".join(key).strip()
        if mark == ")" and not name:
            put("{}" if before == "{" else "}")
            return True
        if mark != "=":
            tape.back(mark)
            name = str(place)
        value, end = yield from _read_value(tape, "" if mark == "=" else "".join(key))
        if value or mark == "=":
            put(f"{before}{dumped(name)}: {value if end else value.rstrip()}")
            before, place = ", ", place + 1
        if end == ")":
            put("}" if before == ", " else "{}")
        if end != ",":
            return bool(end)


def _read_value(tape: Tape, begun: str) -> Reading[tuple[str, str]]:
    """Read a value; return it as JSON, and the comma or parenthesis that ended it."""
    raw, found, depth = [begun], [_word(begun)], 0
    while True:
        plain: list[str] = []
        mark = yield from tape.until(_VALUE, plain.append)
        raw += plain
        found.append(_word("".join(plain)))
        if not mark or (depth == 0 and mark in ",)"):
            return _checked("".join(found), "".join(raw), whole=bool(mark)), mark
        raw.append(mark)
        if mark in _QUOTES:
            text, whole = yield from _read_quoted(tape, mark)
            raw += (text, mark if whole else "")
            found.append(dumped(text) if whole else dumped(text)[:-1])
        else:
            depth += (mark in "([{") - (mark in ")]}")
            found.append(_BRACKETS.get(mark, mark))


def _checked(text: str, raw: str, *, whole: bool) -> str:
    """Return JSON text; what is none is a string."""
    if not whole or parsed(text) is not Invalid:
        return text.strip()
    return dumped(raw.strip()) if raw.strip() else ""


def _word(text: str) -> str:
    return re.sub(r"\b(True|False|None)\b", lambda found: _WORDS[found[1]], text)


def _read_quoted(tape: Tape, quote: str) -> Reading[tuple[str, bool]]:
    """Read a string behind its first quote; return what it says, and whether it was closed."""
    found: list[str] = []
    while True:
        mark = yield from tape.until(_QUOTES[quote], found.append)
        if mark != "\\":
            return _unescaped("".join(found)), bool(mark)
        if not (yield from tape.peek()):
            return _unescaped("".join(found)), False
        found.append("\\" + tape.take(1))


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


def _unescaped(text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        if digits := found[1] or found[2]:
            return chr(int(digits, 16))
        return _ESCAPES.get(found[3], found[3])

    plain = _ESCAPE.sub(meant, text)
    if not any("\ud800" <= char <= "\udfff" for char in plain):
        return plain
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
