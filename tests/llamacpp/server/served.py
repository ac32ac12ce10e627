"""A supervised server under test, with what it reported and what it must leave behind: nothing."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import attrs

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.event import Event, LoadProgress
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.vendors.contract import Call
from llmdispatcher.vendors.llamacpp.host import Reporting
from llmdispatcher.vendors.llamacpp.hosting import Life
from llmdispatcher.vendors.llamacpp.limits import probe
from llmdispatcher.vendors.llamacpp.server.host import ServerHost
from llmdispatcher.vendors.llamacpp.server.program import Program
from llmdispatcher.vendors.llamacpp.server.signs import Patience
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp, card_of, embedded

FAKE = Path(__file__).parents[2] / "fake_llama_server.py"

WAIT_S = 60.0
"""For what takes a second at most."""

SHORT = Patience(stall_s=1.5, silent_s=1.0, asleep_s=2.0, stop_s=0.5)
"""A fake that does nothing is given up soon."""

SILENT = attrs.evolve(SHORT, stall_s=WAIT_S, silent_s=3.0, asleep_s=WAIT_S)
"""So is one that answers nobody, and none that is only slow to start. A second for which this
process, or a server that is well, has no turn must not be taken for that: see ``signs.GAP_S``."""


@attrs.frozen
class Fake:
    """A llama-server that does something wrong."""

    executable: Path
    notes: Path

    @classmethod
    def made(cls, folder: Path, how: str = "well") -> Self:
        """Write the program."""
        folder.mkdir(parents=True, exist_ok=True)
        fake = cls(folder / "llama-server", folder / "notes")
        words = [sys.executable, str(FAKE), how, str(fake.notes)]
        fake.executable.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        fake.executable.chmod(0o755)
        return fake

    def noted(self) -> list[str]:
        """Return what it did."""
        return self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []

    def spec(self, **fields: Any) -> LlamaCpp:
        """Make a spec that runs it."""
        return attrs.evolve(embedded(), executable=self.executable, **fields)


class Served:
    """A host; leaving its block stops it and looks for what it left."""

    def __init__(
        self, spec: LlamaCpp, patience: Patience | None = None, program: Program | None = None
    ) -> None:
        self.events: list[Event] = []
        life = Life(spec=spec, card=card_of(spec), report=Reporting(self.events.append))
        self.host = ServerHost(life, program, patience)
        self.pids: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pid()
        self.host.stop()
        self.host.join()
        assert self.host.ended() is not None
        assert self.host.loaded.done()
        until(lambda: not any(is_alive(pid) for pid in self.pids))
        assert_nothing_left()

    def ready(self) -> Self:
        """Wait until it has loaded."""
        self.host.loaded.result(WAIT_S)
        self.pid()
        return self

    def failed(self) -> BaseException:
        """Wait until the load has failed, and return why."""
        error = self.host.loaded.exception(WAIT_S)
        assert error is not None
        return error

    def pid(self) -> int | None:
        """Return the server's process."""
        pid = self.host.vitals().pid
        if pid is not None:
            self.pids.add(pid)
        return pid

    def ask(self, work: Work) -> list[Piece]:
        """Ask and read to the end."""
        return drain(self.host.submit(work))

    def fractions(self) -> list[float]:
        """Return what was told of the load."""
        return [event.fraction for event in self.events if isinstance(event, LoadProgress)]


def drain(call: Call, into: list[Piece] | None = None) -> list[Piece]:
    """Read a call to its finish; ``into`` takes the pieces also where it fails."""
    pieces: list[Piece] = [] if into is None else into
    while not pieces or not isinstance(pieces[-1], Finish):
        pieces.extend(call.receive(WAIT_S))
    return pieces


def text(pieces: list[Piece], index: int = 0) -> str:
    """Join the text of a choice."""
    deltas = (piece for piece in pieces if isinstance(piece, Delta))
    return "".join(delta.text for delta in deltas if delta.index == index)


def until(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    return probe.created_s(pid) is not None


def assert_nothing_left() -> None:
    """Look where servers keep their files."""
    assert not [*Path(os.environ["LLMDISPATCHER_RUNTIME_DIR"]).iterdir()]
