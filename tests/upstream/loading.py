"""A llama-server that is caught while it reads its model, and held there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from real_servers import RealServer, llama_server, until
from tiny_gguf import tiny_model

HEAVY = "heavy.gguf"
"""Name of the model, which takes tenths of a second to read."""

LOADED = "model loaded"
"""In the log of a server that has read it."""

TRIES = 20
"""How often a server is started until it is seen while it loads: whoever looks may be late."""


@contextmanager
def held(folder: Path) -> Iterator[RealServer]:
    """Start it, and stop the process as soon as it says that it loads."""
    server = llama_server(folder, tiny_model(folder / HEAVY, vocab=60_000, context=512))
    try:
        assert any(_caught(server) for _ in range(TRIES)), "it was never seen while it loads"
        yield server
    finally:
        server.kill()


def _caught(server: RealServer) -> bool:
    """Start it anew and stop it; whether it was still loading."""
    server.kill()
    server._log.unlink(missing_ok=True)
    told: list[int | None] = []

    def answers() -> bool:
        told.append(server.asked("/health"))
        return told[-1] is not None

    server.start()
    until(answers)
    _send(server, signal.SIGSTOP)
    return told[-1] == HTTPStatus.SERVICE_UNAVAILABLE and LOADED not in server.told()


def go_on(server: RealServer) -> None:
    """Let it read on."""
    _send(server, signal.SIGCONT)


def _send(server: RealServer, what: signal.Signals) -> None:
    assert server._process is not None
    os.killpg(server._process.pid, what)
