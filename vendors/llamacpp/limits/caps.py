"""What a child process is held to from within, before it loads a model.

``hold`` asks the system for what it offers, and returns what is really enforced: a limit that the
system does not keep is never claimed. On Linux, memory is limited by RLIMIT_DATA, which counts
memory that is allocated and not files that are mapped, so mapped weights are left out of it.
Elsewhere nothing limits memory from within: see ``cage`` and ``watch``.

Never run on macOS and Windows; there, only priority and core dumps are touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

import attrs

from llmdispatcher.models.errors import OutOfMemory

if sys.platform != "win32":
    import resource

MIB = 2**20

NICE = 5
"""Added to the niceness: about a third of the processor time of a program at 0 when both want all
of it, and all of it when nobody else does."""

OOM_SCORE = 500
"""Added to oom_score_adj, which goes from -1000 to 1000: as if half of the machine's memory more
were used, so the kernel ends this process before the program that started it."""
_MOST_OOM_SCORE = 1000

LEAST_ROOM_BYTES = 16 * MIB
"""With less room, not even the smallest model loads: llama.cpp's tables and buffers take as much,
and where they find none C++ ends the process."""

_PROC = Path("/proc/self")
_BELOW_NORMAL = 0x4000
"""BELOW_NORMAL_PRIORITY_CLASS in winbase.h."""


@attrs.frozen(kw_only=True)
class Caps:
    """What a child process may take."""

    memory_bytes: int | None = None
    """All that it may have in memory, mapped weights included; None does not limit."""
    mapped_bytes: int = 0
    """Of which the mapped weights, which RLIMIT_DATA does not count."""
    reserved_bytes: int = 0
    """Address space to come that RLIMIT_DATA counts and that is never touched: threads' stacks."""
    gives_way: bool = True
    """Lower priority than the user's program, and first to go when memory runs out."""
    uses_gpu: bool = False
    """The driver then takes address space by the gigabyte, which RLIMIT_DATA would count."""


@attrs.frozen
class Measure:
    """One limit, and whether anything sees to it."""

    what: str
    enforced: bool
    how: str

    def __str__(self) -> str:
        """``memory: RLIMIT_DATA 812 MiB``."""
        return f"{self.what}: {self.how}"


def hold(caps: Caps) -> tuple[Measure, ...]:
    """Hold this process to ``caps``, for good. Call it before the model is loaded.

    From the thread that will load: on Linux the priority is each thread's own, and threads inherit
    it from the one that starts them.

    Raises OutOfMemory where what is in memory already leaves no room for a model.
    """
    measures = [_without_core_dumps()]
    if caps.gives_way:
        measures += [_lower_priority(), _first_to_go()]
    measures.append(
        Measure("threads", enforced=True, how="llama.cpp is told how many and starts no more")
    )
    return (*measures, _hold_memory(caps))


def _hold_memory(caps: Caps) -> Measure:
    """Limit what may be allocated; say so if nothing does."""
    if caps.memory_bytes is None:
        return Measure("memory", enforced=False, how="no limit was asked for")
    if sys.platform != "linux":
        where = "from outside only" if sys.platform == "win32" else "watched only"
        return Measure("memory", enforced=False, how=f"{where}: no limit within counts memory here")
    data_bytes, resident_bytes = _taken()
    limit = data_limit_bytes(caps, data_bytes=data_bytes, resident_bytes=resident_bytes)
    if caps.uses_gpu:
        how = "watched only: RLIMIT_DATA would count what a GPU's driver reserves"
        return Measure("memory", enforced=False, how=how)
    return _limit_data(limit)


def data_limit_bytes(caps: Caps, *, data_bytes: int, resident_bytes: int) -> int:
    """Return the RLIMIT_DATA under which a process stays within ``caps.memory_bytes``.

    ``data_bytes`` is what counts already, ``resident_bytes`` what is in memory already: what counts
    and is not in memory may stay so, and code, which is in memory and does not count, is taken off.

    Raises OutOfMemory where no room is left for a model.
    """
    limit = caps.memory_bytes or 0
    room = limit - caps.mapped_bytes - resident_bytes
    if room < LEAST_ROOM_BYTES:
        raise OutOfMemory(
            f"a limit of {_mib(limit)} leaves {_mib(max(0, room))} for the model's buffers:"
            f" {_mib(caps.mapped_bytes)} are its weights and {_mib(resident_bytes)} is what the"
            f" process takes before it; at least {_mib(LEAST_ROOM_BYTES)} must be left: raise"
            " max_memory_mb, or use a smaller model"
        )
    return data_bytes + room + caps.reserved_bytes


def _taken() -> tuple[int, int]:
    """Return what counts for RLIMIT_DATA now, and what is in memory now."""
    facts = dict(
        line.split(":", 1)
        for line in (_PROC / "status").read_text(encoding="ascii", errors="replace").splitlines()
        if ":" in line
    )
    data, resident = (int(facts[name].split()[0]) * 1024 for name in ("VmData", "VmRSS"))
    return data, resident


if sys.platform != "win32":

    def _limit_data(limit_bytes: int) -> Measure:
        """Set RLIMIT_DATA, never above what holds already, and try whether the system keeps it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit_bytes = min(
            [limit_bytes, *(old for old in (soft, hard) if old != resource.RLIM_INFINITY)]
        )
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
        if _can_allocate(limit_bytes):
            how = "watched only: this kernel does not keep RLIMIT_DATA"
            return Measure("memory", enforced=False, how=how)
        return Measure("memory", enforced=True, how=f"RLIMIT_DATA {_mib(limit_bytes)}")

    def _can_allocate(size_bytes: int) -> bool:
        """Try to get address space, which takes no memory as long as nothing is written to it.

        Kernels may be told to ignore the limit (ignore_rlimit_data), and those that only look like
        Linux may not know it.
        """
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            mmap.mmap(-1, size_bytes + mmap.PAGESIZE, flags=flags).close()
        except OSError:
            return False
        return True

    def _without_core_dumps() -> Measure:
        """A dump of a model's memory is gigabytes, and holds what users wrote."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return Measure("core dumps", enforced=True, how="RLIMIT_CORE 0")

    def _lower_priority() -> Measure:
        return Measure("priority", enforced=True, how=f"nice {os.nice(NICE)}")

else:

    def _without_core_dumps() -> Measure:
        return Measure("core dumps", enforced=False, how="Windows Error Reporting decides")

    def _lower_priority() -> Measure:
        """Never run: BELOW_NORMAL_PRIORITY_CLASS, which threads inherit."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.SetPriorityClass.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        done = bool(kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL))
        return Measure("priority", enforced=done, how="below normal" if done else "as it was")


def _first_to_go() -> Measure:
    """Have the kernel choose this process when the machine is out of memory."""
    path = _PROC / "oom_score_adj"
    try:
        score = min(_MOST_OOM_SCORE, int(path.read_text(encoding="ascii")) + OOM_SCORE)
        path.write_text(str(score), encoding="ascii")
    except (OSError, ValueError) as error:
        how = f"this system lets nobody choose ({type(error).__name__})"
        return Measure("first to go", enforced=False, how=how)
    return Measure("first to go", enforced=True, how=f"oom_score_adj {score}")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB"
