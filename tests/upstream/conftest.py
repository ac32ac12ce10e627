"""What the tests against llama.cpp itself need: its sources, and its server built from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from upstream.llama_server import LlamaServer, Settings

SOURCES = "LLMDISPATCHER_LLAMA_CPP"
SERVER = "LLMDISPATCHER_LLAMA_SERVER"

Serve = Callable[[Settings], LlamaServer]


def told(variable: str, content: str) -> Path:
    """Return the path that an environment variable holds; without one, the test fails."""
    path = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable) or not path.exists():
        pytest.fail(
            f"{variable} must name {content}, and is {os.environ.get(variable)!r}:"
            ' eval "$(.ci/upstream FOLDER)" builds it in FOLDER, in some minutes, and sets the'
            " variable; or leave these tests out with -m 'not upstream'",
            pytrace=False,
        )
    return path


@pytest.fixture(scope="session")
def llama_cpp_sources() -> Path:
    """The folder with the sources of llama.cpp that the binding is made of."""
    return told(SOURCES, "the folder with the sources of llama.cpp")


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start a llama-server; it serves in a with block."""
    binary = told(SERVER, "the program llama-server, built from the sources of llama.cpp")
    folder = tmp_path_factory.mktemp("servers")

    def start(settings: Settings) -> LlamaServer:
        number = len(list(folder.iterdir()))
        return LlamaServer(binary, settings, folder / f"{number}.log")

    return start
