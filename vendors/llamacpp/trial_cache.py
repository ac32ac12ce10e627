"""Remembers, in the user's cache folder, which installs of a native library worked when tried.

One small JSON file for each install, written beside and moved into place, readable by its owner
alone. A file that is damaged, foreign or gone only means that the library is tried again; a folder
that cannot be written to means that it is tried each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from llmdispatcher.vendors.llamacpp.child import folders

VARIABLE = "LLMDISPATCHER_CACHE_DIR"
"""Names another folder for what llmdispatcher may forget."""

MOST_KEPT = 16
"""Installs that are remembered, the last that were tried: each virtual environment is one."""

MOST_BYTES = 64 * 1024
"""Of one file; a trial with 16 GPUs takes 4 KB."""

FORMAT = 2
"""Of what is written; another one is not read."""


def folder() -> Path:
    """Return where trials are remembered; it need not exist. ImportError without platformdirs."""
    given = os.environ.get(VARIABLE)
    if given:
        # unlike Path.expanduser, it leaves the folder of a user who is not there as it is
        return Path(os.path.expanduser(given)) / "trials"  # noqa: PTH111 - as above
    from platformdirs import user_cache_path  # noqa: PLC0415 - first use

    return user_cache_path("llmdispatcher", appauthor=False) / "trials"


def read(key: object) -> dict[str, Any] | None:
    """Return what was written under a key; None if nothing was, or it is not whole."""
    try:
        with _path(key).open("rb") as file:
            if not _is_ours(os.fstat(file.fileno())):
                return None
            kept = json.loads(file.read(MOST_BYTES + 1))
    except (OSError, ImportError, ValueError, RecursionError):  # JSON may be nested for ever
        return None
    if not isinstance(kept, dict) or kept.get("format") != FORMAT or kept.get("key") != key:
        return None
    facts = kept.get("facts")
    return facts if isinstance(facts, dict) else None


def write(key: object, facts: dict[str, Any]) -> None:
    """Remember facts under a key, in place of what was there; a failure is not told."""
    text = json.dumps({"format": FORMAT, "key": key, "facts": facts})
    with contextlib.suppress(OSError, ImportError):
        path = _path(key)
        folders.write(folders.private(path.parent) / path.name, text)
        _prune(path.parent)


def forget(key: object) -> None:
    """Remember nothing under a key."""
    with contextlib.suppress(OSError, ImportError):
        _path(key).unlink(missing_ok=True)


def _path(key: object) -> Path:
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return folder() / f"{name}.json"


def _is_ours(status: os.stat_result) -> bool:
    """Say whether a file is this user's own: nobody else may say that a library works."""
    if os.name != "posix":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _prune(place: Path) -> None:
    """Delete all but the last MOST_KEPT files, half written ones of dead processes included."""
    with os.scandir(place) as entries:
        found = sorted((-entry.stat().st_mtime, entry.path) for entry in entries if entry.is_file())
    for _, path in found[MOST_KEPT:]:
        with contextlib.suppress(OSError):
            Path(path).unlink()
