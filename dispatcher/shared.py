"""What programs tell each other of limits and breakers, and what follows from it here. Pure.

``drawn`` and ``given`` are the buckets of a user's limits as a row in a file has them: what was
taken and has not flowed back yet, and when that was true. A program whose limits differ counts what
the others took by its own rates. A ``Word`` is what a program says of a breaker: ``merged`` makes
one of two, whichever comes first, and ``overlay`` lays it over a circuit. Times in rows and words
are seconds since 1970, as all programs of a machine have them; those of a circuit are monotonic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llmdispatcher.breaker import MAX_COOL_S, Circuit, State
from llmdispatcher.bucket import NOTHING, Bucket, Needs, buckets
from llmdispatcher.models.policy import Limits

STEP_S = 1e-3
"""A word comes at least so much after the one that it follows, whatever the clock says."""

MAX_REASON = 64
"""Of the name of a class of errors."""

Row = Mapping[str, tuple[float, float]]
"""By bucket: what was taken from a full one and has not flowed back, and when that was so."""


@attrs.frozen
class Drawn:
    """What came of asking for a share."""

    row: Row
    wait_s: float
    """0: it is taken; else nothing is, and this is when to look again."""
    levels: tuple[float, ...]
    """What is left in each bucket, in the order of ``bucket.buckets``."""
    is_new: bool
    """The row says something that it did not say before."""


def drawn(limits: Limits, row: Row, needs: Needs, now_s: float) -> Drawn:
    """Take what a request needs out of every bucket, or nothing of any."""
    made = _filled(limits, row, now_s)
    waits = [each.wait_s(each.amount(needs), now_s) for each in made]
    wait_s = max(waits, default=0.0)
    if wait_s == 0:
        for each in made:
            each.take(each.amount(needs), now_s)
    # A row of the future is written also where nothing is taken: from now on it refills.
    is_new = wait_s == 0 and needs != NOTHING
    is_new = is_new or any(row.get(_name(each), (0.0, now_s))[1] > now_s for each in made)
    return Drawn(_emptied(row, made), wait_s, tuple(each.level for each in made), is_new)


def given(limits: Limits, row: Row, needs: Needs, used: Needs, now_s: float) -> Row:
    """Put back what was taken and not used, or take what was used beyond it."""
    made = _filled(limits, row, now_s)
    for each in made:
        each.give(each.amount(needs) - used.of(each.quantity), now_s)
    return _emptied(row, made)


def changes(limits: Limits, needs: Needs, used: Needs) -> bool:
    """Whether ``given`` has anything to do."""
    return any(each.amount(needs) != used.of(each.quantity) for each in buckets(limits))


def _filled(limits: Limits, row: Row, now_s: float) -> list[Bucket]:
    """Make the buckets as a row has them. A row of the future is as of now: a clock was mended."""
    made = buckets(limits)
    for each in made:
        taken, at_s = row.get(_name(each), (0.0, now_s))
        each.level, each.at_s = each.capacity - taken, min(at_s, now_s)
        each.wait_s(0.0, now_s)  # lets in what has flown since
    return made


def _emptied(row: Row, made: Iterable[Bucket]) -> Row:
    return {**row, **{_name(each): (each.capacity - each.level, each.at_s) for each in made}}


def _name(bucket: Bucket) -> str:
    return f"{bucket.quantity}/{bucket.window}"


def row_text(row: Row) -> str:
    """Write a row."""
    return json.dumps({name: list(pair) for name, pair in row.items()})


def row_of(text: str | None) -> Row:
    """Read a row; what is not as ``row_text`` writes it counts as a full bucket."""
    found = _mapping(text)
    pairs = {
        name: (taken, at_s)
        for name, value in found.items()
        if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))  # noqa: PLR2004 - a pair
        for taken, at_s in [value]
    }
    return {name: (float(taken), float(at_s)) for name, (taken, at_s) in pairs.items()}


@attrs.frozen(kw_only=True)
class Word:
    """What a program says of a breaker."""

    state: State = State.CLOSED
    said_s: float = 0.0
    """When it came to be so; 0 for a breaker that nobody ever opened."""
    until_s: float = 0.0
    """While open: when the next probe may go. While probing: when the probe counts as lost."""
    level: int = 0
    """Probes that failed in a row."""
    reason: str = ""
    cooled_s: float = 0.0
    """When the vendor asked to be left alone, and until when."""
    cool_until_s: float = 0.0


def said(known: Word, circuit: Circuit, now_s: float, wall_s: float) -> Word:
    """Say how a circuit is since now, after all that is ``known``."""
    said_s = max(wall_s, known.said_s + STEP_S)
    lasts_s = max(0.0, circuit.until_s - now_s)
    word = Word(
        state=circuit.state,
        said_s=said_s,
        until_s=0.0 if circuit.state is State.CLOSED else said_s + lasts_s,
        level=circuit.level,
        reason=circuit.reason,
    )
    return merged(known, word)


def cooled(known: Word, circuit: Circuit, now_s: float, wall_s: float) -> Word:
    """Say that a vendor wants to be left alone, which neither opens nor closes anything."""
    until_s = wall_s + max(0.0, circuit.cool_until_s - now_s)
    return merged(known, attrs.evolve(known, cooled_s=wall_s, cool_until_s=until_s))


def merged(one: Word, other: Word) -> Word:
    """Make one word of two. The later one says how it is; no time of waiting becomes shorter.

    It matters neither which of them comes first nor how often.
    """
    first, last = sorted((one, other), key=_order)
    cool = max(one, other, key=lambda word: (word.cool_until_s, word.cooled_s))
    until_s = last.until_s
    if first.state is last.state is State.OPEN:
        until_s = max(until_s, first.until_s)
    return attrs.evolve(
        last, until_s=until_s, cooled_s=cool.cooled_s, cool_until_s=cool.cool_until_s
    )


def _order(word: Word) -> tuple[Any, ...]:
    return word.said_s, word.state.value, word.until_s, word.level, word.reason


def overlay(circuit: Circuit, word: Word, now_s: float, wall_s: float) -> Circuit:
    """Lay what is known of a breaker over a circuit.

    A wait is never longer than it was meant to be when it was said, should the clock have been set
    back; what is over already opens nothing. A probe of our own goes on, unless the breaker closed
    meanwhile: then how it ends counts as of one that went before.
    """
    cool_s = _left_s(word.cooled_s, min(word.cool_until_s, word.cooled_s + MAX_COOL_S), wall_s)
    if cool_s > 0:
        cool_until_s = max(circuit.cool_until_s, now_s + cool_s)
        circuit = attrs.evolve(circuit, cool_until_s=cool_until_s, refusals=0, full_until_s=0.0)
    left_s, is_closed = _left_s(word.said_s, word.until_s, wall_s), circuit.state is State.CLOSED
    if word.state is State.CLOSED:
        if is_closed or not word.said_s:
            return circuit
        closed = Circuit(generation=circuit.generation + 1, since_s=now_s)
        return attrs.evolve(closed, cool_until_s=circuit.cool_until_s)
    is_trying = circuit.state is State.PROBING and circuit.probe != 0
    if is_trying or (is_closed and left_s == 0):
        return circuit
    until_s = now_s + left_s
    if circuit.state is State.OPEN:
        until_s = max(until_s, circuit.until_s)
    return attrs.evolve(
        circuit,
        state=word.state if left_s else State.OPEN,
        generation=circuit.generation + is_closed,
        failures=0,
        refusals=0,
        full_until_s=0.0,
        level=word.level,
        since_s=now_s,
        until_s=until_s,
        probe=0,  # of another program, if any
        reason=word.reason,
    )


def _left_s(said_s: float, until_s: float, wall_s: float) -> float:
    """Return how long a wait still is, and never more than when it was said."""
    return max(0.0, min(until_s - wall_s, until_s - said_s))


def word_text(word: Word) -> str:
    """Write a word."""
    told = attrs.asdict(word)
    return json.dumps({**told, "state": word.state.value})


def word_of(text: str | None) -> Word:
    """Read a word; what is not as ``word_text`` writes it says nothing."""
    found = _mapping(text)
    times = ("said_s", "until_s", "cooled_s", "cool_until_s")
    state, level, reason = (found.get(name) for name in ("state", "level", "reason"))
    is_whole = isinstance(level, int) and isinstance(reason, str)
    if not is_whole or not all(_is_number(found.get(name)) for name in times):
        return Word()
    if state not in {each.value for each in State}:
        return Word()
    return Word(
        state=State(state),
        level=min(max(0, int(level or 0)), 64),
        reason=str(reason)[:MAX_REASON],
        **{name: float(found[name]) for name in times},
    )


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e15 and not math.isnan(value)  # noqa: PLR2004 - times and amounts are far below it
