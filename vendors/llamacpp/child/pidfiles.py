"""Remembers which children run, so that a later life of the program ends those that were left.

Children are tied to their parent; a file for each is the second line, for a tie that failed. It
says which process it was and whose: a number alone says little, as it is given again. A process is
ended only if it still is the same one, and its parent is gone. Nothing here ever raises.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import attrs

from llmdispatcher.vendors.llamacpp.child import folders

MAX_FILES = 1000
"""Looked at in one go: so many children that were left behind are no accident."""

MAX_FILE_BYTES = 8192
"""A path is at most 4096."""

_log = logging.getLogger("llmdispatcher.llamacpp")

Started = Callable[[int], str | None]
"""Returns what tells a process from all others that ever have its number; None once it is gone."""


@attrs.frozen(kw_only=True)
class Entry:
    """What is remembered of a child."""

    pid: int
    started: str
    executable: str
    parent: int
    parent_started: str
    place: str
    """Where its number means anything: see ``place``."""


def write(kind: str, pid: int) -> Path | None:
    """Remember a child of this process; None where it cannot be, or the child is gone already."""
    started, parent = started_of(pid), started_of(os.getpid())
    if started is None or parent is None:
        return None
    entry = Entry(
        pid=pid,
        started=started,
        executable=executable_of(pid),
        parent=os.getpid(),
        parent_started=parent,
        place=place(),
    )
    try:
        path = folders.runtime() / f"{kind}-{pid}.json"
        folders.write(path, json.dumps(attrs.asdict(entry)))
    except (OSError, ImportError, ValueError) as error:
        _log.debug("child %d is not remembered: %s", pid, error)
        return None
    return path


def remove(path: Path | None) -> None:
    """Forget a child."""
    if path is not None:
        _unlink(path)


_reaped_in: set[int] = set()
_reaping = threading.Lock()


def reap_once() -> None:
    """Call ``reap`` the first time in this process."""
    with _reaping:
        if os.getpid() in _reaped_in:
            return
        _reaped_in.clear()  # a fork begins anew
        _reaped_in.add(os.getpid())
    reap()


def reap(started: Started | None = None) -> int:
    """End children whose parent is gone, remove the files of those that are. Returns how many."""
    try:
        paths = sorted(folders.runtime().glob("*-*.json"))[:MAX_FILES]
    except (OSError, ImportError) as error:
        _log.debug("children of earlier lives are not looked for: %s", error)
        return 0
    return sum(_reap(path, started or started_of) for path in paths)


def _reap(path: Path, started: Started) -> bool:
    """Deal with one file; whether a process was ended."""
    entry = _read(path)
    if entry is None:
        _unlink(path)
        return False
    (boot, _, container), here = entry.place.partition(" "), place().partition(" ")
    is_now = boot == here[0]
    if is_now and container != here[2]:
        return False  # of another container: its numbers mean nothing here
    if is_now and started(entry.parent) == entry.parent_started:
        return False
    is_ended = is_now and _is_still(entry, started) and _kill(entry.pid)
    _unlink(path)
    if is_ended:
        _log.warning("ended process %d, which an earlier run of this program left", entry.pid)
    return is_ended


def _is_still(entry: Entry, started: Started) -> bool:
    """Whether the process is the one that was remembered."""
    is_same = started(entry.pid) == entry.started
    return is_same and executable_of(entry.pid) == entry.executable


def _kill(pid: int) -> bool:
    try:
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)  # TerminateProcess; never run on Windows
        elif os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except OSError as error:
        _log.debug("process %d cannot be ended: %s", pid, error)
        return False
    return True


def _read(path: Path) -> Entry | None:
    """Return what a file says; None where it is not one of ours."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_FILE_BYTES))
        entry = Entry(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    numbers = (entry.pid, entry.parent)
    texts = (entry.started, entry.executable, entry.parent_started, entry.place)
    is_sound = all(type(n) is int and n > 0 for n in numbers) and entry.pid > 1
    return entry if is_sound and all(isinstance(t, str) for t in texts) else None


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("%s cannot be removed: %s", path, error)


# -- which process is which ----------------------------------------------------------------------


def started_of(pid: int) -> str | None:
    """Return when the process was started, as the system counts; None if it is gone or a zombie."""
    if _SELF.exists():
        return _ticks(pid)
    # never run on macOS and Windows
    from llmdispatcher.vendors.llamacpp.limits import probe  # noqa: PLC0415 - loads psutil

    return probe.created_s(pid)


def _ticks(pid: int) -> str | None:
    """Return the start time of proc_pid_stat(5), field 22, unless the state, field 3, is an end."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # a name may hold spaces and brackets
    return None if fields[0] in {b"Z", b"X"} else fields[19].decode()


def executable_of(pid: int) -> str:
    """Return the path of the program that a process runs; empty where that is not known."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - no path
    except OSError:
        return ""


def place() -> str:
    """Name what process numbers belong to: this start of this machine, and the container."""
    return f"{_said(_BOOT)} {_link(_NAMESPACE)}"


_SELF = Path("/proc/self/stat")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def _said(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
