"""Which of the requests that wait is next, and whether there is room for it. Pure.

A server's memory for conversations is shared, and when it is full the server fails all that are
being answered. So no more are let in at once than can all grow to their longest; the others wait
here, where their priority counts and nobody holds a connection.
"""

from __future__ import annotations

import attrs

MAX_WAITING = 1024
"""Requests that may wait; one more is refused with LimitReached."""

AGE_S = 5.0
"""So long a wait is worth a step of priority: none waits for ever."""


@attrs.define(eq=False)
class Seat:
    """A request's claim."""

    priority: int = 0
    slots: int = 1
    tokens: int = 0
    """The most that it can take of the context."""
    arrived_s: float = 0.0


class Desk:
    """Lets requests in."""

    def __init__(self, slots: int, cells: int) -> None:
        self._slots, self._cells = slots, cells
        self._waiting: list[Seat] = []
        self._inside: set[Seat] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, seat: Seat) -> int:
        """Take a request; returns how many wait in front of it, or -1 where too many do."""
        if len(self._waiting) >= MAX_WAITING:
            return -1
        self._waiting.append(seat)
        return sum(other.priority >= seat.priority for other in self._waiting) - 1

    def next(self, now_s: float) -> Seat | None:
        """Let the next one in, if there is room: the one that is due, or nobody.

        One that does not fit yet is not passed by smaller ones, or it would never fit.
        """
        if not self._waiting:
            return None
        seat = max(self._waiting, key=lambda s: s.priority + (now_s - s.arrived_s) / AGE_S)
        if not self._fits(seat):
            return None
        self._waiting.remove(seat)
        self._inside.add(seat)
        return seat

    def _fits(self, seat: Seat) -> bool:
        if not self._inside:
            return True  # alone it gets all there is, and the server's own refusal if need be
        slots = sum(other.slots for other in self._inside) + seat.slots
        tokens = sum(other.tokens for other in self._inside) + seat.tokens
        return slots <= self._slots and tokens <= self._cells

    def shrink(self, seat: Seat, tokens: int) -> None:
        """Note that one that was let in can take only so much, now that its prompt is read."""
        seat.tokens = min(seat.tokens, tokens)

    def leave(self, seat: Seat) -> None:
        """Note that a request has ended, wherever it was."""
        self._inside.discard(seat)
        if seat in self._waiting:
            self._waiting.remove(seat)
