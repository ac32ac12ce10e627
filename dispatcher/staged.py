"""Several requests, one after the other, on behalf of one: what they share. No I/O.

They share the account, the allowance, the attempts in their order, and the one reply that comes of
them. Made for plans: ``cascade`` and ``chain``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import attrs

from llmdispatcher.draft import ReplyDraft
from llmdispatcher.flow import Served, Tries, calls, whole
from llmdispatcher.models.reply import Attempt, CallDelta, Choice, Delta, Reply
from llmdispatcher.models.request import Request
from llmdispatcher.retry import Allowance
from llmdispatcher.steps import Emit, Step
from llmdispatcher.trial import Job

D = TypeVar("D", bound=ReplyDraft)

Part = Callable[[int], tuple[Job[Request], ReplyDraft]]
"""What the candidate at a place is asked, and the draft that its reply goes into."""


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
        return self.served.attempts[self.served.by]

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
        self.job = job
        self.allowance = Allowance(policy=job.patience.retry, began_s=job.clock())
        self.attempts: list[Attempt] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def tries(self, job: Job[Request], part: Part | None = None) -> Tries[Request, ReplyDraft]:
        """Return the attempts at one of the requests, within what is left."""
        return Tries(
            job,
            part or (lambda _: (job, draft_of(job.request, ReplyDraft))),
            allowance=self.allowance,
            made=len(self.attempts),
        )

    def ask(self, tries: Tries[Request, ReplyDraft]) -> Generator[Step, Any, Answer]:
        """Run the attempts at one of the requests. Raises as ``flow.serve``."""
        self.job.account.another()
        try:
            served = yield from tries.run()
        finally:
            self.attempts += tries.attempts
            self.allowance = tries.allowance
        last = served.attempts[-1]
        self.allowance = self.allowance.spend(
            attempts=1, cost_microusd=last.cost_microusd, loaded_s=last.load_s
        )
        return Answer(served, served.draft.choices, len(self.attempts) - 1, tries.asked)

    def refusal(self) -> str:
        """Return why nothing more may be asked; empty if it may."""
        total_s, spent = self.job.deadlines.total_s, self.allowance
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
        served, asked = answer.served, self.job.request.logprobs
        finish = attrs.evolve(
            served.finish, warnings=(*served.finish.warnings, *dict.fromkeys(self.warnings))
        )
        full = Served(tuple(self.attempts), served.draft, finish, answer.at, tuple(self.notes))
        return whole(self.job, full, tuple(as_asked(each, asked) for each in answer.choices))


def draft_of(request: Request, kind: type[D]) -> D:
    """Return the draft of a reply to a request."""
    return kind(request.n, request.response_format, must_call=calls(request))


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
