"""Holds a server to its limits, from outside: it is a stranger's program, and cannot do so itself.

What ``limits.caps`` asks of the system for our own worker, for another process. Linux only; what
surrounds a process (``limits.cage``) and watching it (``worker.guard``) come on top, everywhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from llmdispatcher.vendors.llamacpp.limits.caps import MIB, NICE, OOM_SCORE, Caps, Measure

if sys.platform != "win32":
    import resource

STACK_BYTES = 8 * MIB
"""Of a thread, where nobody chose another: address space that RLIMIT_DATA counts."""

CODE_BYTES = 24 * MIB
"""What llama-server and its libraries have in memory before they load a model, and do not
allocate."""


def stacks_bytes(threads: int) -> int:
    """Return the address space of the stacks of so many threads."""
    size = STACK_BYTES
    if sys.platform != "win32":
        soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
        size = STACK_BYTES if soft == resource.RLIM_INFINITY else soft
    return threads * size


def hold(pid: int, caps: Caps) -> tuple[Measure, ...]:
    """Hold a process that was just started. Raises nothing: what is not enforced says so."""
    if sys.platform != "linux":
        return (
            Measure("memory", enforced=False, how="watched only, as far as another process is"),
        )
    measures = []
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        measures.append(Measure("core dumps", enforced=True, how="RLIMIT_CORE 0"))
    if caps.gives_way:
        measures.append(_give_way(pid))
    return (*measures, _limit(pid, caps))


if sys.platform == "linux":

    def _limit(pid: int, caps: Caps) -> Measure:
        if caps.memory_bytes is None:
            return Measure("memory", enforced=False, how="no limit was asked for")
        if caps.uses_gpu:
            how = "watched only: RLIMIT_DATA would count what a GPU's driver reserves"
            return Measure("memory", enforced=False, how=how)
        room = max(0, caps.memory_bytes - caps.mapped_bytes - CODE_BYTES)
        limit = room + caps.reserved_bytes
        try:
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
        except (OSError, ValueError) as error:
            return Measure("memory", enforced=False, how=f"watched only: {error}")
        return Measure("memory", enforced=True, how=f"RLIMIT_DATA {limit // MIB} MiB")

    def _give_way(pid: int) -> Measure:
        """Lower its priority, and have the kernel choose it when the machine is out of memory.

        Its first thread's priority: those that it starts from now on have it too.
        """
        done = []
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + NICE)
            done.append(f"nice {NICE} more")
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
            done.append(f"oom_score_adj {OOM_SCORE}")
        return Measure("priority", enforced=bool(done), how=", ".join(done) or "as it was")

else:

    def _limit(_pid: int, _caps: Caps) -> Measure:
        return Measure("memory", enforced=False, how="watched only")

    def _give_way(_pid: int) -> Measure:
        return Measure("priority", enforced=False, how="as it was")
