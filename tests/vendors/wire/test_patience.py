"""How long to wait, in every form that vendors say it, and in forms that mean nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.wire.patience import MAX_WAIT_S, duration_s, reset_s, retry_after_s

NOW = "Fri, 20 Nov 2026 10:00:00 GMT"
EPOCH_S = 1795168800
"""The same moment."""


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250.5", "retry-after": "9"}, 0.2505),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:42 GMT", "date": NOW}, 42.0),
        ({"retry-after": "Fri, 20 Nov 2026 09:00:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "Friday, 20-Nov-26 10:01:00 GMT", "date": NOW}, 60.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:42 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:42 GMT", "date": "today"}, None),
        ({"retry-after": "2026-11-20T10:00:05Z", "date": NOW}, 5.0),
        ({"retry-after": "2026-11-20T11:00:05.5+01:00", "date": NOW}, 5.5),
        ({"retry-after": f"{EPOCH_S + 7}", "date": NOW}, 7.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "\u0661\u0662"}, None),
        ({"retry-after": "99999999"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Fri, 20 Nov 2036 10:00:42 GMT", "date": NOW}, None),
        ({"retry-after": "Fri, 99 Nov 99999999999 10:00:42 GMT", "date": NOW}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_headers(headers: dict[str, str], wait_s: float | None) -> None:
    """Milliseconds come first, then seconds or a time of day, by the clock of the answer."""
    assert retry_after_s(headers) == wait_s


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6m0s. Visit https://x", 360.0),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Please try again in 120ms.", 0.12),
        ("try again in 2 minutes", 120.0),
        ("Please retry in 37.21s.", 37.21),
        ("Please retry in 37.217840512s.", 37.217840512),
        ("Please retry after 6 seconds.", 6.0),
        ("Rate limit is exceeded. Try again in 30 seconds.", 30.0),
        ("Please wait 5 seconds before retrying", 5.0),
        ("retry after 1 hour", 3600.0),
        ("Retry-After: 3s", 3.0),
        ("Please try again later.", None),
        ("Please try again in 20 apples", None),
        ("try again in 5", None),
        ("try again in 999999999 days", None),
        ("It waited 5 seconds", None),
        ("", None),
    ],
)
def test_sentences(message: str, wait_s: float | None) -> None:
    """What has no field is said in words."""
    assert retry_after_s({}, (), message) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("37s", 37.0),
        ("0.5s", 0.5),
        ("6m0s", 360.0),
        ("2m59.56s", 179.56),
        ("12ms", 0.012),
        ("500µs", 0.0005),
        ("1d", 86400.0),
        ("12.5", 12.5),
        (12, 12.0),
        (12.5, 12.5),
        (True, None),
        (-1, None),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
        ("", None),
        ("s", None),
        ("5s6m", None),
        ("1e5s", None),
        ("9" * 15 + "h", None),
        (None, None),
        ([], None),
    ],
)
def test_durations(value: object, wait_s: float | None) -> None:
    """Numbers are seconds; texts are as Go and Google write them; the rest is nothing."""
    assert duration_s(value) == pytest.approx(wait_s)


def test_a_header_comes_before_a_field_and_a_field_before_words() -> None:
    """The sources are asked in order of how sure they are."""
    words = "try again in 3s"

    assert retry_after_s({"retry-after": "1"}, ("2s",), words) == 1.0
    assert retry_after_s({}, ("2s",), words) == 2.0
    assert retry_after_s({}, ("junk",), words) == 3.0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (
            {  # of what is used up, not of what is left
                "x-ratelimit-remaining-requests": "14399",
                "x-ratelimit-reset-requests": "6s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1.57s",
            },
            1.57,
        ),
        (
            {  # nothing is used up: the longest suffices
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-requests": "6s",
                "x-ratelimit-reset-tokens": "2s",
            },
            6.0,
        ),
        ({"x-ratelimit-reset": f"{EPOCH_S + 5}", "date": NOW}, 5.0),
        ({"x-ratelimit-reset": f"{EPOCH_S + 5}000", "date": NOW}, 5.0),
        ({"x-ratelimit-reset": f"{EPOCH_S + 5}000"}, None),
        ({"llm_provider-x-ratelimit-reset-tokens": "3s"}, 3.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-20T10:00:09Z", "date": NOW}, 9.0),
        ({"ratelimit-reset": "4", "ratelimit-remaining": "0"}, 4.0),
        ({"ratelimit": '"default";r=0;t=30'}, 30.0),
        ({"ratelimit": "limit=9, remaining=0, reset=31"}, 31.0),
        ({"ratelimit": "x" * 100_000}, None),
        ({"x-ratelimit-reset-tokens": "-1"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        ({}, None),
    ],
)
def test_counted_limits(headers: dict[str, str], wait_s: float | None) -> None:
    """The headers that count limits say when what is used up is there again."""
    assert reset_s(headers) == wait_s


@given(
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset", "ratelimit"]
        ),
        st.text(max_size=80),
    ),
    st.lists(st.one_of(st.text(), st.floats(), st.integers(), st.none()), max_size=3),
    st.text(),
)
def test_nothing_else_is_ever_a_wait(
    headers: dict[str, str], waits: list[object], message: str
) -> None:
    """Whatever is said, a wait is a number of seconds within bounds, or there is none."""
    for wait_s in (retry_after_s(headers, waits, message), reset_s(headers)):
        assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S
