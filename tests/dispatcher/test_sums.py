"""Sums that a text states: which are found, and which hold."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.sums import Statement, statements

SIGNS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "×": operator.mul,  # noqa: RUF001 - it is meant
    " x ": operator.mul,
    " times ": operator.mul,
}


def told(text: str) -> list[bool]:
    """Return of each sum in a text whether it holds."""
    return [each.holds for each in statements(text)]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("3 * $4.50 = $13.50", [True]),
        ("3 * $4.50 = $14.50", [False]),
        ("So he makes 18 videos/week * 4 minutes/video = 72 minutes/week.", [True]),
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", [True, True]),
        ("16 - 3 - 4 = <<16-3-4=9>>10 eggs", [True, False]),
        ("(5 + 3) * 2 = 16", [True]),
        ("5 + 3 * 2 = 11", [True]),
        ("5 + 3 * 2 = 16", [False]),
        ("2 * -3 = -6", []),
        ("-3 + 5 = 2", [True]),
        ("84 \\* (5/14) = 30", [True]),
        ("8 / 3 = 2.67", [True]),
        ("8 / 3 = 2.76", [False]),
        ("8 / 3 ≈ 2.7", [True]),
        ("0.33 - 0.2 = 0.1333", [True]),
        ("20% of 50 = 10", [True]),
        ("20% of 50 = 12", [False]),
        ("20% + 30% = 50%", [True]),
        ("10 / 20 * 100 = 50%", [True]),
        ("1,200 + 34 = 1,234", [True]),
        ("1,200 + 34 = 1,243", [False]),
        ("2 + 3 = 5 * 4 = 20", [True, True]),
        ("2 + 3 = 6 * 4 = 24", [False, True]),
        ("15 = 7 + 8", [True]),
        ("15 = 7 + 9", [False]),
        ("3 plus 4 = 8", [False]),
        ("320 x 5 = 1600 minutes or 1600 / 60 = 26.67 hours", [True, True]),
    ],
)
def test_stated_sums_are_checked(text: str, holds: list[bool]) -> None:
    """Each sum is found in its order, with units and signs of money passed over, and checked."""
    assert told(text) == holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no sum at all",
        "x = 3",
        "5x + 3 = 20",
        "x * 4 + 8 = 40",
        "50 = 8 + 4 + the rest",
        "2 hours + 30 minutes = 2.5 hours",
        "4 dozen + 2 = 50",
        "5 / 0 = 0",
        "(5 + 3 = 8",
        "a 4-minute walk = good",
        "12 apples = 1 dozen",
        "1 + 1 equals 3",
        "12345678901234567890 + 1 = 3",
        "1e5 + 1 = 3",
    ],
)
def test_what_cannot_be_read_for_certain_is_left_out(text: str) -> None:
    """Unknowns, units that change, brackets that do not match, and no sums, accuse nobody."""
    assert told(text) == []


def test_a_sum_tells_its_parts() -> None:
    """Operands, signs and the result are those that stand there."""
    (found,) = statements("He has 2 * (3 + 4) = 14 eggs left.")

    assert found == Statement((2.0, 3.0, 4.0), frozenset("*+"), 14.0, holds=True)


@given(
    st.integers(0, 9_999),
    st.sampled_from(list(SIGNS)),
    st.integers(0, 9_999),
    st.integers(-50, 50),
)
def test_whole_sums_hold_exactly_when_they_do(a: int, sign: str, b: int, off: int) -> None:
    """Of whole numbers nothing but the exact result holds."""
    result = SIGNS[sign](a, b) + off

    assert told(f"They need {a}{sign}{b} = {result}.") == [off == 0]


@given(st.text(alphabet="0123456789.,+-*/x=()%<> \nab$", max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    """Nothing that looks like a sum raises, and every sum has a finite result."""
    for each in statements(text):
        assert each.operands
        assert abs(each.result) < float("inf")
