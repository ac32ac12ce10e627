"""What bounds the call that a thread is serving: deadlines, and whoever stops it.

A blocking socket knows only how long one operation may take. Here the whole wait has an end, which
every operation of the thread looks at, and another thread can end it sooner.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class Stopped(Exception):
    """Somebody stopped the call."""


class Bound:
    """Of one call, for its whole life."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may stop what this thread is using
        self._using: socket.socket | None = None
        self._woken = threading.Event()
        self.is_stopped = False
        self.connect_until_s: float | None = None
        """When a connection must be made; monotonic. None is no limit."""
        self.until_s: float | None = None
        """When the wait ends."""

    @contextlib.contextmanager
    def hold(self, timeout_s: float | None) -> Iterator[None]:
        """Let all that this thread does with sockets be bounded, until the block ends."""
        outer_until_s = self.until_s
        self.until_s = None if timeout_s is None else time.monotonic() + timeout_s
        before = getattr(_thread, "bound", None)
        _thread.bound = self
        try:
            yield
        finally:
            _thread.bound, self.until_s = before, outer_until_s
            with self._lock:
                self._using = None

    def left_s(self, *, connecting: bool = False) -> float | None:
        """Return the seconds that are left, at least 0; None is no limit. Raises Stopped."""
        if self.is_stopped:
            raise Stopped
        ends = [self.until_s, self.connect_until_s if connecting else None]
        known = [end for end in ends if end is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def use(self, used: socket.socket) -> None:
        """Note the socket that the thread waits for. Raises Stopped."""
        with self._lock:
            self._using = used
        if self.is_stopped:
            raise Stopped

    def wait(self, done: threading.Event) -> bool:
        """Wait for another thread; False when time is up. Raises Stopped."""
        self._woken = done
        finished = done.wait(self.left_s(connecting=True))
        if self.is_stopped:
            raise Stopped
        return finished

    def stop(self) -> None:
        """Release the thread, wherever it waits. Never blocks."""
        self.is_stopped = True
        self._woken.set()
        with self._lock:
            if self._using is not None:
                # of the plain socket: that of an encrypted one would take its state apart under
                # the thread that reads
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._using, socket.SHUT_RDWR)


_thread = threading.local()


def current() -> Bound | None:
    """Return what bounds this thread now."""
    return getattr(_thread, "bound", None)
