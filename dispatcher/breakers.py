"""The circuit breakers of one dispatcher, remembered from request to request.

    passage = breakers.admit(card.name, clock(), is_local=card.local)
    if isinstance(passage, Hold): raise passage.error(card.name, clock())
    try:
        …ask the vendor…
        breakers.report(passage, None, clock())
    except DispatcherError as error:
        breakers.report(passage, error, clock(), draw=random())
    finally:
        breakers.release(passage, clock())     # does nothing after a report

What happens is decided in ``breaker``; here it happens under a lock that is held for a moment.

With a ``Sharing`` they go also by what other programs found out, and tell them what is found out
here. That takes up to a second, and nobody waits for it: within that second two programs may both
send a probe, and what opened elsewhere a moment ago is not open here yet.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.breaker import Circuit, Event, Go, Hold, Report, State, after, ask, blamed, event
from llmdispatcher.models.errors import DispatcherError, Unreachable
from llmdispatcher.models.policy import BreakerPolicy

if TYPE_CHECKING:
    from llmdispatcher.hearsay import Hearsay
    from llmdispatcher.ledger_shared import Sharing

FAILED = "it failed too often, or asked for it"
FULL = "it is full, for longer than a request waits"

MAX_CIRCUITS = 10_000
"""More models than one program asks; beyond it, circuits that are closed are dropped."""


@attrs.define(eq=False)
class Passage:
    """Leave to ask a vendor once. To be reported or released; the first time counts."""

    name: str
    went: Go
    is_local: bool = False
    """The vendor is a local server."""
    is_over: bool = False

    @property
    def is_probe(self) -> bool:
        """Whether all others wait for how this ends."""
        return self.went.number != 0


@attrs.frozen(kw_only=True)
class Change:
    """A breaker that opened, closed, or let a probe go: for events and logs."""

    name: str
    before: State
    after: State
    until_s: float | None
    """When the next probe may go, where it is open."""
    reason: str


class Breakers:
    """One breaker for each name, such as ``vendor/model``. Safe for threads."""

    def __init__(self, policy: BreakerPolicy | None = None, sharing: Sharing | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._others = None if sharing is None else _hearsay(sharing)
        self._lock = threading.RLock()  # garbage may be collected, and a passage released, anywhere
        self._circuits: dict[str, Circuit] = {}
        self._numbers = 0

    def obey(self, policy: BreakerPolicy) -> None:
        """Go by another policy from now on; what is known of vendors stays known."""
        with self._lock:
            self._policy = policy

    def share(self, sharing: Sharing | None) -> None:
        """Share with these from now on, instead of those before; None is with nobody."""
        others = None if sharing is None else _hearsay(sharing)
        with self._lock:
            self._others = others

    def admit(self, name: str, now_s: float, *, is_local: bool = False) -> Passage | Hold:
        """Let a request go, perhaps as the probe, or say until when it has to wait.

        ``is_local`` is whether it goes to a local server, which may be full.
        """
        others = self._others
        with self._lock:
            self._numbers += 1
            if others is not None:
                others.listen(self._circuits, now_s)
            circuit = self._circuits.get(name)
            if circuit is None:
                # Numbered like probes, so that a circuit that was dropped is not mistaken for it.
                circuit = Circuit(generation=self._numbers, since_s=now_s)
                circuit = circuit if others is None else others.laid(name, circuit, now_s)
                self._make_room()
            elif circuit.is_calm and now_s >= circuit.since_s:  # as almost always
                return Passage(name, Go(circuit.generation), is_local)
            asked, answer = ask(circuit, self._policy, now_s, self._numbers)
            self._circuits[name] = self._told(name, circuit, asked, now_s)
        self._say()
        return answer if isinstance(answer, Hold) else Passage(name, answer, is_local)

    def report(
        self,
        passage: Passage,
        error: DispatcherError | None,
        now_s: float,
        *,
        draw: float = 0.0,
        had_room: bool = False,
    ) -> Change | None:
        """Note how the request ended; None is that it was served. Returns what that changed.

        ``draw`` is random in [0, 1), and ``had_room`` whether the server cannot have been full. A
        second report of the same passage does nothing.
        """
        if error is None:
            with self._lock:
                circuit = self._circuits.get(passage.name)
                if circuit is not None and circuit.is_calm and not passage.is_probe:
                    passage.is_over = True  # nothing to forget
                    return None
            return self._end(passage, Event.SERVED, Report(now_s=now_s))
        cause = blamed(error)
        report = Report(
            now_s=now_s,
            told_s=getattr(cause, "retry_after_s", None),
            draw=draw,
            reason=type(cause).__name__,
            is_off=passage.is_local and isinstance(cause, Unreachable),
        )
        may_be_full = passage.is_local and not had_room
        return self._end(passage, event(error, is_local=may_be_full), report)

    def release(self, passage: Passage, now_s: float) -> None:
        """Give the place back without a word on the vendor: cancelled, never sent, crashed."""
        self._end(passage, Event.NOTHING, Report(now_s=now_s))

    def alive(self, passage: Passage, now_s: float) -> Change | None:
        """Note that a probe is being answered, so that nobody waits for the end of a long reply.

        How it ends is reported all the same, and counts as of one that went while closed.
        """
        with self._lock:
            if passage.is_over or not passage.is_probe:
                return None
            change = self._move(passage, Event.SERVED, Report(now_s=now_s))
            if change is not None:
                passage.went = Go(self._circuits[passage.name].generation)
        self._say()
        return change

    def full_s(self, name: str, now_s: float) -> float | None:
        """Return for how long a server is still taken to be full; None if it is not.

        One that failed, or asked to be left alone, is not known to be.
        """
        with self._lock:
            circuit = self._circuits.get(name)
        if circuit is None or circuit.cool_until_s > now_s or circuit.full_until_s <= now_s:
            return None
        return circuit.full_until_s - now_s

    def held(self, now_s: float, full_wait_s: float = 0.0) -> dict[str, str]:
        """Return the names that nobody may ask now, and why, as far as is known without asking.

        A server that is full is among them only if that is for longer than a request would wait for
        it, which is ``full_wait_s``.
        """
        held = {}
        with self._lock:
            for name, circuit in self._circuits.items():
                is_open = circuit.until_s > now_s and circuit.state is not State.CLOSED
                if is_open or circuit.cool_until_s > now_s:
                    held[name] = FAILED
                elif circuit.full_until_s - full_wait_s > now_s:
                    held[name] = FULL
        return held

    def circuits(self) -> dict[str, Circuit]:
        """Return all circuits that anybody asked for, as they are now."""
        with self._lock:
            return dict(self._circuits)

    def _end(self, passage: Passage, told: Event, report: Report) -> Change | None:
        with self._lock:
            if passage.is_over:
                return None
            passage.is_over = True
            change = self._move(passage, told, report)
        self._say()
        return change

    def _move(self, passage: Passage, told: Event, report: Report) -> Change | None:
        """Make a step. The lock is held."""
        before = self._circuits.get(passage.name)
        if before is None:
            return None
        now = after(before, self._policy, passage.went, told, report)
        now = self._circuits[passage.name] = self._told(passage.name, before, now, report.now_s)
        if now.state is before.state:
            return None
        return Change(
            name=passage.name,
            before=before.state,
            after=now.state,
            until_s=now.until_s if now.state is State.OPEN else None,
            reason=report.reason,
        )

    def _told(self, name: str, before: Circuit, after: Circuit, now_s: float) -> Circuit:
        """Note for other programs what became of a circuit. The lock is held."""
        others = self._others
        return after if others is None else others.moved(name, before, after, now_s)

    def _say(self) -> None:
        """Tell other programs what was noted. The lock is not held."""
        if (others := self._others) is not None:
            others.say()

    def _make_room(self) -> None:
        """Drop the circuit that has been closed for longest, if there are too many."""
        if len(self._circuits) < MAX_CIRCUITS:
            return
        closed = (n for n, c in self._circuits.items() if c.state is State.CLOSED)
        oldest = min(closed, key=lambda name: self._circuits[name].since_s, default=None)
        if oldest is not None:
            del self._circuits[oldest]


def _hearsay(sharing: Sharing) -> Hearsay:
    from llmdispatcher.hearsay import Hearsay  # noqa: PLC0415 - few share

    return Hearsay(sharing)
