"""Tells a server that works from one that hangs, from outside. Pure.

A server that works sends pieces, uses processors or reads its file. One that does not even answer
when it is asked for its health is given up sooner than one that only seems asleep: waiting for a
GPU can look like sleep.
"""

from __future__ import annotations

import attrs

IDLE_PART = 0.02
"""Of one processor: what a server takes that only answers."""

GAP_S = 1.0
"""Of the time between two looks no more counts: this process may have been stopped meanwhile, or
the whole machine asleep."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long to wait for a server, in seconds."""

    stall_s: float = 60.0
    """For any sign of life of one that loads. Disks and networks may keep it waiting."""
    silent_s: float = 4.0
    """For an answer to how it is, of one that serves and uses no processor: another thread of the
    server answers that, which does nothing else."""
    asleep_s: float = 20.0
    """For any sign of work, of one that serves and answers."""
    stop_s: float = 3.0
    """For one that was told to end; then it is killed."""


@attrs.frozen(kw_only=True)
class Sight:
    """What was seen of a server."""

    marks: tuple[int, ...]
    """Counts of what it did: lines of its log, pieces sent, bytes read from disks."""
    cpu_s: float
    """Time of processors."""


class Signs:
    """Watches for silence."""

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self._seen: Sight | None = None
        self._still_s = 0.0
        self._still_cpu_s = 0.0
        self._unanswered_s: float | None = None

    def asked(self) -> None:
        """Note that it was asked how it is."""
        if self._unanswered_s is None:
            self._unanswered_s = 0.0

    def answered(self) -> None:
        """Note that it answered."""
        self._unanswered_s = None

    def rested(self) -> None:
        """Note that it has nothing to do."""
        self._still_s, self._seen, self._unanswered_s = 0.0, None, None

    def look(self, sight: Sight, now_s: float) -> float:
        """Let time pass, and return for how many seconds there has been no sign of work."""
        passed_s = min(GAP_S, max(0.0, now_s - self._looked_s))
        self._looked_s = now_s
        before, self._seen = self._seen, sight
        self._still_s += passed_s
        if self._unanswered_s is not None:
            self._unanswered_s += passed_s
        used_s = sight.cpu_s - self._still_cpu_s
        moved = before is None or before.marks != sight.marks
        if moved or used_s > IDLE_PART * max(GAP_S, self._still_s):
            self._still_s, self._still_cpu_s = 0.0, sight.cpu_s
            if self._unanswered_s is not None:
                self._unanswered_s = 0.0
        return self._still_s

    @property
    def unanswered_s(self) -> float:
        """For how long the last question has gone without answer and without a sign of work."""
        return self._unanswered_s or 0.0
