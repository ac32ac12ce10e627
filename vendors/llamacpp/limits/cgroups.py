"""A control group of our own for one child, where the system lets us make one (Linux, version 2).

Only groups that were given to us are used: our own, and those above it that belong to our user,
which is how systemd and the kernel's documentation hand over a part of the tree (cgroup-v2.rst,
"Delegation"). Root owns everything, which says nothing, so root uses its own group alone. A group
that holds processes cannot limit the groups in it; then there is none for us, and nothing in the
user's own group is changed or moved to make it so.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

PREFIX = "llmdispatcher-"
"""Names of our groups begin so; the maker's process and a running number follow."""

REMOVE_S = 0.5
"""A group can be removed when the last of its processes is reaped, which takes a moment."""
_AGAIN_S = 0.01

_OWN = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_PROC = Path("/proc")
_numbers = itertools.count(1)


class NoGroup(Exception):
    """There is no place for a group of ours; the text says why."""


class Group:
    """One group, made by us for one child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pid: int) -> None:
        """Put a process into the group. Raises OSError where the system refuses."""
        _write(self.folder / "cgroup.procs", str(pid))

    def oom_kills(self) -> int:
        """Return how many processes the kernel ended because the group's memory was full."""
        return statistic(self.folder / "memory.events", "oom_kill")

    def remove(self) -> bool:
        """End what is left in the group and take it away; say whether it is gone."""
        if (kill := self.folder / "cgroup.kill").exists():
            with contextlib.suppress(OSError):
                _write(kill, "1")
        end_s = time.monotonic() + REMOVE_S
        while not _removed(self.folder):
            if time.monotonic() > end_s:
                return False
            time.sleep(_AGAIN_S)
        return True


def make(memory_bytes: int, *, own: Path = _OWN, mounts: Path = _MOUNTS) -> Group:
    """Make a group that holds at most so much memory, without swap. Raises NoGroup."""
    reasons = []
    for folder in _candidates(own, mounts):
        _sweep(folder)
        try:
            return _made(folder, memory_bytes)
        except NoGroup as reason:
            reasons.append(str(reason))
    raise NoGroup(reasons[0] if reasons else "there are no control groups of version 2")


def statistic(path: Path, name: str) -> int:
    """Return one line's number of a file of names and numbers; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            word, _, number = line.partition(" ")
            if word == name:
                return int(number)
    return 0


def _made(folder: Path, memory_bytes: int) -> Group:
    """Make a group in a folder, with its limits; leave nothing behind where that fails."""
    _require_controller(folder)
    group = folder / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    try:
        group.mkdir()
    except OSError as error:
        raise NoGroup(f"{folder} lets us make no group ({_short(error)})") from error
    try:
        _write(group / "memory.max", str(memory_bytes))
        _write(group / "memory.oom.group", "1")
        with contextlib.suppress(OSError):  # there is none where the kernel does not swap
            _write(group / "memory.swap.max", "0")
    except OSError as error:
        _removed(group)
        raise NoGroup(f"{group} takes no limit ({_short(error)})") from error
    return Group(group)


def _require_controller(folder: Path) -> None:
    """See to it that groups in this folder can limit memory."""
    if "memory" in _words(folder / "cgroup.subtree_control"):
        return
    if "memory" not in _words(folder / "cgroup.controllers"):
        raise NoGroup(f"{folder} has no memory controller")
    try:
        _write(folder / "cgroup.subtree_control", "+memory")
    except OSError as error:
        raise NoGroup(f"{folder} was not delegated for groups of ours ({_short(error)})") from error


def _candidates(own: Path, mounts: Path) -> list[Path]:
    """List the folders that may hold our groups: our own group, and ours above it."""
    mount = _mount(mounts)
    inside = next((line[3:] for line in _lines(own) if line.startswith("0::")), None)
    if mount is None or inside is None:
        return []
    root, point = mount
    # a container may see only a part of the tree, which is mounted as if it were all of it
    path = Path(inside)
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[1:]
    if ".." in parts:
        return []
    folders = [point.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folders[0], *itertools.takewhile(_is_ours, folders[1:])]


def _is_ours(folder: Path) -> bool:
    """Whether a group was handed to our user. Root owns all, which says nothing."""
    try:
        owner = folder.stat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() != 0


def _mount(mounts: Path) -> tuple[Path, Path] | None:
    """Return which part of the tree of version 2 is mounted, and where; proc_pid_mountinfo(5)."""
    for line in _lines(mounts):
        before, _, after = line.partition(" - ")
        words = before.split()
        if after.startswith("cgroup2 ") and len(words) > 4:  # noqa: PLR2004 - the two just below
            return Path(words[3]), Path(words[4].replace("\\040", " "))
    return None


def _sweep(folder: Path) -> None:
    """Take away empty groups of processes that were killed before they could."""
    for group in folder.glob(f"{PREFIX}*"):
        maker = group.name.removeprefix(PREFIX).partition("-")[0]
        if maker.isdigit() and not (_PROC / maker).exists():
            _removed(group)


def _removed(group: Path) -> bool:
    """Whether a group is gone now; the kernel keeps one that still has processes."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _short(error: OSError) -> str:
    return error.strerror or type(error).__name__
