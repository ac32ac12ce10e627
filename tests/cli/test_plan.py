"""``llmdispatcher plan``: how a model would be loaded, before anything is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from model_shapes import SHAPES
from tiny_gguf import sparse_model

import llmdispatcher.models
from llmdispatcher.vendors.llamacpp.files.gguf import read_header

if TYPE_CHECKING:
    from cli.conftest import Run

DEMO = Path(llmdispatcher.models.__file__ or "").with_name("demo.gguf")


def rows(shown: bytes) -> dict[str, str]:
    """Return the rows of what is shown by their first words: numbers, choices and reasons."""
    found = {}
    for line in shown.decode().splitlines():
        name, _, rest = line.strip().partition("  ")
        found[name] = rest.strip()
    return found


def test_the_plan_is_shown(run: Run) -> None:
    """The model, bytes by part, what was chosen and why, on stdout and nothing else."""
    done = run("plan", "--model", str(DEMO))
    assert (done.returncode, done.stderr) == (0, b"")
    count = f"{read_header(DEMO).parameter_count / 1e6:.3g} million"
    assert done.stdout.startswith(f"demo.gguf, llmdispatcher demo, llama, {count}".encode())
    found = rows(done.stdout)
    parts = ("weights", "kv_cache", "compute", "output", "tokenizer", "bookkeeping", "process")
    sizes = [float(found[name].split()[0].replace(",", "")) for name in (*parts, "total")]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.4)
    assert {"limit", "free", "context", "cells", "parallel", "slots", "threads"} <= {*found}
    assert done.stdout.count(b"\n- ") >= 5


def test_without_a_model_the_embedded_one_is_planned(run: Run) -> None:
    """As for all other commands."""
    assert run("plan").stdout.startswith(b"demo.gguf, ")


def test_every_option_counts(run: Run) -> None:
    """What is asked for is what is planned."""
    limits = ["--context", "300", "--parallel", "2", "--memory-mb", "100", "--threads", "1"]
    done = run("plan", "-m", str(DEMO), *limits, "--gpu-layers", "0", "--cache-type", "f32")
    found = rows(done.stdout)
    expected = {"context": "300", "parallel": "2", "threads": "1", "limit": "100.0"}
    expected |= {"cache type": "f32", "GPU layers": "0"}
    assert {name: found[name].split()[0] for name in expected} == expected
    assert "- GPU layers: none, as asked" in done.stdout.decode()


def test_a_large_model_is_planned_without_reading_it(run: Run, tmp_path: Path) -> None:
    """Of eight billion numbers nothing is read but the header, and no engine is loaded."""
    path = sparse_model(tmp_path / "8b.gguf", **SHAPES["8b"])
    limits = ["--gpu-layers", "0", "--memory-mb", "9000"]
    done = run("plan", "-m", str(path), *limits, env={"PYTHONPROFILEIMPORTTIME": "1"})
    if done.returncode:  # this machine is smaller
        assert re.search(rb"there is free [0-9]+ MiB", done.stderr)
    else:
        assert float(rows(done.stdout)["weights"].split()[0].replace(",", "")) > 7000
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "attrs" in imported
    assert not imported & {"llama_cpp", "numpy", "jinja2", "rich", "asyncio"}


def test_a_model_that_does_not_fit_is_refused_with_numbers(run: Run) -> None:
    """The parts, the limit and the way out are told, and the exit code is that of a failure."""
    done = run("plan", "-m", str(DEMO), "--memory-mb", "4")
    assert (done.returncode, done.stdout) == (1, b"")
    line = done.stderr.decode()
    assert re.search(r"error: .*demo\.gguf needs [0-9]+ MiB .* its limit is 4 MiB \(weights", line)
    advised = re.search(r"allow ([0-9]+) MiB", line)
    assert advised is not None
    assert run("plan", "-m", str(DEMO), "--memory-mb", advised[1]).returncode == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no file"), (b"hello\n", "not a GGUF file"), (b"", "empty")],
)
def test_files_that_cannot_be_loaded_are_explained(
    run: Run, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """What is wrong is said in the words of the error that loading would raise."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    done = run("plan", "-m", str(path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr.decode()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--context", "many"), "plan --help"),
        (("--context", "2"), "context_tokens must be"),
        (("--parallel", "0"), "max_parallel must be"),
        (("--cache-type", "q5"), "cache_type must be"),
        (("--temperature", "1"), "--temperature"),
    ],
)
def test_usage_errors_are_2(run: Run, args: tuple[str, ...], words: str) -> None:
    """A mistake on the command line is one line that names it."""
    done = run("plan", *args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
