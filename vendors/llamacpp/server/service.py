"""Serves the requests of one server that is ready: who is next, and what becomes of each.

Runs in the event loop of the host's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import attrs

from llmdispatcher.models.errors import (
    DispatcherError,
    EngineCrashed,
    LimitReached,
    StreamInterrupted,
    Unreachable,
)
from llmdispatcher.models.reply import Progress
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.http.transport import Broken, Connections, TooSlow
from llmdispatcher.vendors.llamacpp.server import answering, faults, wire
from llmdispatcher.vendors.llamacpp.server.call import ServerCall
from llmdispatcher.vendors.llamacpp.server.calls import Calls
from llmdispatcher.vendors.llamacpp.server.desk import MAX_WAITING, Desk, Seat
from llmdispatcher.vendors.llamacpp.server.wire import Abilities
from llmdispatcher.vendors.mailbox import fire

GRACE_S = 1.0
"""How long after a connection broke the server's own end, which would be the cause, may take to
show."""


@attrs.frozen(kw_only=True)
class Parts:
    """What a service works with."""

    connections: Connections
    model: str
    able: Abilities
    desk: Desk
    calls: Calls
    worry: Callable[[], None]
    """Has the server looked at, at once."""


class Service:
    """Of one server."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._seated: dict[Seat, ServerCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def arrived(self, call: ServerCall) -> None:
        """Take a call: refuse it, let it wait, or begin with it."""
        if call.is_cancelled:
            self._parts.calls.drop(call)
            return
        try:
            self._seat(call)
        except DispatcherError as error:
            self._fail(call, error)
            return
        in_front = self._parts.desk.add(call.seat)
        if in_front < 0:
            self._fail(call, LimitReached(f"{MAX_WAITING} requests wait for this model already"))
            return
        self._seated[call.seat] = call
        self._let_in()
        if not call.runs:
            fire([call.put(Progress("queued", 0, in_front))])

    def _seat(self, call: ServerCall) -> None:
        """Find out what a request claims. Raises a RequestError for what cannot be done."""
        call.asked = wire.asked(call.work, self._parts.able, self._parts.model)
        call.seat.slots, call.seat.tokens = call.asked.slots, call.asked.tokens

    def cancel(self, call: ServerCall) -> None:
        """Stop serving a call; closing its connection is what tells the server."""
        if call.task is not None:
            call.task.cancel()
        else:
            self._leave(call)

    async def end(self) -> None:
        """Stop serving all."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _let_in(self) -> None:
        """Begin with those whose turn it is."""
        while (seat := self._parts.desk.next(time.monotonic())) is not None:
            call = self._seated[seat]
            call.runs = True
            call.task = asyncio.get_running_loop().create_task(self._serve(call))
            self._tasks.add(call.task)
            call.task.add_done_callback(lambda task, call=call: self._ended(task, call))  # type: ignore[misc]

    async def _serve(self, call: ServerCall) -> None:
        try:
            await self._ask(call)
        except (Broken, TooSlow, StreamInterrupted) as cut:
            self._parts.worry()
            await asyncio.sleep(GRACE_S)  # if the server is dead, this is cancelled
            self._fail(call, _cut(call, cut))
        except DispatcherError as error:
            self._fail(call, faults.meant(error))

    async def _ask(self, call: ServerCall) -> None:
        assert call.asked is not None  # noqa: S101 - it has a seat
        await answering.serve(
            self._parts.connections, call, call.asked, lambda n: self._read(call, n)
        )

    def _read(self, call: ServerCall, prompt_tokens: int) -> None:
        """Give back what a request does not need, now that its prompt was counted."""
        work = call.work
        if isinstance(work, Request) and work.max_tokens is not None:
            self._parts.desk.shrink(call.seat, prompt_tokens + work.max_tokens * work.n)
            self._let_in()

    def _ended(self, task: asyncio.Task[None], call: ServerCall) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            told = f"a bug in the server's host: {type(bug).__name__}: {bug}"
            self._fail(call, EngineCrashed(told))
        self._leave(call)

    def _fail(self, call: ServerCall, error: DispatcherError) -> None:
        fire([call.box.fail(error)])
        self._parts.calls.drop(call)

    def _leave(self, call: ServerCall) -> None:
        self._parts.calls.drop(call)
        self._parts.desk.leave(call.seat)
        self._seated.pop(call.seat, None)
        self._let_in()


def _cut(call: ServerCall, cut: Exception) -> DispatcherError:
    """Return the error of a call whose connection broke, though the server lives."""
    told = str(cut) or "no connection in time"
    if call.used.completion_tokens:
        return StreamInterrupted(f"llama-server stopped in the middle of a reply: {told}")
    lost = Unreachable(f"llama-server closed the connection before it replied: {told}")
    lost.was_connected = True
    return lost
