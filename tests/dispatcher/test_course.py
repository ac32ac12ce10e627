"""Who is asked next after a failure, and when nobody is."""

from __future__ import annotations

from itertools import product
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.course import MAX_RETURNS, Ask, Course, End, Move
from llmdispatcher.line import MIN_WAIT_S
from llmdispatcher.models import errors
from llmdispatcher.models.card import FREE, Price
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.policy import RetryPolicy
from llmdispatcher.place import Place
from llmdispatcher.retry import Ration

PATIENT = RetryPolicy(attempts=100, max_wait_s=86400, total_s=None, max_cost_usd=1000)


def course(*places: Place, policy: RetryPolicy = PATIENT) -> Course:
    """Make a course that has begun at second 0 with its first candidate."""
    made = Course(places, policy, began_s=0.0)
    assert made.begin() == Ask(0)
    return made


A, B, C = Place("a"), Place("b"), Place("c")


def test_without_candidates_there_is_nothing_to_begin() -> None:
    """A course of nobody ends at once."""
    made = Course((), PATIENT, began_s=0.0)

    assert isinstance(made.begin(), End)
    with pytest.raises(RuntimeError, match="nobody was asked"):
        made.after(errors.Overloaded("x"), 0.0, draw=0.5)


def test_one_500_is_tried_again_and_then_the_next() -> None:
    """What may pass is asked twice more, after growing pauses, and then another candidate."""
    made, error = course(A, B), errors.VendorError("x", status=500)

    moves = [made.after(error, float(now), draw=0.5) for now in range(4)]

    assert moves[:3] == [Ask(0, 0.25), Ask(0, 0.5), Ask(1, 0.0)]
    assert moves[3] == Ask(1, 0.25)


def test_a_silent_route_is_left_at_once() -> None:
    """After a timeout the next is asked without a pause, and the silent one never again."""
    made, error = course(A, B), errors.TimedOut("first_token", 10.0)

    assert made.after(error, 10.0, draw=0.5) == Ask(1, 0.0)
    assert isinstance(made.after(error, 20.0, draw=0.5), End)


def test_rate_limited_with_another_candidate_goes_there_now() -> None:
    """Nobody waits for a vendor while another has not been asked."""
    made = course(A, B)

    assert made.after(errors.RateLimited("x", retry_after_s=30), 0.0, draw=0.5) == Ask(1, 0.0)


def test_rate_limited_alone_waits_as_told() -> None:
    """The same is asked again never sooner than it said, and soon after."""
    made = course(A)

    move = made.after(errors.RateLimited("x", retry_after_s=30), 0.0, draw=0.5)

    assert isinstance(move, Ask)
    assert move.index == 0
    assert 30 <= move.wait_s <= 30.5


def test_all_cooling_down_waits_for_the_first_to_come_back() -> None:
    """Of those that told when, the first to be ready is asked, not the first in order."""
    made = course(A, B, C)
    made.after(errors.RateLimited("x", retry_after_s=30), 0.0, draw=0.0)
    made.after(errors.BreakerOpen("x", retry_after_s=7), 1.0, draw=0.0)

    move = made.after(errors.RateLimited("x", retry_after_s=20), 2.0, draw=0.0)

    assert move == Ask(1, 6.0)
    assert made.after(errors.TimedOut("idle", 1.0), 9.0, draw=0.0) == Ask(2, 13.0)
    assert made.after(errors.TimedOut("idle", 1.0), 22.0, draw=0.0) == Ask(0, 8.0)


def test_waiting_longer_than_the_policy_ends_and_says_when() -> None:
    """A wait that is not allowed is not begun; the caller learns how long it would have been."""
    made = course(A, policy=RetryPolicy(max_wait_s=60))

    move = made.after(errors.RateLimited("x", retry_after_s=61), 0.0, draw=0.0)

    assert isinstance(move, End)
    assert move.retry_after_s == 61
    assert "61.0 s" in move.reason


def test_waiting_beyond_the_callers_deadline_ends_at_once() -> None:
    """What cannot be in time is not waited for."""
    made = course(A)

    move = made.after(errors.RateLimited("x", retry_after_s=5), 0.0, draw=0.0, left_s=5.0)

    assert isinstance(move, End)
    assert "deadline" in move.reason


def test_a_long_wait_told_with_503_goes_to_the_next() -> None:
    """Whoever wants a longer pause than any backoff is treated as a limit: others come first."""
    made = course(A, B)

    assert made.after(errors.Overloaded("x", retry_after_s=20), 0.0, draw=0.0) == Ask(1, 0.0)
    assert made.after(errors.TimedOut("idle", 1.0), 5.0, draw=0.0) == Ask(0, 15.0)


@pytest.mark.parametrize("error", [errors.QuotaExhausted("x"), errors.AuthRejected("x")])
def test_a_key_that_fails_fails_for_all_its_models(error: DispatcherError) -> None:
    """All candidates with the same key are skipped; those with another are asked."""
    made = course(Place("a"), Place("a"), Place("b"), Place("a"))

    assert made.after(error, 0.0, draw=0.0) == Ask(2, 0.0)
    assert isinstance(made.after(error, 0.0, draw=0.0), End)


def test_a_model_that_is_forbidden_leaves_the_others_of_the_key() -> None:
    """403 concerns one model; the next of the same vendor is asked."""
    made = course(Place("a"), Place("a"))

    assert made.after(errors.AuthRejected("x", status=403), 0.0, draw=0.0) == Ask(1, 0.0)


@pytest.mark.parametrize(
    ("error", "sizes", "expected"),
    [
        (errors.ContextOverflow(9000, 8000), (8000, 8000, 8500, 9000), 3),
        (errors.ContextOverflow(None, 8000), (8000, 8000, 8500, 9000), 2),
        (errors.ContextOverflow(), (8000, 4000, 8000, 8001), 3),
        (errors.ContextOverflow(), (8000, None, 8000, 9000), 1),
        (errors.ContextOverflow(), (None, 10, 20, 30), 1),
        (errors.ContextOverflow(9000, 8000), (8000, 1, 2, 3), None),
    ],
)
def test_a_prompt_too_long_goes_to_a_larger_context(
    error: DispatcherError, sizes: tuple[int | None, ...], expected: int | None
) -> None:
    """Contexts known to be too small are skipped; one whose size is not known is asked."""
    made = course(*(Place(i, size) for i, size in enumerate(sizes)))

    move = made.after(error, 0.0, draw=0.0)

    assert (move.index if isinstance(move, Ask) else None) == expected


@pytest.mark.parametrize("error", [errors.ContentRefused("x"), errors.Refused("x")])
def test_what_stops_stops(error: DispatcherError) -> None:
    """Nobody is asked after a content filter or a refusal of ours."""
    assert isinstance(course(A, B).after(error, 0.0, draw=0.0), End)


def test_a_crashed_engine_is_asked_once_more() -> None:
    """The worker that starts again gets one more try, then others do."""
    made, crash = course(A, B), errors.EngineCrashed("x")

    assert made.after(crash, 0.0, draw=0.0) == Ask(0, 0.0)
    assert made.after(crash, 0.0, draw=0.0) == Ask(1, 0.0)


def test_a_limit_that_never_lets_in_is_not_waited_for() -> None:
    """Our own refusal without a time is final for this candidate."""
    assert isinstance(course(A).after(errors.LimitReached("x"), 0.0, draw=0.0), End)


def test_refusals_of_ours_are_no_attempts() -> None:
    """What was never sent uses up no attempt, and waits are counted instead."""
    made = course(A, policy=RetryPolicy(attempts=1, max_wait_s=10))
    refused = errors.BreakerOpen("x", retry_after_s=4)

    assert made.after(refused, 0.0, draw=0.0) == Ask(0, 4.0)
    assert made.after(refused, 4.0, draw=0.0) == Ask(0, 4.0)
    assert isinstance(made.after(refused, 8.0, draw=0.0), End)
    assert made.allowance.attempts == 0
    assert made.allowance.waited_s == 8.0


def test_who_is_always_ready_at_once_is_asked_less_and_less() -> None:
    """A refusal that tells no time to wait is not come back to in a circle without a pause."""
    made, waits = course(A), []
    for _ in range(7):
        move = made.after(errors.BreakerOpen("x", retry_after_s=0), 0.0, draw=0.0)
        assert isinstance(move, Ask)
        waits.append(move.wait_s)

    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_money_ends_the_course() -> None:
    """No further attempt begins once the attempts have cost what was allowed."""
    made = course(A, B, policy=RetryPolicy(max_cost_usd="0.01"))
    made.spend(cost_microusd=10_000)

    move = made.after(errors.TimedOut("idle", 1.0), 0.0, draw=0.0)

    assert isinstance(move, End)
    assert "10000 of 10000 micro-dollars" in move.reason


def test_a_clock_that_jumps_makes_nobody_wait_longer() -> None:
    """Set back by a year, the wait is still the one that was told."""
    made = course(A, B)
    made.after(errors.BreakerOpen("x", retry_after_s=3), 1e9, draw=0.0)

    assert made.after(errors.TimedOut("idle", 1.0), 0.0, draw=0.0) == Ask(0, 3.0)


ERRORS = st.one_of(
    st.builds(
        errors.RateLimited, st.just("x"), retry_after_s=st.one_of(st.none(), st.floats(0, 9))
    ),
    st.builds(
        errors.Overloaded, st.just("x"), retry_after_s=st.one_of(st.none(), st.floats(0, 90))
    ),
    st.builds(
        errors.BreakerOpen, st.just("x"), retry_after_s=st.one_of(st.none(), st.floats(0, 9))
    ),
    st.builds(errors.ContextOverflow, st.one_of(st.none(), st.integers(1, 40))),
    st.sampled_from(
        [
            errors.TimedOut("idle", 1.0),
            errors.VendorError("x", status=500),
            errors.BadReply("x"),
            errors.QuotaExhausted("x"),
            errors.EngineCrashed("x"),
            errors.ContentRefused("x"),
        ]
    ),
)


@settings(deadline=None)
@given(
    places=st.lists(
        st.builds(
            Place,
            st.sampled_from("abc"),
            st.one_of(st.none(), st.integers(1, 50)),
            is_local=st.booleans(),
            is_last_resort=st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    failures=st.lists(
        st.tuples(
            ERRORS,
            st.floats(0, 20),
            st.floats(0, 1, exclude_max=True),
            st.one_of(st.none(), st.floats(0, 9)),
        ),
        min_size=1,
        max_size=60,
    ),
    policy=st.builds(
        RetryPolicy,
        attempts=st.integers(1, 12),
        same_target=st.integers(0, 4),
        max_wait_s=st.just(30),
        total_s=st.none(),
        full_wait_s=st.sampled_from([0, 5, 60]),
    ),
    is_by_cost=st.booleans(),
)
def test_retries_and_fallbacks_never_multiply(
    places: list[Place],
    failures: list[tuple[DispatcherError, float, float, float | None]],
    policy: RetryPolicy,
    *,
    is_by_cost: bool,
) -> None:
    """Sendings and waits stay within the policy in all, the end comes, and who is out stays out."""
    made = Course(places, policy, began_s=0.0, is_by_cost=is_by_cost)
    move: Move = made.begin()
    now_s = waited_s = 0.0
    sent = 0
    silent: set[int] = set()
    keys: set[object] = set()
    for round_number in range(10_000):
        if isinstance(move, End):
            break
        assert move.index not in silent
        assert places[move.index].key not in keys
        assert move.wait_s >= 0
        waited_s += move.wait_s
        error, took_s, draw, made.full_s = failures[round_number % len(failures)]
        sent += not isinstance(error, errors.Refused)
        if isinstance(error, errors.TimedOut):
            silent.add(move.index)
        if isinstance(error, errors.QuotaExhausted):
            keys.add(places[move.index].key)
        now_s += move.wait_s + took_s
        move = made.after(error, now_s, draw=draw)
    assert isinstance(move, End)
    assert sent <= policy.attempts
    assert waited_s <= 30 + 1e-6
    assert move.reason
    most = policy.attempts + policy.same_target
    assert round_number <= most + len(places) * (MAX_RETURNS + 2) + waited_s / MIN_WAIT_S


HOME, TWIN, LAN = Place("home"), Place("twin"), Place("lan", is_local=False, price=FREE)
PAID, OTHER = (Place(key, is_local=False, price=Price.per_million(3, 15)) for key in ("p", "q"))
LAST = Place("last", is_last_resort=True, price=FREE)
FULL = errors.Overloaded("full", status=503)


def sparing(*places: Place, **options: float) -> Course:
    """Make a course by cost that has begun at second 0 with its first candidate."""
    policy: Any = {"total_s": None, "full_wait_s": 6.0, **options}
    made = Course(places, RetryPolicy(**policy), began_s=0.0, is_by_cost=True)
    assert made.begin() == Ask(0)
    return made


def refused(
    made: Course,
    now_s: float,
    error: DispatcherError = FULL,
    *,
    full_s: float = 0.25,
    left_s: float | None = None,
) -> Move:
    """Have the candidate asked last say that it is full."""
    made.full_s = full_s
    return made.after(error, now_s, draw=0.0, left_s=left_s)


def test_a_full_local_server_is_waited_for_before_somebody_is_paid() -> None:
    """In pauses that double and fill the time that is given to it; then another is asked."""
    made = sparing(HOME, PAID)

    assert refused(made, 0.0) == Ask(0, 2.0)
    assert refused(made, 2.0) == Ask(0, 4.0)
    assert refused(made, 6.0) == Ask(1, 0.0)


def test_a_pause_that_others_used_is_followed_by_another() -> None:
    """Whom a breaker holds back has asked nobody: the time is over, and not the number."""
    made, held = sparing(HOME, PAID), errors.BreakerOpen("it was full", retry_after_s=0.25)

    assert refused(made, 0.0, held) == Ask(0, 2.0)
    assert refused(made, 2.0, held) == Ask(0, 2.0)
    assert refused(made, 4.0) == Ask(0, 2.0)
    assert refused(made, 6.0, held) == Ask(1, 0.0)


def test_a_full_server_elsewhere_in_a_large_request_was_waited_for_already() -> None:
    """The parts of a plan wait together for as long as one request does."""
    policy = RetryPolicy(total_s=None, full_wait_s=6.0)
    ration, parts = Ration(policy, 0.0), []
    for _ in range(2):
        made = Course([HOME, PAID], policy, 0.0, ration, is_by_cost=True)
        assert made.begin() == Ask(0)
        parts.append(made)

    assert refused(parts[0], 0.0) == Ask(0, 2.0)
    assert refused(parts[0], 2.0) == Ask(0, 4.0)
    assert refused(parts[1], 6.0) == Ask(1, 0.0)


def test_whoever_is_free_is_asked_before_anybody_waits() -> None:
    """Another server that costs nothing goes first; then the first that has room is waited for."""
    made = sparing(HOME, TWIN, PAID)

    assert refused(made, 0.0, full_s=5.0) == Ask(1, 0.0)
    assert refused(made, 0.1) == Ask(1, 2.0)


def test_whoever_fails_instead_leaves_the_full_one_to_be_waited_for() -> None:
    """That a free server is gone is no reason to pay."""
    made = sparing(HOME, LAN, PAID)
    assert refused(made, 0.0) == Ask(1, 0.0)
    made.full_s = None

    assert made.after(errors.Unreachable("gone"), 0.1, draw=0.0) == Ask(0, 2.0)


def test_a_single_attempt_is_not_kept_for_the_full() -> None:
    """Whoever has only one, and is refused by a breaker, takes it elsewhere at once."""
    held = errors.BreakerOpen("it was full", retry_after_s=0.25)

    assert refused(sparing(HOME, PAID, attempts=1), 0.0, held) == Ask(1, 0.0)


def test_nobody_waits_for_a_full_server_that_turns_out_to_be_too_small() -> None:
    """A prompt that another finds too long for such contexts goes to a larger one at once."""
    small, lan = attrs.evolve(HOME, context_tokens=8000), attrs.evolve(LAN, context_tokens=8000)
    made = sparing(small, lan, PAID)
    assert refused(made, 0.0) == Ask(1, 0.0)
    made.full_s = None

    assert made.after(errors.ContextOverflow(9000, 8000), 0.1, draw=0.0) == Ask(2, 0.0)


def test_the_last_resort_is_not_asked_before_a_full_server_was_waited_for() -> None:
    """It is free, and there for when nobody else answers."""
    assert refused(sparing(HOME, LAST), 0.0) == Ask(0, 2.0)


def test_a_price_that_is_not_known_is_no_price_of_nothing() -> None:
    """Whoever may charge is not asked before a full server was waited for."""
    assert refused(sparing(HOME, Place("x", is_local=False)), 0.0) == Ask(0, 2.0)


@pytest.mark.parametrize(
    ("options", "full_s", "left_s"),
    [
        ({"full_wait_s": 0}, 0.25, None),
        ({"full_wait_s": 3}, 3.5, None),
        ({"full_wait_s": 3, "same_target": 0}, 0.25, None),
        ({"full_wait_s": 3}, 1.0, 3.0),
        ({"full_wait_s": 3, "total_s": 3}, 1.0, None),
        ({"full_wait_s": 3, "max_wait_s": 3}, 1.0, None),
        ({"attempts": 2}, 0.25, None),
    ],
)
def test_nobody_waits_in_vain_for_a_full_server(
    options: dict[str, float], full_s: float, left_s: float | None
) -> None:
    """Who may not wait so long, or has a deadline that is near, goes to the next at once."""
    made = sparing(HOME, PAID, **options)

    assert refused(made, 0.0, full_s=full_s, left_s=left_s) == Ask(1, 0.0)


@pytest.mark.parametrize("full_wait_s", [6, 60, 600, 3600])
def test_whoever_would_wait_longer_waits_longer(full_wait_s: float) -> None:
    """All pauses together are what is asked for, or a quarter of what it may wait in all."""
    made, waited_s = sparing(HOME, PAID, full_wait_s=full_wait_s, max_wait_s=60), 0.0
    while isinstance(move := refused(made, waited_s), Ask) and move.index == 0:
        waited_s += move.wait_s

    assert waited_s == pytest.approx(min(full_wait_s, 60 / 4))
    assert move == Ask(1, 0.0)


def test_a_deadline_leaves_the_time_for_whoever_is_paid() -> None:
    """All pauses together take a quarter of it at most, and of what a request may wait in all."""
    made = sparing(HOME, PAID, full_wait_s=100, max_wait_s=100)
    assert refused(made, 0.0, left_s=20.0) == Ask(0, 5.0)
    assert refused(made, 5.0, left_s=15.0) == Ask(1, 0.0)

    made = sparing(HOME, PAID, full_wait_s=100, max_wait_s=20)
    assert refused(made, 0.0) == Ask(0, 5.0)
    assert refused(made, 5.0) == Ask(1, 0.0)


def test_where_the_order_is_not_by_cost_nobody_waits_for_the_cheap() -> None:
    """One that is full for a moment is asked again soon, as after any failure; then the next is."""
    made, policy = course(HOME, PAID), RetryPolicy()

    assert refused(made, 0.0) == Ask(0, 0.25)
    assert refused(made, 1.0, full_s=policy.backoff_s + 0.1) == Ask(1, 0.0)


@pytest.mark.parametrize("places", [[HOME], [HOME, TWIN], [HOME, HOME]], ids=len)
@pytest.mark.parametrize("is_by_cost", [True, False])
def test_full_servers_alone_are_waited_for_as_long_as_a_request_may_wait(
    places: list[Place],
    is_by_cost: bool,  # noqa: FBT001 - of a table
) -> None:
    """Where there is nobody else, it ends with its attempts or its time, with what was said."""
    policy = RetryPolicy(total_s=None)
    made = Course(places, policy, began_s=0.0, is_by_cost=is_by_cost)
    move, now_s, asked = made.begin(), 0.0, 0
    while isinstance(move, Ask):
        asked, now_s = asked + 1, now_s + move.wait_s
        move = refused(made, now_s)

    assert asked == policy.attempts
    assert now_s >= 1.5  # though each pause is drawn as short as it may be
    assert "attempts are made" in move.reason


def test_a_free_model_of_a_full_engine_is_asked_where_cost_is_not_the_order() -> None:
    """The order of the strategy holds: nobody is paid before those who come first in it."""
    made = course(HOME, HOME, PAID)
    move: Move = Ask(0)
    while isinstance(move, Ask) and move.index == 0:
        move = refused(made, 0.0)

    assert move == Ask(1, 0.0)


def test_a_cloud_that_a_local_server_passes_on_to_is_not_full_with_it() -> None:
    """It is asked in its turn, though its engine has no room for models of its own."""
    passed = Place("home", is_local=False, price=Price.per_million(1, 1))
    made = sparing(HOME, passed, OTHER, full_wait_s=0)

    assert refused(made, 0.0) == Ask(1, 0.0)


def test_all_models_of_one_engine_are_full_together() -> None:
    """One that is refused speaks for all of them; they are asked once the others have failed."""
    made, gone = sparing(HOME, HOME, HOME, PAID, OTHER), errors.TimedOut("first_token", 1.0)

    assert refused(made, 0.0) == Ask(0, 2.0)
    assert refused(made, 2.0) == Ask(0, 4.0)
    assert refused(made, 6.0) == Ask(3, 0.0)
    assert made.after(gone, 7.0, draw=0.0) == Ask(4, 0.0)
    assert made.after(gone, 8.0, draw=0.0) == Ask(1, 0.0)


def test_an_engine_that_is_full_no_more_is_asked_for_its_other_models() -> None:
    """Once it failed with anything else, its next model has its turn."""
    made = sparing(HOME, HOME, PAID)
    assert refused(made, 0.0) == Ask(0, 2.0)

    assert made.after(errors.ModelNotFound("gone"), 2.0, draw=0.0) == Ask(1, 0.0)


@pytest.mark.parametrize(
    "error", [errors.Overloaded("late", status=504), errors.TimedOut("idle", 1)]
)
def test_whoever_was_slow_is_not_taken_for_full(error: DispatcherError) -> None:
    """Its own deadline passed: it is not asked again, whatever its breaker knows."""
    made = sparing(HOME, PAID)

    assert refused(made, 0.0, error) == Ask(1, 0.0)
    assert isinstance(made.after(errors.TimedOut("idle", 1.0), 1.0, draw=0.0), End)


def test_whoever_sits_before_half_a_reply_is_not_made_to_wait() -> None:
    """The next is asked at once."""
    made = sparing(HOME, PAID)
    made.full_s = 0.25

    assert made.after(FULL, 0.0, draw=0.0, hurries=True) == Ask(1, 0.0)


@pytest.mark.parametrize("is_one", [False, True], ids=["servers", "one-server"])
@pytest.mark.parametrize("full", range(1, 9))
def test_whoever_is_paid_is_asked_however_many_are_full(full: int, *, is_one: bool) -> None:
    """With two attempts or more no request fails; none makes more than each one's, and the pauses.

    Held by their breakers they cost no attempt, and with a single one somebody is paid, too.
    """
    homes = [HOME if is_one else Place(f"home-{number}") for number in range(full)]
    held = errors.BreakerOpen("it was full", retry_after_s=0.25)
    for error, attempts, paid in product((FULL, held), (1, 2, 3, 8, 24), (1, 2, 5)):
        clouds = [Place(f"cloud-{number}", is_local=False) for number in range(paid)]
        made = sparing(*homes, *clouds, attempts=attempts)
        move: Move = Ask(0)
        now_s, asked = 0.0, 0
        while isinstance(move, Ask) and (asked := move.index) < full:
            now_s += move.wait_s
            move = refused(made, now_s, error)

        assert (asked >= full) is (attempts > 1 or error is held)
        most = (1 if is_one else full) + RetryPolicy().same_target + 1
        assert made.allowance.attempts <= min(attempts, most)
        assert now_s <= 6.0
        if asked >= full:  # as many of the paid have an attempt as half of all bears
            left = attempts - made.allowance.attempts + 1
            assert left >= min(paid, max(1, attempts // 2))


def test_a_full_server_is_waited_for_behind_one_that_is_away_for_longer() -> None:
    """Where somebody else may come back, it is parked and not struck: it has room sooner."""
    policy = RetryPolicy(total_s=None, max_wait_s=3600)
    made = Course([HOME, TWIN], policy, 0.0)
    assert made.begin() == Ask(0)
    move, now_s = refused(made, 0.0), 0.0
    while isinstance(move, Ask) and now_s < 15:
        now_s += move.wait_s
        if move.index:
            made.full_s = None
            move = made.after(errors.RateLimited("full", retry_after_s=600), now_s, draw=0.0)
        else:
            move = refused(made, now_s)

    assert isinstance(move, Ask)
    assert move.index == 0


@pytest.mark.parametrize("places", [[HOME], [HOME, TWIN]], ids=len)
def test_who_wants_the_same_asked_once_never_waits_for_the_full(places: list[Place]) -> None:
    """Nobody else being there changes nothing: each is asked once."""
    made = Course(places, RetryPolicy(same_target=0), 0.0)
    moves = [made.begin(), *[refused(made, float(number)) for number in range(len(places))]]

    assert moves[:-1] == [Ask(index) for index in range(len(places))]
    assert isinstance(moves[-1], End)


def test_a_part_that_can_do_without_does_not_wait_for_the_full() -> None:
    """Where a plan has something to show already, a full server fails as any other."""
    made = sparing(HOME)
    made.is_needed = False
    moves = [refused(made, float(number)) for number in range(3)]

    assert [type(move) for move in moves] == [Ask, Ask, End]


def test_a_deadline_is_used_up_where_nobody_else_is_there() -> None:
    """The last pause that would fit is not given up for one that does not."""
    made, now_s = Course([HOME], RetryPolicy(attempts=100, max_wait_s=100), 0.0), 0.0
    move = made.begin()
    while isinstance(move, Ask):
        now_s += move.wait_s
        move = refused(made, now_s, left_s=10.0 - now_s)

    assert now_s > 9


def test_one_that_is_held_up_by_others_is_not_given_up_for_that() -> None:
    """Whom a breaker holds back has asked nobody: only the time that it may wait ends it."""
    made, held = Course([HOME], RetryPolicy(total_s=None), 0.0), errors.BreakerOpen("full")
    held.retry_after_s = 0.5
    move, now_s = made.begin(), 0.0
    while isinstance(move, Ask):
        now_s += move.wait_s
        move = refused(made, now_s, held, full_s=0.5)

    assert now_s > 58
