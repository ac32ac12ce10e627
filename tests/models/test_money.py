"""Prices: exact, rounded once, zero is free and unknown is unknown."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import FREE, BadRequest, ConfigError, ModelCard, Price, Usage
from llmdispatcher.models.catalog import Catalog

COUNTS = st.integers(0, 10**9)
RATES = st.decimals(0, 10_000, places=6)


@given(prompt=COUNTS, cached=COUNTS, written=COUNTS, output=COUNTS, rates=st.tuples(*[RATES] * 4))
def test_cost_is_the_exact_sum_rounded_up_once(
    prompt: int, cached: int, written: int, output: int, rates: tuple[Decimal, ...]
) -> None:
    """The cost equals the sum in fractions of a dollar, rounded up to a micro-dollar at the end."""
    usage = Usage(
        prompt_tokens=prompt + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        completion_tokens=output,
    )
    price = Price.per_million(rates[0], rates[1], cached_input=rates[2], cache_write=rates[3])

    parts = zip((prompt, output, cached, written), rates, strict=True)
    exact = sum((count * Fraction(rate) for count, rate in parts), Fraction(0))

    assert price.cost_microusd(usage) == -(-exact.numerator // exact.denominator)


def test_a_dollar_per_million_tokens_is_a_microdollar_per_token() -> None:
    """$0.15 in and $0.60 out per million: 1,000 in and 500 out cost 450 micro-dollars."""
    price = Price.per_million(0.15, 0.6)

    assert price.cost_microusd(Usage(prompt_tokens=1000, completion_tokens=500)) == 450


def test_one_token_of_a_cheap_model_costs_a_microdollar() -> None:
    """A cost that is not zero never rounds to zero."""
    assert Price.per_million("0.000001", 0).cost_microusd(Usage(prompt_tokens=1)) == 1
    assert FREE.cost_microusd(Usage(prompt_tokens=10**9)) == 0


def test_cached_tokens_cost_as_input_where_no_rate_is_known() -> None:
    """Without a rate of their own, cached tokens are not a gift."""
    usage = Usage(prompt_tokens=100, cached_tokens=60)

    assert Price.per_million(1, 0).cost_microusd(usage) == 100
    assert Price.per_million(1, 0, cached_input=0).cost_microusd(usage) == 40


@pytest.mark.parametrize("usd", ["-1", "x", "nan", "inf", "0.0000001"])
def test_an_amount_that_is_none_is_refused(usd: str) -> None:
    """A price must be an amount in dollars, exact in six decimals."""
    with pytest.raises(BadRequest, match="input is"):
        Price.per_million(usd, 0)


def test_the_catalog_wins_over_the_card() -> None:
    """What the user says of a model replaces what the vendor reported, and only that."""
    card = ModelCard(vendor="v", model="m", local=True, price=FREE, context_tokens=512)
    rows = {"v/m": {"quality": 3, "price": {"input": "0.10", "output": 0.4}}}

    patched = Catalog.parse({"models": rows}).apply(card)

    assert patched.price == Price.per_million("0.1", "0.4")
    assert (patched.quality, patched.context_tokens) == (3, 512)
    assert Catalog.parse({}).apply(card) is card


def test_facts_of_all_models_of_a_vendor() -> None:
    """``vendor/*`` says them where nothing is said of a model by its name, fact by fact."""
    rows: dict[str, Any] = {"v/*": {"quality": 2, "price": {"input": 1, "output": 1}}}
    rows["v/m"] = {"quality": 4}
    catalog = Catalog.parse({"models": rows})
    named, other, foreign = (
        catalog.apply(ModelCard(vendor=vendor, model=model, local=True))
        for vendor, model in (("v", "m"), ("v", "n"), ("w", "m"))
    )

    assert (named.quality, other.quality, foreign.quality) == (4, 2, None)
    assert named.price == other.price == Price.per_million(1, 1)
    assert foreign.price is None


def test_null_price_is_unknown() -> None:
    """A price of null makes the price unknown, which is not free."""
    card = ModelCard(vendor="v", model="m", local=True, price=FREE)

    assert Catalog.parse({"models": {"v/m": {"price": None}}}).apply(card).price is None


def test_all_problems_of_a_catalog_are_told_at_once() -> None:
    """Every problem comes with its key path, and unknown keys with the nearest known one."""
    rows = {
        "nameless": {},
        "v/a": 5,
        "v/d": {"price": {"input": 1}},
        "v/b": {"qualty": 3, "quality": 9, "price": {"inptu": 1}},
        "v/c": {"price": {"input": "free", "output": 1}, "last_resort": "yes"},
    }
    with pytest.raises(ConfigError) as caught:
        Catalog.parse({"models": rows, "modles": {}}, "cat.yaml")

    told = {problem.key_path: problem.message for problem in caught.value.problems}
    assert set(told) == {
        "modles",
        "models.nameless",
        "models.v/a",
        "models.v/b.qualty",
        "models.v/b.quality",
        "models.v/b.price",
        "models.v/c.price",
        "models.v/d.price",
        "models.v/c.last_resort",
    }
    assert told["models.v/b.qualty"] == "unknown key 'qualty'; did you mean 'quality'?"
    assert "given with output; 0 is free" in told["models.v/d.price"]
    assert all(problem.file == "cat.yaml" for problem in caught.value.problems)
