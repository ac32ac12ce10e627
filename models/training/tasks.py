"""Learns what each fact is worth for each task, and writes models/tasks.json.

    python models/training/tasks.py [--check]

Needs numpy and an installed llmdispatcher. Reads tests/data/task_prompts_development.json and
nothing else: the exam beside it stays unseen. A logistic regression over the facts that
``dispatcher/task_facts.py`` sees, drawn towards ``BELIEFS``: what we held each fact for before any
prompt was counted, so that a rare fact keeps its sense. With ``--check`` it writes nothing, and
prints how well each writer's prompts are read by what the others taught.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmdispatcher.models import task_tongues, task_words
from llmdispatcher.models.task import Task
from llmdispatcher.task_facts import phrases, see, window

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "tests" / "data" / "task_prompts_development.json"
WEIGHTS = ROOT / "models" / "tasks.json"

TASKS = tuple(Task)
SEEN_TIMES = 3
"""A fact that fewer prompts show is not learned from."""

PULL = 1.0
"""Towards the beliefs, against one prompt."""

STEPS, MOMENTUM = 400, 0.95
LEAST_WEIGHT = 0.08
"""Smaller ones are left out of the file."""

Matrix = NDArray[np.float64]

BELIEFS: dict[str, dict[str, float]] = json.loads(
    Path(__file__).with_name("task_beliefs.json").read_text(encoding="utf-8")
)


class Incidence(NamedTuple):
    """Which facts were seen in which prompts, by prompt and by fact; nearly all of it is empty."""

    columns: NDArray[np.intp]
    """Of all facts of the first prompt, then of the second, and so on."""
    begins: NDArray[np.intp]
    """Where each prompt begins in it."""
    rows: NDArray[np.intp]
    """The other way round: of all prompts of the first fact, and so on."""
    begins_of_facts: NDArray[np.intp]

    def scores(self, weights: Matrix) -> Matrix:
        """Return for each prompt the sum of what its facts weigh."""
        return np.add.reduceat(weights[self.columns], self.begins, axis=0)

    def gathered(self, of_prompts: Matrix) -> Matrix:
        """Return for each fact the sum over the prompts that show it."""
        return np.add.reduceat(of_prompts[self.rows], self.begins_of_facts, axis=0)


def incidence(facts: Sequence[frozenset[str]], names: Sequence[str]) -> Incidence:
    """Find the facts that have a name, and one that always counts, which comes last."""
    place = {name: column for column, name in enumerate(names)}
    found = [[*sorted(place[fact] for fact in each if fact in place), len(names)] for each in facts]
    shown_by: list[list[int]] = [[] for _ in range(len(names) + 1)]
    for row, each in enumerate(found):
        for column in each:
            shown_by[column].append(row)
    return Incidence(*_flat(found), *_flat(shown_by))


def _flat(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    lengths = np.array([len(each) for each in lists], dtype=np.intp)
    return np.array([it for each in lists for it in each], dtype=np.intp), np.cumsum(
        lengths
    ) - lengths


def learn(facts: Sequence[frozenset[str]], tasks: Sequence[str]) -> tuple[list[str], Matrix]:
    """Return the names of the columns and a row of weights for each; the last one always counts.

    Each fact moves by a step of its own, short enough that all together cannot overshoot: the
    rare ones arrive as soon as the common ones.
    """
    times = Counter(fact for each in facts for fact in each)
    names = sorted(fact for fact, shown in times.items() if shown >= SEEN_TIMES or fact in BELIEFS)
    believed = np.zeros((len(names) + 1, len(TASKS)))
    for row, name in enumerate(names):
        for task, weight in BELIEFS.get(name, {}).items():
            believed[row, TASKS.index(Task(task))] = weight
    seen = incidence(facts, names)
    wanted = np.array([[task == each for each in TASKS] for task in tasks], dtype=float)
    in_prompt = np.diff(seen.begins, append=len(seen.columns)).astype(float)[:, None]
    step = 1 / (PULL + seen.gathered(in_prompt) / 2)
    weights, speed = believed.copy(), np.zeros_like(believed)
    for _ in range(STEPS):
        off = softmax(seen.scores(weights)) - wanted
        slope = seen.gathered(off) + PULL * (weights - believed)
        speed = MOMENTUM * speed - step * slope
        weights = weights + speed
    return names, weights


def softmax(scores: Matrix) -> Matrix:
    """Turn rows of scores into shares."""
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def check(
    facts: Sequence[frozenset[str]], tasks: Sequence[str], writers: Sequence[str]
) -> list[tuple[str, float]]:
    """Return for each writer the share read rightly by what the other writers taught."""
    shares = []
    for writer in sorted(set(writers)):
        shown = [place for place, each in enumerate(writers) if each != writer]
        hidden = [place for place, each in enumerate(writers) if each == writer]
        names, weights = learn([facts[each] for each in shown], [tasks[each] for each in shown])
        scores = incidence([facts[each] for each in hidden], names).scores(weights)
        right = [
            TASKS[row.argmax()] == tasks[each] for row, each in zip(scores, hidden, strict=True)
        ]
        shares.append((writer, sum(right) / len(right)))
    return shares


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
    groups = phrases(task_words.GROUPS, task_tongues.GROUPS)
    openers = phrases(task_words.OPENERS, task_tongues.OPENERS)
    facts = [see(window(each["prompt"]), groups, openers).facts for each in prompts]
    tasks = [each["task"] for each in prompts]
    if asked.check:
        for writer, share in check(facts, tasks, [each["writer"] for each in prompts]):
            print(f"{writer}: {share:.1%} read rightly, unseen")  # noqa: T201 - asked for
        return
    WEIGHTS.write_text(as_json(*learn(facts, tasks)), encoding="utf-8")


if __name__ == "__main__":
    main()
