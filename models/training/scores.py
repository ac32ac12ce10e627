"""What is measured of the model, and what each measure has to reach.

Owns the gates. Pure: the card and the tests need no torch for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

GATES = {
    "FAQ, known wordings": 0.97,
    "FAQ, known wordings in new frames": 0.85,
    "Capitals, known wordings": 0.95,
    "Sums of unseen pairs": 0.95,
    "Differences of unseen pairs": 0.85,
    "Yes or no": 0.97,
    "JSON, parseable": 1.0,
    "JSON, correct": 0.95,
    "Stories, well formed": 0.70,
    "Stories at temperature 0.8, well formed": 0.70,
    "Off-topic, refused": 0.80,
    "Free wordings off topic, refused": 0.80,
    "Tokenizer parity with llama.cpp": 1.0,
}
"""The least share that each measure must reach; the others have none, and are told as they are."""

PARITY_STRINGS_AT_LEAST = 10_000
LOGIT_DIFFERENCE_AT_MOST = 1e-3
FILE_BYTES_AT_MOST = 4_000_000

BYTES_PER_MB = 1_000_000
_Z_95 = 1.959964
"""How many standard deviations hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Score:
    """How many questions of one kind were answered right."""

    name: str
    right: int
    asked: int

    @property
    def share(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.right / max(1, self.asked)

    @property
    def is_met(self) -> bool | None:
        """Whether the gate is reached; None where there is none."""
        gate = GATES.get(self.name)
        return None if gate is None else self.asked > 0 and self.share >= gate


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, as it is shown."""

    name: str
    result: str
    asked: str = ""
    gate: str = ""
    is_met: bool | None = None


def row_of(score: Score) -> Row:
    """Return the line of a score."""
    gate = GATES.get(score.name)
    shown = "" if gate is None else f"at least {100 * gate:g} %"
    asked = f"{score.right}/{score.asked}"
    return Row(score.name, f"{100 * score.share:.1f} %", asked, shown, score.is_met)


def logit_row(difference: float) -> Row:
    """Return the line of the largest difference between the logits of torch and of llama.cpp."""
    name = "Largest logit difference, torch and llama.cpp (F32)"
    gate = f"at most {LOGIT_DIFFERENCE_AT_MOST:.0e}"
    return Row(name, f"{difference:.1e}", "", gate, difference <= LOGIT_DIFFERENCE_AT_MOST)


def size_row(file_bytes: int) -> Row:
    """Return the line of the file's size."""
    gate = f"at most {FILE_BYTES_AT_MOST / BYTES_PER_MB:g} MB"
    shown = f"{file_bytes / BYTES_PER_MB:.2f} MB (Q8_0)"
    return Row("File size", shown, "", gate, file_bytes <= FILE_BYTES_AT_MOST)


def parity_row(score: Score) -> Row:
    """Return the line of the tokenizer's parity, which takes many strings to mean something."""
    row = row_of(score)
    is_met = score.is_met is True and score.asked >= PARITY_STRINGS_AT_LEAST
    return Row(row.name, row.result, row.asked, row.gate, is_met)


def unmeasured(rows: Sequence[Row]) -> list[str]:
    """Return the names of gates that no line of the table has."""
    shown = {row.name for row in rows}
    return [name for name in GATES if name not in shown]


def missed(rows: Sequence[Row]) -> list[Row]:
    """Return the lines whose gate is not reached."""
    return [row for row in rows if row.is_met is False]


def table(rows: Sequence[Row]) -> str:
    """Return the lines in Markdown."""
    met = {None: "", True: "yes", False: "**no**"}
    lines = ["| Measure | Result | Questions | Gate | Met |", "|---|---|---|---|---|"]
    lines += [f"| {r.name} | {r.result} | {r.asked} | {r.gate} | {met[r.is_met]} |" for r in rows]
    return "\n".join(lines)


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's formula, from 0 to 1."""
    if not asked:
        return 0.0, 1.0
    share, square = right / asked, _Z_95**2 / asked
    middle = (share + square / 2) / (1 + square)
    half = _Z_95 * math.sqrt(share * (1 - share) / asked + square / (4 * asked)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
