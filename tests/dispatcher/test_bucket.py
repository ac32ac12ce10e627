"""Buckets of ours and gauges of the vendor's, and how many at once a server bears."""

from __future__ import annotations

import math

import pytest

from llmdispatcher.bucket import Bucket, Gauge, Needs, buckets
from llmdispatcher.models import errors
from llmdispatcher.models.headroom import Quantity, Room
from llmdispatcher.models.policy import Limits
from llmdispatcher.window import DECREASE, MOST, START, Window, is_congestion, window


def bucket(quantity: Quantity = Quantity.REQUESTS, capacity: float = 10) -> Bucket:
    """Make a full bucket that refills one a second."""
    return Bucket(
        quantity=quantity, window="minute", capacity=capacity, rate_per_s=1.0, level=capacity
    )


def test_every_limit_of_a_user_makes_its_bucket() -> None:
    """Each of the eight limits counts its own quantity over its own time."""
    limits = Limits(
        requests_per_minute=60,
        requests_per_day=86400,
        tokens_per_minute=120,
        tokens_per_day=1000,
        input_tokens_per_minute=30,
        input_tokens_per_day=2000,
        output_tokens_per_minute=15,
        output_tokens_per_day=4000,
        burst=0.5,
    )

    made = {(b.quantity.value, b.window): (b.capacity, b.rate_per_s) for b in buckets(limits)}

    assert made == {
        ("requests", "minute"): (30, 1.0),
        ("requests", "day"): (43200, 1.0),
        ("tokens", "minute"): (60, 2.0),
        ("tokens", "day"): (500, 1000 / 86400),
        ("input_tokens", "minute"): (15, 0.5),
        ("input_tokens", "day"): (1000, 2000 / 86400),
        ("output_tokens", "minute"): (7.5, 0.25),
        ("output_tokens", "day"): (2000, 4000 / 86400),
    }
    assert buckets(Limits()) == []
    assert buckets(Limits(requests_per_minute=2, burst=0.01))[0].capacity == 1


def test_a_bucket_says_when_there_is_enough() -> None:
    """Empty, it takes as many seconds as requests, no longer than told, and none for what fits."""
    made = bucket()
    made.take(10, 100.0)

    assert made.wait_s(0, 100.0) == 0
    assert made.wait_s(3, 100.0) == 3
    assert made.wait_s(3, 102.0) == 1
    assert made.wait_s(3, 103.0) == 0
    assert made.wait_s(10, 1000.0) == 0
    assert made.wait_s(10.5, 1000.0) == math.inf


def test_what_was_used_beyond_the_estimate_is_a_debt() -> None:
    """Below zero nobody passes until it is paid off; what comes back fills it, and no more."""
    made = bucket()
    made.take(10, 0.0)
    made.give(-5, 0.0)
    assert made.wait_s(1, 0.0) == 6

    made.give(100, 0.0)
    assert made.level == 10


def test_an_output_larger_than_the_bucket_takes_all_of_it() -> None:
    """Output is reserved for the worst case, which alone keeps nobody out; input does."""
    needs = Needs(input_tokens=4, output_tokens=1000)

    assert bucket(Quantity.OUTPUT_TOKENS).amount(needs) == 10
    assert bucket(Quantity.TOKENS).amount(needs) == 10
    assert bucket(Quantity.INPUT_TOKENS).amount(needs) == 4
    assert bucket(Quantity.REQUESTS).amount(needs) == 1
    assert bucket(Quantity.TOKENS).amount(Needs(11, 0)) == 11
    assert bucket(Quantity.INPUT_TOKENS).amount(Needs(11, 0)) == 11


def room(
    remaining: int | None, reset_s: float | None, limit: int | None = 100, window: str = ""
) -> Room:
    """Tell of a limit of tokens."""
    return Room(
        quantity=Quantity.TOKENS, limit=limit, remaining=remaining, reset_s=reset_s, window=window
    )


def test_a_gauge_of_which_nothing_is_known_lets_everything_pass() -> None:
    """Without an answer nobody waits, however much is sent."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.take(10**9, 5.0)

    assert gauge.wait_s(10**9, 5.0) == 0


@pytest.mark.parametrize(
    "told", [room(None, 5.0), room(0, None), room(0, None, window="fortnight")]
)
def test_what_is_told_in_part_keeps_nobody_waiting(told: Room) -> None:
    """Without what is left, or until when, a limit is no ground to wait."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(told, 0, 0.0)

    assert gauge.wait_s(50, 0.0) == 0


def test_a_gauge_refills_evenly_until_the_vendors_time() -> None:
    """With 20 of 100 left and all of them in 40 s, 30 are there in 5 s and 100 in 40 s."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(room(20, 40.0), 0, 10.0)

    assert gauge.wait_s(20, 10.0) == 0
    assert gauge.wait_s(30, 10.0) == pytest.approx(5)
    assert gauge.wait_s(100, 10.0) == pytest.approx(40)
    assert gauge.wait_s(5000, 10.0) == pytest.approx(40), "more than the limit waits for all of it"
    gauge.take(20, 10.0)
    assert gauge.wait_s(100, 50.0) == pytest.approx(10)


def test_without_the_limit_all_comes_back_at_the_vendors_time() -> None:
    """Where no rate can be known, one waits for the time that was told, and then for nothing."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(room(20, 40.0, limit=None), 0, 0.0)

    assert gauge.wait_s(20, 0.0) == 0
    assert gauge.wait_s(21, 0.0) == 40
    assert gauge.wait_s(21, 39.0) == 1
    assert gauge.wait_s(10**9, 40.0) == 0


def test_a_limit_named_for_its_minute_refills_within_one() -> None:
    """A window in the name of a header stands for the time that no header tells."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(room(0, None, limit=120, window="minute"), 0, 0.0)

    assert gauge.wait_s(10, 0.0) == pytest.approx(5)


def test_answers_that_cross_requests_on_their_way_are_read_right() -> None:
    """What was sent later may be in the count or not; our own count says where the truth lies."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(room(90, 10.0, limit=None), 30, 0.0)
    assert gauge.level == 60, "nothing was known: the 30 under way may not be counted yet"

    gauge.read(room(80, 10.0, limit=None), 30, 0.0)
    assert gauge.level == 60, "between 50 and 80, our own count is kept"

    gauge.read(room(40, 10.0, limit=None), 30, 0.0)
    assert gauge.level == 40, "the vendor counts more than we do"

    gauge.read(room(100, 10.0, limit=None), 30, 0.0)
    assert gauge.level == 70, "it has refilled; the 30 may come off that"


def test_what_was_never_sent_comes_back_to_a_gauge() -> None:
    """A request that was cancelled before it left has used nothing of the vendor's."""
    gauge = Gauge(quantity=Quantity.TOKENS)
    gauge.read(room(50, 10.0), 0, 0.0)
    gauge.take(50, 0.0)
    gauge.give(50, 0.0)

    assert gauge.wait_s(50, 0.0) == 0


def test_without_limits_nothing_bounds_how_many_go() -> None:
    """A window is there where the user asks for one, of the size that was asked for."""
    assert window(Limits()) is None
    fixed, grown = window(Limits(concurrency=7)), window(Limits(adaptive=True))
    small = window(Limits(concurrency=2, adaptive=True))

    assert fixed is not None
    assert grown is not None
    assert small is not None
    assert (fixed.size, fixed.most) == (7, 7)
    assert (grown.size, grown.most) == (START, MOST)
    assert (small.size, small.most) == (2, 2)


def test_a_fixed_window_heeds_nothing() -> None:
    """A number that the user gave is neither raised nor lowered."""
    made = window(Limits(concurrency=3))
    assert made is not None
    made.congested(1, 1)
    made.served(2, 3, 3, 1.0)

    assert made.size == 3


def adaptive(size: float = 4, most: float = 8) -> Window:
    """Make a window that adapts."""
    return Window(most=most, size=size, is_adaptive=True)


def test_a_window_in_full_use_grows_by_one_a_round() -> None:
    """As many replies as there are places make one more place, and none beyond the most."""
    made = adaptive()
    for number in range(1, 5):
        made.served(number, 4, number, None)
    assert 4.8 < made.size <= 5
    for number in range(5, 500):
        made.served(number, 8, number, None)
    assert made.size == 8


def test_a_window_that_is_not_used_does_not_grow() -> None:
    """Who never sends so many learns nothing of whether they would be borne."""
    made = adaptive()
    for number in range(100):
        made.served(number, 3, number, None)

    assert made.size == 4


def test_one_round_of_refusals_halves_a_window_once() -> None:
    """All that were under way at the first refusal belong to it; the next round is another."""
    made = adaptive(size=8)
    for number in range(1, 9):
        made.congested(number, 8)
    assert made.size == 8 * DECREASE

    made.congested(9, 12)
    assert made.size == 8 * DECREASE**2
    for number in range(20, 100, 10):
        made.congested(number, number)
    assert made.size == 1, "one may always go"
    assert made.has_room(0)
    assert not made.has_room(1)


def test_a_server_that_gets_slow_is_asked_less() -> None:
    """Three times slower than at its best is too much at once; a little slower is not."""
    made = adaptive(size=4)
    made.served(1, 1, 1, 0.1)
    made.served(2, 1, 2, 0.2)
    assert made.size == 4

    made.served(3, 4, 3, 0.9)
    assert made.size == 2


def test_a_server_that_stays_slow_is_judged_by_what_it_is() -> None:
    """After some hundred replies at a new pace, that pace is its own."""
    made = adaptive(size=4)
    made.served(1, 1, 1, 0.1)
    for number in range(2, 200):
        made.served(number, 1, number, 1.0)
    made.size = 4
    made.served(300, 4, 300, 1.0)

    assert made.size > 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Overloaded("x"), True),
        (errors.RateLimited("x"), True),
        (errors.OutOfMemory("x"), True),
        (errors.TimedOut("first_token", 1), True),
        (errors.TimedOut("total", 1), False),
        (errors.TimedOut("load", 1), False),
        (errors.Unreachable("x"), False),
        (errors.BadRequest("n", 0, "more"), False),
        (errors.Cancelled(), False),
    ],
)
def test_some_errors_say_that_it_was_too_much(
    error: errors.DispatcherError,
    expected: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Refusals and silence of the server do; mistakes, broken lines and patience do not."""
    assert is_congestion(error) is expected
