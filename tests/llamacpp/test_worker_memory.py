"""The memory of a worker stays within its limit, however hard it is asked."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from llamacpp.test_worker import begin, ending, misbehaving, only_engine, pid_of
from tiny_gguf import tiny_model
from waits import WAIT_S

from llmdispatcher import Dispatcher, DispatcherError, LlamaCpp, OutOfMemory, Request
from llmdispatcher.vendors.llamacpp.files.gguf import read_header

MIB = 2**20
TOLERANCE = 1.05

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="where Linux tells what a process takes"
)


def status(pid: int) -> dict[str, int]:
    """Return what the system says of a process's memory, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return {name: int(facts[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS", "RssAnon")}


def under_load(d: Dispatcher, pid: int) -> list[dict[str, int]]:
    """Ask seven long prompts at once; returns what the worker took meanwhile, again and again."""
    peaks: list[dict[str, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            peaks.append(status(pid))

    prompts = [Request(prompt=f"{number} and so on " * 30) for number in range(7)]
    with ThreadPoolExecutor(8) as pool:
        looking = pool.submit(look)
        try:
            for reply in pool.map(lambda it: d.send(it, max_tokens=5, temperature=0), prompts):
                assert reply.usage.completion_tokens == 5
        finally:
            done.set()
        looking.result()
    return [*peaks, status(pid)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some 210 MiB, with a long context."""
    return tiny_model(
        tmp_path_factory.mktemp("models") / "large.gguf",
        vocab=2000,
        width=768,
        layers=8,
        feed_forward=2048,
        context=16_384,
    )


@pytest.mark.parametrize("limit_mb", [330, 400])
@pytest.mark.parametrize("engine", ["worker", pytest.param("server", marks=pytest.mark.upstream)])
def test_long_prompts_at_once_stay_within_the_limit(
    large: Path, limit_mb: int, engine: str
) -> None:
    """Weights that are mapped count, and so does all that is computed with them."""
    weights = read_header(large).weight_bytes
    program = os.environ["LLMDISPATCHER_LLAMA_SERVER"] if engine == "server" else None
    spec = LlamaCpp(large, max_threads=1, max_memory_mb=limit_mb, engine=engine, executable=program)
    with Dispatcher(spec) as d:
        d.send("x", max_tokens=1)
        peaks = under_load(d, pid_of(only_engine(d)))

    assert max(each["VmHWM"] for each in peaks) <= TOLERANCE * limit_mb * MIB
    assert max(each["RssAnon"] for each in peaks) <= TOLERANCE * (limit_mb * MIB - weights)


def test_what_a_site_imports_counts(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that takes more than usual before its model plans less, and serves as well.

    So much more that the model would be loaded, and no request have the room that it is to find.
    """
    site = "import sys\nsys.kept = bytearray(14 * 2**20)\n"
    (tmp_path / "sitecustomize.py").write_text(site, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = LlamaCpp(large, max_threads=1, max_memory_mb=400, engine="worker")
    with Dispatcher(spec) as d:
        d.send("x", max_tokens=1)
        peaks = under_load(d, pid_of(only_engine(d)))

    assert max(each["VmHWM"] for each in peaks) <= TOLERANCE * 400 * MIB


def test_memory_without_end_stays_within_the_limit(slow_model: Path) -> None:
    """What the system stops at the limit was never far above it."""
    engine = misbehaving(slow_model, "allocate", max_memory_mb=300).start(lambda _: None)
    try:
        engine.load("slow").result(WAIT_S)
        host = engine._there("slow")

        assert isinstance(ending(begin(engine)), OutOfMemory)

        assert (host.vitals().peak_bytes or 0) <= TOLERANCE * 300 * MIB
    finally:
        engine.close()


def test_the_next_life_takes_less(slow_model: Path) -> None:
    """After memory ran out, the model is loaded with less, and serves."""
    spec = misbehaving(slow_model, "throw")
    with Dispatcher(spec) as d:
        engine = only_engine(d)
        d.send("x", max_tokens=1)
        before = engine.footprint("slow").memory_bytes
        with pytest.raises(DispatcherError):
            d.send("x", max_tokens=50, temperature=0)

        reply = d.send("x", max_tokens=1, temperature=0)

        assert reply.usage.completion_tokens == 1
        assert engine.footprint("slow").memory_bytes < before
