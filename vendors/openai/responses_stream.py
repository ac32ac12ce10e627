"""Reads the answers of the responses endpoint: whole, or in the events of a stream. Pure.

The end of a stream repeats the whole answer, so a whole answer is read as such an end. Unknown
events and kinds of items are ignored. A refusal is text, and says why the reply ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    TokenLogprob,
    Usage,
)
from llmdispatcher.vendors.openai.figures import Figures, Heard
from llmdispatcher.vendors.openai.responses_items import Mark
from llmdispatcher.vendors.openai.responses_parts import (
    Calls,
    Paragraphs,
    Strand,
    Told,
    content_of,
    only_text_of,
    thoughts_of,
    usage_of,
)
from llmdispatcher.vendors.openai.tokens import logprobs as logprobs_of
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.faults import Habits
from llmdispatcher.vendors.wire.reading import fields, items, shown, words

Message = Mapping[str, Any]

_REASONS = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_messages": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class ResponsesReplies:
    """Reads the answer to one ask. See ``exchange.Replies``."""

    def __init__(
        self, prompt_bytes: int = 0, *, logprobs: int | None = None, habits: Habits | None = None
    ) -> None:
        self.is_done = False
        self._top, self._habits = logprobs, habits
        self._text, self._tokens = Strand(), Strand()
        self._thoughts, self._summary = Paragraphs(), Paragraphs("\n\n")
        self._calls = Calls()
        self._messages = self._messages_done = self._thinkings_done = 0
        """Messages that began; and items of a kind that were told as a whole."""
        self._place: tuple[int, int] | None = None
        """Text and calls before the item that is read again; None while a stream tells them."""
        self._figures: Figures | Heard = Figures(prompt_bytes)
        self._is_proved = False
        self._was_refused = False
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._request_id = self._model = ""

    def take(self, event: str, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an event."""
        if not isinstance(message, dict):
            raise BadReply(f"the vendor sent what is no event: {shown(message)}")
        kind = message.get("type")
        kind = kind if isinstance(kind, str) else event
        if kind == "error" or (message.get("error") and not kind.startswith("response.")):
            raise faults.of_message(message, self._habits)
        if read := self._EVENTS.get(kind):
            self._figures.begin()
            for piece in read(self, message):
                if isinstance(piece, Delta):
                    self._figures.count(piece.text + piece.reasoning, len(piece.logprobs))
                yield piece

    def whole(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer that came in one."""
        match message:
            case {"status": str(status)}:
                yield from self._end(message, status)
            case {"error": dict() | str() as error} if error:
                raise faults.of_message(message, self._habits)
            case {"output": list()}:
                yield from self._end(message, "completed")
            case _:
                raise BadReply(f"the vendor sent what is no response: {shown(message)}")

    def finish(self) -> Finish | None:
        """Return the end, once the response is complete."""
        if self._reason is None:
            return None
        return Finish(
            self._reason, self.usage(), request_id=self._request_id, served_model=self._model
        )

    def usage(self) -> Usage:
        """Return the tokens; until they are told, as many as they may be by size and pieces."""
        return self._usage or self._figures.usage()

    def doubt(self) -> bool:
        """See ``Proving.doubt``: the end repeats the whole text.

        Only of a reply that is nothing but one text: what may be missing of thoughts, calls and
        tokens is not held against the end.
        """
        if not isinstance(self._figures, Heard):
            self._figures = Heard(self._figures, self._text.given)
            self._text = Told(self._text.given)
        return self._top is None

    def is_proved(self) -> bool:
        """See ``Proving.is_proved``."""
        return self._is_proved

    # -- pieces, and parts that are done -------------------------------------------------------

    def _text_delta(self, message: Message) -> Iterator[Piece]:
        text, logprobs = words(message.get("delta")), self._logprobs(message)
        self._text.more(len(text))
        self._tokens.more(len(logprobs))
        yield from _told(Delta(text, logprobs=logprobs))

    def _text_done(self, message: Message) -> Iterator[Piece]:
        text, logprobs = words(message.get("text")), self._logprobs(message)
        text = text[self._text.part_done(len(text)) :]
        logprobs = logprobs[self._tokens.part_done(len(logprobs)) :]
        yield from _told(Delta(text, logprobs=logprobs))

    def _refusal_delta(self, message: Message) -> Iterator[Piece]:
        self._was_refused = True
        text = words(message.get("delta"))
        self._text.more(len(text))
        yield from _told(Delta(text))

    def _refusal_done(self, message: Message) -> Iterator[Piece]:
        self._was_refused = True
        text = words(message.get("refusal"))
        yield from _told(Delta(text[self._text.part_done(len(text)) :]))

    def _thought_delta(self, message: Message) -> Iterator[Piece]:
        yield from _thought(self._thoughts.more(words(message.get("delta")), _place(message)))

    def _thought_done(self, message: Message) -> Iterator[Piece]:
        yield from _thought(self._thoughts.part_done(words(message.get("text")), _place(message)))

    def _summary_delta(self, message: Message) -> Iterator[Piece]:
        yield from _thought(self._summary.more(words(message.get("delta")), _place(message)))

    def _summary_done(self, message: Message) -> Iterator[Piece]:
        yield from _thought(self._summary.part_done(words(message.get("text")), _place(message)))

    def _call_delta(self, message: Message) -> Iterator[Piece]:
        yield from _called([self._calls.more(message)])

    def _call_done(self, message: Message) -> Iterator[Piece]:
        yield from _called(self._calls.arguments_done(message))

    def _logprobs(self, message: Message) -> tuple[TokenLogprob, ...]:
        if self._top is None:
            return ()
        return logprobs_of({"content": message.get("logprobs")}, self._top)

    # -- items ---------------------------------------------------------------------------------

    def _item_added(self, message: Message) -> Iterator[Piece]:
        item = fields(message.get("item"))
        if item.get("type") == "function_call":
            yield from _called([self._calls.begun(item, message.get("output_index"))])
        elif item.get("type") == "message":
            yield from self._message_begun(item)

    def _item_done(self, message: Message) -> Iterator[Piece]:
        item = fields(message.get("item"))
        if item.get("type") == "function_call":
            yield from _called(self._calls.item_done(item, message.get("output_index")))
        else:
            yield from self._whole_item(item)

    def _whole_item(self, item: Message) -> Iterator[Piece]:
        kind = item.get("type")
        if kind == "message":
            self._messages_done += 1
            yield from self._message_done(item)
        elif kind == "reasoning":
            self._thinkings_done += 1
            yield from self._thinking_done(item)

    def _message_begun(self, item: Message) -> Iterator[Piece]:
        """Mark where a message begins, if it is not the only one or has a label."""
        phase = item.get("phase")
        label = {"phase": phase} if isinstance(phase, str) else {}
        self._messages += 1
        if label or self._messages > 1:
            yield self._mark({"type": "message", **label})

    def _message_done(self, item: Message) -> Iterator[Piece]:
        if self._messages_done > self._messages:
            yield from self._message_begun(item)
        text, tokens, was_refused = content_of(item)
        logprobs = self._logprobs({"logprobs": tokens})
        self._was_refused |= was_refused
        text = text[self._text.item_done(len(text)) :]
        logprobs = logprobs[self._tokens.item_done(len(logprobs)) :]
        yield from _told(Delta(text, logprobs=logprobs))

    def _thinking_done(self, item: Message) -> Iterator[Piece]:
        """Thoughts go back as they came, if they came sealed: the vendor keeps no others."""
        thoughts, summary = thoughts_of(item)
        yield from _thought(self._thoughts.item_done(thoughts))
        yield from _thought(self._summary.item_done(summary))
        if item.get("encrypted_content"):
            yield self._mark(item)

    def _mark(self, item: Message) -> Delta:
        chars, calls = self._place or (self._text.given, len(self._calls))
        mark = Mark(item, chars, calls)
        return Delta("", keepsakes=(mark.keepsake(),))

    # -- the end -------------------------------------------------------------------------------

    def _queued(self, _: Message) -> Iterator[Piece]:
        yield Progress("queued", 0, 0)

    def _over(self, message: Message) -> Iterator[Piece]:
        response = fields(message.get("response"))
        status = response.get("status")
        told = str(message.get("type")).rpartition(".")[2]
        yield from self._end(response, status if isinstance(status, str) else told)
        self.is_done = True

    def _end(self, response: Message, status: str) -> Iterator[Piece]:
        if status in {"failed", "cancelled"}:
            told = response.get("error") or {"message": f"the response was {status}"}
            raise faults.of_message({"error": told}, self._habits)
        if status not in {"completed", "incomplete"}:
            raise BadReply(
                f"the vendor sent a response that is {shown(status[:40])}, and not complete"
            )
        yield from self._again(response)
        self._usage = usage_of(response.get("usage"))
        name, model = response.get("id"), response.get("model")
        self._request_id = words(name) if isinstance(name, str) else ""
        self._model = words(model) if isinstance(model, str) else ""
        self._reason = self._why(response, status)
        text = only_text_of(response)
        self._is_proved = (
            bool(text) and isinstance(self._figures, Heard) and (self._figures.is_rest_of(text))
        )

    def _why(self, response: Message, status: str) -> FinishReason:
        if status == "incomplete":
            reason = fields(response.get("incomplete_details")).get("reason")
            return _REASONS.get(str(reason), FinishReason.UNKNOWN)
        if len(self._calls):
            return FinishReason.TOOL_CALLS
        return FinishReason.CONTENT_FILTER if self._was_refused else FinishReason.STOP

    def _again(self, response: Message) -> Iterator[Piece]:
        """Read what was not told as a whole before."""
        seen = {"message": 0, "reasoning": 0, "function_call": 0}
        before = {"message": self._messages_done, "reasoning": self._thinkings_done}
        chars = 0
        for item in map(fields, items(response.get("output"))):
            kind = item.get("type")
            if not isinstance(kind, str) or kind not in seen:
                continue
            self._place = chars, seen["function_call"]
            seen[kind] += 1
            if kind == "function_call":
                yield from _called(self._calls.again(item, seen[kind] - 1))
            elif seen[kind] > before[kind]:
                yield from self._whole_item(item)
            if kind == "message":
                chars += len(content_of(item)[0])

    # Its readers, under the names that the vendor has for what they read.
    _EVENTS: ClassVar[Mapping[str, Callable[[ResponsesReplies, Message], Iterator[Piece]]]] = {
        "response.queued": _queued,
        "response.output_item.added": _item_added,
        "response.output_item.done": _item_done,
        "response.output_text.delta": _text_delta,
        "response.output_text.done": _text_done,
        "response.refusal.delta": _refusal_delta,
        "response.refusal.done": _refusal_done,
        "response.reasoning_text.delta": _thought_delta,
        "response.reasoning_text.done": _thought_done,
        "response.reasoning_summary_text.delta": _summary_delta,
        "response.reasoning_summary_text.done": _summary_done,
        "response.function_call_arguments.delta": _call_delta,
        "response.function_call_arguments.done": _call_done,
        "response.completed": _over,
        "response.incomplete": _over,
        "response.failed": _over,
        "response.cancelled": _over,
    }


def _place(message: Message) -> tuple[object, ...]:
    """Return which part of which item is told of."""
    values = [message.get(name) for name in ("output_index", "summary_index", "content_index")]
    return tuple(value if isinstance(value, int) else None for value in values)


def _told(delta: Delta) -> Iterator[Piece]:
    if delta:
        yield delta


def _thought(text: str) -> Iterator[Piece]:
    if text:
        yield Delta("", reasoning=text)


def _called(told: list[CallDelta]) -> Iterator[Piece]:
    if told:
        yield Delta("", tool_calls=tuple(told))
