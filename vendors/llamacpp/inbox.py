"""Calls on their way to the engine's thread, and the flags that other threads set on the way.

The only state that the engine shares with its callers. One lock guards it, held for a few
assignments and never while llama.cpp works.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from copy import copy

from llmdispatcher.models.errors import Cancelled, DispatcherError, LimitReached, Refused
from llmdispatcher.models.reply import Usage
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.mailbox import Mailbox, fire

MAX_WAITING = 1024
"""Requests that may wait; one more is refused with LimitReached."""

CLOSED = "the dispatcher was closed"


class EngineCall:
    """A request in the engine, seen from its consumer. See ``contract.Call``."""

    def __init__(self, request: Request, wake_engine: Callable[[EngineCall], None]) -> None:
        self.request = request
        self.box = Mailbox()
        self._cancelled = False
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.has_text = False
        self._wake_engine = wake_engine
        self.receive = self.box.receive
        self.areceive = self.box.areceive

    def usage(self) -> Usage:
        """Return the tokens until now, counted by the engine."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
        )

    def is_cancelled(self) -> bool:
        """Whether the consumer has given up, which it may do at any moment."""
        return self._cancelled

    def cancel(self) -> None:
        """Release the consumer and tell the engine to drop the request."""
        if not self._cancelled:
            self._cancelled = True
            fire([self.box.fail(Cancelled())])
            self._wake_engine(self)


class Inbox:
    """Calls on their way to the engine's thread, and the flags that other threads set."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.closing = False
        self.error: DispatcherError = Refused(CLOSED)
        """What calls that come after the end get."""
        self._waiting: deque[EngineCall] = deque()
        self._running: EngineCall | None = None
        self._interrupt: Callable[[bool], None] | None = None

    def attach(self, interrupt: Callable[[bool], None] | None) -> None:
        """Say how to interrupt a decode, once there is a backend to interrupt."""
        with self.changed:
            self._interrupt = interrupt
            if interrupt is not None and self.closing:
                interrupt(True)  # noqa: FBT003 - on

    def submit(self, call: EngineCall) -> None:
        """Append a call. Raises Refused if the engine is closing, LimitReached if it is full."""
        with self.changed:
            if self.closing:
                raise copy(self.error)
            if len(self._waiting) >= MAX_WAITING:
                raise LimitReached(f"{MAX_WAITING} requests wait for this model already")
            self._waiting.append(call)
            self.changed.notify()

    def next(self) -> EngineCall | None:
        """Take the next call that is still wanted."""
        with self.changed:
            while self._waiting:
                call = self._waiting.popleft()
                if not call.is_cancelled():
                    self._running = call
                    return call
        return None

    def done(self, call: EngineCall) -> None:
        """Note that the running call has ended; an interrupt that was meant for it is over."""
        with self.changed:
            if self._running is call:
                self._running = None
            if self._interrupt is not None and not self.closing:
                self._interrupt(False)  # noqa: FBT003 - off

    def cancel(self, call: EngineCall) -> None:
        """Interrupt the decode if it is this call's, and drop the call if it waits."""
        with self.changed:
            if self._running is call:
                if self._interrupt is not None:
                    self._interrupt(True)  # noqa: FBT003 - on
            elif call in self._waiting:
                self._waiting.remove(call)

    def close(self) -> None:
        """Let the thread end; a decode in progress is interrupted."""
        with self.changed:
            self.closing = True
            if self._interrupt is not None:
                self._interrupt(True)  # noqa: FBT003 - on
            self.changed.notify()

    def wait(self) -> bool:
        """Sleep until there is something to do; False if the engine is closing."""
        with self.changed:
            while not self._waiting and not self.closing:
                self.changed.wait()
            return not self.closing

    def waiting(self) -> list[EngineCall]:
        """Return the calls that wait, first come first."""
        with self.changed:
            return list(self._waiting)

    def drain(self) -> list[EngineCall]:
        """Take all calls that wait."""
        with self.changed:
            calls, self._waiting = list(self._waiting), deque()
        return calls

    def counts(self) -> tuple[int, int]:
        """Return how many wait and how many run."""
        with self.changed:
            return len(self._waiting), int(self._running is not None)
