"""Several requests, one after the other, on behalf of one: what they share. No I/O.

They share the account, the allowance, the attempts in their order, and the one reply that comes of
them. Made for plans: ``cascade`` and ``chain``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import attrs

from llmdispatcher.course import Ask
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.flow import Served, Tries
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.errors import (
    BadReply,
    DispatcherError,
    NoCandidate,
    VendorError,
)
from llmdispatcher.models.reply import Attempt, CallDelta, Choice, Delta, Reply
from llmdispatcher.models.request import Request
from llmdispatcher.patience import pause
from llmdispatcher.retry import Ration
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step
from llmdispatcher.trial import Job, Trial


@attrs.frozen
class Part:
    """What one candidate is asked on behalf of the request."""

    job: Job[Request]
    kind: type[ReplyDraft] = ReplyDraft
    """What its reply becomes."""
    goes_on: bool = False
    """A reply of another form than was asked for is followed by the next candidate at once."""

    def draft(self) -> ReplyDraft:
        """Return the draft of a reply of which nothing has come."""
        asked = self.job.request
        must_call = bool(asked.tools) and asked.tool_choice not in {"auto", "none"}
        return self.kind(asked.n, asked.response_format, must_call=must_call)


class PartTries(Tries[Request, ReplyDraft]):
    """The attempts at one of the requests, of which each candidate may be asked another."""

    def __init__(
        self, job: Job[Request], part: Callable[[int], Part], *, is_needed: bool = True
    ) -> None:
        """``part`` tells what the candidate at a place is asked.

        ``is_needed`` is whether the plan has nothing to show if nobody serves.
        """
        self._make, self._parts = part, dict[int, Part]()
        super().__init__(job, lambda: self._at(self.asked).draft())
        self._course.is_needed = is_needed

    def run(self) -> Generator[Step, Any, Served[ReplyDraft]]:
        """Ask one after the other until one serves. Raises as ``flow.serve``."""
        while isinstance(self.move, Ask):
            if self.move.wait_s:
                yield from pause(self._job.stopper, self.move.wait_s)
            if (served := (yield from self.next())) is not None:
                return served
        raise self.error()

    @property
    def asked(self) -> int:
        """The place of the candidate that was asked last."""
        assert isinstance(self.move, Ask)  # noqa: S101 - whoever calls this was served, or asks
        return self.move.index

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All that have ended, in order."""
        return tuple(each.attempt for each in self._trials if each.attempt is not None)

    @property
    def loaded_s(self) -> float:
        """How long they waited for models."""
        return sum(each.load_s for each in self._trials)

    @property
    def has_shown(self) -> bool:
        """Whether the caller saw something of any of them."""
        return any(each.shown for each in self._trials)

    def _at(self, index: int) -> Part:
        if index not in self._parts:
            self._parts[index] = self._make(index)
        return self._parts[index]

    def _trial(self, target: Target, index: int) -> Trial[Request, ReplyDraft] | None:
        self._job = self._at(index).job
        return super()._trial(target, index)

    def _go_on(self, error: DispatcherError) -> None:
        is_unfit = isinstance(error, BadReply) and error.is_unfit
        if is_unfit and self._at(self.asked).goes_on:
            error = VendorError(str(error))  # of which ``retry`` says: the next
        super()._go_on(error)


@attrs.frozen
class Answer:
    """What one of the requests came to."""

    served: Served[ReplyDraft]
    choices: tuple[Choice, ...]
    at: int
    """Which of all attempts made it, counted from 0."""
    by: int
    """The place of the candidate that did, among those that were asked."""

    @property
    def attempt(self) -> Attempt:
        """The one that served."""
        return self.served.attempts[-1]

    @property
    def name(self) -> str:
        """``vendor/model``."""
        return f"{self.attempt.vendor}/{self.attempt.model}"

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text


class Stages:
    """The requests that are made on behalf of one."""

    def __init__(self, job: Job[Request]) -> None:
        self._is_part = job.ration is not None
        self._ration = job.ration or Ration(job.patience.retry, job.clock())
        self.job = attrs.evolve(job, ration=self._ration)
        self.attempts: list[Attempt] = []
        self.notes: list[str] = [*job.ranking.notes]
        self.warnings: list[str] = []

    def begin(self) -> None:
        """Count the request. Raises NoCandidate if nobody can serve it."""
        check(self.job)
        if not self._is_part:
            self.job.books.begin()

    def part(self, request: Request, *, streaming: bool = False) -> Job[Request]:
        """Return the job of another request, for the same candidates."""
        account = self.job.account.share(request)
        return attrs.evolve(self.job, request=request, streaming=streaming, account=account)

    def ask(self, tries: PartTries) -> Generator[Step, Any, Answer]:
        """Run the attempts at one of the requests. Raises as ``flow.serve``."""
        try:
            served = yield from tries.run()
        finally:
            self.attempts += tries.attempts
            self._ration.loaded(tries.loaded_s)
        return Answer(served, served.draft.choices, len(self.attempts) - 1, tries.asked)

    def refusal(self) -> str:
        """Return why nothing more may be asked; empty if it may."""
        total_s, spent = self.job.deadlines.total_s, self._ration.spent
        now_s = self.job.clock()
        if total_s is not None and now_s - spent.began_s - spent.loaded_s >= total_s:
            return f"the {total_s:g} s for the whole request are over"
        return spent.refusal(now_s)

    def note(self, told: str) -> None:
        """Say what was done; it stands in the decision."""
        self.notes.append(told)

    def show(self, answer: Answer) -> Generator[Step, Any, None]:
        """Show an answer whole to a caller who has seen nothing of it yet."""
        if self.job.streaming:
            for index, choice in enumerate(answer.choices):
                if delta := delta_of(as_asked(choice, self.job.request.logprobs), index):
                    yield Emit(delta)

    def reply(self, answer: Answer) -> Reply:
        """Return the reply, with all that was spent on it."""
        asked, served = self.job.request.logprobs, answer.served
        choices = tuple(as_asked(each, asked) for each in answer.choices)
        everything = Served(tuple(self.attempts), served.draft, served.finish)
        considered = self.job.ranking.considered
        return Reply(
            text=choices[0].text,
            finish_reason=choices[0].finish_reason,
            usage=served.finish.usage,
            vendor=answer.attempt.vendor,
            model=answer.attempt.model,
            cost_microusd=everything.cost_microusd,
            latency_s=sum(attempt.latency_s for attempt in self.attempts),
            first_token_s=answer.attempt.first_token_s,
            decision=Decision(
                considered=considered, attempts=everything.attempts, notes=tuple(self.notes)
            ),
            warnings=(*served.finish.warnings, *dict.fromkeys(self.warnings)),
            choices=choices,
        )


def check(job: Job[Request]) -> None:
    """Raise NoCandidate if nobody can serve a request."""
    if not job.ranking.targets:
        raise NoCandidate({f"{c.vendor}/{c.model}": c.note for c in job.ranking.excluded})


def as_asked(choice: Choice, logprobs: int | None) -> Choice:
    """Leave out the log-probabilities that a plan asked for and the caller did not."""
    if logprobs is None:
        return attrs.evolve(choice, logprobs=()) if choice.logprobs else choice
    if all(len(token.top) <= logprobs for token in choice.logprobs):
        return choice
    tokens = tuple(attrs.evolve(token, top=token.top[:logprobs]) for token in choice.logprobs)
    return attrs.evolve(choice, logprobs=tokens)


def delta_of(choice: Choice, index: int) -> Delta:
    """Return a choice in one piece."""
    return Delta(
        choice.text,
        index,
        choice.logprobs,
        choice.reasoning,
        tuple(
            CallDelta(at, call.id, call.name, call.arguments)
            for at, call in enumerate(choice.tool_calls)
        ),
        choice.keepsakes,
    )
