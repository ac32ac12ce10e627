"""Laws of what programs share: rows of limits let no more pass than a bucket, words only add."""

from __future__ import annotations

import json
import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import shared
from llmdispatcher.breaker import MAX_COOL_S, Circuit, Go, Hold, State, ask
from llmdispatcher.bucket import NOTHING, Needs, buckets
from llmdispatcher.models.policy import BreakerPolicy, Limits
from llmdispatcher.shared import Row, Word

NOON_S = 1_795_176_000.0
"""2026-11-20 12:00 UTC."""

LIMITS = Limits(
    requests_per_minute=30,
    tokens_per_minute=2000,
    output_tokens_per_day=50_000,
    burst=0.5,
)
NEEDS = st.builds(Needs, st.integers(0, 900), st.integers(0, 900))
EVENTS = st.lists(
    st.tuples(st.sampled_from(["draw", "give"]), NEEDS, st.floats(0, 40)), min_size=1, max_size=40
)


@given(EVENTS)
def test_no_more_passes_than_the_bucket_and_what_flows_in(
    events: list[tuple[str, Needs, float]],
) -> None:
    """Whoever draws, in whatever order, and whatever comes back: by each bucket's own law."""
    row: Row = {}
    now_s, out = NOON_S, list[Needs]()
    passed = [0.0 for _ in buckets(LIMITS)]
    for what, needs, pause_s in events:
        now_s += pause_s
        if what == "give" and out:
            drawn, used = out.pop(), Needs(needs.input_tokens // 10, needs.output_tokens // 10)
            row = shared.row_of(shared.row_text(shared.given(LIMITS, row, drawn, used, now_s)))
            for index, each in enumerate(buckets(LIMITS)):
                passed[index] += used.of(each.quantity) - each.amount(drawn)
        elif what == "draw":
            result = shared.drawn(LIMITS, row, needs, now_s)
            if result.wait_s:
                assert result.levels == shared.drawn(LIMITS, row, NOTHING, now_s).levels
                continue
            row = shared.row_of(shared.row_text(result.row))
            out.append(needs)
            for index, each in enumerate(buckets(LIMITS)):
                passed[index] += each.amount(needs)
                most = each.capacity + each.rate_per_s * (now_s - NOON_S)
                assert passed[index] <= most + 1e-6 * most


@given(NEEDS, st.floats(0, 1e6))
def test_waiting_as_long_as_was_told_is_enough(needs: Needs, pause_s: float) -> None:
    """Nobody else in between, whoever looks again when it should gets its share."""
    row: Row = {}
    while (result := shared.drawn(LIMITS, row, needs, NOON_S)).wait_s == 0 and any(
        each.amount(needs) for each in buckets(LIMITS)
    ):
        row = result.row

    again = shared.drawn(LIMITS, row, needs, NOON_S + result.wait_s * (1 + 1e-6) + 1e-3 + pause_s)

    assert result.wait_s < math.inf
    assert again.wait_s == 0


@given(NEEDS, st.floats(0, 1e6))
def test_a_row_of_the_future_is_as_of_now(needs: Needs, ahead_s: float) -> None:
    """A clock that was put back on purpose gives nothing, and stops nothing either."""
    row = shared.drawn(LIMITS, {}, needs, NOON_S + ahead_s).row

    before = shared.drawn(LIMITS, row, NOTHING, NOON_S)
    after = shared.drawn(LIMITS, before.row, NOTHING, NOON_S + 86400)

    capacities = tuple(each.capacity for each in buckets(LIMITS))
    taken = [each.amount(needs) for each in buckets(LIMITS)]
    expected = [capacity - amount for capacity, amount in zip(capacities, taken, strict=True)]
    assert before.levels == pytest.approx(expected)
    assert after.levels == pytest.approx(capacities)


def test_programs_with_other_limits_count_what_the_others_took() -> None:
    """Each holds its own capacity; what one keeps no bucket for stays as it was."""
    wide, narrow = Limits(requests_per_minute=60, tokens_per_day=10), Limits(requests_per_minute=30)
    row: Row = {}
    for _ in range(40):
        row = shared.drawn(wide, row, Needs(0, 0), NOON_S).row

    result = shared.drawn(narrow, row, Needs(0, 0), NOON_S)

    assert result.wait_s == pytest.approx(11 / 0.5)
    assert result.row.keys() == row.keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.text()
    | JSON.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["requests/minute", *attrs.fields_dict(Word)]), JSON, max_size=8
    ).map(json.dumps)
)
def test_what_nobody_wrote_says_nothing_that_could_harm(text: str) -> None:
    """A row that is damaged counts as full, and as no word; nothing raises, nothing is endless."""
    result = shared.drawn(LIMITS, shared.row_of(text), Needs(1, 1), NOON_S)
    circuit = shared.overlay(Circuit(), shared.word_of(text), 1.0, NOON_S)

    assert all(math.isfinite(level) for level in result.levels)
    assert math.isfinite(circuit.until_s)
    assert math.isfinite(circuit.cool_until_s)


TIMES = st.floats(-400, 400).map(lambda ago_s: NOON_S - ago_s)
LASTING = st.floats(0, 300)


@st.composite
def words(draw: st.DrawFn) -> Word:
    """What some program may say."""
    state, said_s = draw(st.sampled_from(State)), draw(TIMES)
    cooled_s = draw(TIMES)
    return Word(
        state=state,
        said_s=said_s,
        until_s=0.0 if state is State.CLOSED else said_s + draw(LASTING),
        level=draw(st.integers(0, 5)),
        reason=draw(st.sampled_from(["", "Overloaded"])),
        cooled_s=cooled_s,
        cool_until_s=cooled_s + draw(LASTING),
    )


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """A circuit at a time of 1000 s."""
    state = draw(st.sampled_from(State))
    return Circuit(
        state=state,
        generation=draw(st.integers(1, 5)),
        failures=draw(st.integers(0, 2)) if state is State.CLOSED else 0,
        since_s=draw(st.floats(500, 1000)),
        until_s=0.0 if state is State.CLOSED else draw(st.floats(900, 1300)),
        cool_until_s=draw(st.just(0.0) | st.floats(900, 1300)),
        probe=draw(st.integers(0, 2)) if state is State.PROBING else 0,
    )


@given(words(), words())
def test_it_matters_neither_who_speaks_first_nor_how_often(one: Word, other: Word) -> None:
    """Two programs that hear each other in any order come to the same; the file does too."""
    both = shared.merged(one, other)

    assert both == shared.merged(other, one)
    assert both == shared.merged(both, one) == shared.merged(other, both)
    assert both == shared.word_of(shared.word_text(both))
    assert both.cool_until_s == max(one.cool_until_s, other.cool_until_s)


@given(circuits(), words(), st.floats(-1e5, 1e5))
def test_a_word_makes_no_wait_shorter_and_none_longer_than_it_says(
    circuit: Circuit, word: Word, shift_s: float
) -> None:
    """Open elsewhere is open here until then, by whatever the clock says, and never beyond."""
    wall_s = NOON_S + shift_s
    laid = shared.overlay(circuit, word, 1000.0, wall_s)

    left_s = max(0.0, min(word.until_s - wall_s, word.until_s - word.said_s))
    is_trying = circuit.state is State.PROBING and circuit.probe
    if word.state is not State.CLOSED and left_s and not is_trying:
        assert laid.state is word.state
        assert laid.until_s >= 1000.0 + left_s
        theirs = circuit.until_s if circuit.state is State.OPEN else 0.0
        assert laid.until_s <= max(1000.0 + left_s, theirs)
        _, answer = ask(laid, BreakerPolicy(), 1000.0 + left_s * 0.99 - 1e-6, 7)
        assert isinstance(answer, Hold)
    if word.state is State.OPEN and circuit.state is State.OPEN:
        assert laid.until_s >= circuit.until_s
    if word.state is State.CLOSED:
        assert laid.state is State.CLOSED
    assert laid.cool_until_s >= circuit.cool_until_s
    assert laid.cool_until_s <= max(circuit.cool_until_s, 1000.0 + MAX_COOL_S)
    if circuit.state is State.PROBING and laid.state is State.PROBING and circuit.probe:
        assert laid == attrs.evolve(circuit, cool_until_s=laid.cool_until_s), "our probe goes on"


@given(circuits(), circuits(), words(), st.floats(-400, 400))
def test_what_is_said_here_comes_after_all_that_is_known(
    circuit: Circuit, later: Circuit, word: Word, shift_s: float
) -> None:
    """Closed here is closed, also where the clock was set back since somebody said otherwise."""
    wall_s = NOON_S + shift_s
    told = shared.said(word, later, 1000.0, wall_s)

    assert told.said_s > word.said_s
    assert told.state is later.state
    assert shared.merged(word, told) == told
    if later.state is State.CLOSED:
        assert shared.overlay(circuit, told, 1000.0, wall_s).state is State.CLOSED
    mild = shared.cooled(word, later, 1000.0, wall_s)
    assert (mild.state, mild.said_s) == (word.state, word.said_s), "a wish opens nothing"


def test_a_probe_of_another_is_waited_for_and_then_one_goes_from_here() -> None:
    """Others hold while it lasts; lost with its program, it is followed by ours."""
    word = Word(state=State.PROBING, said_s=NOON_S, until_s=NOON_S + 120, reason="TimedOut")
    circuit = shared.overlay(Circuit(generation=3), word, 1000.0, NOON_S + 1)

    _, hold = ask(circuit, BreakerPolicy(), 1001.0, 8)
    probing, go = ask(circuit, BreakerPolicy(), 1119.5, 8)

    assert isinstance(hold, Hold)
    assert hold.until_s == 1002.0
    assert go == Go(4, 8)
    assert probing.state is State.PROBING
    closed = shared.overlay(probing, attrs.evolve(word, state=State.CLOSED), 1120.0, NOON_S + 121)
    assert closed == Circuit(generation=5, since_s=1120.0)
