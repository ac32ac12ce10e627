"""What tokens tell of a reply, and how a chance is made of it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import BadRequest, TokenLogprob
from llmdispatcher.models.agreement import agreement
from llmdispatcher.models.confidence import AS_TOLD, MOST_LOGIT, Calibration, Signals, fit


def token(chance: float, *others: float, text: str = "a") -> TokenLogprob:
    """Make a token that was drawn with a chance, and those beside it."""
    mine = TokenLogprob(text, text.encode(), math.log(chance))
    rest = [TokenLogprob(str(at), str(at).encode(), math.log(p)) for at, p in enumerate(others)]
    top = tuple(sorted([mine, *rest], key=lambda each: -each.logprob))
    return TokenLogprob(text, text.encode(), math.log(chance), top)


def test_signals_are_what_the_tokens_say() -> None:
    """Likelihood by length, weakest token, margins and entropy follow their definitions."""
    signals = Signals.of([token(0.5, 0.25, 0.25), token(0.9, 0.1)])

    mean = math.sqrt(0.5 * 0.9)
    assert signals.likelihood == pytest.approx(math.log(mean / (1 - mean)))
    assert signals.weakest == pytest.approx(0)
    assert signals.margin == pytest.approx((0.25 + 0.8) / 2)
    assert signals.least_margin == pytest.approx(0.25)
    places = [[0.5, 0.25, 0.25], [0.9, 0.1]]
    entropies = [-sum(p * math.log(p) for p in place) for place in places]
    assert signals.entropy == pytest.approx(sum(entropies) / 2)


def test_a_token_that_is_not_among_the_likeliest_counts_too() -> None:
    """One that was drawn against the odds is a place of its own, with no negative margin."""
    top = (TokenLogprob("b", b"b", math.log(0.8)), TokenLogprob("c", b"c", math.log(0.1)))
    signals = Signals.of([TokenLogprob("a", b"a", math.log(0.05), top)])

    assert signals.margin == pytest.approx(0.7)
    assert signals.weakest < -2


def test_without_the_likeliest_the_margin_is_the_least_it_can_be() -> None:
    """All that is not the token may be one other."""
    signals = Signals.of([TokenLogprob("a", b"a", math.log(0.7))])

    assert signals.margin == pytest.approx(0.7 - 0.3)


LOGPROBS = st.floats(allow_nan=True) | st.sampled_from([0.0, -9999.0, 0.01])
TOKENS = st.builds(
    lambda own, rest: TokenLogprob(
        "a", b"a", own, tuple(TokenLogprob(str(p), b"x", p) for p in rest)
    ),
    LOGPROBS,
    st.lists(LOGPROBS, max_size=5),
)


@settings(max_examples=60)
@given(st.lists(TOKENS, min_size=1, max_size=6))
def test_whatever_a_vendor_tells_gives_numbers(tokens: list[TokenLogprob]) -> None:
    """Not a number, minus infinity and chances above 1 are bounded, and nothing overflows."""
    signals = Signals.of(tokens)

    assert all(map(math.isfinite, signals.values()))
    assert abs(signals.likelihood) <= MOST_LOGIT
    assert 0 <= AS_TOLD.chance(signals) <= 1


def test_no_tokens_are_no_signals() -> None:
    """A reply without log-probabilities says how to get them."""
    with pytest.raises(BadRequest, match="logprobs=5"):
        Signals.of([])


def test_a_fit_finds_what_made_the_answers_right() -> None:
    """Answers drawn right by a known calibration give it back: chances differ by little."""
    drawn = random.Random(1)  # noqa: S311 - no secret
    known = Calibration(bias=-0.5, weights=(0.8, 0.3, 0.0, 1.0, -0.5))
    signals = [
        Signals(
            likelihood=drawn.gauss(1, 2),
            weakest=drawn.gauss(-1, 2),
            margin=drawn.random(),
            least_margin=drawn.random(),
            entropy=drawn.random() * 2,
        )
        for _ in range(1500)
    ]
    pairs = [(each, drawn.random() < known.chance(each)) for each in signals]

    found = fit(pairs, origin="drawn")

    off = [abs(found.chance(each) - known.chance(each)) for each in signals]
    assert sum(off) / len(off) < 0.05
    assert found.origin == "drawn"


def test_a_fit_of_what_can_be_told_apart_stays_finite() -> None:
    """Where a threshold separates right from wrong, chances are high and low, and not 1 and 0."""
    pairs = [(Signals.of([token(p, 1 - p)]), p > 0.5) for p in (0.2, 0.3, 0.8, 0.9) * 10]

    found = fit(pairs)

    low, high = (found.chance(Signals.of([token(p, 1 - p)])) for p in (0.2, 0.9))
    assert 0 < low < 0.2
    assert 0.8 < high < 1


@pytest.mark.parametrize("right", [[True] * 30, [False] * 30, [True, False] * 9])
def test_too_little_to_learn_from_is_refused(right: list[bool]) -> None:
    """Few samples, or samples of one kind, make no calibration."""
    with pytest.raises(BadRequest, match="at least 20"):
        fit([(Signals.of([token(0.5, 0.5)]), each) for each in right])


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"bias": math.nan, "weights": (0,) * 5}, "bias"),
        ({"bias": 0, "weights": (1, 2)}, "weights"),
        ({"bias": 0, "weights": (1, 2, 3, 4, math.inf)}, "weights"),
    ],
)
def test_a_calibration_is_of_numbers(facts: dict[str, object], named: str) -> None:
    """What is no number is refused by its name."""
    with pytest.raises(BadRequest, match=named):
        Calibration(**facts)  # type: ignore[arg-type]


def test_the_answer_of_the_most_is_found() -> None:
    """The first of the most frequent stands for them; what is no answer agrees with nobody."""
    found = agreement([None, "b", "a", "a", None], 5)

    assert (found.index, found.count, found.share) == (2, 2, 0.4)
    assert agreement([None, None], 3).count == 0


def test_it_is_decided_when_the_rest_cannot_change_it() -> None:
    """Three of five are enough for 60 %, and two that differ leave three to come."""
    assert agreement(["a", "a", "a"], 5).is_decided(3, 0.6)
    assert not agreement(["a", "b"], 5).is_decided(2, 0.6)
    assert agreement(["a", "b", "c", "d"], 5).is_decided(4, 0.6)
