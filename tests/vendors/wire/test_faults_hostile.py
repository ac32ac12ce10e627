"""Whatever a stranger answers: one of our errors comes out, soon, and fit to be shown."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.models.errors import DispatcherError, VendorError
from llmdispatcher.vendors.wire import causes, outcomes, said, sentences
from llmdispatcher.vendors.wire.causes import Cause
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.faults import Habits, of_answer, of_message
from llmdispatcher.vendors.wire.patience import MAX_WAIT_S
from llmdispatcher.vendors.wire.said import MATCHED_CHARS

JSON = {"content-type": "application/json"}
SLOW_S = 5.0
"""Of processor time, where a tenth is expected: only another order of growth takes longer."""

OTHERS = ("loc", "param", "field", "request_id", "headers", "quotaId", "flagged_input")
NAMES = st.sampled_from(
    [*said._TEXTS, *said._KINDS, *said._INSIDE, *said._NUMBERS, *said._WAITS, *OTHERS]
)
WORDS = st.sampled_from(
    [
        *causes.BY_KIND,
        "try again in 5s",
        "maximum context length is 5 tokens. However, you requested 9999999999999999999999",
        "Limit 5, Requested 6",
        "requires more system memory (9 GiB) than is available (5 GiB)",
        "unknown model architecture: 'x'",
        '{"error": {"message": "x"}}',
        "429",
        "\ud800",
        "\x1b[31m",
        "1e400",
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(NAMES, st.text()), inner, max_size=6)
    ),
    max_leaves=30,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["content-type", "retry-after", "date", "x-request-id", "location", "x-ratelimit-reset"]
    ),
    st.one_of(
        st.text(max_size=60), st.sampled_from(["text/html", "9", "1e400", "application/json"])
    ),
)


def checked(error: DispatcherError) -> None:
    """Check what holds of each error."""
    shown = str(error)
    shown.encode()
    assert 0 < len(shown) < 1200
    assert not any(char in shown for char in "\x1b\x00\n\r")
    if isinstance(error, VendorError):
        assert error.retry_after_s is None or 0 <= error.retry_after_s <= MAX_WAIT_S
    assert len(getattr(error, "request_id", None) or "") <= 128


@given(st.integers(300, 599), HEADERS, st.binary(max_size=300))
def test_any_bytes(status: int, headers: dict[str, str], body: bytes) -> None:
    """Bytes that mean nothing stand for what their status says."""
    checked(of_answer(Head(status, headers), body))


HABITS = st.builds(Habits, forbidden_is_overflow=st.booleans(), too_large_is_rate=st.booleans())


@given(st.integers(300, 599), HEADERS, VALUES, HABITS)
def test_any_json(status: int, headers: dict[str, str], value: object, habits: Habits) -> None:
    """JSON of any shape, with the names that vendors use in all the wrong places."""
    body = json.dumps(value).encode()

    checked(of_answer(Head(status, headers), body, habits))
    checked(of_message(value, habits))


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """A text that is an error, in an answer and in a stream."""
    checked(of_message({"error": text}))
    checked(of_message({"error": {"message": text, "code": text, "param": text}}))
    checked(of_answer(Head(400, JSON), json.dumps({"error": text}).encode()))


@pytest.mark.parametrize("depth", [100, 2_000, 200_000])
@pytest.mark.parametrize(
    ("before", "after"), [("[", "]"), ('{"error":', "}"), ('{"detail":[', "]}")]
)
def test_deep_nesting(depth: int, before: str, after: str) -> None:
    """A body that nests without end is read as far as the bounds go."""
    checked(of_answer(Head(500, JSON), (before * depth + "1" + after * depth).encode()))
    checked(of_answer(Head(500, JSON), (before * depth).encode()))
    checked(of_message({"error": {"message": before * depth}}))


@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "a",
        "<",
        "<title>",
        "<html>",
        "[",
        '{"',
        '{"error":',
        "data: {\n",
        "\\u0000",
        "key=",
        "model ",
        "1,",
        "try again in ",
        "maximum context length is 1 tokens ",
        "invalid ",
        "schema ",
        "token count ",
        "'response_format ",
        "(1 tokens)",
        "litellm.",
        "\x1b[",
    ],
)
def test_sixteen_mebibytes_take_no_time(unit: str) -> None:
    """Only the beginning of a long text is looked at, and no pattern is slow on it."""
    text = unit * (16 * 2**20 // len(unit))
    begun = time.process_time()

    checked(of_answer(Head(400, JSON), text.encode()))
    checked(of_message({"error": {"message": text}}))
    checked(of_message(text))

    assert time.process_time() - begun < SLOW_S


@pytest.mark.parametrize("sentence", sentences.SENTENCES, ids=lambda sentence: sentence.cause.name)
def test_no_pattern_is_slow(sentence: sentences.Sentence) -> None:
    """Each is tried on what its own words make of the longest message that is looked at."""
    begun = time.process_time()

    for word in (*sentence.pattern.pattern.split("|"), "invalid ", "model ", "1", " "):
        plain = "".join(char for char in word if char.isalnum() or char in " _")
        sentence.pattern.search((plain or "x") * (MATCHED_CHARS // (len(plain) or 1)))

    assert time.process_time() - begun < SLOW_S


def test_many_parts_are_read_in_part() -> None:
    """A list of a million errors is not walked through."""
    message = {"errors": [{"message": f"error {i}"} for i in range(300_000)]}
    begun = time.process_time()

    error = of_message(message)

    checked(error)
    assert "error 0: error 1" in str(error)
    assert time.process_time() - begun < SLOW_S


def test_a_body_over_the_bound_is_told_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than any error is not parsed; its first words are shown."""
    monkeypatch.setattr(said, "MAX_BODY_BYTES", 1000)
    body = json.dumps({"error": {"message": "prompt is too long", "x": "y" * 2000}}).encode()

    error = of_answer(Head(400, JSON), body)

    checked(error)
    assert "prompt is too long" in str(error)


def test_every_cause_has_a_maker_and_every_name_one_cause() -> None:
    """The tables are whole: no cause without an error, no name that stands for two."""
    words = [word for told in causes._KINDS.values() for word in told.split()]

    assert set(outcomes.MADE) == set(Cause)
    assert len(words) == len(set(words)) == len(causes.BY_KIND)
    assert all(word == word.lower() for word in words)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_alone_stands_for_something(status: int) -> None:
    """No status is without an error, and a server's fault is never the request's."""
    error = of_answer(Head(status, {}), b"")

    checked(error)
    if status >= 500 and status != 501:
        assert isinstance(error, VendorError)
