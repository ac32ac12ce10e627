"""Laws of choosing: any order is the one that trying all of them finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from enumerator import Asked, Offer, Trial, allowed, best_order, dollars, refused, trial, worst
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shop import request, shop

TENTHS = st.integers(1, 10).map(lambda n: Fraction(n, 10))
MONEY = st.integers(0, 12).map(Fraction)
TRIALS = st.lists(st.builds(Trial, MONEY, TENTHS, TENTHS, MONEY), min_size=1, max_size=5)

AROUND = 2_000
"""Tokens that a worst case may count around a text; budgets are not drawn so close to one."""


@given(TRIALS)
def test_the_index_orders_trials_as_trying_every_order_does(trials: list[Trial]) -> None:
    """Least index first costs least of all orders.

    By an exchange: two neighbours who serve with chances p and q, and cost s and t each time they
    are asked, cost s + (1 - p)t in one order and t + (1 - q)s in the other. The first is no dearer
    if s/p <= t/q, whoever comes before and behind them; and s/p is the index.
    """
    by_index = dollars(sorted(trials, key=lambda each: each.index))

    assert by_index == min(map(dollars, permutations(trials)))


ABLE = st.frozensets(st.sampled_from(["prefill", "json", "logprobs", "choices"])).map(
    lambda able: able | {"chat"}
)
RATES = st.sampled_from(["0", "0.1", "0.15", "0.6", "1", "2.5", "10"])
MODELS = st.sampled_from(["a/m", "a/k", "b/m", "b/openai/m", "c/m", "d/k", "e/m"])


STRATEGIES: list[tuple[str | None, str, tuple[str, ...]]] = [
    (None, "", ()),
    (None, "", ()),
    ("cost", "", ()),
    ("local_only", "local", ()),
    ("cloud_only", "cloud", ()),
    ("local_first", "", ("local",)),
    ("cloud_first", "", ("cloud",)),
    ("priority", "", ("priority",)),
    ("quality", "", ("quality",)),
]
"""A name, whom it leaves standing, and what it looks at before money."""


@st.composite
def priced(draw: st.DrawFn) -> dict[str, Any]:
    """A price, now and then unknown, with longer prompts that cost more."""
    reading, writing = draw(RATES), draw(RATES)
    steps = draw(st.sampled_from([(), ((1_000, _twice(reading), _twice(writing)),)]))
    known: dict[str, Any] = {"input": reading, "output": writing, "above": steps}
    known["per_request"] = draw(st.sampled_from(["0", "0", "0.000123", "0.01"]))
    return draw(st.sampled_from([{}, known, known, known, known]))


def _twice(usd: str) -> str:
    return f"{float(usd) * 2:g}"


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    """One to five models, several of a vendor at times."""
    names = draw(st.lists(MODELS, min_size=1, max_size=5, unique=True))
    return [
        Offer(
            name=name,
            **draw(priced()),
            local=draw(st.booleans()),
            able=draw(ABLE),
            context=draw(st.sampled_from([None, None, 500, 8_192, 200_000])),
            most=draw(st.sampled_from([None, 256, 4_096])),
            quality=draw(st.sampled_from([None, 1, 2, 3, 4, 5])),
            last=draw(st.sampled_from([False, False, False, True])),
            named_only=draw(st.sampled_from([False, False, False, True])),
            state=draw(st.sampled_from(["", "", "", "dead", "cooling"])),
            priority=draw(st.integers(-1, 1)),
        )
        for name in sorted(names, key=lambda name: name.partition("/")[0])
    ]


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """A request of any length and bounds."""
    needs = draw(ABLE.map(lambda able: able - {"choices"}))
    several = draw(st.sampled_from([1, 1, 1, 2, 3]))
    strategy, only, ranks = draw(st.sampled_from(STRATEGIES))
    return Asked(
        bytes=draw(st.sampled_from([1, 40, 400, 3_999, 4_000, 4_001, 40_000, 400_001])),
        max_tokens=draw(st.sampled_from([None, None, 1, 50, 244, 1_000])),
        n=several,
        needs=(needs if draw(st.booleans()) else frozenset({"chat"}))
        | ({"choices"} if several > 1 else set()),
        vendor=draw(st.sampled_from([None, None, None, "a", "b"])),
        model=draw(st.sampled_from([None, None, None, "m", "openai/m"])),
        allow_cloud=draw(st.sampled_from([True, True, False])),
        strategy=strategy,
        only=only,
        ranks=ranks,
        max_cost_usd=draw(st.sampled_from([None, None, None, "0.0004", "0.01", "1"])),
    )


def _is_clear(asked: Asked, offers: Sequence[Offer]) -> bool:
    """Whether no worst case is so near to the budget that what stands around a text decides."""
    if asked.max_cost_usd is None:
        return True
    for offer in offers:
        least, most = worst(asked, offer, 0), worst(asked, offer, AROUND)
        if least is not None and most is not None and least <= Fraction(asked.max_cost_usd) < most:
            return False
    return True


@pytest.fixture
def asked_once() -> None:
    """Breakers and retries are the product's own here."""


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_any_order_is_the_best_of_all_orders(count: int) -> None:
    """Whatever is there and asked for: the same order, the same are left out, the same dollars.

    Of those who would be refused now, only that they are last: they have lived through failures.
    """

    @settings(max_examples=count, deadline=None)
    @given(asked(), offers())
    def check(asked: Asked, offers: list[Offer]) -> None:
        assume(_is_clear(asked, offers))
        best = best_order(asked, offers)
        ready = [offer.name for offer in best if not refused(asked, offer)]
        with shop(asked, offers) as d:
            told = d.explain(request(asked, offers))
        found = [f"{each.vendor}/{each.model}" for each in told.candidates]

        assert found[: len(ready)] == ready, str(told)
        assert set(found) == {offer.name for offer in allowed(asked, offers)}, str(told)
        costs = [each.expected_cost_microusd for each in told.candidates[: len(ready)]]
        assert costs == [_microusd(asked, offer) for offer in best[: len(ready)]], str(told)

    check()


def _microusd(asked: Asked, offer: Offer) -> int | None:
    """Return the index as it is shown: rounded up."""
    return None if offer.input is None else math.ceil(trial(asked, offer).index * 10**6)
