"""Sockets that keep to a deadline: the only module that imports httpcore2.

The HTTP client bounds each operation on a socket by itself, so a vendor that sends a byte now and
then would never be late. Blocking sockets ask ``bound`` before each operation how long is left; in
an event loop, whose own timeouts bound all the rest, only connecting has a limit of its own: the
connection, a proxy's answer and the encryption together.

Looking up a name cannot be bounded or stopped at all, so threads connect in another thread.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias

import httpcore2

from llmdispatcher.vendors.http.bound import Bound, Gate, current
from llmdispatcher.vendors.http.home import addresses_here
from llmdispatcher.vendors.http.packet import WRITE_BYTES, Packet

CONNECT_S = 30.0
"""For a connection, where nobody set a limit."""

_HAS_ENDED = "is_readable"
"""What pools ask an idle connection: if so, the other side has ended it."""
_TUNNEL = b"CONNECT "
"""How a request to a proxy begins that no request to a vendor begins with."""

Options = Iterable[httpcore2.SOCKET_OPTION] | None

Sent: TypeAlias = httpcore2.Request
Received: TypeAlias = httpcore2.Response
Target: TypeAlias = httpcore2.URL
"""A request, an answer and an address, as pools of connections have them."""

UNSOUND = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    httpcore2.ConnectionNotAvailable,
)
"""What pools raise."""

LATE_TO_CONNECT = (httpcore2.ConnectTimeout, httpcore2.PoolTimeout)
LATE = (httpcore2.TimeoutException,)
UNMET = (httpcore2.ConnectError, httpcore2.ProxyError)
"""Raised before there was a connection to the vendor."""

NoHttp: TypeAlias = httpcore2.RemoteProtocolError
NO_HTTP = (NoHttp,)
UNPROXIED = (httpcore2.ProxyError,)


def parser_of(received: Received) -> object:
    """Return what parses an answer of HTTP/1.1; None where the library has none, or elsewhere."""
    found: Any = received.stream
    for inner in ("_stream", "_connection", "_h11_state"):
        found = getattr(found, inner, None)
    return found


def mark_rest(received: Received) -> None:
    """Keep a connection from being used again on which more came than the answer.

    What is behind it would be read as the answer to the next request, which may be another's. The
    library keeps such bytes, and does not look at them.
    """
    parser: Any = parser_of(received)
    used = received.extensions.get("network_stream")
    if parser is not None and isinstance(used, _Stream | _AsyncStream) and parser.trailing_data[0]:
        used.has_rest = True


class Backend(httpcore2.NetworkBackend):
    """Makes sockets that keep to the bound of the thread that uses them.

    ``loopback_only`` connects to nothing but this machine, and looks no name up.
    """

    def __init__(self, *, loopback_only: bool = False) -> None:
        self._inner = httpcore2.SyncBackend()
        self._loopback_only = loopback_only

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Options = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of a host's addresses that answers. Raises OfflineRefused."""
        until_s = time.monotonic() + _limit_s(timeout)
        here = addresses_here(host) if self._loopback_only else ()

        def connect() -> httpcore2.NetworkStream:
            failure: Exception = httpcore2.ConnectError(f"{host} has no address")
            places = here or _addresses(host, port)
            for tried, place in enumerate(places):
                left_s = max(0.001, until_s - time.monotonic())
                share_s = left_s / (len(places) - tried)  # a dead one leaves time for the others
                try:
                    return self._inner.connect_tcp(
                        place, port, share_s, local_address, socket_options
                    )
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

        return _Stream(_elsewhere(connect, current()))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Options = None
    ) -> httpcore2.NetworkStream:
        """Connect to a socket of this machine."""
        limit_s = _limit_s(timeout)
        return _Stream(self._inner.connect_unix_socket(path, limit_s, socket_options))


def _limit_s(timeout: float | None) -> float:
    """Return how long connecting may take. Raises Stopped."""
    bound = current()
    left_s = None if bound is None else bound.left_s(connecting=True)
    return min(limit for limit in (timeout, left_s, CONNECT_S) if limit is not None)


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order of the system. Raises ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} cannot be looked up: {error}") from error
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _elsewhere(
    connect: Callable[[], httpcore2.NetworkStream], bound: Bound | None
) -> httpcore2.NetworkStream:
    """Connect in another thread, so that this one can stop waiting. Raises Stopped.

    The other ends when its own limit has passed, and closes what it made.
    """
    if bound is None:
        return connect()
    gate, lock = Gate(), threading.Lock()
    made: list[httpcore2.NetworkStream | Exception] = []
    given_up = False

    def run() -> None:
        result: httpcore2.NetworkStream | Exception = httpcore2.ConnectError("a bug; see stderr")
        try:
            result = connect()
        except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            result = error
        finally:
            with lock:
                made.append(result)
                late = given_up
            if late and not isinstance(result, Exception):
                result.close()  # nobody waits for it any more
            gate.open()

    threading.Thread(target=run, name="llmdispatcher-connect", daemon=True).start()
    is_made = False
    try:
        is_made = bound.wait(gate)
    finally:
        with lock:
            given_up = not is_made
            result = made[0] if made else None
        if given_up and result is not None and not isinstance(result, Exception):
            result.close()
    if not is_made or result is None:
        raise httpcore2.ConnectTimeout("no connection in time")
    if isinstance(result, Exception):
        raise result
    return result


class _Stream(httpcore2.NetworkStream):
    """A connection whose every operation keeps to the bound of the thread that uses it."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner
        self._socket: socket.socket = inner.get_extra_info("socket")
        self._held = Packet()
        self.has_rest = False
        """More has come than was asked for; see ``mark_rest``."""
        self._tunnels = False
        """A proxy is being asked for a way through, which belongs to connecting."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, waiting for it. Raises Stopped."""
        if packet := self._held.take(b""):
            self._send(packet, timeout)
        bound = current()
        if bound is None:
            return self._inner.read(max_bytes, timeout)
        try:
            left_s = bound.left_s(connecting=self._tunnels)
            if left_s == 0:
                raise httpcore2.ReadTimeout("no time is left")  # noqa: TRY301 - as the library's
            bound.use(self._socket)
            try:
                return self._inner.read(max_bytes, left_s)
            finally:
                bound.leave()
        except httpcore2.ReadTimeout as slow:
            if self._tunnels:
                raise httpcore2.ConnectTimeout(str(slow)) from None
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it, once the request is whole; see ``Packet``. Raises Stopped."""
        if buffer:  # the end of a request may be written by itself, and be nothing
            self._tunnels = buffer.startswith(_TUNNEL)
        if packet := self._held.take(buffer):
            self._send(packet, timeout)

    def _send(self, packet: bytes, timeout: float | None) -> None:
        bound = current()
        if bound is None:
            self._inner.write(packet, timeout)
            return
        view = memoryview(packet)
        for start in range(0, len(view), WRITE_BYTES):
            left_s = bound.left_s(connecting=self._tunnels)
            if left_s == 0:
                raise httpcore2.WriteTimeout("no time is left")
            bound.use(self._socket)
            try:
                self._inner.write(view[start : start + WRITE_BYTES], left_s)  # type: ignore[arg-type]
            finally:
                bound.leave()

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Go on encrypted. Raises Stopped."""
        bound = current()
        if bound is None:
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))
        # a second hold on the connection: who shakes hands takes this socket apart
        held = socket.fromfd(self._socket.fileno(), self._socket.family, self._socket.type)
        made = None
        try:
            limit_s = _limit_s(timeout)
            if limit_s == 0:
                raise httpcore2.ConnectTimeout("no time is left")
            bound.use(held)
            made = _Stream(self._inner.start_tls(ssl_context, server_hostname, limit_s))
            return made
        finally:
            bound.leave()
            held.close()
            if made is None:  # the library closes it only where the handshake fails
                self._inner.close()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as the library has it
        """Tell of the connection, as the library's own does; one with a rest is not used again."""
        return (self.has_rest and info == _HAS_ENDED) or self._inner.get_extra_info(info)


class AsyncBackend(httpcore2.AsyncNetworkBackend):
    """Makes connections of event loops, all of whose beginning has one limit.

    ``loopback_only`` is that of ``Backend``.
    """

    def __init__(self, *, loopback_only: bool = False) -> None:
        self._inner = httpcore2.AnyIOBackend()
        self._loopback_only = loopback_only

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as the library has it
        local_address: str | None = None,
        socket_options: Options = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to whichever of a host's addresses answers first. Raises OfflineRefused."""
        limit_s = CONNECT_S if timeout is None else timeout
        until_s = time.monotonic() + limit_s
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for place in addresses_here(host) if self._loopback_only else (host,):
            try:
                left_s = max(0.001, until_s - time.monotonic())
                made = await self._inner.connect_tcp(
                    place, port, left_s, local_address, socket_options
                )
                return _AsyncStream(made, until_s)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as the library has it
        socket_options: Options = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a socket of this machine."""
        limit_s = CONNECT_S if timeout is None else timeout
        until_s = time.monotonic() + limit_s
        return _AsyncStream(
            await self._inner.connect_unix_socket(path, limit_s, socket_options), until_s
        )


class _AsyncStream(httpcore2.AsyncNetworkStream):
    """A connection of an event loop, which knows until when it must be ready for a request."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream, until_s: float) -> None:
        self._inner, self._until_s = inner, until_s
        self._held = Packet()
        self.has_rest = False
        self._tunnels = False

    def read(self, max_bytes: int, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Read what is there, waiting for it."""
        packet = self._held.take(b"")
        if packet or self._tunnels:
            return self._read(packet, max_bytes, timeout)
        return self._inner.read(max_bytes, timeout)

    async def _read(
        self,
        packet: bytes,
        max_bytes: int,
        timeout: float | None,  # noqa: ASYNC109 - as the library has it
    ) -> bytes:
        if packet:
            await self._inner.write(packet, timeout)
        if not self._tunnels:
            return await self._inner.read(max_bytes, timeout)
        try:
            return await self._inner.read(max_bytes, self._left_s())
        except httpcore2.ReadTimeout as slow:
            raise httpcore2.ConnectTimeout(str(slow)) from None

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - as the library has it
    ) -> None:
        """Write all of it, once the request is whole; see ``Packet``."""
        if buffer:  # the end of a request may be written by itself, and be nothing
            self._tunnels = buffer.startswith(_TUNNEL)
        if packet := self._held.take(buffer):
            await self._inner.write(packet, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - that of all the connecting holds
    ) -> httpcore2.AsyncNetworkStream:
        """Go on encrypted."""
        made = None
        try:
            inner = await self._inner.start_tls(ssl_context, server_hostname, self._left_s())
            made = _AsyncStream(inner, self._until_s)
            return made
        finally:
            if made is None:  # the library does not where the task is cancelled
                await self._inner.aclose()

    def _left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as the library has it
        """Tell of the connection; see ``_Stream``."""
        return (self.has_rest and info == _HAS_ENDED) or self._inner.get_extra_info(info)
