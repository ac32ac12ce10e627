"""Claim: a cascade by calibrated confidence is as right as the largest model alone, for less money.

    python models/training/tiers.py FOLDER        (needs torch; some 15 minutes of one core)
    python bench/cascade.py FOLDER [--questions N]

Models made in this repository are the tiers; the questions have exact answers and were never
trained on. Prices are in proportion to parameters: a dollar per million tokens for each thousand.
Every figure is of replies that ``Dispatcher`` gave:

    all small, all large       one model answers everything; "largest" is the last of them
    random mix                 these by lot: straight lines between them
    oracle                     the cheapest that is right, and the smallest where none is
    confidence                 Cascade(), calibrated on 500 other questions
    as told                    the same without calibration: the geometric mean of probabilities
    as shipped                 Cascade() as it comes: calibrated on both tiers' answers to the 500
    samples                    Cascade("samples", samples=5)

The 500 also choose the thresholds that are reported; intervals are of 2,000 resamples of the
questions, at 95 %. A cascade at temperature 0 gives the replies that its tiers give alone, so its
curve over thresholds is drawn from those; at some thresholds it is run, and compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from answering import Comparison, Told, Vector, chances, climbed, oracle
from chart import Axis, Line, Panel, svg
from harness import RESULTS, machine, save, show_table

from llmdispatcher import Cascade, Dispatcher, LlamaCpp, Price, Reply, RetryPolicy
from llmdispatcher.models.confidence import (
    AS_TOLD,
    CALIBRATIONS,
    TOP,
    Calibration,
    Signals,
    fit,
)
from llmdispatcher.models.stages import THRESHOLDS

CALIBRATING = 500
MAX_TOKENS = 24
"""The longest answer has 9."""
RUN_AT = (0.8,)
"""Thresholds at which the cascade by confidence is run."""
SAMPLES = 5
AGREE = (0.6, 0.8, 1.0)
GRID = np.append(np.linspace(0.0, 0.98, 50), [0.985, 0.99, 0.995, 0.999, 1.01])
"""Thresholds of the curves; above 1 nobody is sure enough."""
POINTS = (0.0, 0.01, 0.02)
"""Of accuracy below that of the largest model alone."""
LOOKS = {
    "confidence": ("#0b6", ""),
    "as told": ("#06c", "6 4"),
    "samples": ("#c60", ""),
    "random mix": ("#888", "2 4"),
}


class Asking:
    """The questions, their answers and the models."""

    def __init__(self, folder: Path, count: int | None) -> None:
        rows = [json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")]
        self.rows = rows[:count]
        self.split = min(CALIBRATING, len(self.rows) // 4)
        """So many are calibrated on; the others are what is measured with."""
        self.made = json.loads((folder / "tiers.json").read_text(encoding="utf-8"))
        self._vendors = {tier["name"]: _vendor(folder, tier) for tier in self.made["tiers"]}
        self.names = tuple(self._vendors)

    def ask(self, names: Sequence[str], start: int = 0, **options: Any) -> Told:  # noqa: ANN401
        """Ask the questions from ``start`` on, and compare with the answers."""
        vendors = [self._vendors[name] for name in names]
        rows, began = self.rows[start:], time.perf_counter()
        with Dispatcher(*vendors, retry=RetryPolicy(attempts=64)) as d:
            replies = d.send_many(
                [row["question"] for row in rows], max_tokens=MAX_TOKENS, temperature=0, **options
            )
        made = []
        for reply in replies:
            if not isinstance(reply, Reply):
                raise reply
            made.append(reply)
        told = Told(
            np.array(
                [float(r.text.strip() == q["answer"]) for r, q in zip(made, rows, strict=True)]
            ),
            np.array([float(reply.cost_microusd or 0) for reply in made]),
            tuple(Signals.of(reply.logprobs) if reply.logprobs else None for reply in made),
        )
        print(
            f"{' '.join(names)}: {told.right.mean():.1%} right,"
            f" {told.cost.mean():.0f} micro-dollars a question,"
            f" {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        return told

    def by_kind(self, right: Vector) -> dict[str, float]:
        """Return the part of the measured questions of each kind that was answered right."""
        kinds = [row["kind"] for row in self.rows[self.split :]]
        pairs = sorted(zip(kinds, right.tolist(), strict=True))
        grouped = {kind: [r for _, r in rows] for kind, rows in groupby(pairs, lambda p: p[0])}
        return {kind: round(sum(rights) / len(rights), 3) for kind, rights in grouped.items()}


def _vendor(folder: Path, tier: Mapping[str, Any]) -> LlamaCpp:
    usd = round(tier["parameters"] / 1000, 3)
    return LlamaCpp(
        folder / f"{tier['name']}.gguf",
        name=tier["name"],
        price=Price.per_million(usd, usd, version="in proportion to parameters"),
        max_threads=1,
    )


@attrs.frozen(eq=False)
class Measured:
    """What every way made of the questions."""

    ways: Mapping[str, Sequence[Told]]
    """A way has one point, or a curve of them."""
    calibrations: Mapping[str, Calibration]
    thresholds: Mapping[str, float]
    """Chosen on the questions that were calibrated on."""
    agreeing: Mapping[str, Any]
    """Whether cascades that were run did what was drawn from their tiers."""
    brier: Mapping[str, Any]
    kinds: Mapping[str, Any]


def measure(asking: Asking) -> Measured:
    """Ask every tier and run every cascade."""
    names, split = asking.names, asking.split
    alone = {name: asking.ask([name], logprobs=TOP) for name in names}
    learnt = [told.part(slice(0, split)) for told in alone.values()]
    tested = [told.part(slice(split, None)) for told in alone.values()]
    fitted = {
        name: fit(_pairs(told), origin=f"{split} puzzles, tier {name}")
        for name, told in zip(names[:-1], learnt, strict=False)
    }
    seen = [chances(told, fitted[name]) for told, name in zip(learnt, fitted, strict=False)]
    sure = [chances(told, fitted[name]) for told, name in zip(tested, fitted, strict=False)]
    plain = [chances(told, AS_TOLD) for told in tested[:-1]]
    shipped = [chances(told, CALIBRATIONS["local"]) for told in tested[:-1]]
    ways: dict[str, Sequence[Told]] = {
        f"all {name}": [told] for name, told in zip(names, tested, strict=True)
    }
    ways["random mix"] = tested
    ways["oracle"] = [oracle(tested)]
    ways["confidence"] = [climbed(tested, sure, threshold) for threshold in GRID]
    ways["as told"] = [climbed(tested, plain, threshold) for threshold in GRID]
    thresholds = {f"-{less:.0%}": chosen(learnt, seen, less) for less in POINTS}
    for less, threshold in thresholds.items():
        ways[f"confidence, chosen for {less}"] = [climbed(tested, sure, threshold)]
    ways["as shipped"] = [climbed(tested, shipped, THRESHOLDS["confidence"])]
    fitted["all tiers"] = fit([pair for told in learnt for pair in _pairs(told)])
    agreeing = {}
    for at in RUN_AT:
        plan = Cascade(threshold=at, calibration=fitted)
        ways[f"confidence, run at {at}"] = [asking.ask(names, split, strategy=plan)]
        agreeing[f"{at}"] = same(ways[f"confidence, run at {at}"][0], climbed(tested, sure, at))
    ways["samples"] = [
        asking.ask(names, split, strategy=Cascade("samples", least, SAMPLES)) for least in AGREE
    ]
    brier = {
        name: {
            "calibrated": _brier(tested[at], sure[at]),
            "as shipped": _brier(tested[at], shipped[at]),
            "as told": _brier(tested[at], plain[at]),
        }
        for at, name in enumerate(names[:-1])
    }
    kinds = {name: asking.by_kind(told.right) for name, told in zip(names, tested, strict=True)}
    return Measured(ways, fitted, thresholds, agreeing, brier, kinds)


def _pairs(told: Told) -> list[tuple[Signals, bool]]:
    return [(s, bool(r)) for s, r in zip(told.signals, told.right, strict=True) if s is not None]


def chosen(tiers: Sequence[Told], sure: Sequence[Vector], less: float) -> float:
    """Return the threshold that costs least, of those right enough on these questions."""
    target = tiers[-1].right.mean() - less
    made = [(climbed(tiers, sure, threshold), threshold) for threshold in GRID]
    good = [(told.cost.mean(), at) for told, at in made if told.right.mean() >= target]
    return float(min(good)[1]) if good else float(GRID[-1])


def same(run: Told, drawn: Told) -> dict[str, float]:
    """Return how many questions a cascade answered as right, at the same cost, as was drawn."""
    equal = (run.right == drawn.right) & (run.cost == drawn.cost)
    return {"questions": len(equal), "same": int(equal.sum())}


def _brier(told: Told, sure: Vector) -> float:
    return round(float(((sure - told.right) ** 2).mean()), 4)


def report(asking: Asking, measured: Measured) -> None:
    """Compare, show and write."""
    ways, largest = measured.ways, measured.ways[f"all {asking.names[-1]}"][0]
    comparison = Comparison(ways, largest)
    points = {name: comparison.point(name) for name, way in ways.items() if len(way) == 1}
    for at, least in enumerate(AGREE):
        points[f"samples, {least:.0%} agree"] = comparison.point("samples", at)
    equal = {
        name: {
            f"-{less:.0%}": comparison.equal(name, less, mixes=name == "random mix")
            for less in POINTS
        }
        for name in ("confidence", "as told", "samples", "random mix", "oracle")
    }
    curves = {name: comparison.curve(name) for name in (*LOOKS, "oracle")}
    curves["random mix"].sort()
    show_table(
        f"{len(largest.right)} questions",
        ["", "right", "cost, of largest", "right less largest"],
        [[name, *map(_told, row.values())] for name, row in points.items()],
    )
    show_table(
        "Least cost at the accuracy of the largest, as a part of its cost",
        ["", *(f"less {100 * less:g} points" for less in POINTS)],
        [[name, *map(_told, row.values())] for name, row in equal.items()],
    )
    told = {
        "machine": machine("llmdispatcher", "llama-cpp-python", "numpy"),
        "tiers": asking.made,
        "questions": {"calibrating": asking.split, "measured": len(largest.right)},
        "right_by_kind": measured.kinds,
        "calibrations": {name: attrs.asdict(c) for name, c in measured.calibrations.items()},
        "brier": measured.brier,
        "thresholds_chosen": measured.thresholds,
        "points": points,
        "cost_at_equal_accuracy": equal,
        "run_as_drawn": measured.agreeing,
        "curves": {"columns": ["cost share", "right", "low", "high"], **curves},
    }
    save("cascade", told)
    (RESULTS / "cascade.svg").write_text(picture(curves), encoding="utf-8")


def picture(curves: Mapping[str, Any]) -> str:
    """Draw the curves."""
    lines = []
    for name, (colour, dashes) in LOOKS.items():
        rows = [[100 * value for value in row] for row in curves[name]]
        band = [(cost, low, high) for cost, _, low, high in rows] if name == "confidence" else ()
        points = [(cost, right) for cost, right, _, _ in rows]
        lines.append(Line(name=name, colour=colour, dashes=dashes, points=points, band=band))
    cost, right = (100 * value for value in curves["oracle"][0][:2])
    spot = [(cost - 0.4, right), (cost + 0.4, right)]
    lines.append(Line(name="oracle", colour="#222", width=8, points=spot))
    lowest = min(right for rows in curves.values() for _, right, _, _ in rows)
    floor = int(100 * lowest // 10) * 10
    panel = Panel(
        title="Questions with exact answers, tiers of one family",
        across=Axis(title="cost, % of the largest model alone", ticks=range(0, 141, 20)),
        up=Axis(title="right answers, %", ticks=range(floor, 101, 5)),
        lines=lines,
    )
    note = "Band: 95 % interval over questions. Prices in proportion to parameters."
    return svg("What a cascade pays and gets", note, [panel])


def _told(figure: Mapping[str, Any]) -> str:
    ends: Iterable[float] = figure["interval"]
    if figure["value"] is None or not ends:
        return "never"
    low, high = ends
    return f"{figure['value']:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    """Measure, compare, show and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what models/training/tiers.py made")
    parser.add_argument("--questions", type=int, help="fewer of them, to try it out")
    options = parser.parse_args()
    if not (options.folder / "tiers.json").exists():
        raise SystemExit(
            f"{options.folder} has no tiers; make them with:"
            f" python models/training/tiers.py {options.folder}"
        )
    asking = Asking(options.folder, options.questions)
    report(asking, measure(asking))


if __name__ == "__main__":
    main()
