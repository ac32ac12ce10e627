"""Claim: what can be counted in a weak model's answer tells when a better one should be asked.

    python bench/difficulty.py CSV [--resamples 2000]

CSV is ``routellm/evals/gsm8k/gsm8k_responses.csv`` of lm-sys/RouteLLM (Apache-2.0): grade-school
sums, whether Mixtral 8x7B (weak) and GPT-4 Turbo (strong) were right, and their answers. Nothing is
asked of any model: each router says which of the questions the strong one would have got.

    random         by chance
    length         the longest prompts
    question       ``difficulty``: before anybody has answered
    answer length  the longest answers of the weak model
    answer         ``doubt``: after the weak model has answered, whose answer is paid for as well
    oracle         knows who was right

Ours are scored by weights that never saw the question: ten folds, dealt anew by each of five seeds,
with the penalty and the calibration chosen inside the other nine. APGR and CPT are RouteLLM's: the
mean part of the gap that is recovered, and the least share of calls to the strong model that
recovers half of it, or four fifths. Intervals (95 %) are of resampled questions, the same for all
routers, so that differences have their own; they leave out the luck of training. In money, 0 is
always asking the weak model and 1 always the strong one.

What to count was chosen on two thirds of the questions. ``sealed`` has the figures of the last
third by weights of the other two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from chart import Axis, Level, Line, Panel, svg
from curves import (
    BINS,
    Curve,
    Estimate,
    Vector,
    apgr,
    by_quantiles,
    cpt,
    estimate,
    miscalibration,
    resamples,
    separation,
    whole,
)
from harness import RESULTS, machine, save, show_table
from numpy.typing import NDArray
from replay import (
    AFTER,
    FOLDS,
    SEEDS,
    Scores,
    Truth,
    blinded,
    held_out,
    of_strong,
    regraded,
    scored,
    sealed,
    sealed_scores,
)

sys.path.append(str(Path(__file__).parent.parent / "models" / "training"))  # where ours is trained

from logistic import chance
from trials import Trials, answers, read

RATIOS = {"1:20": 1 / 20, "1:3": 1 / 3}
"""What a call of the weak model costs beside one of the strong model."""

DRAWN_RATIO = "1:3"

GRID = np.linspace(0, 1, 101)
"""Shares at which curves are written and drawn."""

Sample = NDArray[np.int64]
Figure = Callable[[Curve], float]

FIGURES: Mapping[str, Figure] = {
    "apgr": apgr,
    "cpt50": lambda curve: cpt(curve, 0.5),
    "cpt80": lambda curve: cpt(curve, 0.8),
}

LOOKS = {
    "random": ("Random", "#888888", "6 4"),
    "length": ("Prompt length", "#D55E00", ""),
    "question": ("difficulty(): before an answer", "#0072B2", ""),
    "answer": ("doubt(): on the weak model's answer", "#009E73", ""),
    "oracle": ("Oracle: knows who was right", "#222222", "2 3"),
}
BLINDED = ("fraction", "broken_sums", "unused")
"""What an answer is judged by most."""

BANDED = frozenset({"length", "question", "answer"})


@attrs.frozen(eq=False)
class Replay:
    """Routers, the truth that they are judged by, and the samples of questions for intervals."""

    scores: Scores
    truth: Truth
    samples: Sequence[Sample]
    _made: dict[str, list[list[Curve]]] = attrs.field(factory=dict, init=False)

    def figure(self, router: str, figure: Figure, stretch: float = 1.0) -> Estimate:
        """Return a figure of a router: the mean of its seeds, with the interval."""
        return estimate([_mean(figure, curves, stretch) for curves in self._curves(router)])

    def difference(self, router: str, other: str, figure: Figure) -> Estimate:
        """Return by how much a figure is higher than that of another router."""
        pairs = zip(self._curves(router), self._curves(other), strict=True)
        return estimate([_mean(figure, a) - _mean(figure, b) for a, b in pairs])

    def value(self, router: str, figure: Figure, stretch: float = 1.0) -> float:
        """Return a figure without an interval."""
        return _mean(figure, self._curves(router)[0], stretch)

    def _curves(self, router: str) -> list[list[Curve]]:
        """Return for each sample a router's curves, one for each seed."""
        if router not in self._made:
            weak, strong = self.truth.weak, self.truth.strong
            self._made[router] = [
                [
                    by_quantiles(score[each], weak[each], strong[each])
                    for score in self.scores[router]
                ]
                for each in self.samples
            ]
        return self._made[router]

    def drawn(self, router: str) -> dict[str, Vector]:
        """Return the whole curve in right answers (%) at the shares of GRID, with its band."""
        rows = [self._quality(router, sample) for sample in self.samples]
        low, high = np.percentile(rows[1:], [2.5, 97.5], axis=0)
        return {"right": rows[0], "low": low, "high": high}

    def _quality(self, router: str, sample: Sample) -> Vector:
        weak, strong = self.truth.weak[sample], self.truth.strong[sample]
        curves = [whole(score[sample], weak, strong).at(GRID) for score in self.scores[router]]
        found: Vector = 100 * (weak.mean() + np.mean(curves, axis=0) * (strong - weak).mean())
        return found


def _mean(figure: Figure, curves: Sequence[Curve], stretch: float = 1.0) -> float:
    return float(np.mean([figure(curve.stretched(stretch)) for curve in curves]))


def table(replay: Replay) -> dict[str, dict[str, Any]]:
    """Return the figures of each router, on both axes, and beside the prompt's length."""
    found: dict[str, dict[str, Any]] = {}
    for router in replay.scores:
        row: dict[str, Any] = {
            name: replay.figure(router, each).told() for name, each in FIGURES.items()
        }
        row["money"] = {
            ratio: {
                name: replay.figure(router, each, _stretch(router, price)).told()
                for name, each in FIGURES.items()
            }
            for ratio, price in RATIOS.items()
        }
        row["apgr_above_length"] = replay.difference(router, "length", apgr).told()
        found[router] = row
    return found


def _stretch(router: str, price: float) -> float:
    """Return how many times its share of calls a router costs, of the way from weak to strong.

    One that decides before the weak model is asked pays one of both, and goes exactly the way; one
    that looks at the answer pays the weak model besides for each call to the strong one.
    """
    return 1 / (1 - price) if router in AFTER else 1.0


def break_even(replay: Replay) -> float:
    """Return up to which price of a weak call (of a strong one: 1) waiting for its answer pays.

    Beyond, deciding by the question recovers more for the same money, on average over all budgets.
    """
    prices = np.arange(0.01, 1.0, 0.01)
    before = replay.value("question", apgr)
    paid = {
        float(price): replay.value("answer", apgr, _stretch("answer", price)) for price in prices
    }
    return round(max(price for price, after in paid.items() if after > before), 2)


def without(trials: Trials, replay: Replay) -> dict[str, Any]:
    """Return what is left of the APGR where the answer is judged without one of its marks."""
    task = answers(trials)
    scores = {name: [-held_out(blinded(task, name), SEEDS[0])] for name in BLINDED}
    left = attrs.evolve(replay, scores=scores)
    return {name: left.figure(name, apgr).told() for name in BLINDED}


def small(replay: Replay) -> dict[str, Any]:
    """Return the figures by calls alone."""
    return {
        router: {
            **{name: replay.figure(router, each).told() for name, each in FIGURES.items()},
            "apgr_above_length": replay.difference(router, "length", apgr).told(),
        }
        for router in ("length", "question", "answer")
    }


def chances(replay: Replay, trials: Trials) -> dict[str, Any]:
    """Return how far the chances are true, and whether they tell right answers of a stranger."""
    found: dict[str, Any] = {}
    right = replay.truth.weak
    for router in ("question", "answer"):
        scores = [-score for score in replay.scores[router]]
        said = np.mean([chance(score) for score in scores], axis=0)
        bins = np.array_split(np.argsort(said, kind="stable"), BINS)
        found[router] = {
            "separation": _estimate(separation, said, right, replay.samples),
            "brier": round(float(np.mean((said - right) ** 2)), 4),
            "brier_of_base_rate": round(float(np.var(right)), 4),
            "miscalibration": round(miscalibration(said, right), 4),
            "said_and_was": [[_short(said[each]), _short(right[each])] for each in bins],
        }
    strong, by_value = of_strong(trials), regraded(trials).strong
    said = held_out(answers(trials), SEEDS[0], strong)
    found["answers of the strong model, by the same weights"] = {
        "separation": _estimate(separation, said, strong.right, replay.samples),
        "separation_marked_by_value": _estimate(separation, said, by_value, replay.samples),
    }
    return found


def _short(values: Vector) -> float:
    return round(float(values.mean()), 3)


def _estimate(
    figure: Callable[[Vector, Vector], float],
    said: Vector,
    right: Vector,
    samples: Sequence[Sample],
) -> dict[str, float]:
    return estimate([figure(said[sample], right[sample]) for sample in samples]).told()


def picture(replay: Replay, curves: Mapping[str, Mapping[str, Vector]]) -> str:
    """Draw the curves by calls, and by money at one of the ratios."""
    weak, strong = (100 * float(v.mean()) for v in (replay.truth.weak, replay.truth.strong))
    price = RATIOS[DRAWN_RATIO]
    levels = [
        Level(name=f"always weak: {weak:.1f} %", value=weak),
        Level(name=f"always strong: {strong:.1f} %", value=strong, lifted=-26),
    ]
    up = Axis(title="Right answers (% of questions)", ticks=range(60, 101, 5))

    def panel(title: str, across: Axis, place: Callable[[str], Vector]) -> Panel:
        lines = [_drawn(router, place(router), curves[router]) for router in LOOKS]
        return Panel(title=title, across=across, up=up, lines=lines, levels=levels)

    def paid(router: str) -> Vector:
        kept = 1.0 if router in AFTER else 1 - GRID
        return 100 * (price * kept + GRID)

    calls = Axis(title="Questions sent to the strong model (%)", ticks=range(0, 101, 10))
    money = Axis(
        title=f"Cost (% of always strong; price of a weak call to a strong one {DRAWN_RATIO})",
        ticks=range(30, 141, 10),
    )
    return svg(
        "When to ask the stronger model: grade-school sums, Mixtral 8x7B and GPT-4 Turbo",
        f"Replay of {len(replay.truth.weak):,} questions of GSM8K (lm-sys/RouteLLM). Ours:"
        f" {FOLDS}-fold cross-validation, {len(SEEDS)} seeds. Bands: 95 % by resampled questions.",
        [
            panel("By calls", calls, lambda _: 100 * GRID),
            panel("By money: who looks at the weak answer has paid for it", money, paid),
        ],
    )


def _drawn(router: str, across: Vector, curve: Mapping[str, Vector]) -> Line:
    name, colour, dashes = LOOKS[router]
    columns = (across, curve["low"], curve["high"])
    return Line(
        name=name,
        colour=colour,
        dashes=dashes,
        points=[(float(x), float(y)) for x, y in zip(across, curve["right"], strict=True)],
        band=_rows(columns) if router in BANDED else (),
    )


def _rows(columns: Sequence[Vector]) -> list[tuple[float, float, float]]:
    return [(float(x), float(low), float(high)) for x, low, high in zip(*columns, strict=True)]


def show(title: str, rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print figures with their intervals."""
    show_table(
        title,
        ["", *names],
        [[router, *(_told(row[name]) for name in names)] for router, row in rows.items()],
    )


def _told(each: Mapping[str, float]) -> str:
    return f"{each['value']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"


def main() -> None:
    """Replay, and show tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--resamples", type=int, default=2000, help="for the intervals")
    args = parser.parse_args()
    trials = read(args.csv)
    truth = Truth(trials.weak_right, trials.strong_right)
    samples = resamples(len(trials.prompts), args.resamples, 0)
    replay = Replay(scored(trials), truth, samples)
    part = sealed(trials)
    shut = Replay(
        sealed_scores(trials, part),
        Truth(truth.weak[part], truth.strong[part]),
        resamples(int(part.sum()), args.resamples, 0),
    )
    anew = attrs.evolve(replay, truth=regraded(trials))
    curves = {router: replay.drawn(router) for router in replay.scores}
    result = {
        "machine": machine("llmdispatcher", "numpy"),
        "data": {"questions": len(trials.prompts), "sha256": trials.digest},
        "models": {"weak": trials.weak_model, "strong": trials.strong_model},
        "right": {"weak": _short(truth.weak), "strong": _short(truth.strong)},
        "folds": FOLDS,
        "seeds": SEEDS,
        "resamples": args.resamples,
        "routers": table(replay),
        "sealed": {"questions": int(part.sum()), "routers": small(shut)},
        "regraded": {
            "weak_marks_changed": int((anew.truth.weak != truth.weak).sum()),
            "strong_marks_changed": int((anew.truth.strong != truth.strong).sum()),
            "routers": small(anew),
        },
        "apgr_of_answer_without": without(trials, replay),
        "break_even_price": break_even(replay),
        "chances": chances(replay, trials),
        "best": {router: _best(curve) for router, curve in curves.items()},
        "curves": {router: _written(curve) for router, curve in curves.items()},
    }
    report(result)
    save("difficulty", result)
    path = RESULTS / "difficulty.svg"
    path.write_text(picture(replay, curves), encoding="utf-8")
    print(f"written: {path}")


def _best(curve: Mapping[str, Vector]) -> dict[str, float]:
    """Return where a curve is highest."""
    at = int(np.argmax(curve["right"]))
    names = ("right", "low", "high")
    return {
        "share": round(float(GRID[at]), 2),
        **{name: round(float(curve[name][at]), 2) for name in names},
    }


def _written(curve: Mapping[str, Vector]) -> dict[str, list[float]]:
    return {name: [round(float(v), 2) for v in values[::5]] for name, values in curve.items()}


def report(result: Mapping[str, Any]) -> None:
    """Print what is written."""
    names = [*FIGURES, "apgr_above_length"]
    show("By calls to the strong model", result["routers"], names)
    for ratio in RATIOS:
        rows = {router: row["money"][ratio] for router, row in result["routers"].items()}
        show(f"By money, a weak call for {ratio} of a strong one", rows, list(FIGURES))
    show("The sealed third", result["sealed"]["routers"], names)
    show("Marked by value", result["regraded"]["routers"], names)
    print(
        f"\nmarks changed: {result['regraded']['weak_marks_changed']} weak,"
        f" {result['regraded']['strong_marks_changed']} strong"
    )
    print(f"waiting for the answer pays up to a price of {result['break_even_price']:.2f}")
    for what, row in result["apgr_of_answer_without"].items():
        print(f"APGR of answer without {what}: {_told(row)}")
    for what, row in result["chances"].items():
        print(f"{what}: {row}")
    for router, row in result["best"].items():
        print(f"{router} is best at {row}")


if __name__ == "__main__":
    main()
