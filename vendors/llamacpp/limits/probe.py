"""What this machine has to spare, and what a process takes: plain numbers.

The only module that imports psutil. Containers are honoured: a cgroup's limit counts where it is
smaller than the machine. What cannot be read is taken as not limited.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs
import psutil

if sys.platform != "win32":
    import resource

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_OWN_STATUS = Path("/proc/self/status")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNLIMITED_BYTES = 2**60
"""Version 1 writes a number near 2^63 where there is no limit."""


@attrs.frozen
class Memory:
    """Main memory, as far as this process may use it."""

    total_bytes: int
    available_bytes: int
    """What can be had now without swapping; the cache of files counts as available."""


@attrs.frozen(kw_only=True)
class Sample:
    """What a process takes, at one moment."""

    resident_bytes: int
    """In main memory, mapped files included."""
    own_bytes: int
    """Of that, what is not mapped from files, where the system tells them apart (Linux)."""
    cpu_s: float
    """Processor time so far, of all its threads."""
    threads: int
    read_bytes: int
    """Read from disks so far, through mapped files too; 0 where the system does not say. A load
    that waits for its disk takes little processor time, and is no hang."""


def memory(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Memory:
    """Return the machine's memory, or the container's where that is less."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for folder, version in _own_folders(cgroups, own, "memory"):
        names = _MEMORY_FILES[version]
        limit, used = _number(folder / names[0]), _number(folder / names[1])
        if limit is None or limit >= _UNLIMITED_BYTES:
            continue
        total = min(total, limit)
        # the cache of files is part of what is used, and is given back on demand
        cached = _statistic(folder / "memory.stat", names[2])
        available = min(available, max(0, limit - (used or 0) + cached))
    return Memory(total, available)


_MEMORY_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def threads(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Return how many threads can really run at once: physical processors that we may use.

    Two threads on one physical processor share its arithmetic units, which are what llama.cpp
    keeps busy.
    """
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    # sched_getaffinity, where there is one, knows of taskset, cpusets and Docker's --cpuset-cpus
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    usable = [physical, allowed]
    for folder, version in _own_folders(cgroups, own, "cpu"):
        quota = _quota(folder, version)
        if quota is not None:
            usable.append(int(quota))
    return max(1, min(usable))


def data_room_bytes() -> int | None:
    """Return how much more memory this process may ask for; None where there is no limit.

    RLIMIT_DATA, which counts what is allocated, and RLIMIT_AS, which counts mapped files as well.
    Where one is reached, C++ throws, and llama.cpp does not catch: the process would end.
    """
    if sys.platform == "win32":
        return None
    rooms = []
    for kind, name in ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            used = _statistic(_OWN_STATUS, name) * 1024
            rooms.append(max(0, limit - used))
    return min(rooms, default=None)


def process(pid: int) -> Sample | None:
    """Return what a process takes; None when it is gone, or dead and only not yet reaped.

    Takes 0.1 ms on Linux.
    """
    try:
        found = psutil.Process(pid)
        with found.oneshot():
            if found.status() == psutil.STATUS_ZOMBIE:
                return None
            used, times = found.memory_info(), found.cpu_times()
            return Sample(
                resident_bytes=int(used.rss),
                own_bytes=max(0, int(used.rss) - int(getattr(used, "shared", 0))),
                cpu_s=float(times.user + times.system),
                threads=found.num_threads(),
                read_bytes=_read_bytes(found),
            )
    except (psutil.Error, OSError, ValueError):  # ValueError: below zero
        return None


def _read_bytes(found: psutil.Process) -> int:
    """Return how much a process read from disks, if that may be known."""
    if not hasattr(found, "io_counters"):  # macOS
        return 0
    try:
        return int(found.io_counters().read_bytes)
    except (psutil.AccessDenied, NotImplementedError):
        return 0


def created_s(pid: int) -> str | None:
    """Return when a process started, as a text that only its equals mean anything to.

    Two processes that had the same number differ in it, across restarts of the machine too. None
    when there is no such process, or it is dead and only not yet reaped.
    """
    try:
        found = psutil.Process(pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            return None
        ticks = _start_ticks(pid)
        # psutil counts from when the machine started, a moment that moves when its clock is set
        return repr(found.create_time()) if ticks is None else f"{_text(_BOOT_ID).strip()}:{ticks}"
    except (psutil.Error, OSError, ValueError):  # ValueError: below zero
        return None


def _start_ticks(pid: int) -> int | None:
    """Return when a process started in ticks since the machine did, where the kernel says so.

    Field 22 of proc_pid_stat(5). The name before it may hold spaces and brackets.
    """
    words = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return _parsed(words[_START_TIME]) if len(words) > _START_TIME else None


_START_TIME = 22 - 3
"""Counted from the third field, the first behind the name."""


def busy_s() -> float:
    """Return how long the processors that we may use have worked, in seconds, for anybody.

    Physical processors: where two logical ones share one, both working count as one.
    """
    times = psutil.cpu_times(percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    worked = sum(
        sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0) - getattr(cpu, "guest", 0.0)
        for index, cpu in enumerate(times)
        if index in allowed
    )
    logical = psutil.cpu_count() or 1
    return float(worked) * (psutil.cpu_count(logical=False) or logical) / logical


def _own_folders(cgroups: Path, own: Path, controller: str) -> list[tuple[Path, int]]:
    """List the folders of this process's cgroups from its own up to the root, with the version.

    A limit of any of them counts. In a container, the root is the container's own group.
    """
    folders = []
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if not controllers:
            root, version = cgroups, 2
        elif controller in controllers.split(","):
            root, version = cgroups / controller, 1
        else:
            continue
        parts = [part for part in inside.split("/") if part not in ("", "..")]
        folders += [(root.joinpath(*parts[:depth]), version) for depth in range(len(parts), -1, -1)]
    return folders


def _quota(folder: Path, version: int) -> float | None:
    """Return how many processors' worth of time the group may use, if that is limited."""
    if version == 1:
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    else:
        words = [*_text(folder / "cpu.max").split(), "", ""]
        quota, period = _parsed(words[0]), _parsed(words[1])
    if quota is None or not period or quota <= 0:
        return None
    return quota / period


def _statistic(path: Path, name: str) -> int:
    """Return one line's number of a file of names and numbers, or 0."""
    for line in _text(path).splitlines():
        word, *values = line.split()[:2] or [""]
        if word == name:
            return _parsed("".join(values)) or 0
    return 0


def _number(path: Path) -> int | None:
    return _parsed(_text(path))


def _parsed(text: str) -> int | None:
    """Return the number, or None for ``max``, nothing and nonsense."""
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    """Return what the file says; empty where there is none or it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
