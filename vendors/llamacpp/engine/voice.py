"""What one reply says: from the bytes of its tokens to the pieces that its caller gets. Pure.

Text passes two gates: ``TextStream`` makes whole characters of bytes and cuts at stop strings, and
a ``Reader``, where the model thinks or calls tools, tells reasoning and calls from the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmdispatcher.models.reply import Delta, FinishReason, TokenLogprob
from llmdispatcher.vendors.llamacpp.engine.text import TextStream

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.speech.reader import Reader


class Voice:
    """Turns the tokens of one reply into deltas."""

    __slots__ = ("_index", "_reader", "_text", "reasoning_tokens", "shown")

    def __init__(
        self,
        index: int,
        stops: Sequence[str] = (),
        reader: Reader | None = None,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        """``shown`` are control tokens that the reader needs to see."""
        self._index = index
        self._text = TextStream(stops)
        self._reader = reader
        self.shown = shown
        self.reasoning_tokens = 0
        """Tokens of reasoning until now, with what opens and closes it."""

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._text.stopped is not None

    def reason(self, reason: FinishReason) -> FinishReason:
        """Return why the reply ended, if the engine ended it for this reason."""
        called = self._reader is not None and self._reader.calls and reason is FinishReason.STOP
        return FinishReason.TOOL_CALLS if called else reason

    def say(self, data: bytes, logprobs: tuple[TokenLogprob, ...] = ()) -> Delta | None:
        """Take the bytes of one token; returns what can be shown now, if anything."""
        text = self._text.feed(data)
        if self._reader is None:
            return Delta(text, self._index, logprobs) if text or logprobs else None
        was_thinking = self._reader.is_thinking
        heard = self._reader.feed(text)
        self.reasoning_tokens += was_thinking or self._reader.is_thinking
        delta = Delta(heard.text, self._index, logprobs, heard.reasoning, heard.calls)
        return delta or None

    def end(self) -> Delta | None:
        """Take the end of the reply: nothing is held back any more."""
        text = self._text.flush()
        if self._reader is None:
            return Delta(text, self._index) if text else None
        first, last = self._reader.feed(text), self._reader.flush()
        delta = Delta(
            first.text + last.text,
            self._index,
            (),
            first.reasoning + last.reasoning,
            first.calls + last.calls,
        )
        return delta or None
