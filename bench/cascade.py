"""Claim: a cascade by calibrated confidence is as right as the large model alone, for less money.

    python models/training/tiers.py FOLDER        (needs torch; some 45 minutes on one core)
    python bench/cascade.py FOLDER [--questions N]

Three models made in this repository are the tiers; the questions have exact answers and were never
trained on. Prices are in proportion to parameters: a dollar per million tokens for each thousand.
Every figure is of replies that ``Dispatcher`` gave:

    all small, middle, large   one model answers everything
    random                     a mix of these, drawn by lot: straight lines between them
    oracle                     the cheapest that is right, and the small one where none is
    confidence                 Cascade(), calibrated on 500 other questions
    as told                    the same without calibration: the geometric mean of probabilities
    samples                    Cascade("samples", samples=5)

The 500 also choose the threshold that is reported; intervals are of 2,000 resamples of the
questions, at 95 %. A cascade at temperature 0 gives the replies that its tiers give alone, so its
curve over thresholds is drawn from those; at some thresholds it is run, and compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from chart import Axis, Line, Panel, svg
from harness import RESULTS, machine, save, show_table
from numpy.typing import NDArray

from llmdispatcher import Cascade, Dispatcher, LlamaCpp, Price, Reply, RetryPolicy
from llmdispatcher.models.confidence import AS_TOLD, TOP, Calibration, Signals, fit

TIERS = ("small", "middle", "large")
CALIBRATING = 500
RESAMPLES = 2000
MAX_TOKENS = 24
"""The longest answer has 9."""
RUN_AT = (0.6, 0.8, 0.9)
"""Thresholds at which the cascade by confidence is run."""
SAMPLES = 5
AGREE = (0.6, 0.8, 1.0)
GRID = np.append(np.linspace(0.0, 0.98, 50), [0.985, 0.99, 0.995, 0.999, 1.01])
"""Thresholds of the curves; above 1 nobody is sure enough."""
POINTS = (0.0, 0.01, 0.02)
"""Of accuracy below that of the large model alone."""

Vector = NDArray[np.float64]


@attrs.frozen(eq=False)
class Told:
    """What a tier, or a cascade, made of every question."""

    right: Vector
    cost: Vector
    """Micro-dollars."""
    signals: tuple[Signals | None, ...] = ()

    def part(self, chosen: slice) -> Told:
        """Return some of the questions."""
        return Told(self.right[chosen], self.cost[chosen], self.signals[chosen])


class Asking:
    """The questions, their answers and the models."""

    def __init__(self, folder: Path, count: int | None) -> None:
        rows = [json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")]
        self.rows = rows[:count]
        self.questions = [row["question"] for row in self.rows]
        self.answers = [row["answer"] for row in self.rows]
        self.made = json.loads((folder / "tiers.json").read_text(encoding="utf-8"))
        self.vendors = {tier["name"]: _vendor(folder, tier) for tier in self.made["tiers"]}

    def ask(self, names: Sequence[str], start: int = 0, **options: Any) -> Told:  # noqa: ANN401
        """Ask the questions from ``start`` on, and compare with the answers."""
        vendors = [self.vendors[name] for name in names]
        began = time.perf_counter()
        with Dispatcher(*vendors, retry=RetryPolicy(attempts=64)) as d:
            replies = d.send_many(
                self.questions[start:], max_tokens=MAX_TOKENS, temperature=0, **options
            )
        for each in replies:
            if not isinstance(each, Reply):
                raise each
        made = [each for each in replies if isinstance(each, Reply)]
        right = [
            float(reply.text.strip() == answer)
            for reply, answer in zip(made, self.answers[start:], strict=True)
        ]
        told = Told(
            np.array(right),
            np.array([float(reply.cost_microusd or 0) for reply in made]),
            tuple(Signals.of(r.logprobs) if r.logprobs else None for r in made),
        )
        print(
            f"{', '.join(names)}: {told.right.mean():.1%} right,"
            f" {told.cost.mean():.0f} micro-dollars a question,"
            f" {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        return told


def _vendor(folder: Path, tier: Mapping[str, Any]) -> LlamaCpp:
    usd = round(tier["parameters"] / 1000, 3)
    return LlamaCpp(
        folder / f"{tier['name']}.gguf",
        name=tier["name"],
        price=Price.per_million(usd, usd, version="in proportion to parameters"),
        max_threads=1,
    )


def chances(told: Told, calibration: Calibration) -> Vector:
    """Return how sure a tier was of each of its answers."""
    return np.array([calibration.chance(each) if each else 0.0 for each in told.signals])


def climbed(tiers: Sequence[Told], sure: Sequence[Vector], threshold: float) -> Told:
    """Return what a cascade of tiers makes of every question at a threshold."""
    right, cost = tiers[-1].right.copy(), sum(tier.cost for tier in tiers)
    cost = np.array(cost)
    for at in reversed(range(len(tiers) - 1)):
        is_good = sure[at] >= threshold
        right = np.where(is_good, tiers[at].right, right)
        cost = np.where(is_good, sum(tier.cost for tier in tiers[: at + 1]), cost)
    return Told(right, cost)


def oracle(tiers: Sequence[Told]) -> Told:
    """Return what asking the cheapest that is right makes of every question."""
    right, cost = np.zeros(len(tiers[0].right)), tiers[0].cost.copy()
    for tier in reversed(tiers):
        right = np.maximum(right, tier.right)
        cost = np.where(tier.right > 0, tier.cost, cost)
    return Told(right, cost)


def cost_at(accuracy: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the least cost of a mix by lot of these (cost, accuracy) that is so right."""
    best = np.inf
    for one_cost, one in points:
        if one >= accuracy:
            best = min(best, one_cost)
        for other_cost, other in points:
            if one < accuracy < other:
                share = (accuracy - one) / (other - one)
                best = min(best, one_cost + share * (other_cost - one_cost))
    return float(best)


def interval(values: Iterable[float]) -> list[float]:
    """Return the middle 95 % of resampled values."""
    finite = [value for value in values if np.isfinite(value)]
    return [round(float(x), 4) for x in np.quantile(finite, (0.025, 0.975))] if finite else []


def estimate(value: float, resampled: Iterable[float]) -> dict[str, Any]:
    """Return a figure with its interval."""
    return {"value": round(float(value), 4), "interval": interval(resampled)}


class Comparison:
    """All ways to answer, on the same questions and on the same resamples of them."""

    def __init__(self, ways: Mapping[str, Sequence[Told]], large: Told) -> None:
        """Each way is a curve of one or more points."""
        random, count = np.random.default_rng(0), len(large.right)
        self.ways = ways
        self._draws = [np.arange(count)]
        self._draws += [random.integers(0, count, count) for _ in range(RESAMPLES)]
        self._right = {name: self._means([t.right for t in way]) for name, way in ways.items()}
        self._cost = {name: self._means([t.cost for t in way]) for name, way in ways.items()}
        self._large = self._means([large.right])[:, 0], self._means([large.cost])[:, 0]

    def _means(self, rows: Sequence[Vector]) -> Vector:
        table = np.stack(rows, axis=1)
        return np.stack([table[draw].mean(axis=0) for draw in self._draws])

    def point(self, name: str, at: int = 0) -> dict[str, Any]:
        """Return accuracy, cost as a part of the large model's, and the difference in accuracy."""
        right, cost = self._right[name][:, at], self._cost[name][:, at] / self._large[1]
        less = right - self._large[0]
        return {
            "accuracy": estimate(right[0], right[1:]),
            "cost_share": estimate(cost[0], cost[1:]),
            "accuracy_less_large": estimate(less[0], less[1:]),
        }

    def equal(self, name: str, less: float, *, mixes: bool) -> dict[str, Any]:
        """Return the least part of the large model's cost at its accuracy less some points."""
        found = []
        for draw in range(len(self._draws)):
            target = self._large[0][draw] - less
            points = list(zip(self._cost[name][draw], self._right[name][draw], strict=True))
            if mixes:
                cost = cost_at(target, points)
            else:
                cost = min((c for c, r in points if r >= target), default=np.inf)
            found.append(cost / self._large[1][draw])
        told = estimate(found[0], found[1:])
        told["reached_in"] = round(float(np.isfinite(found[1:]).mean()), 3)
        return told

    def curve(self, name: str) -> list[list[float]]:
        """Return cost share and accuracy of every point, with the interval of the accuracy."""
        rows = []
        for at in range(self._right[name].shape[1]):
            right, cost = self._right[name][:, at], self._cost[name][:, at] / self._large[1]
            low, high = interval(right[1:].tolist())
            rows.append([round(float(cost[0]), 4), round(float(right[0]), 4), low, high])
        return rows


def chosen(tiers: Sequence[Told], sure: Sequence[Vector], less: float) -> float:
    """Return the threshold that costs least, of those right enough on these questions."""
    target = tiers[-1].right.mean() - less
    made = [(climbed(tiers, sure, threshold), threshold) for threshold in GRID]
    good = [(told.cost.mean(), at) for told, at in made if told.right.mean() >= target]
    return float(min(good)[1]) if good else float(GRID[-1])


def draw(curves: Mapping[str, Any], path: Path) -> None:
    """Write the curves as a picture."""
    looks = {
        "confidence": ("#0b6", ""),
        "as told": ("#06c", "6 4"),
        "samples": ("#c60", ""),
        "random mix": ("#888", "2 4"),
    }
    lines = [
        Line(
            name=name,
            colour=colour,
            dashes=dashes,
            points=[(100 * cost, 100 * right) for cost, right, _, _ in curves[name]],
            band=[(100 * c, 100 * low, 100 * high) for c, _, low, high in curves[name]]
            if name == "confidence"
            else (),
        )
        for name, (colour, dashes) in looks.items()
    ]
    best = curves["oracle"][0]
    at = 100 * best[0], 100 * best[1]
    lines.append(Line(name="oracle", colour="#222", width=6, points=[at, (at[0] + 1, at[1])]))
    panel = Panel(
        title="Three tiers, questions with exact answers",
        across=Axis(title="cost, % of the large model alone", ticks=range(0, 161, 20)),
        up=Axis(title="right answers, %", ticks=range(0, 101, 10)),
        lines=lines,
    )
    note = "Band: 95 % interval of the questions. Prices in proportion to parameters."
    path.write_text(svg("What a cascade pays and gets", note, [panel]), encoding="utf-8")


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
    split = min(CALIBRATING, len(asking.rows) // 4)
    alone = {name: asking.ask([name], logprobs=TOP) for name in TIERS}
    learnt = [told.part(slice(0, split)) for told in alone.values()]
    tested = [told.part(slice(split, None)) for told in alone.values()]
    fitted = {
        name: fit(
            [(s, bool(r)) for s, r in zip(told.signals, told.right, strict=True) if s],
            origin=f"{split} puzzles, tier {name}",
        )
        for name, told in zip(TIERS[:-1], learnt, strict=False)
    }
    sure = {
        "confidence": [chances(t, c) for t, c in zip(tested, fitted.values(), strict=False)],
        "as told": [chances(told, AS_TOLD) for told in tested[:-1]],
    }
    ways: dict[str, list[Told]] = {f"all {n}": [t] for n, t in zip(TIERS, tested, strict=True)}
    ways["random mix"] = tested
    ways["oracle"] = [oracle(tested)]
    for name, vectors in sure.items():
        ways[name] = [climbed(tested, vectors, threshold) for threshold in GRID]
    run = _run(asking, fitted, split)
    ways["samples"] = [run[f"samples at {least}"] for least in AGREE]
    seen = [chances(t, c) for t, c in zip(learnt, fitted.values(), strict=False)]
    thresholds = {f"{less:.0%}": chosen(learnt, seen, less) for less in POINTS}
    for less, threshold in thresholds.items():
        ways[f"chosen, -{less}"] = [climbed(tested, sure["confidence"], threshold)]
    _report(asking, ways, (fitted, thresholds, run, sure), split)


def _run(asking: Asking, fitted: Mapping[str, Calibration], split: int) -> dict[str, Told]:
    """Run the cascades themselves on the questions that were not calibrated on."""
    run = {}
    for threshold in RUN_AT:
        plan = Cascade(threshold=threshold, calibration=fitted)
        run[f"confidence at {threshold}"] = asking.ask(TIERS, split, strategy=plan)
    for least in AGREE:
        plan = Cascade("samples", samples=SAMPLES, threshold=least)
        run[f"samples at {least}"] = asking.ask(TIERS, split, strategy=plan)
    return run


def _report(
    asking: Asking, ways: Mapping[str, Sequence[Told]], made: tuple[Any, ...], split: int
) -> None:
    fitted, thresholds, run, sure = made
    large = ways["all large"][0]
    comparison = Comparison(ways, large)
    tested = [ways[f"all {name}"][0] for name in TIERS]
    agreeing = {
        name: _agreeing(run[f"confidence at {name}"], climbed(tested, sure["confidence"], name))
        for name in RUN_AT
    }
    points = {name: comparison.point(name) for name, way in ways.items() if len(way) == 1}
    points |= {f"samples at {x}": comparison.point("samples", at) for at, x in enumerate(AGREE)}
    equal = {
        name: {
            f"-{less:.0%}": comparison.equal(name, less, mixes=name == "random mix")
            for less in POINTS
        }
        for name in ("confidence", "as told", "samples", "random mix", "oracle")
    }
    curves = {name: comparison.curve(name) for name in ways if name not in points}
    curves["oracle"] = comparison.curve("oracle")
    curves["random mix"].sort()
    calibration = {
        name: {
            **attrs.asdict(each),
            "brier": _brier(tested[at], sure["confidence"][at]),
            "brier_as_told": _brier(tested[at], sure["as told"][at]),
        }
        for at, (name, each) in enumerate(fitted.items())
    }
    show_table(
        f"{len(large.right)} questions",
        ["", "right", "cost, of large", "right less large"],
        [
            [name, *(_told(row[key]) for key in ("accuracy", "cost_share", "accuracy_less_large"))]
            for name, row in points.items()
        ],
    )
    show_table(
        "Least cost at the accuracy of the large model, as a part of its cost",
        ["", *(f"less {100 * less:g} points" for less in POINTS)],
        [[name, *map(_told, row.values())] for name, row in equal.items()],
    )
    save(
        "cascade",
        {
            "machine": machine("llmdispatcher", "llama-cpp-python", "numpy"),
            "tiers": asking.made,
            "questions": {"calibrating": split, "tested": len(large.right)},
            "calibration": calibration,
            "thresholds_chosen": thresholds,
            "points": points,
            "cost_at_equal_accuracy": equal,
            "run_equals_replay": agreeing,
            "curves": curves,
        },
    )
    draw(curves, RESULTS / "cascade.svg")


def _agreeing(run: Told, drawn: Told) -> dict[str, float]:
    """Return how many questions a cascade answered as right, at the same cost, as was replayed."""
    same = (run.right == drawn.right) & (run.cost == drawn.cost)
    return {
        "questions": len(same),
        "same": int(same.sum()),
        "accuracy_run": float(run.right.mean()),
        "accuracy_replayed": float(drawn.right.mean()),
    }


def _brier(told: Told, sure: Vector) -> float:
    return round(float(((sure - told.right) ** 2).mean()), 4)


def _told(figure: Mapping[str, Any]) -> str:
    if not np.isfinite(figure["value"]):
        return "never"
    ends = figure["interval"]
    return f"{figure['value']:.1%} [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else "never"


if __name__ == "__main__":
    main()
