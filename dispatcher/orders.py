"""The strategies: in which order those who can serve a request are asked. Pure but for the draws.

Each is a function from estimates to keys, of which the least comes first. Those that are equal go
by the expected cost of a good answer, then by latency, then by priority and registration.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence

import attrs

from llmdispatcher.history import PRIOR_SERVED
from llmdispatcher.models.strategy import Strategy
from llmdispatcher.outlook import Bare, Estimate
from llmdispatcher.shelf import Shelf, Target

SAME_S, SAME_RATIO = 0.25, 1.5
"""Latencies below so many seconds are the same to people, and so are those within this ratio."""


FORGIVEN = PRIOR_SERVED / (PRIOR_SERVED + 0.5)
"""The chance to serve of whom a single failure has half faded."""


@attrs.frozen(kw_only=True)
class Glance:
    """A model on this machine, as it is now."""

    wait_s: float = 0.0
    """Until it could begin: it has to be loaded, or others are before."""
    in_hand: int = 0
    """Requests that it serves, or that wait for it, of whichever program."""


class Draws:
    """Where chance comes from; a test gives its own."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self.draw = draw
        """A number in [0, 1)."""


@attrs.define
class Standing:
    """What an order goes by, beside the estimates."""

    shelf: Shelf
    strategy: Strategy
    late: Mapping[int, str]
    """Who would be refused now, by place on the shelf."""
    glance: Callable[[Target], Glance]
    draws: Draws

    def glance_at(self, at: int) -> Glance:
        """Look at a model, if it is on this machine."""
        return self.glance(self.shelf.targets[at]) if self.shelf.is_here[at] else Glance()


Keyed = tuple[tuple[float, ...], int, Estimate]
Keys = Callable[[Sequence[Estimate], Standing], list[float]]


def order(bare: Sequence[Bare], standing: Standing) -> Sequence[Bare]:
    """Return the estimates in the order of the strategy."""
    strategy, places = standing.strategy, standing.shelf.places
    is_plain = strategy.first == "anywhere" and strategy.least_quality is None
    if strategy.order == "cost" and is_plain and not standing.late:  # as most requests are
        known = [(each[1], places[each[0]], each) for each in bare if each[1] is not None]
        known.sort()  # no two have the same place, so estimates are never compared
        if len(known) == len(bare) == len({each[0] for each in known}):
            return [each[2] for each in known]
    keyed = _keyed([Estimate._make(each) for each in bare], standing)
    keyed.sort()
    ordered = _by_latency(keyed, standing)
    if strategy.order == "latency":
        _explore(ordered, standing)
    return ordered


def _keyed(made: Sequence[Estimate], standing: Standing) -> list[Keyed]:
    late, places = standing.late, standing.shelf.places
    firsts = ORDERS[standing.strategy.order](made, standing)
    return [
        (
            (
                each.at in late,
                _aside(each.at, standing),
                first,
                each.expected is None,
                each.expected or 0.0,
            ),
            places[each.at],
            each,
        )
        for first, each in zip(firsts, made, strict=True)
    ]


def _aside(at: int, standing: Standing) -> int:
    """Return 0 for whom the strategy wants first, more for others."""
    strategy, shelf = standing.strategy, standing.shelf
    below = strategy.least_quality is not None and shelf.qualities[at] < strategy.least_quality
    behind = strategy.first != "anywhere" and shelf.is_local[at] is not (strategy.first == "local")
    return 2 * below + behind


def _by_latency(keyed: Sequence[Keyed], standing: Standing) -> list[Estimate]:
    """Put those of equal keys in the order of their latency, as far as it is known."""
    ordered: list[Estimate] = []
    for _, group in itertools.groupby(keyed, key=lambda each: each[0]):
        equal = [each[2] for each in group]
        ordered += equal if len(equal) == 1 else _soonest(equal, standing)
    return ordered


def _soonest(equal: list[Estimate], standing: Standing) -> list[Estimate]:
    """Sort by latency in coarse classes; of whom it is not known counts as the first known."""
    shelf = standing.shelf
    waits = [standing.glance_at(each.at).wait_s for each in equal]
    known = [shelf.records[each.at].latency_s for each in equal]
    first = next((latency_s for latency_s in known if latency_s is not None), 0.0)
    seconds = [
        (first if latency_s is None else latency_s) + wait_s
        for latency_s, wait_s in zip(known, waits, strict=True)
    ]
    classes = [_class(each) for each in seconds]
    places = sorted(range(len(equal)), key=lambda at: classes[at])  # stable: places decide
    return [equal[at] for at in places]


def _class(seconds: float) -> int:
    return int(math.log(max(seconds, SAME_S) / SAME_S) / math.log(SAME_RATIO))


# -- what each strategy goes by -----------------------------------------------------------------


def _cost(made: Sequence[Estimate], _: Standing) -> list[float]:
    return [0.0] * len(made)


def _priority(made: Sequence[Estimate], standing: Standing) -> list[float]:
    shelf = standing.shelf
    if shelf.routing.priorities:
        return [shelf.priorities[each.at] for each in made]
    return [shelf.places[each.at] for each in made]  # the order of registration


def _quality(made: Sequence[Estimate], standing: Standing) -> list[float]:
    return [-standing.shelf.qualities[each.at] for each in made]


def _round_robin(made: Sequence[Estimate], standing: Standing) -> list[float]:
    """Who was asked the longest ago is asked first.

    A count of turns would be spent by whoever only looks, and shared by requests of other kinds.
    """
    records, places = standing.shelf.records, standing.shelf.places
    never = len(places)
    return [records[each.at].asked or places[each.at] - never for each in made]


def _weighted(made: Sequence[Estimate], standing: Standing) -> list[float]:
    """Draw an order in which each comes first as often as its weight says.

    The weight of whom attempts fail at shrinks with its chance to serve, and never below the share
    that is kept for exploring. (Efraimidis and Spirakis: the order of E / w, with E exponential.)
    """
    least = standing.shelf.routing.explore
    keys = []
    for each in made:
        weight = standing.shelf.weights[each.at] * max(each.served, least)
        drawn = -math.log(1.0 - standing.draws.draw())
        keys.append(drawn / weight if weight else math.inf)
    return keys


def _latency(made: Sequence[Estimate], standing: Standing) -> list[float]:
    """Go by the mean latency of late, failures counted as time lost; who is not known comes first.

    Else nobody would ever find out. Who failed and never served counts as the slowest, however
    quickly it failed, until that is half forgotten.
    """
    records = [standing.shelf.records[each.at] for each in made]
    slowest = max((record.latency_s or 0.0 for record in records), default=0.0)
    keys = []
    for each, record in zip(made, records, strict=True):
        wait_s, lost_s = standing.glance_at(each.at).wait_s, record.lost_each()[1]
        latency_s = record.latency_s
        if latency_s is None:
            if each.served >= FORGIVEN:
                keys.append(wait_s)
                continue
            latency_s = max(lost_s, slowest)
        keys.append(wait_s + latency_s + (lost_s + latency_s) * (1 - each.served) / each.served)
    return keys


def _least_busy(made: Sequence[Estimate], standing: Standing) -> list[float]:
    return [
        max(standing.shelf.records[each.at].in_hand, standing.glance_at(each.at).in_hand)
        for each in made
    ]


ORDERS: Mapping[str, Keys] = {
    "cost": _cost,
    "priority": _priority,
    "round_robin": _round_robin,
    "weighted": _weighted,
    "latency": _latency,
    "least_busy": _least_busy,
    "quality": _quality,
}


def _explore(ordered: list[Estimate], standing: Standing) -> None:
    """Now and then ask another one first, of those who can be asked now."""
    ready = sum(each.at not in standing.late for each in ordered)
    draws = standing.draws
    if ready > 1 and draws.draw() < standing.shelf.routing.explore:
        at = 1 + int(draws.draw() * (ready - 1))
        ordered.insert(0, ordered.pop(at))
