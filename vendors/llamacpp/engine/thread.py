"""A thread around the engine's loop: load, step until closed, give the memory back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import DispatcherError, EngineCrashed, OutOfMemory, Refused
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.embedding.embedder import EmbedLoop, LoadedPooled, PooledCall
from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop, Loaded
from llmdispatcher.vendors.llamacpp.engine.inbox import CLOSED, EngineCall, Inbox
from llmdispatcher.vendors.mailbox import fire

STACK_BYTES = 64 * 1024 * 1024
"""Of the engine's thread; address space, of which only what is used becomes memory. Enough for
``vocabulary.MAX_RUN`` characters, with a quarter to spare."""

CLOSE_S = 10.0
"""How long ``close`` waits for the thread; a step in progress is interrupted, so it is quick."""

_log = logging.getLogger("llmdispatcher.llamacpp")

Loader = Callable[[Callable[[], bool]], Loaded | LoadedPooled]
"""Loads the model in the engine's thread; its argument says whether to go on."""

_LOADING = "a bug in the engine while it loaded the model"


_starting = threading.Lock()
"""The size of a new thread's stack is a setting of the process: one at a time."""


def _start(thread: threading.Thread) -> None:
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


class EngineThread:
    """A thread around ``EngineLoop``, or ``EmbedLoop``: load, step until closed, give it back."""

    def __init__(self, load: Loader, name: str, before: EngineThread | None = None) -> None:
        """Begin to load; ``before`` is one that has ended, whose memory is given back first."""
        self.inbox = Inbox()
        self.loaded: Future[None] = Future()
        self._load: Loader | None = load
        self._before = before
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        _start(self._thread)

    def has_ended(self) -> bool:
        """Whether it serves no more: closed, failed to load, or ended by a bug."""
        return self.inbox.closing and os.getpid() == self._pid

    def misused(self) -> DispatcherError | None:
        """Return why the caller must not wait for this thread, if so."""
        if os.getpid() != self._pid:
            return EngineCrashed(
                "this process was forked after the model began to load, and llama.cpp does not"
                " survive that: make a new Dispatcher in the child"
            )
        if threading.current_thread() is self._thread:
            return Refused("on_event must not ask the model that reports to it: it would wait")
        return None

    def submit(self, work: Work) -> EngineCall:
        """Queue a request."""
        if error := self.misused():
            raise error
        wake = self.inbox.cancel
        call = EngineCall(work, wake) if isinstance(work, Request) else PooledCall(work, wake)
        self.inbox.submit(call)
        return call

    def stop(self) -> None:
        """Tell the thread to end, without waiting for it."""
        if os.getpid() == self._pid:  # a forked child has a copy of the locks, but not the thread
            self.inbox.close()

    def join(self) -> None:
        """Wait for the thread to end, unless it is the caller."""
        if os.getpid() == self._pid and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def _loaded(self) -> Loaded | LoadedPooled:
        """Load, and forget how: what was needed for it may lead back to a dropped dispatcher."""
        load, self._load = self._load, None
        before, self._before = self._before, None
        if before is not None:
            before.join()
        if load is None:
            raise EngineCrashed("a model is loaded once by each thread")
        return load(lambda: not self.inbox.closing)

    def _run(self) -> None:
        error: DispatcherError = EngineCrashed(_LOADING)
        loop: EngineLoop | EmbedLoop | None = None
        doing = _LOADING
        try:
            made = self._loaded()
            loop = _loop(made, self.inbox)
            doing = "a bug in the engine"
            self.inbox.attach(lambda on: made.backend.interrupt(on=on))
            self.loaded.set_result(None)
            while self.inbox.wait():
                while loop.step() and not self.inbox.closing:
                    pass
            error = Refused(CLOSED)
        except DispatcherError as raised:
            error = Refused(CLOSED) if self.inbox.closing else raised
        except Exception as bug:  # noqa: BLE001 - no caller may wait for ever; nothing is printed
            _log.exception(doing)
            error = EngineCrashed(f"{doing}: {type(bug).__name__}: {bug}")
        finally:
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
