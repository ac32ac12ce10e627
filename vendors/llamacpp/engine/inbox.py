"""Calls on their way to the engine's thread, and the flags that other threads set on the way.

The only state that the engine shares with its callers. One lock guards it, held for a few
assignments and never while llama.cpp works.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

from llmdispatcher.models.errors import (
    Cancelled,
    DispatcherError,
    EngineCrashed,
    LimitReached,
    OutOfMemory,
    Refused,
    VendorError,
)
from llmdispatcher.models.reply import FinishReason, Piece, Usage
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.mailbox import Mailbox, Waker, fire

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop

MAX_WAITING = 1024
"""Requests that may wait; one more is refused with LimitReached."""

CLOSED = "the dispatcher was closed"


_log = logging.getLogger("llmdispatcher.llamacpp")


class Box(Protocol):
    """Where the pieces of one call are put; ``Mailbox`` is one."""

    def put(self, piece: Piece) -> Waker | None:
        """Add a piece; returns what wakes its consumer, if that is needed."""

    def fail(self, error: DispatcherError) -> Waker | None:
        """End with an error, the first of which counts."""


class EngineCall:
    """A request in the engine. With a mailbox as its box, it is a ``contract.Call``."""

    def __init__(
        self,
        request: Request,
        wake_engine: Callable[[EngineCall], None],
        box: Box | None = None,
    ) -> None:
        mailbox = Mailbox()
        self.request = request
        self.box: Box = box or mailbox
        self._cancelled = False
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.reasoning_tokens = 0
        self.has_text = False
        self.runs = False
        """Whether the engine has begun with it."""
        self.reasons: dict[int, FinishReason] = {}
        """Why those of its replies ended that have."""
        self._wake_engine = wake_engine
        self.receive = mailbox.receive
        self.areceive = mailbox.areceive

    def usage(self) -> Usage:
        """Return the tokens until now, counted by the engine."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )

    def is_complete(self) -> bool:
        """Whether all that was asked for is there."""
        return len(self.reasons) >= self.request.n

    def is_cancelled(self) -> bool:
        """Whether the consumer has given up, which it may do at any moment."""
        return self._cancelled

    def cancel(self) -> None:
        """Release the consumer and tell the engine to drop the request."""
        self._cancelled = True
        try:
            self._wake_engine(self)
        finally:  # also if a Ctrl-C comes in between
            fire([self.box.fail(Cancelled())])


def crashed(bug: Exception, doing: str = "a bug in the engine") -> VendorError:
    """Write a bug down, where it is being handled, and return the error for who it hits."""
    if isinstance(bug, MemoryError):
        return OutOfMemory("there was no memory left for the engine's own work")
    _log.exception(doing)
    return EngineCrashed(f"{doing}: {type(bug).__name__}: {bug}")


class Job:
    """Something for the engine's thread to do once, between two steps."""

    def __init__(self, work: Callable[[EngineLoop], Any]) -> None:
        self._work = work
        self.done: Future[Any] = Future()

    def do(self, loop: EngineLoop) -> None:
        """Do it. What it raises is the asker's, also for a bug: the others go on."""
        try:
            self.done.set_result(self._work(loop))
        except DispatcherError as error:
            self.done.set_exception(error)
        except Exception as bug:  # noqa: BLE001 - the asker would wait for ever
            self.done.set_exception(crashed(bug))

    def refuse(self, error: DispatcherError) -> None:
        """Say that it will not be done."""
        self.done.set_exception(copy(error))


class Inbox:
    """Calls on their way to the engine's thread, and the flags that other threads set."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.closing = False
        self.has_served = False
        """Whether a call was ever served to its end."""
        self.error: DispatcherError = Refused(CLOSED)
        """What calls that come after the end get."""
        self._arrived: list[EngineCall] = []
        self._jobs: list[Job] = []
        self._calls: dict[EngineCall, None] = {}
        """All that have not ended, in the order of their arrival."""
        self._cancelled: list[EngineCall] = []
        self._decoding: tuple[EngineCall, ...] = ()
        self._stops_for: Callable[[Iterable[bool]], bool] = all
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
            if len(self._calls) >= MAX_WAITING and self.counts()[0] >= MAX_WAITING:
                raise LimitReached(f"{MAX_WAITING} requests wait for this model already")
            self._calls[call] = None
            self._arrived.append(call)
            self.changed.notify()

    def ask(self, job: Job) -> None:
        """Have the engine's thread do something between two steps. Raises Refused if it closes."""
        with self.changed:
            if self.closing:
                raise copy(self.error)
            self._jobs.append(job)
            self.changed.notify()

    def jobs(self) -> list[Job]:
        """Take what was asked for since the last time."""
        with self.changed:
            jobs, self._jobs = self._jobs, []
            return jobs

    def take(self) -> list[EngineCall]:
        """Take the calls that have arrived and are still wanted."""
        with self.changed:
            calls, self._arrived = self._arrived, []
            return calls

    def cancelled(self) -> list[EngineCall]:
        """Take the calls that were cancelled since the last time."""
        with self.changed:
            calls, self._cancelled = self._cancelled, []
            return calls

    def decoding(self, calls: Iterable[EngineCall], *, stops_for_any: bool = False) -> None:
        """Say whose tokens are being decoded from now on; nobody's if there are none.

        The decode is interrupted when all of them are cancelled, or any. An interrupt that was
        meant for those of before is over.
        """
        with self.changed:
            self._decoding = tuple(calls)
            self._stops_for = any if stops_for_any else all
            self._interrupt_if_unwanted()

    def done(self, call: EngineCall) -> None:
        """Note that a call has ended."""
        self.has_served = self.has_served or call.is_complete()
        with self.changed:
            self._calls.pop(call, None)

    def cancel(self, call: EngineCall) -> None:
        """Tell the engine, and interrupt the decode if nobody wants it any more."""
        with self.changed:
            if call in self._calls and call not in self._cancelled:
                self._cancelled.append(call)
                self._interrupt_if_unwanted()
                self.changed.notify()

    def _interrupt_if_unwanted(self) -> None:
        if self._interrupt is not None:
            unwanted = self._stops_for(call.is_cancelled() for call in self._decoding)
            self._interrupt(self.closing or (unwanted and bool(self._decoding)))

    def close(self) -> None:
        """Let the thread end; a decode in progress is interrupted."""
        with self.changed:
            self.closing = True
            self._interrupt_if_unwanted()
            self.changed.notify()

    def wait(self) -> bool:
        """Sleep until there is something to do; False if the engine is closing."""
        with self.changed:
            while not (self._arrived or self._cancelled or self._jobs or self.closing):
                self.changed.wait()
            return not self.closing

    def calls(self) -> list[EngineCall]:
        """Return the calls that have not ended, first come first."""
        return list(self._calls)  # no lock: a signal handler may close what this thread looks at

    def drain(self) -> list[EngineCall]:
        """Take all calls that have not ended."""
        with self.changed:
            calls, self._calls = list(self._calls), {}
            self._arrived, self._cancelled = [], []
        return calls

    def counts(self) -> tuple[int, int]:
        """Return how many wait and how many run."""
        calls = self.calls()
        running = sum(call.runs for call in calls)
        return len(calls) - running, running
