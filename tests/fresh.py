"""Fresh interpreters, in which nobody has imported anything yet and nobody measures."""

from __future__ import annotations

import os
import subprocess
import sys


def in_a_new_process(code: str) -> str:
    """Run code in a fresh interpreter, which nobody measures, and return what it prints.

    Whoever measures coverage starts in child processes too, with modules of its own: sqlite3, say.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
    )
    assert not done.stderr
    return done.stdout
