"""The table of verdicts, walked whole; the backoff; and what one request may spend."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.models import errors, race
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.policy import RetryPolicy
from llmdispatcher.retry import (
    SAME_AT_MOST,
    VERDICTS,
    Allowance,
    Verdict,
    backoff_s,
    same_at_most,
    verdict,
)

EXPECTED = {
    Verdict.SAME: "Overloaded BadReply StreamInterrupted EngineCrashed OutOfMemory",
    Verdict.LATER: "RateLimited LimitReached BreakerOpen",
    Verdict.KEY: "QuotaExhausted AuthRejected",
    Verdict.MODEL: "ContextOverflow",
    Verdict.NEXT: """
        RequestError BadRequest Unsupported InvalidGrammar VendorError TimedOut ModelNotFound
        ExecutableNotFound ModelFileMissing CorruptModel UnsupportedArchitecture ModelTooLarge
        StateUnusable BudgetExceeded Unreachable""",
    Verdict.STOP: """
        ConfigError Refused LedgerUnusable OfflineRefused NoCandidate ContentRefused Cancelled
        AllVendorsFailed NoGoodAnswer""",
}
ROWS = {name: row for row, names in EXPECTED.items() for name in names.split()}


def tree(kind: type[DispatcherError]) -> list[type[DispatcherError]]:
    """List the classes below a class, those that are elsewhere included."""
    assert race.NoGoodAnswer in DispatcherError.__subclasses__()  # those of plans are told too
    return [c for sub in kind.__subclasses__() for c in (sub, *tree(sub))]


def bare(kind: type[DispatcherError]) -> DispatcherError:
    """Make an instance without facts: the table must not need any."""
    if issubclass(kind, ExceptionGroup):
        return kind("x", [errors.Cancelled()])
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", tree(DispatcherError), ids=lambda kind: kind.__name__)
def test_every_error_has_the_verdict_written_here(kind: type[DispatcherError]) -> None:
    """Each class of the tree leads to what is listed above."""
    assert kind.__name__ in ROWS, "a new error needs a decision"
    assert verdict(bare(kind)) is ROWS[kind.__name__]


def test_the_table_holds_no_row_that_its_base_implies() -> None:
    """A row says something that the nearest base does not say already, or stands for a branch."""
    for kind, row in VERDICTS.items():
        base = next((b for b in kind.__mro__[1:] if b in VERDICTS), None)
        assert base is None or VERDICTS[base] is not row


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.VendorError("x", status=500), Verdict.SAME),
        (errors.VendorError("x", status=503), Verdict.SAME),
        (errors.VendorError("x", status=418), Verdict.NEXT),
        (errors.VendorError("x", status=504), Verdict.NEXT),
        (errors.ModelNotFound("x", status=500), Verdict.NEXT),
        (errors.CorruptModel("x", status=500), Verdict.NEXT),
        (errors.Overloaded("x", status=503), Verdict.SAME),
        (errors.Overloaded("x", status=429), Verdict.SAME),
        (errors.Overloaded("x", status=504), Verdict.NEXT),
        (errors.Overloaded("x", status=524), Verdict.NEXT),
        (errors.Unreachable("x", status=502), Verdict.SAME),
        (errors.Unreachable("x", status=522), Verdict.NEXT),
        (errors.Unreachable("x", status=307), Verdict.NEXT),
        (errors.Unreachable("x", status=407), Verdict.NEXT),
        (errors.AuthRejected("x", status=401), Verdict.KEY),
        (errors.AuthRejected("x", status=403), Verdict.NEXT),
        (errors.RateLimited("x", status=429), Verdict.LATER),
        (errors.QuotaExhausted("x", status=429), Verdict.KEY),
        (errors.ContentRefused("x", status=500), Verdict.STOP),
        (errors.TimedOut("first_token", 1.0, status=500), Verdict.NEXT),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'status', '')}",
)
def test_a_status_makes_the_difference_where_it_tells_more(
    error: DispatcherError, expected: Verdict
) -> None:
    """500 alone may pass; slow routes, answers of others and forbidden models do not."""
    assert verdict(error) is expected


def test_a_connection_that_broke_is_tried_again_and_one_that_was_refused_is_not() -> None:
    """Where nobody listens, nobody will in a second."""
    broke = errors.Unreachable("x")
    broke.was_connected = True

    assert verdict(broke) is Verdict.SAME
    assert verdict(errors.Unreachable("x")) is Verdict.NEXT


@pytest.mark.parametrize("phase", ["connect", "load", "first_token", "idle", "whole", "total"])
def test_who_was_silent_or_slow_is_not_asked_again(phase: str) -> None:
    """One timeout does not become three, whatever the phase."""
    assert verdict(errors.TimedOut(phase, 1.0)) is Verdict.NEXT


def test_what_kills_a_worker_is_tried_once_more_at_most() -> None:
    """Local crashes are held to one retry, within what the policy allows."""
    crash, busy = errors.EngineCrashed("x"), errors.Overloaded("x")

    assert set(SAME_AT_MOST) == {errors.EngineCrashed, errors.OutOfMemory}
    assert same_at_most(crash, RetryPolicy(same_target=5)) == 1
    assert same_at_most(crash, RetryPolicy(same_target=0)) == 0
    assert same_at_most(busy, RetryPolicy(same_target=5)) == 5


@settings(deadline=None)
@given(
    base=st.floats(0, 3600),
    cap=st.floats(0, 3600),
    again=st.integers(-5, 10**6),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_backoff_is_full_jitter_below_a_bound_that_doubles(
    base: float, cap: float, again: int, draw: float
) -> None:
    """Every pause is the draw's part of the doubled base, and never beyond the cap."""
    policy = RetryPolicy(backoff_s=base, backoff_cap_s=cap)
    bound = min(cap, base * 2 ** min(max(again, 1) - 1, 60))

    assert backoff_s(policy, again, draw) == bound * draw
    assert 0 <= backoff_s(policy, again, draw) <= cap


def test_backoff_doubles() -> None:
    """With the defaults, the bounds are 0.5, 1, 2, 4, 8, 8 seconds."""
    bounds = [backoff_s(RetryPolicy(), again, 1.0) for again in range(1, 7)]

    assert bounds == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


SPENDINGS = st.lists(
    st.fixed_dictionaries(
        {
            "attempts": st.integers(0, 3),
            "waited_s": st.floats(-1, 50),
            "loaded_s": st.floats(-1, 50),
            "cost_microusd": st.one_of(st.none(), st.integers(0, 10**6)),
        }
    ),
    max_size=8,
)


@settings(deadline=None)
@given(spendings=SPENDINGS, passed_s=st.floats(-1000, 1000), wait_s=st.floats(0, 100))
def test_an_allowance_says_no_exactly_when_something_is_used_up(
    spendings: list[dict[str, float | None]], passed_s: float, wait_s: float
) -> None:
    """Attempts, waiting, seconds without loading and money each end it, and nothing else does."""
    policy = RetryPolicy(attempts=5, max_wait_s=60, total_s=120, max_cost_usd="0.5")
    allowance = Allowance(policy=policy, began_s=100.0)
    for spent in spendings:
        allowance = allowance.spend(**spent)  # type: ignore[arg-type]

    attempts = sum(int(spent["attempts"] or 0) for spent in spendings)
    cost = sum(int(spent["cost_microusd"] or 0) for spent in spendings)
    unpriced = any(spent["cost_microusd"] is None for spent in spendings)
    over = {
        "attempts are made": attempts >= 5,
        "of waiting|is longer": wait_s > 0 and allowance.waited_s + wait_s > 60,
        "are over": max(0.0, passed_s - allowance.loaded_s) + wait_s > 120,
        "money|micro-dollars": attempts > 0 and (unpriced or cost >= 500_000),
    }
    reason = allowance.refusal(100.0 + passed_s, wait_s)
    assert allowance.allows(100.0 + passed_s, wait_s) is (not any(over.values()))
    told = [name for name in over if any(part in reason for part in name.split("|"))]
    assert told == [name for name, is_over in over.items() if is_over][:1]


def test_loading_uses_up_no_time() -> None:
    """Ten minutes of loading a model leave all seconds for attempts."""
    allowance = Allowance(policy=RetryPolicy(total_s=30), began_s=0.0)

    assert not allowance.allows(600.0)
    assert allowance.spend(loaded_s=595.0).allows(600.0)


def test_without_limits_of_time_and_money_only_attempts_count() -> None:
    """None is no limit, and an unknown cost matters only where money is limited."""
    allowance = Allowance(policy=RetryPolicy(total_s=None), began_s=0.0)
    spent = allowance.spend(attempts=1, cost_microusd=None)

    assert spent.allows(1e9)
    assert "not known" in Allowance(
        policy=RetryPolicy(max_cost_usd=1), began_s=0, attempts=1, is_unpriced=True
    ).refusal(0.0)
