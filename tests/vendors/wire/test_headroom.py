"""What headers tell of a vendor's limits, as vendors send them, and as nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.models.headroom import Quantity
from llmdispatcher.vendors.wire.headroom import MAX_ROOMS, headroom
from llmdispatcher.vendors.wire.patience import MAX_WAIT_S

NOW = "Fri, 20 Nov 2026 10:00:00 GMT"
EPOCH_S = 1795168800
"""The same moment."""

Told = dict[tuple[str, str], tuple[int | None, int | None, float | None]]


def told(headers: dict[str, str]) -> Told:
    """Read headers into limit, remaining and reset, by quantity and window."""
    return {
        (room.quantity.value, room.window): (room.limit, room.remaining, room.reset_s)
        for room in headroom(headers).rooms
    }


OPENAI = {
    "content-type": "application/json",
    "openai-processing-ms": "431",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999984",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "x-request-id": "req_0123456789abcdef",
}
OPENAI_PROJECT = {
    "x-ratelimit-limit-project-tokens": "1000000",
    "x-ratelimit-remaining-project-tokens": "999942",
    "x-ratelimit-reset-project-tokens": "3ms",
    "x-ratelimit-limit-tokens": "30000000",
    "x-ratelimit-remaining-tokens": "29999942",
    "x-ratelimit-reset-tokens": "6m0s",
}
AZURE = {
    "apim-request-id": "f2a0e3c4",
    "x-ms-region": "East US",
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-limit-tokens": "100000",
    "x-ratelimit-remaining-requests": "99",
    "x-ratelimit-remaining-tokens": "99984",
    "x-ratelimit-reset-requests": "1",
    "x-ratelimit-reset-tokens": "55",
}
AZURE_RESPONSES = {
    "x-ratelimit-limit-tokens": "0",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-remaining-requests": "-1",
    "x-ratelimit-limit-requests": "-1",
}
ANTHROPIC = {
    "date": NOW,
    "anthropic-organization-id": "0f1e2d3c",
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2026-11-20T10:00:00Z",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1998000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-20T10:00:01Z",
    "anthropic-ratelimit-output-tokens-limit": "400000",
    "anthropic-ratelimit-output-tokens-remaining": "0",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-20T10:01:00Z",
    "anthropic-ratelimit-tokens-limit": "2400000",
    "anthropic-ratelimit-tokens-remaining": "2398000",
    "anthropic-ratelimit-tokens-reset": "2026-11-20T10:00:01Z",
    "anthropic-ratelimit-unified-status": "allowed",
    "anthropic-priority-input-tokens-limit": "10000",
    "request-id": "req_011",
}
GROQ = {
    "x-groq-region": "us-east-1",
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-remaining-tokens": "17997",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-reset-tokens": "7.66s",
}
TOGETHER = {
    "x-ratelimit-limit": "10",
    "x-ratelimit-remaining": "9",
    "x-ratelimit-reset": "1",
    "x-tokenlimit-limit": "3000",
    "x-tokenlimit-remaining": "2950",
    "x-tokenlimit-reset": "1",
}
MISTRAL = {
    "x-ratelimit-limit-tokens-minute": "5000000",
    "x-ratelimit-remaining-tokens-minute": "4999911",
    "x-ratelimit-tokens-query-cost": "52",
    "x-ratelimit-limit-req-minute": "720",
    "x-ratelimit-remaining-req-minute": "717",
}
MISTRAL_BEFORE = {
    "ratelimitbysize-limit": "500000",
    "ratelimitbysize-remaining": "499900",
    "ratelimitbysize-reset": "41",
    "ratelimitbysize-query-cost": "100",
    "x-ratelimitbysize-limit-month": "1000000000",
    "x-ratelimitbysize-remaining-month": "999000000",
}
OPENROUTER = {
    "date": NOW,
    "x-ratelimit-limit": "20",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": f"{EPOCH_S + 30}000",
}
CEREBRAS = {
    "x-ratelimit-limit-requests-day": "14400",
    "x-ratelimit-remaining-requests-day": "14399",
    "x-ratelimit-reset-requests-day": "33011.382867",
    "x-ratelimit-limit-tokens-minute": "60000",
    "x-ratelimit-remaining-tokens-minute": "59000",
    "x-ratelimit-reset-tokens-minute": "11.38",
}
LITELLM = {
    "x-litellm-call-id": "1b2c",
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "40",
    "llm_provider-x-ratelimit-limit-requests": "10000",
    "llm_provider-x-ratelimit-remaining-requests": "9999",
    "llm_provider-x-ratelimit-remaining-tokens": "77",
    "llm_provider-x-ratelimit-reset-tokens": "3s",
}
FIREWORKS = {
    "x-ratelimit-limit-tokens-prompt": "60000",
    "x-ratelimit-remaining-tokens-prompt": "59900",
    "x-ratelimit-limit-tokens-generated": "6000",
    "x-ratelimit-remaining-tokens-generated": "5990",
    "x-ratelimit-over-limit": "no",
}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            OPENAI,
            {
                ("requests", ""): (10000, 9999, 0.006),
                ("tokens", ""): (2000000, 1999984, 0.0),
            },
        ),
        (
            OPENAI_PROJECT,
            {
                ("tokens", "project"): (1000000, 999942, 0.003),
                ("tokens", ""): (30000000, 29999942, 360.0),
            },
        ),
        (AZURE, {("requests", ""): (100, 99, 1.0), ("tokens", ""): (100000, 99984, 55.0)}),
        (AZURE_RESPONSES, {}),
        (
            ANTHROPIC,
            {
                ("requests", ""): (4000, 3999, 0.0),
                ("input_tokens", ""): (2000000, 1998000, 1.0),
                ("output_tokens", ""): (400000, 0, 60.0),
                ("tokens", ""): (2400000, 2398000, 1.0),
            },
        ),
        (GROQ, {("requests", ""): (14400, 14370, 179.56), ("tokens", ""): (18000, 17997, 7.66)}),
        (TOGETHER, {("requests", ""): (10, 9, 1.0), ("tokens", ""): (3000, 2950, 1.0)}),
        (
            MISTRAL,
            {
                ("tokens", "minute"): (5000000, 4999911, None),
                ("requests", "minute"): (720, 717, None),
            },
        ),
        (
            MISTRAL_BEFORE,
            {
                ("tokens", ""): (500000, 499900, 41.0),
                ("tokens", "month"): (1000000000, 999000000, None),
            },
        ),
        (OPENROUTER, {("requests", ""): (20, 0, 30.0)}),
        (
            CEREBRAS,
            {
                ("requests", "day"): (14400, 14399, 33011.382867),
                ("tokens", "minute"): (60000, 59000, 11.38),
            },
        ),
        (LITELLM, {("requests", ""): (100, 40, None), ("tokens", ""): (None, 77, 3.0)}),
        (
            FIREWORKS,
            {
                ("input_tokens", ""): (60000, 59900, None),
                ("output_tokens", ""): (6000, 5990, None),
            },
        ),
        ({}, {}),
        ({"content-type": "text/event-stream", "x-request-id": "limit"}, {}),
    ],
    ids=[
        "openai",
        "openai-project",
        "azure",
        "azure-responses",
        "anthropic",
        "groq",
        "together",
        "mistral",
        "mistral-before",
        "openrouter",
        "cerebras",
        "litellm",
        "fireworks",
        "nothing",
        "others",
    ],
)
def test_headers_of_vendors_are_read(headers: dict[str, str], expected: Told) -> None:
    """Each vendor's way to say it comes to the same few facts."""
    assert told(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "many"},
        {"x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-remaining-requests": "nan"},
        {"x-ratelimit-remaining-requests": "1e9"},
        {"x-ratelimit-remaining-requests": "9" * 5000},
        {"x-ratelimit-remaining-requests": "\u0661"},
        {"x-ratelimit-remaining-images": "5"},
        {"x-ratelimit-remaining-requests-requests": "5"},
        {"x-ratelimit-remaining-input-requests": "5"},
        {"x-ratelimit-remaining-input": "5"},
        {"x-ratelimit-requests": "5"},
        {"x-ratelimit-": "5"},
        {"x-ratelimit-reset-requests": "5s"},
        {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"},
        {"x-ratelimit-remaining-requests" + "-minute" * 20: "5"},
        {"y-ratelimit-remaining-requests": "5"},
    ],
)
def test_what_cannot_be_meant_counts_as_not_said(headers: dict[str, str]) -> None:
    """No number, no known words, nothing left of nothing: then nothing is known."""
    assert told(headers) == {}


def test_a_time_of_day_needs_the_answers_own_date() -> None:
    """Without it, a reset that is a time says nothing, and the rest still holds."""
    headers = {k: v for k, v in ANTHROPIC.items() if k != "date"}

    assert told(headers)["output_tokens", ""] == (400000, 0, None)


@pytest.mark.parametrize("order", [1, -1])
def test_a_proxys_own_limits_come_before_what_it_passes_on(order: int) -> None:
    """In whatever order the headers come, the nearest server's count."""
    assert told(dict([*LITELLM.items()][::order]))["requests", ""] == (100, 40, None)


NAMES = st.one_of(
    st.sampled_from([*OPENAI, *ANTHROPIC, *TOGETHER, *MISTRAL, *CEREBRAS, "date"]),
    st.lists(
        st.sampled_from(
            [
                "x",
                "ratelimit",
                "tokenlimit",
                "limit",
                "remaining",
                "reset",
                "tokens",
                "day",
                "input",
            ]
        ),
        max_size=9,
    ).map("-".join),
    st.text(max_size=60),
)
VALUES = st.one_of(
    st.text(max_size=80),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["6m0s", "2026-11-20T10:00:01Z", NOW, "-0", "+5", "5;w=60", " 7 "]),
)


@settings(deadline=None)
@given(headers=st.dictionaries(NAMES, VALUES, max_size=40))
def test_no_headers_break_it(headers: dict[Any, str]) -> None:
    """Whatever is sent, what is read is within bounds, and each limit stands once."""
    rooms = headroom(headers).rooms

    assert len(rooms) <= MAX_ROOMS
    assert len({(room.quantity, room.window) for room in rooms}) == len(rooms)
    for room in rooms:
        assert room.quantity in Quantity
        assert room.limit is None or 0 < room.limit < 10**15
        assert room.remaining is None or 0 <= room.remaining < 10**15
        assert room.reset_s is None or 0 <= room.reset_s <= MAX_WAIT_S
        assert (room.limit, room.remaining) != (None, None)
