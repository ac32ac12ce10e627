"""Notes, in every Python that is started with this on its path, what it does with sockets.

A line of JSON each, at the end of the file that ``OFFLINE_AUDIT`` names: first how the process was
started, then every event with its address. What a process does is noted before it does it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

WATCHED = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.sendmsg",
        "socket.sendto",
        "urllib.Request",
    }
)


def _begin(path: str) -> None:
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(event: str, told: object) -> None:
        line = json.dumps([os.getpid(), event, told], default=repr)
        os.write(notes, f"{line}\n".encode())

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event in WATCHED:
            is_of_one = event in {"socket.bind", "socket.connect", "socket.sendto"}
            note(event, values[1] if is_of_one else values[0])

    note("start", sys.orig_argv)
    sys.addaudithook(hook)


if "OFFLINE_AUDIT" in os.environ:
    _begin(os.environ["OFFLINE_AUDIT"])
