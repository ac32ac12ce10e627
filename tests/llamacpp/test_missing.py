"""What happens where llama-cpp-python, or a part of it, is missing, broken or another version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WAYS_OUT = "pip install 'llmdispatcher[llamacpp]'"
"""Without the binding, other engines would do as well, and all of them are named."""
WAY_OUT = "pip install 'llama-cpp-python==0.3.36' jinja2 psutil"

BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask the embedded model, with a folder in front of all installed packages."""
    return subprocess.run(
        [sys.executable, "-m", "llmdispatcher", "ask", "Who are you?"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("name", ["llama_cpp", "jinja2", "psutil", "numpy"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, tmp_path: Path
) -> None:
    """Without the extra, a question ends in one line that says what to type, and exit code 1."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(name=name), encoding="utf-8")

    done = ask(tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"there is no {name}" in done.stderr
    assert (WAYS_OUT if name == "llama_cpp" else WAY_OUT) in done.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("__version__ = '0.2.90'", "there is 0.2.90"),
        ("raise RuntimeError('Failed to load shared library')", "a broken one (Failed to load"),
        ("raise OSError('libllama.so: wrong ELF class')", "a broken one (libllama.so: wrong ELF"),
    ],
)
def test_another_version_or_a_broken_one_is_refused(source: str, told: str, tmp_path: Path) -> None:
    """Structs of another release would be filled in wrongly: it is not even called."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(source, encoding="utf-8")

    done = ask(tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert WAY_OUT in done.stderr
    assert "Traceback" not in done.stderr
