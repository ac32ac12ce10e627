"""Finds out which models a vendor has and whether it would serve, off the path of requests.

Whoever asks gets what is known now; what is old is looked at again meanwhile, in a thread that ends
with it. A vendor whose models were named by the user is believed, and not asked for its list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from http import HTTPStatus

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import BadReply, DispatcherError, TimedOut, Unreachable
from llmdispatcher.vendors.http.bound import Bound, Stopped
from llmdispatcher.vendors.http.transport import Broken, Connections, TooSlow
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


def fetch(connections: Connections, ask: Ask, bound: Bound) -> tuple[Head, bytes]:
    """Ask, and read all of the answer. Raises a VendorError where there is none."""
    try:
        with bound.hold(LOOK_S):
            bound.connect_until_s = time.monotonic() + CONNECT_S
            line = connections.open(ask, bound)
            try:
                parts, size = [], 0
                while chunk := line.read():
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        raise BadReply(f"the answer is longer than {MAX_BODY_BYTES} bytes")
            finally:
                line.close()
    except TooSlow as slow:
        phase, limit_s = ("connect", CONNECT_S) if slow.connecting else ("total", LOOK_S)
        raise TimedOut(phase, limit_s) from None
    except Broken as broken:
        raise Unreachable(f"no answer: {broken}") from None
    except Stopped:
        raise Unreachable("the vendor was closed") from None
    return line.head, b"".join(parts)


@attrs.frozen(kw_only=True)
class Known:
    """What a look found."""

    cards: tuple[ModelCard, ...] = ()
    error: DispatcherError | None = None
    seen_s: float = 0.0
    """When; monotonic."""


class Lookout:
    """Over one vendor."""

    def __init__(self, wire: Wire, connections: Connections, given: Sequence[ModelCard]) -> None:
        self._wire, self._connections, self._given = wire, connections, tuple(given)
        self._lock = threading.Lock()
        self._known = Known(cards=self._given)
        self._looking: Future[None] | None = None
        self._health: tuple[float, Health] | None = None
        self._probing = False
        self._bounds: set[Bound] = set()
        self._closed = False

    # -- models --------------------------------------------------------------------------------

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the models that are known now."""
        return self._known.cards

    @property
    def error(self) -> DispatcherError | None:
        """Why the last look at the list failed, if it did."""
        return self._known.error

    def found(self, *, afresh: bool) -> Future[None]:
        """See ``contract.Finder.found``."""
        listing = None if self._given else self._wire.listing()
        if listing is None:
            return _done()
        with self._lock:
            known, looking = self._known, self._looking
            age_s = time.monotonic() - known.seen_s
            limit_s = FRESH_S if afresh else FAILED_S if known.error else LIST_S
            is_old = not known.seen_s or age_s > limit_s
            if looking is None and is_old and not self._closed:
                self._looking = looking = Future()
                looking.set_running_or_notify_cancel()  # one who stops waiting stops nobody else
                self._start(lambda: self._look(listing, looking), "models")
        return _done() if looking is None or (known.seen_s and not afresh) else looking

    def _look(self, listing: Ask, looking: Future[None]) -> None:
        error: DispatcherError | None = BadReply("a bug in reading the list; stderr has more")
        cards: list[ModelCard] = []
        try:
            self._read(listing, cards)
            error = None
        except DispatcherError as raised:
            error = raised
        finally:
            kept = self._known.cards if error is not None else tuple(cards)
            with self._lock:
                self._known = Known(cards=kept, error=error, seen_s=time.monotonic())
                self._looking = None
            looking.set_result(None)

    def _read(self, listing: Ask, cards: list[ModelCard]) -> None:
        more: Ask | None = listing
        for _ in range(MAX_PAGES):
            if more is None:
                return
            head, body = self._fetch(more)
            if head.status != HTTPStatus.OK:
                raise self._wire.fault(head, body)
            listed = self._wire.listed(parsed(body))
            cards += listed.cards[: MAX_CARDS - len(cards)]
            more = listed.more

    # -- health --------------------------------------------------------------------------------

    def health(self) -> Health | None:
        """Return what the last probe found, and probe again if that is old; None before any."""
        with self._lock:
            known = self._health
            is_old = known is None or time.monotonic() - known[0] > FAILED_S
            starts = is_old and not self._probing and not self._closed
            self._probing = self._probing or starts
        if starts:
            self._start(self._probe, "health")
        return known[1] if known is not None else None

    def served(self) -> None:
        """Note that it served just now, which is the best of probes."""
        self._health = time.monotonic(), Health(is_ready=True)

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
            health = self._wire.probed(*self._fetch(self._wire.probe()))
        except DispatcherError as error:
            health = Health(is_ready=False, detail=str(error))
        self._health = time.monotonic(), health
        return health

    def wait_ready(self, loading: Ask | None) -> None:
        """Have a model loaded, and wait for a server that loads, for as long as that takes.

        A server that is not there is left to the request, whose error says so. Raises the error
        with which a load fails.
        """
        health = self.look()
        while health.is_loading and not self._closed:
            time.sleep(POLL_S)
            health = self.look()
        if loading is None or not health.is_ready:
            return
        bound = self._bound()
        try:
            with bound.hold(None):
                bound.connect_until_s = time.monotonic() + CONNECT_S
                line = self._connections.open(loading, bound)
                body = b"".join(iter(line.read, b""))
                line.close()
        except (Broken, TooSlow, Stopped) as broken:
            raise Unreachable(f"the connection broke while the model loaded: {broken}") from None
        finally:
            self._bounds.discard(bound)
        if line.head.status != HTTPStatus.OK:
            raise self._wire.fault(line.head, body)

    # -- both ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop looking."""
        self._closed = True
        for bound in list(self._bounds):
            bound.stop()

    def _fetch(self, ask: Ask) -> tuple[Head, bytes]:
        bound = self._bound()
        try:
            return fetch(self._connections, ask, bound)
        finally:
            self._bounds.discard(bound)

    def _bound(self) -> Bound:
        bound = Bound()
        self._bounds.add(bound)
        if self._closed:
            bound.stop()
        return bound

    def _start(self, work: Callable[[], object], what: str) -> None:
        threading.Thread(target=work, name=f"llmdispatcher-{what}", daemon=True).start()


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
