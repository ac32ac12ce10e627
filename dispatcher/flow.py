"""One request's life, from candidates to a settled reply, without any I/O.

A flow is a generator. It *yields* what it needs (``Wait`` for a future, ``Receive`` the next
pieces, ``Emit`` text to the caller) and is *sent* the result; an error of a step is thrown in at
the yield. What returns at once, such as submitting a request, it just calls. ``drive`` runs flows
for threads and for asyncio, so nothing here is written twice. When a flow is closed at any yield,
its ``finally`` blocks cancel the call and settle the attempt: cancellation, early close and a crash
of the driver all balance the books.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

import attrs

from llmdispatcher.breaker import Hold, blamed
from llmdispatcher.breakers import Change, Passage
from llmdispatcher.course import Ask, Course, End, Move
from llmdispatcher.draft import Draft, ReplyDraft
from llmdispatcher.models.card import Capability
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    AllVendorsFailed,
    BadReply,
    DispatcherError,
    LimitReached,
    NoCandidate,
    RequestError,
    StreamInterrupted,
    Unsupported,
)
from llmdispatcher.models.event import BreakerMoved, Fallback, Restarted, Retried
from llmdispatcher.models.reply import Attempt, Delta, Finish, Reply, Usage
from llmdispatcher.models.request import Request
from llmdispatcher.patience import pause
from llmdispatcher.place import place
from llmdispatcher.route import Ranking
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step
from llmdispatcher.trial import Job, Trial, told

W = TypeVar("W", bound=Work)
D = TypeVar("D", bound=Draft)


@attrs.frozen
class Served(Generic[D]):
    """A request that was served: every attempt, the last of which did, and what it made."""

    attempts: tuple[Attempt, ...]
    draft: D
    finish: Finish
    notes: tuple[str, ...] = ()
    """What a plan did, in words."""

    @property
    def cost_microusd(self) -> int | None:
        """All attempts included; None where a price is not known."""
        known = [a.cost_microusd for a in self.attempts if a.cost_microusd is not None]
        return sum(known) if len(known) == len(self.attempts) else None

    def account(self, ranking: Ranking) -> dict[str, Any]:
        """Return who served, what it used and how it was decided: fields of every result."""
        served = self.attempts[-1]
        return {
            "usage": self.finish.usage,
            "vendor": served.vendor,
            "model": served.model,
            "cost_microusd": self.cost_microusd,
            "latency_s": sum(attempt.latency_s for attempt in self.attempts),
            "decision": Decision(
                considered=ranking.considered,
                attempts=self.attempts,
                notes=ranking.notes + self.notes,
            ),
            "warnings": self.finish.warnings,
        }


def dispatch(job: Job[Request]) -> Generator[Step, Any, Reply]:
    """Ask the candidates in order until one serves, and return its reply. Raises as ``serve``."""
    served = yield from serve(job, lambda: blank(job.request))
    return replied(served, job.ranking)


def blank(asked: Request) -> ReplyDraft:
    """Return the draft of a reply of which nothing has come."""
    must_call = bool(asked.tools) and asked.tool_choice not in {"auto", "none"}
    return ReplyDraft(asked.n, asked.response_format, must_call=must_call)


def replied(served: Served[ReplyDraft], ranking: Ranking) -> Reply:
    """Return what was served as the caller gets it."""
    choices = served.draft.choices
    return Reply(
        text=choices[0].text,
        finish_reason=served.finish.reason,
        first_token_s=served.attempts[-1].first_token_s,
        choices=choices,
        **served.account(ranking),
    )


def serve(job: Job[W], draft: Callable[[], D]) -> Generator[Step, Any, Served[D]]:
    """Ask the candidates in order until one serves; each attempt begins with a fresh draft.

    Raises NoCandidate if there is none, the error itself if one was tried, and AllVendorsFailed
    with every error in order if more were.
    """
    if not job.ranking.targets:
        raise NoCandidate({f"{c.vendor}/{c.model}": c.note for c in job.ranking.excluded})
    if job.ration is None:
        job.books.begin()
    return (yield from Tries(job, draft).all())


def reported(
    trial: Trial[Any, Any], passage: Passage, attempt: Generator[Step, Any, Finish]
) -> Generator[Step, Any, Finish]:
    """Run an attempt that a breaker let through, and report how it ended. Raises as it does."""
    job, breakers = trial.job, trial.job.patience.breakers
    try:
        finish = yield from attempt
    except DispatcherError as error:
        end: Any = {"draw": job.patience.draw(), "had_room": trial.had_room}
        _changed(job, breakers.report(passage, error, job.clock(), **end))
        raise
    else:
        _changed(job, breakers.report(passage, None, job.clock()))
    finally:
        breakers.release(passage, job.clock())
    return finish


def together(errors: Sequence[DispatcherError], names: Sequence[str]) -> DispatcherError:
    """Return what to raise for several failures: of one candidate the last, of more all of them."""
    if len(set(names)) > 1:
        return AllVendorsFailed.after(errors)
    for earlier in errors[:-1]:
        errors[-1].add_note(f"before that: {told(earlier)}")
    return errors[-1]


def course_of(job: Job[Any], targets: Sequence[Target]) -> Course:
    """Return the course of a request through candidates, not begun."""
    places = [place(each.card, id(each.engine)) for each in targets]
    by_cost = job.ranking.is_by_cost
    return Course(places, job.patience.retry, job.clock(), job.ration, is_by_cost=by_cost)


class Tries(Generic[W, D]):
    """The attempts at one request, of which a ``Course`` says who is next."""

    def __init__(self, job: Job[W], draft: Callable[[], D], course: Course | None = None) -> None:
        """``course`` is one that has begun: ``follow`` says what came of it."""
        self._job, self._draft = job, draft
        self._targets = job.ranking.targets
        self._course = course or course_of(job, self._targets)
        self._trials: list[Trial[W, D]] = []
        self._errors: list[DispatcherError] = []
        self._names: list[str] = []
        """``vendor/model`` of each error."""
        resume = job.request.resume if isinstance(job.request, Request) else "fail"
        self._resumes, self._begins_anew = resume != "fail", resume == "restart"
        self._shown: Trial[W, D] | None = None
        """The last attempt of which something was shown."""
        self._is_open = False
        """Somebody may go on behind what was shown: it has no gap, and is not whole."""
        self._written = 0
        """Tokens of what was shown, as far as known; at least so many."""
        self._deaf: set[int] = set()
        """Candidates that did not take the text so far as a prefill."""
        self._amended: dict[int, Job[W]] = {}
        """By candidate: the job that says what was wrong with its last reply."""
        self.move: Move = self._course.begin() if course is None else End("nobody was asked yet")

    def all(self) -> Generator[Step, Any, Served[D]]:
        """Ask one after the other until one serves."""
        while isinstance(self.move, Ask):
            if self.move.wait_s:
                yield from pause(self._job.stopper, self.move.wait_s)
            if (served := (yield from self.next())) is not None:
                return served
        raise self.error()

    def follow(self, trial: Trial[W, D], error: DispatcherError) -> None:
        """Go on behind an attempt that was made and paid for elsewhere, of whom was asked last."""
        self._trials.append(trial)
        self._decide(trial.target.card.name, error, trial)

    def next(self) -> Generator[Step, Any, Served[D] | None]:
        """Ask whose turn it is; None if that failed, and ``move`` says what to do now."""
        assert isinstance(self.move, Ask)  # noqa: S101 - whoever calls this has looked
        job, target = self._job, self._targets[self.move.index]
        name, breakers = target.card.name, job.patience.breakers
        if self._errors:
            self._tell(name)
        passage = breakers.admit(name, job.clock(), is_local=target.card.local)
        if isinstance(passage, Hold):
            self._refused(name, passage.error(name, job.clock()))
            return None
        trial = self._trial(target, self.move.index)
        if trial is None:
            breakers.release(passage, job.clock())
            self._refused(name, Unsupported("prefill", "it cannot go on in the middle of a reply"))
            return None
        self._trials.append(trial)
        try:
            finish = yield from reported(trial, passage, self._attempt(trial, name))
        except DispatcherError as error:
            self._after(name, error, trial)
            return None
        job.account.served()
        if job.ration is not None and trial.attempt is not None:
            job.ration.pay(trial.attempt.cost_microusd)
        attempts = tuple(each.attempt for each in self._trials if each.attempt is not None)
        return Served(attempts, trial.draft, finish)

    def error(self) -> DispatcherError:
        """Return what to raise: the error of the only candidate, or all of them."""
        if not self._errors:
            assert isinstance(self.move, End)  # noqa: S101 - nobody was asked
            return LimitReached(f"nobody was asked: {self.move.reason}")
        errors, last = self._errors, together(self._errors, self._names)
        if self._shown is None or not self._resumes or isinstance(errors[-1], StreamInterrupted):
            return last
        cut = StreamInterrupted(
            f"the reply was cut, and nobody could go on: {last}", partial=self._shown.draft.text
        )
        cut.__cause__ = last
        return cut

    def _trial(self, target: Target, index: int) -> Trial[W, D] | None:
        """Make the next attempt; None where this one cannot go on with what was shown."""
        left_s, number = self._left_s(), self._job.account.number
        if self._shown is not None and self._is_open and index not in self._deaf:
            resumed = _resumed(self._job, self._shown.draft, target, self._written)
            if resumed is not None:
                job, draft = worded(*resumed, target)
                trial = Trial(job, target, number(), left_s, draft)
                trial.continues = True
                return trial
        if self._shown is not None and not self._begins_anew:
            return None
        job, draft = worded(self._amended.get(index, self._job), self._draft(), target)
        return Trial(job, target, number(), left_s, draft)

    def _attempt(self, trial: Trial[W, D], name: str) -> Generator[Step, Any, Finish]:
        """Make an attempt, and say before it where it does not go on with what was shown."""
        if self._shown is not None and not trial.continues:
            yield Emit(self._restart(name))
        return (yield from trial.run())

    def _restart(self, name: str) -> Delta:
        """Say that what was shown counts no more."""
        assert self._shown is not None  # noqa: S101 - something was
        shown_chars, self._shown = len(self._shown.draft.text), None
        self._job.report(Restarted(name=name, shown_chars=shown_chars))
        return Delta("", restarts=True)

    def _left_s(self) -> float | None:
        """Return what is left of the total deadline, of which loading a model takes nothing."""
        total_s, spent = self._job.deadlines.total_s, self._course.allowance
        if total_s is None:
            return None
        return total_s - (self._job.clock() - spent.began_s - spent.loaded_s)

    def _refused(self, name: str, error: DispatcherError) -> None:
        """Take note that somebody was not asked, and why; once, if it had been asked before."""
        if name not in self._names:
            self._note(name, error)
        self._go_on(error)

    def _after(self, name: str, error: DispatcherError, trial: Trial[W, D]) -> None:
        """Pay for a failed attempt, and decide what to do now."""
        cost = trial.attempt.cost_microusd if trial.attempt is not None else 0
        self._course.spend(cost_microusd=cost, loaded_s=trial.load_s)
        self._decide(name, error, trial)

    def _decide(self, name: str, error: DispatcherError, trial: Trial[W, D]) -> None:
        """Take note of a failed attempt, and decide what to do now."""
        self._note(name, error)
        is_unfit = isinstance(blame := blamed(error), BadReply) and blame.is_unfit
        if is_unfit:
            self._amend(blame, trial)
        if trial.shown:
            self._shown, self._is_open = trial, not (trial.has_gap or is_unfit)
            self._written = _written(trial) + (self._written if trial.continues else 0)
        is_deaf = trial.continues and not trial.shown and isinstance(error, RequestError)
        goes_on = self._begins_anew if is_unfit else self._resumes
        if trial.out_of_time() or (self._shown is not None and not goes_on):
            self.move = End("nobody else can go on")
        elif is_deaf and isinstance(self.move, Ask):  # it takes no prefill, or not this one
            self._deaf.add(self.move.index)
            self.move = self._course.again(self._job.clock())
        else:
            self._go_on(blame)

    def _amend(self, error: DispatcherError, trial: Trial[W, D]) -> None:
        """Have a candidate told what was wrong with its reply, should it be asked once more."""
        assert isinstance(self.move, Ask)  # noqa: S101 - as above
        from llmdispatcher import forms  # noqa: PLC0415 - few replies are of another form

        told: Any = forms.put_right(self._job.request, trial.draft, error)
        if told is not None:
            self._amended[self.move.index] = attrs.evolve(self._job, request=told)

    def _note(self, name: str, error: DispatcherError) -> None:
        self._errors.append(error)
        self._names.append(name)

    def _go_on(self, error: DispatcherError) -> None:
        job, now_s = self._job, self._job.clock()
        assert self._course.asked is not None  # noqa: S101 - it failed
        name = self._targets[self._course.asked].card.name
        self._course.full_s = job.patience.breakers.full_s(name, now_s)
        self.move = self._course.after(
            error,
            now_s,
            draw=job.patience.draw(),
            left_s=self._left_s(),
            hurries=self._shown is not None,
        )

    def _tell(self, name: str) -> None:
        """Tell the listener that another one is asked, or the same again."""
        assert isinstance(self.move, Ask)  # noqa: S101 - as above
        reason = told(self._errors[-1])
        if name != self._names[-1]:
            self._job.report(Fallback(failed=self._names[-1], next=name, reason=reason))
        else:
            self._job.report(Retried(name=name, waited_s=self.move.wait_s, reason=reason))


def _changed(job: Job[Any], change: Change | None) -> None:
    """Tell the listener that a breaker moved, if it did."""
    if change is None:
        return
    until_s = None if change.until_s is None else max(0.0, change.until_s - job.clock())
    job.report(
        BreakerMoved(
            name=change.name,
            before=change.before.value,
            after=change.after.value,
            reason=change.reason,
            next_probe_s=until_s,
        )
    )


def _written(trial: Trial[W, D]) -> int:
    """Return how many tokens an attempt wrote, at least: as told, and as many as pieces came.

    What was told in the middle of a stream may be of its beginning alone, and is no guess.
    """
    usage = trial.attempt.usage if trial.attempt is not None else Usage()
    pieces = trial.draft.pieces if isinstance(trial.draft, ReplyDraft) else 0
    return max(0 if usage.estimated else usage.completion_tokens, pieces - trial.continues)


def worded(job: Job[W], draft: D, target: Target) -> tuple[Job[W], D]:
    """Return what asks for a form in words, of a model that is held to none by its vendor."""
    request, made = job.request, draft
    if isinstance(request, Request) and request.response_format.is_json:
        from llmdispatcher import forms  # noqa: PLC0415 - for those who ask for JSON

        told: Any = forms.tell(request, target.card)
        if told is not request and isinstance(made, ReplyDraft):
            made.is_loose = True
            return attrs.evolve(job, request=told), draft
    return job, draft


def _resumed(job: Job[W], draft: D, target: Target, written: int) -> tuple[Job[W], D] | None:
    """Return what asks a candidate to go on where a draft broke off; None if it could not.

    Of ``max_tokens`` it has what so many written tokens leave, and one at least, to end with.
    """
    request = job.request
    if not isinstance(request, Request) or not isinstance(draft, ReplyDraft):
        return None
    if Capability.PREFILL not in target.card.capabilities or request.prompt is not None:
        return None
    continued = draft.continued()
    if continued is None:
        return None
    most = request.max_tokens
    asked: Any = attrs.evolve(
        request,
        prefill=request.prefill + draft.text,
        max_tokens=None if most is None else max(1, most - written),
    )
    made: Any = continued
    return attrs.evolve(job, request=asked), made
