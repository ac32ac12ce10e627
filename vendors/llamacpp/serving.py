"""The engine of a ``LlamaCpp``: loads the model on demand, and again after it died.

A model's lives are hosts (``host.Host``), one after another; ``hosting`` makes one. A load that
runs out of memory is tried again with less (``plan.squeeze``) before it fails; what to do after a
crash is ``recovery``'s to say. Callers that wait for a load wait for all of its lives.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    DispatcherError,
    ModelNotFound,
    OutOfMemory,
    Refused,
)
from llmdispatcher.models.event import Event
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.contract import Call, Footprint, Report, State, Status
from llmdispatcher.vendors.llamacpp import hosting, identity, recovery
from llmdispatcher.vendors.llamacpp.host import Reporting
from llmdispatcher.vendors.llamacpp.plan.squeeze import RUNGS
from llmdispatcher.vendors.llamacpp.vendor import card_of

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.host import Host
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

CLOSED = "the dispatcher was closed"


class LlamaCppEngine:
    """Serves one model, in one host at a time. See ``contract.Engine``."""

    def __init__(self, spec: LlamaCpp, report: Report) -> None:
        self._spec = spec
        self.report = report
        self._lock = threading.RLock()  # a signal handler may close while this thread loads
        self._closed = False
        self._host: Host | None = None
        self._left: Host | None = None
        """The last one that was unloaded, which may still hold its memory."""
        self._loading: Future[None] | None = None
        self._recovery = recovery.Recovery()
        self._noted: Host | None = None
        """The host whose end the recovery knows of."""
        self._planned: tuple[int, Footprint] | None = None
        """What the model in memory was planned to take, and on which rung: another plan would see
        other free memory."""
        self._forget: weakref.finalize[..., LlamaCppEngine] | None = None
        self._card = card_of(spec)
        self._cards = (self._card,)

    def cards(self) -> Sequence[ModelCard]:
        """Return the one card, made from the file's header."""
        return self._cards

    def identity(self, model: str) -> str:
        """See ``contract.Identified``: its files as they are now, and what it is told to do."""
        return identity.identity(self._spec) if model == self._card.model else ""

    def status(self) -> Status:
        """Return the state now."""
        with self._lock:
            host, loading = self._host, self._loading
            if self._closed:
                return Status(State.CLOSED)
            if host is None or loading is None:
                return Status(State.ABSENT)
            if not loading.done():
                again = self._recovery.crashes or self._recovery.rung
                return Status(State.RESTARTING if again else State.LOADING)
            error = loading.exception() or host.ended()
            if error is not None:
                self._note(host)
                refusal = self._recovery.refusal(time.monotonic())
                return Status(State.BROKEN if refusal else State.FAILED, str(refusal or error))
        waiting, running = host.counts()
        vitals = host.vitals()
        return Status(
            State.BUSY if running else State.READY,
            waiting=waiting,
            running=running,
            memory_bytes=vitals.memory_bytes,
            gpu_bytes=vitals.gpu_bytes,
            tokens_per_s=vitals.tokens_per_s,
        )

    def load(self, model: str) -> Future[None]:
        """See ``contract.Engine.load``. A failed load is tried again."""
        if model != self._card.model:
            return _failed(ModelNotFound(f"there is only {self._card.model!r} here"))
        with self._lock:
            if self._closed:
                return _failed(Refused(CLOSED))
            host = self._host
            if host is not None and (error := host.misused()):
                return _failed(error)
            loading = self._loading
            if loading is None or (loading.done() and self._is_over(host, loading)):
                loading = self._load_again(host or self._left)
        return loading

    def _is_over(self, host: Host | None, loading: Future[None]) -> bool:
        return host is None or loading.exception() is not None or host.ended() is not None

    def _load_again(self, before: Host | None) -> Future[None]:
        """Begin the next life, if the last ones let it. Called with the lock held."""
        if before is not None:
            self._note(before)
        now_s = time.monotonic()
        if refusal := self._recovery.refusal(now_s):
            return _failed(refusal)
        loading: Future[None] = Future()
        loading.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        wait_s = self._recovery.wait_s(now_s, random.random())  # noqa: S311 - spreads restarts
        try:
            self._begin(loading, before, wait_s)
        except DispatcherError as error:
            return _failed(error)
        self._loading = loading
        return loading

    def _begin(self, loading: Future[None], before: Host | None, wait_s: float) -> None:
        """Make a host, and have it settle the load when it is done. Raises a DispatcherError."""
        life = hosting.Life(
            spec=self._spec,
            card=self._card,
            report=Reporting(_reporter(weakref.ref(self))),
            rung=self._recovery.rung,
            wait_s=wait_s,
            before=before,
        )
        host = hosting.begin(life)
        self._host = host
        if self._forget is not None:
            self._forget.detach()
        # An engine that is dropped without close, or is alive when the interpreter ends, must not
        # leave a thread inside llama.cpp, nor a process behind.
        self._forget = weakref.finalize(self, _end, host)
        if self._closed:  # by a signal handler, just now
            host.stop()
        engine = weakref.ref(self)
        host.loaded.add_done_callback(lambda done: _settle(engine, host, done, loading))

    def loaded(self, host: Host, error: BaseException | None, loading: Future[None]) -> None:
        """Take the end of a life's load: settle the callers', or begin the next life with less."""
        with self._lock:
            is_ours = self._host is host and not self._closed  # else it was unloaded meanwhile
            if is_ours and isinstance(error, OutOfMemory) and self._recovery.rung < RUNGS:
                self._note(host)
                try:
                    return self._begin(loading, host, 0.0)
                except DispatcherError as failed:
                    error = failed
        return _done(loading, error)

    def _note(self, host: Host) -> None:
        """Tell the recovery how a life ended, once."""
        if host is self._noted:
            return
        loaded = host.loaded
        error = host.ended() or (loaded.exception() if loaded.done() else None)
        if isinstance(error, DispatcherError):
            self._noted = host
            self._recovery.ended(error, served=host.has_served(), now_s=time.monotonic())

    def submit(self, work: Work, model: str) -> Call:
        """See ``contract.Engine.submit``."""
        return self._there(model).submit(work)

    def count(self, request: Request, model: str) -> Future[int | None]:
        """See ``contract.Counter.count``. None while the model is not loaded."""
        with self._lock:
            host, loading = self._host, self._loading
        is_there = host is not None and loading is not None and loading.done()
        counted: Future[int | None] = Future()
        if host is None or not is_there or host.ended() is not None or model != self._card.model:
            counted.set_result(None)
            return counted
        told = host.count(request)
        if told is None:
            counted.set_result(None)
        else:
            told.add_done_callback(lambda done: _hand_on(done, counted))
        return counted

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.save``."""
        return self._there(self._card.model).save(request, path)

    def restore(self, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.restore``."""
        return self._there(self._card.model).restore(path)

    def _there(self, model: str) -> Host:
        with self._lock:
            host = self._host
        if host is None or model != self._card.model:
            raise ModelNotFound(f"the model {model!r} is not loaded")
        return host

    def footprint(self, model: str) -> Footprint:
        """See ``contract.Resident.footprint``."""
        if model != self._card.model:
            raise ModelNotFound(f"there is only {self._card.model!r} here")
        with self._lock:
            host, rung = self._host, self._recovery.rung
            known = self._planned if host is not None else None
        if known is None or known[0] != rung:
            known = rung, hosting.footprint(self._spec, rung)
            self._planned = known
        taken = None if host is None else host.vitals()
        if taken is None or taken.memory_bytes is None:
            return known[1]
        return attrs.evolve(known[1], memory_bytes=max(known[1].memory_bytes, taken.memory_bytes))

    def unload(self, model: str) -> Future[None]:
        """See ``contract.Resident.unload``."""
        if model != self._card.model:
            return _failed(ModelNotFound(f"there is only {self._card.model!r} here"))
        with self._lock:
            host, self._host, self._loading = self._host, None, None
            self._left = host or self._left
            if self._forget is not None:
                self._forget.detach()
        gone: Future[None] = Future()
        if host is None:
            gone.set_result(None)
            return gone
        host.stop()

        def wait() -> None:
            host.join()
            gone.set_result(None)

        gone.set_running_or_notify_cancel()
        try:
            threading.Thread(target=wait, name=f"unload-{model}", daemon=True).start()
        except RuntimeError as error:  # it ends all the same, and nobody waits for that
            gone.set_exception(OutOfMemory(f"no thread could be started: {error}"))
        return gone

    def close(self) -> None:
        """See ``contract.Engine.close``."""
        with self._lock:
            self._closed = True
            hosts = self._host, self._left
        for host in hosts:
            if host is not None:
                host.stop()
                host.join()


def _reporter(engine: weakref.ref[LlamaCppEngine]) -> Report:
    """Return what a host reports to.

    A host's thread must not keep alive what a listener leads back to, such as a dispatcher that was
    dropped.
    """

    def report(event: Event) -> None:
        if (there := engine()) is not None:
            there.report(event)

    return report


def _settle(
    engine: weakref.ref[LlamaCppEngine], host: Host, done: Future[None], loading: Future[None]
) -> None:
    """Hand the end of a load on; to the callers at once where the engine was dropped."""
    error = done.exception()
    there = engine()
    if there is None:
        _done(loading, error)
    else:
        there.loaded(host, error, loading)


def _hand_on(done: Future[Saved], counted: Future[int | None]) -> None:
    error = done.exception()
    if error is None:
        counted.set_result(done.result().tokens)
    else:
        counted.set_exception(error)


def _done(future: Future[None], error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _failed(error: DispatcherError) -> Future[None]:
    failed: Future[None] = Future()
    failed.set_exception(error)
    return failed


def _end(host: Host) -> None:
    host.stop()
    host.join()
