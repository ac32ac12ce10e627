"""What bounds the call that a thread is serving: deadlines, and whoever stops it.

A blocking socket knows only how long one operation may take. Here the whole wait has an end, which
every operation of the thread looks at, and another thread can end it sooner.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

MAX_WAIT_S = 1e6
"""Eleven days; what is longer is for ever, and poll(2) could not take it in milliseconds."""


class Stopped(Exception):
    """Somebody stopped the call."""


class Gate:
    """Opened once, by anybody: also by a signal handler, whatever it interrupts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the waiting thread go on. Never blocks."""
        with contextlib.suppress(RuntimeError):  # it is open
            self._lock.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait, once; whether it was opened in time."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s)


class Bound:
    """Of one call, for its whole life."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may stop what this thread is using
        self._using: socket.socket | None = None
        self._gate: Gate | None = None
        self.is_stopped = False
        self.connect_until_s: float | None = None
        """When a connection must be made; monotonic. None is no limit."""
        self.until_s: float | None = None
        """When the wait ends."""

    def hold(self, timeout_s: float | None) -> Hold:
        """Let all that this thread does with sockets be bounded, until the block ends."""
        return Hold(self, timeout_s)

    def connect_within(self, limit_s: float) -> None:
        """Begin to connect, for so long."""
        self.connect_until_s = time.monotonic() + limit_s

    @property
    def is_late_to_connect(self) -> bool:
        """The limit for connecting has passed, and not only that of the whole wait."""
        return self.connect_until_s is None or time.monotonic() >= self.connect_until_s

    def left_s(self, *, connecting: bool = False) -> float | None:
        """Return the seconds that are left, at least 0; None is no limit. Raises Stopped."""
        if self.is_stopped:
            raise Stopped
        until_s, connect_until_s = self.until_s, self.connect_until_s
        if connecting and connect_until_s is not None:
            until_s = connect_until_s if until_s is None else min(until_s, connect_until_s)
        return None if until_s is None else max(0.0, until_s - time.monotonic())

    def use(self, used: socket.socket) -> None:
        """Note the socket that the thread is about to wait for. Raises Stopped.

        ``leave`` must follow before anybody else can have the connection: who stops this call would
        break theirs.
        """
        with self._lock:
            self._using = used
        if self.is_stopped:
            self.leave()
            raise Stopped

    def leave(self) -> None:
        """Note that the thread waits no more."""
        with self._lock:
            self._using = None

    def wait(self, gate: Gate) -> bool:
        """Wait for another thread that connects; False when time is up. Raises Stopped."""
        self._gate = gate
        was_opened = gate.wait(self.left_s(connecting=True))
        if self.is_stopped:
            raise Stopped
        return was_opened

    def stop(self) -> None:
        """Release the thread, wherever it waits. Never blocks."""
        self.is_stopped = True
        if self._gate is not None:
            self._gate.open()
        with self._lock:
            if self._using is not None:
                # of the plain socket: that of an encrypted one would take its state apart under
                # the thread that reads
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._using, socket.SHUT_RDWR)


class Hold:
    """A block in which a thread is bounded. A class, since it is entered for every piece."""

    __slots__ = ("_before", "_bound", "_outer_until_s", "_timeout_s")

    def __init__(self, bound: Bound, timeout_s: float | None) -> None:
        self._bound, self._timeout_s = bound, timeout_s

    def __enter__(self) -> None:
        bound, timeout_s = self._bound, self._timeout_s
        self._outer_until_s = bound.until_s
        is_endless = timeout_s is None or timeout_s > MAX_WAIT_S
        bound.until_s = None if is_endless else time.monotonic() + (timeout_s or 0.0)
        self._before: Bound | None = getattr(_thread, "bound", None)
        _thread.bound = bound

    def __exit__(self, *_: object) -> None:
        _thread.bound, self._bound.until_s = self._before, self._outer_until_s


_thread = threading.local()


def current() -> Bound | None:
    """Return what bounds this thread now."""
    return getattr(_thread, "bound", None)
