"""Blocking sockets that keep to a deadline: the only module that imports httpcore2.

The HTTP client bounds each operation on a socket by itself, so a vendor that sends a byte now and
then would never be late. These sockets ask ``bound`` before each operation how long is left.
Looking up a name cannot be bounded or stopped at all, so connections are made in another thread.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2

from llmdispatcher.vendors.http.bound import Stopped, current

CONNECT_S = 30.0
"""For a connection, where nobody set a limit."""

WRITE_BYTES = 64 * 2**10
"""Written at once; in between it is looked how long is left."""


class Backend(httpcore2.NetworkBackend):
    """Makes sockets that keep to the bound of the thread that uses them."""

    def __init__(self) -> None:
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of a host's addresses that answers."""

        def connect() -> httpcore2.NetworkStream:
            limit_s = CONNECT_S if timeout is None else timeout
            failure: Exception = httpcore2.ConnectError(f"{host} has no address")
            places = _addresses(host, port)
            for tried, place in enumerate(places):
                share_s = limit_s / (len(places) - tried)  # a dead one leaves time for the others
                try:
                    return self._inner.connect_tcp(
                        place, port, share_s, local_address, socket_options
                    )
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failure = error
            raise failure

        return _Stream(_elsewhere(connect))

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to a socket of this machine."""
        return _Stream(self._inner.connect_unix_socket(path, timeout, socket_options))


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order of the system. Raises ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} cannot be looked up: {error}") from error
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _elsewhere(connect: Callable[[], httpcore2.NetworkStream]) -> httpcore2.NetworkStream:
    """Connect in another thread, so that this one can stop waiting."""
    bound = current()
    if bound is None:
        return connect()
    done = threading.Event()
    made: list[httpcore2.NetworkStream | Exception] = []
    lock, given_up = threading.Lock(), False

    def run() -> None:
        try:
            result: httpcore2.NetworkStream | Exception = connect()
        except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            result = error
        with lock:
            made.append(result)
            late = given_up
        if late and not isinstance(result, Exception):
            result.close()  # nobody waits for it any more
        done.set()

    threading.Thread(target=run, name="llmdispatcher-connect", daemon=True).start()
    try:
        finished = bound.wait(done)
    except Stopped:
        finished = False
    with lock:
        given_up = not finished
        result = made[0] if made else None
    if not finished:
        if result is not None and not isinstance(result, Exception):
            result.close()
        raise httpcore2.ConnectTimeout("no connection in time")
    if isinstance(result, Exception):
        raise result
    assert result is not None  # noqa: S101 - done is set behind it
    return result


class _Stream(httpcore2.NetworkStream):
    """A connection whose every operation keeps to the bound of the thread that uses it."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner
        self._socket: socket.socket = inner.get_extra_info("socket")

    def _left_s(self, timeout: float | None, *, connecting: bool = False) -> float | None:
        bound = current()
        if bound is None:
            return timeout
        try:
            bound.use(self._socket)
            return bound.left_s(connecting=connecting)
        except Stopped:
            raise httpcore2.ReadError("stopped") from None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, waiting for it."""
        left_s = self._left_s(timeout)
        if left_s == 0:
            raise httpcore2.ReadTimeout("no time is left")
        return self._inner.read(max_bytes, left_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        for start in range(0, len(buffer), WRITE_BYTES):
            left_s = self._left_s(timeout)
            if left_s == 0:
                raise httpcore2.WriteTimeout("no time is left")
            self._inner.write(buffer[start : start + WRITE_BYTES], left_s)

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Go on encrypted."""
        left_s = self._left_s(timeout, connecting=True)
        if left_s == 0:
            raise httpcore2.ConnectTimeout("no time is left")
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as the library has it
        """Tell of the connection, as the library's own does."""
        return self._inner.get_extra_info(info)
