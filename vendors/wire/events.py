"""Cuts the bytes of a stream into messages, wherever the bytes were cut. Pure.

``Sse`` reads server-sent events (WHATWG HTML, section 9.2) as vendors send them: with and without
names, with comments, with any of the three ends of a line, with a byte order mark. ``Lines`` reads
one JSON text a line. Both refuse a message without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs

from llmdispatcher.models.errors import BadReply

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one message: a whole reply, or a picture that a model drew, fits many times."""


LINE_BYTES = 64
"""What a line of a message costs besides its bytes, so that many short ones stay bounded too."""

_BOM = b"\xef\xbb\xbf"
_OBJECT = b"data: {"
"""How almost every event begins."""
_UNKNOWN = re.compile(rb"[a-z][a-z0-9_-]{0,63}:")
"""A field that nobody knows, which the standard has ignored."""


@attrs.frozen
class Event:
    """One message of a stream. A ``comment`` has no data: it is a sign of life."""

    name: str
    data: bytes
    is_comment: bool = False


class Cutter(Protocol):
    """Cuts a stream into events."""

    def only(self, chunk: bytes) -> bytes | None:
        """Take a chunk that is one event, without a name, and return its data; else take nothing.

        Almost every chunk of almost every stream is. None is no verdict: ``feed`` reads it then.
        """

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Yield the events that are whole. Raises BadReply for one without end."""

    def end(self) -> Iterator[Event]:
        """Yield what the end of the stream completes."""


class _Rows:
    """Cuts bytes into lines, each looked at once."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._looked = 0
        """How much of what was begun is known to hold no end of a line."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._begun += chunk
        start = 0
        try:
            while (end := self._begun.find(b"\n", self._looked)) >= 0:
                line = bytes(self._begun[start:end])
                start = self._looked = end + 1
                yield line
        finally:
            del self._begun[:start]
            self._looked = len(self._begun)
        if self._looked > MAX_MESSAGE_BYTES:
            raise BadReply(f"the vendor sent a line of more than {MAX_MESSAGE_BYTES} bytes")

    @property
    def has_begun(self) -> bool:
        """Whether a line is kept that is not whole."""
        return bool(self._begun)

    def rest(self) -> bytes:
        rest = bytes(self._begun)
        self._begun.clear()
        self._looked = 0
        return rest


class Sse:
    """Server-sent events.

    An end of the stream ends the last event, which the standard would drop: vendors forget the
    empty line behind it. What has no field's name is kept as it is, as the data of an event: errors
    come that way, behind proxies that know nothing of streams.
    """

    def __init__(self) -> None:
        self._rows = _Rows()
        self._name = ""
        self._data: list[bytes] = []
        self._bare: list[bytes] = []
        self._size = 0
        self._has_begun = False
        self._ended_in_cr = False
        self._is_between = False
        """Nothing of an event is kept."""

    def only(self, chunk: bytes) -> bytes | None:
        """See ``Cutter.only``."""
        if not self._is_between or not chunk.startswith(_OBJECT) or not chunk.endswith(b"}\n\n"):
            return None
        is_one = chunk.find(b"\n") == len(chunk) - 2 and b"\r" not in chunk
        return chunk[6:-2] if is_one else None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that are whole."""
        self._is_between = False
        if chunk and (self._ended_in_cr or b"\r" in chunk):
            chunk = self._unified(chunk)
        for line in self._rows.feed(chunk):
            yield from self._take(line)
        is_empty = not (self._name or self._data or self._bare or self._rows.has_begun)
        self._is_between = is_empty and self._has_begun and not self._ended_in_cr

    def _unified(self, chunk: bytes) -> bytes:
        """Make one of the three ends of a line; CR and LF may have come apart."""
        if self._ended_in_cr:
            chunk = chunk.removeprefix(b"\n")
        self._ended_in_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def end(self) -> Iterator[Event]:
        """Yield the last event, where nothing ended it."""
        if rest := self._rows.rest():
            yield from self._take(rest)
        yield from self._flush()

    def _take(self, line: bytes) -> Iterator[Event]:
        if not self._has_begun:
            self._has_begun, line = True, line.removeprefix(_BOM)
        if not line:
            yield from self._flush()
        elif line.startswith(b":"):
            yield Event("", b"", is_comment=True)
        elif line.startswith(b"data:"):
            self._keep(self._data, line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            self._name = line[6:].strip().decode(errors="replace")
        elif line.startswith(b"error:"):  # llama-server, of old
            self._keep(self._data, line[6:].removeprefix(b" "))
        elif not _UNKNOWN.match(line) and line not in {b"data", b"event", b"id", b"retry"}:
            self._keep(self._bare, line)

    def _keep(self, where: list[bytes], line: bytes) -> None:
        where.append(line)
        self._size += len(line) + LINE_BYTES
        if self._size > MAX_MESSAGE_BYTES:
            raise BadReply(f"the vendor sent an event of more than {MAX_MESSAGE_BYTES} bytes")

    def _flush(self) -> Iterator[Event]:
        name, data, bare = self._name, b"\n".join(self._data), b"\n".join(self._bare)
        self._name, self._data, self._bare, self._size = "", [], [], 0
        if data.strip():
            yield Event(name, data)
        if bare.strip():
            yield Event("", bare)


class Lines:
    """One JSON text a line (NDJSON)."""

    def __init__(self) -> None:
        self._rows = _Rows()

    def only(self, chunk: bytes) -> bytes | None:
        """See ``Cutter.only``."""
        is_one = chunk.startswith(b"{") and chunk.find(b"\n") == len(chunk) - 1
        return chunk[:-1] if is_one and not self._rows.has_begun else None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the lines that are whole and not empty."""
        for row in self._rows.feed(chunk):
            if line := row.strip():
                yield Event("", line)

    def end(self) -> Iterator[Event]:
        """Yield the last line, where nothing ended it."""
        if line := self._rows.rest().strip():
            yield Event("", line)
