"""Which models can serve a request, and in which order they are asked.

Pure: a shelf of models, a request and what is known now in, a ranking out. ``outlook`` has the
arithmetic, ``orders`` the strategies. Every model stands in the ranking, as a candidate with its
arithmetic or as excluded with its reason; those rows are made when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.history import BYTES_PER_TOKEN, PRIOR_OUTPUT_TOKENS
from llmdispatcher.models.decision import Candidate, Considered
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.reply import Usage
from llmdispatcher.models.request import Request
from llmdispatcher.models.strategy import STRATEGIES, Strategy
from llmdispatcher.models.task import Complexity, Reading
from llmdispatcher.orders import Draws, Glance, Standing, order
from llmdispatcher.outlook import (
    Bare,
    Estimate,
    Size,
    estimates,
    microusd,
    size,
    timed,
    words,
)
from llmdispatcher.shelf import Fit, Shelf, Target
from llmdispatcher.warmth import Warm
from llmdispatcher.worst import worst_case

if TYPE_CHECKING:
    from llmdispatcher.models.card import ModelCard

PICO_PER_USD = 10**12
SECONDS_PER_HOUR = 3600


@attrs.define(kw_only=True)
class Seen:
    """What is known at the moment of choosing, beside the shelf."""

    now_s: float = 0.0
    strategy: Strategy | None = None
    """Where it is not the request's own, or not as that says."""
    reading: Reading | None = None
    """What the request was understood to be, where somebody asked."""
    warm: Warm = attrs.field(factory=dict)
    counts: Mapping[str, int] = attrs.field(factory=dict)
    """Tokens of the prompt, by the name of a model that counted them."""
    held: Mapping[str, str] = attrs.field(factory=dict)
    """Names of models that their breaker lets nobody ask now, and why."""
    glance: Callable[[Target], Glance] = lambda _: Glance()
    """Looks at a model on this machine; only asked where it matters."""
    draws: Draws = attrs.field(factory=Draws)


@attrs.define
class Ranking:
    """Targets in the order in which to ask them, and an account of all that were considered."""

    targets: tuple[Target, ...]
    considered: Considered
    is_by_cost: bool
    """Whoever is asked first is the cheapest, and no second is worth money: a wait spares some."""
    notes: tuple[str, ...] = ()
    """What the request was taken for, in words."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Rows of the targets, in their order."""
        return self.considered.candidates

    @property
    def excluded(self) -> tuple[Candidate, ...]:
        """Rows of all others, each with the reason."""
        return self.considered.excluded


def rank(request: Work, shelf: Shelf, seen: Seen | None = None) -> Ranking:
    """Put those who can serve the request in the order of the strategy.

    Whoever would be refused now comes last, whatever the strategy: held back by a breaker, too
    small for the prompt, too dear for the request's own limit. A local server that was full a
    moment ago keeps its place where a request would wait for it: ``seen.held`` is without it.
    """
    seen = seen or Seen()
    strategy = seen.strategy or strategy_of(request) or STRATEGIES["cost"]
    complexity = Complexity.ORDINARY if seen.reading is None else seen.reading.complexity
    fit = shelf.fit(request, strategy.only)
    sized = size(request)
    made = estimates(shelf, fit, sized, (seen.warm, seen.counts, complexity, seen.now_s))
    if shelf.routing.value_of_time_usd:
        made = _timed(shelf, made, seen)
    late = _late(request, shelf, made, sized, seen)
    standing = Standing(shelf, strategy, late, seen.glance, seen.draws)
    ordered = order(made, standing)
    rows = _Rows(shelf.cards, shelf.absent, fit, ordered, late, sized.choices)
    targets = shelf.targets
    return Ranking(
        tuple([targets[each[0]] for each in ordered]),
        Considered(rows.candidates, rows.left),
        is_by_cost(strategy, shelf),
        () if seen.reading is None else (told(seen.reading, strategy),),
    )


def is_by_cost(strategy: Strategy, shelf: Shelf) -> bool:
    """Whether the cheapest comes first, and not what is better, elsewhere or sooner."""
    is_plain = strategy.first != "cloud" and strategy.least_quality is None
    return strategy.order == "cost" and is_plain and not shelf.routing.value_of_time_usd


def strategy_of(request: Work) -> Strategy | None:
    """Return the strategy that a request brings, if it does."""
    return request.strategy if isinstance(request, Request) else None


def told(reading: Reading, strategy: Strategy) -> str:
    """Tell what a request was taken for, and what follows from that."""
    words = f"taken for {reading.task} ({reading.complexity.name.lower()})"
    words += f": {', '.join(reading.cues)}" if reading.cues else ""
    if strategy.least_quality is not None:
        words += f"; tiers below {strategy.least_quality} come last"
    if strategy.first != "anywhere":
        words += f"; {strategy.first} models come first"
    return words


def _timed(shelf: Shelf, made: Sequence[Bare], seen: Seen) -> list[Bare]:
    usd = shelf.routing.value_of_time_usd or 0
    pico_per_s = float(usd) * PICO_PER_USD / SECONDS_PER_HOUR
    priced: list[Bare] = []
    for each in map(Estimate._make, made):
        glance = seen.glance(shelf.targets[each.at]) if shelf.is_here[each.at] else Glance()
        record = shelf.records[each.at]
        priced.append(timed(each, record, glance.wait_s, pico_per_s, seen.now_s))
    return priced


def _late(
    request: Work, shelf: Shelf, made: Sequence[Bare], sized: Size, seen: Seen
) -> dict[int, str]:
    """Return who would be refused if it were asked now, by place, and why."""
    late = {}
    contexts, least = shelf.contexts, sized.least
    for each in made if isinstance(request, Request) else ():  # texts to embed go one by one
        if each[3] + least > contexts[each[0]]:
            late[each[0]] = f"too long for its context of {contexts[each[0]]} tokens, it seems"
    if seen.held:
        for at, *_ in made:
            if shelf.names[at] in seen.held:
                late[at] = f"left alone for a while: {seen.held[shelf.names[at]]}"
    if isinstance(request, Request) and request.max_cost_usd is not None:
        limit = int(request.max_cost_usd * PICO_PER_USD)
        for at, *_ in made:
            worst = worst_case(shelf.targets[at].card, request)
            if worst.microusd is None or worst.microusd * (PICO_PER_USD // 10**6) > limit:
                told = worst.why or f"may cost {worst.microusd} µ$"
                late[at] = f"{told}, and the request has max_cost_usd={request.max_cost_usd}"
    return late


@attrs.define
class _Rows:
    """A snapshot from which rows are made, once somebody asks for them.

    It is as old as the reply that holds it, so it holds values alone: no engine, and no prompt.
    """

    cards: Sequence[ModelCard]
    absent: Sequence[tuple[str, str]]
    fit: Fit
    ordered: Sequence[Bare]
    late: dict[int, str]
    choices: int

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(
            _row(
                self.cards[each.at],
                None if each.expected is None else microusd(each.expected),
                self._note(each),
            )
            for each in map(Estimate._make, self.ordered)
        )

    def left(self) -> tuple[Candidate, ...]:
        rows = [_row(self.cards[at], None, reason) for at, reason in self.fit.unable]
        rows += [
            Candidate(vendor=vendor, model="*", expected_cost_microusd=None, note=reason)
            for vendor, reason in self.absent
        ]
        return tuple(rows)

    def _note(self, each: Estimate) -> str:
        if each.cost is None:
            told = "price not known: after all whose price is known"
        else:
            told = words(each, self.choices)
        card = self.cards[each.at]
        if self.fit.needed - card.capabilities:  # whoever lacks anything else is left out
            told += ", told in words what form the reply is to have"
        if card.last_resort:
            told += ", last resort"
        if reason := self.late.get(each.at):
            told += f"; {reason}"
        return told


def _row(card: ModelCard, cost_microusd: int | None, note: str) -> Candidate:
    return Candidate(
        vendor=card.vendor, model=card.model, expected_cost_microusd=cost_microusd, note=note
    )


def expected_usage(request: Work) -> Usage:
    """Estimate what serving a request will use, whoever does it."""
    sized = size(request)
    prompt = -int(-sized.bytes // BYTES_PER_TOKEN)
    if not isinstance(request, Request):
        return Usage(prompt_tokens=prompt, estimated=True)
    output = min(sized.most, PRIOR_OUTPUT_TOKENS)
    return Usage(prompt_tokens=prompt, completion_tokens=output * request.n, estimated=True)
