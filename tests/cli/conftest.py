"""Start the real program: over pipes (``run``), or on a real pseudo-terminal (``screen``)."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE_S = 80.0
"""How long a test waits for what must come; only a failure waits that long. The program's silent
vendors are silent for longer."""

STILL_S = 0.03
"""Who sleeps so long without a break waits for keys: for its turn, Python wakes every 5 ms."""

PROGRAM = str(Path(__file__).with_name("program.py"))

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Start = Callable[..., "Screen"]


def _command(args: tuple[str, ...], script: str) -> list[str]:
    return [sys.executable, *([PROGRAM, script] if script else ["-m", "llmdispatcher"]), *args]


@pytest.fixture
def run() -> Run:
    """Run a command line to its end over pipes; ``script`` names the vendors of program.py."""

    def start(
        *args: str, script: str = "", stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            _command(args, script),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, **(env or {})},
        )

    return start


def _hear_ctrl_c() -> None:
    """Undo what a shell does to a job in the background, which these tests may be a part of."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Screen:
    """A program on a terminal of its own, which Ctrl-C reaches as it does from a keyboard."""

    def __init__(self, command: list[str], *, stdout: int | None = None) -> None:
        self._master, self._slave = pty.openpty()
        termios.tcsetwinsize(self._slave, (24, 100))
        # The first process of a session that opens a terminal is controlled by it.
        redirect = 'exec "$@" <>"$0" 2>&0' + (" >&0" if stdout is None else "")
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", redirect, os.ttyname(self._slave), *command],
            start_new_session=True,
            stdout=stdout,
            env={**os.environ, "TERM": "xterm-256color"},
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - sets one flag, and takes no lock
        )
        self.text = ""
        """All that was shown."""
        self._raw = b""
        self._seen = 0

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown that was not shown before the last one waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while (at := self.text.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text[self._seen :]!r}"
            self._read(0.1)
        self._seen = at + len(text)

    def type(self, text: str) -> None:
        """Press keys, once the program waits for some."""
        # A signal that arrives between the prompt and readline's wait is not seen by CPython
        # before the next key; nobody types as fast as that, except a test.
        deadline = time.monotonic() + PATIENCE_S
        before: int | None = None
        now = self._slept()
        while now is None or now != before:
            assert time.monotonic() < deadline, "the program never waits"
            time.sleep(STILL_S)
            before, now = now, self._slept()
        os.write(self._master, text.encode())

    def _slept(self) -> int | None:
        """Return how often the program's first thread has gone to sleep; None while it is awake."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return int(facts["voluntary_ctxt_switches"]) if facts["State"].split()[0] == "S" else None

    def end(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"does not end after {self.text!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """Kill the program, if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, timeout_s: float) -> bool:
        ready = bool(select.select([self._master], [], [], timeout_s)[0])
        if ready:
            self._raw += os.read(self._master, 65536)
            # all anew: what is read at once may end within a character, or an end of a line
            self.text = self._raw.decode(errors="replace").replace("\r\n", "\n")
        return ready


@pytest.fixture
def screen() -> Iterator[Start]:
    """Start a command line on a terminal; ``stdout`` may be a file descriptor instead."""
    screens: list[Screen] = []

    def start(*args: str, script: str = "", stdout: int | None = None) -> Screen:
        screens.append(Screen(_command(args, script), stdout=stdout))
        return screens[-1]

    yield start
    for each in screens:
        each.close()
