"""Reads what Ollama answers to a request for a reply: a line at a time, or whole. Pure.

Both endpoints and both ways have one shape: a piece, or all, of text, thoughts and calls of tools,
and, with ``done``, why it ended and what it used. Calls come whole. ``usage`` counts pieces until
the end tells figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    TokenLogprob,
    Usage,
)
from llmdispatcher.vendors.ollama import faults
from llmdispatcher.vendors.wire.reading import items, tally, words

BYTES_PER_TOKEN = 4
"""To estimate by, where nothing is told."""

_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_IDLE = {"load", "unload"}


class OllamaReplies:
    """Reads one reply. See ``Replies``.

    ``top`` is how many of the likeliest tokens were asked for, None for no log-probabilities;
    ``prompt_bytes`` is the size of the prompt, to estimate by.
    """

    def __init__(self, *, top: int | None = None, prompt_bytes: int = 0) -> None:
        self.is_done = False
        self._top = top
        self._prompt_tokens = -(-prompt_bytes // BYTES_PER_TOKEN)
        self._pieces = 0
        self._size = 0
        """Of what was written, in characters."""
        self._calls = 0
        self._is_logged = False
        """Log-probabilities were told."""
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._served_model = ""

    def take(self, event: str, message: Any) -> Iterator[Piece]:  # noqa: ANN401, ARG002 - a stranger's JSON; lines have no names
        """Read a line. Raises BadReply, or what an error stands for."""
        yield from self._read(faults.check(message))

    def whole(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer that came in one; one without ``done`` was cut."""
        yield from self._read(faults.check(message))

    def finish(self) -> Finish | None:
        """Return the end, once it came with a reason."""
        if self._reason is None:
            return None
        reason, warnings = self._reason, tuple[str, ...]()
        if self._calls and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS  # Ollama says "stop" of those too
        if self._top is not None and self._pieces and not self._is_logged:
            warnings = ("no log-probabilities came: Ollama tells them from 0.12.11 on",)
        return Finish(reason, self.usage(), warnings, served_model=self._served_model)

    def usage(self) -> Usage:
        """Return the figures of the end; before it, an estimate."""
        if self._usage is not None:
            return self._usage
        return self._counted({})

    def _read(self, message: dict[str, Any]) -> Iterator[Piece]:
        if self.is_done:
            return
        parts = message.get("message")
        if not isinstance(parts, dict):
            parts = {**message, "content": message.get("response")}
        delta = Delta(
            words(parts.get("content")),
            0,
            self._logprobs(message.get("logprobs")),
            words(parts.get("thinking")),
            tuple(self._called(items(parts.get("tool_calls")))),
        )
        if delta:
            self._pieces += len(delta.logprobs) or 1
            self._size += len(delta.text) + len(delta.reasoning)
            self._size += sum(len(call.arguments) for call in delta.tool_calls)
            yield delta
        if message.get("done") is True:
            self._end(message)

    def _end(self, message: dict[str, Any]) -> None:
        told = message.get("done_reason")
        reason = told if isinstance(told, str) else ""
        if reason in _IDLE:
            raise BadReply(f"Ollama did nothing but {reason} the model")
        self.is_done = True
        self._usage = self._counted(message)
        served = message.get("remote_model") or message.get("model")
        self._served_model = words(served) if isinstance(served, str) else ""
        if reason:  # none: whoever wrote has gone
            self._reason = _REASONS.get(reason, FinishReason.UNKNOWN)

    def _counted(self, message: dict[str, Any]) -> Usage:
        """Take the figures; what is not told is estimated, as 0 is never told."""
        prompt, written = tally(message.get("prompt_eval_count")), tally(message.get("eval_count"))
        is_short = not prompt or (self._pieces > 0 and not written)
        estimate = max(self._pieces, -(-self._size // BYTES_PER_TOKEN))
        return Usage(
            prompt_tokens=prompt or self._prompt_tokens,
            completion_tokens=written or estimate,
            estimated=is_short or not message,
        )

    def _called(self, calls: list[Any]) -> Iterator[CallDelta]:
        """Read calls; those of all lines are counted on, whatever their own index says."""
        for call in calls:
            match call:
                case {"function": {"name": str(name)} as function} if name:
                    index, own = self._calls, call.get("id")
                    self._calls += 1
                    yield CallDelta(
                        index,
                        words(own) if isinstance(own, str) and own else f"call_{index}",
                        words(name),
                        _arguments(function.get("arguments")),
                    )
                case _:
                    raise BadReply("Ollama sent a call of a tool that cannot be read")

    def _logprobs(self, told: object) -> tuple[TokenLogprob, ...]:
        if self._top is None:
            return ()
        read = tuple(_logprob(each, self._top) for each in items(told))
        self._is_logged = self._is_logged or bool(read)
        return read


def _arguments(value: object) -> str:
    """Return the arguments of a call as JSON text. Raises BadReply."""
    if isinstance(value, str):
        return words(value) or "{}"
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise BadReply("Ollama sent arguments of a call that are no object")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise BadReply("Ollama sent arguments of a call that are no JSON") from None
    return words(text)


def _logprob(token: Any, top: int) -> TokenLogprob:  # noqa: ANN401 - a stranger's JSON
    match token:
        case {"token": str(text), "logprob": int() | float() as number}:
            likely = items(token.get("top_logprobs"))[:top]
            return TokenLogprob(
                *_bytes(text, token.get("bytes")),
                _log(number),
                tuple(_logprob(each, 0) for each in likely),
            )
    raise BadReply("Ollama sent a log-probability that cannot be read")


def _log(number: float) -> float:
    """Return a log-probability: at most 0, and a number."""
    try:
        value = float(number)
    except OverflowError:
        value = math.nan
    if math.isnan(value):
        raise BadReply("Ollama sent a log-probability that is no number")
    return min(0.0, value)


def _bytes(text: str, told: object) -> tuple[str, bytes]:
    """Return a token's text and its bytes, which say more where they are told."""
    try:
        data = bytes(told) if isinstance(told, list) else words(text).encode()
    except (TypeError, ValueError):
        raise BadReply("Ollama sent bytes of a token that cannot be read") from None
    return data.decode(errors="replace"), data
