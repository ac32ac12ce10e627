"""Tells work from a hang, by what a worker says of itself when it is asked. Pure.

A worker that works makes steps, or uses its processors, or reads its file; one that hangs does
nothing of that, or does not even answer. A single step may take a minute on a slow machine, so a
step that lasts is no sign of anything. One that goes round in circles inside llama.cpp is noticed
only by the deadlines of its callers: when nobody wants its step any more and it goes on all the
same, it is hung.
"""

from __future__ import annotations

import attrs

PING_S = 0.5
"""How often a worker that has something to do is asked."""

SILENT_S = 4.0
"""A worker that does not answer for so long is hung: its thread for orders does nothing else."""

ASLEEP_S = 4.0
"""Nor is one at work that has something to do and did nothing for so long."""

LOAD_S = 60.0
"""The same while it loads: disks and networks may keep it waiting."""

OBEY_S = 4.0
"""A step that nobody wants is interrupted within milliseconds; after so long it never will be."""

SLOW_OBEY_S = 60.0
"""The same where an image may be being encoded, or a GPU be at work, which no flag interrupts."""

IDLE_PART = 0.02
"""Of one processor: what a process takes that only answers."""

GAP_S = 1.0
"""Of the time between two looks no more counts: this process may have been stopped meanwhile, or
the whole machine asleep."""


@attrs.frozen(kw_only=True)
class Beat:
    """What a worker said of itself."""

    steps: int
    """Counts what its engine has done."""
    has_work: bool
    cpu_s: float
    """Time of processors, of all of its threads."""
    faults: int
    """Pages that it had to wait for the disk for."""
    is_loading: bool


class Pulse:
    """Listens to one worker."""

    def __init__(self, now_s: float, obey_s: float = OBEY_S) -> None:
        self._obey_s = obey_s
        self._looked_s = now_s
        self._unanswered_s: float | None = None
        """How long the last question has gone unanswered."""
        self._asked_ago_s = PING_S
        self._beat: Beat | None = None
        self._still_s = 0.0
        """How long nothing has moved, though there is work."""
        self._still_cpu_s = 0.0
        self._unwanted_s: float | None = None

    @property
    def has_work(self) -> bool:
        """Whether the worker had anything to do, when last heard."""
        return self._beat is not None and self._beat.has_work

    def ask(self) -> bool:
        """Say whether to ask now; if so, it is taken as asked."""
        if self._unanswered_s is not None or self._asked_ago_s < PING_S:
            return False
        self._unanswered_s, self._asked_ago_s = 0.0, 0.0
        return True

    def heard(self, beat: Beat) -> None:
        """Take an answer."""
        self._unanswered_s = None
        before = self._beat
        self._beat = beat
        moved = before is None or (beat.steps, beat.faults) != (before.steps, before.faults)
        if moved or not beat.has_work:
            self._still_s, self._still_cpu_s = 0.0, beat.cpu_s
        if moved:
            self._unwanted_s = None

    def unwanted(self) -> None:
        """Note that all that the worker serves was cancelled, and that it was told."""
        if self._unwanted_s is None:
            self._unwanted_s = 0.0

    def wanted(self) -> None:
        """Note that somebody waits for what the worker does, or that it does nothing."""
        self._unwanted_s = None

    def look(self, now_s: float) -> tuple[str, float] | None:
        """Let time pass. Returns how it hangs, and since when in seconds, if it does."""
        passed_s = min(GAP_S, now_s - self._looked_s)
        self._looked_s = now_s
        self._asked_ago_s += passed_s
        if self._unanswered_s is not None:
            self._unanswered_s += passed_s
            if self._unanswered_s >= SILENT_S:
                return "it does not answer", SILENT_S
        beat = self._beat
        if beat is None or not beat.has_work:
            return None
        self._still_s += passed_s
        if self._unwanted_s is not None:
            self._unwanted_s += passed_s
        if self._unanswered_s is not None and self._unanswered_s >= PING_S:
            return None  # what it last said is old
        return self._asleep(beat) or self._deaf()

    def _asleep(self, beat: Beat) -> tuple[str, float] | None:
        """Say whether it has work and does nothing."""
        limit_s = LOAD_S if beat.is_loading else ASLEEP_S
        if self._still_s < limit_s:
            return None
        used_s = beat.cpu_s - self._still_cpu_s
        if used_s > IDLE_PART * self._still_s:
            self._still_s, self._still_cpu_s = 0.0, beat.cpu_s
            return None
        return "it has work and does nothing", limit_s

    def _deaf(self) -> tuple[str, float] | None:
        """Say whether it goes on with what nobody wants."""
        if self._unwanted_s is None or self._unwanted_s < self._obey_s:
            return None
        return "it goes on with what was cancelled", self._obey_s
