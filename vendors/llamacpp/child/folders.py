"""Where files about child processes lie: folders of this user's that nobody else may look into.

The environment names others: LLMDISPATCHER_RUNTIME_DIR for the files that tell which children run,
LLMDISPATCHER_CRASH_DIR for crash reports. A folder that another user owns or may write to is not
used: what it says decides which processes are ended.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

RUNTIME = "LLMDISPATCHER_RUNTIME_DIR"
CRASHES = "LLMDISPATCHER_CRASH_DIR"

_NAME = "llmdispatcher"
_PRIVATE = 0o700
_SHARED = stat.S_IWGRP | stat.S_IWOTH


def runtime() -> Path:
    """Return the folder for what is true while processes run, made if need be.

    Raises OSError where there is none that can be used. Not the system's folder of that name, which
    services and containers often lack.
    """
    if given := os.environ.get(RUNTIME):
        return private(Path(given))
    import platformdirs  # noqa: PLC0415 - on first use

    return private(platformdirs.user_cache_path(_NAME) / "children")


def crashes() -> Path:
    """Return the folder of the crash reports, made if need be. Raises OSError as ``runtime``."""
    if given := os.environ.get(CRASHES):
        return private(Path(given))
    import platformdirs  # noqa: PLC0415 - on first use

    return private(platformdirs.user_log_path(_NAME) / "crashes")


def private(folder: Path) -> Path:
    """Make the folder if need be and return it. Raises OSError where it is not ours alone."""
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if sys.platform != "win32":
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{folder} is not a folder of this user's")
        if found.st_mode & _SHARED:
            raise PermissionError(f"{folder} can be written to by others")
    return folder


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, for its owner alone. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)  # owner only
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
