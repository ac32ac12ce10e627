"""Whether an answer is good enough to end a cascade with. Pure.

Each signal is a small function of an answer and says what it found in words.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmdispatcher.models.agreement import Agreement
from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.confidence import CALIBRATIONS, Signals
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import Choice, FinishReason
from llmdispatcher.models.request import Request
from llmdispatcher.models.stages import SAMPLES, THRESHOLDS, Cascade

BROKEN_OFF = {
    FinishReason.LENGTH: "it was cut at its length",
    FinishReason.CONTENT_FILTER: "it was filtered",
}


@attrs.frozen
class Finding:
    """Whether an answer is good enough, and why."""

    is_good: bool
    why: str
    is_answer: bool = True
    """It can be returned where nobody better can be asked."""


def signal_of(plan: Cascade, card: ModelCard, request: Request) -> str:
    """Return by what answers of a model are judged: what the plan says, or what there is."""
    if callable(plan.accept):
        return "own"
    if plan.accept != "confidence" or Capability.LOGPROBS in card.capabilities:
        return plan.accept
    return instead_of_confidence(request)


def instead_of_confidence(request: Request) -> str:
    """Return by what to judge where there are no log-probabilities."""
    return "schema" if request.response_format.is_json else "samples"


def threshold(plan: Cascade, signal: str) -> float:
    """Return from where on an answer is good enough."""
    asked = "own" if callable(plan.accept) else plan.accept
    if plan.threshold is None or signal != asked:  # one of a chance is none of a share
        return THRESHOLDS[signal]
    return plan.threshold


def samples(plan: Cascade) -> int:
    """Return how many answers are compared."""
    return SAMPLES if plan.samples is None else plan.samples


def broken(choices: Sequence[Choice]) -> str:
    """Return why an answer is not whole, whatever it says; empty if it is."""
    return next((BROKEN_OFF[c.finish_reason] for c in choices if c.finish_reason in BROKEN_OFF), "")


def by_confidence(plan: Cascade, card: ModelCard, choices: Sequence[Choice]) -> Finding | None:
    """Judge by how sure the model was; of several choices by the least sure.

    None where a choice came without log-probabilities.
    """
    if not all(choice.logprobs for choice in choices):
        return None
    own = plan.calibrated(card.vendor, card.model, local=card.local)
    calibration = own or CALIBRATIONS["local" if card.local else "cloud"]
    chance = min(calibration.chance(Signals.of(choice.logprobs)) for choice in choices)
    least = threshold(plan, "confidence")
    return Finding(chance >= least, f"confidence {chance:.2f}, and {least:.2f} is enough")


def by_agreement(plan: Cascade, found: Agreement) -> Finding:
    """Judge by how many answers of a model say the same."""
    least = threshold(plan, "samples")
    told = f"{found.count} of {found.of} samples agree, and {least:.0%} is enough"
    return Finding(found.share >= least, told)


def by_own(plan: Cascade, said: object) -> Finding:
    """Judge by what the caller's function returned. Raises BadRequest if that is no judgement."""
    if isinstance(said, bool):
        return Finding(said, f"accept said {said}")
    if not isinstance(said, int | float) or not 0 <= said <= 1:
        raise BadRequest("accept", said, "a function that returns True, False or 0 to 1")
    least = threshold(plan, "own")
    return Finding(said >= least, f"accept said {said:.2f}, and {least:.2f} is enough")
