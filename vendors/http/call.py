"""One call on its way over HTTP, read by a thread or in an event loop. See ``contract.Call``.

Nothing runs in the background: whoever receives does the sending and the reading, in its own thread
or task. What is read means the same in both worlds; that is ``answer.Reading``'s, and ``_Way``'s
what each kind of failure means.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmdispatcher.models.errors import (
    Cancelled,
    DispatcherError,
    StreamInterrupted,
    TimedOut,
    Unreachable,
)
from llmdispatcher.models.reply import Piece, Progress, Usage
from llmdispatcher.vendors.http.answer import Reading
from llmdispatcher.vendors.http.bound import Bound, Stopped
from llmdispatcher.vendors.http.transport import (
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
        self._connect_s = connect_s
        self._ended: Ended | None = ended
        self._bound = Bound()
        self._line: Line | None = None
        self._aline: AsyncLine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limit: asyncio.Timeout | None = None
        """Of the task that waits."""
        self._closing: asyncio.Task[None] | None = None
        self._lock = threading.RLock()  # a signal handler may cancel what this thread is ending
        self._is_read = False
        """Somebody is receiving: the connection is theirs to close."""
        self._heard_s: float | None = None
        """When something came that was no comment; monotonic."""
        self._error: DispatcherError | None = None
        self._reading: Reading | None = None
        self.is_whole = isinstance(reading, Reading) and not reading.ask.streams
        """See ``contract.Deferred``."""
        if isinstance(reading, DispatcherError):
            self._end(reading)
        else:
            self._reading = reading

    # -- threads -------------------------------------------------------------------------------

    def receive(self, timeout_s: float | None) -> Sequence[Piece]:
        """See ``contract.Call.receive``. The call ends with a TimeoutError, too."""
        reading = self._open_reading()
        with self._failing(), self._bound.hold(timeout_s):
            while True:
                if self._line is None:
                    self._bound.connect_until_s = self._connect_until_s()
                    self._line = self._connections.open(reading.ask, self._bound)
                    reading.begin(self._line.head)
                pieces = self._read(reading, self._line)
                if pieces := self._lively(pieces):
                    return pieces

    def _read(self, reading: Reading, line: Line) -> list[Piece]:
        chunk = self._last(reading, line.read)
        pieces = reading.feed(chunk) if chunk else []
        if not chunk or reading.is_answered:
            if chunk:
                self._drain(line)
            pieces += reading.end()
            line.close()
            self._line = None
        return pieces

    def _last(self, reading: Reading, read: Callable[[], bytes]) -> bytes:
        """Read on; an answer that only lacks its end, and does not get there in time, has ended."""
        try:
            return read()
        except TooSlow:
            if not reading.is_whole():
                raise
            return b""

    def _drain(self, line: Line) -> None:
        """Read the end of an answer of which all has come, so that the connection is kept."""
        with contextlib.suppress(Broken, TooSlow), self._bound.hold(END_S):
            for _ in range(END_READS):
                if not line.read():
                    return

    # -- event loops ---------------------------------------------------------------------------

    async def areceive(self, timeout_s: float | None) -> Sequence[Piece]:
        """See ``contract.Call.areceive``. The call ends with a TimeoutError, too."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        reading = self._open_reading()
        with self._failing():
            async with asyncio.timeout(timeout_s) as limit:
                self._loop, self._limit = asyncio.get_running_loop(), limit
                if self._bound.is_stopped:
                    raise Stopped
                try:
                    return await self._areceive(reading)
                finally:
                    self._limit = None
        raise AssertionError  # the block raises what it does not return

    async def _areceive(self, reading: Reading) -> list[Piece]:
        while True:
            if self._aline is None:
                self._aline = await self._connections.aopen(reading.ask, self._connect_s)
                reading.begin(self._aline.head)
            pieces = await self._aread(reading, self._aline)
            if pieces := self._lively(pieces):
                return pieces

    async def _aread(self, reading: Reading, line: AsyncLine) -> list[Piece]:
        chunk = await self._alast(reading, line)
        pieces = reading.feed(chunk) if chunk else []
        if not chunk or reading.is_answered:
            if chunk:
                await self._adrain(line)
            pieces += reading.end()
            await line.close()
            self._aline = None
        return pieces

    async def _alast(self, reading: Reading, line: AsyncLine) -> bytes:
        """See ``_last``."""
        try:
            return await line.read()
        except TimeoutError:
            if not reading.is_whole():
                raise
            return b""

    async def _adrain(self, line: AsyncLine) -> None:
        """See ``_drain``."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        with contextlib.suppress(Broken, TimeoutError):
            async with asyncio.timeout(END_S):
                for _ in range(END_READS):
                    if not await line.read():
                        return

    # -- both ----------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """See ``contract.Call.usage``."""
        return Usage() if self._reading is None else self._reading.usage()

    def cancel(self) -> None:
        """See ``contract.Call.cancel``."""
        self._bound.stop()
        loop, limit = self._loop, self._limit
        if loop is not None and limit is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_expire, limit, loop)
        if not self._is_read:  # whoever reads is released, and ends it
            self._end(Cancelled())

    def _open_reading(self) -> Reading:
        if self._error is not None:
            raise self._error
        assert self._reading is not None  # noqa: S101 - there is an error else
        return self._reading

    def _connect_until_s(self) -> float | None:
        return None if self._connect_s is None else time.monotonic() + self._connect_s

    def _lively(self, pieces: list[Piece]) -> list[Piece]:
        """Leave out comments that say for too long that nothing comes."""
        now_s = time.monotonic()
        if self._heard_s is None or any(not isinstance(piece, Progress) for piece in pieces):
            self._heard_s = now_s
        if self._reading is not None and self._reading.is_over:
            self._end(None)
        return pieces if now_s - self._heard_s < ALIVE_S else []

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """End the call with whatever ends it, told as what it means."""
        self._is_read = True
        try:
            yield
        except Stopped:
            raise self._ending(Cancelled()) from None
        except TimeoutError as slow:
            if self._bound.is_stopped:
                raise self._ending(Cancelled()) from None
            if isinstance(slow, TooSlow) and slow.connecting:
                raise self._ending(TimedOut("connect", self._connect_s or 0.0)) from None
            self._end(Cancelled("the request took too long"))
            raise TimeoutError from None
        except Broken as broken:
            raise self._ending(self._meaning(broken)) from None
        except DispatcherError as error:
            raise self._ending(error) from error.__cause__
        except BaseException:
            self._end(Cancelled())
            raise
        finally:
            self._is_read = False
            if self._bound.is_stopped:  # after all came that came
                self._end(Cancelled())

    def _meaning(self, broken: Broken) -> DispatcherError:
        if self._reading is not None and self._reading.has_begun:
            return StreamInterrupted(f"the connection broke in the middle of the reply: {broken}")
        if not broken.connected:
            return Unreachable(f"no connection could be made: {broken}")
        return Unreachable(f"the connection broke before the reply began: {broken}")

    def _ending(self, error: DispatcherError) -> DispatcherError:
        """Return the error to raise: what a stopped call breaks with means nothing."""
        told = Cancelled() if self._bound.is_stopped else error
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
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
                self._loop.call_soon_threadsafe(self._close_soon, aline, self._loop)
        if ended is not None:
            ended(self, error)

    def _close_soon(self, line: AsyncLine, loop: asyncio.AbstractEventLoop) -> None:
        self._closing = loop.create_task(line.close())


END_READS = 8
"""Of the end of an answer: what goes on behind it is not waited for."""


def _expire(limit: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
    """Let a wait end now."""
    with contextlib.suppress(RuntimeError):  # it has ended
        limit.reschedule(loop.time())
