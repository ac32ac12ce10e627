"""The flow of a cascade: the cheapest is asked first, and a better one where that is not enough.

``ladder`` says who is better than whom, and ``accept`` what is good enough. No I/O.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs

from llmdispatcher import accept
from llmdispatcher.accept import Finding
from llmdispatcher.ballot import form_of
from llmdispatcher.draft import JudgedDraft, ReplyDraft
from llmdispatcher.ladder import ladder
from llmdispatcher.models.agreement import agreement
from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.confidence import TOP
from llmdispatcher.models.errors import BadReply, BadRequest, Cancelled, DispatcherError
from llmdispatcher.models.message import assistant, user
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Request
from llmdispatcher.models.sampling import MAX_SEED
from llmdispatcher.models.stages import HAND_OVER, HAND_OVER_CHARS, Cascade
from llmdispatcher.shelf import Target
from llmdispatcher.staged import Answer, Part, PartTries, Stages
from llmdispatcher.steps import Flow, Step
from llmdispatcher.trial import Job, told

TEMPERATURE = 0.7
"""At which samples are drawn where the request says nothing, or 0, at which all would be alike; the
one of Wang et al. 2023 for their largest models."""


def cascade(job: Job[Request], plan: Cascade) -> Flow:
    """Return the flow of a request that is served by a cascade.

    Raises BadRequest for a request that cannot be, and, when it runs, as ``flow.serve``.
    """
    request = job.request
    if plan.accept == "schema" and not request.response_format.is_json:
        allowed = "a form of the reply: Cascade('schema') needs schema=… or a response_format"
        raise BadRequest("response_format", request.response_format.shape, allowed)
    if plan.accept == "samples" and request.n > 1:
        raise BadRequest("n", request.n, "1 with Cascade('samples'), which draws several itself")
    return _Climb(job, plan).run()


class _Climb:
    """One request on its way up."""

    def __init__(self, job: Job[Request], plan: Cascade) -> None:
        self._job, self._plan = job, plan
        self._ladder = ladder(job.request, job.ranking.targets, plan.tiers)
        self._last = len(self._ladder.rungs) - 1
        self._stages = Stages(job)
        self._at = 0
        """The rung that is asked next."""
        self._best: Answer | None = None
        """What is returned if nobody better can be asked."""
        self._unfit: BadReply | None = None
        self._draft = ""
        """What is handed over."""

    def run(self) -> Flow:
        """Ask, judge and climb until an answer is good enough, or nobody better is left."""
        self._stages.begin()
        while True:
            tries = self._tries()
            try:
                answer = yield from self._stages.ask(tries)
            except DispatcherError as error:
                return (yield from self._give_up(error, tries))
            rung = self._at + answer.by
            if rung >= self._last:
                self._stages.note(f"{answer.name}: the last that was to be asked")
                return self._stages.reply(answer)
            answer, finding = yield from self._judged(answer, self._ladder.rungs[rung])
            said = "good enough" if finding.is_good else "not good enough"
            self._stages.note(f"{answer.name}: {said}: {finding.why}")
            if finding.is_good:
                return (yield from self._return(answer))
            self._keep(answer, finding)
            self._at = rung + 1
            if refusal := self._stages.refusal():
                return (yield from self._settle_for_best(refusal))

    # -- asking --------------------------------------------------------------------------------

    def _tries(self) -> PartTries:
        """Return the attempts at whoever is next, and better ones where that one fails.

        Those that are no better stand in only where there is no answer at all.
        """
        targets = self._ladder.rungs[self._at :]
        if self._best is None:
            targets += self._ladder.others
        return PartTries(self._among(targets), self._part, is_needed=self._best is None)

    def _among(self, targets: tuple[Target, ...]) -> Job[Request]:
        job = self._stages.job
        return attrs.evolve(job, ranking=attrs.evolve(job.ranking, targets=targets))

    def _part(self, place: int) -> Part:
        """Return what a candidate is asked: the last one as the caller did, others to be judged."""
        rung, request = self._at + place, self._request()
        if rung >= self._last:
            return Part(self._stages.part(request, streaming=self._job.streaming))
        card = self._ladder.rungs[rung].card
        asked = self._asked(request, card)
        is_sample = accept.signal_of(self._plan, card, request) == "samples"
        kind = JudgedDraft if is_sample else ReplyDraft
        return Part(self._stages.part(asked), kind, goes_on=True)

    def _request(self) -> Request:
        """Return the request, with the draft behind it where one is handed over."""
        request, words = self._job.request, self._plan.hand_over
        if not words or not self._draft or request.prompt is not None:
            return request
        said = HAND_OVER if words is True else str(words)
        turns = assistant(self._draft), user(said)
        return attrs.evolve(request, messages=(*request.messages, *turns))

    def _asked(self, request: Request, card: ModelCard) -> Request:
        """Return the request with what it takes to judge the answer."""
        match accept.signal_of(self._plan, card, request):
            case "confidence":
                return attrs.evolve(request, logprobs=max(request.logprobs or 0, TOP))
            case "samples":
                able = Capability.CHOICES in card.capabilities
                return _sample(request, 0, self._of() if able else 1)
        return request

    # -- judging -------------------------------------------------------------------------------

    def _judged(
        self, answer: Answer, target: Target
    ) -> Generator[Step, Any, tuple[Answer, Finding]]:
        """Say whether an answer is good enough; of several samples, which one stands for all."""
        signal = accept.signal_of(self._plan, target.card, self._job.request)
        if signal != "samples":
            if cut := accept.broken(answer.choices):
                return answer, Finding(is_good=False, why=cut)
            if signal == "own":
                return answer, self._by_own(answer)
            if signal == "confidence":
                finding = accept.by_confidence(self._plan, target.card, answer.choices)
                if finding is not None:
                    return answer, finding
                signal = accept.instead_of_confidence(self._job.request)
        if self._plan.accept == "confidence":
            self._stages.note(f"{answer.name}: tells no log-probabilities, so {signal} decides")
        if signal == "schema":
            return answer, Finding(is_good=True, why="it is of the form that was asked for")
        return (yield from self._compared(answer, target))

    def _by_own(self, answer: Answer) -> Finding:
        """Ask the caller's function, whose verdict is also one on the model."""
        assert callable(self._plan.accept)  # noqa: S101 - or the signal were another
        found = accept.by_own(self._plan, self._plan.accept(self._stages.reply(answer)))
        if self._job.chooser is not None:
            served = answer.attempt
            self._job.chooser.judge(served.vendor, served.model, is_good=found.is_good)
        return found

    def _compared(
        self, answer: Answer, target: Target
    ) -> Generator[Step, Any, tuple[Answer, Finding]]:
        """Judge by how many samples say the same; the first that says so stands for them.

        Where they have to be asked for one by one, no more are asked than it takes to decide. A
        caller who wants several choices gets all of them, and they are the samples.
        """
        of, least = self._of(), accept.threshold(self._plan, "samples")
        drawn = [attrs.evolve(answer, choices=(each,)) for each in answer.choices]
        said = [self._said(answer, at) for at in range(len(answer.choices))]
        while len(said) < of and not agreement(said, of).is_decided(len(said), least):
            if refusal := self._stages.refusal():
                self._stages.note(f"{answer.name}: no further samples: {refusal}")
                break
            try:
                another = yield from self._stages.ask(self._another(target, len(said)))
            except Cancelled:
                raise
            except DispatcherError as error:
                self._stages.note(f"{answer.name}: no further samples: {told(error)}")
                break
            drawn.append(another)
            said.append(self._said(another, 0))
        found = agreement(said, of)
        finding = accept.by_agreement(self._plan, found)
        if not found.count:
            return answer, attrs.evolve(finding, is_answer=not _unfit(answer))
        return (answer if self._job.request.n > 1 else drawn[found.index]), finding

    def _said(self, answer: Answer, index: int) -> str | None:
        """Return what a sample says, to compare it; None for one that is not whole."""
        choice = answer.choices[index]
        if index in _unfit(answer) or accept.broken((choice,)):
            return None
        return form_of(choice, self._plan.normalise)

    def _of(self) -> int:
        """Return how many samples are compared."""
        return self._job.request.n if self._job.request.n > 1 else accept.samples(self._plan)

    def _another(self, target: Target, number: int) -> PartTries:
        """Return the attempts at one more sample of the same model."""
        part = Part(self._stages.part(_sample(self._request(), number, 1)), JudgedDraft)
        return PartTries(self._among((target,)), lambda _: part, is_needed=False)

    # -- ending --------------------------------------------------------------------------------

    def _keep(self, answer: Answer, finding: Finding) -> None:
        """Keep an answer that was not good enough: as the best so far, and to hand it over."""
        if not finding.is_answer:
            unfit = _unfit(answer)
            self._unfit = unfit[min(unfit)].at(answer.attempt.vendor, answer.attempt.model)
        elif self._best is None or not accept.broken(answer.choices):
            self._best = answer
        choice = answer.choices[0]
        if choice.text and not choice.tool_calls:
            self._draft = (self._job.request.prefill + choice.text)[:HAND_OVER_CHARS]

    def _give_up(self, error: DispatcherError, tries: PartTries) -> Generator[Step, Any, Reply]:
        """Return the best answer so far if there is one, and what was shown is not another."""
        if isinstance(error, Cancelled) or self._best is None or tries.has_shown:
            raise error
        return (yield from self._settle_for_best(told(error)))

    def _settle_for_best(self, why: str) -> Generator[Step, Any, Reply]:
        """Return the best answer so far. Raises BadReply where none was of the form asked for."""
        if self._best is None:
            assert self._unfit is not None  # noqa: S101 - something was not good enough
            raise self._unfit
        self._stages.warnings.append(
            f"this answer was not found good enough, and nobody better could be asked: {why}"
        )
        return (yield from self._return(self._best))

    def _return(self, answer: Answer) -> Generator[Step, Any, Reply]:
        yield from self._stages.show(answer)
        return self._stages.reply(answer)


def _sample(request: Request, number: int, n: int) -> Request:
    """Return what is asked for samples, of which so many were drawn before."""
    given = request.sampling
    drawn: dict[str, Any] = {} if given.temperature else {"temperature": TEMPERATURE}
    if given.seed is not None:
        drawn["seed"] = (given.seed + number) % (MAX_SEED - n + 2)
    return attrs.evolve(request, n=n, sampling=attrs.evolve(given, **drawn))


def _unfit(answer: Answer) -> dict[int, BadReply]:
    draft = answer.served.draft
    return draft.unfit if isinstance(draft, JudgedDraft) else {}
