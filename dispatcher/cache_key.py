"""What a kept reply is found by: all that it may depend on, and who would make it. Pure.

A request's fields are walked as they are declared, so that one that is added later counts by
itself; what does not count stands in ``IRRELEVANT`` with the reason, and a test holds the two
together. A value of a kind that is not known here has no key, and its reply is not kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any

import attrs

from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.release import VERSION
from llmdispatcher.models.request import Request

FORMAT = 1
"""Of keys and of what is kept; another one finds nothing of this."""

KEY_BYTES = 32
"""So long that no two requests share one by chance."""

_WHO = "who would serve is in the key by itself"
_HOW = "it decides how the reply is had, and not what is in it"

IRRELEVANT: Mapping[type, Mapping[str, str]] = {
    Request: {
        "vendor": _WHO,
        "model": _WHO,
        "allow_cloud": _WHO,
        "strategy": _WHO,
        "task": _WHO,
        "deadlines": _HOW,
        "priority": _HOW,
        "tags": _HOW,
        "max_cost_usd": "a kept reply costs nothing",
        "resume": _HOW,
        "streamed": _HOW,
        "cached": _HOW,
        "once": _HOW,
    },
    ResponseFormat: {"into": "its schema counts, and the class is made anew from the kept JSON"},
}
"""Fields that are not in the key, and why."""


def key(request: Request, maker: tuple[str, str, str]) -> bytes:
    """Return the key of a request to a model: its vendor, its name and its ``identity``.

    Raises TypeError for a value that cannot be told from another.
    """
    digest = blake2b(digest_size=KEY_BYTES)
    for part in _parts((FORMAT, VERSION, maker, request)):
        digest.update(part)
    return digest.digest()


def _parts(value: Any) -> Iterator[bytes]:  # noqa: ANN401 - whatever a request holds
    """Return a value as bytes, of which no two values share a sequence."""
    if attrs.has(type(value)):
        spared = IRRELEVANT.get(type(value), {})
        fields = [each.name for each in attrs.fields(type(value)) if each.name not in spared]
        yield from _said("o", type(value).__qualname__.encode(), len(fields))
        for name in fields:
            yield from _parts(name)
            yield from _parts(getattr(value, name))
    elif isinstance(value, Mapping):  # in its order, in which a model is told it
        yield from _said("m", b"", len(value))
        for name, each in value.items():
            yield from _parts(name)
            yield from _parts(each)
    elif isinstance(value, tuple | list):
        yield from _said("l", b"", len(value))
        for each in value:
            yield from _parts(each)
    else:
        yield from _plain(value)


def _plain(value: object) -> Iterator[bytes]:
    match value:
        case Enum():
            yield from _said("e", repr(value).encode())
        case None | bool() | int() | float() | Decimal():
            yield from _said(type(value).__name__, repr(value).encode())
        case str():
            yield from _said("s", value.encode(errors="surrogatepass"))
        case bytes():
            yield from _said("b", value)
        case _:
            raise TypeError(f"a {type(value).__name__} has no key")


def _said(kind: str, data: bytes, count: int = 0) -> Iterator[bytes]:
    yield struct.pack("<8sQQ", kind[:8].encode(), len(data), count)
    yield data
