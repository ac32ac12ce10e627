"""Training the difficulty router, and the measures that it is judged by in ``bench/``."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray

from llmdispatcher import difficulty
from llmdispatcher.difficulty import parsed
from llmdispatcher.question_marks import question_marks

sys.path.append(str(Path(__file__).parents[2] / "bench"))
sys.path.append(str(Path(__file__).parents[2] / "models" / "training"))

from chart import Axis, Level, Line, Panel, svg
from curves import (
    Curve,
    apgr,
    by_quantiles,
    cpt,
    estimate,
    miscalibration,
    resamples,
    separation,
    whole,
)
from logistic import chance, fitted, folds, trained
from replay import blinded, regraded, sealed
from trials import answers, questions, read

COMMAND = Path(__file__).parents[2] / "models" / "training" / "difficulty.py"

Vector = NDArray[np.float64]
ROWS = 120


def table(path: Path, fails: Callable[[int, bool], float]) -> Path:
    """Write trials whose weak model fails by chance, as the number of things and its slips say."""
    dice = random.Random(7)  # noqa: S311 - no secret
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "weak-model", "strong-model", "weak_response", "strong_response"])
        for number in range(ROWS):
            things, slips = dice.randint(2, 9), dice.random() < 0.15
            costs = [dice.randint(2, 60) for _ in range(things)]
            asked = " ".join(f"Thing {number}.{i} costs {cost}." for i, cost in enumerate(costs))
            total = sum(costs) + slips
            answer = f"In all {' + '.join(map(str, costs))} = {total}.\n#### {total}"
            right = dice.random() >= fails(things, slips)
            prompt = f"{asked} How much do they cost?"
            rows.writerow([prompt, right, True, answer, str(sum(costs))])
    return path


def by_length(things: int, slips: bool) -> float:  # noqa: FBT001 - as ``table`` calls it
    """Fail more often the more there is to add, and nearly always where the sum is wrong."""
    return 0.95 if slips else 0.1 * things


def backwards(things: int, slips: bool) -> float:  # noqa: FBT001 - as ``table`` calls it
    """Fail less often the more there is to add."""
    return 0.9 - 0.09 * things


def run(path: Path, out: Path) -> str:
    """Train by the one command, and return what it writes."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(COMMAND), str(path), "--seed", "3", "--out", str(out)]
    subprocess.run(command, env=alone, check=True, capture_output=True)
    return out.read_text(encoding="utf-8")


def test_training_again_writes_the_same_file(tmp_path: Path) -> None:
    """The same table and seed give the same text, and the weights point where the data does."""
    path = table(tmp_path / "trials.csv", by_length)

    written = run(path, tmp_path / "weights.json")

    assert runpy.run_path(str(COMMAND))["written"](read(path), 3) + "\n" == written
    told = json.loads(written)
    assert told["about"]["questions"] == ROWS
    assert told["about"]["weak_model"] == "weak-model"
    assert told["about"]["seed"] == 3
    easy, hard = (question_marks("Thing 7.1 costs 35. " * count) for count in (2, 9))
    weights = parsed(told["difficulty"])
    assert weights.chance(easy) > weights.chance(hard) + 0.2
    assert told["doubt"]["marks"]["broken_sums"]["per_log"] < -1


def test_signs_hold_against_the_data(tmp_path: Path) -> None:
    """Where longer questions were answered better, length weighs nothing instead of for them."""
    task = questions(read(table(tmp_path / "trials.csv", backwards)))

    made = fitted(task, 0.01)

    at = list(task.marks).index("length")
    assert made.weights[at] == 0
    assert np.corrcoef(task.counts[:, at], task.right)[0, 1] > 0.2


def test_what_is_written_says_what_was_fitted(tmp_path: Path) -> None:
    """The package, in plain Python, gives the chances that training in numpy had."""
    task = answers(read(table(tmp_path / "trials.csv", by_length)))
    made = trained(task, 0)

    told = parsed(made.written(list(task.marks)))

    wanted = np.clip(chance(made.logits(task.counts)), 0.01, 0.99)
    found = [told.chance(dict(zip(task.marks, row, strict=True))) for row in task.counts]
    assert np.abs(wanted - found).max() < 2e-3
    assert wanted.std() > 0.1
    assert abs(wanted.mean() - task.right.mean()) < 0.03  # it is calibrated


def test_folds_are_even_and_repeat() -> None:
    """Every row is in one fold, folds differ by one row at most, another seed deals otherwise."""
    dealt = folds(103, 10, 5)

    assert sorted(np.bincount(dealt)) == [10] * 7 + [11] * 3
    assert (dealt == folds(103, 10, 5)).all()
    assert (dealt != folds(103, 10, 6)).any()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,weak\n", "not prompt and four more"),
        ("prompt,w,s,a,b\n", "no row"),
        ("prompt,w,s,a,b\nq,True,maybe,x,y\n", "row 1 is not"),
        ("prompt,w,s,a,b\nq,True,True,x,y\nq,True,True,x\n", "row 2 is not"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """What is not such a table is refused, with the file, the row and what it should be."""
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SystemExit, match=f"bad.csv: .*{said}"):
        read(path)


def truth(rows: int, seed: int) -> tuple[Vector, Vector, Vector]:
    """Return scores that know a little, and who was right, weak and strong."""
    dice = np.random.default_rng(seed)
    weak = (dice.random(rows) < 0.6).astype(float)
    strong = np.maximum(weak, dice.random(rows) < 0.8)
    return dice.random(rows) - 0.2 * weak, weak, strong


def test_four_questions_by_hand() -> None:
    """A router that asks for the two that matter first recovers all at half of the calls."""
    weak, strong = np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 1])

    best = whole(np.array([1.0, 2, 3, 4]), weak, strong)
    worst = whole(np.array([4.0, 3, 2, 1]), weak, strong)
    level = whole(np.ones(4), weak, strong)

    assert list(best.share) == [0, 0.25, 0.5, 0.75, 1]
    assert list(best.recovered) == [0, 0.5, 1, 1, 1]
    assert (apgr(best), apgr(level), apgr(worst)) == (0.75, 0.5, 0.25)
    assert [cpt(best, 0.5), cpt(best, 0.8), cpt(worst, 0.5)] == pytest.approx([0.25, 0.4, 0.75])
    assert (cpt(level, 0.8), cpt(best, 0.0)) == (0.8, 0.0)


def test_money_stretches_the_curve_and_cuts_it_off() -> None:
    """Who pays the weak model besides gets less far with the same money, and all for more."""
    weak, strong = np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 1])
    dear = whole(np.ones(4), weak, strong).stretched(1.5)

    assert dear.share[-1] == 1.5
    assert cpt(dear, 0.5) == pytest.approx(0.75)
    assert cpt(dear, 1.0) == pytest.approx(1.5)
    assert apgr(dear) == pytest.approx(1 / 3)
    assert math.isinf(cpt(Curve(np.array([0.0, 1]), np.array([0.0, 0.4])), 0.5))


def reference(score: Vector, weak: Vector, strong: Vector) -> tuple[float, list[float]]:
    """Compute APGR and CPT in the words of RouteLLM's evaluate.py and benchmarks.py."""
    thresholds = np.quantile(score, np.linspace(0, 1, 11))
    points = []
    for i, threshold in enumerate(thresholds):
        selection = score >= threshold if i != 10 else score > threshold
        points.append((selection.mean() * 100, np.where(selection, strong, weak).mean() * 100))
    percent, accuracy = np.array(sorted(points)).T
    low, high = weak.mean() * 100, strong.mean() * 100
    areas = [np.trapezoid(each, percent / 100) for each in (accuracy, 0 * accuracy + low)]
    whole_gap = np.trapezoid(0 * accuracy + high, percent / 100) - areas[1]
    calls = [float(np.interp(p * (high - low) + low, accuracy, percent)) for p in (0.5, 0.8)]
    assert (np.diff(accuracy) >= 0).all()  # else their interpolation means nothing
    return float((areas[0] - areas[1]) / whole_gap), calls


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_figures_are_those_of_routellm(seed: int) -> None:
    """APGR and CPT are those that RouteLLM's own way of computing gives."""
    score, weak, strong = truth(1500, seed)
    curve = by_quantiles(score, weak, strong)

    wanted, calls = reference(score, weak, strong)

    assert apgr(curve) == pytest.approx(wanted)
    assert [100 * cpt(curve, level) for level in (0.5, 0.8)] == pytest.approx(calls)
    assert apgr(whole(score, weak, strong)) == pytest.approx(wanted, abs=0.01)


def test_chance_recovers_half() -> None:
    """A router that throws dice has an APGR of one half, a CPT(50) of one half."""
    dice = np.random.default_rng(1)
    _, weak, strong = truth(4000, 1)
    drawn = [by_quantiles(dice.random(4000), weak, strong) for _ in range(60)]

    assert np.mean([apgr(curve) for curve in drawn]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([cpt(curve, 0.5) for curve in drawn]) == pytest.approx(0.5, abs=0.03)


def test_separation_is_the_share_of_pairs() -> None:
    """The share of pairs of right and wrong in which the right one is higher; ties count half."""
    score, right = np.array([1.0, 2, 2, 3, 0]), np.array([0.0, 1, 0, 1, 0])
    pairs = [(a > b) + (a == b) / 2 for a in score[right == 1] for b in score[right == 0]]

    assert separation(score, right) == pytest.approx(sum(pairs) / len(pairs))


def test_chances_that_are_true_miss_nothing() -> None:
    """What is said in a bin is held against what was: the same misses nothing, ten points ten."""
    said = np.repeat([0.2, 0.8], 50)
    right = np.concatenate([np.tile([1.0, 0, 0, 0, 0], 10), np.tile([1.0, 1, 1, 1, 0], 10)])

    assert miscalibration(said, right) == pytest.approx(0)
    assert miscalibration(said - 0.1, right) == pytest.approx(0.1)


def test_intervals_are_of_resampled_rows() -> None:
    """The value is that of the rows themselves; the interval is as wide as theory has it."""
    rows = np.random.default_rng(2).normal(size=400)

    found = estimate([float(rows[sample].mean()) for sample in resamples(400, 1000, 0)])

    assert found.value == pytest.approx(rows.mean())
    wanted = 1.96 * rows.std() / math.sqrt(400)
    assert found.high - found.value == pytest.approx(wanted, rel=0.15)
    assert found.value - found.low == pytest.approx(wanted, rel=0.15)


def test_marks_by_value(tmp_path: Path) -> None:
    """12.00 is right where 12 was wanted; where nobody was marked right, nothing is known."""
    path = tmp_path / "marked.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "w", "s", "a", "b"])
        rows.writerow(["one", "True", "False", "#### 1,012", "It is $1,012.00."])
        rows.writerow(["two", "False", "True", "so 8.12", "#### 12"])
        rows.writerow(["three", "False", "False", "12.00", "12"])
        rows.writerow(["four", "False", "True", "none", "It is 4"])

    trials = read(path)

    assert list(regraded(trials).strong) == [1, 1, 0, 1]
    assert list(regraded(trials).weak) == [1, 0, 0, 0]
    assert list(trials.strong_right) == [0, 1, 0, 1]  # what was read stays as it was


def test_the_docstring_has_the_figures_of_the_bench() -> None:
    """What the module says that it is worth is what was measured last, sealed and paid for too."""
    path = Path(__file__).parents[2] / "bench" / "results" / "difficulty.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    said = " ".join((difficulty.__doc__ or "").split())
    ours, answered = told["routers"]["question"], told["routers"]["answer"]
    spans = [ours["apgr"], answered["apgr"], told["sealed"]["routers"]["answer"]["apgr"]]
    spans += [ours["apgr_above_length"], answered["apgr_above_length"]]
    values = [told["routers"][name]["apgr"]["value"] for name in ("length", "oracle")]
    values += [answered["money"][ratio]["apgr"]["value"] for ratio in ("1:20", "1:3")]
    values.append(told["apgr_of_answer_without"]["fraction"]["value"])

    for span in spans:
        assert f"{span['value']:.3f} ({span['low']:.3f} to {span['high']:.3f})" in said
    for value in values:
        assert f"{value:.3f}" in said
    for name in ("cpt50", "cpt80"):
        assert f"{100 * answered[name]['value']:.0f} %" in said
    for share in told["right"].values():
        assert f"{100 * share:.0f} %" in said
    assert told["break_even_price"] == 0.5  # "about a half"


def test_the_weights_come_from_the_table_of_the_bench() -> None:
    """The weights that are shipped, and the figures that are told, are of the same table."""
    path = Path(__file__).parents[2] / "bench" / "results" / "difficulty.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    text = resources.files("llmdispatcher.models").joinpath(difficulty.FILE).read_text("utf-8")

    about = json.loads(text)["about"]

    assert about["data_sha256"] == told["data"]["sha256"]
    assert about["questions"] == told["data"]["questions"]


def test_the_sealed_third_is_a_third(tmp_path: Path) -> None:
    """Which questions are sealed depends on their words alone, and is about a third of them."""
    trials = read(table(tmp_path / "trials.csv", by_length))

    assert 0.2 < sealed(trials).mean() < 0.47
    assert (sealed(trials) == sealed(trials)).all()


def test_blinded_counts_say_nothing(tmp_path: Path) -> None:
    """A count that a router is not to see is zero in every row, and the others are as they were."""
    task = answers(read(table(tmp_path / "trials.csv", by_length)))
    at = list(task.marks).index("broken_sums")

    made = blinded(task, "broken_sums")

    assert task.counts[:, at].sum() > 0 == made.counts[:, at].sum()
    assert (np.delete(made.counts, at, 1) == np.delete(task.counts, at, 1)).all()


def test_the_plot_is_whole() -> None:
    """The plot is well-formed XML with a line for each series, named axes, and one legend."""
    line = Line(
        name="a < b", colour="#123456", points=[(0, 1), (5, 2)], band=[(0, 0, 2), (5, 1, 3)]
    )
    across, up = Axis(title="Calls (%)", ticks=[0, 5, 10]), Axis(title="Right (%)", ticks=[0, 4])
    panel = Panel(
        title="P", across=across, up=up, lines=[line], levels=[Level(name="top", value=4)]
    )

    drawn = ET.fromstring(svg("T & U", "note", [panel, panel]))  # noqa: S314 - it is ours

    tags = [each.tag.rpartition("}")[2] for each in drawn.iter()]
    words = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert (tags.count("polyline"), tags.count("polygon")) == (2, 2)
    assert words.count("Calls (%)") == words.count("Right (%)") == words.count("top") == 2
    assert words.count("a < b") == words.count("T & U") == words.count("note") == 1
    assert across.place(12, 100) == across.place(10, 100) == 100
