"""The two ends of the line between a program and its worker: bytes in frames.

A frame comes whole or not yet: a worker that stands still in the middle of one must not make its
parent stand still too. Each begins with its length. Windows has the connections of
``multiprocessing`` instead, where a frame is one message of a pipe; never run there.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time
from typing import Protocol

from llmdispatcher.vendors.llamacpp.child import descriptors

_LENGTH = struct.Struct("!i")

READ_BYTES = 256 * 1024
"""Read at once: about what a socket holds."""


class TooLong(ValueError):
    """A frame is longer than any message can be."""


class End(Protocol):
    """One end of a line. Sending and receiving are each done by one thread at a time."""

    def send(self, data: bytes) -> None:
        """Write a frame; waits while the line is full. Raises OSError when the peer is gone."""

    def receive(self, wait_s: float | None, most_bytes: int) -> bytes | None:
        """Return the next frame; None if it is not there whole within so many seconds.

        Raises EOFError at the end, OSError, and TooLong.
        """

    def shut(self) -> None:
        """Let nothing through any more, either way; whoever sends or receives is released."""

    def close(self) -> None:
        """Give the descriptor back. Nobody may be sending or receiving."""


class Theirs(Protocol):
    """The end that a worker is given, as long as this process holds it too."""

    def fileno(self) -> int:
        """Return the descriptor, or the handle on Windows."""

    def close(self) -> None:
        """Let go of it."""


if sys.platform == "win32":
    from multiprocessing.connection import Pipe, PipeConnection

    def pair() -> tuple[End, Theirs]:
        """Make a line: our end, and the worker's. Raises OSError."""
        ours, theirs = Pipe()
        return PipeEnd(ours), theirs

    def inherited(descriptor: int) -> End:
        """Return the end that a worker was given."""
        return PipeEnd(PipeConnection(descriptor))

    class PipeEnd:
        """An end of a pipe. See ``End``."""

        def __init__(self, made: PipeConnection) -> None:
            self._pipe = made

        def send(self, data: bytes) -> None:
            """See ``End.send``."""
            self._pipe.send_bytes(data)

        def receive(self, wait_s: float | None, most_bytes: int) -> bytes | None:
            """See ``End.receive``."""
            if wait_s is not None and not self._pipe.poll(wait_s):
                return None
            try:
                return self._pipe.recv_bytes(most_bytes)
            except OSError as error:
                if error.errno is None:  # it is not the system's
                    raise TooLong(str(error)) from None
                raise

        def shut(self) -> None:
            """Nothing does that to a pipe; a worker that is dead has closed its end."""

        def close(self) -> None:
            """See ``End.close``."""
            self._pipe.close()

else:

    def pair() -> tuple[End, Theirs]:
        """Make a line: our end, and the worker's. Raises OSError."""
        one, other = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.callback(one.close)
            undo.callback(other.close)
            ours = socket.socket(fileno=descriptors.clear(one.fileno()))
            one.detach()
            undo.callback(ours.close)
            theirs = socket.socket(fileno=descriptors.clear(other.fileno()))
            other.detach()
            undo.pop_all()
        return SocketEnd(ours), theirs

    def inherited(descriptor: int) -> End:
        """Return the end that a worker was given."""
        return SocketEnd(socket.socket(fileno=descriptor))

    class SocketEnd:
        """One of a pair of sockets. See ``End``."""

        def __init__(self, made: socket.socket) -> None:
            made.settimeout(None)  # whatever the program's default for sockets may be
            self._socket = made
            self._ready = select.poll()
            self._ready.register(made, select.POLLIN)
            self._arrived = bytearray()

        def send(self, data: bytes) -> None:
            """See ``End.send``."""
            self._socket.sendall(_LENGTH.pack(len(data)) + data)

        def receive(self, wait_s: float | None, most_bytes: int) -> bytes | None:
            """See ``End.receive``."""
            until_s = None if wait_s is None else time.monotonic() + wait_s
            while (frame := self._frame(most_bytes)) is None:
                left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
                if not self._ready.poll(None if left_s is None else left_s * 1000):
                    return None
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise EOFError
                self._arrived += data
            return frame

        def _frame(self, most_bytes: int) -> bytes | None:
            """Take the first frame of what has arrived, if all of it has."""
            if len(self._arrived) < _LENGTH.size:
                return None
            (length,) = _LENGTH.unpack_from(self._arrived)
            if not 0 <= length <= most_bytes:
                raise TooLong(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._arrived) < end:
                return None
            with memoryview(self._arrived) as view:
                frame = bytes(view[_LENGTH.size : end])
            del self._arrived[:end]
            return frame

        def shut(self) -> None:
            """See ``End.shut``."""
            with contextlib.suppress(OSError):  # the peer has, or it is closed
                self._socket.shutdown(socket.SHUT_RDWR)

        def close(self) -> None:
            """See ``End.close``."""
            self._socket.close()
