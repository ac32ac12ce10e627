"""The life of one server, in an event loop: start, wait until it is ready, serve, notice its end.

Everything here runs in the thread of the host, but for what says that it does not. However a life
ends, the calls in flight end first, with what it ended for, and then the server's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from llmdispatcher.models.errors import DispatcherError, Refused, TimedOut, Unreachable
from llmdispatcher.vendors.llamacpp.child import causes
from llmdispatcher.vendors.llamacpp.engine.inbox import CLOSED
from llmdispatcher.vendors.llamacpp.server import facts, holding, loading, report
from llmdispatcher.vendors.llamacpp.server.calls import Calls
from llmdispatcher.vendors.llamacpp.server.desk import Desk
from llmdispatcher.vendors.llamacpp.server.loading import Progress, Task
from llmdispatcher.vendors.llamacpp.server.running import KILL_S, PortTaken, Running
from llmdispatcher.vendors.llamacpp.server.service import Parts, Service
from llmdispatcher.vendors.llamacpp.server.signs import Patience, Signs
from llmdispatcher.vendors.llamacpp.weights import has_tiles
from llmdispatcher.vendors.llamacpp.worker import obituary
from llmdispatcher.vendors.llamacpp.worker.guard import Guard

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.hosting import Life
    from llmdispatcher.vendors.llamacpp.limits.caps import Measure
    from llmdispatcher.vendors.llamacpp.server.call import ServerCall
    from llmdispatcher.vendors.llamacpp.server.program import Program

TICK_S = 0.2
"""How often a server is looked at that serves."""

FIRST_LOOK_S, LAST_LOOK_S = 0.01, 0.25
"""How often one is asked that loads: at once, for small models, then less and less."""

PING_S = 0.5
"""How often a server that has something to do is asked for its health."""

MAX_STARTS = 3
"""How often to start where another program takes the port first."""


_SPOILED = {-signal.SIGSEGV, -signal.SIGILL}
"""How a build ends whose code for this processor's tiles is spoiled; see ``weights``. It does while
it warms up, which belongs to loading."""


class PackedWrongly(Exception):
    """The server may have died of the order in which it keeps weights."""


_log = logging.getLogger("llmdispatcher.llamacpp")


def _quietly(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what no task could be told of; asyncio's own handler would print it.

    Where a call is cancelled in the moment in which its socket has something to read, anyio sets
    the result of a future that was cancelled just before. Nobody waits for it any more.
    """
    error = context.get("exception")
    level = logging.DEBUG if isinstance(error, asyncio.InvalidStateError) else logging.ERROR
    _log.log(level, "in the event loop of a server: %s", context.get("message"), exc_info=error)


class ServerLife:
    """One life."""

    def __init__(
        self, life: Life, program: Program | None, patience: Patience, loaded: Future[None]
    ) -> None:
        self._life, self._program, self._patience = life, program, patience
        self._loaded = loaded
        self.calls = Calls()
        self.guard = Guard(life)
        self.measures: tuple[Measure, ...] = ()
        self.error: DispatcherError | None = None
        """Why it serves no more."""
        self._ending = threading.Lock()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._service: Service | None = None
        self._killed_for: DispatcherError | None = None
        self._ping: asyncio.Task[None] | None = None
        self._ping_s = 0.0
        self._packs = True

    # -- from any thread ------------------------------------------------------------------------

    def tell(self, what: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - handed on
        """Have something done in the loop, if it still runs."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: all calls have ended
                loop.call_soon_threadsafe(what, *arguments)

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        self.tell(self._wake)

    def cancel(self, call: ServerCall) -> None:
        """Have a call dropped."""
        self.tell(self._drop, call)

    def release(self, error: DispatcherError) -> None:
        """Say that it serves no more, and end the calls in flight. The first reason counts."""
        with self._ending:
            self.error = why = self.error or error
        self.calls.fail(lambda: copy(why))

    # -- in the loop ----------------------------------------------------------------------------

    def arrived(self, call: ServerCall) -> None:
        """Take a call."""
        if self._service is not None and self.error is None:
            self._service.arrived(call)
        elif self.error is None:  # its life is about to begin or to end
            self.calls.fail(lambda: Refused("the model is not loaded"))

    def _drop(self, call: ServerCall) -> None:
        if self._service is not None:
            self._service.cancel(call)

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    async def live(self) -> NoReturn:
        """Live; ends with the DispatcherError that it ends for."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_quietly)
        self._woken = asyncio.Event()
        progress = Progress(self._life)
        progress.tell(0.0)
        task = loading.prepared(self._life, self._program)
        for _ in range(MAX_STARTS):
            try:
                await self._once(task, progress)
            except PortTaken:
                continue
            except PackedWrongly:
                _log.warning("llama-server died of its own order of weights: the file's is kept")
                task = attrs.evolve(task, settings=attrs.evolve(task.settings, packs=False))
        raise Unreachable(
            f"{MAX_STARTS} times, another program listened where llama-server was to: try again"
        )

    async def _once(self, task: Task, progress: Progress) -> NoReturn:
        """Start a server and serve. Raises PortTaken, or what it ended for."""
        self._check_stop()
        self._packs = task.settings.packs
        running = Running(task.program, task.settings)
        try:
            self._hold(running, task)
            await self._load(running, task, progress)
            await self._serve(running)
        except DispatcherError as error:
            self.release(error)
            raise
        finally:
            await self._end(running)

    def _hold(self, running: Running, task: Task) -> None:
        """Hold it to its limits from outside."""
        self.guard.close()
        self.guard = Guard(self._life)
        self.guard.watch(running.child.pid)
        measures = holding.hold(running.child.pid, loading.caps(self._life, task))
        self.measures = (*measures, *self.guard.held([]))

    async def _load(self, running: Running, task: Task, progress: Progress) -> None:
        """Wait until it has loaded. Raises what it must end for."""
        signs, pause_s = Signs(time.monotonic()), FIRST_LOOK_S
        while not await running.is_ready():
            self._check(running)
            now_s = time.monotonic()
            if signs.look(loading.sight(running, 0), now_s) >= self._patience.stall_s:
                self._kill(running, TimedOut("load", self._patience.stall_s))
            progress.look(running, self.guard.vitals().memory_bytes, task.plan.need.total_bytes)
            await self._pause(pause_s)
            pause_s = min(1.5 * pause_s, LAST_LOOK_S)
        props = await running.facts()
        self._check(running)
        told = task.settings
        able = facts.abilities(props, told, task.header, tuple(self._life.spec.adapters))
        desk = Desk(told.parallel, told.cells)
        self._service = Service(
            Parts(
                connections=running.connections,
                model=told.alias,
                able=able,
                desk=desk,
                calls=self.calls,
                worry=self._wake,
            )
        )
        progress.tell(1.0)
        self._loaded.set_result(None)

    async def _serve(self, running: Running) -> NoReturn:
        """Look at it again and again. Raises what it ends for."""
        signs = Signs(time.monotonic())
        while True:
            self._check(running)
            now_s = time.monotonic()
            tokens, pieces = self.calls.done()
            _, busy = self.calls.counts()
            self.guard.drew(tokens, busy, now_s)
            if busy:
                still_s = signs.look(loading.sight(running, pieces), now_s)
                self._ask_health(running, signs, now_s)  # what has passed was before the question
                if signs.unanswered_s >= self._patience.silent_s:
                    self._kill(running, TimedOut("idle", self._patience.silent_s))
                if still_s >= self._patience.asleep_s:
                    self._kill(running, TimedOut("idle", self._patience.asleep_s))
            else:
                signs.rested()
            await self._pause(TICK_S)

    def _ask_health(self, running: Running, signs: Signs, now_s: float) -> None:
        """Ask for its health now and then, without waiting for the answer."""
        if now_s - self._ping_s < PING_S or (self._ping is not None and not self._ping.done()):
            return
        self._ping_s = now_s

        async def ask() -> None:
            if await running.is_healthy(2 * self._patience.silent_s):
                signs.answered()

        signs.asked()
        self._ping = asyncio.get_running_loop().create_task(ask())

    async def _pause(self, pause_s: float) -> None:
        """Sleep, unless there is something to look at."""
        woken = self._woken
        if woken is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await woken.wait()
            woken.clear()

    def _check_stop(self) -> None:
        if self._stopping:
            raise Refused(CLOSED)

    def _check(self, running: Running) -> None:
        """Raise what it must end for: it is to stop, it is dead, or it takes too much."""
        self._check_stop()
        if (status := running.child.poll()) is not None:
            self._died(running, status)
        if error := self.guard.look(time.monotonic(), lambda: None):
            self._kill(running, error)

    def _kill(self, running: Running, error: DispatcherError) -> NoReturn:
        """End it, for a reason that is known."""
        self._killed_for = error
        running.child.kill()
        self._died(running, running.child.wait(KILL_S))

    def _died(self, running: Running, status: int | None) -> NoReturn:
        """Raise why it died, and tell of it."""
        text, path = running.child.tail.text(), str(self._life.spec.model_path)
        if self._packs and status in _SPOILED and not self._loaded.done() and has_tiles():
            raise PackedWrongly
        is_own_end = status is not None and status >= 0 and not self._loaded.done()
        if is_own_end and running.address.port and report.is_port_taken(text):
            raise PortTaken
        if is_own_end and (told := report.failure(text, path)) is not None:
            raise told
        error = causes.cause(
            causes.End(
                status=status or 0,
                tail=text,
                killed_for=self._killed_for,
                oom_kills=self.guard.oom_kills(),
            )
        )
        obituary.tell(self._life, error, status)
        raise error

    async def _end(self, running: Running) -> None:
        """End the server, after all that is asked of it."""
        service, self._service = self._service, None
        if service is not None:
            await service.end()
        if self._ping is not None:
            self._ping.cancel()
            await asyncio.gather(self._ping, return_exceptions=True)
        await running.hang_up()
        running.end(self._patience.stop_s, asks=self._killed_for is None)
        self.guard.close()
