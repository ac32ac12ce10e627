"""Puts guesses at the next tokens into steps, where that was measured to save time.

``lookup`` finds guesses and decides whether they pay; this asks it at the right moments and keeps
what must never be guessed out of it: replies that must not depend on how steps are cut, and steps
in which somebody reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from llmdispatcher.vendors.llamacpp.engine.lookup import MAX_DRAFT, Draft, Gate, Lookup, Record
from llmdispatcher.vendors.llamacpp.engine.schedule import Step
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence

MORE_ROWS = MAX_DRAFT
"""Rows of scores that guesses may take in one step, of all sequences together."""

ASK_PART = 0.0025
"""Looking for guesses takes some microseconds for each sequence. It may take such a part of all
time, and so happens in every step of a large model, now and then with one of a few megabytes."""

MOST_SAVED_S = 0.001
"""What was not used of that is kept for later, up to this."""


class Memory:
    """What is remembered of one sequence, as long as it lasts."""

    def __init__(self) -> None:
        self.lookup = Lookup()
        self.record = Record()


class Guesser:
    """Decides what a step tries beside what it must."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._gate = Gate()
        self._drawing = 0
        """How many drew in the step that was planned last; 0 where it says nothing of guesses."""
        self._left_s = MOST_SAVED_S
        """Of the time for looking."""
        self._drafted: list[Sequence] = []
        """Who has guesses in the step that was planned last."""

    def guess(self, running: Iterable[Sequence], free: int) -> None:
        """Give each sequence its guesses for the next step, which has room for ``free`` tokens."""
        for sequence in self._drafted:
            sequence.draft = []
        self._drafted, self._drawing = [], 0
        if self._left_s <= 0:
            return
        began_s = self._clock()
        drawing = [*running]
        if not any(sequence.is_reading for sequence in drawing):
            self._drawing = len(drawing)
            self._draft(drawing, free)
        self._spend(began_s)

    def _draft(self, drawing: list[Sequence], free: int) -> None:
        rows, spare = len(drawing), min(MORE_ROWS, free - len(drawing))
        for sequence in drawing:
            room = min(spare, sequence.left - 1)
            if room > 0 and not sequence.exact:
                sequence.draft = self._guesses(sequence, rows, room)
            if sequence.draft:
                self._drafted.append(sequence)
                rows, spare = rows + len(sequence.draft), spare - len(sequence.draft)

    def _guesses(self, sequence: Sequence, rows: int, room: int) -> list[int]:
        memory = sequence.memory = sequence.memory or Memory()
        found = memory.lookup.propose(sequence.tokens, room)
        words = next((at for at, token in enumerate(found) if token < 0), len(found))
        found = found[:words]  # what stands for a picture cannot be drawn
        if not found:
            return []
        return found[: self._gate.most(memory.record, self._drawing, rows, len(found))]

    def learn(self, step: Step, took_s: float) -> None:
        """Learn from a step: how long it took, and how many of its guesses were right."""
        self._left_s = min(MOST_SAVED_S, self._left_s + ASK_PART * took_s)
        began_s = self._clock()
        is_of_use = self._drawing or self._gate.has_guessed
        if not is_of_use or any(chunk.rows < len(chunk.tokens) for _, chunk in step):
            self._gate.passed(sum(len(chunk.tokens) for _, chunk in step))
            return
        drafts = [
            Draft(sequence.memory.record, chunk.rows - 1, sequence.accepted)
            for sequence, chunk in step
            if sequence.memory is not None and chunk.rows > 1
        ]
        self._gate.note(len(step), took_s, drafts)
        self._spend(began_s)

    def _spend(self, began_s: float) -> None:
        """Take the time of a look from what is left; one that took long was not alone in taking it.

        Where another process had the processor, looking has not become dearer.
        """
        self._left_s = max(-MOST_SAVED_S, self._left_s - (self._clock() - began_s))
