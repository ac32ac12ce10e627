"""Reads arguments as Gemma 4 writes them: ``{city:<|"|>Rome<|"|>,days:3}``, and makes JSON of them.

Keys have no quotes and strings have a control token for one. Depth costs a list item, no recursion.
"""

from __future__ import annotations

from llmdispatcher.vendors.llamacpp.speech.arguments import Invalid, dumped, parsed
from llmdispatcher.vendors.llamacpp.speech.tape import CLOSING, OPENING, Marks, Put, Reading, Tape

QUOTE = '<|"|>'
_MARKS = Marks((QUOTE, *OPENING, *CLOSING, ":", ","))
_QUOTE = Marks((QUOTE,))


def read_quoted(tape: Tape, put: Put) -> Reading[bool]:
    """Read an object through its last brace; say whether that came."""
    depth = 0
    while True:
        plain: list[str] = []
        mark = yield from tape.until(_MARKS, plain.append)
        if text := "".join(plain).strip():
            put(text if mark != ":" and parsed(text) is not Invalid else dumped(text))
        if mark == QUOTE:
            put('"')
            whole = yield from tape.until(_QUOTE, lambda piece: put(dumped(piece)[1:-1]))
            if not whole:
                return False
            put('"')
            continue
        put(f"{mark} " if mark in {":", ","} else mark)
        if not mark:
            return False
        depth += (mark in OPENING) - (mark in CLOSING)
        if depth <= 0:
            return True
