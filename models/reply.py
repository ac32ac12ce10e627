"""What comes back: pieces of a reply, the whole reply, what it used, and how it was decided."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import attrs

from llmdispatcher.models.check import whole
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.embedding import Score, Vector
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.message import Keepsake, Message, Role, ToolCall

MAX_COUNT = 2**63 - 1
"""Of tokens and micro-dollars: as databases keep them."""

MICRO_PER_USD = 1_000_000
"""All money is kept in integer micro-dollars."""


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model was done, or a stop string came."""
    LENGTH = "length"
    """``max_tokens`` or the end of the context was reached."""
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"
    """The vendor gave a reason that has no counterpart here."""


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens that one attempt used; ``estimated`` where the vendor did not say.

    ``cached_tokens`` and ``cache_write_tokens`` are parts of ``prompt_tokens``, and
    ``reasoning_tokens`` is a part of ``completion_tokens``, whatever the vendor's own convention.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    charged_microusd: int | None = None
    """What the vendor says that it charged, rounded up; most do not say, which is None."""

    def __attrs_post_init__(self) -> None:
        """Counts, and no more than a count can be; all at once, since each request makes many."""
        counts = (
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
            0 if self.charged_microusd is None else self.charged_microusd,
        )
        for count in counts:
            if type(count) is not int or not 0 <= count <= MAX_COUNT:
                for name, each in zip(_COUNTS, counts, strict=True):
                    whole(name, 0, MAX_COUNT)(self, None, each)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        """Sum two usages; the sum is estimated if either is."""
        return Usage(
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=_sum(self.completion_tokens, other.completion_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            estimated=self.estimated or other.estimated,
            charged_microusd=_both(self.charged_microusd, other.charged_microusd),
        )


_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "charged_microusd",
)


def _both(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else _sum(one, other)


def _sum(one: int, other: int) -> int:
    """Add what a stranger may have told: no more than a count can be."""
    return min(one + other, MAX_COUNT)


@attrs.frozen
class TokenLogprob:
    """A token at its place in a reply, and how likely it was there."""

    token: str
    """Its text, with U+FFFD for bytes that are no UTF-8 by themselves: a character can be spread
    over several tokens."""
    data: bytes
    """Its bytes, exactly. Joined, they are the text in UTF-8, with the stop string if one came."""
    logprob: float
    """Natural logarithm of its probability in the model's own distribution, before sampling
    changes it; at most 0."""
    top: tuple[TokenLogprob, ...] = ()
    """The likeliest tokens at this place, likeliest first, as many as were asked for. Those have
    none themselves."""


@attrs.frozen
class CallDelta:
    """A piece of a tool call. The first of a call tells its id and name, all tell more arguments.

    Joined, the arguments of a call are its JSON text.
    """

    index: int
    """Which of the reply's calls this is a piece of, counted from 0."""
    id: str = ""
    name: str = ""
    arguments: str = ""


@attrs.frozen
class Delta:
    """A piece of one choice of a reply as it streams. ``text`` never ends inside a character.

    ``text`` can be empty where log-probabilities were asked for: those are told at once, while
    text that may be the beginning of a stop string is held back.
    """

    text: str
    index: int = 0
    """Which of the request's ``n`` choices this is a piece of, counted from 0."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens drawn since the last delta of this choice, if the request asks for them."""
    reasoning: str = ""
    """What the model thinks before it answers, which is no part of the text."""
    tool_calls: tuple[CallDelta, ...] = ()
    keepsakes: tuple[Keepsake, ...] = ()
    restarts: bool = False
    """The reply begins anew: what came before counts no more. Only where ``resume`` was asked."""

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(
            self.text
            or self.logprobs
            or self.reasoning
            or self.tool_calls
            or self.keepsakes
            or self.restarts
        )


@attrs.frozen
class Progress:
    """A sign of life before the next piece: queued behind others, or reading the prompt."""

    phase: str
    """``"queued"`` or ``"prompt"``."""
    done: int
    """Prompt tokens read so far; for a queue, 0."""
    total: int
    """Prompt tokens in all; for a queue, how many requests are in front."""


@attrs.frozen
class Finish:
    """The end of a reply, all choices: why it ended and what it used.

    A reply without one was cut.
    """

    reason: FinishReason
    """Why the first choice ended."""
    usage: Usage
    """Of all choices together; a prompt that they share is counted once."""
    warnings: tuple[str, ...] = ()
    others: tuple[FinishReason, ...] = ()
    """Why each of the choices after the first ended, in their order."""
    request_id: str = ""
    """The vendor's own name for the request, which its support asks for."""
    served_model: str = ""
    """The model that served, as the vendor names it, where it tells: an alias stands for one."""


Piece = Delta | Vector | Score | Progress | Finish
"""What a vendor delivers while it serves a request, ending with exactly one Finish."""


class Outcome(StrEnum):
    """How one attempt ended."""

    SERVED = "served"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The caller stopped it."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One try of one vendor, whatever became of it."""

    vendor: str
    model: str
    outcome: Outcome
    usage: Usage
    cost_microusd: int | None
    """None where the price is not known."""
    latency_s: float
    """From asking to the end, without loading and waiting: ``load_s`` and ``waited_s``."""
    first_token_s: float | None = None
    """From asking to the first piece, without them as well."""
    load_s: float = 0.0
    """Time this attempt waited for the model to load."""
    waited_s: float = 0.0
    """Time it waited for its turn under limits, and for its worst case to be set aside."""
    error: str = ""
    """Class and message of the error that ended it, if one did."""
    request_id: str = ""
    """The vendor's own name for the request, where it told."""
    served_model: str = ""
    """The model that served, as the vendor names it, where it told."""


@attrs.frozen
class Choice:
    """One of the replies that were drawn from the same prompt."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of every token drawn, if the request asks for them; also of those of a stop string, which is
    not in ``text``."""
    reasoning: str = ""
    """What the model thought before it answered."""
    tool_calls: tuple[ToolCall, ...] = ()
    keepsakes: tuple[Keepsake, ...] = ()
    """What the vendor wants back with this turn; ``Reply.message`` brings it."""
    parsed: Any = None
    """The JSON of a reply that was to be JSON: as the class that was asked for, else as dicts,
    lists, text and numbers. None also where the reply was cut at ``max_tokens``."""


def _only_choice(reply: Reply) -> tuple[Choice, ...]:
    return (Choice(reply.text, reply.finish_reason),)


def _begins_with_its_reply(reply: Reply, _: object, value: tuple[Choice, ...]) -> None:
    first = [(choice.text, choice.finish_reason) for choice in value[:1]]
    if first != [(reply.text, reply.finish_reason)]:
        raise BadRequest("choices", value, "begun with the reply's own text and finish_reason")


@attrs.frozen(kw_only=True)
class Reply:
    """A whole reply and its account."""

    text: str
    """Of the first choice."""
    finish_reason: FinishReason
    """Of the first choice."""
    usage: Usage
    """Of all choices together, as the vendor that served counts it: of the last attempt alone, also
    where that went on with what another had begun. ``decision.attempts`` has the usage of each."""
    vendor: str
    model: str
    cost_microusd: int | None
    """What this reply cost, all attempts included; None where a price is not known."""
    latency_s: float
    """Of all attempts together, without loading and without waiting for a turn; see ``Attempt``."""
    first_token_s: float | None
    """From asking the vendor that served to its first piece; None if there was none."""
    decision: Decision
    warnings: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = attrs.field(
        default=attrs.Factory(_only_choice, takes_self=True), validator=_begins_with_its_reply
    )
    """All choices, the first included: as many as the request's ``n``."""

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of every token of the first choice; empty unless the request asks for them."""
        return self.choices[0].logprobs

    @property
    def reasoning(self) -> str:
        """What the model thought before the first choice."""
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the first choice."""
        return self.choices[0].tool_calls

    @property
    def parsed(self) -> Any:  # noqa: ANN401 - whatever was asked for
        """The JSON of the first choice; see ``Choice.parsed``."""
        return self.choices[0].parsed

    @property
    def message(self) -> Message:
        """The first choice as a turn, to go on with: text, reasoning and tool calls."""
        return Message(
            Role.ASSISTANT,
            self.text,
            self.tool_calls,
            reasoning=self.reasoning,
            keepsakes=self.choices[0].keepsakes,
        )

    @property
    def is_cached(self) -> bool:
        """Whether it was kept from an earlier request: ``usage`` is what it took then."""
        return self.decision.cached_s is not None

    @property
    def cost_usd(self) -> Decimal | None:
        """``cost_microusd`` in dollars."""
        if self.cost_microusd is None:
            return None
        return Decimal(self.cost_microusd) / MICRO_PER_USD

    def __str__(self) -> str:
        """Return the text, so that ``print(reply)`` shows it."""
        return self.text


@attrs.frozen(kw_only=True)
class Saved:
    """A conversation's decoded state in a file."""

    vendor: str
    model: str
    tokens: int
    """How many tokens of the conversation need not be read again."""
    size_bytes: int
    """Of the file."""
