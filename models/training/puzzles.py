"""Questions with exact answers, of graded difficulty: what the tiers of a cascade are trained on.

Owns the kinds of questions and which of them are held out. Whether a question may be trained on
follows from its own text, so no list has to be kept and no seed can mix them up.
"""

import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

HELD_OUT_SHARE = 8
"""One question in so many is never trained on."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question, its only right answer, and how hard it is: 0 is the easiest of its kind."""

    kind: str
    question: str
    answer: str
    level: int


def _letters(random: Random, count: int, alphabet: str = string.ascii_lowercase) -> str:
    return "".join(random.choice(alphabet) for _ in range(count))


def _number(random: Random, digits: int) -> int:
    return random.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _sum(random: Random, level: int) -> tuple[str, str]:
    one, other = (_number(random, random.randint(1, level + 2)) for _ in range(2))
    return f"{one}+{other}", str(one + other)


def _difference(random: Random, level: int) -> tuple[str, str]:
    one, other = sorted((_number(random, level + 2), _number(random, random.randint(1, level + 2))))
    return f"{other}-{one}", str(other - one)


def _product(random: Random, level: int) -> tuple[str, str]:
    one, other = _number(random, level + 2), random.randint(2, 9)
    return f"{one}*{other}", str(one * other)


def _sorted(random: Random, level: int) -> tuple[str, str]:
    digits = _letters(random, 3 + 2 * level, string.digits)
    return f"sort {digits}", "".join(sorted(digits))


def _reversed(random: Random, level: int) -> tuple[str, str]:
    text = _letters(random, 3 + 2 * level)
    return f"reverse {text}", text[::-1]


def _counted(random: Random, level: int) -> tuple[str, str]:
    text = _letters(random, 4 + 3 * level, "abcd")
    letter = random.choice("abcd")
    return f"count {letter} in {text}", str(text.count(letter))


def _greatest(random: Random, level: int) -> tuple[str, str]:
    numbers = [_number(random, 2) for _ in range(2 + level)]
    return f"max {' '.join(map(str, numbers))}", str(max(numbers))


def _shifted(random: Random, level: int) -> tuple[str, str]:
    text = _letters(random, 2 + 2 * level, string.ascii_lowercase[:-1])
    return f"shift {text}", "".join(chr(ord(letter) + 1) for letter in text)


KINDS: dict[str, Callable[[Random, int], tuple[str, str]]] = {
    "sum": _sum,
    "difference": _difference,
    "product": _product,
    "sort": _sorted,
    "reverse": _reversed,
    "count": _counted,
    "max": _greatest,
    "shift": _shifted,
}

LEVELS = {"product": 1}
"""How many levels a kind has, where that is not three."""


def is_held_out(question: str) -> bool:
    """Whether a question may only be asked, and never trained on."""
    return zlib.crc32(question.encode()) % HELD_OUT_SHARE == 0


def draw(random: Random, *, held_out: bool) -> Puzzle:
    """Draw a puzzle from one side of the split; every kind and level is as likely."""
    while True:
        kind = random.choice(list(KINDS))
        level = random.randrange(LEVELS.get(kind, 3))
        question, answer = KINDS[kind](random, level)
        if is_held_out(question) is held_out:
            return Puzzle(kind, question, answer, level)


def draw_different(random: Random, count: int) -> list[Puzzle]:
    """Draw so many held-out puzzles, no question twice."""
    found: dict[str, Puzzle] = {}
    while len(found) < count:
        puzzle = draw(random, held_out=True)
        found.setdefault(puzzle.question, puzzle)
    return list(found.values())
