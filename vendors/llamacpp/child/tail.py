"""The last lines that a child process wrote: a bounded ring, and the thread that fills it.

A child that writes to a pipe nobody reads stops when the pipe is full, so everything is read as it
comes, and all but the last is forgotten. What is kept may be shown to a person: bytes that are not
text and control characters, which a terminal would obey, are replaced.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

from llmdispatcher.models.errors import OutOfMemory

MAX_LINES = 200
"""A load by llama-server prints about 150; what ends a process is in the last few."""

MAX_CHARS = 64 * 1024
"""Of all lines kept, so that long ones cannot fill memory."""

MAX_LINE_BYTES = 4096
"""The rest of a longer line is dropped: it is a prompt or a template that was printed whole."""

_READ_BYTES = 64 * 1024
"""What a pipe holds on Linux."""

_DRAIN_BYTES = 2**20
"""Read at most after the child's end: sixteen full pipes. Its own children may go on writing."""

_JOIN_S = 1.0 if sys.platform == "win32" else 10.0
"""How long the last bytes of a pipe may take: on Windows reading it cannot be interrupted, and a
child of the child may hold it; elsewhere only a machine that stands still takes long."""

_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\ufffd")
"""All but the tab."""


class Tail:
    """The last lines. Safe for threads."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._chars = 0
        self._begun = bytearray()
        self._is_cut = False
        self._listeners: list[Callable[[str], None]] = []
        self._keeping = threading.Lock()
        self._telling = threading.Lock()  # so that a listener hears every line once, in order

    def feed(self, data: bytes) -> None:
        """Take what was written; whole lines are kept and told to the listeners."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._grow(piece)
            self._end_line()
        self._grow(rest)

    def end(self) -> None:
        """Take what was begun as a line: no more will come."""
        if self._begun:
            self._end_line()

    def listen(self, callback: Callable[[str], None]) -> None:
        """Call with every line: first with those that are kept, then with new ones as they come.

        It is called in the reading thread, and must neither wait nor raise.
        """
        with self._telling:
            with self._keeping:
                known = list(self._lines)
            for line in known:
                callback(line)
            self._listeners.append(callback)

    def text(self) -> str:
        """Return the lines that are kept."""
        with self._keeping:
            return "\n".join(self._lines)

    def _grow(self, piece: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._begun)
        self._is_cut = self._is_cut or len(piece) > room
        self._begun += piece[:room]

    def _end_line(self) -> None:
        # of a bar that is drawn over and over, what a terminal would show at last
        shown = bytes(self._begun).rstrip(b"\r").rpartition(b"\r")[2]
        line = shown.decode(errors="replace").translate(_CONTROLS) + "…" * self._is_cut
        self._begun.clear()
        self._is_cut = False
        with self._telling:
            self._keep(line)
            for callback in self._listeners:
                callback(line)

    def _keep(self, line: str) -> None:
        with self._keeping:
            self._lines.append(line)
            self._chars += len(line)
            while len(self._lines) > MAX_LINES or self._chars > MAX_CHARS:
                self._chars -= len(self._lines.popleft())


class Reader:
    """Reads a pipe into a tail, in a thread, until its end or until told that the child is gone."""

    def __init__(self, pipe: IO[bytes], tail: Tail) -> None:
        """Take the pipe over. Raises OutOfMemory where no thread can be started."""
        self.ended = threading.Event()
        """Set when all is read and the pipe is closed."""
        self._pipe, self._tail = pipe, tail
        self._waking = threading.Lock()
        self._woken, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="llama-child-log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            for descriptor in (self._woken, self._waker):
                os.close(descriptor)
            pipe.close()
            raise OutOfMemory(
                f"no thread could be started to read a child's log: {error}"
            ) from None

    def finish(self) -> None:
        """The child has ended: read what it left in the pipe, and end. Idempotent."""
        with self._waking:
            if self._waker >= 0:
                with contextlib.suppress(BrokenPipeError):  # it has read to the end already
                    os.write(self._waker, b"\0")
                os.close(self._waker)
                self._waker = -1
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            if sys.platform == "win32":
                self._read_to_the_end()
            else:
                self._read_until_woken()
        finally:
            os.close(self._woken)
            self._pipe.close()
            self._tail.end()
            self.ended.set()

    def _read_to_the_end(self) -> None:
        """Never run on Windows."""
        while data := os.read(self._pipe.fileno(), _READ_BYTES):
            self._tail.feed(data)

    if sys.platform != "win32":

        def _read_until_woken(self) -> None:
            descriptor = self._pipe.fileno()
            os.set_blocking(descriptor, False)
            ready = select.poll()
            ready.register(descriptor, select.POLLIN)
            ready.register(self._woken, select.POLLIN)
            left = _DRAIN_BYTES
            while left > 0:
                is_over = any(number == self._woken for number, _ in ready.poll())
                try:
                    data = os.read(descriptor, _READ_BYTES)
                except BlockingIOError:
                    if is_over:
                        return
                    continue
                if not data:
                    return
                left -= len(data) * is_over
                self._tail.feed(data)
