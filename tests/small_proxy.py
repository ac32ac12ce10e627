"""A proxy on 127.0.0.1 that forwards requests and makes tunnels, wherever they were to go."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from rough_server import RoughServer


class SmallProxy(RoughServer):
    """Sends all to one port of this machine, whatever host was asked for, and keeps the heads.

    ``refusal`` is what it says to whoever asks for a tunnel, if it is to refuse.
    """

    def __init__(self, port: int, refusal: bytes = b"") -> None:
        super().__init__(self._serve)
        self.heads: list[bytes] = []
        self.before: Callable[[socket.socket], None] = lambda _: None
        """Done before a tunnel is made."""
        self._target, self._refusal = port, refusal

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = client.recv(65536)
            if not chunk:
                return
            head += chunk
        self.heads.append(head.partition(b"\r\n\r\n")[0])
        is_tunnel = head.startswith(b"CONNECT ")
        if is_tunnel and self._refusal:
            client.sendall(self._refusal)
            return
        self.before(client)
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            if is_tunnel:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Send on what comes, until either side has enough."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
