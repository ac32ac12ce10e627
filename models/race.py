"""Plans that ask several models about one request: ``Parallel``, ``Hedge`` and ``Ensemble``.

    d.send("…", strategy=Hedge())
    Dispatcher(…, strategy=Parallel(count=3, accept=lambda reply: "{" in reply.text))
    d.send("How many?", strategy=Ensemble(by="vote", normalise="last_number"))

All that is asked is paid for, and ``Reply.decision`` has every attempt. A request's allowance of
attempts, seconds and dollars holds for all of them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.check import flag, integer, number, one_of, title, whole
from llmdispatcher.models.errors import BadRequest, DispatcherError, _revive
from llmdispatcher.models.plan import Plan

if TYPE_CHECKING:
    from llmdispatcher.models.reply import Reply

MAX_COUNT = 64
"""Models that one request may be sent to at once: each takes a thread, or a task."""

WAYS = ("vote", "best", "merge", "consensus")

FORMS = ("answer", "last_number")
"""What may be compared of an answer, by name."""

Accept = Callable[["Reply"], bool]
Normalise = Callable[[str], str]


class NoGoodAnswer(DispatcherError):
    """Answers came, and none of them will do. ``replies`` holds all of them, ``reasons`` why not.

    Each reason belongs to the reply at its place.
    """

    def __init__(
        self, message: str, replies: tuple[Reply, ...] = (), reasons: tuple[str, ...] = ()
    ) -> None:
        """``message`` says what was asked of the answers, and the way out."""
        self.replies, self.reasons = replies, reasons
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as every other error."""
        return _revive, (type(self), self.args, self.__dict__)


def _callable(example: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Make a validator that accepts None and functions."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None and not callable(value):
            raise BadRequest(field.name, value, f"a function, such as {example}")

    return check


def _count(plan: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept a number of models, or None for all."""
    if value is not None:
        whole("count", 1, MAX_COUNT)(plan, field, value)


def check_normalise(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept the name of a form, or a function of the text."""
    if value not in FORMS and not callable(value):
        names = ", ".join(map(repr, FORMS))
        raise BadRequest(field.name, value, f"one of {names}, or a function of the text")


@attrs.frozen(kw_only=True)
class Parallel(Plan):
    """Several models are asked at once, and the first good answer wins; the others are stopped.

    An answer is good if it came to its end, was not cut by a content filter, has the form that was
    asked for, and ``accept`` says so. The place of one that fails, or is not good, is taken by the
    next candidate. Where none is good, the first of those that came is returned with a warning;
    with ``accept``, NoGoodAnswer is raised.

    In ``stream`` whoever brings the first piece wins, and the others are stopped then. With
    ``accept`` nothing can be shown before it was accepted: the stream yields the whole answer in
    one piece.
    """

    is_side_by_side = True

    count: int | None = attrs.field(default=2, validator=_count)
    """How many are asked at once, the first in the order of the strategy; None asks all."""
    accept: Accept | None = attrs.field(
        default=None, validator=_callable("lambda reply: len(reply.text) > 20")
    )
    """Whether an answer will do. Called where the reply is awaited; must return soon."""


@attrs.frozen(kw_only=True)
class Hedge(Plan):
    """A second copy is sent when the first token is late, and the first to answer wins.

    Late is what takes longer than the model took of late in ``percentile`` of all cases, or, while
    less than eight of its times are known, than two seconds. Loading a model and waiting for a turn
    do not count. The copy goes to the next candidate, or to the same if there is no other and it is
    not on this machine; a local model that would have to be loaded first is passed over.

    In ``stream`` whoever brings the first piece wins, else whoever has the whole reply first. The
    other is stopped, and what it cost until then is paid for. Copies are held to ``max_extra`` of
    the requests, and what is wasted on them to ``max_extra`` of what the dispatcher has spent, as
    far as prices are known: with 0.1 the first copy can be sent with the tenth request.
    """

    is_side_by_side = True

    percentile: float = number("percentile", 0.5, 0.999, default=0.95)
    after_s: float | None = number("after_s", 0, 3600)
    """After how long a second copy is sent, whatever the model took of late."""
    max_extra: float = number("max_extra", 0, 1, default=0.1)

    def __attrs_post_init__(self) -> None:
        """Only ``after_s`` can be None."""
        for name in ("percentile", "max_extra"):
            if getattr(self, name) is None:
                raise BadRequest(name, None, "a number")


@attrs.frozen(kw_only=True)
class Ensemble(Plan):
    """Several answers are made, and one is made of them.

    - "vote": the answer that most have given, compared by ``normalise``. Ties go to the answer
      whose models are of higher quality tiers together, then to the one that ranks first.
    - "best": a model judges which is the best, without knowing whose each is. Where it cannot say,
      they vote, and ``Reply.warnings`` tells.
    - "merge": a model is given all answers and writes one from them.
    - "consensus": as "vote", if at least ``agree`` of all answers, and two, are the same; else
      NoGoodAnswer is raised, which holds all answers.

    One that fails is replaced by the next candidate. A single answer suffices to go on if all
    others fail, but is no consensus. As soon as those that are still being made cannot change what
    a vote comes to, they are stopped.

    In ``stream`` nothing is shown before the answer is there: it comes in one piece, or, with
    "merge", as it is written.
    """

    is_side_by_side = True

    by: str = attrs.field(default="vote", validator=one_of(*WAYS))
    count: int = integer("count", 1, MAX_COUNT, default=3)
    """How many answers, from as many models, the first in the order of the strategy."""
    judge: str | None = attrs.field(default=None, validator=attrs.validators.optional(title))
    """Who judges or merges: ``model`` or ``vendor/model``. None takes the model of the highest
    quality tier that can."""
    same_model: bool = flag(default=False)
    """All answers come from the first model, each drawn with another seed."""
    normalise: str | Normalise = attrs.field(default="answer", validator=check_normalise)
    """What of an answer is compared: "answer", its text without differences of case, space,
    punctuation around it and the ways to write a number or JSON; "last_number", the last number in
    it, for answers with reasoning; or a function of the text that returns text."""
    agree: float = number("agree", 0, 1, default=2 / 3)
    """The share of the answers that a consensus takes."""

    def __attrs_post_init__(self) -> None:
        """A consensus takes a share."""
        if self.agree is None:
            raise BadRequest("agree", None, "a number from 0 to 1")
