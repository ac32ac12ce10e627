"""A thread that does what may take a moment, and calls at a given time. It starts when needed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class Clerk:
    """Does jobs in order, one at a time, and rings when it is time.

    ``ring`` must not keep alive whoever holds the clerk, or neither would ever end. The thread ends
    with ``close``; jobs that were not begun by then are not done.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._at_s: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done soon. A caller never gives more than there are models."""
        with self._changed:
            self._jobs.append(job)
            self._look()

    def ring_at(self, at_s: float) -> None:
        """Ring once at this time of ``time.monotonic``, or before: whoever it wakes looks again."""
        if self._at_s is not None and self._at_s <= at_s:
            return
        with self._changed:
            self._at_s = at_s
            self._look()

    def is_here(self) -> bool:
        """Whether this is the clerk's thread."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """End the thread once it has done what it is at. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _look(self) -> None:
        """Start the thread, or wake it. Called with the lock held."""
        if self._is_closed:
            return
        if self._thread is None or not self._thread.is_alive():  # as after a fork
            self._thread = threading.Thread(target=self._work, name="landlord", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # which holds whoever gave it

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next job; None is the end."""
        with self._changed:
            while not self._is_closed:
                if self._jobs:
                    return self._jobs.popleft()
                wait_s = None if self._at_s is None else self._at_s - time.monotonic()
                if wait_s is not None and wait_s <= 0:
                    self._at_s = None
                    return self._ring
                self._changed.wait(None if wait_s is None else min(wait_s, threading.TIMEOUT_MAX))
        return None
