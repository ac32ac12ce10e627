"""The least that the requests of a world could have cost, for one who knows everything.

It knows prices, how long every reply gets, and who serves nobody when; what fails for itself it is
spared, since a second try would serve. What a cache holds depends on whom the turns before were
sent to: a conversation is a path, and the cheapest is found exactly. Left out are only those states
that another is no worse than, were it to pay anew for all that is in their caches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs
from choice_world import CACHE_S, MODELS, Ask, Model, World, cached_tokens

State = tuple[int, ...]
"""For each model the number of the turn that it last read, counted from 1; 0 is none."""


@attrs.frozen
class Turn:
    """A request, and what each model that would serve it bills."""

    at_s: float
    prompts: Mapping[int, int]
    completions: Mapping[int, int]
    """By the model's place: of all that are able, and of those that would serve."""

    def pico(self, place: int, cached: int = 0) -> int:
        """Return what a model bills."""
        return MODELS[place].pico(self.prompts[place], cached, self.completions[place])


class Optimum:
    """Of one world. ``patience_s``: it may wait so long for somebody who is out."""

    def __init__(self, world: World, patience_s: int = 0) -> None:
        self._world = world
        self._waits_s = range(patience_s + 1)

    def pico(self) -> int:
        """Return pico-dollars for all requests."""
        talks: dict[int, list[Ask]] = defaultdict(list)
        for ask in self._world.asks:
            talks[ask.talk].append(ask)
        return sum(map(self.talk, talks.values()))

    def shares(self, asks: Sequence[Ask]) -> list[int]:
        """Return what each of some requests costs by itself, at least: nothing of it is cached."""
        turns = [self._turn(ask) for ask in asks]
        return [min(map(turn.pico, turn.completions)) for turn in turns]

    def talk(self, asks: Sequence[Ask]) -> int:
        """Return the cost of the cheapest way through a conversation."""
        turns = [self._turn(ask) for ask in asks]
        states: dict[State, int] = {(0,) * len(MODELS): 0}
        for number, turn in enumerate(turns, 1):
            following: dict[State, int] = {}
            for place in turn.completions:
                for state, spent in states.items():
                    cost = spent + turn.pico(place, _cached(turns, state[place], turn, place))
                    after = (*state[:place], number, *state[place + 1 :])
                    if cost < following.get(after, math.inf):
                        following[after] = cost
            states = _pruned(following, turns, number)
        return min(states.values())

    def _turn(self, ask: Ask) -> Turn:
        """Look who would serve a request: all who can if nobody would."""
        world = self._world
        able = [place for place, model in enumerate(MODELS) if world.can(ask, model)]
        there = {
            vendor
            for vendor in {MODELS[place].vendor for place in able}
            if any(world.standing(vendor, ask.at_s + wait_s) is None for wait_s in self._waits_s)
        }
        serving = [place for place in able if MODELS[place].vendor in there] or able
        return Turn(
            ask.at_s,
            {place: world.prompt_tokens(ask, MODELS[place]) for place in able},
            {place: world.completion_tokens(ask, MODELS[place]) for place in serving},
        )


def _cached(turns: Sequence[Turn], read: int, turn: Turn, place: int) -> int:
    """Return how many tokens of a turn a model bills as cached, having read that one last."""
    if not read:
        return 0
    before = turns[read - 1]
    return cached_tokens(MODELS[place], before.prompts[place], turn.at_s - before.at_s)


def _pruned(states: dict[State, int], turns: Sequence[Turn], number: int) -> dict[State, int]:
    """Leave out whatever another could imitate at no higher cost.

    Whoever imitates pays more at most once for each model, when it reads for the first time what
    the other has in a cache.
    """
    worth: dict[tuple[int, int], int] = {}

    def saves(place: int, read: int) -> int:
        if (place, read) not in worth:
            worth[place, read] = _saves(turns, number, place, read)
        return worth[place, read]

    kept: list[tuple[State, int]] = []
    for state, cost in sorted(states.items(), key=lambda each: each[1]):
        for other, spent in kept:
            more = sum(
                saves(place, read)
                for place, (read, has) in enumerate(zip(state, other, strict=True))
                if read > has
            )
            if spent + more <= cost:
                break
        else:
            kept.append((state, cost))
    return dict(kept)


def _saves(turns: Sequence[Turn], number: int, place: int, read: int) -> int:
    """Return the most that a later turn saves by what a model has read."""
    since_s = turns[read - 1].at_s
    later = [turn for turn in turns[number:] if turn.at_s <= since_s + CACHE_S]
    return max(
        (
            turn.pico(place) - turn.pico(place, _cached(turns, read, turn, place))
            for turn in later
            if place in turn.completions
        ),
        default=0,
    )


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
        guesses = [_guess(world, ask, model, read) for model in there]
        _, cached, model = min(guesses, key=lambda each: each[0])
        prompt = world.prompt_tokens(ask, model)
        total += model.pico(prompt, cached, world.completion_tokens(ask, model))
        read[ask.talk, model.name] = ask.at_s, prompt
    return total


def _guess(
    world: World, ask: Ask, model: Model, read: Mapping[tuple[int, str], tuple[float, int]]
) -> tuple[int, int, Model]:
    """Return what a model is expected to bill, and what of it is cached."""
    at_s, tokens = read.get((ask.talk, model.name), (-math.inf, 0))
    cached = cached_tokens(model, tokens, ask.at_s - at_s)
    usual = math.ceil(world.expected_completion(ask, model))
    return model.pico(world.prompt_tokens(ask, model), cached, usual), cached, model
