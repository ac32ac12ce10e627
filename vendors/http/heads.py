"""Heads of requests: what is the same in all of them is checked once.

The library checks every header of every request. Those of a vendor hardly ever change, so they are
given to it as its parser keeps headers that it has checked; only the length of a body is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import h11

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

MAX_KEPT = 256
"""Sets of headers that are kept ready: one for each endpoint that wants some of its own."""

_LENGTH = b"Content-Length"


class Heads:
    """Of the requests to one vendor."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[bytes, bytes], ...], list[tuple[bytes, bytes, bytes]]] = {}

    def of(
        self, headers: Headers, size: int | None, own: tuple[bytes, bytes] | None = None
    ) -> Headers:
        """Return headers as they are sent before a body of so many bytes, or before none.

        ``own`` is one that no other request has, and so is not kept; whoever makes it checks it.
        """
        key = tuple(headers)
        known = self._kept.get(key)
        if known is None:
            try:
                known = _checked(headers)
            except h11.LocalProtocolError:  # the library says so, once they are to be sent
                return [*headers, *_of_one(size, own)]
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = known
        if size is not None and own is None:
            return _Headers([*known, (_LENGTH, _LENGTH.lower(), b"%d" % size)])
        more = [(name, name.lower(), value) for name, value in _of_one(size, own)]
        return _Headers([*known, *more])


def _of_one(size: int | None, own: tuple[bytes, bytes] | None) -> list[tuple[bytes, bytes]]:
    """Return the headers that are of one request alone."""
    told = [] if own is None else [own]
    return told if size is None else [*told, (_LENGTH, b"%d" % size)]


def _checked(headers: Headers) -> list[tuple[bytes, bytes, bytes]]:
    """Return headers with their names in lower case beside them. Raises LocalProtocolError."""
    checked = h11.Request(method=b"POST", target=b"/", headers=[*headers]).headers
    names = [name for name, _ in checked]
    pairs = zip(names, checked.raw_items(), strict=True)
    return [(given, name, value) for name, (given, value) in pairs]


_Headers = type(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"host")]).headers)
"""The class has no public name."""
