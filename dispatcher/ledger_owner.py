"""Which process a reservation belongs to, and whether that process is provably gone.

A process is named by where process numbers are counted (this boot of this machine, and the
namespace of a container), its number, and when it started, as numbers are used again.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_STARTED = 19
"""Field 22 of ``/proc/PID/stat``, starttime (proc(5)), counted from the state, which is field 3."""


def me() -> str:
    """Return the name of this process."""
    pid = os.getpid()
    return f"{_world()}/{pid}:{_started(pid) or ''}"


def is_gone(owner: str) -> bool:
    """Whether a process of that name has certainly ended.

    False also where this cannot be told: elsewhere, in another container, without ``/proc``.
    """
    world, _, process = owner.partition("/")
    pid, _, started = process.partition(":")
    if not world or not started or world != _world():
        return False
    return _started(int(pid)) != started


def _world() -> str:
    """Name this boot and this namespace of processes; "" where there is no such name."""
    try:
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{_PROC.joinpath('self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None if it has ended."""
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in "ZX" else fields[_STARTED]
