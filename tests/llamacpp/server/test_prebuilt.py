"""The server of the wheel ``xllamacpp``, in a child of ours: the same requests, the same end.

Runs under the marker ``upstream``, with the path of a Python that has the wheel in
LLMDISPATCHER_XLLAMACPP.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import attrs
import pytest
from embedding_gguf import encoder
from llamacpp.server.served import Served, drain, text, until

from llmdispatcher import EmbedRequest, LlamaCpp, Request
from llmdispatcher.models.embedding import Vector
from llmdispatcher.models.errors import CorruptModel, EngineCrashed
from llmdispatcher.models.reply import Delta
from llmdispatcher.vendors.llamacpp.server.program import Prebuilt
from llmdispatcher.vendors.llamacpp.vendor import embedded

pytestmark = pytest.mark.upstream

PYTHON = "LLMDISPATCHER_XLLAMACPP"


@pytest.fixture
def wheel() -> Prebuilt:
    """The wheel's server; without it, the test fails."""
    path = os.environ.get(PYTHON, "")
    if not Path(path).is_file():
        pytest.fail(
            f"{PYTHON} must name a Python that has xllamacpp, and is {path!r}; or leave these"
            " tests out with -m 'not upstream'",
            pytrace=False,
        )
    return Prebuilt(path)


def test_it_answers(wheel: Prebuilt) -> None:
    """Conversations, prompts and several choices are answered, and no key is on its command."""
    with Served(embedded(), program=wheel) as served:
        pid = served.ready().pid()
        assert "France" in text(
            served.ask(Request.of("What is the capital of France?", temperature=0))
        )
        assert text(served.ask(Request.of("Hello", n=2, max_tokens=3, temperature=0)), 1)
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"api" not in shown


def test_it_embeds(wheel: Prebuilt, tmp_path: Path) -> None:
    """A file that embeds is loaded for that."""
    with Served(LlamaCpp(encoder(tmp_path / "model.gguf")), program=wheel) as served:
        served.ready()
        pieces = served.ask(EmbedRequest.of([f"text {number}" for number in range(40)]))
        assert sum(isinstance(piece, Vector) for piece in pieces) == 40


def test_its_death_is_a_crash(wheel: Prebuilt, slow_model: Path) -> None:
    """A server that is killed ends its calls, as any other."""
    spec = attrs.evolve(embedded(), model_path=slow_model, max_threads=1)
    with Served(spec, program=wheel) as served:
        pid = served.ready().pid()
        assert pid is not None
        call = served.host.submit(Request(prompt="tata " * 20, max_tokens=3000))
        while not any(isinstance(piece, Delta) for piece in call.receive(30)):
            pass
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed):
            drain(call)
        until(lambda: served.host.ended() is not None)


def test_a_file_that_is_none_fails_the_load(wheel: Prebuilt, tmp_path: Path) -> None:
    """What cannot be loaded is told."""
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with Served(LlamaCpp(path), program=wheel) as served:
        assert isinstance(served.failed(), CorruptModel)
