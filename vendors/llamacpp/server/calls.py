"""All that was asked of a server and has not ended. May be used from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmdispatcher.vendors.mailbox import fire

if TYPE_CHECKING:
    from llmdispatcher.models.errors import DispatcherError
    from llmdispatcher.vendors.llamacpp.server.call import ServerCall


class Calls:
    """Bounded by ``desk.MAX_WAITING``, which who adds to it looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[ServerCall, None] = {}
        self._ended_tokens = 0
        self._ended_pieces = 0
        self._has_served = False

    def add(self, call: ServerCall) -> None:
        """Take a call."""
        with self._lock:
            self._calls[call] = None

    def drop(self, call: ServerCall) -> None:
        """Forget one that has ended."""
        with self._lock:
            if self._calls.pop(call, self) is not self:
                self._ended_tokens += call.used.completion_tokens
                self._ended_pieces += call.pieces
                self._has_served = self._has_served or call.is_complete

    @property
    def has_served(self) -> bool:
        """Whether one ever came to its end."""
        return self._has_served or any(call.is_complete for call in self.all())

    def all(self) -> list[ServerCall]:
        """Return those that have not ended."""
        return list(self._calls)  # no lock: a signal handler may close what this thread looks at

    def counts(self) -> tuple[int, int]:
        """Return how many wait and how many run."""
        calls = [call for call in self.all() if not call.is_complete]
        running = sum(call.runs for call in calls)
        return len(calls) - running, running

    def done(self) -> tuple[int, int]:
        """Return how many tokens were drawn and how many pieces came, for all calls ever."""
        calls = self.all()
        return (
            self._ended_tokens + sum(call.used.completion_tokens for call in calls),
            self._ended_pieces + sum(call.pieces for call in calls),
        )

    def fail(self, error: Callable[[], DispatcherError]) -> None:
        """End all of them, each with an error of its own."""
        with self._lock:
            calls, self._calls = list(self._calls), {}
        fire([call.box.fail(error()) for call in calls])
