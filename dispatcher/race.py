"""The flows of ``Parallel`` and ``Hedge``: several are asked, and the first wins. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import attrs

from llmdispatcher.flow import Tries, blank, replied
from llmdispatcher.fork import Ended, News, Shown
from llmdispatcher.heat import Heat, Run
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.race import Hedge, NoGoodAnswer, Parallel
from llmdispatcher.models.reply import CallDelta, Delta, FinishReason, Reply
from llmdispatcher.models.request import Request
from llmdispatcher.route import expected_usage
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Sign, Step
from llmdispatcher.trial import Job
from llmdispatcher.vendors.contract import State

SERVING = (State.READY, State.BUSY)


def parallel(job: Job[Request], plan: Parallel) -> Generator[Step, Any, Reply]:
    """Ask several at once. Raises as ``flow.serve``, and NoGoodAnswer."""
    with Heat(job) as heat:
        count = len(heat.targets) if plan.count is None else plan.count
        rules = _Parallel(heat, plan.accept)
        shows = job.streaming and plan.accept is None
        yield from heat.begin(min(count, len(heat.targets)), streaming=shows)
        heat.notes.append(f"parallel: asked {_names(heat.runs)}")
        reply = yield from (first_piece(heat, rules) if shows else first_whole(heat, rules))
        if job.streaming and not shows:
            yield from whole(reply)
        return reply


def hedge(job: Job[Request], plan: Hedge) -> Generator[Step, Any, Reply]:
    """Ask the first, and another one if the first is late. Raises as ``flow.serve``."""
    with Heat(job) as heat:
        rules = _Hedge(heat, plan)
        yield from heat.begin(1, signs=True)
        try:
            first = first_piece if job.streaming else first_whole
            return (yield from first(heat, rules))
        finally:
            rules.settle()


def whole(reply: Reply) -> Generator[Step, Any, None]:
    """Show a reply that is there already, a piece for each choice."""
    for index, choice in enumerate(reply.choices):
        calls = (
            CallDelta(at, call.id, call.name, call.arguments)
            for at, call in enumerate(choice.tool_calls)
        )
        yield Emit(
            Delta(
                choice.text,
                index,
                choice.logprobs,
                choice.reasoning,
                tuple(calls),
                choice.keepsakes,
            )
        )


def poor(reply: Reply, asked: Request) -> str:
    """Return why a reply is not good, by what can be seen of it; empty if nothing speaks against.

    A reply that ends where ``max_tokens`` of the request says is as long as it was to be.
    """
    for choice in reply.choices:
        if choice.finish_reason is FinishReason.CONTENT_FILTER:
            return "a content filter cut it"
        if choice.finish_reason is FinishReason.LENGTH:
            if asked.response_format.is_json:
                return "it was cut before its JSON was whole"
            if asked.max_tokens is None:
                return "it was cut at the end of the context"
    return ""


class Rules:
    """What a race does when nobody has won yet."""

    def __init__(self, heat: Heat) -> None:
        self.heat = heat

    def wait_s(self) -> float | None:
        """Return after how long ``late`` is to be asked; None for never."""
        return None

    def late(self) -> Generator[Step, Any, None]:
        """Do what is to be done when nothing has come for so long."""
        yield from ()

    def heard(self, run: Run, news: News) -> None:
        """Take note of any news."""

    def failed(self, run: Run, error: DispatcherError) -> Generator[Step, Any, None]:
        """Deal with a failure."""
        yield from self.heat.replace(run, error)

    def reason(self, _reply: Reply, /) -> str:
        """Return why a reply does not win; empty if it does."""
        return ""

    def none_good(self, replies: list[tuple[Run, Reply, str]]) -> Run:
        """Return who wins of those that are not good. Raises NoGoodAnswer."""
        return replies[0][0]


class _Parallel(Rules):
    def __init__(self, heat: Heat, accept: Callable[[Reply], bool] | None) -> None:
        super().__init__(heat)
        self._accept = accept

    def reason(self, reply: Reply, /) -> str:
        reason = poor(reply, self.heat.job.request)
        if not reason and self._accept is not None and not self._accept(reply):
            return "it was not accepted"
        return reason

    def none_good(self, replies: list[tuple[Run, Reply, str]]) -> Run:
        if self._accept is None:
            return super().none_good(replies)
        told = "; ".join(f"{run.name}: {reason}" for run, _, reason in replies)
        raise NoGoodAnswer(
            f"{len(replies)} answers came and none is good ({told}); the error has them as replies",
            tuple(reply for _, reply, _ in replies),
            tuple(reason for _, _, reason in replies),
        )


class _Hedge(Rules):
    """Sends a copy to somebody else when the one that was asked is late."""

    def __init__(self, heat: Heat, plan: Hedge) -> None:
        super().__init__(heat)
        self._plan = plan
        self._hedging = heat.job.patience.hedging
        self._hedging.earn(plan.max_extra)
        self._asked: dict[Run, float] = {}
        """When each was asked that has not begun to answer."""
        self._is_done = False
        """Whether a copy was sent, or may not be."""
        self._expected = 0
        self._copy: Run | None = None

    def wait_s(self) -> float | None:
        if self._is_done or not self._asked:
            return None
        run, asked_s = next(iter(self._asked.items()))
        return max(0.0, asked_s + self._late_s(run) - self.heat.job.clock())

    def _late_s(self, run: Run) -> float:
        if self._plan.after_s is not None:
            return self._plan.after_s
        return self._hedging.late_s(run.name, self._plan.percentile)

    def heard(self, run: Run, news: News) -> None:
        if isinstance(news, Shown) and news.piece is Sign.ASKED:
            self._asked[run] = self.heat.job.clock()
        else:
            self._asked.pop(run, None)

    def late(self) -> Generator[Step, Any, None]:
        """Send a copy, if there is somebody to send it to, and it is not too much."""
        heat, late = self.heat, next(iter(self._asked))
        self._is_done = True
        waited_s, notes = self._late_s(late), heat.notes
        index = heat.course.fresh(at for at, each in enumerate(heat.targets) if _is_away(each))
        if index is None and not late.target.card.local:
            index = late.index
        reason = "there is nobody else to ask" if index is None else self._refusal(index)
        if reason or index is None:
            notes.append(f"hedge: {late.name} was late, and no copy was sent: {reason}")
            return
        self._copy = yield from heat.ask(heat.course.ask(index, heat.job.clock()), signs=True)
        told = f"hedge: {late.name} had not begun after {waited_s:.3g} s"
        notes.append(f"{told}, and a copy went to {heat.targets[index].card.name}")

    def _refusal(self, index: int) -> str:
        """Return why no copy may be sent to somebody; empty, and it is taken, if it may."""
        heat = self.heat
        if reason := heat.course.allowance.refusal(heat.job.clock()):
            return reason
        price, usage = heat.targets[index].card.price, expected_usage(heat.job.request)
        self._expected = 0 if price is None else price.cost_microusd(usage)
        spent = heat.job.books.snapshot().total.cost_microusd
        return self._hedging.take(self._plan.max_extra, self._expected, spent)

    def failed(self, run: Run, error: DispatcherError) -> Generator[Step, Any, None]:
        if self.heat.running:
            self.heat.noted(run, error)
        else:
            yield from self.heat.replace(run, error)

    def settle(self) -> None:
        """Note what was wasted, and how long those waited that were given up."""
        heat = self.heat
        if self._copy is None or heat.running:
            return
        lost = [run.attempt for run in heat.runs if run is not heat.winner and run.attempt]
        costs = [each.cost_microusd for each in lost if each.cost_microusd is not None]
        self._hedging.waste(sum(costs) if len(costs) == len(lost) else None, self._expected)
        for run in heat.runs:  # of one that was stopped before it was late nothing is known
            if run.is_stopped and run.attempt and run.attempt.first_token_s is None:
                waited_s = run.attempt.latency_s
                if waited_s >= self._hedging.late_s(run.name, self._plan.percentile):
                    self._hedging.heard(run.name, waited_s)


def _is_away(target: Target) -> bool:
    """Whether a model on this machine would have to be loaded first."""
    return target.card.local and target.engine.status().state not in SERVING


def first_whole(heat: Heat, rules: Rules) -> Generator[Step, Any, Reply]:
    """Return the first reply that the rules let win."""
    others: list[tuple[Run, Reply, str]] = []
    while heat.running:
        for run, news in (yield from _hear(heat, rules)):
            if not isinstance(news, Ended):
                continue
            if news.error is not None:
                yield from rules.failed(run, _failure(news.error))
            elif reason := rules.reason(reply := run.reply()):
                others.append((run, reply, reason))
                heat.notes.append(f"{run.name} is not good: {reason}")
                yield from heat.another(run)
            else:
                return (yield from _won(heat, run))
    if not others:
        raise heat.error()
    run = rules.none_good(others)
    reply = yield from _won(heat, run)
    reason = f"no answer was good; this one: {others[0][2]}"
    return attrs.evolve(reply, warnings=(*reply.warnings, reason))


def first_piece(heat: Heat, rules: Rules) -> Generator[Step, Any, Reply]:
    """Show the reply of whoever brings the first piece, and return it."""
    lead: Run | None = None
    while heat.running:
        for run, news in (yield from _hear(heat, rules if lead is None else None)):
            is_piece = isinstance(news, Shown) and isinstance(news.piece, Delta)
            is_served = isinstance(news, Ended) and news.error is None
            if lead is None and (is_piece or is_served):
                lead = run
                heat.stop(but=lead)
            if isinstance(news, Shown):
                if run is lead and is_piece:
                    yield Emit(news.piece)
            elif run is lead:
                if news.error is None:
                    return (yield from _won(heat, run))
                return (yield from _resumed(heat, run, _failure(news.error)))
            elif lead is None and news.error is not None:
                yield from rules.failed(run, _failure(news.error))
    raise heat.error()


def _hear(heat: Heat, rules: Rules | None) -> Generator[Step, Any, list[tuple[Run, News]]]:
    """Wait for news, and for the moment when somebody is late."""
    if rules is None:
        return (yield from heat.hear())
    while True:
        try:
            heard = yield from heat.hear(rules.wait_s())
        except TimeoutError:
            yield from rules.late()
            continue
        for run, news in heard:
            rules.heard(run, news)
        return heard


def _won(heat: Heat, winner: Run) -> Generator[Step, Any, Reply]:
    """Stop all others, and return the reply once they have settled."""
    heat.winner = winner
    losers = [run for run in heat.runs if run is not winner and (run.is_stopped or not run.is_over)]
    yield from heat.settle()
    if len(heat.runs) > 1:
        ended = f"; stopped: {_names(losers)}" if losers else ""
        heat.notes.append(f"{winner.name} won{ended}")
    return heat.account(winner.reply())


def _resumed(heat: Heat, lead: Run, error: DispatcherError) -> Generator[Step, Any, Reply]:
    """Go on where the one that led broke off, if the request says so. Raises as ``flow.serve``."""
    assert lead.trial is not None  # noqa: S101 - it has shown something
    yield from heat.settle()
    job = heat.job
    heat.course.asked = lead.index
    tries = Tries(job, lambda: blank(job.request), heat.course)
    tries.follow(lead.trial, error)
    heat.notes.append(f"{lead.name} won, and broke off")
    reply = replied((yield from tries.all()), job.ranking)
    return heat.account(reply, reply.decision.attempts)


def _failure(error: Exception) -> DispatcherError:
    assert isinstance(error, DispatcherError)  # noqa: S101 - ``Heat.hear`` raises all else
    return error


def _names(runs: list[Run]) -> str:
    return ", ".join(run.name for run in runs)
