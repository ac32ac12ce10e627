"""Where a llama-server comes from: a path that was given, PATH, or the wheel ``xllamacpp``.

Looks at names and files only, and starts nothing: what a program can do is asked by ``build``.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from llmdispatcher.models.errors import ExecutableNotFound

NAME = "llama-server"

WHEEL = "xllamacpp"

INSTALL = (
    "install llama.cpp (https://github.com/ggml-org/llama.cpp/releases, brew install llama.cpp,"
    " winget install llama.cpp), or give executable= the path of a llama-server"
)

_FOLDERS = (".", "bin", "build/bin")
"""Where a program lies in a folder that was given: beside, or in a checkout that was built."""

_OLD_NAMES = ("main", "server", "llama")
"""What llama.cpp's programs were called before the summer of 2024, and the one that has them all.
The server of that time knows few of today's flags."""


def executable(path: Path | None) -> Path:
    """Return the path of a llama-server.

    ``path`` is the program, a folder that holds it, or the name of a program on PATH; None looks
    for ``llama-server`` on PATH. Raises ExecutableNotFound.
    """
    if path is None:
        found = shutil.which(NAME)
        if found is None:
            raise ExecutableNotFound(f"there is no {NAME} on PATH: {INSTALL}")
        return Path(found)
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        return _named(path)
    return _checked(path)


def prebuilt() -> bool:
    """Say whether the wheel is installed. It is not imported, which would load llama.cpp."""
    return find_spec(WHEEL) is not None


def _file_name() -> str:
    return f"{NAME}.exe" if sys.platform == "win32" else NAME


def _in_folder(folder: Path) -> Path:
    for place in _FOLDERS:
        found = folder / place / _file_name()
        if found.is_file():
            return _checked(found)
    looked = ", ".join(str(folder / place) for place in _FOLDERS)
    raise ExecutableNotFound(f"there is no {_file_name()} in {looked}: {INSTALL}")


def _named(path: Path) -> Path:
    """Find a name without a folder on PATH."""
    if path.name == str(path) and (found := shutil.which(path.name)):
        return _checked(Path(found))
    beside = _sibling(path)
    hint = f"; there is {beside}" if beside else f": {INSTALL}"
    raise ExecutableNotFound(f"there is no program at {path}{hint}")


def _checked(path: Path) -> Path:
    """Refuse the other programs of llama.cpp, which do not serve, and what cannot be run."""
    stem = path.stem if path.suffix.lower() == ".exe" else path.name
    is_other = stem.startswith("llama-") and not stem.startswith(NAME)
    if is_other or stem in _OLD_NAMES:
        beside = _sibling(path)
        hint = f"give executable={str(beside)!r}, which is beside it" if beside else INSTALL
        raise ExecutableNotFound(f"{path} does not serve requests, as {NAME} does: {hint}")
    if not os.access(path, os.X_OK):
        raise ExecutableNotFound(
            f"{path} is not a program that this user may run; allow it: chmod +x {path}"
        )
    return path


def _sibling(path: Path) -> Path | None:
    """Return the llama-server beside another program, if there is one."""
    beside = path.with_name(_file_name())
    return beside if beside != path and beside.is_file() else None
