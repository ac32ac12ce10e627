"""Looks which servers run on this machine: all places where they usually listen, at once.

Only ports of 127.0.0.1 are tried. Those where nobody listens refuse at once and cost a system call
each; those where somebody does are asked who it is, in a thread each. What was found is kept for a
while for all who ask. The whole look is bounded: who takes longer to say who it is, is not found.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache

import attrs

from llmdispatcher.models.errors import VendorError
from llmdispatcher.vendors.http.bound import Bound
from llmdispatcher.vendors.http.landmarks import ASKS, Landmark, whose
from llmdispatcher.vendors.wire.exchange import Ask, Head

HOST = "127.0.0.1"

CONNECT_S = 0.02
"""For a port of this machine, which answers or refuses in microseconds."""

LOOK_S = 0.08
"""For all that those who listen are asked; with the connecting, a tenth of a second in all."""

KEPT_S = 30.0
"""How long what was found is believed, so that many dispatchers of a program look once."""


@attrs.frozen
class Found:
    """A server that runs on this machine."""

    landmark: Landmark
    port: int

    @property
    def base_url(self) -> str:
        """Its address, without a path."""
        return f"http://{HOST}:{self.port}"


class Scout:
    """Looks, and remembers. One for a program; tests make their own."""

    def __init__(self, asks: Sequence[tuple[int, str]] = ASKS) -> None:
        self._paths: dict[int, list[str]] = defaultdict(list)
        for port, path in asks:
            self._paths[port].append(path)
        self._lock = threading.Lock()
        self._seen: tuple[float, tuple[Found, ...]] | None = None

    def look(self) -> tuple[Found, ...]:
        """Return who is there, in the order of the ports. Takes a tenth of a second at most.

        Whoever asks while another looks waits for that look.
        """
        with self._lock:
            now_s = time.monotonic()
            if self._seen is None or now_s - self._seen[0] > KEPT_S:
                self._seen = now_s, _who({port: self._paths[port] for port in self._open()})
            return self._seen[1]

    def _open(self) -> list[int]:
        """Return the ports where somebody listens."""
        found: list[int] = []
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            for port in self._paths:
                tried = stack.enter_context(socket.socket())
                tried.settimeout(0)
                tried.connect_ex((HOST, port))
                selector.register(tried, selectors.EVENT_WRITE, port)
            until_s = time.monotonic() + CONNECT_S
            while selector.get_map() and (left_s := until_s - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    selector.unregister(key.fileobj)
                    made = key.fileobj
                    assert isinstance(made, socket.socket)  # noqa: S101 - put there above
                    if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        found.append(key.data)
        return [port for port in self._paths if port in found]


def _who(paths: Mapping[int, Sequence[str]]) -> tuple[Found, ...]:
    """Ask those who listen who they are."""
    if not paths:
        return ()
    # most machines run no server, and so need no HTTP client; its import is not the servers' time
    from llmdispatcher.vendors.http import lookout  # noqa: F401, PLC0415

    looks = [_Look(port, asked) for port, asked in paths.items()]
    until_s = time.monotonic() + LOOK_S
    for look in looks:
        look.join(max(0.0, until_s - time.monotonic()))
    return tuple(found for look in looks if (found := look.end()) is not None)


class _Look(threading.Thread):
    """At one port."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        super().__init__(name=f"llmdispatcher-scout-{port}", daemon=True)
        self._port, self._paths = port, paths
        self._bound = Bound()
        self._answers: list[tuple[str, Head, bytes]] = []
        self.start()

    def run(self) -> None:
        """Ask all paths, one after the other, over one connection."""
        from llmdispatcher.vendors.http.lookout import fetch  # noqa: PLC0415
        from llmdispatcher.vendors.http.transport import Connections, Place  # noqa: PLC0415

        root = f"http://{HOST}:{self._port}"
        connections = Connections(Place(root=root, base=root, loopback_only=True))
        try:
            for path in self._paths:
                head, body = fetch(connections, Ask(path=path), self._bound)
                self._answers.append((path, head, body))
        except VendorError:
            return  # what came until then may be enough
        finally:
            connections.close()

    def end(self) -> Found | None:
        """Ask no more, and tell who it is by what was answered."""
        self._bound.stop()
        landmark = whose(list(self._answers))
        return None if landmark is None else Found(landmark, self._port)


@cache
def shared() -> Scout:
    """Return the scout of this program."""
    return Scout()
