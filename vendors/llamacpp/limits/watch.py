"""When a child has taken too much memory: what to do about it. Pure.

Two marks for each limit, main memory and the GPU's. At the soft one the child should give back
what it can spare, told once for each time that the mark is passed. Above the hard one, which is
the limit itself, it must be ended: by two looks in a row, since one may fall into a peak that the
system takes back by itself, as it does with a mapped file's pages.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.limits.probe import Sample

LOOK_S = 0.15
"""How often to look at main memory, 5 to 10 times a second. A look takes well below a millisecond,
and what allocates at 1 GB/s without end passes a limit by some hundred MB between two looks."""

GPU_LOOK_S = 1.0
"""How often to ask the GPU's driver, whose answers take milliseconds."""

SOFT = 0.90
"""Share of the limit above which to give back what can be spared."""

CALM = 0.85
"""Share of the limit under which it must have fallen before the soft mark counts as passed anew."""

LOOKS_OVER = 2
"""So many looks in a row above the limit end the process."""


class Action(Enum):
    """What the one who watches should do."""

    NONE = "none"
    TRIM = "trim"
    KILL = "kill"


@attrs.frozen
class Breach:
    """A mark that was passed, with the numbers for whoever is told."""

    what: str
    """``memory`` or ``vram``."""
    used_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        """``memory: 812 MiB of at most 800 MiB``."""
        used, limit = self.used_bytes / 2**20, self.limit_bytes / 2**20
        return f"{self.what}: {used:.0f} MiB of at most {limit:.0f} MiB"


class Watch:
    """Judges one child by what it takes. Not safe for threads."""

    def __init__(self, limit_bytes: int | None, vram_bytes: int | None = None) -> None:
        """Limits in bytes; None is none."""
        self._memory = _Gauge("memory", limit_bytes, 0.0)
        self._vram = _Gauge("vram", vram_bytes, GPU_LOOK_S)
        self.breach: Breach | None = None
        """The mark behind the last TRIM or KILL, with the numbers."""

    @property
    def reason(self) -> str | None:
        """Return what led to the last TRIM or KILL, for a person to read."""
        return None if self.breach is None else str(self.breach)

    @property
    def is_tight(self) -> bool:
        """Whether a soft mark was passed, and its use has not calmed down since."""
        return self._memory.is_tight or self._vram.is_tight

    def look(self, sample: Sample, gpu_bytes: int | None, now_s: float) -> Action:
        """Judge what the child takes now, of main memory and of the GPU's; None is not known.

        The GPU's figure counts once in GPU_LOOK_S: between two answers of its driver it is the
        same one, however often it is handed in.
        """
        found = Action.NONE
        for gauge, used in ((self._memory, sample.resident_bytes), (self._vram, gpu_bytes)):
            action = gauge.read(used, now_s)
            if action is Action.KILL or (action is Action.TRIM and found is Action.NONE):
                found = action
                self.breach = Breach(gauge.what, used or 0, gauge.limit_bytes or 0)
                if found is Action.KILL:
                    break
        return found


class _Gauge:
    """One limit."""

    def __init__(self, what: str, limit_bytes: int | None, pause_s: float) -> None:
        self.what = what
        self.limit_bytes = limit_bytes
        self.is_tight = False
        self._pause_s = pause_s
        self._over = 0
        self._looked_s = float("-inf")

    def read(self, used_bytes: int | None, now_s: float) -> Action:
        """Judge one figure; sooner than ``pause_s`` after the last one it says nothing new."""
        since_s = now_s - self._looked_s
        if (
            self.limit_bytes is None
            or used_bytes is None
            or since_s <= 0
            or since_s < self._pause_s
        ):
            return Action.NONE
        self._looked_s = now_s
        self._over = self._over + 1 if used_bytes > self.limit_bytes else 0
        if self._over >= LOOKS_OVER:
            return Action.KILL
        if used_bytes < CALM * self.limit_bytes:
            self.is_tight = False
        elif used_bytes > SOFT * self.limit_bytes and not self.is_tight:
            self.is_tight = True
            return Action.TRIM
        return Action.NONE
