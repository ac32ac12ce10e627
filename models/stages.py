"""Plans that ask one after the other: the cheap before the dear, or step by step.

Cascade()                             the cheapest first; who seems unsure is asked no further
Cascade("samples", samples=5)         good is what five answers of one model agree on
Cascade(lambda reply: "42" in reply.text)
Chain(("draft", "verify"))            somebody else looks it over
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.check import as_tuple, at_most, integer, number, strings, words
from llmdispatcher.models.confidence import Calibration
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.fields import MAX_CHOICES
from llmdispatcher.models.plan import Plan
from llmdispatcher.models.race import Normalise, check_normalise
from llmdispatcher.models.strategy import Strategy, read_strategy

if TYPE_CHECKING:
    from llmdispatcher.models.reply import Reply

ACCEPTS = ("confidence", "schema", "samples")

THRESHOLDS = {"confidence": 0.8, "samples": 0.6, "own": 0.5}
"""From where on an answer is good enough, unless the plan says so: a chance of being right, the
share that agrees, what the caller's own function returns."""

SAMPLES = 5
"""Answers of one model that are compared. The gain of self-consistency is steepest up to there
(Wang et al. 2023, figure 2)."""

HAND_OVER = (
    "A smaller model wrote this answer, and it may be wrong. Answer my request yourself: keep what"
    " is right, correct what is not, and reply with the answer alone."
)
"""What a better model is told of a draft that stands before it."""

HAND_OVER_CHARS = 4000
"""So much of a draft is handed over: more of it costs more than it helps."""

MAX_TIERS = 16

CARRIED_CHARS = 24_000
"""So much of a text is shown to the next step of a chain, some 6,000 tokens."""

VERIFY_TOKENS = 256
"""For what a verifier says, unless the step has its own ``max_tokens``."""

MAX_STEPS = 16
"""Of a chain, each of which is a request."""

MAX_ROUNDS = 8


def _tiers(value: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise BadRequest("tiers", value, "a sequence of names, the cheapest first")
    return None if value is None else as_tuple("tiers", value)


def _known_accept(_: object, __: object, value: object) -> None:
    if not callable(value) and value not in ACCEPTS:
        known = ", ".join(map(repr, ACCEPTS))
        raise BadRequest("accept", value, f"{known}, or a function of the reply")


def _calibrations(value: Calibration | Mapping[str, Calibration] | None) -> dict[str, Calibration]:
    given: Any = {"": value} if isinstance(value, Calibration) else value
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadRequest("calibration", value, "a Calibration, or a mapping of names to them")
    for name, each in given.items():
        if not isinstance(name, str) or not isinstance(each, Calibration):
            raise BadRequest("calibration", each, "made by fit(…) of models.confidence, by name")
    return dict(given)


@attrs.frozen
class Cascade(Plan):
    """Ask the cheapest first, and a better one where its answer is not good enough.

    Only somebody better is asked after that: of a higher quality tier, else dearer, else larger.
    The last answer is taken as it is. An answer that was cut or filtered is not good enough. All
    that is asked draws on the one allowance of the request (``RetryPolicy``), its ``max_cost_usd``
    and the caps of the ledger; where these forbid to go on, the best answer so far is returned with
    a warning. As a stream, an answer that has to be judged comes in one piece; the last tier's,
    which is not judged, comes as it is made.
    """

    accept: str | Callable[[Reply], bool | float] = attrs.field(
        default="confidence", validator=_known_accept
    )
    """When an answer is good enough. "confidence": the chance of being right, by the
    log-probabilities of its tokens, reaches the threshold. "schema": it is of the form that the
    request asks for. "samples": the share of ``samples`` answers that say the same reaches it, and
    the answer of the most is taken. A function of the reply: it returns True, or such a number.
    A model that tells no log-probabilities is judged by "schema" where a form is asked for, else by
    "samples"; the decision's notes say so."""
    threshold: float | None = number("threshold", 0, 1)
    """None takes that of ``THRESHOLDS``."""
    samples: int | None = integer("samples", 2, MAX_CHOICES)
    """How many answers are compared; None takes ``SAMPLES``. Models that draw one at a time are
    asked so often, each of which is an attempt, and no more than it takes to decide."""
    normalise: str | Normalise = attrs.field(
        default="answer", validator=check_normalise, kw_only=True
    )
    """What of samples is compared, as ``Ensemble`` has it: "answer", "last_number", or a function
    of the text that returns text."""
    hand_over: bool | str = attrs.field(default=False)
    """Show the next one the answer that was not good enough, with these words behind it; True takes
    ``HAND_OVER``."""
    tiers: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=_tiers,
        validator=attrs.validators.optional([at_most(MAX_TIERS, "tiers"), strings]),
    )
    """Whom to ask, in this order: a vendor, ``vendor/model`` or a model each. None asks everybody
    who can serve, by expected cost."""
    calibration: Mapping[str, Calibration] = attrs.field(
        default=None, converter=_calibrations, kw_only=True, hash=False
    )
    """For "confidence": one for all models, or by ``vendor/model``, vendor, "local" or "cloud".
    Those of ``models.confidence.CALIBRATIONS`` stand for what is not given."""

    @hand_over.validator
    def _is_words(self, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, bool):
            words(self, field, value)

    def __attrs_post_init__(self) -> None:
        """Tiers are different ones."""
        if self.tiers is not None and len(set(self.tiers)) < max(1, len(self.tiers)):
            raise BadRequest("tiers", self.tiers, "at least one name, and none twice")

    def calibrated(self, vendor: str, model: str, *, local: bool) -> Calibration | None:
        """Return what the plan gives for a model; None if it gives nothing."""
        kind = "local" if local else "cloud"
        for name in (f"{vendor}/{model}", vendor, kind, ""):
            if name in self.calibration:
                return self.calibration[name]
        return None


@attrs.frozen(kw_only=True)
class Role:
    """What a step of a chain does with the text of the one before."""

    prompt: str
    """What is said behind that text; empty asks the original request."""
    answers: bool = True
    """It writes an answer to the request, of the form that was asked for; else it judges one."""


ROLES: Mapping[str, Role] = {
    "draft": Role(prompt=""),
    "refine": Role(
        prompt="Improve this answer to my request: correct what is wrong, add what is missing,"
        " leave out what does not belong. Reply with the improved answer alone."
    ),
    "verify": Role(
        prompt="Check this answer against my request. If it is right and complete, reply with OK"
        " and nothing else. If not, say in a few sentences what is wrong with it.",
        answers=False,
    ),
    "summarize": Role(
        prompt="Summarize this answer in a few sentences. Reply with the summary alone."
    ),
}
"""By name; a step may bring a prompt of its own."""


@attrs.frozen
class Step:
    """One step of a chain: what it does, and who may do it."""

    role: str = attrs.field()
    prompt: str | None = attrs.field(default=None, validator=attrs.validators.optional(words))
    """Stands for the role's own."""
    vendor: str | None = None
    model: str | None = None
    strategy: Strategy | None = attrs.field(default=None, converter=read_strategy)
    """By what those that can do it are put in order; None is that of the request."""
    max_tokens: int | None = integer("max_tokens", 1, 2**31 - 1)

    @role.validator
    def _is_known(self, _: object, value: object) -> None:
        if value not in ROLES:
            raise BadRequest("role", value, f"one of {', '.join(map(repr, ROLES))}")

    def __attrs_post_init__(self) -> None:
        """A step is one request."""
        if self.strategy is not None and self.strategy.plan is not None:
            raise BadRequest("strategy", self.strategy.plan, "one without a plan: a step is one")


def _steps(value: Iterable[Step | str]) -> tuple[Step, ...]:
    if isinstance(value, str):
        raise BadRequest("steps", value, "a sequence, such as ('draft', 'refine')")
    given: list[Any] = list(as_tuple("steps", value))
    if foreign := [each for each in given if not isinstance(each, Step | str)]:
        raise BadRequest("steps", foreign[0], "names of roles, or Step(…)")
    return tuple(each if isinstance(each, Step) else Step(each) for each in given)


@attrs.frozen
class Chain(Plan):
    """Write an answer in steps: somebody drafts it, others refine, verify or summarize it.

    Each step is asked with the request and the last text. "verify" says OK, and the steps behind it
    that would refine or verify are left out; or it says what is wrong, and the answer is refined
    once more. If a later step fails, the text of the one before is returned with a warning. As a
    stream, the last step comes as it is made, and everything else not at all.
    """

    steps: tuple[Step, ...] = attrs.field(
        default=("draft", "refine"), converter=_steps, validator=at_most(MAX_STEPS, "steps")
    )
    rounds: int = integer("rounds", 0, MAX_ROUNDS, default=1)
    """How often "verify" may have the answer refined where no step for that follows it."""

    def __attrs_post_init__(self) -> None:
        """The first one writes from nothing, and nobody does after it."""
        roles = [step.role for step in self.steps]
        if roles[:1] != ["draft"] or "draft" in roles[1:]:
            raise BadRequest("steps", roles, "begun with 'draft', which comes once")
