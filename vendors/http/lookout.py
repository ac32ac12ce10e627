"""Finds out which models a vendor has and whether it would serve, off the path of requests.

Whoever asks gets what is known now; what is old is looked at again meanwhile, in a thread that ends
with it. A vendor whose models were named by the user is believed, and not asked for its list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache
from http import HTTPStatus

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import (
    BadReply,
    BadRequest,
    DispatcherError,
    TimedOut,
    Unreachable,
)
from llmdispatcher.vendors.http.bound import Bound, Stopped
from llmdispatcher.vendors.http.secret import frameless
from llmdispatcher.vendors.http.transport import Broken, Connections, Line, TooSlow
from llmdispatcher.vendors.wire.exchange import Ask, Head, Health, Wire
from llmdispatcher.vendors.wire.reading import parsed

CONNECT_S = 2.0
"""For a connection to look: who takes longer is not there, for now."""

LOOK_S = 10.0
"""For one answer; lists of hundreds of models take a second."""

POLL_S = 0.25
"""Between two looks at a server that loads."""

MAX_PAGES = 50
"""Of a list of models."""

MAX_CARDS = 20_000
"""Of a list of models; the longest known has some thousand."""

MAX_BODY_BYTES = 64 * 2**20
"""Of an answer."""

LIST_S = 300.0
"""How old a list may be before it is asked for again."""

FRESH_S = 1.0
"""The same where a model was asked for that is not on it: it may be new."""

FAILED_S = 5.0
"""The same for one that could not be read, and for health."""


def fetch(
    connections: Connections, ask: Ask, bound: Bound, limit_s: float | None = LOOK_S
) -> tuple[Head, bytes]:
    """Ask, and read all of the answer. Raises a VendorError where there is none."""
    try:
        with bound.hold(limit_s):
            bound.connect_within(CONNECT_S)
            line = connections.open(ask, bound)
            try:
                return line.head, _body(line)
            finally:
                line.close()
    except TooSlow as slow:
        connecting = slow.connecting and bound.is_late_to_connect
        phase, passed_s = ("connect", CONNECT_S) if connecting else ("total", limit_s or 0.0)
        raise TimedOut(phase, passed_s) from None
    except Broken as broken:
        told = (
            "the vendor was closed"
            if bound.is_stopped
            else f"no answer from {connections.root}: {broken}"
        )
        raise connections.hushed(Unreachable(told)) from None
    except Stopped as stopped:
        frameless(stopped)
        raise Unreachable("the vendor was closed") from None


def _body(line: Line) -> bytes:
    parts, size = [], 0
    while chunk := line.read():
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BadReply(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    return b"".join(parts)


def begin(work: Callable[[], object], what: str) -> DispatcherError | None:
    """Do work in a thread that nobody waits for; returns why none could be started."""
    try:
        threading.Thread(target=work, name=f"llmdispatcher-{what}", daemon=True).start()
    except RuntimeError as error:  # the interpreter is ending, or there are too many
        return Unreachable(f"no thread could be started: {error}")
    return None


@attrs.frozen(kw_only=True)
class Known:
    """What a look found."""

    cards: tuple[ModelCard, ...] = ()
    error: DispatcherError | None = None
    seen_s: float | None = None
    """When; monotonic. None is not yet."""


class Lookout:
    """Over one vendor."""

    def __init__(
        self,
        wire: Wire,
        connections: Connections,
        given: Sequence[ModelCard],
        clock: Callable[[], float] = time.monotonic,
        *,
        named_only: bool = False,
    ) -> None:
        self._wire, self._connections, self._given = wire, connections, tuple(given)
        self._clock, self._named_only = clock, named_only
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._known = Known(cards=self._given)
        self._looking: Future[None] | None = None
        self._health: tuple[float, Health] | None = None
        self._probing = False
        self._bounds: set[Bound] = set()
        self._closed = threading.Event()

    # -- models --------------------------------------------------------------------------------

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the models that are known now."""
        return self._known.cards

    @property
    def error(self) -> DispatcherError | None:
        """Why the last look at the list failed, if it did."""
        return self._known.error

    def found(self, *, afresh: bool = False) -> Future[None]:
        """See ``contract.Finder.found``."""
        listing = None if self._given else self._wire.listing()
        if listing is None:
            return _done()
        with self._lock:
            known, looking = self._known, self._looking
            limit_s = FRESH_S if afresh else FAILED_S if known.error else LIST_S
            is_old = known.seen_s is None or self._clock() - known.seen_s > limit_s
            if looking is None and is_old and not self._closed.is_set():
                looking = self._begin_to_look(listing)
        is_known = known.seen_s is not None and not afresh
        return _done() if looking is None or is_known else looking

    def _begin_to_look(self, listing: Ask) -> Future[None]:
        self._looking = looking = Future[None]()
        looking.set_running_or_notify_cancel()  # one who stops waiting stops nobody else
        if (failure := begin(lambda: self._look(listing), "models")) is not None:
            self._looked(failure, {})
        return looking

    def _look(self, listing: Ask) -> None:
        error: DispatcherError | None = BadReply("a bug in reading the list; stderr has more")
        cards: dict[str, ModelCard] = {}
        try:
            self._read(listing, cards)
            error = None
        except DispatcherError as raised:
            error = self._connections.hushed(raised)
        finally:
            self._looked(error, cards)

    def _looked(self, error: DispatcherError | None, cards: dict[str, ModelCard]) -> None:
        with self._lock:
            kept = self._known.cards if error is not None else tuple(cards.values())
            self._known = Known(cards=kept, error=error, seen_s=self._clock())
            looking, self._looking = self._looking, None
        if looking is not None:
            looking.set_result(None)

    def _read(self, listing: Ask, cards: dict[str, ModelCard]) -> None:
        """Read page after page, until one has nothing new: some servers know of no pages."""
        more: Ask | None = listing
        for _ in range(MAX_PAGES):
            if more is None:
                return
            if not self._connections.serves_threads:
                allowed = "given where there is an async_client only: the list is read in a thread"
                raise BadRequest("models", (), allowed)
            head, body = self._fetch(more)
            if not HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES:
                raise self._wire.fault(head, body)
            listed = self._wire.listed(parsed(body))
            known = len(cards)
            for card in listed.cards:
                if len(cards) < MAX_CARDS:
                    kept = attrs.evolve(card, named_only=True) if self._named_only else card
                    cards.setdefault(card.model, kept)
            more = listed.more if len(cards) > known else None

    # -- health --------------------------------------------------------------------------------

    def health(self) -> Health | None:
        """Return what the last probe found, and probe again if that is old; None before any."""
        with self._lock:
            known = self._health
            is_old = known is None or self._clock() - known[0] > FAILED_S
            starts = is_old and not self._probing and not self._closed.is_set()
            self._probing = self._probing or starts
        if starts and begin(self._probe, "health") is not None:
            self._probing = False
        return known[1] if known is not None else None

    def served(self) -> None:
        """Note that it served just now, which is the best of probes."""
        self._health = self._clock(), Health(is_ready=True)

    def failed(self) -> None:
        """Note that it failed in a way that a probe would show."""
        self._health = None

    def _probe(self) -> None:
        try:
            self.look()
        finally:
            with self._lock:
                self._probing = False

    def look(self) -> Health:
        """Probe now, and return what was found."""
        try:
            if self._connections.serves_threads:
                health = self._wire.probed(*self._fetch(self._wire.probe()))
                if health.is_ready and (holding := self._wire.holding()) is not None:
                    health = attrs.evolve(health, loaded=self._held(holding))
            else:
                health = Health(is_ready=True)  # as far as anybody can tell
        except DispatcherError as error:
            health = Health(is_ready=False, detail=str(error))
        self._health = self._clock(), health
        return health

    def _held(self, holding: Ask) -> tuple[str, ...] | None:
        """Ask which models are in memory; a server that does not tell serves all the same."""
        try:
            head, body = self._fetch(holding)
            return self._wire.held(parsed(body)) if head.status == HTTPStatus.OK else None
        except DispatcherError:
            return None

    def wait_ready(self, loading: Ask | None) -> None:
        """Have a model loaded, and wait for a server that loads, for as long as that takes.

        A server that is not there is left to the request, whose error says so. Raises the error
        with which a load fails.
        """
        health = self.look()
        while health.is_loading and not self._closed.wait(POLL_S):
            health = self.look()
        if loading is None or not health.is_ready or not self._connections.serves_threads:
            return
        head, body = self._fetch(loading, endless=True)
        if not HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._connections.hushed(self._wire.fault(head, body))

    # -- both ----------------------------------------------------------------------------------

    def count(self, counting: Ask) -> int:
        """Ask how many tokens a prompt has. Raises the error with which that fails."""
        head, body = self._fetch(counting)
        if not HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._connections.hushed(self._wire.fault(head, body))
        return self._wire.counted(parsed(body))

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        with self._lock:
            bounds = list(self._bounds)
        for bound in bounds:
            bound.stop()

    def _fetch(self, ask: Ask, *, endless: bool = False) -> tuple[Head, bytes]:
        """Fetch, until closed; what comes back has no keys in it that were sent."""
        bound = Bound()
        with self._lock:
            self._bounds.add(bound)
        if self._closed.is_set():
            bound.stop()
        try:
            head, body = fetch(self._connections, ask, bound, None if endless else LOOK_S)
        finally:
            with self._lock:
                self._bounds.discard(bound)
        return head, self._connections.blotted(body)


@cache
def _done() -> Future[None]:
    """Return a future that is done; one for all, since nothing can come of it any more."""
    future: Future[None] = Future()
    future.set_result(None)
    return future
