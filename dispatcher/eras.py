"""When what was replaced may end: with the last request that began before.

A request may fall back to a vendor long after it was ranked, so a vendor that is gone from the
configuration stays open for those who knew it. Only dispatchers that can be reloaded count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from llmdispatcher.steps import Flow

Close = Callable[[], object]


class Eras:
    """Counts the requests of each era, and closes what ended with it. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._number = 0
        self._under_way: dict[int, int] = {}
        """Requests by the era that they began in."""
        self._retired: list[tuple[int, Close]] = []
        """What is to be closed once all requests up to an era have ended."""
        self._owned: list[Close] = []
        self._threads: list[threading.Thread] = []

    def within(self, begin: Callable[[], Flow]) -> Flow:
        """Return a flow that counts from its first step to its end, however that comes.

        It counts before it begins: what it goes by is of the era that it counts for, or later.
        """
        with self._lock:
            number = self._number
            self._under_way[number] = self._under_way.get(number, 0) + 1
        try:
            return (yield from begin())
        finally:
            self._leave(number)

    def retire(self, closes: Sequence[Close]) -> None:
        """Begin a new era, and close these with the last request of those before."""
        with self._lock:
            self._retired += [(self._number, close) for close in closes]
            self._number += 1
        self._close_due()

    def own(self, close: Close) -> None:
        """Close this with the dispatcher, last of all."""
        with self._lock:
            self._owned.append(close)

    def close(self) -> None:
        """Close all that is left now. Idempotent."""
        with self._lock:
            left = [close for _, close in self._retired] + self._owned
            self._retired, self._owned, threads = [], [], list(self._threads)
        for close in left:
            close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _leave(self, number: int) -> None:
        with self._lock:
            self._under_way[number] -= 1
            if not self._under_way[number]:
                del self._under_way[number]
        if self._retired:
            self._close_due()

    def _close_due(self) -> None:
        """Close what nobody needs any more, in a thread: engines may take a moment to end."""
        with self._lock:
            oldest = min(self._under_way, default=self._number)
            due = [close for number, close in self._retired if number < oldest]
            if not due:
                return
            self._retired = [pair for pair in self._retired if pair[0] >= oldest]
            self._threads = [each for each in self._threads if each.is_alive()]
            thread = threading.Thread(
                target=lambda: [close() for close in due], name="llmdispatcher-retire", daemon=True
            )
            self._threads.append(thread)
            thread.start()
