"""From the bytes of a streamed reply to pieces, as they come. Pure.

``Lines`` cuts the stream (server-sent events) into messages; ``Replies`` reads those of one
request. What is no reply raises BadReply, and an error that the server sends in the middle is the
error that it stands for. A reply is whole only when every choice said why it ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

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
from llmdispatcher.vendors.llamacpp.server import faults
from llmdispatcher.vendors.llamacpp.server.wire import Ask

MAX_LINE_BYTES = 16 * 2**20
"""Of one message: a token with its likeliest neighbours takes some kilobytes."""

_SHOWN_CHARS = 200

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class Lines:
    """Cuts a stream into the data of its messages."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._looked = 0
        """How much of what was begun is known to hold no end of a line."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the messages that are whole. Raises BadReply for one without end."""
        self._begun += chunk
        while (end := self._begun.find(b"\n", self._looked)) >= 0:
            line = bytes(self._begun[:end]).rstrip(b"\r")
            del self._begun[: end + 1]
            self._looked = 0
            if data := _data(line):
                yield data
        self._looked = len(self._begun)
        if self._looked > MAX_LINE_BYTES:
            raise BadReply(f"the server sent a line of more than {MAX_LINE_BYTES} bytes")

    @property
    def is_cut(self) -> bool:
        """Whether the stream, if it ends here, ends in the middle of a line."""
        return bool(self._begun)


def _data(line: bytes) -> bytes:
    """Return what a line carries; nothing for comments and the lines between messages."""
    if not line or line.startswith((b":", b"event:", b"id:", b"retry:")):
        return b""
    for name in (b"data:", b"error:"):
        if line.startswith(name):
            return line[len(name) :].strip()
    raise BadReply(f"the server sent what is no event: {_shown(line)}")


class Replies:
    """Reads the replies to one request."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._reasons: dict[int, FinishReason] = {}
        self._texts: list[str] = []
        self._prompt: dict[int, int] = {}
        self._cached: dict[int, int] = {}
        self._completion: dict[int, int] = {}
        self._drawn = [0] * ask.choices
        self.is_done = False
        """Whether the server said that this was all."""

    @property
    def partial(self) -> str:
        """The text of the first choice until now."""
        return "".join(self._texts)

    def take(self, data: bytes) -> list[Piece]:
        """Read a message. Raises BadReply, or the error that it is."""
        if data == b"[DONE]":
            self.is_done = True
            return []
        match _json(data):
            case {"error": {} as error}:
                raise faults.of_error(error, self._ask)
            case {"choices": list(choices)} as message:
                told = self._progress(message)
                pieces = [piece for choice in choices for piece in self._choice(choice)]
                self._count(message, [c.get("index", 0) for c in choices])
                return [*told, *pieces]
            case {"code": int(), "message": str()} as error:
                raise faults.of_error(error, self._ask)
        raise BadReply(f"the server sent what is no piece of a reply: {_shown(data)}")

    def usage(self) -> Usage:
        """Return the tokens used until now, as counted here until the server tells."""
        counted = [self._completion.get(i, n) for i, n in enumerate(self._drawn)]
        return Usage(
            prompt_tokens=max(self._prompt.values(), default=0),
            cached_tokens=min(self._cached.values(), default=0),
            completion_tokens=sum(counted),
            estimated=len(self._completion) < self._ask.choices,
        )

    def finish(self) -> Finish | None:
        """Return the end, if all choices have ended."""
        if len(self._reasons) < self._ask.choices:
            return None
        first, *others = (self._reasons[index] for index in range(self._ask.choices))
        return Finish(first, self.usage(), others=tuple(others))

    def _progress(self, message: Mapping[str, Any]) -> list[Piece]:
        match message.get("prompt_progress"):
            case {"total": int(total), "processed": int(done)}:
                self._prompt.setdefault(0, total)
                return [Progress("prompt", max(0, done), max(0, total))]
        return []

    def _choice(self, choice: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        match choice:
            case {"index": int(index)} if 0 <= index < self._ask.choices:
                pass
            case _:
                raise BadReply(
                    f"the server sent a choice that nobody asked for: {str(choice)[:200]}"
                )
        delta = choice.get("delta")
        parts = delta if isinstance(delta, dict) else {"content": choice.get("text")}
        piece = Delta(
            _words(parts.get("content")),
            index,
            self._logprobs(choice.get("logprobs")),
            _words(parts.get("reasoning_content")),
            tuple(_calls(parts.get("tool_calls"))),
        )
        if piece:
            self._drawn[index] += len(piece.logprobs) or 1
            if index == 0:
                self._texts.append(piece.text)
            yield piece
        if reason := choice.get("finish_reason"):
            self._reasons[index] = _REASONS.get(str(reason), FinishReason.UNKNOWN)

    def _logprobs(self, told: object) -> tuple[TokenLogprob, ...]:
        if self._ask.top is None or told is None:
            return ()
        match told:
            case {"content": list(tokens)}:
                return tuple(_logprob(token, self._ask.top) for token in tokens)
        raise BadReply("the server sent log-probabilities that cannot be read")

    def _count(self, message: Mapping[str, Any], indexes: list[int]) -> None:
        """Take the figures of a choice; in a message without choices, of the one that ended."""
        usage = message.get("usage") or {}
        match usage:
            case {"prompt_tokens": int(prompt), "completion_tokens": int(completion)}:
                pass
            case _:
                return
        index = indexes[0] if indexes else self._uncounted()
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens", 0) if isinstance(details, dict) else 0
        self._prompt[index], self._completion[index] = prompt, completion
        self._cached[index] = min(prompt, cached if isinstance(cached, int) else 0)

    def _uncounted(self) -> int:
        """Return the choice that figures without a choice are of: one that has ended."""
        left = [index for index in self._reasons if index not in self._completion]
        return left[0] if left else 0


def _json(data: bytes) -> Any:  # noqa: ANN401 - a stranger's JSON
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # not UTF-8 is a ValueError too
        raise BadReply(f"the server sent what is no JSON: {_shown(data)}") from None


def _words(value: object) -> str:
    """Return a text that may be missing."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReply(f"the server sent {type(value).__name__} where a text belongs")
    return value


def _calls(value: object) -> Iterator[CallDelta]:
    for call in value if isinstance(value, list) else ():
        match call:
            case {"index": int(index), "function": dict(function)} if index >= 0:
                yield CallDelta(
                    index,
                    _words(call.get("id")),
                    _words(function.get("name")),
                    _words(function.get("arguments")),
                )
            case _:
                raise BadReply("the server sent a call of a tool that cannot be read")


def _logprob(token: Any, top: int) -> TokenLogprob:  # noqa: ANN401 - a stranger's JSON
    """Read a token with its neighbours.

    What ends in a stop string is cut short where it came, and whole among its neighbours.
    """
    match token:
        case {"token": str(), "logprob": int() | float(), "top_logprobs": list(neighbours)}:
            pass
        case _:
            raise BadReply("the server sent a log-probability that cannot be read")
    likely = [_alone(each) for each in neighbours]
    number = token.get("id")
    whole = [
        read
        for read, each in zip(likely, neighbours, strict=True)
        if number is not None and isinstance(each, dict) and each.get("id") == number
    ]
    own = whole[0] if whole else _alone(token)
    return TokenLogprob(own.token, own.data, own.logprob, tuple(likely[:top]))


def _alone(token: Any) -> TokenLogprob:  # noqa: ANN401 - a stranger's JSON
    match token:
        case {"token": str(text), "logprob": int() | float() as logprob}:
            data = token.get("bytes")
            try:
                read = bytes(data) if isinstance(data, list) else text.encode()
            except (TypeError, ValueError):
                raise BadReply("the server sent bytes of a token that cannot be read") from None
            return TokenLogprob(read.decode(errors="replace"), read, min(0.0, float(logprob)))
    raise BadReply("the server sent a log-probability that cannot be read")


def _shown(data: bytes) -> str:
    return repr(data[:_SHOWN_CHARS].decode(errors="replace"))
