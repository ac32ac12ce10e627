"""Reads a stranger's JSON: what is missing is empty, what has another type is no reply."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from llmdispatcher.models.errors import BadReply

SHOWN_CHARS = 200
"""How much of what could not be read an error shows."""

_BOM = "\ufeff"

MAX_COUNT = 2**63 - 1
"""Of tokens; as ``Usage`` takes."""


def parsed(data: bytes | str) -> Any:  # noqa: ANN401 - a stranger's JSON
    """Parse JSON. Raises BadReply."""
    try:
        # decoded here: the parser would guess the encoding of bytes first
        return json.loads(data if isinstance(data, str) else data.decode().removeprefix(_BOM))
    except (ValueError, RecursionError):  # not UTF-8 is a ValueError too
        pass  # and not the context of what is raised: it has the whole text
    raise BadReply(f"the vendor sent what is no JSON: {shown(data)}")


def words(value: object, what: str = "a text") -> str:
    """Return a text that may be missing, as UTF-8 can hold it. Raises BadReply for what is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReply(f"the vendor sent {type(value).__name__} where {what} belongs")
    return value if value.isascii() else _sound(value)


def _sound(text: str) -> str:
    """Join pairs of surrogates, and replace lone ones: half of a character is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def fields(value: object) -> Mapping[str, Any]:
    """Return an object; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """Return a list; an empty one for what is none."""
    return value if isinstance(value, list) else []


def tally(value: object) -> int:
    """Return a number of tokens; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return 0
    return int(min(value, MAX_COUNT))


def known(value: object) -> int | None:
    """Return a positive whole number, such as the size of a context; None for what is none."""
    number = tally(value)
    return number if 0 < number < 2**40 else None


def shown(data: object) -> str:
    """Return the beginning of what could not be read, as an error shows it."""
    if isinstance(data, bytes | bytearray):
        data = bytes(data[:SHOWN_CHARS]).decode(errors="replace")
    text = data if isinstance(data, str) else _SHORT.repr(data)
    return repr(text[:SHOWN_CHARS])


_SHORT = reprlib.Repr()  # of a stranger's JSON, which may be deep and long
_SHORT.maxstring = _SHORT.maxother = SHOWN_CHARS
_SHORT.maxdict = _SHORT.maxlist = 16
