"""The models of a dispatcher as they are now, laid out so that choosing among them is quick.

What does not change from request to request is worked out once: who can do what, at which prices.
A shelf is made anew when a vendor shows other models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import attrs

from llmdispatcher.history import History, Record
from llmdispatcher.models.card import PICO_PER_MICRO, Capability, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.quality import UNKNOWN_QUALITY
from llmdispatcher.models.routing import Routing
from llmdispatcher.needs import in_words, is_chosen, needs, unfit
from llmdispatcher.vendors.contract import Counter, Engine, Finder

MAX_KINDS = 64
"""Kinds of requests for which it is remembered who can serve them."""

N = TypeVar("N", int, float)

Rates = tuple[int, int, int, int]
"""Pico-dollars: for a token of the prompt, for one that is cached, for one of the reply, and for
the request."""


@attrs.frozen
class Target:
    """A model and the engine that serves it."""

    card: ModelCard
    engine: Engine
    barred: str = ""
    """Why it is not asked, whatever the request; empty if it may be."""


@attrs.frozen
class Fit:
    """Who can serve a kind of request, by their place on the shelf, and who cannot, and why."""

    able: tuple[int, ...]
    unable: tuple[tuple[int, str], ...]
    needed: AbstractSet[Capability] = frozenset()
    """What this kind of request needs of a model."""
    rows: tuple[tuple[int, Record, Rates | None, int], ...] = ()
    """Of each of the able: its place, its record, its rates, and up to where they hold."""


class Shelf:
    """Targets in the order of their registration, with what choosing needs of each."""

    def __init__(
        self,
        targets: Sequence[Target],
        absent: Sequence[tuple[str, str]] = (),
        routing: Routing | None = None,
        history: History | None = None,
    ) -> None:
        """``absent`` are vendors without any model, each with the reason."""
        self.targets, self.absent = tuple(targets), tuple(absent)
        self.routing = routing or Routing()
        self.history = history or History()
        cards = self.cards = tuple(target.card for target in self.targets)
        self.records: list[Record] = self.history.records(cards)
        self.rates = [_rates(card) for card in cards]
        """None where the price is not known."""
        self.plain_up_to = [_plain_up_to(card) for card in cards]
        """Tokens of a prompt up to which the plain rates hold, and no tier is reached."""
        self.contexts = [card.context_tokens or 2**63 for card in cards]
        self.names = [card.name for card in cards]
        self.is_local = [card.local for card in cards]
        self.is_here = [t.card.local and not isinstance(t.engine, Finder) for t in self.targets]
        """Its engine knows at once how it is. A server would have to be asked, and there are some
        that break off what they are doing when they are."""
        self.qualities = [card.quality or UNKNOWN_QUALITY for card in cards]
        self.priorities = [_of(self.routing.priorities, card, 0) for card in cards]
        self.weights = [_of(self.routing.weights, card, 1.0) for card in cards]
        order = sorted(range(len(cards)), key=lambda at: self.priorities[at])  # it is stable
        self.places = [0] * len(cards)
        """By priority, then registration."""
        for place, at in enumerate(order):
            self.places[at] = place
        self.counters = {
            at: target.engine
            for at, target in enumerate(self.targets)
            if target.card.local
            and (price := target.card.price) is not None
            and not price.is_free
            and isinstance(target.engine, Counter)
        }
        """Of those whose price depends on how many tokens a prompt is: who can tell, by place."""
        self._fits: dict[object, Fit] = {}

    def fit(self, request: Work, only: str) -> Fit:
        """Return who can serve a request where the strategy lets it run."""
        needed = needs(request)
        kind = needed, request.vendor, request.model, request.allow_cloud, only
        found = self._fits.get(kind)
        if found is None:
            if len(self._fits) >= MAX_KINDS:
                self._fits.clear()
            found = self._fits[kind] = self._look(request, only)
        return found

    def _look(self, request: Work, only: str) -> Fit:
        needed = needs(request)
        able, unable = self._split(request, needed, only)
        if not able and (told := needed & in_words(request)):  # nobody can be held to the form
            able, unable = self._split(request, needed - told, only)
        cards = self.cards
        regular = [at for at in able if not cards[at].last_resort or is_chosen(request, cards[at])]
        if regular:
            unable += [
                (at, "last resort, and others can serve") for at in able if at not in regular
            ]
        fit = tuple(regular or able)
        rows = [(at, self.records[at], self.rates[at], self.plain_up_to[at]) for at in fit]
        return Fit(fit, tuple(unable), needed, tuple(rows))

    def _split(
        self, request: Work, needed: AbstractSet[Capability], only: str
    ) -> tuple[list[int], list[tuple[int, str]]]:
        """Return who can do what is needed, and who cannot, each with the reason."""
        able, unable = [], []
        for at, target in enumerate(self.targets):
            reason = target.barred or unfit(request, frozenset(needed), target.card, only)
            if reason:
                unable.append((at, reason))
            else:
                able.append(at)
        return able, unable


def _rates(card: ModelCard) -> Rates | None:
    price = card.price
    if price is None:
        return None
    cached = price.input_pico if price.cached_input_pico is None else price.cached_input_pico
    return price.input_pico, cached, price.output_pico, price.request_microusd * PICO_PER_MICRO


def _plain_up_to(card: ModelCard) -> int:
    tiers = () if card.price is None else card.price.tiers
    return tiers[0].above_tokens if tiers else 2**63


def _of(named: Mapping[str, N], card: ModelCard, default: N) -> N:
    """Return what was set for a model, or else for its vendor."""
    return named.get(card.name, named.get(card.vendor, default))
