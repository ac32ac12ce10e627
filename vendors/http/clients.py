"""Makes the clients of the HTTP library, and tells its errors as our own.

The only module that imports httpx2. What it makes keeps no cookies,
reads no environment, follows nothing, and has sockets of ours, which keep to a deadline.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import attrs

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.http.address import shown
from llmdispatcher.vendors.http.secret import frameless
from llmdispatcher.vendors.wire.redaction import cleaned

try:
    import httpx2

    from llmdispatcher.vendors.http import sockets
    from llmdispatcher.vendors.http.sockets import AsyncBackend, Backend, Received, Sent, Target
except ModuleNotFoundError as missing:
    raise ExecutableNotFound(
        f"HTTP vendors are talked to with httpx2, and there is no {missing.name}: pip install"
        " httpx2, or 'llmdispatcher[http]'"
    ) from missing

KEPT_CONNECTIONS = 64
"""Idle ones of a vendor that are kept; more may be open while requests run."""

KEPT_S = 4.0
"""So long an idle connection is kept: uvicorn, which serves vLLM and many others, and Node, which
serves LM Studio, close theirs after 5 s, and a request must not cross that on its way."""

SHOWN_CHARS = 300
"""How much of the library's words an error repeats: it may quote what a stranger sent."""

FAILURES = (
    *sockets.UNSOUND,
    httpx2.TransportError,
    httpx2.StreamError,
    httpx2.DecodingError,
    httpx2.InvalidURL,
    ssl.SSLError,
    ConnectionError,
)
"""What the library raises, from its pools and from a caller's own client, and what it lets through
from below."""


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
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    """Of every request, the key among them; they go before those of a dialect."""
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """What no error may show."""
    socket: str | None = None
    """Path of a Unix socket to use instead of host and port."""
    proxy: str | None = attrs.field(default=None, repr=False)
    ca_file: str | None = None
    kept_s: float = KEPT_S
    loopback_only: bool = False
    """Connections to this machine alone are made; another raises OfflineRefused. A caller's own
    client, whose sockets are not ours, is not held to it."""
    client: httpx2.Client | None = None
    """The caller's own, which is not closed here."""
    async_client: httpx2.AsyncClient | None = None


def check(place: Place) -> None:
    """Raise BadRequest for what can never work: a client of a wrong kind, a file that is no PEM."""
    given: dict[str, object] = {"client": place.client, "async_client": place.async_client}
    for name, kind in (("client", httpx2.Client), ("async_client", httpx2.AsyncClient)):
        if given[name] is not None and not isinstance(given[name], kind):
            raise BadRequest(name, given[name], f"an httpx2.{kind.__name__}")
    if place.ca_file is not None:
        encryption(place.ca_file)
    if place.proxy is not None:
        _check_proxy(place)


def _check_proxy(place: Place) -> None:
    """Raise BadRequest, which shows no password, for what cannot be a proxy."""
    scheme = ""
    try:
        if urlsplit(place.proxy).hostname and urlsplit(place.proxy).port != 0:
            scheme = httpx2.Proxy(place.proxy).url.scheme  # type: ignore[arg-type] # it is text
    except (TypeError, ValueError, httpx2.InvalidURL):
        scheme = ""
    if not scheme:
        raise BadRequest("proxy", shown(place.proxy), "an address such as http://host:3128")
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        allowed = "of HTTP, unless there is socksio: pip install it"
        raise BadRequest("proxy", shown(place.proxy), allowed)


class Door:
    """Connections of threads to one vendor, whose sockets keep to ``bound``.

    Requests go straight to the library's pool, past its client: what that adds (cookies, redirects,
    authentication, a history) is not wanted, and costs as much as all that is done here. The
    library's transports take no backend, and its pools do: it is exchanged before its first use. A
    test fails if that should no longer work.
    """

    def __init__(self, place: Place) -> None:
        self._transport = httpx2.HTTPTransport(**_settings(place))
        self._pool = self._transport._pool  # noqa: SLF001 - see above
        self._pool._network_backend = Backend(  # noqa: SLF001 - see above
            loopback_only=place.loopback_only
        )

    def send(self, sent: Sent) -> Received:
        """Send a request, and return the beginning of the answer."""
        return self._pool.handle_request(sent)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()


class AsyncDoor:
    """The same for one event loop."""

    def __init__(self, place: Place) -> None:
        self._transport = httpx2.AsyncHTTPTransport(**_settings(place))
        self._pool = self._transport._pool  # noqa: SLF001 - see ``Door``
        self._pool._network_backend = AsyncBackend(  # noqa: SLF001 - see ``Door``
            loopback_only=place.loopback_only
        )

    async def send(self, sent: Sent) -> Received:
        """See ``Door.send``."""
        return await self._pool.handle_async_request(sent)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


def url(text: str) -> Url:
    """Read an address."""
    made = httpx2.URL(text)
    return Url(
        text=text,
        host=made.netloc,
        target=Target(
            scheme=made.raw_scheme, host=made.raw_host, port=made.port, target=made.raw_path
        ),
    )


@attrs.frozen(kw_only=True)
class Url:
    """An address."""

    text: str
    host: bytes
    """Of the header."""
    target: Target


def _settings(place: Place) -> dict[str, Any]:
    limits = httpx2.Limits(
        max_connections=None,
        max_keepalive_connections=KEPT_CONNECTIONS,
        keepalive_expiry=place.kept_s,
    )
    return {
        "verify": encryption(place.ca_file) if place.root.startswith("https:") else False,
        "limits": limits,
        "proxy": place.proxy,
        "uds": place.socket,
        "trust_env": False,
    }


@cache
def encryption(ca_file: str | None) -> ssl.SSLContext:
    """Make what checks certificates, once: it takes tens of milliseconds.

    With the authorities of the system, or those of the file, which BadRequest names if it is bad.
    """
    if ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise BadRequest("ca_file", ca_file, f"a file of certificates (PEM): {error}") from error


# -- errors ------------------------------------------------------------------------------------


def told(error: BaseException, *, connected: bool) -> Broken | TooSlow:
    """Return what an error of the library means, without the frames that it went through."""
    meant = _meant(error, connected=connected)
    frameless(error)
    return meant


def _meant(error: BaseException, *, connected: bool) -> Broken | TooSlow:
    if isinstance(error, _LATE_TO_CONNECT):
        return TooSlow(connecting=True)
    if isinstance(error, _LATE):
        return TooSlow(connecting=False)
    met = connected or not isinstance(error, _UNMET)
    words = str(error)
    spoke = isinstance(error, _NO_HTTP) and not words.startswith(_GONE)
    return Broken(_words(error, words), connected=met, spoke=spoke)


_LATE_TO_CONNECT = (*sockets.LATE_TO_CONNECT, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_LATE = (*sockets.LATE, httpx2.TimeoutException)
_UNMET = (*sockets.UNMET, httpx2.ConnectError, httpx2.ProxyError)
_NO_HTTP = (*sockets.NO_HTTP, httpx2.RemoteProtocolError)
_UNPROXIED = (*sockets.UNPROXIED, httpx2.ProxyError)
_GONE = ("Server disconnected", "peer closed connection", "<ConnectionTerminated")
"""How the library says that the other side hung up, which is no word of theirs."""


def _words(error: BaseException, words: str) -> str:
    """Return what went wrong in words."""
    if isinstance(error, _UNPROXIED) and words.startswith("407"):
        return "the proxy wants a name and a password (407): put them into its address"
    system = _system_error(error)
    if system is not None:
        words = system
    return cleaned(
        f"{type(error).__name__}: {words}" if words else type(error).__name__, SHOWN_CHARS
    )


def _system_error(error: BaseException | None) -> str | None:
    """Return what the system said, if an error came of that; an event loop's does not repeat it."""
    for _ in range(MAX_CAUSES):
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, ssl.SSLError):
            return str(error)
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        if error is None:
            break
        error = error.__cause__ or error.__context__
    return None


MAX_CAUSES = 10
"""Looked at, behind an error."""
