"""Bodies of answers: all that has come of one is handed over at once.

The library hands over one chunk of HTTP at a time, and a vendor that writes fast sends many of them
in one packet. Asking for each costs more than reading what is in it; so the parser of the
connection, which has them all by then, is asked here, as the library would.
"""

from __future__ import annotations

from typing import Any, Protocol

import h11

from llmdispatcher.vendors.http.sockets import NoHttp, Received, parser_of

READ_BYTES = 64 * 2**10
"""Asked of a socket at once, as by the library."""


class _Socket(Protocol):
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...


class _AsyncSocket(Protocol):
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...  # noqa: ASYNC109 - as the library has it


class _Rest:
    """What is left of an answer, of which the parser of its connection has a part."""

    def __init__(self, parser: h11.Connection) -> None:
        self._parser = parser
        self._broken: h11.RemoteProtocolError | None = None
        """What came behind that which was handed over last."""
        self.is_over = False
        """The end has come; there is nothing to wait for."""

    def ready(self) -> bytes | None:
        """Return all that has come; nothing at the end, and None where one has to wait.

        Raises what the library would of an answer that is no HTTP, behind what came before it.
        """
        if self._broken is not None:
            raise NoHttp(str(self._broken))
        if self.is_over:
            return b""
        ask, parts = self._parser.next_event, []
        try:
            while isinstance(event := ask(), h11.Data):
                parts.append(event.data)
        except h11.RemoteProtocolError as error:
            if not parts:
                raise NoHttp(str(error)) from error
            self._broken = error
        else:
            self.is_over = event is not h11.NEED_DATA
        if not parts:
            return b"" if self.is_over else None
        return b"".join(parts)


class Body(_Rest):
    """Of an answer that a thread reads."""

    def __init__(self, parser: h11.Connection, source: _Socket) -> None:
        super().__init__(parser)
        self._socket = source

    def read(self) -> bytes:
        """Return what comes next, waiting for it; nothing at the end."""
        while (found := self.ready()) is None:
            self._parser.receive_data(self._socket.read(READ_BYTES))
        return found


class AsyncBody(_Rest):
    """Of an answer that is read in an event loop."""

    def __init__(self, parser: h11.Connection, source: _AsyncSocket) -> None:
        super().__init__(parser)
        self._socket = source

    async def read(self) -> bytes:
        """See ``Body.read``."""
        while (found := self.ready()) is None:
            self._parser.receive_data(await self._socket.read(READ_BYTES))
        return found


def body(received: Received) -> Body | None:
    """Return the body of an answer; None where only the library can read it."""
    found = _found(received)
    return None if found is None else Body(*found)


def async_body(received: Received) -> AsyncBody | None:
    """Do the same for one of an event loop."""
    found = _found(received)
    return None if found is None else AsyncBody(*found)


def _found(received: Received) -> tuple[h11.Connection, Any] | None:
    parser, source = parser_of(received), received.extensions.get("network_stream")
    return (parser, source) if isinstance(parser, h11.Connection) and source is not None else None
