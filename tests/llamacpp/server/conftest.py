"""Servers to supervise: a fake that behaves as it is told, and the real one where it is at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llamacpp.server.served import Fake

SERVER = "LLMDISPATCHER_LLAMA_SERVER"


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the files of servers, and what is told of their deaths, with the test."""
    with tempfile.TemporaryDirectory(prefix="llmd-") as folder:  # short, for the path of a socket
        monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", folder)
        monkeypatch.setenv("LLMDISPATCHER_CRASH_DIR", str(tmp_path / "crashes"))
        yield


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Fake]:
    """Make a llama-server that does what it is told wrong."""
    return lambda how: Fake.made(tmp_path / how, how)


def real_server() -> Path:
    """Return the real llama-server; without one, the test fails."""
    path = Path(os.environ.get(SERVER, ""))
    if not path.is_file():
        pytest.fail(
            f"{SERVER} must name the program llama-server, and is {os.environ.get(SERVER)!r};"
            " or leave these tests out with -m 'not upstream'",
            pytrace=False,
        )
    return path
