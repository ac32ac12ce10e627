"""When a second copy is worth sending, and how many there may be."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.hedging import LEAST, MOST_COPIES, PRIOR_S, WINDOW, Hedging

TIMES = st.lists(st.floats(0.001, 100), min_size=1, max_size=2 * WINDOW)


@given(TIMES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_late_is_the_percentile_of_the_last_times(times: list[float], percentile: float) -> None:
    """At least so many of the times in the window are no longer, and no shorter one is enough."""
    hedging = Hedging()
    for each in times:
        hedging.heard("v/m", each)
    kept = times[-WINDOW:]

    late_s = hedging.late_s("v/m", percentile)

    if len(kept) < LEAST:
        assert late_s == PRIOR_S
        return
    needed = math.ceil(percentile * len(kept))
    assert sum(each <= late_s for each in kept) >= needed
    assert sum(each < late_s for each in kept) < needed


def test_it_adapts() -> None:
    """A model that has become slow is known for it, and forgotten to have been when it is quick."""
    hedging = Hedging()
    for _ in range(WINDOW):
        hedging.heard("v/m", 0.2)
    assert hedging.late_s("v/m", 0.95) == 0.2
    for _ in range(6):
        hedging.heard("v/m", 5.0)
    assert hedging.late_s("v/m", 0.95) == 5.0
    for _ in range(WINDOW):
        hedging.heard("v/m", 0.2)
    assert hedging.late_s("v/m", 0.95) == 0.2
    assert hedging.late_s("v/other", 0.95) == PRIOR_S


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 50)), max_size=200))
def test_copies_and_what_they_waste_keep_to_the_share(
    story: list[tuple[bool, int, int]],
) -> None:
    """However requests come, copies are no more than a tenth of them, and of their cost."""
    hedging, copies, spent = Hedging(), 0, 0
    for requests, (is_late, expected, cost) in enumerate(story, 1):
        spent += 100
        hedging.earn(0.1)
        if is_late and not hedging.take(0.1, expected, spent):
            copies += 1
            assert hedging.wasted_microusd <= 0.1 * spent or not expected
            hedging.waste(min(cost, expected), expected)
        assert copies <= 0.1 * requests + 1e-6
    assert hedging.wasted_microusd <= 0.1 * spent


def test_what_was_saved_up_is_bounded() -> None:
    """After a quiet day, a bad minute sends ten copies and then its share."""
    hedging = Hedging()
    for _ in range(10_000):
        hedging.earn(0.1)

    sent = sum(not hedging.take(0.1, 0, 0) for _ in range(100))

    assert sent == MOST_COPIES
    assert "copies may be 10% of the requests" in hedging.take(0.1, 0, 0)


def test_a_cost_that_is_not_known_counts_as_expected() -> None:
    """Nothing that was set aside is given back without a figure."""
    hedging = Hedging()
    hedging.earn(1.0)
    assert hedging.take(1.0, 40, 100) == ""

    hedging.waste(None, 40)

    assert hedging.wasted_microusd == 40
