"""Attempts at one request that are made side by side. No I/O.

A ``Heat`` belongs to one flow, which asks, hears what becomes of each, and says what the reply is.
One ``Course`` says who is asked next, and all attempts spend one allowance and one purse.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self

import attrs

from llmdispatcher.account import Account
from llmdispatcher.breaker import Hold, blamed
from llmdispatcher.course import Ask, End, Move
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.flow import Served, blank, course_of, replied, reported, together, worded
from llmdispatcher.fork import SETTLE_S, Branches, Ended, News
from llmdispatcher.models.errors import (
    Cancelled,
    DispatcherError,
    LimitReached,
    NoCandidate,
)
from llmdispatcher.models.event import Fallback
from llmdispatcher.models.reply import Attempt, Finish, Reply
from llmdispatcher.models.request import Request
from llmdispatcher.patience import pause
from llmdispatcher.release import Stopper
from llmdispatcher.retry import Ration
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Fork, Receive, Step
from llmdispatcher.trial import Job, Trial, told

ReplyTrial = Trial[Request, ReplyDraft]


@attrs.define(eq=False)
class Run:
    """One attempt among others."""

    index: int
    """Whose it is: the place among the targets."""
    target: Target
    job: Job[Request]
    """The request as this one is asked."""
    seat: int
    """Which of the copies there it is."""
    number: int = -1
    """Its branch."""
    trial: ReplyTrial | None = None
    """None until it was its turn."""
    finish: Finish | None = None
    """The end of its reply, once it was served."""
    is_over: bool = False
    is_stopped: bool = False
    """It was stopped since it was wanted no more."""

    @property
    def name(self) -> str:
        """``vendor/model``."""
        return self.target.card.name

    @property
    def attempt(self) -> Attempt | None:
        """What is in the books of it, once it has ended."""
        return None if self.trial is None else self.trial.attempt

    def reply(self) -> Reply:
        """Return its own reply, as if nobody else had been asked."""
        assert self.trial is not None  # noqa: S101 - it was served
        assert self.attempt is not None  # noqa: S101 - as above
        assert self.finish is not None  # noqa: S101 - as above
        served = Served((self.attempt,), self.trial.draft, self.finish)
        return replied(served, self.job.ranking)


class Heat:
    """The attempts of one request. Left as a context, all that still run are stopped."""

    def __init__(self, job: Job[Request], targets: Sequence[Target] | None = None) -> None:
        """``targets`` stand for those of the ranking. Raises NoCandidate where there are none."""
        self.targets = tuple(job.ranking.targets if targets is None else targets)
        if not self.targets:
            raise NoCandidate({f"{c.vendor}/{c.model}": c.note for c in job.ranking.excluded})
        if job.ration is None:
            job.books.begin()
            job = attrs.evolve(job, ration=Ration(job.patience.retry, job.clock()))
        self.job = job
        self.course = course_of(job, self.targets)
        self.branches = Branches()
        self.runs: list[Run] = []
        self.winner: Run | None = None
        self.notes: list[str] = []
        self._began_s, self._loaded_s = job.clock(), 0.0
        self._accounts: dict[tuple[int, int], Account] = {}
        """By who is asked, and which of the copies there it is: a vendor knows each by its name."""
        self._errors: list[tuple[str, DispatcherError]] = []
        self._end: End | None = None
        job.stopper.arm(self.branches.cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.branches.cancel()

    @property
    def ration(self) -> Ration:
        """What all attempts, and whatever else is made of the request, spend."""
        assert self.job.ration is not None  # noqa: S101 - made with one
        return self.job.ration

    @property
    def running(self) -> list[Run]:
        """Those that have not ended."""
        return [run for run in self.runs if not run.is_over]

    # -- asking --------------------------------------------------------------------------------

    def begin(self, count: int, **changes: Any) -> Generator[Step, Any, None]:  # noqa: ANN401 - fields of a job
        """Ask the first so many candidates."""
        move = self.course.begin()
        for _ in range(count):
            yield from self.ask(move, **changes)
            if not isinstance(move, Ask) or len(self.runs) == count:
                return
            move = self.course.another(self.job.clock())

    def ask(self, move: Move, **changes: Any) -> Generator[Step, Any, Run | None]:  # noqa: ANN401 - as above
        """Do what the course says; returns who is asked now, if anybody.

        ``changes`` are to the job, for this one alone.
        """
        if isinstance(move, End):
            self._end = move
            return None
        target, stopper = self.targets[move.index], Stopper()
        taken = {run.seat for run in self.running if run.index == move.index}
        seat = min(set(range(len(taken) + 1)) - taken)
        account = self._accounts.get((move.index, seat))
        if account is None:
            account = self.job.account.share(self.job.request)
            self._accounts[move.index, seat] = account
        job = attrs.evolve(self.job, stopper=stopper, account=account, **changes)
        run = Run(move.index, target, job, seat)
        try:
            run.number = yield Fork(self.branches, _attempt(run, move.wait_s, self), stopper)
        except RuntimeError as error:  # of the system, which has no thread left
            self.ration.give_back()
            self._end = End(str(error))
            self.notes.append(f"{run.name} was not asked: {error}")
            return None
        self.runs.append(run)
        return run

    def replace(self, run: Run, error: DispatcherError) -> Generator[Step, Any, None]:
        """Ask somebody in the place of one that failed, if anybody is to be."""
        move = self.failed(run, error)
        if isinstance(move, Ask):
            reason, name = told(error), self.targets[move.index].card.name
            self.job.report(Fallback(failed=run.name, next=name, reason=reason))
        yield from self.ask(move, **_changes(run))

    def failed(self, run: Run, error: DispatcherError) -> Move:
        """Take note of a failure; returns whom to ask in its place."""
        self._errors.append((run.name, error))
        self.course.asked = run.index
        if run.trial is not None and run.trial.out_of_time():
            return End("the deadline of the request has passed")
        return self.course.after(
            blamed(error),
            self.job.clock(),
            draw=self.job.patience.draw(),
            left_s=self.left_s(),
            hurries=True,
        )

    def noted(self, run: Run, error: DispatcherError) -> None:
        """Take note of a failure of one in whose place nobody is asked."""
        self._errors.append((run.name, error))
        self.course.asked = run.index
        self.course.note(blamed(error))

    def another(self, run: Run) -> Generator[Step, Any, Run | None]:
        """Ask one more, as this one was asked."""
        return (yield from self.ask(self.course.another(self.job.clock()), **_changes(run)))

    def left_s(self) -> float | None:
        """Return what is left of the total deadline, which loading a model does not use up."""
        total_s, spent = self.job.deadlines.total_s, self.ration.spent
        if total_s is None:
            return None
        return total_s - (self.job.clock() - spent.began_s - spent.loaded_s)

    # -- hearing -------------------------------------------------------------------------------

    def hear(self, wait_s: float | None = None) -> Generator[Step, Any, list[tuple[Run, News]]]:
        """Wait for news. Raises TimeoutError, Cancelled, and what is no failure of a vendor."""
        self.job.stopper.arm(self.branches.cancel)
        heard: list[tuple[Run, News]] = []
        for news in (yield Receive(self.branches, wait_s)):
            run = next(run for run in self.runs if run.number == news.branch)
            if isinstance(news, Ended):
                self._ended(run)
                if not isinstance(news.error, DispatcherError | None):
                    raise news.error
                if isinstance(news.error, Cancelled) and not run.is_stopped:
                    raise news.error
            heard.append((run, news))
        return heard

    def _ended(self, run: Run) -> None:
        run.is_over = True
        if run.trial is None or run.attempt is None:
            return
        more_s = max(0.0, run.trial.load_s - self._loaded_s)  # side by side, the longest counts
        self._loaded_s += more_s
        self.ration.loaded(more_s)
        self.course.spend(cost_microusd=run.attempt.cost_microusd)

    def stop(self, but: Run | None = None) -> None:
        """Stop all that run."""
        for run in self.running:
            if run is not but:
                run.is_stopped = True
                self.branches.stop(run.number)

    def settle(self) -> Generator[Step, Any, None]:
        """Stop all, and wait until they are in the books; not for one that hears nothing."""
        self.stop()
        until_s = self.job.clock() + SETTLE_S
        while self.running and (left_s := until_s - self.job.clock()) > 0:
            try:
                yield from self.hear(left_s)
            except TimeoutError:
                return

    # -- what came of it -----------------------------------------------------------------------

    def attempts(self) -> tuple[Attempt, ...]:
        """Return those that are in the books, in the order in which they were made."""
        made = [run for run in self.runs if run.attempt is not None]
        made.sort(key=lambda run: run.trial.number if run.trial is not None else 0)
        return tuple(run.attempt for run in made if run.attempt is not None)

    def account(self, reply: Reply, more: Sequence[Attempt] = ()) -> Reply:
        """Return a reply with all attempts of the heat in it, and ``more`` that were made after.

        Its ``cost_microusd`` is of all of them; ``latency_s`` from the beginning of the heat, but
        for the loading and waiting of who served.
        """
        self.job.account.served()
        last = reply.decision.attempts[-1]
        made = {id(each): each for each in (*self.attempts(), *more) if each is not last}
        attempts = (*made.values(), last)
        costs = [each.cost_microusd for each in attempts]
        if left := self.running:
            costs.append(None)
            names = ", ".join(run.name for run in left)
            self.notes.append(f"not ended yet, and so in the books and not here: {names}")
        known = [cost for cost in costs if cost is not None]
        passed_s = self.job.clock() - self._began_s - last.load_s - last.waited_s
        decision = attrs.evolve(reply.decision, attempts=attempts, notes=tuple(self.notes))
        return attrs.evolve(
            reply,
            decision=decision,
            cost_microusd=sum(known) if len(known) == len(costs) else None,
            latency_s=max(last.latency_s, passed_s),
        )

    def error(self) -> DispatcherError:
        """Return what to raise where nobody served."""
        if not self._errors:
            reason = self._end.reason if self._end is not None else "there was no time"
            return LimitReached(f"nobody was asked: {reason}")
        return together([error for _, error in self._errors], [name for name, _ in self._errors])


def _attempt(run: Run, wait_s: float, heat: Heat) -> Generator[Step, Any, None]:
    """Make one attempt, in a branch."""
    job, breakers = run.job, run.job.patience.breakers
    if wait_s:
        yield from pause(job.stopper, wait_s)
    passage = breakers.admit(run.name, job.clock(), is_local=run.target.card.local)
    if isinstance(passage, Hold):
        raise passage.error(run.name, job.clock())
    asked, draft = worded(job, blank(job.request), run.target)
    run.trial = trial = Trial(asked, run.target, job.account.number(), heat.left_s(), draft)
    run.finish = yield from reported(trial, passage, trial.run())


def _changes(run: Run) -> dict[str, Any]:
    """Return in what the job of one differs, for whoever takes its place."""
    return {"streaming": run.job.streaming, "signs": run.job.signs, "request": run.job.request}
