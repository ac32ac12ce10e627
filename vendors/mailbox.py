"""Where an engine's thread hands pieces of a reply to the one consumer of a call.

A producer puts pieces and gets back a *waker* if the consumer sleeps; it fires all wakers of a
step together, so that any number of replies cost an event loop one wake-up for each step. The
consumer sleeps on a bare lock (threads) or a future (asyncio); neither world starts a thread.

A mailbox is not bounded by itself: what it can hold is bounded by the context of the model, since
a reply has at most that many tokens.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Protocol

import attrs

from llmdispatcher.models.reply import Piece, Progress

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from llmdispatcher.models.errors import DispatcherError


class Waker(Protocol):
    """Wakes whoever waits for pieces, once. ``fire`` knows how to wake event loops in groups."""

    def wake(self) -> None:
        """Wake; from any thread."""


LOOK_S = 0.2
"""How soon a main thread that waits notices a Ctrl-C that another thread was given."""


class _ThreadWaker:
    """A consumer that sleeps in a thread."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody else woke it just now
            self.lock.release()


@attrs.frozen(eq=False)
class _LoopWaker:
    """A consumer that sleeps in an event loop."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]

    def wake(self) -> None:
        fire([self])


class Mailbox:
    """Pieces on their way from one producer to one consumer, and at most one final error."""

    __slots__ = ("_error", "_lock", "_pieces", "_taken", "_waker")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[Piece] = []
        self._error: DispatcherError | None = None
        self._waker: Waker | None = None
        self._taken: Waker | None = None
        """A waker that a producer has and may not have fired yet, while its consumer sleeps."""

    def put(self, piece: Piece) -> Waker | None:
        """Add a piece; returns the waker of a sleeping consumer, for the caller to fire."""
        with self._lock:
            if self._error is not None:
                return None  # the call has ended; what comes now was too late
            if isinstance(piece, Progress) and self._pieces:
                return None  # what waits already is sign of life enough
            self._pieces.append(piece)
            waker, self._waker = self._waker, None
            self._taken = waker or self._taken
        return waker

    def fail(self, error: DispatcherError) -> Waker | None:
        """End with an error, raised after the pieces before it have been read; the first counts.

        Returns the waker of a sleeping consumer even if a producer was given it for a piece before:
        that one may not fire it for a while, and whoever ends a call wants its consumer released.
        """
        with self._lock:
            self._error = self._error or error
            waker = self._waker or self._taken
            self._waker = self._taken = None
        return waker

    def receive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Take all pieces, sleeping until there is one. See ``contract.Call.receive``."""
        waker = _ThreadWaker()
        while not (pieces := self._take(waker)):
            if not patiently(lambda wait_s: waker.lock.acquire(timeout=wait_s), timeout_s):
                raise TimeoutError
        return pieces

    async def areceive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Take all pieces in an event loop. See ``contract.Call.areceive``."""
        import asyncio  # noqa: PLC0415 - 25 ms that programs without an event loop need not pay

        loop = asyncio.get_running_loop()
        waker = _LoopWaker(loop, loop.create_future())
        if pieces := self._take(waker):
            return pieces
        if timeout_s is None:
            await waker.future
        else:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await waker.future
        return self._take(waker)

    def _take(self, waker: Waker) -> list[Piece]:
        """Empty the box, or leave a waker in it. Raises the error when the box is empty."""
        with self._lock:
            self._taken = None  # who takes is awake
            if self._pieces:
                pieces, self._pieces = self._pieces, []
                return pieces
            if self._error is not None:
                raise self._error
            self._waker = waker
        return []


def fire(wakers: Iterable[Waker | None]) -> None:
    """Wake consumers: each event loop once for all its consumers."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waker in wakers:
        if isinstance(waker, _LoopWaker):
            loops.setdefault(waker.loop, []).append(waker.future)
        elif waker is not None:
            waker.wake()
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures)
        except RuntimeError:  # the loop is closed: its consumers are gone
            continue


def _resolve(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def patiently(wait: Callable[[float], bool], timeout_s: float | None) -> bool:
    """Wait in a thread until ``wait(seconds)`` returns True; False if that takes too long.

    Where the kernel hands Ctrl-C to another thread, a main thread that sleeps does not notice; so
    the main thread wakes now and then to look.
    """
    limit_s = threading.TIMEOUT_MAX if timeout_s is None else timeout_s
    if threading.current_thread() is not threading.main_thread():
        return wait(min(max(0.0, limit_s), threading.TIMEOUT_MAX))
    deadline = time.monotonic() + limit_s
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        if wait(min(left_s, LOOK_S)):
            return True
        if left_s <= LOOK_S:
            return False
