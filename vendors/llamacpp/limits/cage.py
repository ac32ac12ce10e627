"""What a child is held to from outside, by its parent: a control group, a job object, or nothing.

A cage never fails to be made: where the system offers none, or refuses the child, it does nothing
and its ``measures`` say why. What the kernel counts of processes ended for want of memory is told
by it too, since that is how a death is known to be one of memory.

Never run on Windows, nor inside a delegated control group; those are tested as trees of files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from llmdispatcher.vendors.llamacpp.limits import cgroups
from llmdispatcher.vendors.llamacpp.limits.caps import MIB, Caps, Measure

if sys.platform == "win32":
    from llmdispatcher.vendors.llamacpp.limits import jobs

_VMSTAT = Path("/proc/vmstat")


class Cage(Protocol):
    """Holds one child."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What it sees to; after ``add``, what is really so for the child."""

    def add(self, pid: int) -> None:
        """Put the child in, as early as can be: what it took before is not counted."""

    def oom_kills(self) -> int:
        """Return how many processes the kernel ended for want of memory, as far as is known."""

    def close(self) -> None:
        """Take the cage away, after the child's end. What is left in it is ended. Idempotent."""


def cage(caps: Caps) -> Cage:
    """Make a cage for one child."""
    if sys.platform == "win32":
        return _job(caps)
    if caps.memory_bytes is None:
        return Open("no limit was asked for")
    if sys.platform != "linux":
        return Open("this system has no control groups")
    try:
        return Grouped(cgroups.make(caps.memory_bytes), caps.memory_bytes)
    except cgroups.NoGroup as reason:
        return Open(str(reason))


class Open:
    """A cage that holds nothing, and says why."""

    def __init__(self, why: str, vmstat: Path = _VMSTAT) -> None:
        self.measures = (Measure("memory from outside", enforced=False, how=why),)
        self._vmstat = vmstat
        self._before = cgroups.statistic(vmstat, "oom_kill")

    def add(self, pid: int) -> None:
        """Do nothing."""

    def oom_kills(self) -> int:
        """Return how many processes of the whole machine were ended since this cage was made.

        Any of them: that our child was among them is likely when it died of SIGKILL, no more.
        """
        return max(0, cgroups.statistic(self._vmstat, "oom_kill") - self._before)

    def close(self) -> None:
        """Do nothing."""


class Grouped:
    """A control group of its own: the kernel counts its memory, mapped weights included."""

    def __init__(self, group: cgroups.Group, memory_bytes: int) -> None:
        self._group = group
        self._kills: int | None = None
        how = f"cgroup memory.max {memory_bytes / MIB:.0f} MiB"
        self.measures = (Measure("memory from outside", enforced=True, how=how),)

    def add(self, pid: int) -> None:
        """Put the child in; where the kernel refuses, the measures say so from then on."""
        try:
            self._group.add(pid)
        except OSError as error:
            how = f"the control group refused the process ({error.strerror})"
            self.measures = (Measure("memory from outside", enforced=False, how=how),)

    def oom_kills(self) -> int:
        """Return how many processes of the group were ended because it was full."""
        return self._group.oom_kills() if self._kills is None else self._kills

    def close(self) -> None:
        """Remove the group; what it counted is kept."""
        if self._kills is None:
            self._kills = self._group.oom_kills()
            self._group.remove()


if sys.platform == "win32":

    def _job(caps: Caps) -> Cage:
        """Make a job object, with a limit on memory where one was asked for."""
        limit = None if caps.memory_bytes is None else caps.memory_bytes - caps.mapped_bytes
        try:
            return Jailed(jobs.Job(limit), limit)
        except OSError as error:
            return Open(f"Windows made no job object ({error})")

    class Jailed:
        """A job object: what its process commits is limited; see ``jobs``."""

        def __init__(self, job: jobs.Job, limit_bytes: int | None) -> None:
            self._job = job
            how = "no limit was asked for"
            if limit_bytes is not None:
                how = f"job object, {limit_bytes / MIB:.0f} MiB beside the mapped weights"
            enforced = limit_bytes is not None
            self.measures = (Measure("memory from outside", enforced=enforced, how=how),)

        def add(self, pid: int) -> None:
            """Put the child in; where Windows refuses, the measures say so from then on."""
            try:
                self._job.add(pid)
            except OSError as error:
                how = f"the job object refused the process ({error})"
                self.measures = (Measure("memory from outside", enforced=False, how=how),)

        def oom_kills(self) -> int:
            """Windows ends nobody for want of memory: allocations fail."""
            return 0

        def close(self) -> None:
            """Close the job."""
            self._job.close()
