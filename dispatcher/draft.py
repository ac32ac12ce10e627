"""What a reply, a set of vectors or a list of scores is while it grows, piece by piece.

A *draft* belongs to one attempt: it takes pieces, refuses those that do not belong to what was
asked for (``BadReply``), and says at the end what has become of them. It knows nothing of vendors,
time or money.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Protocol, TypeVar

from llmdispatcher.models.embedding import Score, Vector
from llmdispatcher.models.errors import BadReply, BadRequest
from llmdispatcher.models.fields import TEXT
from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.message import Keepsake, ToolCall
from llmdispatcher.models.reply import (
    CallDelta,
    Choice,
    Delta,
    Finish,
    FinishReason,
    Piece,
    TokenLogprob,
)

T = TypeVar("T")


class Draft(Protocol):
    """What one attempt has made of a request until now."""

    @property
    def text(self) -> str:
        """The text so far, of the first choice; empty for what is no text."""

    def add(self, piece: Piece) -> None:
        """Add a piece. Raises BadReply for one that does not belong here."""

    def finish(self, finish: Finish) -> None:
        """Complete it. Raises BadReply if it is not what was asked for."""


class ChoiceDraft:
    """One choice while it grows."""

    __slots__ = ("calls", "keepsakes", "logprobs", "reasoning", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.keepsakes: list[Keepsake] = []
        self.logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    def add(self, delta: Delta) -> None:
        """Add a piece."""
        self.texts.append(delta.text)
        if delta.logprobs:
            self.logprobs.extend(delta.logprobs)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        if delta.keepsakes:
            self.keepsakes += delta.keepsakes
        for piece in delta.tool_calls:
            self._add_call(piece)

    def _add_call(self, piece: CallDelta) -> None:
        """Add a piece of a tool call. Raises BadReply for one that follows nothing."""
        if piece.index == len(self.calls):
            self.calls.append(ToolCall(piece.id, piece.name, piece.arguments))
        elif 0 <= piece.index < len(self.calls):
            call = self.calls[piece.index]
            self.calls[piece.index] = ToolCall(
                call.id or piece.id,
                call.name or piece.name,
                call.arguments + piece.arguments,
            )
        else:
            raise BadReply(f"a piece of tool call {piece.index} after {len(self.calls)} calls")

    def done(self, reason: FinishReason, form: ResponseFormat, *, loose: bool) -> Choice:
        """Return what has become of it. Raises BadReply if it is not what was asked for."""
        parsed = None
        if form.is_json and reason is FinishReason.STOP:
            from llmdispatcher import typed  # noqa: PLC0415 - on first use

            parsed = typed.parsed(self.text, form, loose=loose)
        text, reasoning = self.text, "".join(self.reasoning)
        return Choice(
            text,
            reason,
            tuple(self.logprobs),
            reasoning,
            tuple(self.calls),
            tuple(self.keepsakes),
            parsed,
        )


class ReplyDraft:
    """All choices of a reply. See ``Draft``."""

    def __init__(self, n: int, form: ResponseFormat, *, must_call: bool = False) -> None:
        """``must_call`` is whether a call of a tool was demanded."""
        self._form, self._must_call = form, must_call
        self._drafts = [ChoiceDraft() for _ in range(n)]
        self.choices: tuple[Choice, ...] = ()
        self.is_loose = False
        """Nobody holds the model to JSON, so that text may be around it; see ``typed.parsed``."""

    @property
    def text(self) -> str:
        """See ``Draft.text``."""
        return self._drafts[0].text

    @property
    def has_calls(self) -> bool:
        """Whether any choice calls a tool."""
        return any(draft.calls for draft in self._drafts)

    @property
    def pieces(self) -> int:
        """How many pieces of the first choice have come; what it continued is one."""
        return len(self._drafts[0].texts)

    def continued(self) -> ReplyDraft | None:
        """Return a draft that another vendor can go on with; None where only text could be.

        A reply with calls, log-probabilities or thoughts behind its text has no such place.
        """
        draft = self._drafts[0]
        is_text = not (draft.calls or draft.logprobs or draft.keepsakes)
        if len(self._drafts) > 1 or self._form.shape is not Shape.TEXT or not is_text:
            return None
        made = ReplyDraft(1, self._form, must_call=self._must_call)
        made._drafts[0].texts.append(draft.text)
        made._drafts[0].reasoning += draft.reasoning
        return made if draft.text else None

    def add(self, piece: Piece) -> None:
        """See ``Draft.add``."""
        if not isinstance(piece, Delta):
            raise _foreign(piece, "text")
        if not 0 <= piece.index < len(self._drafts):
            told = f"a piece of choice {piece.index} of a request for {len(self._drafts)}"
            raise BadReply(told)
        try:
            self._drafts[piece.index].add(piece)
        except BadRequest as error:  # of a value that the vendor made: not the caller's fault
            raise BadReply(f"a tool call that cannot be: {error}") from error

    def finish(self, finish: Finish) -> None:
        """See ``Draft.finish``."""
        self.choices = tuple(
            draft.done(reason, self._form, loose=self.is_loose)
            for draft, reason in self._ends(finish)
        )
        for choice in self.choices:
            self._check_call(choice)

    def _ends(self, finish: Finish) -> Iterable[tuple[ChoiceDraft, FinishReason]]:
        """Return every choice and why it ended."""
        reasons = chain((finish.reason,), finish.others, repeat(FinishReason.UNKNOWN))
        return zip(self._drafts, reasons, strict=False)

    def _check_call(self, choice: Choice) -> None:
        """Raise BadReply where a call of a tool was demanded, and none came."""
        is_done = choice.finish_reason is FinishReason.STOP
        if self._must_call and is_done and not choice.tool_calls:
            told = "a call of a tool was demanded, and text came: this model may know none"
            unfit = BadReply(told)
            unfit.is_unfit, unfit.misfit = True, told
            raise unfit


class JudgedDraft(ReplyDraft):
    """A reply that somebody judges: one of another form than was asked for is not good, no more.

    So its vendor has not failed, and is not asked the same again.
    """

    def __init__(self, n: int, form: ResponseFormat, *, must_call: bool = False) -> None:
        """See ``ReplyDraft``."""
        super().__init__(n, form, must_call=must_call)
        self.unfit: dict[int, BadReply] = {}
        """By the number of the choice."""

    def finish(self, finish: Finish) -> None:
        """See ``Draft.finish``."""
        made = []
        for index, (draft, reason) in enumerate(self._ends(finish)):
            try:
                choice = draft.done(reason, self._form, loose=self.is_loose)
                self._check_call(choice)
            except BadReply as error:
                self.unfit[index] = error
                choice = draft.done(reason, TEXT, loose=False)
            made.append(choice)
        self.choices = tuple(made)


class VectorsDraft:
    """One vector for each text. See ``Draft``."""

    text = ""

    def __init__(self, count: int) -> None:
        self._found: list[array[float] | None] = [None] * count
        self.vectors: tuple[array[float], ...] = ()

    def add(self, piece: Piece) -> None:
        """See ``Draft.add``."""
        if not isinstance(piece, Vector):
            raise _foreign(piece, "vectors")
        if not len(piece.values) or not all(map(math.isfinite, piece.values)):
            raise BadReply(f"vector {piece.index} is empty, or has numbers that are not finite")
        _put(self._found, piece.index, piece.values, "vector")

    def finish(self, _: Finish) -> None:
        """See ``Draft.finish``."""
        self.vectors = _whole(self._found, "vectors")
        if len(sizes := {len(vector) for vector in self.vectors}) > 1:
            raise BadReply(f"vectors of different lengths: {sorted(sizes)}")


class ScoresDraft:
    """One score for each document. See ``Draft``."""

    text = ""

    def __init__(self, count: int) -> None:
        self._found: list[float | None] = [None] * count
        self.scores: tuple[float, ...] = ()

    def add(self, piece: Piece) -> None:
        """See ``Draft.add``."""
        if not isinstance(piece, Score):
            raise _foreign(piece, "scores")
        if not math.isfinite(piece.value):
            raise BadReply(f"score {piece.index} is {piece.value}, and must be finite")
        _put(self._found, piece.index, piece.value, "score")

    def finish(self, _: Finish) -> None:
        """See ``Draft.finish``."""
        self.scores = _whole(self._found, "scores")


def _foreign(piece: Piece, wanted: str) -> BadReply:
    return BadReply(f"a {type(piece).__name__} in answer to a request for {wanted}")


def _put(found: list[T | None], index: int, value: T, what: str) -> None:
    """Keep a value in its place, which must be free."""
    if not 0 <= index < len(found):
        raise BadReply(f"{what} {index} of a request for {len(found)}")
    if found[index] is not None:
        raise BadReply(f"{what} {index} came twice")
    found[index] = value


def _whole(found: list[T | None], what: str) -> tuple[T, ...]:
    """Return all values. Raises BadReply if any is missing."""
    there = tuple(value for value in found if value is not None)
    if len(there) < len(found):
        missing = found.index(None)
        told = f"{len(there)} {what} of {len(found)}: number {missing} is missing"
        raise BadReply(told)
    return there
