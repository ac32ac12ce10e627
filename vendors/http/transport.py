"""Sends requests and hands over what comes: the only module that imports httpx2.

A vendor has one ``Connections``: a pool for threads, and one for each event loop that asks. Nothing
is retried, no redirect is followed, and an answer is never decoded: what breaks is told as
``Broken``, what takes too long as ``TimeoutError``, and who asked knows what it means.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.wire.exchange import Ask, Head

try:
    import httpx2

    from llmdispatcher.vendors.http.sockets import Backend
except ModuleNotFoundError as missing:
    raise ExecutableNotFound(
        "HTTP vendors are talked to with httpx2, and there is no"
        f" {missing.name}: pip install httpx2"
    ) from missing

if TYPE_CHECKING:
    import asyncio

    from llmdispatcher.vendors.http.bound import Bound

    Loops = weakref.WeakKeyDictionary[
        asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None, None]]
    ]

KEPT_CONNECTIONS = 64
"""Idle ones of a vendor that are kept; more may be open while requests run."""

KEPT_S = 4.0
"""So long an idle connection is kept: uvicorn, which serves vLLM and many others, and Node, which
serves LM Studio, close theirs after 5 s, and a request must not cross that on its way."""

CONNECT_S = 30.0
"""For a connection, where nobody set a limit."""

END_S = 0.05
"""How long the end of an answer, of which all that matters has come, may take: a connection that
reaches it can be used again."""

_UNSOUND = (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError, httpx2.InvalidURL)


class Broken(Exception):
    """The connection could not be made, or broke."""

    def __init__(self, message: str, *, connected: bool, spoke: bool = False) -> None:
        super().__init__(message)
        self.connected = connected
        """Whether there was a connection, so that the request may have arrived."""
        self.spoke = spoke
        """Whether the other side said something that is no HTTP."""


class TooSlow(TimeoutError):
    """A deadline passed; ``connecting`` tells which."""

    def __init__(self, *, connecting: bool) -> None:
        super().__init__()
        self.connecting = connecting


@attrs.frozen(kw_only=True)
class Place:
    """One vendor's server, and how it is reached."""

    root: str
    base: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Of every request, the key among them."""
    socket: str | None = None
    """Path of a Unix socket to use instead of host and port."""
    proxy: str | None = attrs.field(default=None, repr=False)
    ca_file: str | None = None
    kept_s: float = KEPT_S
    client: httpx2.Client | None = None
    """The caller's own, which is not closed here."""
    async_client: httpx2.AsyncClient | None = None


class Line:
    """The answer to one request, in a thread."""

    def __init__(self, response: httpx2.Response) -> None:
        self.head = Head(response.status_code, _headers(response))
        self._response = response
        self._chunks = response.iter_raw()

    def read(self) -> bytes:
        """Return what comes next; nothing at the end. Raises Broken and TooSlow."""
        with _told(connected=True):
            return next(self._chunks, b"")

    def close(self) -> None:
        """Let go of the connection; what was not read to its end is closed."""
        with contextlib.suppress(*_UNSOUND, OSError):
            self._response.close()


class AsyncLine:
    """The same in an event loop."""

    def __init__(self, response: httpx2.Response) -> None:
        self.head = Head(response.status_code, _headers(response))
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()

    async def read(self) -> bytes:
        """See ``Line.read``."""
        with _told(connected=True):
            return await anext(self._chunks, b"")

    async def close(self) -> None:
        """See ``Line.close``."""
        with contextlib.suppress(*_UNSOUND, OSError):
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
        self._headers = [
            *place.headers.items(),
            ("Accept", "application/json, text/event-stream"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "llmdispatcher"),
        ]
        self._urls: dict[str, httpx2.URL] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._client: httpx2.Client | None = None
        self._loops: Loops = weakref.WeakKeyDictionary()
        self._closing: set[asyncio.Task[None]] = set()
        """An event loop holds its tasks only weakly."""
        self._closed = False

    def open(self, ask: Ask, bound: Bound) -> Line:
        """Send a request and wait for the beginning of the answer, within the bound.

        Raises Broken and TooSlow.
        """
        client = self._threads_client()
        request = self._request(client, ask)
        if self._place.client is not None:
            request.extensions["timeout"] = _timeouts(bound)
        with _told(connected=False):
            return Line(client.send(request, stream=True, auth=None, follow_redirects=False))

    async def aopen(self, ask: Ask, connect_s: float | None) -> AsyncLine:
        """Do the same in an event loop, whose own deadlines bound all but the connecting."""
        client = self._loops_client()
        request = self._request(client, ask)
        request.extensions["timeout"] = {"connect": CONNECT_S if connect_s is None else connect_s}
        with _told(connected=False):
            response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        return AsyncLine(response)

    def close(self) -> None:
        """Close the connections of threads, and of event loops that run, soon. Idempotent."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
            loops = [(loop, client) for loop, (client, _) in self._loops.items()]
            self._loops.clear()
        if self._pid != os.getpid():
            return  # they are the parent's
        if client is not None:
            client.close()
        for loop, theirs in loops:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
                loop.call_soon_threadsafe(self._close_soon, theirs)

    def _request(self, client: httpx2.Client | httpx2.AsyncClient, ask: Ask) -> httpx2.Request:
        url, headers = self._url(ask), self._headers
        if ask.headers:
            headers = [*headers, *ask.headers.items()]
        content = None
        if ask.body is not None:
            headers = [*headers, ("Content-Type", "application/json")]
            content = _json(ask.body)
        method = "GET" if ask.body is None else "POST"
        if client is self._place.client or client is self._place.async_client:
            # with what the caller's client adds
            return client.build_request(method, url, headers=headers, content=content)
        return httpx2.Request(method, url, headers=headers, content=content)

    def _url(self, ask: Ask) -> httpx2.URL:
        text = (self._place.root if ask.at_root else self._place.base) + ask.path
        if text not in self._urls:
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            self._urls[text] = httpx2.URL(text)
        return self._urls[text]

    def _forget_parents(self) -> None:
        """Let go of connections that a forked process shares with its parent."""
        if self._pid != os.getpid():
            self._pid, self._client = os.getpid(), None
            self._loops = weakref.WeakKeyDictionary()

    def _threads_client(self) -> httpx2.Client:
        if self._place.client is not None:
            return self._place.client
        if self._client is not None and self._pid == os.getpid():
            return self._client
        if self._place.async_client is not None:
            raise _no_client("client", "a thread", "httpx2.Client")
        with self._lock:
            self._forget_parents()
            self._check_open()
            if self._client is None:
                self._client = httpx2.Client(
                    transport=_bounded(self._place), trust_env=False, timeout=None
                )
            return self._client

    def _loops_client(self) -> httpx2.AsyncClient:
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        if self._place.async_client is not None:
            return self._place.async_client
        if self._place.client is not None:
            raise _no_client("async_client", "an event loop", "httpx2.AsyncClient")
        loop = asyncio.get_running_loop()
        with self._lock:
            self._forget_parents()
            self._check_open()
            if loop not in self._loops:
                transport = httpx2.AsyncHTTPTransport(**_settings(self._place))
                client = httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None)
                self._loops[loop] = client, _begun(client)
            return self._loops[loop][0]

    def _close_soon(self, client: httpx2.AsyncClient) -> None:
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        task = asyncio.get_running_loop().create_task(client.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _check_open(self) -> None:
        if self._closed:
            raise Broken("the vendor was closed", connected=False)


MAX_URLS = 256
"""Addresses that are kept ready: one for each endpoint, and for each model where it is in it."""


def _no_client(missing: str, where: str, kind: str) -> BadRequest:
    allowed = f"given too, an {kind}: the vendor is asked from {where}, and has the other kind only"
    return BadRequest(missing, None, allowed)


def _json(body: Mapping[str, Any]) -> bytes:
    """Write JSON. A lone surrogate, which UTF-8 has no bytes for, is sent as an escape."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


# -- clients -----------------------------------------------------------------------------------


def _settings(place: Place) -> dict[str, Any]:
    limits = httpx2.Limits(
        max_connections=None,
        max_keepalive_connections=KEPT_CONNECTIONS,
        keepalive_expiry=place.kept_s,
    )
    return {
        "verify": _encryption(place.ca_file) if place.root.startswith("https:") else False,
        "limits": limits,
        "proxy": place.proxy,
        "uds": place.socket,
        "trust_env": False,
    }


@cache
def _encryption(ca_file: str | None) -> ssl.SSLContext:
    """Make what checks certificates, once: it takes tens of milliseconds.

    With the authorities of the system, or those of the file, which BadRequest names if it is bad.
    """
    if ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadRequest("ca_file", ca_file, f"a file of certificates (PEM): {error}") from error


def _bounded(place: Place) -> httpx2.HTTPTransport:
    """Make a transport whose sockets keep to ``bound``.

    The library's transports take no backend, and its pools do: it is exchanged before its first
    use. A test fails if that should no longer work.
    """
    transport = httpx2.HTTPTransport(**_settings(place))
    transport._pool._network_backend = Backend()  # noqa: SLF001 - see above
    return transport


def _timeouts(bound: Bound) -> dict[str, float | None]:
    """Return what the caller's own client can be told: a limit for each operation."""
    left_s = bound.left_s()
    return {"connect": bound.left_s(connecting=True), "read": left_s, "write": left_s}


async def _until_the_loop_ends(client: httpx2.AsyncClient) -> AsyncGenerator[None, None]:
    """Close a client when its event loop ends: ``asyncio.run`` closes what generators it finds."""
    try:
        yield
    finally:
        await client.aclose()


def _begun(client: httpx2.AsyncClient) -> AsyncGenerator[None, None]:
    """Begin such a generator, at which the loop that runs takes note of it."""
    ending = _until_the_loop_ends(client)
    with contextlib.suppress(StopIteration):
        ending.asend(None).send(None)
    return ending


@contextlib.contextmanager
def _told(*, connected: bool) -> Iterator[None]:
    """Tell errors of the library as our own."""
    try:
        yield
    except (httpx2.ConnectTimeout, httpx2.PoolTimeout):
        raise TooSlow(connecting=True) from None
    except httpx2.TimeoutException:
        raise TooSlow(connecting=False) from None
    except _UNSOUND as error:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        met = connected or not isinstance(error, httpx2.ConnectError | httpx2.ProxyError)
        spoke = isinstance(error, httpx2.RemoteProtocolError)
        raise Broken(told, connected=met, spoke=spoke) from None
