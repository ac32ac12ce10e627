"""Leave a vendor's model alone that keeps failing, and find out soon when it is back. Pure.

The circuit breaker of Nygard 2007 ("Release It!"), one for each vendor and model: *closed*, it lets
everybody pass; after some failures in a row it is *open* and lets nobody pass; when the time is up
one request goes as a *probe*, while all others still wait, and how that one ends decides. The open
time grows with each probe that fails. A rate limit is no fault: it is a time to wait, which any
state may have.

Nor is it a fault that a local server is *full*. It has no room for a second or a minute, to
stay away costs whatever somebody else charges meanwhile, and its refusal costs nobody anything: so
it is left alone for moments, which grow by an eighth with each refusal and are forgotten with the
first request that is served. A vendor elsewhere that says so is overloaded by many, and gets the
peace that any failing one gets.

Every step is a function of ``(circuit, event, now)``; ``TRANSITIONS`` is all that can happen.
``breakers.Breakers`` keeps the circuits. Times are seconds of a monotonic clock; should it jump all
the same, a circuit waits no longer than it was meant to from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from http import HTTPStatus

import attrs

from llmdispatcher.models import errors
from llmdispatcher.models.policy import BreakerPolicy
from llmdispatcher.retry import SLOW_STATUS

MAX_COOL_S = 3600.0
"""However long a vendor wants to be left alone, somebody looks again once an hour."""


PROBE_LOOK_S = 1.0
"""When a probe ends cannot be known; whoever waits for it looks again so soon."""


FULL_S, FULL_FACTOR = 0.25, 1.125
"""How long a local server that is full is left alone at first, and how many times longer
with each refusal: about an eighth of the time that it has been full for, so that asking in vain
gets rare and yet nobody comes much later than it had room. ``cap_s`` bounds that, too."""

_LATE = SLOW_STATUS | {HTTPStatus.REQUEST_TIMEOUT}
"""Whoever answers so let somebody wait in vain."""

OFF_CAP_S = 10.0
"""A local server where nobody listens is left alone for so long at most, or for ``open_s`` if that
is longer: its owner starts it again, and whoever looks in vain bothers nobody."""


class State(Enum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "half-open"


class Event(Enum):
    """What a request that was let in came to, as far as it tells anything about the vendor."""

    SERVED = "it was served"
    FAULT = "it failed, and the vendor is to blame"
    TRIP = "it failed as every other would until somebody mends it"
    COOL = "the vendor is there, and wants to be left alone for a while"
    FULL = "a local server is there, and has no room now"
    NOTHING = "it says nothing about the vendor"


EVENTS: dict[type[errors.DispatcherError], Event] = {
    # The caller's mistakes, our refusals, cancelling: the vendor has no part in them.
    errors.DispatcherError: Event.NOTHING,
    # A vendor that is down, broken, full, or silent. A bug in its code is one too.
    errors.VendorError: Event.FAULT,
    # It is there, and counts.
    errors.RateLimited: Event.COOL,
    # Until somebody pays, mends the key or installs the model, the next would fail alike.
    errors.QuotaExhausted: Event.TRIP,
    errors.AuthRejected: Event.TRIP,
    errors.ModelNotFound: Event.TRIP,
    # A filter did its work.
    errors.ContentRefused: Event.NOTHING,
    # A worker has a breaker of its own, which knows whether it died again and again or only once,
    # with many requests in flight.
    errors.EngineCrashed: Event.NOTHING,
    errors.OutOfMemory: Event.NOTHING,
    # Local files: looking again costs nothing, may find them mended, and says best what is wrong.
    errors.ExecutableNotFound: Event.NOTHING,
    errors.ModelFileMissing: Event.NOTHING,
    errors.CorruptModel: Event.NOTHING,
    errors.UnsupportedArchitecture: Event.NOTHING,
    errors.ModelTooLarge: Event.NOTHING,
    errors.StateUnusable: Event.NOTHING,
}

PATIENCE = frozenset({"load", "total"})
"""Phases whose end says how long the caller wanted to wait, not how the vendor is."""


def blamed(error: errors.DispatcherError) -> errors.DispatcherError:
    """Return what cut a reply that was partly shown, or the error itself."""
    cause = error.__cause__
    if isinstance(error, errors.StreamInterrupted) and isinstance(cause, errors.DispatcherError):
        return cause
    return error


def event(error: errors.DispatcherError, *, is_local: bool = False) -> Event:
    """Look up what an error says about the vendor, by the nearest class of what is to blame.

    ``is_local`` is whether it is a local server, which may be full and is not down then. One that
    began to answer, or let somebody wait in vain, was not full.
    """
    if is_local and isinstance(error, errors.Overloaded) and error.status not in _LATE:
        return Event.FULL
    error = blamed(error)
    if isinstance(error, errors.BadReply) and error.is_unfit:
        return Event.NOTHING  # a model that writes bad JSON is no vendor that is down
    if isinstance(error, errors.TimedOut) and getattr(error, "phase", "") in PATIENCE:
        return Event.NOTHING
    return next(EVENTS[kind] for kind in type(error).__mro__ if kind in EVENTS)


@attrs.frozen(kw_only=True)
class Circuit:
    """One breaker at one time."""

    state: State = State.CLOSED
    generation: int = 0
    """Which closed or open time this is; what was let in during an earlier one counts no more."""
    failures: int = 0
    """In a row, while closed."""
    level: int = 0
    """Probes that failed in a row, while open."""
    since_s: float = 0.0
    """When anything last changed."""
    until_s: float = 0.0
    """While open: when the next probe may go. While probing: when the probe counts as lost."""
    cool_until_s: float = 0.0
    """When the vendor wants to be asked again."""
    refusals: int = 0
    """In a row, while closed, of a local server that is full."""
    full_until_s: float = 0.0
    """Until when it is taken to be full. What programs share has no word of it."""
    probe: int = 0
    """The number of the probe that is out."""
    reason: str = ""
    """The class of the error that opened it."""

    @property
    def is_calm(self) -> bool:
        """Whether nothing is held against the vendor, and it asked for nothing."""
        held = self.failures or self.cool_until_s or self.refusals
        return self.state is State.CLOSED and not held


@attrs.frozen(kw_only=True)
class Report:
    """How a request that was let in ended; ``is_probe`` and ``is_stale`` say in which time."""

    now_s: float
    told_s: float | None = None
    """What the vendor said to wait."""
    draw: float = 0.0
    reason: str = ""
    is_off: bool = False
    """It is a local server, and nobody listens there."""
    is_probe: bool = False
    is_stale: bool = False


def _interval_s(policy: BreakerPolicy, level: int, report: Report) -> float:
    """Return how long to stay open: longer at each level, drawn a little longer, or as told."""
    cap_s = min(policy.cap_s, max(OFF_CAP_S, policy.open_s)) if report.is_off else policy.cap_s
    interval_s = min(cap_s, policy.open_s * policy.factor ** min(level, 64))
    told_s = min(report.told_s or 0.0, MAX_COOL_S)
    return max(interval_s * (1 + policy.jitter * report.draw), told_s)


def _opened(circuit: Circuit, policy: BreakerPolicy, report: Report, level: int) -> Circuit:
    """Open, or stay open for longer: never shorter than before."""
    until_s = report.now_s + _interval_s(policy, level, report)
    is_new = circuit.state is State.CLOSED
    return attrs.evolve(
        circuit,
        state=State.OPEN,
        generation=circuit.generation + is_new,
        failures=0,
        refusals=0,
        full_until_s=0.0,
        level=level,
        since_s=report.now_s,
        until_s=until_s if is_new or report.is_probe else max(circuit.until_s, until_s),
        reason=report.reason,
    )


def _keep(circuit: Circuit, _: BreakerPolicy, __: Report) -> Circuit:
    return circuit


def _forget(circuit: Circuit, _: BreakerPolicy, report: Report) -> Circuit:
    """Forget failures and refusals: a row of them ends with the first that is served.

    Whoever was served has left a place to the next one, too.
    """
    if report.is_stale or not (circuit.failures or circuit.refusals):
        return circuit
    return attrs.evolve(circuit, failures=0, refusals=0, full_until_s=0.0, since_s=report.now_s)


def _count(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Count a failure, and open at the last of a row."""
    if report.is_stale:
        return circuit
    if circuit.failures + 1 >= policy.failures:
        return _opened(circuit, policy, report, level=0)
    return attrs.evolve(circuit, failures=circuit.failures + 1, since_s=report.now_s)


def _trip(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Open at once."""
    return circuit if report.is_stale else _opened(circuit, policy, report, level=0)


def _extend(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Stay open from this failure on, of one that was let in before: it still is as it was."""
    return _opened(circuit, policy, report, level=circuit.level)


def _cool(circuit: Circuit, _: BreakerPolicy, report: Report) -> Circuit:
    """Wait as long as the vendor says, if it says anything."""
    if report.told_s is None:
        return circuit
    pause_s = min(max(report.told_s, 0.0), MAX_COOL_S)
    until_s = max(circuit.cool_until_s, report.now_s + pause_s)
    circuit = attrs.evolve(circuit, refusals=0, full_until_s=0.0)  # it says what it waits for
    return attrs.evolve(circuit, cool_until_s=until_s, since_s=report.now_s)


def _crowd(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Leave a server that is full alone for a moment, longer with each that it refuses in a row.

    Whoever was sent before that moment began tells nothing new, unless for how long it is full.
    """
    if report.is_stale:
        return circuit
    told_s = min(report.told_s or 0.0, MAX_COOL_S)
    if report.now_s < circuit.full_until_s:
        until_s = max(circuit.full_until_s, report.now_s + told_s)
        return attrs.evolve(circuit, since_s=report.now_s, full_until_s=until_s)
    grown = FULL_FACTOR ** min(circuit.refusals, 64)
    pause_s = min(policy.cap_s, FULL_S * grown) * (1 + policy.jitter * report.draw)
    return attrs.evolve(
        circuit,
        refusals=circuit.refusals + 1,
        since_s=report.now_s,
        full_until_s=report.now_s + max(pause_s, told_s),
    )


def _crowd_probe(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Close, if it was the probe that was refused: it is there again, and only full."""
    if not report.is_probe:
        return circuit
    return _crowd(_close(circuit, policy, report), policy, report)


def _close(circuit: Circuit, _: BreakerPolicy, report: Report) -> Circuit:
    """Close and forget everything, if it was the probe that was served."""
    if not report.is_probe:
        return circuit
    return Circuit(generation=circuit.generation + 1, since_s=report.now_s)


def _again(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Open for longer, if it was the probe that failed."""
    if not report.is_probe:
        return circuit
    return _opened(circuit, policy, report, level=circuit.level + 1)


def _give_way(circuit: Circuit, _: BreakerPolicy, report: Report) -> Circuit:
    """Let another probe go at once: this one has found out nothing."""
    if not report.is_probe:
        return circuit
    return attrs.evolve(circuit, state=State.OPEN, since_s=report.now_s, until_s=report.now_s)


def _cool_probe(circuit: Circuit, policy: BreakerPolicy, report: Report) -> Circuit:
    """Let another probe go when the vendor says."""
    return _give_way(_cool(circuit, policy, report), policy, report)


Step = Callable[[Circuit, BreakerPolicy, Report], Circuit]

TRANSITIONS: dict[tuple[State, Event], Step] = {
    (State.CLOSED, Event.SERVED): _forget,
    (State.CLOSED, Event.FAULT): _count,
    (State.CLOSED, Event.TRIP): _trip,
    (State.CLOSED, Event.COOL): _cool,
    (State.CLOSED, Event.FULL): _crowd,
    (State.CLOSED, Event.NOTHING): _keep,
    # Open, only those report that were let in before. What began when all was well may still end
    # well, and is no sign that anything can begin.
    (State.OPEN, Event.SERVED): _keep,
    (State.OPEN, Event.FAULT): _extend,
    (State.OPEN, Event.TRIP): _extend,
    (State.OPEN, Event.COOL): _cool,
    (State.OPEN, Event.FULL): _keep,
    (State.OPEN, Event.NOTHING): _keep,
    # Probing, the probe alone decides.
    (State.PROBING, Event.SERVED): _close,
    (State.PROBING, Event.FAULT): _again,
    (State.PROBING, Event.TRIP): _again,
    (State.PROBING, Event.COOL): _cool_probe,
    (State.PROBING, Event.FULL): _crowd_probe,
    (State.PROBING, Event.NOTHING): _give_way,
}
"""What each event does in each state."""


@attrs.frozen
class Go:
    """A request may go; ``number`` is that of the probe, 0 for one that is none."""

    generation: int
    number: int = 0


@attrs.frozen
class Hold:
    """Nobody may go for now; ask again at ``until_s``."""

    until_s: float
    reason: str

    def error(self, name: str, now_s: float) -> errors.BreakerOpen:
        """Return the error of a request that does not wait."""
        wait_s = max(0.0, self.until_s - now_s)
        return errors.BreakerOpen(
            f"{name} is left alone for another {wait_s:.1f} s: {self.reason}", retry_after_s=wait_s
        )


def steady(circuit: Circuit, now_s: float) -> Circuit:
    """Take back what a clock that was set back would add to the waiting."""
    if now_s >= circuit.since_s:
        return circuit
    shift_s = now_s - circuit.since_s
    return attrs.evolve(
        circuit,
        since_s=now_s,
        until_s=circuit.until_s + shift_s,
        cool_until_s=circuit.cool_until_s + shift_s,
        full_until_s=circuit.full_until_s + shift_s,
    )


def ask(
    circuit: Circuit, policy: BreakerPolicy, now_s: float, number: int
) -> tuple[Circuit, Go | Hold]:
    """Say whether a request may go now. ``number`` is for a probe, and was never used before."""
    circuit = steady(circuit, now_s)
    if now_s < circuit.cool_until_s:
        return circuit, Hold(circuit.cool_until_s, "it asked to be left alone for a while")
    if circuit.state is State.CLOSED:
        if now_s < circuit.full_until_s:
            return circuit, Hold(circuit.full_until_s, "it was full a moment ago")
        return circuit, Go(circuit.generation)
    if now_s < circuit.until_s:
        told = f"it failed too often lately ({circuit.reason})"
        if circuit.state is State.PROBING:
            look_s = min(circuit.until_s, now_s + PROBE_LOOK_S)
            return circuit, Hold(look_s, f"{told}; another request finds out whether it still does")
        return circuit, Hold(circuit.until_s, told)
    probing = attrs.evolve(
        circuit,
        state=State.PROBING,
        probe=number,
        since_s=now_s,
        until_s=now_s + policy.cap_s,  # whoever took it and never came back has lost it
    )
    return probing, Go(circuit.generation, number)


def after(
    circuit: Circuit, policy: BreakerPolicy, went: Go, event: Event, report: Report
) -> Circuit:
    """Return the circuit after a request ended that was let in as ``went``."""
    circuit = steady(circuit, report.now_s)
    is_probe = circuit.state is State.PROBING and went.number == circuit.probe != 0
    is_stale = went.generation != circuit.generation or (went.number != 0 and not is_probe)
    report = attrs.evolve(report, is_probe=is_probe, is_stale=is_stale)
    return TRANSITIONS[circuit.state, event](circuit, policy, report)
