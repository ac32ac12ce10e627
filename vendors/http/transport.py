"""Sends requests and hands over what comes.

A vendor has one ``Connections``: a pool for threads, and one for each event loop that asks. Nothing
is retried, no redirect is followed, and an answer is never decoded: what breaks is told as
``Broken``, what takes too long as ``TimeoutError``, and who asked knows what it means.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from typing import TYPE_CHECKING, Any, TypeVar

from llmdispatcher.models.errors import BadRequest, DispatcherError
from llmdispatcher.vendors.http import clients, secret
from llmdispatcher.vendors.http.clients import (
    FAILURES,
    KEPT_S,
    AsyncDoor,
    Broken,
    Door,
    Place,
    TooSlow,
    Url,
    told,
)
from llmdispatcher.vendors.http.heads import Heads
from llmdispatcher.vendors.http.lines import AsyncLine, Line, named
from llmdispatcher.vendors.http.sockets import Sent
from llmdispatcher.vendors.wire.exchange import Ask, Head
from llmdispatcher.vendors.wire.redaction import blotted

if TYPE_CHECKING:
    import asyncio

    import httpx2

    from llmdispatcher.vendors.http.bound import Bound

    Loops = dict[asyncio.AbstractEventLoop, tuple[AsyncDoor, AsyncGenerator[None, None]]]

__all__ = ["KEPT_S", "AsyncLine", "Broken", "Connections", "Line", "Place", "TooSlow"]

CONNECT_S = 30.0
"""For a connection, where nobody set a limit."""

END_S = 0.05
"""How long the end of an answer, of which all that matters has come, may take: a connection that
reaches it can be used again."""

MAX_URLS = 256
"""Addresses that are kept ready: one for each endpoint, and for each model where it is in it."""


E = TypeVar("E", bound=DispatcherError)


class Connections:
    """All connections to one vendor. May be used from any thread and any event loop."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._headers = _merged(
            {
                "Accept": "application/json, text/event-stream",
                "Accept-Encoding": "identity",
                "User-Agent": "llmdispatcher",
            },
            place.headers,
        )
        self._packed = _packed(self._headers)
        self._heads = Heads()
        self._fixed = {name.lower() for name in place.headers}
        self._urls: dict[str, Url] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """An event loop holds its tasks only weakly."""
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Have no connections: at first, and in a forked process, where they are the parent's."""
        self._parents = getattr(self, "_client", None), getattr(self, "_loops", None)
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._client: Door | None = None
        self._lines: weakref.WeakSet[Line] = weakref.WeakSet()
        """Of threads, which may be waiting on them."""
        self._loops: Loops = {}
        self._pid = os.getpid()

    @property
    def root(self) -> str:
        """Where the vendor is."""
        return self._place.root

    @property
    def serves_threads(self) -> bool:
        """Whether threads can ask; they cannot where the caller gave a client for loops alone."""
        return self._place.async_client is None or self._place.client is not None

    def open(self, ask: Ask, bound: Bound) -> Line:
        """Send a request and wait for the beginning of the answer, within the bound.

        Raises Broken, TooSlow and Stopped.
        """
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            client = self._threads_client()
            line = Line(self._ended)
            self._lines.add(line)
        is_open = False
        try:
            if isinstance(client, Door):
                line.begin(client.send(self._sent(ask, None)))
            else:
                request = self._request(client, ask)
                request.extensions["timeout"] = _timeouts(bound)
                response = client.send(request, stream=True, follow_redirects=False)
                line.watch(response, bound)
            is_open = True
        except FAILURES as error:
            raise told(error, connected=False) from None
        except RuntimeError as error:
            raise _unusable(error) from None
        finally:
            if not is_open:
                line.close()
        return line

    async def aopen(self, ask: Ask, connect_s: float | None) -> AsyncLine:
        """Do the same in an event loop, whose own deadlines bound all but the connecting."""
        if self._pid != os.getpid():
            self._begin()
        client = self._loops_client()
        limit_s = CONNECT_S if connect_s is None else connect_s
        try:
            if isinstance(client, AsyncDoor):
                return AsyncLine.of(await client.send(self._sent(ask, limit_s)))
            request = self._request(client, ask)
            request.extensions["timeout"] = {"connect": limit_s}
            response = await client.send(request, stream=True, follow_redirects=False)
        except FAILURES as error:
            raise told(error, connected=False) from None
        except RuntimeError as error:
            raise _unusable(error) from None
        head = Head(response.status_code, named(response.headers.raw))
        return AsyncLine(head, response.aiter_raw(), response.aclose)

    def hushed(self, error: E) -> E:
        """Take the keys that are sent with requests out of what an error says."""
        return secret.hushed(error, self._place.secrets)

    def blotted(self, body: bytes) -> bytes:
        """Take them out of what a vendor sent."""
        return blotted(body, self._place.secrets)

    def close(self) -> None:
        """Close the connections of threads, and of event loops that run, soon. Idempotent.

        One that a thread is waiting on is closed by that thread, once it was stopped: another
        could be given its number meanwhile.
        """
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._closed = True
            loops = [(loop, client) for loop, (client, _) in self._loops.items()]
        self._ended(None)
        for loop, theirs in loops:
            self.end_soon(loop, theirs.close)

    async def aclose(self) -> None:
        """Close all, those of the event loop that runs before this returns."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        with self._lock:
            found = self._loops.pop(asyncio.get_running_loop(), None)
        self.close()
        if found is not None:
            await found[0].close()

    def end_soon(
        self, loop: asyncio.AbstractEventLoop, end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Have an event loop end something of its own, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._end, loop, end)

    def _end(
        self, loop: asyncio.AbstractEventLoop, end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        task = loop.create_task(end())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _ended(self, line: Line | None) -> None:
        """Close the client of threads, once all of them are done with it."""
        client = None
        with self._lock:
            if line is not None:
                self._lines.discard(line)
            if self._closed and not self._lines:
                client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- requests ------------------------------------------------------------------------------

    def _sent(self, ask: Ask, connect_s: float | None) -> Sent:
        """Make a request for a pool of our own."""
        url, content = self._url(ask), None
        headers = [(b"Host", url.host), *self._packed]
        if ask.headers:
            headers += _packed(self._added(ask))
        if ask.body is not None:
            content = _json(ask.body)
            headers.append((b"Content-Type", b"application/json"))
        extensions = {} if connect_s is None else {"timeout": {"connect": connect_s}}
        method = b"GET" if content is None else b"POST"
        sent = Sent(method, url.target, content=content, extensions=extensions)
        size = None if content is None else len(content)
        own = None if ask.own_header is None else _packed(self._unfixed([ask.own_header]))
        sent.headers = self._heads.of(  # type: ignore[assignment]  # as the library reads them
            headers, size, own[0] if own else None
        )
        return sent

    def _request(self, client: httpx2.Client | httpx2.AsyncClient, ask: Ask) -> httpx2.Request:
        """Make a request for the caller's own client, with what that adds."""
        headers, content = [*self._headers, *self._added(ask)], None
        if ask.own_header is not None:
            headers += self._unfixed([ask.own_header])
        if ask.body is not None:
            headers.append(("Content-Type", "application/json"))
            content = _json(ask.body)
        method = "GET" if content is None else "POST"
        return client.build_request(method, self._url(ask).text, headers=headers, content=content)

    def _added(self, ask: Ask) -> list[tuple[str, str]]:
        """Return a dialect's headers, except those that the user has set."""
        return self._unfixed(ask.headers.items())

    def _unfixed(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [pair for pair in headers if pair[0].lower() not in self._fixed]

    def _url(self, ask: Ask) -> Url:
        text = (self._place.root if ask.at_root else self._place.base) + ask.path
        if text not in self._urls:
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            self._urls[text] = clients.url(text)
        return self._urls[text]

    # -- clients -------------------------------------------------------------------------------

    def _threads_client(self) -> Door | httpx2.Client:
        if self._place.client is not None:
            return self._place.client
        if self._client is None:
            if self._place.async_client is not None:
                raise _no_client("client", "a thread", "httpx2.Client")
            self._check_open()
            self._client = Door(self._place)
        return self._client

    def _loops_client(self) -> AsyncDoor | httpx2.AsyncClient:
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        if self._place.async_client is not None:
            return self._place.async_client
        if self._place.client is not None:
            raise _no_client("async_client", "an event loop", "httpx2.AsyncClient")
        loop = asyncio.get_running_loop()
        with self._lock:
            self._check_open()
            if loop not in self._loops:
                for closed in [other for other in self._loops if other.is_closed()]:
                    del self._loops[closed]
                client = AsyncDoor(self._place)
                self._loops[loop] = client, _begun(self._until_it_ends(loop, client))
            return self._loops[loop][0]

    async def _until_it_ends(
        self, loop: asyncio.AbstractEventLoop, client: AsyncDoor
    ) -> AsyncGenerator[None, None]:
        """Close a client when its event loop ends: ``asyncio.run`` closes what generators it finds.

        The loop is forgotten then, which nothing else does: a generator refers to its loop.
        """
        try:
            yield
        finally:
            with self._lock:
                self._loops.pop(loop, None)
            await client.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Broken("the vendor was closed", connected=False)


def _begun(ending: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """Begin such a generator, at which the loop that runs takes note of it."""
    with contextlib.suppress(StopIteration):
        ending.asend(None).send(None)
    return ending


def _merged(defaults: Mapping[str, str], given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return headers, of each name one: what is given goes before the defaults."""
    names = {name.lower() for name in given}
    return [*given.items(), *(pair for pair in defaults.items() if pair[0].lower() not in names)]


def _packed(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent."""
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _timeouts(bound: Bound) -> dict[str, float | None]:
    """Return what the caller's own client can be told: a limit for each operation."""
    left_s, connecting_s = bound.left_s(), bound.left_s(connecting=True)
    return {"connect": connecting_s, "pool": left_s, "read": left_s, "write": left_s}


def _unusable(error: RuntimeError) -> Broken:
    """Return what it means that a client cannot be used: it was closed, or is another loop's."""
    return Broken(f"the client cannot be used: {error}", connected=False)


def _no_client(missing: str, where: str, kind: str) -> BadRequest:
    allowed = f"given too, an {kind}: the vendor is asked from {where}, and has the other kind only"
    return BadRequest(missing, None, allowed)


def _json(body: Mapping[str, Any]) -> bytes:
    """Write JSON. A lone surrogate, which UTF-8 has no bytes for, is sent as an escape.

    Raises BadRequest for what JSON has no words for, which can only have come with ``extra``.
    """
    try:
        try:
            return _dumped(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return _dumped(body, ensure_ascii=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        allowed = f"values that JSON has: {error}"
        raise BadRequest("the request", "something else", allowed) from None


def _dumped(body: Mapping[str, Any], *, ensure_ascii: bool) -> str:
    return json.dumps(body, ensure_ascii=ensure_ascii, separators=(",", ":"), allow_nan=False)
