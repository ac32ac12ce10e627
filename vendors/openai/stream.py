"""From the messages of a reply to its pieces, whichever host sent them. Pure.

Streamed and whole replies, conversations and raw prompts are read by the same code: a choice has a
``delta``, a ``message`` or a ``text``. Hosts differ in what they add and leave out, which is met
without asking who it is. What is an error, wherever it stands, is raised as what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply, Overloaded
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    Usage,
)
from llmdispatcher.vendors.openai.calls import Calls
from llmdispatcher.vendors.openai.figures import Figures
from llmdispatcher.vendors.openai.kept import Kept
from llmdispatcher.vendors.openai.tokens import logprobs
from llmdispatcher.vendors.openai.ways import Ways
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.reading import fields, items, shown, tally, words

_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,  # Together
    "end_turn": FinishReason.STOP,  # gateways to Anthropic
    "repetition": FinishReason.STOP,  # vLLM
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,  # Mistral: the end of the context
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}

_NO_ROOM = {"abort", "insufficient_system_resource"}
"""vLLM and DeepSeek: the host gave up for reasons of its own."""


@attrs.frozen(kw_only=True)
class Expected:
    """What a request asked for, as far as its reply is read by it."""

    choices: int = 1
    top: int | None = None
    """How many of the likeliest tokens to tell; None tells of no tokens at all."""
    prefill: str = ""
    """With what the reply's text begins, and what is not to be told."""
    prompt_bytes: int = 0
    raw: bool = False
    """The model's words come as they are, and nothing is read into them."""


class _Choice:
    """One choice while it comes."""

    __slots__ = ("calls", "has_refused", "held", "kept", "prefill", "reason")

    def __init__(self, prefill: str, keepsake: str) -> None:
        self.prefill, self.held = prefill, ""
        self.calls = Calls()
        self.kept = Kept(keepsake)
        self.has_refused = False
        self.reason: FinishReason | None = None

    def fresh(self, text: str) -> str:
        """Return what of a text is new, once it is known whether it repeats the prefill."""
        if not self.prefill:
            return text
        self.held += text
        if len(self.held) < len(self.prefill) and self.prefill.startswith(self.held):
            return ""
        return self.rest().removeprefix(self._given())

    def rest(self) -> str:
        """Return what was held back."""
        text, self.held = self.held, ""
        return text

    def _given(self) -> str:
        given, self.prefill = self.prefill, ""
        return given

    def end(self, reason: FinishReason) -> None:
        """Keep why it ended, as all vendors mean it."""
        if self.has_refused and reason is FinishReason.STOP:
            reason = FinishReason.CONTENT_FILTER
        elif self.calls and reason in {FinishReason.STOP, FinishReason.UNKNOWN}:
            reason = FinishReason.TOOL_CALLS
        elif not self.calls and reason is FinishReason.TOOL_CALLS:
            reason = FinishReason.STOP
        self.reason = reason


_COMMON = frozenset({"id", "object", "created", "model", "choices", "system_fingerprint", "usage"})
_OF_CHOICE = frozenset({"index", "delta", "finish_reason", "logprobs"})
"""What a message, and a choice in it, may have beside its text that says nothing new."""


class ChatReplies:
    """Reads the replies to one request. See ``Replies`` in ``vendors.wire.exchange``."""

    def __init__(self, ways: Ways, expected: Expected) -> None:
        self.is_done = False
        self._ways, self._expected = ways, expected
        self._choices = [_Choice(expected.prefill, ways.keepsake) for _ in range(expected.choices)]
        self._figures = Figures(
            expected.prompt_bytes,
            choices=expected.choices if ways.usage_per_choice else 1,
            charges=ways.charges,
            piece_is_token=ways.piece_is_token,
        )
        self._request_id = self._model = ""
        self._is_told_last = False
        """Usage was told when all choices had ended."""

    def take(self, event: str, message: Any) -> Iterable[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read one message of a stream."""
        text = None if event else self.plain(message)
        if text is None:
            return self._take(event, message)
        return (self.again(text),) if text else ()

    def plain(self, message: Any) -> str | None:  # noqa: ANN401 - as above
        """See ``Repeating.plain``. Almost all messages are."""
        if not self._request_id or type(message) is not dict or not message.keys() <= _COMMON:
            return None
        choices = message.get("choices")
        if type(choices) is not list or len(choices) != 1 or message.get("usage") is not None:
            return None
        choice, own = choices[0], self._choices[0]
        if type(choice) is not dict or not choice.keys() <= _OF_CHOICE or own.prefill or own.held:
            return None
        delta, ends = choice.get("delta"), choice.get("finish_reason") or choice.get("logprobs")
        if ends or type(delta) is not dict or len(delta) != 1 or choice.get("index") != 0:
            return None
        text = delta.get("content")
        return words(text) if type(text) is str else None

    def again(self, text: str) -> Delta:
        """See ``Repeating.again``."""
        self._figures.count(text, 0)
        return Delta(text)

    def _take(self, event: str, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - as above
        if event == "error":
            raise faults.of_message(message, self._ways.habits)
        told = self._message(message)
        if isinstance(told.get("choices"), list):
            yield from self._read(told, whole=False)

    def whole(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer that came in one."""
        told = self._message(message)
        if not isinstance(told.get("choices"), list):
            raise BadReply(f"the vendor sent what is no reply: {shown(message)}")
        yield from self._read(told, whole=True)

    def finish(self) -> Finish | None:
        """Return the end, once every choice said why it ended."""
        reasons = [choice.reason for choice in self._choices if choice.reason is not None]
        if len(reasons) < len(self._choices):
            return None
        return Finish(
            reasons[0],
            self.usage(),
            others=tuple(reasons[1:]),
            request_id=self._request_id,
            served_model=self._model,
        )

    def usage(self) -> Usage:
        """Return the tokens until now."""
        return self._figures.usage()

    def doubt(self) -> bool:
        """See ``Proving.doubt``.

        The tokens that are told prove that each was read if there are as many as pieces, and no
        token ever makes two. Of hosts that send a piece for each token (``piece_is_token``) this is
        known of llama-server alone, and there of raw prompts alone: the parser of its conversations
        holds text back and may send the rest of a token at the end, as a piece of its own, which
        would stand in for one that is missing. vLLM puts several tokens into a piece, and most
        servers count the end token, of which no piece comes: where the numbers differ, for whatever
        reason, nothing is proved.
        """
        expected = self._expected
        return self._ways.piece_is_token and expected.raw and expected.choices == 1

    def is_proved(self) -> bool:
        """See ``Proving.is_proved``."""
        return self._is_told_last and self._figures.is_counted()

    # -- messages ------------------------------------------------------------------------------

    def _message(self, message: object) -> Mapping[str, Any]:
        """Return a message that is no error. Raises what it stands for where it is one."""
        if not isinstance(message, dict):
            if isinstance(message, list) and any(fields(each).get("error") for each in message):
                raise faults.of_message(message, self._ways.habits)
            raise BadReply(f"the vendor sent what is no piece of a reply: {shown(message)}")
        if message.get("error") or ("choices" not in message and _is_flat_error(message)):
            raise faults.of_message(message, self._ways.habits)
        return message

    def _read(self, message: Mapping[str, Any], *, whole: bool) -> Iterator[Piece]:
        self._figures.begin()
        if not self._model and isinstance(model := message.get("model"), str):
            self._model = words(model)
        if not self._request_id and isinstance(name := message.get("id"), str):
            self._request_id = words(name)
        if usage := message.get("usage"):
            self._figures.take(usage, whole=whole)
        if "x_groq" in message:
            self._groq(fields(message["x_groq"]))
        if "prompt_progress" in message:
            told = fields(message["prompt_progress"])
            self._figures.begin(tally(told.get("total")))
            yield from _progress(told)
        for place, choice in enumerate(message["choices"]):
            yield from self._choice(fields(choice), place if whole else 0, whole=whole)
        if usage:
            self._is_told_last = all(choice.reason is not None for choice in self._choices)

    def _groq(self, told: Mapping[str, Any]) -> None:
        if error := told.get("error"):
            raise faults.of_message({"error": error}, self._ways.habits)
        if isinstance(name := told.get("id"), str):
            self._request_id = words(name)
        self._figures.take(told.get("usage"))

    # -- choices -------------------------------------------------------------------------------

    def _choice(self, told: Mapping[str, Any], place: int, *, whole: bool) -> Iterator[Piece]:
        if error := told.get("error"):
            raise faults.of_message({"error": error}, self._ways.habits)
        number = told.get("index")
        number = place if number is None else number
        if type(number) is not int or not 0 <= number < len(self._choices):
            raise BadReply(f"the vendor sent a choice that nobody asked for: {shown(told)}")
        choice = self._choices[number]
        reason = _reason(told.get("finish_reason"))
        piece = self._piece(told, choice, number, whole=whole)
        if reason is not None:
            piece = _ended(piece, choice)
            choice.end(reason)
        if piece:
            thoughts = piece.text + piece.reasoning
            self._figures.count(thoughts, len(piece.logprobs))
            yield piece

    def _piece(
        self, told: Mapping[str, Any], choice: _Choice, number: int, *, whole: bool
    ) -> Delta:
        part = told.get("delta") or told.get("message")
        part = part if isinstance(part, dict) else {"content": told.get("text")}
        text, thoughts = _content(part.get("content"))
        if refusal := part.get("refusal"):
            choice.has_refused = True
            text += words(refusal)
        calls: tuple[CallDelta, ...] = ()
        if pieces := part.get("tool_calls"):
            calls = tuple(choice.calls.take(pieces, whole=whole))
        elif call := part.get("function_call"):
            calls = tuple(choice.calls.take([{"index": 0, "function": call}], whole=whole))
        if self._ways.keepsake:
            choice.kept.add(part.get(self._ways.keepsake))
        top, tokens = self._expected.top, told.get("logprobs")
        return Delta(
            choice.fresh(text),
            number,
            logprobs(tokens, top, text, told.get("top_logprobs")) if top is not None else (),
            thoughts or _thoughts(part),
            calls,
        )


def _ended(piece: Delta, choice: _Choice) -> Delta:
    """Add what only the end of a choice shows to be whole."""
    rest, calls, kept = choice.rest(), (*choice.calls.end(),), choice.kept.take()
    if not (rest or calls or kept):
        return piece
    return attrs.evolve(
        piece, text=piece.text + rest, tool_calls=(*piece.tool_calls, *calls), keepsakes=kept
    )


def _reason(told: object) -> FinishReason | None:
    """Return why a choice ended, if it did. Raises the error of one that failed."""
    if told is None or told == "":
        return None
    if not isinstance(told, str):
        return FinishReason.UNKNOWN
    if told in _NO_ROOM:
        raise Overloaded(f"the vendor gave up on the reply: {told}")
    if told == "error":
        raise BadReply("the vendor failed in the middle of the reply")
    return _REASONS.get(told, FinishReason.UNKNOWN)


def _content(told: object) -> tuple[str, str]:
    """Return text and thoughts: of a string, or of a list of parts, of which others are ignored."""
    if not isinstance(told, list):
        return words(told), ""
    text: list[str] = []
    thoughts: list[str] = []
    for part in told:
        match part:
            case {"type": "text", "text": str(piece)}:
                text.append(piece)
            case {"type": "thinking", "thinking": str(piece)}:
                thoughts.append(piece)
            case {"type": "thinking", "thinking": list(parts)}:
                found = [fields(each).get("text") for each in parts]
                thoughts += [each for each in found if isinstance(each, str)]
    return words("".join(text)), words("".join(thoughts))


def _thoughts(part: Mapping[str, Any]) -> str:
    """Return thoughts by one of the two names that hosts have for them; some send both."""
    for name in ("reasoning_content", "reasoning"):
        if (told := part.get(name)) and isinstance(told, str):
            return words(told)
    return ""


def _progress(told: Mapping[str, Any]) -> Iterator[Piece]:
    """Yield how much of the prompt llama-server has read."""
    total = tally(told.get("total"))
    if total:
        yield Progress("prompt", min(total, tally(told.get("processed"))), total)


def _is_flat_error(message: Mapping[str, Any]) -> bool:
    """Whether a message that is no reply is an error by its own fields."""
    if message.get("object") == "error" or message.get("type") == "error":
        return True
    is_coded = isinstance(message.get("message"), str) and "code" in message
    return is_coded or bool(items(message.get("detail")))
