"""What it takes to choose: processor time of a ranking, over many models that have a history."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from choice_replay import Call, Engine, Run, Scene, Vendor
from choice_world import MODELS, Model, Usage, World

from llmdispatcher import Dispatcher, Request
from llmdispatcher.release import Stopper

ROUNDS, CALLS = 15, 100
HISTORY = 5
"""Requests that each model has served before."""
A_VENDOR = 20
"""Models of one vendor."""
TEXT = "Name three uses of a paperclip."
"""Short, so that its tokens are counted in no time."""


class Stocked(Vendor):
    """A vendor that serves whatever it is asked for."""

    def start(self, report: Callable[..., None]) -> StockedEngine:
        """Make the engine."""
        del report
        return StockedEngine(self)


class StockedEngine(Engine):
    """See ``Stocked``."""

    def submit(self, work: Request, model: str) -> Call:
        """Serve, with a reply whose length is the model's own."""
        del work
        scene, found = self._vendor.scene, self._models[model]
        bill = Usage(100, 0, int(100 * found.verbosity))
        return Call(scene.clock.now_s, scene.world.asks[0], found, (None, bill))


def measure(models: int) -> dict[str, float]:
    """Return microseconds of processor time to rank so many candidates, and to tell every row.

    What ``send`` does before anybody is asked: from the request to whom to ask first.
    """
    scene = Scene(World(0, requests=1))
    vendors: Any = _vendors(scene, models)  # as in a replay
    with Dispatcher(*vendors) as d:
        desk = d._desk  # noqa: SLF001 - what ``send`` does, and no more
        desk._clock = desk.chooser._clock = lambda: scene.clock.now_s  # noqa: SLF001 - as above
        for vendor in d.vendors():
            for card in vendor.cards * HISTORY:
                asked = Request(messages=TEXT, vendor=card.vendor, model=card.model)
                Run(scene.clock, desk.flow(asked, {}, Stopper(), streaming=False), _served).go()
                scene.clock.run()
        asked = Request(messages=TEXT)
        engines = desk._all()  # noqa: SLF001 - as above

        def rank(*, rows: bool = False) -> object:
            ranking = desk.chooser.ranking(asked, engines, {}, scene.clock.now_s)
            return ranking.candidates if rows else ranking.targets

        told = d.explain(asked).candidates
        if len(told) != models:
            raise SystemExit(f"{len(told)} of {models} models are candidates")
        return {"rank_us": _us(rank), "with_rows_us": _us(lambda: rank(rows=True))}


def _served(result: object) -> None:
    if isinstance(result, Exception):
        raise result


def _us(what: Callable[[], object]) -> float:
    """Return the median over rounds of the processor time of a call."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.thread_time()
        for _ in range(CALLS):
            what()
        rounds.append((time.thread_time() - began_s) / CALLS * 1e6)
    return statistics.median(rounds)


def _vendors(scene: Scene, models: int) -> list[Stocked]:
    """Return vendors of twenty models, none of which costs or writes what another does."""
    paid = [model for model in MODELS if model.vendor != "local"]
    rows = [_like(paid[number % len(paid)], number) for number in range(models)]
    names = dict.fromkeys(row.vendor for row in rows)
    return [
        Stocked(name, tuple(row for row in rows if row.vendor == name), scene) for name in names
    ]


def _like(model: Model, number: int) -> Model:
    dearer = dataclasses.replace(model.rates, output=model.rates.output + number)
    return dataclasses.replace(
        model,
        vendor=f"vendor{number // A_VENDOR}",
        model=f"model{number}",
        rates=dearer,
        verbosity=1 + number / 100,
    )
