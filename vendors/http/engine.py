"""The engine of every HTTP vendor: who has models elsewhere, and is asked for them by a dialect."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from copy import copy
from functools import cache

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    DispatcherError,
    OfflineRefused,
    Overloaded,
    Refused,
    Unreachable,
)
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.vendors.contract import State, Status
from llmdispatcher.vendors.http.answer import Reading
from llmdispatcher.vendors.http.call import HttpCall
from llmdispatcher.vendors.http.lookout import Lookout, begin
from llmdispatcher.vendors.http.transport import Connections, Place
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Wire

WARM_S = 60.0
"""So long after it served a local server is believed to have its model loaded still; Ollama keeps
one for five minutes unless it is told otherwise."""


@attrs.frozen(kw_only=True)
class Outfit:
    """What an engine works with."""

    wire: Wire
    """Asks for pieces, unless the user wants none."""
    whole: Wire
    """Asks for a reply in one, unless the user always wants pieces."""
    place: Place
    cards: tuple[ModelCard, ...] = ()
    """The models that the user named; without any, the vendor is asked."""
    named_only: bool = False
    """Models that the vendor lists are served only where a request names one."""
    loads: bool = False
    """A server of one's own, which may have to load a model before it serves."""
    identity: str = ""
    """What stands behind all of its models: the address, and what goes into every request."""
    warm_s: float = WARM_S
    problem: str = ""
    """Why it cannot be asked at all: a key that is missing, a place that is elsewhere."""
    problem_kind: type[AuthRejected | OfflineRefused] = AuthRejected
    key_fingerprint: str = ""
    """See ``contract.Keyed``."""
    once_header: str = ""
    """In which ``work.once`` is sent, if it is."""


class HttpEngine:
    """See ``contract.Engine``."""

    def __init__(self, outfit: Outfit) -> None:
        self._outfit = outfit
        self.problem = outfit.problem
        """See ``Outfit.problem``."""
        self.key_fingerprint = outfit.key_fingerprint
        """See ``contract.Keyed``."""
        self.names_requests = bool(outfit.once_header)
        """See ``contract.Naming``."""
        self._connections = Connections(outfit.place)
        self._lookout = Lookout(
            outfit.wire, self._connections, outfit.cards, named_only=outfit.named_only
        )
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._calls: weakref.WeakSet[HttpCall] = weakref.WeakSet()
        """Those under way; under the lock, since no two threads may change a set at once."""
        self._warm: dict[str, float] = {}
        self._loading: dict[str, Future[None]] = {}
        self._closed = False

    def cards(self) -> Sequence[ModelCard]:
        """Return the models that are known now; see ``found``."""
        return self._lookout.cards()

    def found(self, *, afresh: bool = False) -> Future[None]:
        """See ``contract.Finder.found``."""
        return _done() if self._outfit.problem else self._lookout.found(afresh=afresh)

    def status(self) -> Status:
        """Return the state as last seen; an old one is looked at again meanwhile."""
        running = len(self._calls)
        if self._closed:
            return Status(State.CLOSED)
        if self._outfit.problem:
            return Status(State.FAILED, self._outfit.problem)
        health, error = self._lookout.health(), self.error()
        unlisted = f"its models could not be listed: {error}" if error else ""
        if unlisted and not self.cards():
            return Status(State.FAILED, unlisted, running=running)
        if health is None or health.is_loading:
            state = State.ABSENT if health is None else State.LOADING
            return Status(state, "" if health is None else health.detail, running=running)
        if not health.is_ready:
            return Status(State.FAILED, health.detail, running=running)
        state = State.BUSY if running else State.READY
        told = unlisted or health.detail
        return Status(state, told, running=running, loaded=health.loaded)

    def identity(self, model: str) -> str:  # noqa: ARG002 - its name is in what is asked
        """See ``contract.Identified``."""
        return self._outfit.identity

    def error(self) -> DispatcherError | None:
        """Return why the models could not be listed, if they could not."""
        return self._lookout.error

    def load(self, model: str) -> Future[None]:
        """Have a server of one's own load a model; elsewhere there is nothing to load."""
        if self._closed:
            return _failed(Refused("the vendor is closed; make a new Dispatcher"))
        if not self._outfit.loads or self._warm.get(model, 0.0) > time.monotonic():
            return _done()
        with self._lock:
            if (loading := self._loading.get(model)) is not None:
                return loading
            loading = self._loading[model] = Future()
        loading.set_running_or_notify_cancel()  # nobody who stops waiting stops the load
        if (failure := begin(lambda: self._load(model, loading), "load")) is not None:
            self._loaded(model, loading, failure)
        return loading

    def _load(self, model: str, loading: Future[None]) -> None:
        error: DispatcherError | None = BadReply("a bug in the vendor; stderr has more")
        try:
            self._lookout.wait_ready(self._outfit.wire.loading(model))
            self._warm[model] = time.monotonic() + self._outfit.warm_s
            error = None
        except DispatcherError as raised:
            error = raised
        finally:
            self._loaded(model, loading, error)

    def _loaded(self, model: str, loading: Future[None], error: DispatcherError | None) -> None:
        with self._lock:
            self._loading.pop(model, None)
        if error is None:
            loading.set_result(None)
        else:
            loading.set_exception(error)

    def count(self, request: Request, model: str) -> Future[int | None]:
        """See ``contract.Counter.count``."""
        counting: Future[int | None] = Future()
        counting.set_running_or_notify_cancel()  # who stops waiting stops nobody
        try:
            ask = None if self._outfit.problem else self._counting(request, model)
        except DispatcherError as error:
            counting.set_exception(error)
            return counting
        if ask is None:
            counting.set_result(None)
        elif (failure := begin(lambda: self._count(ask, counting), "count")) is not None:
            counting.set_exception(failure)
        return counting

    def _counting(self, request: Request, model: str) -> Ask | None:
        return self._outfit.wire.counting(request, self._card(model))

    def _count(self, ask: Ask, counting: Future[int | None]) -> None:
        error: DispatcherError = BadReply("a bug in the vendor; stderr has more")
        tokens = None
        try:
            tokens = self._lookout.count(ask)
        except DispatcherError as raised:
            error = raised
        finally:
            if tokens is None:
                counting.set_exception(error)
            else:
                counting.set_result(tokens)

    def submit(self, work: Work, model: str) -> HttpCall:
        """See ``contract.Engine.submit``."""
        deadlines = work.deadlines or Deadlines()
        call = HttpCall(
            self._connections,
            self._reading(work, model),
            deadlines.connect_s,
            lambda ended, error: self._ended(ended, model, error),
        )
        with self._lock:
            if not call.is_over:
                self._calls.add(call)
            is_closed = self._closed
        if is_closed:
            call.cancel()
        return call

    def _reading(self, work: Work, model: str) -> Reading | DispatcherError:
        if self._closed:
            return Refused("the vendor is closed; make a new Dispatcher")
        if self._outfit.problem:
            return self._outfit.problem_kind(self._outfit.problem)
        is_whole = isinstance(work, Request) and not work.streamed
        wire = self._outfit.whole if is_whole else self._outfit.wire
        try:
            exchanges = wire.exchanges(work, self._card(model))
        except DispatcherError as error:
            return error
        if work.once and self._outfit.once_header:
            exchanges = _named(exchanges, self._outfit.once_header, work.once)
        return Reading(exchanges, self._fault)

    def _fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer stands for; a vendor may repeat the key in it."""
        return self._outfit.wire.fault(head, self._connections.blotted(body))

    def _card(self, model: str) -> ModelCard:
        known = (card for card in self._lookout.cards() if card.model == model)
        return next(known, None) or self._outfit.wire.card(model)

    def _ended(self, call: HttpCall, model: str, error: DispatcherError | None) -> None:
        with self._lock:
            self._calls.discard(call)
        if error is None:
            self._lookout.served()
            self._warm[model] = time.monotonic() + self._outfit.warm_s
        elif isinstance(error, Unreachable | Overloaded):
            self._warm.pop(model, None)
            self._lookout.failed()

    def close(self) -> None:
        """See ``contract.Engine.close``."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        self._lookout.close()
        for call in calls:
            call.cancel(Refused("the dispatcher was closed"))
        self._connections.close()


def _named(exchanges: Sequence[Exchange], header: str, name: str) -> list[Exchange]:
    """Name each ask; where there are several, each of them is a request of its own there."""
    names = [name, *(f"{name}-{place}" for place in range(1, len(exchanges)))]
    return [
        attrs.evolve(each, ask=attrs.evolve(each.ask, own_header=(header, its)))
        for each, its in zip(exchanges, names, strict=True)
    ]


@cache
def _done() -> Future[None]:
    """Return a future that is done; one for all, since nothing can come of it any more."""
    future: Future[None] = Future()
    future.set_result(None)
    return future


def _failed(error: DispatcherError) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(copy(error))
    return future
