"""One call on its way over HTTP, read by a thread or in an event loop. See ``contract.Call``.

Nothing runs in the background: whoever receives does the sending and the reading, in its own thread
or task. What is read means the same in both worlds; that is ``answer.Reading``'s, and ``_Way``'s
what each kind of failure means.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from llmdispatcher.models.errors import (
    BadReply,
    Cancelled,
    DispatcherError,
    StreamInterrupted,
    TimedOut,
    Unreachable,
)
from llmdispatcher.models.reply import Piece, Usage
from llmdispatcher.vendors.http.answer import ALIVE, Reading
from llmdispatcher.vendors.http.bound import MAX_WAIT_S, Bound, Stopped
from llmdispatcher.vendors.http.secret import frameless
from llmdispatcher.vendors.http.transport import (
    CONNECT_S,
    END_S,
    AsyncLine,
    Broken,
    Connections,
    Line,
    TooSlow,
)

if TYPE_CHECKING:
    import asyncio

ALIVE_S = 600.0
"""So long comments in a stream, which say that somebody is there, count as progress without any: a
vendor that is busy lets callers wait for minutes, and one that is stuck behind a proxy that goes on
commenting would never be late. The OpenAI client gives a reply as long in all."""

END_READS = 8
"""Of the end of an answer: what goes on behind it is not waited for."""

Ended = Callable[["HttpCall", DispatcherError | None], None]
"""Told once when a call has ended, and by which error, if by one."""


class HttpCall:
    """Of one request. One consumer reads it."""

    def __init__(
        self,
        connections: Connections,
        reading: Reading | DispatcherError,
        connect_s: float | None,
        ended: Ended,
    ) -> None:
        """``reading`` may be the error because of which there is nothing to send."""
        self._connections = connections
        is_endless = connect_s is None or connect_s > MAX_WAIT_S
        self._connect_s = CONNECT_S if is_endless else connect_s or 0.0
        self._ended: Ended | None = ended
        self._bound = Bound()
        self._line: Line | None = None
        self._aline: AsyncLine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limit: asyncio.Timeout | None = None
        """Of the task that waits."""
        self._cancels = 0
        """How often that task was to be cancelled before, by others."""
        self._lock = threading.RLock()  # a signal handler may cancel what this thread is ending
        self._is_read = False
        """Somebody is receiving: the connection is theirs to close."""
        self._heard_s: float | None = None
        """When something came that was no comment; monotonic."""
        self._error: DispatcherError | None = None
        self._reason: DispatcherError | None = None
        """Why somebody else stopped it, if not the consumer."""
        self._reading: Reading | None = None
        if isinstance(reading, DispatcherError):
            self._end(reading)
        else:
            self._reading = reading

    @property
    def headers(self) -> Mapping[str, str]:
        """See ``contract.Telling.headers``."""
        return {} if self._reading is None else self._reading.headers

    @property
    def has_gap(self) -> bool:
        """See ``contract.Gapped``."""
        return self._reading is not None and self._reading.has_gap

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self._ended is None

    # -- threads -------------------------------------------------------------------------------

    def receive(self, timeout_s: float | None) -> Sequence[Piece]:
        """See ``contract.Call.receive``. The call ends with a TimeoutError, too."""
        reading, has_failed = self._begin(), True
        try:
            with self._bound.hold(timeout_s):
                pieces = self._receive(reading)
            has_failed = False
        except ENDINGS as error:
            raise self._told(error) from cause(error)
        finally:
            self._leave(has_failed=has_failed)
        return pieces

    def _receive(self, reading: Reading) -> list[Piece]:
        while True:
            reading.check()
            line = self._line
            if line is None:
                self._bound.connect_within(self._connect_s)
                line = self._line = self._connections.open(reading.ask, self._bound)
                reading.begin(line.head)
            try:
                chunk = line.read()
            except (TooSlow, Broken) as error:
                if not reading.may_end(broken=isinstance(error, Broken)):
                    raise
                chunk = b""  # only its end is missing
            pieces = reading.feed(chunk) if chunk else []
            if not chunk or reading.is_answered or line.is_over:
                if chunk and not line.is_over:
                    self._drain(line)
                pieces = reading.end(pieces)
                line.close()
                self._line = None
            if pieces := self._lively(pieces):
                return pieces

    def _drain(self, line: Line) -> None:
        """Read the end of an answer of which all has come, so that the connection is kept."""
        with contextlib.suppress(Broken, TooSlow, Stopped), self._bound.hold(END_S):
            for _ in range(END_READS):
                if not line.read():
                    return

    # -- event loops ---------------------------------------------------------------------------

    async def areceive(self, timeout_s: float | None) -> Sequence[Piece]:
        """See ``contract.Call.areceive``. The call ends with a TimeoutError, too."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        reading, has_failed = self._begin(), True
        try:
            reads = self._areceive(reading)
            try:
                waits_for = reads.send(None)
            except StopIteration as stop:  # what came was there: nothing has to be bounded
                pieces: list[Piece] = stop.value
            else:
                task = asyncio.current_task()
                self._cancels = 0 if task is None else task.cancelling()
                async with asyncio.timeout(timeout_s) as limit:
                    self._loop, self._limit = asyncio.get_running_loop(), limit
                    if self._bound.is_stopped:  # while what is sent was being written
                        limit.reschedule(self._loop.time())
                    pieces = await _Rest(reads, waits_for)
            has_failed = False
        except ENDINGS as error:
            raise self._told(error) from cause(error)
        finally:
            self._leave(has_failed=has_failed)
        return pieces

    async def _areceive(self, reading: Reading) -> list[Piece]:
        pieces: list[Piece] = []
        try:
            while not pieces:
                reading.check()
                if self._bound.is_stopped:
                    raise Stopped
                pieces = self._lively(await self._aread(reading))
        finally:
            self._limit = None
            line, self._aline = self._aline, self._aline if pieces else None
            if line is not None and not pieces:
                await line.close()
        return pieces

    async def _aread(self, reading: Reading) -> list[Piece]:
        import asyncio  # noqa: PLC0415 - as above

        line = self._aline
        if line is None:
            line = self._aline = await self._connections.aopen(reading.ask, self._connect_s)
            reading.begin(line.head)
        try:
            chunk = await line.read()
        except (TooSlow, Broken) as error:
            if not reading.may_end(broken=isinstance(error, Broken)):
                raise
            chunk = b""  # only its end is missing
        except asyncio.CancelledError:
            if not (self._is_late() and reading.may_end(broken=False)):
                raise
            chunk = b""
        pieces = reading.feed(chunk) if chunk else []
        if not chunk or reading.is_answered or line.is_over:
            if chunk and not line.is_over:
                await self._adrain(line)
            pieces = reading.end(pieces)
            await line.close()
            self._aline = None
        return pieces

    async def _adrain(self, line: AsyncLine) -> None:
        """See ``_drain``."""
        import asyncio  # noqa: PLC0415 - as above

        try:
            async with asyncio.timeout(END_S):
                for _ in range(END_READS):
                    if not await line.read():
                        return
        except (Broken, TimeoutError):
            return
        except asyncio.CancelledError:
            if not self._is_late():
                raise

    def _is_late(self) -> bool:
        """Whether the task is being cancelled because of the limit, and of nothing else."""
        import asyncio  # noqa: PLC0415 - as above

        task, limit = asyncio.current_task(), self._limit
        if task is None or limit is None or self._bound.is_stopped:
            return False
        return limit.expired() and task.cancelling() == self._cancels + 1

    # -- both ----------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """See ``contract.Call.usage``."""
        return Usage() if self._reading is None else self._reading.usage()

    def cancel(self, reason: DispatcherError | None = None) -> None:
        """See ``contract.Call.cancel``; ``reason`` is what the consumer gets instead."""
        self._reason = self._reason or reason
        self._bound.stop()
        loop, limit = self._loop, self._limit
        if loop is not None and limit is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_expire, limit, loop)
        with self._lock:
            is_read = self._is_read
            if not is_read:
                self._error = self._error or self._stopped()
        if not is_read:  # whoever reads is released, and ends it
            self._end(self._stopped())

    def _stopped(self) -> DispatcherError:
        """Return why a call that was stopped gives nothing more."""
        return self._reason or Cancelled()

    def _lively(self, pieces: list[Piece]) -> list[Piece]:
        """Leave out comments that say for too long that nothing comes."""
        now_s = time.monotonic()
        if self._heard_s is None or (pieces and pieces[-1] is not ALIVE):  # which stands alone
            self._heard_s = now_s
        if self._reading is not None and self._reading.is_over:
            self._end(None)
        return pieces if now_s - self._heard_s < ALIVE_S else []

    def _begin(self) -> Reading:
        """Let somebody receive. Raises what ended the call before."""
        with self._lock:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._ended is None:
                raise Cancelled("the reply was read to its end before")
            self._is_read = True
        assert self._reading is not None  # noqa: S101 - there is an error else
        return self._reading

    def _leave(self, *, has_failed: bool) -> None:
        self._is_read = False
        if has_failed or self._bound.is_stopped:  # after all came that came
            self._end(self._stopped())

    def _told(self, error: Exception) -> Exception:
        """End the call, and return what ended it as what it means."""
        match error:
            case Stopped():
                frameless(error)
                return self._ending(self._stopped())
            case TimeoutError():
                frameless(error)
                return self._lateness(error)
            case Broken():
                return self._ending(self._meaning(error))
            case DispatcherError():
                return self._ending(error)
        return error

    def _lateness(self, slow: TimeoutError) -> Exception:
        if self._bound.is_stopped:
            return self._ending(self._stopped())
        if isinstance(slow, TooSlow) and slow.connecting and self._bound.is_late_to_connect:
            return self._ending(TimedOut("connect", self._connect_s))
        self._end(Cancelled("the request took too long"))
        return TimeoutError()

    def _meaning(self, broken: Broken) -> DispatcherError:
        if self._reading is not None and self._reading.has_begun:
            return StreamInterrupted(f"the connection broke in the middle of the reply: {broken}")
        if not broken.connected:
            return Unreachable(f"no connection to {self._connections.root} could be made: {broken}")
        if broken.spoke:
            return BadReply(f"what answers there speaks no HTTP, or not this: {broken}")
        lost = Unreachable(f"the connection broke before the reply began: {broken}")
        lost.was_connected = True
        return lost

    def _ending(self, error: DispatcherError) -> DispatcherError:
        """Return the error to raise: what a stopped call breaks with means nothing."""
        told = self._stopped() if self._bound.is_stopped else self._connections.hushed(error)
        self._end(told)
        return told

    def _end(self, error: DispatcherError | None) -> None:
        """Let go of the connection, and say once that the call has ended."""
        with self._lock:
            self._error = self._error or error
            line, self._line = self._line, None
            aline, self._aline = self._aline, None
            ended, self._ended = self._ended, None
        if line is not None:
            line.close()
        if aline is not None and self._loop is not None:
            self._connections.end_soon(self._loop, aline.close)
        if ended is not None:
            ended(self, error)


class _Rest:
    """The rest of a coroutine that was begun, and that waits for something: to be awaited."""

    def __init__(self, begun: Coroutine[Any, Any, list[Piece]], waits_for: object) -> None:
        self._begun = begun
        self._waits_for = [waits_for]

    def __await__(self) -> Generator[Any, Any, list[Piece]]:
        return self  # it has all that awaiting asks for

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the event loop is to see
        return self.send(None)

    def send(self, value: object) -> Any:  # noqa: ANN401 - as above
        return self._waits_for.pop() if self._waits_for else self._begun.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - as above
        self._waits_for.clear()
        return self._begun.throw(*error)

    def close(self) -> None:
        self._begun.close()


ENDINGS = (Stopped, TimeoutError, Broken, DispatcherError)
"""What ends a call while somebody receives."""


def cause(error: Exception) -> BaseException | None:
    """Return what an error is told to come from: of our own, what they came from."""
    return error.__cause__ if isinstance(error, DispatcherError) else None


def _expire(limit: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
    """Let a wait end now."""
    with contextlib.suppress(RuntimeError):  # it has ended
        limit.reschedule(loop.time())
