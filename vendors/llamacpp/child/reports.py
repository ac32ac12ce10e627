"""Crash reports: one small file for each child that crashed, for a person to read or to send.

They lie in the folder for logs that the system gives each user, under ``llmdispatcher/crashes``
(Linux: ``~/.local/state/llmdispatcher/log/crashes``), or where LLMDISPATCHER_CRASH_DIR says; at
most ten are kept, for their owner alone. They hold versions, the facts of the model and its plan,
the error and the end of the log; no prompt and no reply. Nothing here ever raises.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.llamacpp.child import folders

MAX_REPORTS = 10
"""Kept in the folder, the newest."""

MAX_CHARS = 32_000
"""Of a report: a screen of log, and facts of a line each, fit several times."""

_log = logging.getLogger("llmdispatcher.llamacpp")


def write(facts: Mapping[str, str], error: DispatcherError) -> Path | None:
    """Write a report and return where it is; None where it cannot be written.

    ``facts`` are what the caller knows: vendor, model file, numbers of the plan. Each becomes a
    line. They must not hold prompts.
    """
    now = dt.datetime.now(dt.UTC)
    try:
        folder = folders.crashes()
        path = folder / f"crash-{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}.txt"
        folders.write(path, _text(now, facts, error)[:MAX_CHARS])
        for old in sorted(folder.glob("crash-*.txt"))[:-MAX_REPORTS]:
            old.unlink(missing_ok=True)
    except (OSError, ImportError) as problem:
        _log.debug("no crash report is written: %s", problem)
        return None
    return path


def _text(now: dt.datetime, facts: Mapping[str, str], error: DispatcherError) -> str:
    """Return the report."""
    known = {
        "date": f"{now:%Y-%m-%d %H:%M:%S} UTC",
        "llmdispatcher": _version("llmdispatcher"),
        "llama-cpp-python": _version("llama-cpp-python"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{sys.platform} {platform.release()} {platform.machine()}",
        **facts,
        "error": type(error).__name__,
        "message": str(error),
    }
    lines = [f"{name}: {' '.join(str(value).split())}" for name, value in known.items()]
    tail = getattr(error, "tail", "")
    return "\n".join([*lines, *(["", "the end of its log:", tail] if tail else []), ""])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
