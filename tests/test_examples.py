"""The examples and the README's programs run, as they stand, from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from embedding_gguf import encoder, qwen3_reranker
from lora_gguf import lora
from vision_gguf import picture, seeing_model, tiny_projector

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
EXAMPLES = {
    "first.py": ([], "Paris"),
    "fallback.py": ([], "in all $0.0018"),
    "stop_button.py": ([], "cancelled in the books: 1"),
    "many_at_once.py": ([], "Tokyo"),
    "own_model.py": (["{model}", "hello"], ""),
    "structured.py": ([], "Sum(a=2, b=3, sum=5)"),
    "whoever_answers.py": (["http://127.0.0.1:9"], "The capital of Japan is Tokyo."),
    "survive.py": ([], "The capital of France is Paris."),
    "cascade.py": ([], "What is 13 * 17? 221"),
    "search.py": (["{embedder}", "What is a paperclip?", "{reranker}"], "."),
}


def run(code: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder of its own; whatever it prints on stderr is part of the result."""
    return subprocess.run(
        [sys.executable, *code],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=240,
        check=False,
        env={**os.environ, "XDG_DATA_HOME": str(folder / "data")},
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path, small_model: Path) -> None:
    """Each example ends well and prints what it is about."""
    arguments, expected = EXAMPLES[name]
    files = {
        "model": small_model,
        "embedder": encoder(tmp_path / "embedder.gguf"),
        "reranker": qwen3_reranker(tmp_path / "reranker.gguf"),
    }
    filled = [argument.format(**files) for argument in arguments]

    done = run([str(ROOT / "examples" / name), *filled], tmp_path)

    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_every_example_is_tried() -> None:
    """No example is forgotten here."""
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


def programs() -> list[str]:
    """Take the Python programs out of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_readme_has_programs() -> None:
    """The README shows how to use it in at least three programs."""
    assert len(programs()) >= 3


def prepare(folder: Path, program: str, small_model: Path) -> None:
    """Put the files that a program names into its folder: models of the kind that it needs."""
    seeing = "mmproj.gguf" in program
    makers: dict[str, Callable[[Path], object]] = {
        "mmproj.gguf": tiny_projector,
        "legal-lora.gguf": lambda path: lora(path, folder / "model.gguf"),
        "photo.jpg": lambda path: path.write_bytes(picture(form="JPEG")),
        "embedder.gguf": encoder,
        "reranker.gguf": qwen3_reranker,
    }
    if seeing:
        marks = dict(enumerate(("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), 590))
        makers["model.gguf"] = lambda path: seeing_model(path, "mlp", control=marks)
    for name in re.findall(r'"([\w-]+\.(?:gguf|jpg))"', program):
        if name in makers:
            makers[name](folder / name)
        else:
            (folder / name).symlink_to(small_model)


@pytest.mark.parametrize("program", programs(), ids=lambda text: text.split("\n")[0])
def test_a_program_of_the_readme_runs(program: str, tmp_path: Path, small_model: Path) -> None:
    """The README's programs run as they stand, where their model files exist."""
    prepare(tmp_path, program, small_model)

    done = run(["-W", "error", "-c", program], tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout
