"""Learns what each fact is worth for each task, and writes models/tasks.json.

    python models/training/tasks.py [--check]

Needs numpy and an installed llmdispatcher. Reads tests/data/task_prompts_development.json and
nothing else: the exam beside it stays unseen. A logistic regression over the facts that
``dispatcher/task_facts.py`` sees, drawn towards ``BELIEFS``: what we held each fact for before any
prompt was counted, so that a rare fact keeps its sense. With ``--check`` it writes nothing, and
prints how well the same method does on parts that it was not shown.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdispatcher.models.task import Task
from llmdispatcher.models.task_words import GROUPS, OPENERS
from llmdispatcher.task_facts import phrases, see, window

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "tests" / "data" / "task_prompts_development.json"
WEIGHTS = ROOT / "models" / "tasks.json"

TASKS = tuple(Task)
SEEN_TIMES = 3
"""A fact that fewer prompts show is not learned from."""

PULL = 1.0
"""Towards the beliefs, against one prompt."""

STEPS, STEP, MOMENTUM = 800, 0.5, 0.9
LEAST_WEIGHT = 0.05
"""Smaller ones are left out of the file."""

PARTS, SEED = 10, 20

Matrix = NDArray[np.float64]

BELIEFS: dict[str, dict[str, float]] = json.loads(
    Path(__file__).with_name("task_beliefs.json").read_text(encoding="utf-8")
)


def learn(facts: Sequence[frozenset[str]], tasks: Sequence[str]) -> tuple[list[str], Matrix]:
    """Return the names of the columns and a row of weights for each; the last one always counts."""
    times = Counter(fact for each in facts for fact in each)
    names = sorted(
        fact for fact in {*times, *BELIEFS} if times[fact] >= SEEN_TIMES or fact in BELIEFS
    )
    believed = np.zeros((len(names) + 1, len(TASKS)))
    for row, name in enumerate(names):
        for task, weight in BELIEFS.get(name, {}).items():
            believed[row, TASKS.index(Task(task))] = weight
    seen = matrix(facts, names)
    wanted = np.array([[task == each for each in TASKS] for task in tasks], dtype=float)
    weights, speed = believed.copy(), np.zeros_like(believed)
    for _ in range(STEPS):
        slope = (seen.T @ (softmax(seen @ weights) - wanted) + PULL * (weights - believed)) / len(
            facts
        )
        speed = MOMENTUM * speed - STEP * slope
        weights = weights + speed
    return names, weights


def matrix(facts: Sequence[frozenset[str]], names: Sequence[str]) -> Matrix:
    """Put facts as ones into rows, with a one for what always counts at the end of each."""
    place = {name: column for column, name in enumerate(names)}
    rows = np.zeros((len(facts), len(names) + 1))
    rows[:, -1] = 1
    for row, each in enumerate(facts):
        rows[row, [place[fact] for fact in each if fact in place]] = 1
    return rows


def softmax(scores: Matrix) -> Matrix:
    """Turn rows of scores into shares."""
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def check(facts: Sequence[frozenset[str]], tasks: Sequence[str]) -> float:
    """Return the share read rightly when each part is read by what the others taught."""
    order = list(range(len(facts)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - no secret
    right = 0
    for part in range(PARTS):
        shown = [each for place, each in enumerate(order) if place % PARTS != part]
        hidden = order[part::PARTS]
        names, weights = learn([facts[each] for each in shown], [tasks[each] for each in shown])
        scores = matrix([facts[each] for each in hidden], names) @ weights
        right += sum(
            TASKS[row.argmax()] == tasks[each] for row, each in zip(scores, hidden, strict=True)
        )
    return right / len(facts)


def as_json(names: Sequence[str], weights: Matrix) -> str:
    """Write one fact a line, so that a change can be read."""

    def row(values: NDArray[np.float64]) -> str:
        kept = {
            str(task): round(float(value), 2) for task, value in zip(TASKS, values, strict=True)
        }
        return json.dumps(
            {task: value for task, value in kept.items() if abs(value) >= LEAST_WEIGHT}
        )

    always = json.dumps(
        {str(task): round(float(value), 2) for task, value in zip(TASKS, weights[-1], strict=True)}
    )
    rows = [
        f"{json.dumps(name, ensure_ascii=False)}: {row(weights[place])}"
        for place, name in enumerate(names)
    ]
    lines = ",\n".join(line for line in rows if not line.endswith(": {}"))
    return f'{{\n"always": {always},\n"weights": {{\n{lines}\n}}\n}}\n'


def main() -> None:
    """Learn and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say how well it does")
    asked = parser.parse_args()
    prompts = json.loads(PROMPTS.read_text(encoding="utf-8"))
    groups, openers = phrases(GROUPS), phrases(OPENERS)
    facts = [see(window(each["prompt"]), groups, openers).facts for each in prompts]
    tasks = [each["task"] for each in prompts]
    if asked.check:
        print(f"{check(facts, tasks):.1%} of {len(facts)} read rightly, unseen")  # noqa: T201 - asked for
        return
    WEIGHTS.write_text(as_json(*learn(facts, tasks)), encoding="utf-8")


if __name__ == "__main__":
    main()
