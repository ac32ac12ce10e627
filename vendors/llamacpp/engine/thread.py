"""The engine in this process: load, step until closed, give the memory back.

``EngineLife`` is all of it, in whichever thread calls ``run``; ``EngineThread`` is the host (see
``host.Host``) that gives it a thread of its own. A worker process runs one too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from pathlib import Path

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import DispatcherError, EngineCrashed, OutOfMemory, Refused
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.embedding.embedder import EmbedLoop, LoadedPooled, PooledCall
from llmdispatcher.vendors.llamacpp.engine import keeping
from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop, Loaded
from llmdispatcher.vendors.llamacpp.engine.inbox import CLOSED, Box, EngineCall, Inbox, Job, crashed
from llmdispatcher.vendors.llamacpp.engine.keeping import Subject
from llmdispatcher.vendors.llamacpp.host import Host, Reporting, Vitals
from llmdispatcher.vendors.mailbox import fire

STACK_BYTES = 64 * 1024 * 1024
"""Of the engine's thread; address space, of which only what is used becomes memory. Enough for
``vocabulary.MAX_RUN`` characters, with a quarter to spare."""

CLOSE_S = 10.0
"""How long ``close`` waits for the thread; a step in progress is interrupted, so it is quick."""

Loader = Callable[[Callable[[], bool]], Loaded | LoadedPooled]
"""Loads the model in the engine's thread; its argument says whether to go on."""

_LOADING = "a bug in the engine while it loaded the model"

_starting = threading.Lock()
"""The size of a new thread's stack is a setting of the process: one at a time."""


def start_deep(thread: threading.Thread) -> None:
    """Start a thread with a stack of STACK_BYTES. Raises OutOfMemory if there is no room for it."""
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        except RuntimeError as error:
            raise OutOfMemory(
                f"no thread with a stack of {STACK_BYTES // 2**20} MiB could be started: {error}"
            ) from None
        finally:
            threading.stack_size(before)


def _loop(made: Loaded | LoadedPooled, inbox: Inbox) -> EngineLoop | EmbedLoop:
    """Make what serves a model of this kind."""
    if isinstance(made, LoadedPooled):
        return EmbedLoop(made, inbox)
    return EngineLoop(made, inbox)


class EngineLife:
    """One life of the engine: what callers reach it by, and ``run``, which is all that it does."""

    def __init__(self, load: Loader) -> None:
        self.inbox = Inbox()
        self.loaded: Future[None] = Future()
        self._load: Loader | None = load
        self.beats = 0
        """Counts what was done, so that others can tell work from a hang."""
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load

    def submit(self, work: Work, box: Box | None = None) -> EngineCall:
        """Queue a request, whose pieces go into ``box``."""
        wake = self.inbox.cancel
        call = (
            EngineCall(work, wake, box)
            if isinstance(work, Request)
            else PooledCall(work, wake, box)
        )
        self.inbox.submit(call)
        return call

    def run(self) -> None:
        """Load, serve until the inbox is closed, and give the memory back. Raises nothing."""
        error: DispatcherError = EngineCrashed(_LOADING)
        loop: EngineLoop | EmbedLoop | None = None
        doing = _LOADING
        try:
            made = self._made()
            loop = _loop(made, self.inbox)
            doing = "a bug in the engine"
            self.inbox.attach(lambda on: made.backend.interrupt(on=on))
            self.loaded.set_result(None)
            while self.inbox.wait():
                while loop.step() and not self.inbox.closing:
                    self.beats += 1
            error = Refused(CLOSED)
        except DispatcherError as raised:
            error = Refused(CLOSED) if self.inbox.closing else raised
        except Exception as bug:  # noqa: BLE001 - no caller may wait for ever; nothing is printed
            error = crashed(bug, doing)
        finally:
            self._end(loop, error)

    def trim(self) -> None:
        """Drop what is remembered of finished conversations, soon."""
        with contextlib.suppress(Refused):  # it ends, and gives all of its memory back
            self.inbox.ask(Job(lambda loop: loop.trim()))

    def _made(self) -> Loaded | LoadedPooled:
        """Load, and forget how: what was needed for it may lead back to a dropped dispatcher."""
        load, self._load = self._load, None
        if load is None:
            raise EngineCrashed("a model is loaded once in each life")
        return load(lambda: not self.inbox.closing)

    def _end(self, loop: EngineLoop | EmbedLoop | None, error: DispatcherError) -> None:
        """Leave nobody waiting."""
        self.inbox.error = error
        self.inbox.close()
        self.inbox.attach(None)
        if loop is not None:
            loop.close(error)
        fire([call.box.fail(copy(error)) for call in self.inbox.drain()])
        for job in self.inbox.jobs():  # asked for while a load went on that failed
            job.refuse(error)
        if not self.loaded.done():
            self.loaded.set_exception(error)


class EngineThread:
    """A host in this process. See ``host.Host``."""

    def __init__(
        self,
        load: Loader,
        subject: Subject,
        reporting: Reporting | None = None,
        before: Host | None = None,
    ) -> None:
        """Begin to load.

        ``reporting`` is what the load reports to; ``before`` a host that has ended, whose memory is
        given back first.
        """
        self._reporting = reporting
        self._life = EngineLife(load)
        self._subject = subject
        self._before = before
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=self._run, name=f"llama-{subject.model}", daemon=True
        )
        start_deep(self._thread)

    @property
    def loaded(self) -> Future[None]:
        """See ``host.Host.loaded``."""
        return self._life.loaded

    def ended(self) -> DispatcherError | None:
        """See ``host.Host.ended``. A forked child sees the parent's as it was."""
        inbox = self._life.inbox
        return inbox.error if inbox.closing and os.getpid() == self._pid else None

    def misused(self) -> DispatcherError | None:
        """See ``host.Host.misused``."""
        if os.getpid() != self._pid:
            return EngineCrashed(
                "this process was forked after the model began to load, and llama.cpp does not"
                " survive that: make a new Dispatcher in the child"
            )
        return None if self._reporting is None else self._reporting.misused()

    def submit(self, work: Work) -> EngineCall:
        """See ``host.Host.submit``."""
        self._check()
        return self._life.submit(work)

    def has_served(self) -> bool:
        """See ``host.Host.has_served``."""
        return self._life.inbox.has_served

    def counts(self) -> tuple[int, int]:
        """See ``host.Host.counts``."""
        return self._life.inbox.counts()

    def vitals(self) -> Vitals:
        """See ``host.Host.vitals``. What of its memory is the model's, nobody can tell."""
        return Vitals(pid=self._pid)

    def trim(self) -> None:
        """See ``host.Host.trim``."""
        self._life.trim()

    def count(self, request: Request) -> Future[Saved]:
        """See ``host.Host.count``."""
        self._check()
        return keeping.count(self._life.inbox, self._subject, request)

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """See ``host.Host.save``."""
        self._check()
        return keeping.save(self._life.inbox, self._subject, request, path)

    def restore(self, path: Path) -> Future[Saved]:
        """See ``host.Host.restore``."""
        self._check()
        return keeping.restore(self._life.inbox, self._subject, path)

    def stop(self) -> None:
        """See ``host.Host.stop``."""
        if os.getpid() == self._pid:  # a forked child has a copy of the locks, but not the thread
            self._life.inbox.close()

    def join(self) -> None:
        """See ``host.Host.join``; does not wait if the caller is the engine's own thread."""
        if os.getpid() == self._pid and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            before.join()
        self._life.run()

    def _check(self) -> None:
        if error := self.misused():
            raise error
