"""What a user may set about failures and limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import attrs
import pytest

from llmdispatcher import BadRequest
from llmdispatcher.models.headroom import Headroom, Quantity, Room
from llmdispatcher.models.policy import BreakerPolicy, Limits, RetryPolicy


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (RetryPolicy, {"attempts": 0}),
        (RetryPolicy, {"attempts": True}),
        (RetryPolicy, {"attempts": None}),
        (RetryPolicy, {"same_target": -1}),
        (RetryPolicy, {"backoff_s": -0.1}),
        (RetryPolicy, {"backoff_s": None}),
        (RetryPolicy, {"backoff_cap_s": float("nan")}),
        (RetryPolicy, {"max_wait_s": float("inf")}),
        (RetryPolicy, {"max_wait_s": None}),
        (RetryPolicy, {"total_s": -1}),
        (RetryPolicy, {"max_cost_usd": -1}),
        (RetryPolicy, {"max_cost_usd": "much"}),
        (RetryPolicy, {"max_cost_usd": float("nan")}),
        (RetryPolicy, {"max_cost_usd": True}),
        (BreakerPolicy, {"failures": 0}),
        (BreakerPolicy, {"open_s": 0}),
        (BreakerPolicy, {"open_s": None}),
        (BreakerPolicy, {"factor": 0.5}),
        (BreakerPolicy, {"open_s": 10, "cap_s": 5}),
        (BreakerPolicy, {"jitter": 2}),
        (Limits, {"requests_per_minute": 0}),
        (Limits, {"tokens_per_day": 1.5}),
        (Limits, {"burst": 0}),
        (Limits, {"burst": None}),
        (Limits, {"concurrency": 0}),
        (Limits, {"waits": 1}),
        (Limits, {"queue": -1}),
    ],
)
def test_what_is_out_of_range_is_refused(kind: Any, values: dict[str, Any]) -> None:
    """A value that cannot be meant is refused where it is made, by name."""
    with pytest.raises(BadRequest, match=list(values)[-1]):
        kind(**values)


@pytest.mark.parametrize("kind", [RetryPolicy, BreakerPolicy, Limits])
def test_a_policy_cannot_be_changed(kind: Any) -> None:
    """Policies are values: equal if made alike, and frozen."""
    made = kind()

    assert made == kind()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.attempts = 1


@pytest.mark.parametrize(
    ("usd", "microusd"),
    [(None, None), (0, 0), (0.1, 100_000), ("0.0000019", 1), (Decimal("2.5"), 2_500_000)],
)
def test_money_is_exact(usd: Any, microusd: int | None) -> None:
    """Dollars are read as they are written, and a limit is rounded down to micro-dollars."""
    assert RetryPolicy(max_cost_usd=usd).max_cost_microusd == microusd


def test_headroom_is_found_by_quantity_and_window() -> None:
    """A limit is told apart by what it counts and over which time."""
    minute = Room(quantity=Quantity.REQUESTS, limit=10)
    day = Room(quantity=Quantity.REQUESTS, limit=1000, window="day")
    headroom = Headroom([minute, day])

    assert headroom.of(Quantity.REQUESTS) is minute
    assert headroom.of(Quantity.REQUESTS, "day") is day
    assert headroom.of(Quantity.TOKENS) is None
    assert headroom
    assert not Headroom()
