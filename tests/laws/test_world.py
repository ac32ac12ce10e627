"""The judge of the replay has an exam: its optimum is what trying every way finds."""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from choice_optimum import Optimum
from choice_replay import replay
from choice_world import MODELS, TUNING, Ask, Meter, World

REQUESTS = 400


@pytest.fixture
def asked_once() -> None:
    """Breakers and retries are the product's own here."""


@pytest.fixture(scope="module")
def world() -> World:
    """A small world, of a seed that everybody may look at."""
    return World(TUNING[0], REQUESTS)


def test_the_optimum_is_the_cheapest_of_all_ways(world: World) -> None:
    """Every way through conversations of up to three turns, billed by the world's own meter."""
    talks: dict[int, list[Ask]] = defaultdict(list)
    for ask in world.asks:
        talks[ask.talk].append(ask)
    some = [asks for asks in talks.values() if 2 <= len(asks) <= 3][:8]
    optimum = Optimum(world)

    assert [optimum.talk(asks) for asks in some] == [_cheapest(world, asks) for asks in some]


def _cheapest(world: World, asks: list[Ask]) -> int:
    """Bill every way whose every turn somebody would serve."""
    able = [[model for model in MODELS if world.can(ask, model)] for ask in asks]
    there = [
        [model for model in models if world.standing(model.vendor, ask.at_s) is None]
        for ask, models in zip(asks, able, strict=True)
    ]
    costs = []
    for way in product(*there):
        meter = Meter(Faultless(world))
        for ask, model in zip(asks, way, strict=True):
            meter.ask(ask, model, ask.at_s)
        costs.append(meter.pico)
    return min(costs)


class Faultless(World):
    """A world in which nothing fails for itself."""

    def __init__(self, world: World) -> None:
        self.__dict__ |= world.__dict__

    def lapse(self, ask: Ask, model: object, again: int) -> None:
        """Nothing does."""


def test_a_replay_serves_everybody_and_never_beats_the_optimum_by_far(world: World) -> None:
    """All requests are served, twice for the same dollars, and for no less than the optimum's.

    But for what is saved by waiting for a vendor that is back a moment later.
    """
    once, again = replay(world), replay(world)

    assert not once.unserved
    assert sum(once.served.values()) == REQUESTS
    assert once.meter.pico == again.meter.pico
    assert once.meter.pico > 0.98 * Optimum(world).pico()
