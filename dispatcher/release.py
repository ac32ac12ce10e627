"""How a flow that waits is released: by whom it waits for, or by whoever stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future


class Stopper:
    """Lets another thread or task stop a flow that is waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._release: Callable[[], None] | None = None

    def arm(self, release: Callable[[], None]) -> None:
        """Say how to release whatever the flow waits for from now on."""
        with self._lock:
            self._release = release
            stopped = self._stopped
        if stopped:
            release()

    def stop(self) -> None:
        """Release the flow, now and at every wait to come. Never blocks."""
        with self._lock:
            self._stopped = True
            release = self._release
        if release is not None:
            release()


class Watch:
    """A future of one's own, which ends when a shared one does, or sooner.

    A shared future keeps its callbacks for as long as it lives; after ``leave`` the one left there
    holds nothing.
    """

    def __init__(self, shared: Future[Any]) -> None:
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

        self.future: Future[None] = Future()
        self._open: list[Future[None]] = [self.future]
        ends = self._open
        shared.add_done_callback(lambda done: _end(ends, done.exception()))

    def end(self, error: BaseException) -> None:
        """End now, unless it has ended. The shared future goes on."""
        _end(self._open, error)

    def leave(self) -> None:
        """Let go of everything."""
        self._open.clear()


def _end(ends: list[Future[None]], error: BaseException | None) -> None:
    """End the future in the list, and take it out: whoever is first does so."""
    try:
        future = ends.pop()
    except IndexError:
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(own(error))


def own(error: BaseException) -> BaseException:
    """Copy an error that many requests share: raising it adds to it, for each that does."""
    mine = copy(error)
    mine.__cause__ = error.__cause__
    return mine
