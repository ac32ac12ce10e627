"""A server of bare sockets on 127.0.0.1, for what no HTTP server does: each connection is a script.

A script gets the connection and may do with it what it wants; it runs in a thread of its own. The
server ends when its block does, and so do the scripts: their connections are shut down.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self

from loopback import Chunk

Script = Callable[[socket.socket], None]

DRIP_S = 0.01
"""Between two bytes of a drip."""


class RoughServer:
    """Runs the script for each connection; a context manager."""

    def __init__(self, script: Script, backlog: int = 64) -> None:
        self.script = script
        self.accepted = 0
        """Connections that were ever made."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="rough", daemon=True)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are open now, as far as the scripts know."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in [self._acceptor, *self._threads]:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, EOFError):
                self.script(connection)
        finally:
            self._open.discard(connection)


def request(connection: socket.socket) -> bytes:
    """Read a request to its end, and return it. EOFError where there is none."""
    got = b""
    while b"\r\n\r\n" not in got:
        chunk = connection.recv(65536)
        if not chunk:
            raise EOFError
        got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = int(sizes[0].partition(b":")[2]) - len(body) if sizes else 0
    while left > 0:
        chunk = connection.recv(65536)
        if not chunk:
            raise EOFError
        got, left = got + chunk, left - len(chunk)
    return got


def until_closed(connection: socket.socket) -> None:
    """Wait until the other side closes the connection."""
    while connection.recv(65536):
        pass


def drip(connection: socket.socket, data: bytes) -> None:
    """Send a byte at a time, for ever so long."""
    for index in range(len(data)):
        connection.sendall(data[index : index + 1])
        time.sleep(DRIP_S)


def saying(*parts: Chunk) -> Script:
    """Return a script that reads requests and answers each with these bytes, then hangs up."""

    def script(connection: socket.socket) -> None:
        request(connection)
        say(connection, parts)

    return script


def say(connection: socket.socket, parts: Iterable[Chunk]) -> None:
    """Send bytes, and wait seconds."""
    for part in parts:
        if isinstance(part, bytes):
            connection.sendall(part)
        else:
            time.sleep(part)


def answer(body: bytes, *headers: str, status: str = "200 OK", sized: bool = True) -> bytes:
    """Return an answer with its head."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if sized:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes) -> bytes:
    """Return a body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
