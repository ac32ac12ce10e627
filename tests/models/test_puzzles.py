"""The questions that tiers of a cascade are trained on and measured with."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "models" / "training" / "puzzles.py"


@pytest.fixture(scope="module")
def puzzles() -> ModuleType:
    """The training script's module, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("puzzles", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["puzzles"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEXT = str.maketrans(LETTERS[:-1], LETTERS[1:])

OTHERWISE: dict[str, Callable[[list[str]], object]] = {
    "sum": lambda said: int(said[0]) + int(said[1]),
    "difference": lambda said: int(said[0]) - int(said[1]),
    "product": lambda said: sum(int(said[0]) for _ in range(int(said[1]))),
    "sort": lambda said: "".join(digit * said[1].count(digit) for digit in "0123456789"),
    "reverse": lambda said: "".join(reversed(said[1])),
    "count": lambda said: len(said[3].split(said[1])) - 1,
    "max": lambda said: max(map(int, said[1:])),
    "shift": lambda said: said[1].translate(NEXT),
}
"""How to work an answer out in another way than the training text does."""


def right(kind: str, question: str) -> str:
    """Work out the answer to a question."""
    return str(OTHERWISE[kind](re.split(r"[ +*-]", question)))


def test_answers_are_right_and_sides_are_apart(puzzles: ModuleType) -> None:
    """Every kind and level comes, with its only answer, on the side of the split that was asked."""
    drawn = random.Random(1)  # noqa: S311 - no secret

    seen = set()
    for number in range(800):
        puzzle = puzzles.draw(drawn, held_out=bool(number % 2))
        assert puzzles.is_held_out(puzzle.question) is bool(number % 2)
        assert puzzle.answer == right(puzzle.kind, puzzle.question)
        seen.add((puzzle.kind, puzzle.level))

    assert {kind for kind, _ in seen} == set(puzzles.KINDS)
    assert len(seen) == 22


def test_no_question_is_asked_twice(puzzles: ModuleType) -> None:
    """A set to measure with has different questions, none of which may be trained on."""
    made = puzzles.draw_different(random.Random(2), 200)  # noqa: S311 - no secret

    assert len({puzzle.question for puzzle in made}) == 200
    assert all(puzzles.is_held_out(puzzle.question) for puzzle in made)
