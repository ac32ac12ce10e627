"""Chooses for one dispatcher: keeps what was learned of its models, and ranks them by it.

``route`` decides and knows nothing but its arguments; here they are put together. Nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from llmdispatcher import offline, patience
from llmdispatcher.breaker import blamed
from llmdispatcher.breakers import Breakers
from llmdispatcher.history import History
from llmdispatcher.landlord import Landlord
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import BadReply, DispatcherError, VendorError
from llmdispatcher.models.reply import Attempt, Finish, FinishReason
from llmdispatcher.models.request import Request
from llmdispatcher.models.strategy import Strategy
from llmdispatcher.models.task import TASK_RULES, Complexity, Reading
from llmdispatcher.needs import has_images
from llmdispatcher.orders import Draws, Glance
from llmdispatcher.policies import Policies
from llmdispatcher.route import Ranking, Seen, is_by_cost, rank, strategy_of
from llmdispatcher.shelf import Shelf, Target
from llmdispatcher.vendors.contract import Engine, State
from llmdispatcher.warmth import Warmth

if TYPE_CHECKING:
    from concurrent.futures import Future

LOAD_BYTES_PER_S = 500e6
"""A stated estimate for a model that was never loaded here: what a plain SSD reads."""

FOREVER_S = 1e6
"""The longest wait that is reckoned with."""

AWAY = frozenset({State.ABSENT, State.LOADING, State.RESTARTING, State.FAILED})

Part = tuple[str, Sequence[ModelCard], tuple[Target, ...] | str]
"""A vendor, the cards that it showed last, and what they were made into; or why it has none."""


class Chooser:
    """Of one dispatcher. Safe for threads."""

    _clock: Callable[[], float] = staticmethod(time.monotonic)
    """By which attempts end: that of the desk."""

    def __init__(
        self,
        policies: Policies,
        catalog: Catalog,
        breakers: Breakers,
        landlord: Landlord,
        before: Chooser | None = None,
    ) -> None:
        """``before`` is the one whose place this takes: what was learned is not forgotten."""
        self.history: History = History() if before is None else before.history
        self.warmth: Warmth = Warmth() if before is None else before.warmth
        self.draws: Draws = Draws() if before is None else before.draws
        self._strategy, self._routing, self._catalog = policies.strategy, policies.routing, catalog
        self._is_offline = policies.offline
        retry = policies.retry or patience.RETRY
        self._full_wait_s = retry.full_wait_s if retry.same_target else 0.0
        self._breakers, self._landlord = breakers, landlord
        self._kept: dict[str, Part] = {}
        self._laid: tuple[list[Part], Shelf] = [], Shelf((), (), self._routing, self.history)
        """The shelf, and of what it was made: together, since any thread may make another."""

    def counting(
        self, request: Request, engines: Mapping[str, Engine]
    ) -> dict[str, Future[int | None]]:
        """Begin to count a prompt where that decides who is asked; mostly that is nowhere."""
        shelf = self.shelf(engines)
        counting: dict[str, Future[int | None]] = {}
        if not shelf.counters or has_images(request):  # what a picture is, no tokenizer tells
            return counting
        able = shelf.fit(request, (request.strategy or self._strategy).only).able
        for at in able if len(able) > 1 else ():
            if at in shelf.counters:
                card = shelf.cards[at]
                with suppress(DispatcherError):  # its tokens are estimated, and others may serve
                    counting[card.name] = shelf.counters[at].count(request, card.model)
        return counting

    def ranking(
        self,
        request: Work,
        engines: Mapping[str, Engine],
        counts: Mapping[str, int],
        now_s: float,
    ) -> Ranking:
        """Rank who can serve a request now."""
        strategy, reading = strategy_of(request) or self._strategy, None
        if isinstance(request, Request) and (strategy.reads_task or request.task is not None):
            reading = self._read(request)
            strategy = self._by_task(strategy, reading)
        shelf = self.shelf(engines)
        is_raced = strategy.plan is not None and strategy.plan.is_side_by_side
        waits = is_by_cost(strategy, shelf) and not is_raced
        seen = Seen(
            now_s=now_s,
            strategy=strategy,
            reading=reading,
            warm=self.warmth.of(request, now_s),
            counts=counts,
            held=self._breakers.held(now_s, self._full_wait_s if waits else 0.0),
            glance=self._glance,
            draws=self.draws,
        )
        return rank(request, shelf, seen)

    def _read(self, request: Request) -> Reading:
        """Say what a request is, as its caller says, or as its words do."""
        read = self._routing.classifier
        if read is None:
            from llmdispatcher import tasks  # noqa: PLC0415 - few ask for it

            read = tasks.read
        reading = read(request)
        return reading if request.task is None else attrs.evolve(reading, task=request.task)

    def _by_task(self, strategy: Strategy, reading: Reading) -> Strategy:
        """Return a strategy with what the rule of a task adds to it."""
        if not strategy.reads_task:
            return strategy
        rule = self._routing.tasks.get(reading.task) or TASK_RULES[reading.task]
        first = strategy.first if rule.prefers == "any" else rule.prefers
        least = rule.least_quality if strategy.least_quality is None else strategy.least_quality
        return attrs.evolve(strategy, least_quality=least, first=first)

    def shelf(self, engines: Mapping[str, Engine]) -> Shelf:
        """Return all models of some engines, with what is known of each."""
        laid: list[Part] = []
        before, shelf = self._laid
        is_same = len(engines) == len(before)
        for at, (name, engine) in enumerate(engines.items()):
            cards = engine.cards()
            if is_same and cards and before[at][1] is cards:  # as at nearly every request
                laid.append(before[at])
            else:
                part = self._part(name, engine, cards)
                is_same = is_same and part == before[at]
                laid.append(part)
        if not is_same:
            shelf = self._made(laid)
            self._laid = laid, shelf
        return shelf

    def _part(self, name: str, engine: Engine, cards: Sequence[ModelCard]) -> Part:
        if not cards:
            return name, (), engine.status().detail or "it has no models"
        known = self._kept.get(name)
        if known is None or known[1] is not cards:
            theirs = tuple(self._target(card, engine) for card in cards)
            known = self._kept[name] = name, cards, theirs
        return known

    def _target(self, card: ModelCard, engine: Engine) -> Target:
        known = self._catalog.apply(card)
        return Target(known, engine, offline.barred(known) if self._is_offline else "")

    def _made(self, laid: Sequence[Part]) -> Shelf:
        targets: list[Target] = []
        absent: list[tuple[str, str]] = []
        for name, _, part in laid:
            if isinstance(part, str):
                absent.append((name, part))
            else:
                targets += part
        return Shelf(targets, absent, self._routing, self.history)

    def promise(self, ranking: Ranking) -> None:
        """Give whoever is to be asked first its turn, though nobody is asked yet."""
        if ranking.targets:
            self.history.promise(ranking.targets[0].card)

    def begin(self, card: ModelCard) -> None:
        """Count an attempt that is about to be made."""
        self.history.begin(card)

    def settle(
        self,
        card: ModelCard,
        work: Work,
        attempt: Attempt,
        end: Finish | DispatcherError | None,
    ) -> None:
        """Learn from an attempt that ended, with what it did; None where it was given up."""
        now_s = self._clock()
        cause = blamed(end) if isinstance(end, DispatcherError) else None
        is_unfit = isinstance(cause, BadReply) and cause.is_unfit
        tells = cause is None or (isinstance(cause, VendorError) and not is_unfit)
        self.history.settle(card, attempt, now_s, tells=tells)
        is_whole = isinstance(end, Finish) and end.reason is not FinishReason.LENGTH
        has_form = isinstance(work, Request) and work.response_format.schema
        if has_form and (is_unfit or is_whole):
            self.history.judge(card, Complexity.ORDINARY, is_good=not is_unfit)
        if not isinstance(end, Finish):
            return
        finish = end
        warm = self.warmth.of(work, now_s).get(card.name, 0)
        self.history.replied(card, work, finish, warm)
        self.warmth.served(work, card.name, finish.usage.total_tokens, now_s)

    def judge(self, vendor: str, model: str, *, is_good: bool) -> bool:
        """Take note of a verdict on an answer; False where there is no such model."""
        for target in self._laid[1].targets:
            if (target.card.vendor, target.card.model) == (vendor, model):
                self.history.judge(target.card, Complexity.ORDINARY, is_good=is_good)
                return True
        return False

    def _glance(self, target: Target) -> Glance:
        """Look how a model on this machine is."""
        status, name = target.engine.status(), target.card.name
        wait_s = status.expected_wait_s or 0.0
        if not 0 <= wait_s < FOREVER_S:  # also what is no number, of which nothing could be made
            wait_s = FOREVER_S
        if status.state in AWAY and target.card.model not in (status.loaded or ()):
            load_s = self._landlord.load_s(name)
            wait_s += (target.card.size_bytes or 0) / LOAD_BYTES_PER_S if load_s is None else load_s
        in_hand = status.running + status.waiting + self._landlord.waiting(name)
        return Glance(wait_s=wait_s, in_hand=in_hand)
