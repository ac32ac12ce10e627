"""One request's life, from candidates to a settled reply, without any I/O.

A flow is a generator. It *yields* what it needs (``Wait`` for a future, ``Receive`` the next
pieces, ``Emit`` text to the caller) and is *sent* the result; an error of a step is thrown in at
the yield. What returns at once, such as submitting a request, it just calls. ``drive`` runs flows
for threads and for asyncio, so nothing here is written twice. When a flow is closed at any yield,
its ``finally`` blocks cancel the call and settle the attempt: cancellation, early close and a crash
of the driver all balance the books.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import attrs

from llmdispatcher.draft import Draft, ReplyDraft
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import AllVendorsFailed, DispatcherError, NoCandidate
from llmdispatcher.models.event import Fallback
from llmdispatcher.models.reply import Attempt, Decision, Finish, Reply
from llmdispatcher.models.request import Request
from llmdispatcher.retry import Verdict, verdict
from llmdispatcher.route import Ranking
from llmdispatcher.steps import Step
from llmdispatcher.trial import Job, Trial, told

W = TypeVar("W", bound=Work)
D = TypeVar("D", bound=Draft)


@attrs.frozen
class Served(Generic[D]):
    """A request that was served: every attempt, the last of which did, and what it made."""

    attempts: tuple[Attempt, ...]
    draft: D
    finish: Finish

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
                candidates=ranking.candidates,
                excluded=ranking.excluded,
                attempts=self.attempts,
            ),
            "warnings": self.finish.warnings,
        }


def dispatch(job: Job[Request]) -> Generator[Step, Any, Reply]:
    """Ask the candidates in order until one serves, and return its reply. Raises as ``serve``."""
    asked = job.request
    must_call = bool(asked.tools) and asked.tool_choice not in {"auto", "none"}
    served = yield from serve(
        job, lambda: ReplyDraft(asked.n, asked.response_format, must_call=must_call)
    )
    choices = served.draft.choices
    return Reply(
        text=choices[0].text,
        finish_reason=served.finish.reason,
        first_token_s=served.attempts[-1].first_token_s,
        choices=choices,
        **served.account(job.ranking),
    )


def serve(job: Job[W], draft: Callable[[], D]) -> Generator[Step, Any, Served[D]]:
    """Ask the candidates in order until one serves; each attempt begins with a fresh draft.

    Raises NoCandidate if there is none, the error itself if one was tried, and AllVendorsFailed
    with every error in order if more were.
    """
    if not job.ranking.targets:
        raise NoCandidate({f"{c.vendor}/{c.model}": c.note for c in job.ranking.excluded})
    job.books.begin()
    tried: list[Trial[W, D]] = []
    errors: list[DispatcherError] = []
    for number, target in enumerate(job.ranking.targets, 1):
        if errors:
            failed, reason = tried[-1].target.card.name, told(errors[-1])
            job.report(Fallback(failed=failed, next=target.card.name, reason=reason))
        total_left_s = tried[-1].total_left_s() if tried else job.deadlines.total_s
        trial = Trial(job, target, number, total_left_s, draft())
        tried.append(trial)
        try:
            finish = yield from trial.run()
        except DispatcherError as error:
            errors.append(error)
            if trial.shown or verdict(error) is Verdict.STOP or trial.out_of_time():
                break
        else:
            attempts = tuple(trial.attempt for trial in tried if trial.attempt is not None)
            return Served(attempts, trial.draft, finish)
    if len(errors) == 1:
        raise errors[0]
    raise AllVendorsFailed.after(errors)
