"""Which engine runs a GGUF file here: our own in a child or in this process, or a llama-server.

``choose`` is pure; ``look`` finds out what is installed without importing any of it. Nobody who
asked for a process of its own ever gets a model in this one.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

import attrs

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.llamacpp.loading import TESTED_VERSIONS

COMPILED = (
    "pip install 'llmdispatcher[llamacpp]' (compiles llama.cpp for this machine, which takes"
    " minutes and a C++ compiler, and is the fastest)"
)
WHEEL = "pip install 'llmdispatcher[prebuilt]' (ready in seconds)"
PROGRAM = (
    "install llama.cpp itself, so that llama-server is on PATH (brew install llama.cpp, winget"
    " install llama.cpp, conda install -c conda-forge llama.cpp, or a release of its project)"
)
"""Three ways to install something that runs GGUF files."""


class Kind(StrEnum):
    """Where a model runs."""

    WORKER = "worker"
    """llama-cpp-python, in a child process of ours."""
    THREAD = "thread"
    """llama-cpp-python, in this process."""
    PREBUILT = "prebuilt"
    """The server of xllamacpp, in a child process of ours."""
    SERVER = "server"
    """A llama-server program."""


@attrs.frozen(kw_only=True)
class There:
    """What this machine has."""

    binding: str | None = None
    """The version of llama-cpp-python; empty where it does not tell, None where there is none."""
    prebuilt: bool = False
    """Whether xllamacpp is installed."""
    executable: Path | None = None
    """The llama-server on PATH."""
    starts_python: bool = True
    """Whether a child that runs Python can be started, which a frozen application cannot without
    ``worker_command``."""


@attrs.frozen(kw_only=True)
class Choice:
    """Which engine, and why."""

    kind: Kind
    why: str
    executable: Path | None = None
    """For SERVER: the program, or the folder that holds it."""


def choose(engine: str, executable: Path | None, isolation: str, there: There) -> Choice:
    """Choose an engine, by ``LlamaCpp.engine``, ``executable`` and ``isolation``.

    "auto" takes the executable where one is named; else llama-cpp-python, in a child or, where
    that was asked for, in this process; else xllamacpp; else the llama-server on PATH.

    Raises ExecutableNotFound, with the commands that install one, where nothing can be used, and
    BadRequest where an executable is named for an engine that runs none.
    """
    if executable is not None:
        if engine == "worker":
            allowed = "left out with engine='worker', which runs no program: use engine='server'"
            raise BadRequest("executable", str(executable), allowed)
        why = "an executable was named"
        return Choice(kind=Kind.SERVER, why=why, executable=executable)
    reasons: list[str] = []
    if engine in {"auto", "worker"}:
        refusal = _unusable(isolation, there)
        if refusal is None:
            return _own(engine, isolation)
        reasons.append(refusal)
    if engine in {"auto", "server"} and (served := _served(reasons, there)) is not None:
        return served
    raise _nothing(engine, reasons)


def _unusable(isolation: str, there: There) -> str | None:
    """Return why our own engine cannot run, if so."""
    if there.binding is None:
        return "there is no llama_cpp"
    if there.binding and there.binding not in TESTED_VERSIONS:
        return f"there is llama-cpp-python {there.binding}, and {TESTED_VERSIONS[-1]} is needed"
    if isolation == "process" and not there.starts_python:
        return "this application has no Python to start a worker with (see worker_command)"
    return None


def _own(engine: str, isolation: str) -> Choice:
    why = (
        "llama-cpp-python is installed" if engine == "auto" else f"engine={engine!r} was asked for"
    )
    if isolation == "thread":
        return Choice(kind=Kind.THREAD, why=f"{why}, and isolation='thread' was asked for")
    return Choice(kind=Kind.WORKER, why=why)


def _served(reasons: list[str], there: There) -> Choice | None:
    """Choose a server, and say in ``reasons`` why not one or the other."""
    why = "; ".join(reasons) or "engine='server' was asked for"
    if there.prebuilt and there.starts_python:
        return Choice(kind=Kind.PREBUILT, why=f"{why}, and xllamacpp is installed")
    reasons.append("no xllamacpp" if there.starts_python else "no Python to start xllamacpp with")
    if there.executable is not None:
        why = f"{why}, and {there.executable} is on PATH"
        return Choice(kind=Kind.SERVER, why=why, executable=there.executable)
    reasons.append("no llama-server on PATH")
    return None


def _nothing(engine: str, reasons: list[str]) -> ExecutableNotFound:
    needed, ways = _WAYS.get(engine, _WAYS["auto"])
    listed = "; or ".join(ways)
    return ExecutableNotFound(f"{needed}, and {', '.join(reasons)}: {listed}")


_WAYS = {
    "auto": ("running GGUF files needs an engine", (COMPILED, WHEEL, PROGRAM)),
    "worker": ("engine='worker' needs llama-cpp-python", (COMPILED,)),
    "server": ("engine='server' needs a llama-server", (WHEEL, PROGRAM)),
}


# -- looking -----------------------------------------------------------------------------------


def look(*, has_worker_command: bool = False) -> There:
    """Look what is installed, in milliseconds: nothing native is imported and nothing started."""
    frozen = getattr(sys, "frozen", False) or not sys.executable
    return There(
        binding=version("llama_cpp"),
        prebuilt=is_there("xllamacpp"),
        executable=_on_path(),
        starts_python=has_worker_command or not frozen,
    )


def version(package: str) -> str | None:
    """Return a package's version by its metadata; see ``There.binding``."""
    from importlib import metadata  # noqa: PLC0415 - slow to import

    if not is_there(package):
        return None
    try:
        return metadata.version(_DISTRIBUTIONS.get(package, package))
    except metadata.PackageNotFoundError:
        return ""


_DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python"}
"""What a package is called where it is installed from, where that is not its own name."""


def is_there(package: str) -> bool:
    """Say whether a package can be found, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # something in sys.modules or in the path stands in its way
        return False


def _on_path() -> Path | None:
    from llmdispatcher.vendors.llamacpp.server import find  # noqa: PLC0415 - first use

    try:
        return find.executable(None)
    except ExecutableNotFound:
        return None
