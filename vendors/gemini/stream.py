"""From Gemini's answers to pieces of a reply, streamed and whole. Pure.

Both come as the same messages: a whole answer is one, a stream is many, and a stream that was not
asked for as events is a JSON array of them. Calls of tools come whole. A reply is whole only when
every candidate said why it ended; nothing marks the end of a stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Any

import attrs

from llmdispatcher.models.errors import AuthRejected, BadReply, ContentRefused, VendorError
from llmdispatcher.models.message import Keepsake
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    TokenLogprob,
    Usage,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.gemini import keepsakes
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.reading import MAX_COUNT, fields, items, shown, tally, words

BYTES_PER_TOKEN = 4
"""Of text, about; where Gemini does not tell what was used."""

_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "ESCALATION",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "IMAGE_OTHER",
        ),
        FinishReason.CONTENT_FILTER,
    ),
}

_FAILURES: Mapping[str, type[VendorError]] = {
    "MALFORMED_FUNCTION_CALL": BadReply,
    "UNEXPECTED_TOOL_CALL": BadReply,
    "TOO_MANY_TOOL_CALLS": BadReply,
    "MISSING_THOUGHT_SIGNATURE": BadReply,
    "MALFORMED_RESPONSE": BadReply,
    "PUP_LIMITED_DISABLED": AuthRejected,
}
"""Ends that are no end of a reply. The last is of an account that was limited."""

_SILENT = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Parts of a turn that are nothing to show and that Gemini wants back."""

_COUNTS = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)


@attrs.define
class _Candidate:
    """One choice, as far as it has come."""

    chars: int = 0
    """Of its text."""
    calls: int = 0
    reason: FinishReason | None = None


class GeminiReplies:
    """Reads the answer to one request for a reply; see ``wire.exchange.Replies``."""

    def __init__(self, request: Request) -> None:
        self.is_done = False
        self._request = request
        self._made = sum(len(message.tool_calls) for message in request.messages)
        """Ids that are made here count on from the calls of the conversation, so that none is there
        already."""
        self._candidates = [_Candidate() for _ in range(request.n)]
        self._bytes = 0
        """Of what was drawn, as long as Gemini does not tell."""
        self._counts: dict[str, int] = {}
        self._request_id = ""
        self._model = ""

    def take(self, event: str, message: Any) -> list[Piece]:  # noqa: ANN401, ARG002 - see Replies
        """Read one message of a stream. Raises BadReply, or what the message stands for."""
        messages = message if isinstance(message, list) else [message]
        return [piece for each in messages for piece in self._message(each)]

    def whole(self, message: Any) -> list[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer that came in one: one message, or an array of them."""
        pieces = self.take("", message)
        self.is_done = True
        return pieces

    def finish(self) -> Finish | None:
        """Return the end, once every candidate said why it ended."""
        reasons = [each.reason for each in self._candidates if each.reason is not None]
        if len(reasons) < len(self._candidates):
            return None
        return Finish(
            reasons[0],
            self.usage(),
            others=tuple(reasons[1:]),
            request_id=self._request_id,
            served_model=self._model,
        )

    def usage(self) -> Usage:
        """Return what was used, as Gemini tells it: thoughts are no part of its candidates."""
        prompt, of_tools, cached, drawn, thought = (self._counts.get(name, 0) for name in _COUNTS)
        estimated = bool(self._bytes) and not drawn and not thought
        if estimated:
            drawn = -(-self._bytes // BYTES_PER_TOKEN)
        if not self._counts:
            prompt = -(-self._request.text_bytes // BYTES_PER_TOKEN)
        prompt = min(prompt + of_tools, MAX_COUNT)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=min(drawn + thought, MAX_COUNT),
            cached_tokens=min(cached, prompt),
            reasoning_tokens=thought,
            estimated=estimated or not self._counts,
        )

    # -- messages ------------------------------------------------------------------------------

    def _message(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        if not isinstance(message, dict):
            raise BadReply(f"the vendor sent what is no piece of a reply: {shown(message)}")
        if message.get("error"):
            raise faults.of_message(message)
        self._note(message)
        candidates = items(message.get("candidates"))
        blocked = fields(message.get("promptFeedback"))
        if not candidates and (reason := blocked.get("blockReason")):
            told = words(blocked.get("blockReasonMessage")) or "Gemini's filter refused the prompt"
            raise ContentRefused(f"{told} ({shown(reason)})")
        for place, candidate in enumerate(candidates):
            if piece := self._candidate(place, candidate):
                yield piece

    def _note(self, message: Mapping[str, Any]) -> None:
        """Keep the figures, which grow from message to message, and the names."""
        told = fields(message.get("usageMetadata"))
        for name in _COUNTS:
            if name in told:
                self._counts[name] = max(self._counts.get(name, 0), tally(told[name]))
        self._request_id = _name(message.get("responseId")) or self._request_id
        self._model = _name(message.get("modelVersion")) or self._model

    def _candidate(self, place: int, told: object) -> Delta | None:
        """Read what a message tells of a candidate; one without a number is known by its place."""
        candidate = fields(told)
        index = candidate.get("index", place)
        if isinstance(index, bool) or not isinstance(index, int):
            index = -1
        if not isinstance(told, dict) or not 0 <= index < len(self._candidates):
            raise BadReply(f"the vendor sent a candidate that nobody asked for: {shown(told)}")
        state = self._candidates[index]
        turn = _Turn(state, self._made)
        for part in items(fields(candidate.get("content")).get("parts")):
            turn.add(part)
        logprobs = self._logprobs(candidate.get("logprobsResult"))
        if not self._counts.get("candidatesTokenCount"):
            self._bytes += turn.bytes
        if reason := words(candidate.get("finishReason")):
            state.reason = _reason(reason, candidate, state)
        return turn.delta(index, logprobs) or None

    def _logprobs(self, told: object) -> tuple[TokenLogprob, ...]:
        k = self._request.logprobs
        if k is None or told is None:
            return ()
        result = fields(told)
        tops = (fields(top).get("candidates") for top in items(result.get("topCandidates")))
        places = zip(items(result.get("chosenCandidates")), chain(tops, repeat(None)), strict=False)
        return tuple(
            _logprob(chosen, tuple(_logprob(each) for each in items(top)[:k]))
            for chosen, top in places
        )


class _Turn:
    """What one message adds to one candidate."""

    def __init__(self, state: _Candidate, made: int) -> None:
        self._state = state
        self._made = made
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[CallDelta] = []
        self._kept: list[Keepsake] = []

    @property
    def bytes(self) -> int:
        """Size of what was drawn."""
        calls = [call.name + call.arguments for call in self._calls]
        drawn = "".join([*self._texts, *self._thoughts, *calls])
        return len(drawn.encode(errors="surrogatepass"))

    def delta(self, index: int, logprobs: tuple[TokenLogprob, ...]) -> Delta:
        """Return it as a piece."""
        return Delta(
            "".join(self._texts),
            index,
            logprobs,
            "".join(self._thoughts),
            tuple(self._calls),
            tuple(self._kept),
        )

    def add(self, part: Any) -> None:  # noqa: ANN401 - a stranger's JSON
        """Read a part; of unknown kinds, keep what is signed, which Gemini wants back."""
        if not isinstance(part, dict):
            raise BadReply(f"the vendor sent a part that cannot be read: {shown(part)}")
        text, signature = words(part.get("text")), words(part.get("thoughtSignature"))
        if "functionCall" in part:
            self._add_call(fields(part["functionCall"]), signature)
        elif part.get("thought") is True:
            self._thoughts.append(text)
            if signature:
                self._kept.append(keepsakes.of_part(part, self._state.chars))
        elif text or not part.keys() - {"text", "thoughtSignature"}:
            start = self._state.chars
            self._texts.append(text)
            self._state.chars += len(text)
            if signature:
                self._kept.append(keepsakes.of_text(start, self._state.chars, signature))
        elif signature or any(name in part for name in _SILENT):
            self._kept.append(keepsakes.of_part(part, self._state.chars))

    def _add_call(self, function: Mapping[str, Any], signature: str) -> None:
        index, name = self._state.calls, words(function.get("name"), "the name of a tool")
        call_id = words(function.get("id"), "the id of a call") or f"call_{self._made + index}"
        if not name:
            raise BadReply("the vendor sent a call of a tool without a name")
        self._calls.append(CallDelta(index, call_id, name, _arguments(function.get("args"))))
        self._state.calls += 1
        if signature:
            self._kept.append(keepsakes.of_call(call_id, signature))


def _name(value: object) -> str:
    """Return a name that a reply can do without."""
    return words(value) if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    """Return the JSON text of the arguments. Raises BadReply for what is no object."""
    if not isinstance(value, dict | None):
        raise BadReply("the vendor sent a call whose arguments are no object")
    try:
        return json.dumps(value or {}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise BadReply("the vendor sent a call whose arguments are no JSON") from None


def _reason(told: str, candidate: Mapping[str, Any], state: _Candidate) -> FinishReason:
    """Return why a candidate ended. Raises what the end stands for, where it is a failure."""
    if failure := _FAILURES.get(told):
        detail = words(candidate.get("finishMessage"))
        raise failure(f"the reply ended with {told}{': ' if detail else ''}{detail[:200]}")
    reason = _REASONS.get(told, FinishReason.UNKNOWN)
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and state.calls else reason


def _logprob(told: object, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    """Read a token; a probability of 1, whose logarithm is 0, goes without saying."""
    token = words(fields(told).get("token"), "a token")
    value = fields(told).get("logProbability", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadReply("the vendor sent log-probabilities that cannot be read")
    data = token.encode(errors="surrogatepass")
    return TokenLogprob(token, data, min(0.0, float(value)), top)
