"""``llmdispatcher doctor``: what is installed, whether it works, and how to mend what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmdispatcher import LlamaCpp, doctor, doctor_view
from llmdispatcher.doctor import Diagnosis
from llmdispatcher.models.errors import TimedOut
from llmdispatcher.vendors.llamacpp import checkup, processor, trial
from llmdispatcher.vendors.llamacpp.checkup import Finding, Part
from llmdispatcher.vendors.llamacpp.trial import Device, Trial

if TYPE_CHECKING:
    from cli.conftest import Run

_BENEATH = ("markdown_it", "mdurl", "pygments", "typing_extensions")
CORE = ("attr", "attrs", "cattr", "cattrs", "llmdispatcher", "rich", *_BENEATH)
"""Packages of an installation without extras."""

SERVER_HELP = """#!/bin/sh
echo "-h, --help  show this"
echo "-m, --model FNAME  the model"
echo "-c, --ctx-size N  context"
echo "-np, --parallel N  slots"
echo "--port PORT  port"
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Variables that keep everything that is written in the test's own folder."""
    folders = {"CACHE": "cache", "CRASH": "crashes", "RUNTIME": "run"}
    return {f"LLMDISPATCHER_{name}_DIR": str(tmp_path / at) for name, at in folders.items()}


def parts(shown: bytes) -> dict[str, dict[str, Any]]:
    """Return the parts of a diagnosis in JSON by their names."""
    return {part["name"]: part for part in json.loads(shown)["parts"]}


def fake(folder: Path, package: str, source: str) -> str:
    """Install a package in front of all others; returns PYTHONPATH."""
    (folder / "fake" / package).mkdir(parents=True)
    (folder / "fake" / package / "__init__.py").write_text(source, encoding="utf-8")
    return os.pathsep.join([str(folder / "fake"), os.environ.get("PYTHONPATH", str(folder))])


# -- the command -------------------------------------------------------------------------------


def test_a_whole_installation_has_no_problem(run: Run, own: dict[str, str]) -> None:
    """Engine, build, processor, memory, limits and places are told, and the exit code is 0."""
    done = run("doctor", env=own)

    told = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "runs GGUF files  worker (llama-cpp-python is installed)" in told
    assert "yes, tried in" in told
    assert "built for CPU" in told
    assert "MiB free, as far as this process may use it" in told
    assert "\nlimits of a worker\n" in told
    assert f"0 in {own['LLMDISPATCHER_CRASH_DIR']}" in told
    assert "PROBLEM" not in told
    assert "problems: 0, advice: " in told.splitlines()[-1]


def test_json_is_one_object(run: Run, own: dict[str, str]) -> None:
    """For programs: whether all is well, and every part with its facts and findings."""
    done = run("doctor", "--json", env=own)

    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["problems"]) == (0, True, 0)
    found = parts(done.stdout)
    assert {"versions", "machine", "engine", "GPUs", "packages", "files"} <= {*found}
    limits = found["limits of a worker"]["facts"]
    assert all(fact.startswith(("enforced: ", "not enforced: ")) for fact in limits.values())
    assert done.stdout.isascii()


def test_it_can_have_a_model_answer(run: Run, own: dict[str, str]) -> None:
    """The proof of all."""
    done = run("doctor", "--run", "--json", env=own)

    assert done.returncode == 0
    assert "Paris" in parts(done.stdout)["a real answer"]["facts"]["answered"]


def test_native_code_runs_elsewhere(run: Run, own: dict[str, str]) -> None:
    """This process imports neither llama.cpp nor anything else that could take it down."""
    done = run("doctor", env={**own, "PYTHONPROFILEIMPORTTIME": "1"})

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "attrs" in imported
    assert not imported & {"llama_cpp", "xllamacpp", "numpy", "jinja2", "asyncio", "rich"}


def test_a_bare_installation_is_told_what_to_install(tmp_path: Path, own: dict[str, str]) -> None:
    """With nothing but the core there is no engine: three ways to one, and no traceback."""
    for name in CORE:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin)
        path = path.parent if path.name == "__init__.py" else path
        (tmp_path / path.name).symlink_to(path)

    done = subprocess.run(
        [sys.executable, "-S", "-m", "llmdispatcher", "doctor"],
        env={**os.environ, **own, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"},
        capture_output=True,
        timeout=60,
        check=False,
    )

    told = done.stdout.decode()
    assert (done.returncode, done.stderr) == (1, b"")
    assert "PROBLEM: running GGUF files needs an engine, and there is no llama_cpp" in told
    for way in ("[llamacpp]' (compiles", "[prebuilt]'", "llama-server is on PATH"):
        assert way in told
    assert "memory and processors cannot be read: there is no psutil" in told
    assert "psutil        not installed" in told


def test_a_library_for_another_processor_is_a_problem(
    run: Run, own: dict[str, str], tmp_path: Path
) -> None:
    """Its crash is told with what it was doing, and this program lives on."""
    path = fake(tmp_path, "llama_cpp", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")

    done = run("doctor", "--json", env={**own, "PYTHONPATH": path})

    (finding,) = parts(done.stdout)["llama-cpp-python"]["findings"]
    assert done.returncode == 1
    assert finding["what"].startswith("it does not work: llama-cpp-python ends every process")
    assert "while importing it, with SIGILL" in finding["what"]
    assert "pip install --no-cache-dir --force-reinstall" in finding["remedy"]
    assert finding["serious"]


def test_another_release_is_a_problem(run: Run, own: dict[str, str], tmp_path: Path) -> None:
    """With the command that installs the right one."""
    path = fake(tmp_path, "llama_cpp", "__version__ = '0.2.90'")

    done = run("doctor", "--json", env={**own, "PYTHONPATH": path})

    (finding,) = parts(done.stdout)["llama-cpp-python"]["findings"]
    assert done.returncode == 1
    assert finding["what"].endswith("and there is 0.2.90")
    assert finding["remedy"] == "pip install 'llama-cpp-python==0.3.36' jinja2 psutil"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (SERVER_HELP, 0, "yes, and knows "),
        ("#!/bin/sh\necho usage: something else\n", 1, "is not a llama-server"),
        ("#!/bin/sh\nkill -ILL $$\n", 1, "SIGILL"),
    ],
)
def test_the_llama_server_on_path_is_asked(  # noqa: PLR0913, PLR0917 - three fixtures
    run: Run, own: dict[str, str], tmp_path: Path, script: str, code: int, words: str
) -> None:
    """It may be another program, or built for another processor."""
    program = tmp_path / "llama-server"
    program.write_text(script)
    program.chmod(0o755)

    done = run("doctor", "--json", env={**own, "PATH": f"{tmp_path}:{os.environ['PATH']}"})

    assert done.returncode == code
    assert words in json.dumps(parts(done.stdout)["llama-server"])


def test_crash_reports_are_pointed_at(run: Run, own: dict[str, str]) -> None:
    """The last one is named; that there are some is advice, not a problem."""
    folder = Path(own["LLMDISPATCHER_CRASH_DIR"])
    folder.mkdir(mode=0o700)
    for name in ("crash-1.txt", "crash-2.txt"):
        (folder / name).write_text("")

    done = run("doctor", "--json", env=own)

    (finding,) = parts(done.stdout)["files"]["findings"]
    assert (done.returncode, finding["serious"]) == (0, False)
    assert finding["what"].endswith("crash-2.txt")


def test_a_folder_that_cannot_be_used_is_told(
    run: Run, own: dict[str, str], tmp_path: Path
) -> None:
    """With the variable that names another one."""
    (tmp_path / "file").write_text("")

    done = run("doctor", "--json", env={**own, "LLMDISPATCHER_CRASH_DIR": str(tmp_path / "file")})

    (finding,) = parts(done.stdout)["files"]["findings"]
    assert done.returncode == 0
    assert "LLMDISPATCHER_CRASH_DIR" in finding["remedy"]


def test_usage_errors_are_2(run: Run) -> None:
    """As for all other commands."""
    done = run("doctor", "--fast")
    assert (done.returncode, done.stdout) == (2, b"")


# -- findings that no test machine has ---------------------------------------------------------


def library(**facts: Any) -> Part:
    """Describe a trial of the installed binding."""
    facts = {"works": True, "version": "0.3.36", **facts}
    return checkup.library("llama-cpp-python", Trial(**facts))


def test_a_build_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower than it could be is advice; one that uses what is not there is a problem."""
    monkeypatch.setattr(processor, "flags", lambda: frozenset({"avx", "avx2"}))

    (slow,) = library(system_info="CPU : AVX = 1 | ").findings
    (wrong,) = library(system_info="CPU : AVX2 = 1 | FMA = 1 | ").findings

    assert (slow.serious, wrong.serious) == (False, True)
    assert "built without AVX2" in slow.what
    assert "FMA, which this one does not have" in wrong.what
    assert "--no-binary llama-cpp-python" in slow.remedy
    assert "--no-binary llama-cpp-python" in wrong.remedy


def test_a_library_that_hangs_is_told_what_to_try() -> None:
    """Its error alone would not say."""
    (finding,) = library(works=False, cause=TimedOut("load", 60.0), stage="looking").findings

    assert "timed out" in finding.what
    assert "while looking" in finding.what
    assert "CUDA_VISIBLE_DEVICES=-1" in finding.remedy


def test_an_application_without_python_says_what_was_not_tried() -> None:
    """Nothing is claimed."""
    assert ("works", "not tried: there is no Python to try it with") in library(works=None).facts


def test_devices_are_listed_by_the_library_that_uses_them() -> None:
    """GPUs, not processors."""
    card = Device(name="CUDA0", description="A card", kind="gpu", free_bytes=1, total_bytes=2)
    host = Device(name="CPU", description="A host", kind="processor", free_bytes=1, total_bytes=2)

    part = checkup.gpus([Trial(works=True, devices=(card, host))])

    assert ("used by llama_cpp", "CUDA0: A card") in part.facts


def test_a_missing_embedded_model_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged installation."""
    monkeypatch.setattr(doctor, "embedded", lambda: LlamaCpp(tmp_path / "gone.gguf"))

    (finding,) = doctor.model().findings

    assert finding.serious
    assert "gone.gguf" in finding.what


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    """Names of devices and texts of errors come from elsewhere."""
    found = Finding("a\x1b[31mred\nline", "way\x07", serious=False)

    told = doctor_view.text(Diagnosis((Part("name", (("fact", "x\x1by"),), (found,)),), 0.0))

    assert "\x1b" not in told
    assert "\x07" not in told
    assert "  advice: a[31mred line\n    -> way\n" in told
    assert told.endswith("problems: 0, advice: 1, looked for 0.0 s\n")


def test_trials_are_known_by_their_packages() -> None:
    """The names under which the doctor lists libraries are those that are tried."""
    assert {trial.BINDING, trial.PREBUILT} == {"llama_cpp", "xllamacpp"}
