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
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
)
from typing import TYPE_CHECKING, Any, TypeVar

from llmdispatcher.models.errors import BadRequest, DispatcherError
from llmdispatcher.vendors.http import clients, secret
from llmdispatcher.vendors.http.clients import (
    FAILURES,
    KEPT_S,
    Broken,
    Place,
    TooSlow,
    told,
)
from llmdispatcher.vendors.wire.exchange import Ask, Head
from llmdispatcher.vendors.wire.redaction import blotted

if TYPE_CHECKING:
    import asyncio
    import socket

    import httpx2

    from llmdispatcher.vendors.http.bound import Bound

    Loops = dict[asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None, None]]]

__all__ = ["KEPT_S", "AsyncLine", "Broken", "Connections", "Line", "Place", "TooSlow"]

CONNECT_S = 30.0
"""For a connection, where nobody set a limit."""

END_S = 0.05
"""How long the end of an answer, of which all that matters has come, may take: a connection that
reaches it can be used again."""

MAX_URLS = 256
"""Addresses that are kept ready: one for each endpoint, and for each model where it is in it."""


E = TypeVar("E", bound=DispatcherError)


class Line:
    """The answer to one request, in a thread."""

    def __init__(self, ended: Callable[[Line], None]) -> None:
        self._ended: Callable[[Line], None] | None = ended
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._theirs: tuple[Bound, socket.socket] | None = None
        """Of a connection that knows of no bound: whom to tell that it is waited for."""
        self.head = Head(0, {})

    def begin(self, response: httpx2.Response) -> Line:
        """Take the beginning of the answer."""
        self.head = Head(response.status_code, _headers(response))
        self._response, self._chunks = response, response.iter_raw()
        return self

    def watch(self, bound: Bound) -> None:
        """Let whoever stops the bound end the waiting for what is to come."""
        assert self._response is not None  # noqa: S101 - begun before it is watched
        stream = self._response.extensions.get("network_stream")
        found = None if stream is None else stream.get_extra_info("socket")
        self._theirs = None if found is None else (bound, found)

    def read(self) -> bytes:
        """Return what comes next; nothing at the end. Raises Broken, TooSlow and Stopped."""
        try:
            if self._theirs is None:
                return next(self._chunks, b"")
            bound, used = self._theirs
            bound.use(used)
            try:
                return next(self._chunks, b"")
            finally:
                bound.leave()
        except FAILURES as error:
            raise told(error, connected=True) from None

    def close(self) -> None:
        """Let go of the connection; what was not read to its end is closed. Idempotent."""
        if self._response is not None:
            with contextlib.suppress(*FAILURES, OSError):
                self._response.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)


class AsyncLine:
    """The same in an event loop."""

    def __init__(self, response: httpx2.Response) -> None:
        self.head = Head(response.status_code, _headers(response))
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()

    async def read(self) -> bytes:
        """See ``Line.read``."""
        try:
            return await anext(self._chunks, b"")
        except FAILURES as error:
            raise told(error, connected=True) from None

    async def close(self) -> None:
        """See ``Line.close``."""
        with contextlib.suppress(*FAILURES, OSError):
            await self._response.aclose()


def _headers(response: httpx2.Response) -> dict[str, str]:
    """Return the headers by lower-case names; of a name that comes twice the last."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in response.headers.raw
    }


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
        self._fixed = {name.lower() for name in place.headers}
        self._urls: dict[str, httpx2.URL] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """An event loop holds its tasks only weakly."""
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Have no connections: at first, and in a forked process, where they are the parent's."""
        self._parents = getattr(self, "_client", None), getattr(self, "_loops", None)
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._client: httpx2.Client | None = None
        self._lines: weakref.WeakSet[Line] = weakref.WeakSet()
        """Of threads, which may be waiting on them."""
        self._loops: Loops = {}
        self._pid = os.getpid()

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
            request = self._request(client, ask)
            if client is not self._place.client:
                response = client.send(request, stream=True, auth=None, follow_redirects=False)
                line.begin(response)
            else:
                request.extensions["timeout"] = _timeouts(bound)
                line.begin(client.send(request, stream=True, follow_redirects=False)).watch(bound)
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
        is_theirs = client is self._place.async_client
        limit_s = CONNECT_S if connect_s is None else connect_s
        try:
            request = self._request(client, ask)
            request.extensions["timeout"] = {"connect": limit_s}
            response = await (
                client.send(request, stream=True, follow_redirects=False)
                if is_theirs
                else client.send(request, stream=True, auth=None, follow_redirects=False)
            )
        except FAILURES as error:
            raise told(error, connected=False) from None
        except RuntimeError as error:
            raise _unusable(error) from None
        return AsyncLine(response)

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
            self.end_soon(loop, theirs.aclose)

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

    def _request(self, client: httpx2.Client | httpx2.AsyncClient, ask: Ask) -> httpx2.Request:
        url, headers = self._url(ask), self._headers
        if ask.headers:
            theirs = [pair for pair in ask.headers.items() if pair[0].lower() not in self._fixed]
            headers = [*headers, *theirs]
        content = None
        if ask.body is not None:
            headers = [*headers, ("Content-Type", "application/json")]
            content = _json(ask.body)
        method = "GET" if ask.body is None else "POST"
        if client is self._place.client or client is self._place.async_client:
            # with what the caller's client adds
            return client.build_request(method, url, headers=headers, content=content)
        return clients.request(method, url, headers, content)

    def _url(self, ask: Ask) -> httpx2.URL:
        text = (self._place.root if ask.at_root else self._place.base) + ask.path
        if text not in self._urls:
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            self._urls[text] = clients.url(text)
        return self._urls[text]

    # -- clients -------------------------------------------------------------------------------

    def _threads_client(self) -> httpx2.Client:
        if self._place.client is not None:
            return self._place.client
        if self._client is None:
            if self._place.async_client is not None:
                raise _no_client("client", "a thread", "httpx2.Client")
            self._check_open()
            self._client = clients.client(self._place)
        return self._client

    def _loops_client(self) -> httpx2.AsyncClient:
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
                client = clients.async_client(self._place)
                self._loops[loop] = client, _begun(self._until_it_ends(loop, client))
            return self._loops[loop][0]

    async def _until_it_ends(
        self, loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient
    ) -> AsyncGenerator[None, None]:
        """Close a client when its event loop ends: ``asyncio.run`` closes what generators it finds.

        The loop is forgotten then, which nothing else does: a generator refers to its loop.
        """
        try:
            yield
        finally:
            with self._lock:
                self._loops.pop(loop, None)
            await client.aclose()

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
