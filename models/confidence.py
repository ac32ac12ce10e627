"""How sure a model was of what it wrote, from the log-probabilities of its tokens. Pure.

    signals = Signals.of(reply.logprobs)             what the tokens tell
    Calibration(…).chance(signals)                   the chance that the reply is right
    fit([(signals, was_right), …])                   a calibration from one's own questions

Signals are what the literature found to tell right from wrong: the likelihood of the text by its
length (Malinin and Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction"),
its least likely token (Gupta et al. 2024, "Language Model Cascades: Token-level uncertainty and
beyond"), the margin between the two likeliest tokens (Scheffer et al. 2001, "Active Hidden Markov
Models for Information Extraction"), and the entropy of each place. A logistic function makes a
chance of them, fitted as Platt did (1999, "Probabilistic Outputs for Support Vector Machines").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from llmdispatcher.models.check import words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import TokenLogprob

TOP = 5
"""So many likeliest tokens are asked for at each place: the most that several hosts tell."""

MOST_LOGIT = 12.0
"""A chance nearer to 0 or 1 than this is not told apart from it: models round there."""

MIN_SAMPLES = 20
"""Fewer questions say next to nothing about five weights."""

PULL = 1.0
"""How strongly weights are held near 0 while fitting, in units of one question each: a ridge."""

ROUNDS = 50
"""Of Newton's method at most; it needs some ten."""

SETTLED = 1e-9


@attrs.frozen(kw_only=True)
class Signals:
    """What the tokens of a reply tell about it."""

    likelihood: float
    """Log-odds of the geometric mean of the tokens' probabilities."""
    weakest: float
    """Log-odds of the least likely token."""
    margin: float
    """Probability of the likeliest token less that of the second, the mean over all places."""
    least_margin: float
    """The smallest of these."""
    entropy: float
    """In nats, the mean over all places; what is not among the likeliest counts as one token, so
    that it is never more than the entropy itself."""

    @classmethod
    def of(cls, tokens: Sequence[TokenLogprob]) -> Signals:
        """Read the tokens of a reply. Raises BadRequest where there are none."""
        if not tokens:
            raise BadRequest("logprobs", tokens, "those of at least one token; ask with logprobs=5")
        drawn = [_finite(token.logprob) for token in tokens]
        places = [_probabilities(token) for token in tokens]
        margins = [place[0] - place[1] for place in places]
        return cls(
            likelihood=log_odds(math.exp(sum(drawn) / len(drawn))),
            weakest=log_odds(math.exp(min(drawn))),
            margin=sum(margins) / len(margins),
            least_margin=min(margins),
            entropy=sum(map(_entropy, places)) / len(places),
        )

    def values(self) -> tuple[float, ...]:
        """Return them in the order of a calibration's weights."""
        return self.likelihood, self.weakest, self.margin, self.least_margin, self.entropy


def _finite(logprob: float) -> float:
    """Bound what a vendor tells: some write -9999 for "never", and some a little above 0."""
    return min(0.0, max(logprob, -100.0)) if not math.isnan(logprob) else -100.0


def _probabilities(token: TokenLogprob) -> list[float]:
    """Return the probabilities at a place, the likeliest first, and at least two of them."""
    told = [math.exp(_finite(each.logprob)) for each in token.top]
    drawn = math.exp(_finite(token.logprob))
    if all(each.data != token.data or each.token != token.token for each in token.top):
        told.append(drawn)
    told.sort(reverse=True)
    if len(told) < 2:  # noqa: PLR2004 - a second one is needed
        told.append(max(0.0, 1.0 - told[0]))  # all the rest in one, which is the most it can be
    return told


def _entropy(place: Sequence[float]) -> float:
    rest = max(0.0, 1.0 - sum(place))
    return -sum(p * math.log(p) for p in (*place, rest) if p > 0)


def log_odds(chance: float) -> float:
    """Return the logarithm of the odds of a chance, bounded by ``MOST_LOGIT``."""
    if chance <= 0:
        return -MOST_LOGIT
    if chance >= 1:
        return MOST_LOGIT
    return max(-MOST_LOGIT, min(MOST_LOGIT, math.log(chance) - math.log1p(-chance)))


def _weights(value: Iterable[float]) -> tuple[float, ...]:
    return tuple(value)


def _are_weights(_: object, field: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    fit = [isinstance(each, int | float) and math.isfinite(each) for each in value]
    if len(fit) != len(NAMES) or not all(fit):
        raise BadRequest(field.name, value, f"{len(NAMES)} numbers: for {', '.join(NAMES)}")


NAMES = tuple(field.name for field in attrs.fields(Signals))


@attrs.frozen(kw_only=True)
class Calibration:
    """Makes a chance of being right out of signals. Made by ``fit``, or written down."""

    bias: float = attrs.field()
    weights: tuple[float, ...] = attrs.field(converter=_weights, validator=_are_weights)
    """One for each of the signals, in their order."""
    origin: str = attrs.field(default="", validator=words)
    """What it was fitted on."""

    @bias.validator
    def _is_number(self, _: object, value: object) -> None:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadRequest("bias", value, "a number")

    def chance(self, signals: Signals) -> float:
        """Return the chance that a reply with such signals is right, in [0, 1]."""
        return sigmoid(self.bias + _dot(self.weights, signals.values()))


def sigmoid(value: float) -> float:
    """Return the logistic function, without overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-min(value, 700.0)))
    grown = math.exp(max(value, -700.0))
    return grown / (1.0 + grown)


def fit(samples: Iterable[tuple[Signals, bool]], origin: str = "") -> Calibration:
    """Fit a calibration to questions of which it is known whether the reply was right.

    Signals are put on one scale, weights are held by a ridge, and the targets are Platt's, which
    keep a set that can be told apart from giving chances of 0 and 1. Raises BadRequest for too few
    samples, or where all were right or all wrong: then there is nothing to learn.
    """
    pairs = list(samples)
    right = sum(1 for _, was_right in pairs if was_right)
    wrong = len(pairs) - right
    if len(pairs) < MIN_SAMPLES or not right or not wrong:
        told = f"{len(pairs)} samples, {right} of them right"
        raise BadRequest("samples", told, f"at least {MIN_SAMPLES}, some right and some wrong")
    columns = list(zip(*(signals.values() for signals, _ in pairs), strict=True))
    means = [sum(column) / len(column) for column in columns]
    scales = [
        math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)) or 1.0
        for column, mean in zip(columns, means, strict=True)
    ]
    rows = [
        (1.0, *((x - m) / s for x, m, s in zip(signals.values(), means, scales, strict=True)))
        for signals, _ in pairs
    ]
    high, low = (right + 1) / (right + 2), 1 / (wrong + 2)
    targets = [high if was_right else low for _, was_right in pairs]
    found = _newton(rows, targets)
    weights = [w / scale for w, scale in zip(found[1:], scales, strict=True)]
    return Calibration(bias=found[0] - _dot(weights, means), weights=weights, origin=origin)


def _newton(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> list[float]:
    """Return the weights of a logistic regression with a ridge on all but the first."""
    size = len(rows[0])
    found = [0.0] * size
    for _ in range(ROUNDS):
        slope = [0.0, *(-PULL * weight for weight in found[1:])]
        curve = [[PULL if a == b and a else 0.0 for b in range(size)] for a in range(size)]
        for row, target in zip(rows, targets, strict=True):
            chance = sigmoid(_dot(found, row))
            spread = max(chance * (1 - chance), 1e-12)
            for a, value in enumerate(row):
                slope[a] += (target - chance) * value
                for b in range(a + 1):
                    curve[a][b] += spread * value * row[b]
        move = _solved(curve, slope)
        found = [weight + step for weight, step in zip(found, move, strict=True)]
        if max(map(abs, move)) < SETTLED:
            break
    return found


def _solved(lower: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solve a positive definite system, of which the lower half is given, by Cholesky."""
    size = len(right)
    root = [[0.0] * size for _ in range(size)]
    for a in range(size):
        for b in range(a + 1):
            left = lower[a][b] - _dot(root[a][:b], root[b][:b])
            root[a][b] = math.sqrt(max(left, 1e-12)) if a == b else left / root[b][b]
    forward: list[float] = []
    for a in range(size):
        forward.append((right[a] - _dot(root[a][:a], forward)) / root[a][a])
    solved = [0.0] * size
    for a in reversed(range(size)):
        later = sum(root[b][a] * solved[b] for b in range(a + 1, size))
        solved[a] = (forward[a] - later) / root[a][a]
    return solved


def _dot(one: Iterable[float], other: Iterable[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


AS_TOLD = Calibration(
    bias=0.0,
    weights=(1.0, 0.0, 0.0, 0.0, 0.0),
    origin="none: the geometric mean of the tokens' probabilities, taken as the chance",
)

SHORT_ANSWERS = Calibration(
    bias=0.29,
    weights=(0.17, 0.61, -2.41, 3.18, -0.63),
    origin="1,000 answers of two small models to puzzles, of one to ten tokens (bench/cascade.py)",
)
"""On 1,500 other answers of the smaller one its Brier score is 0.047, and that of ``AS_TOLD`` 0.073
(``bench/cascade.py``). It is of short answers and of these models: the longer a text, the lower its
weakest token, and so the chance. For long answers, and for other models, fit your own."""

CALIBRATIONS = {"local": SHORT_ANSWERS, "cloud": AS_TOLD}
"""By where a model runs, for those of which the plan says nothing. What vendors tell over HTTP was
not measured, so nothing is made of it but what it says."""
