"""From the events of a message, or from a whole one, to pieces of a reply. Pure.

What a delta is, it says itself: servers that imitate the API number their blocks loosely, so the
block that a delta belongs to is only looked up for calls and for signatures. Unknown events, blocks
and deltas are ignored. A reply is whole when it said why it ended and, in a stream, that it did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.models.embedding import size_bytes
from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.message import Keepsake
from llmdispatcher.models.reply import CallDelta, Delta, Finish, FinishReason, Piece, Usage
from llmdispatcher.vendors.anthropic.content import DIALECT
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.reading import MAX_COUNT, fields, items, shown, tally, words
from llmdispatcher.vendors.wire.redaction import cleaned

MAX_BLOCKS = 4096
"""Of one reply: each has at least some tokens, and replies have at most 128,000."""

MAX_EXPLANATION_CHARS = 300
"""Of what the vendor says about a refusal."""

BYTES_A_TOKEN = 4
"""Where nobody counts: what English text has, roughly."""

_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}

_WARNINGS = {
    "model_context_window_exceeded": "the model's context was full before the reply was done",
    "pause_turn": "the vendor paused a long turn: send the conversation with this reply to go on",
}

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


@attrs.define
class _Block:
    """A block that has begun."""

    call: int = -1
    """Which call it is; -1 for what is none."""
    given: object = None
    """The arguments that came with its beginning."""
    has_arguments: bool = False
    thinking: list[str] = attrs.field(factory=list)
    signature: str = ""


class MessageReplies:
    """Reads one reply."""

    def __init__(self) -> None:
        self.is_done = False
        """The message said that it ended, or came whole."""
        self._reason = ""
        self._details: Mapping[str, Any] = {}
        self._model = ""
        self._counts: dict[str, int] = {}
        self._is_counted = False
        """Whether the output was counted at its end, and not at its beginning."""
        self._written_bytes = 0
        self._calls = 0
        self._begun = 0
        self._open: dict[int, _Block] = {}

    def take(self, event: str, message: Any) -> list[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an event. Raises BadReply, or the error that it is."""
        if not isinstance(message, dict):
            raise BadReply(f"the vendor sent an event that is no object: {shown(message)}")
        kind = message.get("type")
        if "error" in {event, kind if isinstance(kind, str) else ""} or message.get("error"):
            raise faults.of_message(message)
        match kind if isinstance(kind, str) else event:
            case "content_block_delta":
                return self._grow(_index(message), fields(message.get("delta")))
            case "content_block_start":
                return self._begin(_index(message), fields(message.get("content_block")))
            case "content_block_stop":
                return self._end(_index(message))
            case "message_start":
                start = fields(message.get("message"))
                self._model = words(start.get("model"), "the name of a model")
                self._count(start)
            case "message_delta":
                self._count(message, is_last=True)
                self._stop(fields(message.get("delta")))
            case "message_stop":
                self.is_done = True
                return [piece for index in [*self._open] for piece in self._end(index)]
        return []

    def whole(self, message: Any) -> list[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read a message that came whole. Raises BadReply, or the error that it is."""
        if not isinstance(message, dict):
            raise BadReply(f"the vendor sent what is no message: {shown(message)}")
        if message.get("type") == "error" or message.get("error"):
            raise faults.of_message(message)
        if not isinstance(message.get("content"), list):
            raise BadReply(f"the vendor sent a message without content: {shown(message)}")
        self._model = words(message.get("model"), "the name of a model")
        pieces: list[Piece] = []
        for index, block in enumerate(items(message["content"])):
            pieces += self._begin(index, fields(block))
            pieces += self._end(index)
        self._count(message, is_last=True)
        self._stop(message)
        self.is_done = True
        return pieces

    def finish(self) -> Finish | None:
        """Return the end; None until the message said why and that it ended."""
        if not self.is_done or not self._reason:
            return None
        reason = _REASONS.get(self._reason, FinishReason.UNKNOWN)
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        return Finish(reason, self.usage(), self._warnings(reason), served_model=self._model)

    def usage(self) -> Usage:
        """Return the tokens until now. The output is estimated until the vendor counted it."""
        read = self._counts.get("cache_read_input_tokens", 0)
        written = self._counts.get("cache_creation_input_tokens", 0)
        output = self._counts.get("output_tokens", 0)
        if not self._is_counted:
            output = max(output, -(-self._written_bytes // BYTES_A_TOKEN))
        written = min(written, MAX_COUNT - read)
        return Usage(
            prompt_tokens=min(self._counts.get("input_tokens", 0) + read + written, MAX_COUNT),
            completion_tokens=output,
            cached_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=min(self._counts.get("thinking_tokens", 0), output),
            estimated=not self._is_counted or "input_tokens" not in self._counts,
        )

    # -- blocks ---------------------------------------------------------------------------------

    def _begin(self, index: int, block: Mapping[str, Any]) -> list[Piece]:
        """Begin a block, which may already hold all there will be."""
        pieces = self._end(index)
        self._begun += 1
        if self._begun > MAX_BLOCKS:
            raise BadReply(f"the vendor sent a reply of more than {MAX_BLOCKS} blocks")
        match block.get("type"):
            case "text":
                return pieces + self._text(block.get("text"))
            case "thinking":
                begun = self._open[index] = _Block()
                begun.signature = words(block.get("signature"), "a signature")
                return pieces + self._thought(begun, block.get("thinking"))
            case "redacted_thinking":
                data = words(block.get("data"), "hidden thoughts")
                return [*pieces, _kept({"type": "redacted_thinking", "data": data})]
            case "tool_use":
                return [*pieces, self._call(index, block)]
        return pieces

    def _grow(self, index: int, delta: Mapping[str, Any]) -> list[Piece]:
        """Read a piece of a block."""
        match delta.get("type"):
            case "text_delta":
                return self._text(delta.get("text"))
            case "thinking_delta":
                return self._thought(self._open.get(index), delta.get("thinking"))
            case "signature_delta":
                if index in self._open:
                    self._open[index].signature = words(delta.get("signature"), "a signature")
            case "input_json_delta":
                return self._argument(index, delta.get("partial_json"))
        return []

    def _end(self, index: int) -> list[Piece]:
        """End a block, if it is open, and tell what only a whole one tells."""
        block = self._open.pop(index, None)
        if block is None:
            return []
        if block.call >= 0:
            if block.has_arguments:
                return []
            arguments = _dumped(block.given or {})
            self._written_bytes += size_bytes(arguments)
            return [Delta("", tool_calls=(CallDelta(block.call, arguments=arguments),))]
        if not block.signature:  # nobody's but a local server's, which checks none
            return []
        told = {"thinking": "".join(block.thinking), "signature": block.signature}
        return [_kept({"type": "thinking", **told})]

    def _text(self, text: object) -> list[Piece]:
        told = words(text)
        self._written_bytes += size_bytes(told)
        return [Delta(told)] if told else []

    def _thought(self, block: _Block | None, text: object) -> list[Piece]:
        told = words(text, "a thought")
        self._written_bytes += size_bytes(told)
        if block is not None and told:
            block.thinking.append(told)
        return [Delta("", reasoning=told)] if told else []

    def _call(self, index: int, block: Mapping[str, Any]) -> Delta:
        if not (name := words(block.get("name"), "the name of a tool")):
            raise BadReply("the vendor sent a call of a tool without the tool's name")
        made = words(block.get("id"), "the id of a call") or f"call_{self._calls}"
        self._open[index] = _Block(call=self._calls, given=block.get("input"))
        self._calls += 1
        return Delta("", tool_calls=(CallDelta(self._calls - 1, made, name),))

    def _argument(self, index: int, piece: object) -> list[Piece]:
        """Read a piece of arguments; those of the vendor's own tools belong to no call."""
        block = self._open.get(index)
        told = words(piece, "arguments")
        if block is None or block.call < 0 or not told:
            return []
        block.has_arguments = True
        self._written_bytes += size_bytes(told)
        return [Delta("", tool_calls=(CallDelta(block.call, arguments=told),))]

    # -- the end --------------------------------------------------------------------------------

    def _count(self, message: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Take the tokens that a message tells; of each kind the last number holds."""
        usage = fields(message.get("usage"))
        for name in _COUNTS:
            if usage.get(name) is not None:
                self._counts[name] = tally(usage[name])
        thoughts = fields(usage.get("output_tokens_details")).get("thinking_tokens")
        if thoughts is not None:
            self._counts["thinking_tokens"] = tally(thoughts)
        if is_last and usage.get("output_tokens") is not None:
            self._is_counted = True

    def _stop(self, told: Mapping[str, Any]) -> None:
        if reason := words(told.get("stop_reason"), "a reason"):
            self._reason = reason
            self._details = fields(told.get("stop_details"))

    def _warnings(self, reason: FinishReason) -> tuple[str, ...]:
        if warning := _WARNINGS.get(self._reason):
            return (warning,)
        if reason is FinishReason.UNKNOWN:
            return (f"the reply ended for a reason that is not known: {shown(self._reason)}",)
        told = [self._details.get("category"), self._details.get("explanation")]
        said = ": ".join(text for text in told if isinstance(text, str) and text)
        if reason is FinishReason.CONTENT_FILTER and said:
            return (f"the vendor refused to answer: {cleaned(said, MAX_EXPLANATION_CHARS)}",)
        return ()


def _index(message: Mapping[str, Any]) -> int:
    """Return which block is meant; one for all where the vendor does not say."""
    index = message.get("index")
    return index if isinstance(index, int) else -1


def _kept(block: Mapping[str, str]) -> Delta:
    """Return what the vendor wants back; in ASCII, so that nothing about it can be unwritable."""
    return Delta("", keepsakes=(Keepsake(DIALECT, json.dumps(block)),))


def _dumped(value: object) -> str:
    if isinstance(value, str):  # JSON already, from servers that imitate the API
        return words(value)
    try:
        return words(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except (ValueError, RecursionError):
        raise BadReply("the vendor sent arguments that cannot be written as JSON") from None
