"""Gives models their memory: does to the engines what ``residency`` decides.

What happens is noted, and whoever notes it carries the notes out, unless another thread is at it,
which then does these too: nobody waits for a lock, no event loop is blocked, and a note may come
from a callback or from a garbage collection in the middle of anything. Whoever wants to use a model
takes a *lease*, and waits for its future.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llmdispatcher.clerk import Clerk
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import DispatcherError, ModelTooLarge, Refused, VendorError
from llmdispatcher.models.event import ModelUnloaded
from llmdispatcher.residency import Residency
from llmdispatcher.rooms import Room, Rooms
from llmdispatcher.tenancy import Action, Admit, Budget, Load, Pause, Refuse, Stage, Unload, Weigh
from llmdispatcher.vendors.contract import Engine, Footprint, Report, State

if TYPE_CHECKING:
    from concurrent.futures import Future

R = TypeVar("R")

CLOSED = "the dispatcher was closed"

_SERVING = (State.READY, State.BUSY)


class Lease:
    """One request's claim on a model: while it is held, the model is not unloaded."""

    __slots__ = ("__weakref__", "_landlord", "_room", "ready")

    def __init__(self, landlord: Landlord, room: Room) -> None:
        self._landlord: Landlord | None = landlord
        self._room = room
        self.ready: Future[None] | None = None

    def claim(self) -> Future[None]:
        """Ask for the model; the future is done when it is loaded, or cannot be."""
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

        landlord = self._landlord
        if landlord is None or self._room.resident is None:
            return self._room.load()
        self.ready = Future()
        landlord.enter(self._room, self)
        if self.ready.done() or not landlord.has_begun(self._room.name):
            return self.ready
        joined = self._room.load()  # an engine knows whom it must not keep waiting, such as itself
        return joined if joined.done() and joined.exception() else self.ready

    def confirm(self) -> Future[None]:
        """Look whether the model is still there, once claimed: if it has died it is loaded again.

        An engine also knows who must not use it, such as a process that was forked.
        """
        loading = self._room.load()
        if self._landlord is not None and not loading.done():
            self._landlord.reloading(self._room, loading)
        return loading

    def end(self) -> None:
        """Give the model back, or wait no more. Never blocks; the second time does nothing."""
        landlord, self._landlord = self._landlord, None
        if landlord is not None and self.ready is not None:
            landlord.leave(self._room, self)


class Landlord:
    """Loads and unloads the models of one dispatcher within its budget.

    Models of engines that are not ``contract.Resident`` are loaded and not counted.
    """

    def __init__(self, budget: Budget | None = None, report: Report = lambda _: None) -> None:
        self._residency: Residency[Lease] = Residency(budget or Budget())
        self._report = report
        self._rooms = Rooms()
        self._notes: deque[Callable[[], None]] = deque()
        """What happened and was not carried out yet: at most a few for each request."""
        self._news: deque[Callable[[], object]] = deque()
        """What others are to hear when this thread is done: at most one for each note."""
        self._is_closed = False
        self._leaving: dict[str, list[Future[None]]] = {}
        self._forget: weakref.finalize[..., Landlord] | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin in this process; in one that was forked, again: threads are left behind there."""
        self._pid = os.getpid()
        self._baton = threading.Lock()
        self._rooms.begin()
        self._beginning = threading.Lock()
        """Held while an engine is told to load: it may report before it is noted that it loads."""
        me = weakref.ref(self)
        self._clerk = Clerk(lambda: _ring(me))
        if self._forget is not None:
            self._forget.detach()
        self._forget = weakref.finalize(self, self._clerk.close)
        self._forget.atexit = False  # the thread ends with the interpreter anyway

    # -- what others ask for -------------------------------------------------------------------

    def lease(self, card: ModelCard, engine: Engine) -> Lease:
        """Make a lease on a model, not yet begun."""
        return Lease(self, self._rooms.of(card, engine))

    def unload(self, card: ModelCard, engine: Engine) -> Future[None] | None:
        """Unload a model when nobody uses it; None where there is nothing that could be unloaded.

        Who asks for it meanwhile waits for its next load.
        """
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

        room = self._rooms.of(card, engine)
        if room.resident is None:
            return None
        gone: Future[None] = Future()
        self._note(lambda: self._ask(room.name, gone))
        return gone

    def waiting(self, name: str) -> int:
        """Return how many requests wait for a model to be loaded."""
        return self._waiters(self._rooms.latest(name))

    def load_s(self, name: str) -> float | None:
        """Return how long the last load of a model took."""
        model = self._residency.model(self._rooms.latest(name))
        return None if model is None else model.load_s

    def obey(self, budget: Budget) -> None:
        """Keep to another budget from now on."""
        self._note(lambda: self._residency.obey(budget))

    def forget(self, engine: Engine) -> None:
        """Forget the models of an engine that was closed."""
        self._note(lambda: self._rooms.forget(engine, self._residency.forget))

    def close(self) -> None:
        """Fail whoever waits, and load nothing any more. Idempotent; the engines stay open."""
        self._is_closed = True
        self._clerk.close()
        self._note(self._evict)

    def _waiters(self, name: str) -> int:
        model = self._residency.model(name)
        return 0 if model is None else len(model.waiters)

    # -- what leases tell ----------------------------------------------------------------------

    def enter(self, room: Room, lease: Lease) -> None:
        """Have a lease wait for its model."""
        self._note(lambda: self._residency.enter(room.name, lease, time.monotonic()))

    def leave(self, room: Room, lease: Lease) -> None:
        """Take a lease back."""
        self._note(lambda: self._residency.leave(room.name, lease, time.monotonic()))

    def has_begun(self, name: str) -> bool:
        """Whether this model is being loaded, once a load that is just begun has been noted.

        Else a listener that a new load reports to would be taken for one that may wait for it.
        """
        if not self._clerk.is_here():
            with self._beginning:
                pass
        return self.is_loading(name)

    def is_loading(self, name: str) -> bool:
        """Whether this model is being loaded."""
        model = self._residency.model(name)
        return model is not None and model.stage is Stage.LOADING

    def reloading(self, room: Room, loading: Future[None]) -> None:
        """Take note that a model had died and is being loaded again."""
        self._note(lambda: self._begun(room.name, loading))

    # -- carrying it out -----------------------------------------------------------------------

    def look(self) -> None:
        """Look whether there is something to do."""
        self._note(lambda: None)

    def _note(self, what: Callable[[], None]) -> None:
        """Note what happened, and carry out all notes unless somebody is at it."""
        if os.getpid() != self._pid:
            self._begin()
        self._notes.append(what)
        while self._notes and self._baton.acquire(blocking=False):
            try:
                while self._notes:
                    self._notes[0]()  # before it is taken away: an interrupt must not lose it
                    self._notes.popleft()
                self._act()
            finally:
                self._baton.release()
        while self._news:
            try:
                news = self._news.popleft()
            except IndexError:  # another thread tells it
                return
            news()

    def _act(self) -> None:
        """Do what there is to do. Only the clerk asks engines, in a thread that lasts.

        Else it might be an engine's own thread, or one that is gone before what it started.
        """
        while (action := self._residency.decide(time.monotonic())) is not None:
            if self._is_closed:
                return self._evict()
            match action:
                case Pause(until_s):
                    return self._clerk.ring_at(until_s)
                case Load() | Unload() if not self._clerk.is_here():
                    return self._clerk.ring_at(0.0)
            self._do(action)
        return None

    def _do(self, action: Action) -> None:
        """Do one thing. Each can be done twice: it may be interrupted before it is noted."""
        match action:
            case Admit(name):
                self._admit(name)
            case Weigh(name):
                self._clerk.do(partial(self._weigh, name))
                self._residency.weighing(name)
            case Load(name):
                with self._beginning:
                    self._begun(name, _tried(self._rooms[name].load))
            case Unload(name, reason):
                self._unload(name, reason)
            case Refuse(name, error):
                self._fail(name, error)

    def _admit(self, name: str) -> None:
        """Let in who waits for a model; where it has died, it waits for its turn to be loaded."""
        if self._residency.is_loading():  # else whoever is let in has it loaded at once
            status = _tried(self._rooms[name].engine.status)
            if isinstance(status, DispatcherError) or status.state not in _SERVING:
                return self._residency.gone(name)
        for lease in self._residency.admit(name, time.monotonic()):
            self._news.append(partial(_settle, lease.ready, None))
        return None

    def _begun(self, name: str, loading: Future[None] | DispatcherError) -> None:
        """Wait for the end of a load, without being kept alive by it."""
        if isinstance(loading, DispatcherError):
            return self._fail(name, loading)
        if self.is_loading(name):
            return None
        me = weakref.ref(self)
        loading.add_done_callback(lambda done: _loaded(me, name, done))
        return self._residency.begun(name, time.monotonic())

    def loaded(self, name: str, error: BaseException | None) -> None:
        """Take note of the end of a load."""
        if error is not None:
            return self._note(lambda: self._fail(name, error))
        self._clerk.do(partial(self._weigh_again, name))
        return self._note(lambda: self._residency.loaded(name, time.monotonic()))

    def _fail(self, name: str, error: BaseException) -> None:
        for lease in self._residency.failed(name):
            self._news.append(partial(_settle, lease.ready, error))
        self._left(name)

    def _unload(self, name: str, reason: str) -> None:
        room = self._rooms[name]
        assert room.resident is not None  # noqa: S101 - for the type checker
        going = _tried(partial(room.resident.unload, room.card.model))
        self._residency.unloading(name)
        if isinstance(going, DispatcherError):
            return self._gone(name, reason)
        going.add_done_callback(lambda _: self._note(partial(self._gone, name, reason)))
        return None

    def _gone(self, name: str, reason: str) -> None:
        """Take note that a model was unloaded; where that failed, there is nothing more to do."""
        card = self._rooms[name].card
        self._residency.gone(name)
        event = ModelUnloaded(vendor=card.vendor, model=card.model, reason=reason)
        self._news.append(partial(self._report, event))
        self._left(name)

    def _ask(self, name: str, gone: Future[None]) -> None:
        if self._is_closed or not self._residency.ask(name):
            return self._news.append(partial(_settle, gone, None))
        return self._leaving.setdefault(name, []).append(gone)

    def _left(self, name: str) -> None:
        """Tell those who asked to unload a model."""
        for gone in self._leaving.pop(name, ()):
            self._news.append(partial(_settle, gone, None))

    def _weigh(self, name: str) -> None:
        """Find out what a model would take. Runs in the clerk's thread: files may be read."""
        found = self._footprint(name)
        self._note(lambda: self._weighed(name, found))

    def _weighed(self, name: str, found: Footprint | DispatcherError) -> None:
        if isinstance(found, ModelTooLarge):  # perhaps only while others are there
            found = self._residency.crowded(name, found.needed_bytes) or found
        if isinstance(found, DispatcherError):
            return self._fail(name, found)
        return self._residency.weighed(name, found)

    def _weigh_again(self, name: str) -> None:
        """Find out whether a model that is loaded takes more than was thought."""
        found = self._footprint(name)
        if isinstance(found, Footprint):
            self._note(lambda: self._residency.grown(name, found))

    def _evict(self) -> None:
        """Fail whoever waits: the dispatcher is closed."""
        for name in self._rooms.names():
            if self._waiters(name) or name in self._leaving:
                self._fail(name, Refused(CLOSED))

    def _footprint(self, name: str) -> Footprint | DispatcherError:
        room = self._rooms.get(name)
        if room is None or room.resident is None:
            return VendorError("it was closed")
        return _tried(partial(room.resident.footprint, room.card.model))


def _tried(ask: Callable[[], R]) -> R | DispatcherError:
    """Ask an engine for something; an error is an answer."""
    try:
        return ask()
    except DispatcherError as error:
        return error
    except Exception as bug:  # noqa: BLE001 - foreign code: whoever waits for the model is told
        return VendorError(f"a bug in the vendor: {type(bug).__name__}: {bug}")


def _settle(future: Future[None] | None, error: BaseException | None) -> None:
    """End a future, unless it has ended."""
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _ring(landlord: weakref.ref[Landlord]) -> None:
    if (there := landlord()) is not None:
        there.look()


def _loaded(landlord: weakref.ref[Landlord], name: str, done: Future[None]) -> None:
    if (there := landlord()) is not None:
        there.loaded(name, done.exception())
