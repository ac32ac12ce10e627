"""Caps: exact amounts, words that exist, names where they are needed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import BadRequest, SpendingCap, fingerprint
from llmdispatcher.models.budget import Period, Scope, UnknownPrice


@given(st.integers(0, 10**15))
def test_an_amount_is_kept_to_the_micro_dollar(microusd: int) -> None:
    """What is written with six decimals comes back as that many micro-dollars."""
    text = f"{microusd // 10**6}.{microusd % 10**6:06d}"

    assert SpendingCap(text, period="day").limit_microusd == microusd
    assert SpendingCap(Decimal(text), period="day").limit_microusd == microusd


@pytest.mark.parametrize(("usd", "microusd"), [(5, 5_000_000), (0.1, 100_000), ("1e-6", 1)])
def test_whole_numbers_and_floats_are_read_as_they_are_written(
    usd: float | str, microusd: int
) -> None:
    """A float means its shortest decimal form, as it does in prices."""
    assert SpendingCap(usd, period="ever").limit_microusd == microusd


@pytest.mark.parametrize(
    "usd", [-1, "0.0000001", "1e-7", "NaN", "Infinity", "ten", "", True, None, 10**9 + 1, b"5"]
)
def test_what_is_no_amount_is_refused(usd: object) -> None:
    """Negative, finer than a micro-dollar, not a number, absurd."""
    with pytest.raises(BadRequest, match=r"usd is .* an amount in dollars"):
        SpendingCap(usd, period="day")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"period": "week"}, "period"),
        ({"period": "day", "scope": "model", "name": "m"}, "scope"),
        ({"period": "day", "unknown_price": "guess"}, "unknown_price"),
        ({"period": "day", "name": "openai"}, "name"),
        ({"period": "day", "scope": "vendor"}, "name"),
        ({"period": "day", "scope": "tag", "name": "a\nb"}, "name"),
        ({"period": "day", "scope": "tag", "name": "x" * 257}, "name"),
        ({"period": "day", "scope": "tag", "name": 5}, "name"),
    ],
)
def test_words_and_names_are_checked_when_it_is_made(options: dict[str, str], field: str) -> None:
    """A cap that could never hold is refused at once, and says which field is wrong."""
    with pytest.raises(BadRequest) as refused:
        SpendingCap("1", **options)

    assert refused.value.field == field


def test_the_period_has_no_default() -> None:
    """Whether a sum is for a day or for ever nobody should guess."""
    with pytest.raises(TypeError, match="period"):
        SpendingCap("1")  # type: ignore[call-arg]


def test_words_become_what_they_mean() -> None:
    """Text and enumeration are one; refusing unknown prices is the default."""
    cap = SpendingCap("1", period="month", scope="vendor", name="openai")

    assert cap == SpendingCap(
        1.0,
        period=Period.MONTH,
        scope=Scope.VENDOR,
        name="openai",
        unknown_price=UnknownPrice.REFUSE,
    )
    assert str(cap) == "$1 a month for vendor 'openai'"
    assert str(SpendingCap("2.50", period="ever")) == "$2.50 in all"


def test_a_fingerprint_tells_keys_apart_and_shows_nothing_of_them() -> None:
    """16 hex digits, the same for the same key in every process."""
    one, other = fingerprint("sk-abcdef"), fingerprint("sk-abcdeg")

    assert one != other
    assert one == "9de747d919216a1e"
    assert not set(one) - set("0123456789abcdef")
