"""The least that the requests of a world could have cost, for one who knows everything.

It knows prices, how long every reply gets, and who serves nobody when; what fails for itself it is
spared, since a second try would serve. What a cache holds depends on whom the turns before were
sent to: a conversation is a path, and the cheapest is found exactly, with only those states left
out that another is no worse than, in money and in every cache.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from choice_world import MODELS, Ask, Model, World, cached_tokens

State = tuple[int, ...]
"""For each model the number of the turn that it last read, counted from 1; 0 is none."""


class Optimum:
    """Of one world. ``patience_s``: it may wait so long for somebody who is out."""

    def __init__(self, world: World, patience_s: float = 0.0) -> None:
        self._world = world
        self._waits_s = range(int(patience_s) + 1)

    def pico(self) -> int:
        """Return pico-dollars for all requests."""
        talks: dict[int, list[Ask]] = defaultdict(list)
        for ask in self._world.asks:
            talks[ask.talk].append(ask)
        return sum(map(self._talk, talks.values()))

    def _talk(self, turns: Sequence[Ask]) -> int:
        """Return the cost of the cheapest way through a conversation."""
        states: dict[State, int] = {(0,) * len(MODELS): 0}
        for number, ask in enumerate(turns, 1):
            following: dict[State, int] = {}
            for place in self._open(ask):
                model = MODELS[place]
                lengths = self._lengths(ask, model)
                for state, spent in states.items():
                    read = state[place]
                    prefix = self._prefix(turns, read, ask, model)
                    cost = spent + model.pico(lengths[0], prefix, lengths[1])
                    after = (*state[:place], number, *state[place + 1 :])
                    if cost < following.get(after, math.inf):
                        following[after] = cost
            states = _pruned(following)
        return min(states.values())

    def _open(self, ask: Ask) -> list[int]:
        """Return who would serve a request, by place; all who can if nobody would."""
        world = self._world
        able = [place for place, model in enumerate(MODELS) if world.can(ask, model)]
        there = {
            vendor
            for vendor in {MODELS[place].vendor for place in able}
            if any(world.standing(vendor, ask.at_s + wait_s) is None for wait_s in self._waits_s)
        }
        return [place for place in able if MODELS[place].vendor in there] or able

    def _lengths(self, ask: Ask, model: Model) -> tuple[int, int]:
        return self._world.prompt_tokens(ask, model), self._world.completion_tokens(ask, model)

    def _prefix(self, turns: Sequence[Ask], read: int, ask: Ask, model: Model) -> int:
        if not read:
            return 0
        before = turns[read - 1]
        tokens = self._world.prompt_tokens(before, model)
        return cached_tokens(model, tokens, ask.at_s - before.at_s)


def _pruned(states: dict[State, int]) -> dict[State, int]:
    """Leave out what another state is no worse than: no dearer, and nothing read longer ago."""
    kept: list[tuple[State, int]] = []
    for state, cost in sorted(states.items(), key=lambda each: (each[1], [-n for n in each[0]])):
        if not any(all(map(int.__ge__, other, state)) for other, _ in kept):
            kept.append((state, cost))
    return dict(kept)


def well_informed(world: World) -> int:
    """Return the pico-dollars of one who guesses as well as can be, and cannot see ahead.

    It knows who serves now, how a model counts and how much it writes on average for each request;
    not how long this reply gets, and it does not pay more now for a cache that pays off later.
    What is between it and the optimum is the price of not being able to know.
    """
    read: dict[tuple[int, str], tuple[float, int]] = {}
    total = 0
    for ask in world.asks:
        able = [model for model in MODELS if world.can(ask, model)]
        there = [model for model in able if world.standing(model.vendor, ask.at_s) is None] or able
        costs = []
        for model in there:
            prompt = world.prompt_tokens(ask, model)
            at_s, tokens = read.get((ask.talk, model.name), (-math.inf, 0))
            cached = cached_tokens(model, tokens, ask.at_s - at_s)
            usual = math.ceil(world.expected_completion(ask, model))
            costs.append((model.pico(prompt, cached, usual), prompt, cached, model))
        _, prompt, cached, model = min(costs, key=lambda each: each[0])
        total += model.pico(prompt, cached, world.completion_tokens(ask, model))
        read[ask.talk, model.name] = ask.at_s, prompt
    return total
