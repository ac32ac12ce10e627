"""The host that supervises a server: what others ask of it, and the thread in which it lives.

One thread owns the server: it starts it, talks to it in an event loop, looks now and then whether
it works and keeps to its limits, and ends it. Linux ends the server with that thread. What the
thread does is ``life.ServerLife``; nobody who asks here ever waits for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import Future
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    DispatcherError,
    EngineCrashed,
    LimitReached,
    OutOfMemory,
    Refused,
    StateUnusable,
)
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.engine.inbox import CLOSED
from llmdispatcher.vendors.llamacpp.host import Vitals
from llmdispatcher.vendors.llamacpp.server.call import ServerCall
from llmdispatcher.vendors.llamacpp.server.desk import MAX_WAITING
from llmdispatcher.vendors.llamacpp.server.life import ServerLife
from llmdispatcher.vendors.llamacpp.server.running import KILL_S
from llmdispatcher.vendors.llamacpp.server.signs import Patience

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.hosting import Life
    from llmdispatcher.vendors.llamacpp.limits.caps import Measure
    from llmdispatcher.vendors.llamacpp.server.program import Program

MORE_JOIN_S = 5.0
"""How long ``join`` waits beyond what ending a server takes: for a program that is being asked what
it can do, which is not interrupted."""

_NO_STATES = (
    "a supervised server keeps no states: take engine='worker' for a model whose conversations are"
    " to be saved"
)


class ServerHost:
    """See ``host.Host``."""

    def __init__(
        self, life: Life, program: Program | None = None, patience: Patience | None = None
    ) -> None:
        """Begin. ``program`` is found as the spec says where it is not given.

        Raises OutOfMemory where no thread can be started.
        """
        self.loaded: Future[None] = Future()
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        self._patience = patience or Patience()
        self._report = life.report
        self._before = life.before
        self._wait_s = life.wait_s
        life = attrs.evolve(life, before=None)  # or lives would form a chain
        self._life = ServerLife(life, program, self._patience, self.loaded)
        self._pid = os.getpid()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"llama-{life.card.model}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OutOfMemory(f"no thread could be started: {error}") from None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """How the system holds the server to its limits."""
        return self._life.measures

    def submit(self, work: Work) -> ServerCall:
        """See ``host.Host.submit``."""
        if error := self.misused() or self.ended():
            raise copy(error)
        calls = self._life.calls
        if calls.counts()[0] >= MAX_WAITING:
            raise LimitReached(f"{MAX_WAITING} requests wait for this model already")
        call = ServerCall(work, self._life.cancel)
        calls.add(call)
        self._life.tell(self._life.arrived, call)
        if error := self.ended():  # it ended meanwhile, and may not have seen this call
            calls.fail(lambda: copy(error))
        return call

    def misused(self) -> DispatcherError | None:
        """See ``host.Host.misused``."""
        if os.getpid() != self._pid:
            return EngineCrashed(
                "this process was forked after the model began to load, and its server is the"
                " parent's: make a new Dispatcher in the child"
            )
        return self._report.misused()

    def ended(self) -> DispatcherError | None:
        """See ``host.Host.ended``."""
        return self._life.error

    def has_served(self) -> bool:
        """See ``host.Host.has_served``."""
        return self._life.calls.has_served

    def counts(self) -> tuple[int, int]:
        """See ``host.Host.counts``."""
        return self._life.calls.counts()

    def vitals(self) -> Vitals:
        """See ``host.Host.vitals``."""
        return self._life.guard.vitals()

    def trim(self) -> None:
        """See ``host.Host.trim``. There is nothing that a server could be told to give back.

        Its prompt cache is bounded from the start, and the memory of its context is taken whole.
        """

    def count(self, request: Request) -> None:
        """See ``host.Host.count``: a server would have to be asked twice, and is not."""

    def save(self, request: Request, path: Path) -> Future[Saved]:  # noqa: ARG002 - nothing is kept
        """See ``host.Host.save``; fails."""
        return _failed(StateUnusable(_NO_STATES, path=str(path), part="settings"))

    def restore(self, path: Path) -> Future[Saved]:
        """See ``host.Host.restore``; fails."""
        return _failed(StateUnusable(_NO_STATES, path=str(path), part="settings"))

    def stop(self) -> None:
        """See ``host.Host.stop``."""
        if os.getpid() == self._pid:
            self._stopping.set()
            self._life.stop()

    def join(self) -> None:
        """See ``host.Host.join``."""
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(self._patience.stop_s + KILL_S + MORE_JOIN_S)

    def _run(self) -> None:
        """Live: wait for the turn, start, serve, end. Leaves nobody waiting, whatever happens."""
        error: DispatcherError = EngineCrashed("a bug in the server's host")
        try:
            before, self._before = self._before, None
            if before is not None:
                before.join()
            if not self._stopping.wait(self._wait_s):
                asyncio.run(self._life.live())
            error = Refused(CLOSED)
        except DispatcherError as raised:
            error = raised
        finally:
            self._life.release(error)
            if not self.loaded.done():
                with contextlib.suppress(DispatcherError):
                    error = self.ended() or error
                self.loaded.set_exception(error)


def _failed(error: DispatcherError) -> Future[Saved]:
    failed: Future[Saved] = Future()
    failed.set_exception(error)
    return failed
