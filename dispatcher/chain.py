"""The flow of a chain: an answer is drafted, and others refine, verify or summarize it. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs

from llmdispatcher.ballot import answer as form_of
from llmdispatcher.models.errors import BadRequest, Cancelled, DispatcherError
from llmdispatcher.models.fields import TEXT
from llmdispatcher.models.message import Message, assistant, user
from llmdispatcher.models.request import Request
from llmdispatcher.models.stages import CARRIED_CHARS, ROLES, VERIFY_TOKENS, Chain, Step
from llmdispatcher.staged import Answer, Part, PartTries, Stages, check
from llmdispatcher.steps import Flow
from llmdispatcher.steps import Step as Asked
from llmdispatcher.trial import Job, told

RIGHT = "ok"
"""What a verifier says of an answer that may stay as it is."""


def chain(job: Job[Request], plan: Chain) -> Flow:
    """Return the flow of a request that is served by a chain.

    Raises BadRequest for a request that cannot be, and, when it runs, as ``flow.serve`` does where
    the draft fails.
    """
    if job.request.prompt is not None:
        raise BadRequest("prompt", job.request.prompt, "given as messages: steps of a Chain talk")
    if job.request.n > 1:
        raise BadRequest("n", job.request.n, "1 with a Chain, which goes on with one answer")
    return _Chain(job, plan).run()


class _Chain:
    """One request on its way through the steps."""

    def __init__(self, job: Job[Request], plan: Chain) -> None:
        self._job = job
        self._stages = Stages(job)
        self._left = list(plan.steps)
        self._rounds = plan.rounds
        self._refine = next((s for s in plan.steps if s.role == "refine"), Step("refine"))
        self._answer: Answer | None = None
        self._remarks = ""
        """What a verifier found wrong, until it is refined."""
        self._is_shown = False
        """The caller has seen the answer come."""

    def run(self) -> Flow:
        """Take step after step, and return the last answer."""
        self._stages.begin()
        while self._left:
            step = self._left.pop(0)
            if self._answer is not None and (refusal := self._stages.refusal()):
                self._warn(step, refusal)
                break
            done = yield from self._take(step)
            if not done:
                break
        assert self._answer is not None  # noqa: S101 - or the draft's error was raised
        if not self._is_shown:
            yield from self._stages.show(self._answer)
        return self._stages.reply(self._answer)

    def _take(self, step: Step) -> Generator[Asked, Any, bool]:
        """Take a step; False if none is to follow."""
        role, is_last = ROLES[step.role], not self._left
        job = self._asking(step, streaming=self._job.streaming and is_last and role.answers)
        tries = PartTries(job, lambda _: Part(job), is_needed=self._answer is None)
        try:
            check(job)
            answer = yield from self._stages.ask(tries)
        except DispatcherError as error:
            if isinstance(error, Cancelled) or self._answer is None or tries.has_shown:
                raise
            self._warn(step, told(error))
            return False
        if not role.answers:
            self._heard(answer)
            return True
        if self._answer is not None and not answer.text.strip() and not _calls(answer):
            self._warn(step, "its reply was empty")
            return False
        self._answer, self._remarks, self._is_shown = answer, "", tries.has_shown
        self._stages.note(f"{step.role} by {answer.name}")
        if self._left and _calls(answer):
            self._stages.note("it calls tools, so the chain ends here")
            return False
        return True

    def _heard(self, answer: Answer) -> None:
        """Do what a verifier asks for."""
        if form_of(answer.text) == RIGHT:
            self._stages.note(f"verify by {answer.name}: OK")
            self._left = [s for s in self._left if s.role not in {"refine", "verify"}]
            return
        self._remarks = answer.text[:CARRIED_CHARS]
        follows = self._left[:1] and self._left[0].role == "refine"
        self._stages.note(f"verify by {answer.name}: not OK")
        if follows or not self._rounds:
            return
        self._rounds -= 1
        again = [Step("verify")] if self._rounds else []
        self._left = [self._refine, *again, *self._left]

    def _asking(self, step: Step, *, streaming: bool) -> Job[Request]:
        """Return the job of a step, ranked by itself."""
        request = self._request(step)
        whole = self._stages.job
        if request is whole.request:
            return attrs.evolve(whole, streaming=streaming)
        assert self._job.ask is not None  # noqa: S101 - whoever makes jobs for plans gives it
        job = self._job.ask(request, self._job.stopper, streaming=streaming)
        return attrs.evolve(job, deadlines=whole.deadlines, ration=whole.ration)

    def _request(self, step: Step) -> Request:
        """Return what a step is asked."""
        given = self._job.request
        changes: dict[str, Any] = {}
        if step.vendor is not None or step.model is not None:
            changes |= {"vendor": step.vendor, "model": step.model}
        if step.strategy is not None:
            changes["strategy"] = step.strategy
        if step.max_tokens is not None:
            changes["max_tokens"] = step.max_tokens
        if self._answer is not None:
            changes["messages"] = (*given.messages, *self._turns(step))
            changes |= {"tools": (), "tool_choice": "auto"}
        if not ROLES[step.role].answers:
            changes |= _PLAIN
            changes.setdefault("max_tokens", VERIFY_TOKENS)
        return attrs.evolve(given, **changes) if changes else given

    def _turns(self, step: Step) -> tuple[Message, Message]:
        """Return the text so far as a turn, and what is to be done with it."""
        assert self._answer is not None  # noqa: S101 - as above
        text = self._job.request.prefill + self._answer.text
        if len(text) > CARRIED_CHARS:
            self._stages.warnings.append(
                f"{step.role} saw {CARRIED_CHARS} of the {len(text)} characters of the answer"
            )
        said = ROLES[step.role].prompt if step.prompt is None else step.prompt
        if self._remarks:
            said = f"{said}\n\nThis was found wrong with it: {self._remarks}"
        return assistant(text[:CARRIED_CHARS]), user(said)

    def _warn(self, step: Step, why: str) -> None:
        """Say that a step could not be taken, and the text of the one before stands."""
        self._stages.warnings.append(f"{step.role} failed, so the text before it stands: {why}")
        self._stages.note(f"{step.role} failed: {why}")


_PLAIN: dict[str, Any] = {"response_format": TEXT, "prefill": "", "logprobs": None, "suffix": ""}
"""Of the request, what is of no concern to whoever judges an answer."""


def _calls(answer: Answer) -> bool:
    return bool(answer.choices[0].tool_calls)
