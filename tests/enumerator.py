"""Whom to ask first, found by trying every order: the judge of what the dispatcher chooses.

It knows facts, and nothing of how the dispatcher goes about it: imported is arithmetic. An order of
candidates is a plan to ask one after the other until somebody serves. Of each candidate it is known
what an answer costs, how likely it serves, what a failure costs, and how likely its answer is good.
An answer that is not good is asked for again where it came from. The dollars that an order costs on
average are then a sum, written down in ``dollars``; the best order is the one that costs least.
Money is counted in fractions of dollars: nothing is rounded.

What is no matter of money comes before it or after it, as ``_worth`` says: who would be refused now
is not asked before somebody who would not; a price that nobody knows is not paid before one that is
known; and of orders that cost the same, the one wins that asks the quicker first, then who has the
smaller priority, then who was registered first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

import attrs

GOOD = {
    1: ("0.60", "0.35", "0.15"),
    2: ("0.80", "0.60", "0.35"),
    3: ("0.92", "0.80", "0.60"),
    4: ("0.97", "0.92", "0.80"),
    5: ("0.99", "0.97", "0.92"),
}
"""By tier of quality: how likely an answer is good, to a simple, an ordinary and a hard request."""

FORMS = frozenset({"json", "schema"})

USUAL_TOKENS = 256
"""Of a reply, where nobody knows better."""

BYTES_PER_TOKEN = 4

HICCUP = Fraction(1, 1000)
"""Nobody is sure to serve: so often anybody fails, at no cost. With it the places behind the first
matter too, and orders that begin alike are told apart."""

WORTHY = 4
"""The tier of quality that ``Asked.ranks`` calls worthy."""

PER_MILLION = 10**6


@attrs.frozen(kw_only=True)
class Offer:
    """A model and what is true of it. Money is text: dollars per million tokens."""

    name: str
    """``vendor/model``; a model may have a slash in its name."""
    input: str | None = None
    """None: its price is not known."""
    output: str = "0"
    cached: str | None = None
    per_request: str = "0"
    above: tuple[tuple[int, str, str], ...] = ()
    """Prices of prompts of more than so many tokens: tokens, input, output; the shortest first."""
    local: bool = False
    able: frozenset[str] = frozenset({"chat"})
    context: int | None = None
    most: int | None = None
    """Tokens that it can write at most."""
    quality: int | None = None
    aliases: tuple[str, ...] = ()
    last: bool = False
    """Only where nobody else can."""
    named_only: bool = False
    state: str = ""
    """"dead" (it failed until it was left alone), "cooling" (it said to come back later), "busy",
    "loading"."""
    writes: int | None = None
    """Tokens of its usual reply, where it has replied before."""
    token_bytes: int = BYTES_PER_TOKEN
    """Bytes of text in its tokens, where it has been seen."""
    warm: Fraction = Fraction(0)
    """The part of this request's prompt that it would bill as cached."""
    served: Fraction = Fraction(1)
    """How likely it serves."""
    lost: Fraction = Fraction(0)
    """Dollars that a failure of it costs."""
    seconds: Fraction = Fraction(0)
    """How long it takes, where it has been seen."""
    priority: int = 0

    @property
    def vendor(self) -> str:
        """What stands before the first slash."""
        return self.name.partition("/")[0]

    @property
    def model(self) -> str:
        """What stands behind it."""
        return self.name.partition("/")[2]


@attrs.frozen(kw_only=True)
class Asked:
    """A request: what matters of it, and what the caller set for it."""

    bytes: int = 40
    """Of its text."""
    max_tokens: int | None = None
    n: int = 1
    needs: frozenset[str] = frozenset({"chat"})
    vendor: str | None = None
    model: str | None = None
    allow_cloud: bool = True
    max_cost_usd: str | None = None
    strategy: Any = None
    only: str = ""
    """"local" or "cloud": what the strategy leaves standing."""
    ranks: tuple[str, ...] = ()
    """What the strategy looks at before money: "local", "cloud", "priority", "quality", "worthy"
    (a tier of at least 4)."""
    hardness: int = 1
    """0 simple, 1 ordinary, 2 hard."""
    hour_usd: str = "0"
    """What an hour of waiting costs."""


def allowed(asked: Asked, offers: Sequence[Offer]) -> list[Offer]:
    """Return who may be asked at all.

    A form of the reply that nobody can keep to by itself may be asked for in words.
    """
    able = [offer for offer in offers if _may(asked, offer)]
    if not able and asked.needs & FORMS:
        told = attrs.evolve(asked, needs=asked.needs - FORMS)
        able = [offer for offer in offers if _may(told, offer)]
    named = asked.vendor is not None or asked.model is not None
    if named:
        return able
    return [offer for offer in able if not offer.last] or able


def _may(asked: Asked, offer: Offer) -> bool:
    names = {offer.model, *offer.aliases}
    if asked.vendor is not None and offer.vendor != asked.vendor:
        return False
    if asked.model is not None and asked.model not in names:
        return False
    if offer.named_only and asked.model is None:
        return False
    if not asked.needs <= offer.able:
        return False
    if asked.only and offer.local is not (asked.only == "local"):
        return False
    return offer.local or asked.allow_cloud


def refused(asked: Asked, offer: Offer) -> bool:
    """Whether a candidate would be refused if it were asked now."""
    if offer.state in {"dead", "cooling"}:
        return True
    if offer.context is not None and prompt(asked, offer) + (asked.max_tokens or 1) > offer.context:
        return True
    if asked.max_cost_usd is None:
        return False
    most = worst(asked, offer)
    return most is None or most > Fraction(asked.max_cost_usd)


def worst(asked: Asked, offer: Offer, around: int = 32) -> Fraction | None:
    """Return the dollars that it may cost; None where nobody can tell.

    There is at most a token in every byte, and some around a text; the reply is as long as it may
    be, and the prompt no longer than the context.
    """
    if offer.input is None:
        return None
    if not any(map(Fraction, (offer.input, offer.output, offer.per_request))):
        return Fraction(0)
    most = asked.max_tokens or offer.most
    if most is None:
        return None
    tokens = asked.bytes + around
    if offer.context is not None:
        tokens = min(tokens, offer.context)
    return _bill(offer, tokens, 0, most * asked.n)


def prompt(asked: Asked, offer: Offer) -> int:
    """Return how many tokens the text is to a candidate."""
    return -(-asked.bytes // offer.token_bytes)


def cost(asked: Asked, offer: Offer) -> Fraction | None:
    """Return the dollars of one answer, good or not; None where its price is not known."""
    if offer.input is None:
        return None
    tokens = prompt(asked, offer)
    usual = USUAL_TOKENS if offer.writes is None else offer.writes
    written = usual if asked.max_tokens is None else min(usual, asked.max_tokens)
    money = _bill(offer, tokens, tokens * offer.warm, written * asked.n)
    return money + offer.seconds * Fraction(asked.hour_usd) / 3600


def _bill(offer: Offer, tokens: int, cached: Fraction | int, written: int) -> Fraction:
    reading, writing = offer.input or "0", offer.output
    for above, longer_reading, longer_writing in offer.above:
        if tokens > above:
            reading, writing = longer_reading, longer_writing
    again = reading if offer.cached is None else offer.cached
    money = (tokens - cached) * Fraction(reading) + cached * Fraction(again)
    return (money + written * Fraction(writing)) / PER_MILLION + Fraction(offer.per_request)


@attrs.frozen
class Trial:
    """A candidate, as far as an order is concerned."""

    cost: Fraction
    """Of one answer."""
    good: Fraction
    served: Fraction
    lost: Fraction

    @property
    def answer(self) -> Fraction:
        """Dollars of a good answer, from when it has served once.

        Of 1/good answers that are needed one is there; each of the others has its failures too.
        """
        again = 1 / self.good - 1
        failures = (1 - self.served) / self.served * self.lost
        return self.cost + again * (self.cost + failures)

    @property
    def index(self) -> Fraction:
        """By which an order is best: the dollars of a good answer if nobody else were there."""
        return (self.cost + (1 - self.served) / self.served * self.lost) / self.good


def dollars(order: Iterable[Trial]) -> Fraction:
    """Return what it costs on average to ask in this order until somebody serves."""
    reached, total = Fraction(1), Fraction(0)
    for each in order:
        total += reached * (each.served * each.answer + (1 - each.served) * each.lost)
        reached *= 1 - each.served
    return total


def trial(asked: Asked, offer: Offer) -> Trial:
    """Return what a candidate is to an order; what is not known costs nothing here."""
    good = Fraction(GOOD[3 if offer.quality is None else offer.quality][asked.hardness])
    return Trial(cost(asked, offer) or Fraction(0), good, offer.served, offer.lost)


@attrs.frozen
class _Row:
    """A candidate with all that an order is judged by."""

    offer: Offer
    refused: bool
    ranks: tuple[int, ...]
    unknown: bool
    trial: Trial
    ties: tuple[Fraction, int, int]

    @classmethod
    def of(cls, asked: Asked, offer: Offer, place: int) -> _Row:
        known = trial(asked, offer)
        return cls(
            offer,
            refused(asked, offer),
            tuple(_rank(name, offer) for name in asked.ranks),
            offer.input is None,
            attrs.evolve(known, served=known.served * (1 - HICCUP)),
            (offer.seconds, offer.priority, place),
        )


def _worth(order: Sequence[_Row]) -> tuple[object, ...]:
    """Return what makes an order better than another; the smaller the better."""
    return (
        [row.refused for row in order],
        [row.ranks for row in order],
        [row.unknown for row in order],
        dollars(row.trial for row in order),
        [row.ties for row in order],
    )


def _rank(name: str, offer: Offer) -> int:
    quality = 3 if offer.quality is None else offer.quality
    ranks = {
        "local": not offer.local,
        "cloud": offer.local,
        "priority": offer.priority,
        "quality": -quality,
        "worthy": quality < WORTHY,
    }
    return int(ranks[name])


def best_order(asked: Asked, offers: Sequence[Offer]) -> list[Offer]:
    """Try every order of those who may be asked, and return the best; empty if there is nobody."""
    may = allowed(asked, offers)
    rows = [_Row.of(asked, offer, place) for place, offer in enumerate(offers) if offer in may]
    return [row.offer for row in min(permutations(rows), key=_worth)]


def choice(asked: Asked, offers: Sequence[Offer]) -> str:
    """Return the name of whom to ask first; "nobody" if nobody may be asked."""
    order = best_order(asked, offers)
    return order[0].name if order else "nobody"
