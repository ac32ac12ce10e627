"""What a caller asks for: the prompt, sampling, deadlines, and the rest of a request.

All values are frozen and validated once, when they are made. A value outside its range raises
``BadRequest``, which names the field, shows the value and says what is allowed. ``None`` always
means "the vendor's own default": a field that is None is not sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypedDict, Unpack

import attrs

from llmdispatcher.models.check import (
    at_most,
    count,
    dollars,
    flag,
    instance,
    integer,
    nearest,
    number,
    one_of,
    strings,
    title,
    words,
)
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.fields import (
    MAX_ADAPTERS,
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_STOPS,
    MAX_TAGS,
    MAX_TOOLS,
    RESUMES,
    TEXT,
    TOOL_CHOICES,
    known_effort,
    read_adapters,
    read_format,
    read_messages,
    read_prefill,
    read_resume,
    read_sampling,
    read_stops,
    read_tags,
    read_tool_choice,
    read_tools,
)
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import Message
from llmdispatcher.models.plan import Plan
from llmdispatcher.models.sampling import FIELDS, MAX_SEED, UNSET, Sampling
from llmdispatcher.models.strategy import Strategy, read_strategy
from llmdispatcher.models.task import Task, read_task


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long each phase of a request may take, in seconds; None is no limit.

    ``first_token_s`` and ``idle_s`` bound *silence*: they start again whenever the vendor shows
    progress (a token, a piece of the prompt read, a place gained in its queue). ``load_s`` counts
    only the loading of a model, and no other limit counts that time.
    """

    connect_s: float | None = number("connect_s", 0, math.inf, default=5.0)
    first_token_s: float | None = number("first_token_s", 0, math.inf, default=60.0)
    idle_s: float | None = number("idle_s", 0, math.inf, default=30.0)
    total_s: float | None = number("total_s", 0, math.inf)
    load_s: float | None = number("load_s", 0, math.inf, default=300.0)
    floor_pieces_per_s: float | None = number("floor_pieces_per_s", 0, 1e6)
    """How many pieces of a stream must come in a second, over ``idle_s``: one that crawls counts as
    silent. Most vendors send a token in a piece."""
    whole_s: float | None = number("whole_s", 0, math.inf, default=600.0)
    """For a reply that a vendor sends in one, of which nothing is heard while it is made."""


@attrs.frozen(kw_only=True)
class Request:
    """One request: a conversation (``messages``) or a raw completion (``prompt``), never both.

    ``prompt`` goes to the model as it is, without a chat template. ``max_tokens`` left out means
    the rest of the context on a local model. ``vendor`` and ``model`` restrict who may answer.
    Only a model whose card lists the capability is asked for what not all can do: ``n`` above 1,
    ``logprobs``, a ``prefill``, tools, a shape of the reply and the like.
    """

    messages: tuple[Message, ...] = attrs.field(converter=read_messages, default=())
    prompt: str | None = attrs.field(default=None, validator=attrs.validators.optional(words))
    max_tokens: int | None = integer("max_tokens", 1, 2**31 - 1)
    stop: tuple[str, ...] = attrs.field(
        converter=read_stops, validator=[at_most(MAX_STOPS, "strings"), strings], default=()
    )
    sampling: Sampling = attrs.field(
        default=UNSET,
        converter=read_sampling,
        validator=instance(Sampling, "Sampling(temperature=0)"),
    )
    tools: tuple[ToolSpec, ...] = attrs.field(
        converter=read_tools,
        default=(),
        validator=at_most(MAX_TOOLS, "tools"),
    )
    tool_choice: str = attrs.field(default="auto", converter=read_tool_choice, validator=title)
    """"auto" lets the model decide, "none" forbids calls, "required" demands at least one, and the
    name of a tool demands a call of that one."""
    parallel_tools: bool = flag(default=True)
    """Whether one reply may hold several calls."""
    response_format: ResponseFormat = attrs.field(
        default=TEXT,
        converter=read_format,
        validator=instance(ResponseFormat, "ResponseFormat('json')"),
    )
    vendor: str | None = None
    model: str | None = None
    allow_cloud: bool = flag(default=True)
    deadlines: Deadlines | None = attrs.field(
        default=None, validator=instance(Deadlines, "Deadlines(total_s=30)")
    )
    n: int = count("n", 1, MAX_CHOICES, default=1)
    """How many replies, called choices, are drawn from the same prompt, each of ``max_tokens``.
    With a seed, choice i, from 0, is drawn with seed + i; at temperature 0 all are alike."""
    logprobs: int | None = integer("logprobs", 0, MAX_LOGPROBS)
    """k: tell the log-probability of every token of the reply, and those of the k likeliest at its
    place. None tells none."""
    prefill: str = attrs.field(default="", converter=read_prefill, validator=words)
    """How the reply begins: the model continues exactly there, and the reply's text does not repeat
    it. Goes with ``messages``; a raw ``prompt`` ends with it instead. A form (``schema``, a
    grammar) holds for what comes behind it."""
    suffix: str = attrs.field(default="", converter=read_prefill, validator=words)
    """What follows the reply: the model fills in what is between the ``prompt`` and this. Only a
    model that was trained for it can."""
    reasoning: bool | None = attrs.field(
        default=None, validator=attrs.validators.optional(instance(bool, "True or False"))
    )
    """Whether the model thinks before it answers, where its template leaves that open. None leaves
    it to the model."""
    effort: str | None = attrs.field(default=None, validator=known_effort)
    """How hard it thinks: one of ``EFFORTS``. Only a model that takes such a word is asked; of the
    words that it does not know the nearest stands for it."""
    adapters: tuple[tuple[str, float], ...] = attrs.field(
        converter=read_adapters, validator=at_most(MAX_ADAPTERS, "adapters"), default=()
    )
    """LoRA adapters to apply: names that the vendor was given, with their scales."""
    priority: int = count("priority", -100, 100, default=0)
    """Of the requests that wait for the same model, the higher is served first; none waits for
    ever."""
    tags: tuple[str, ...] = attrs.field(
        converter=read_tags, validator=[at_most(MAX_TAGS, "tags"), strings], default=()
    )
    """Names under which the ledger counts what the request cost, and caps may hold."""
    max_cost_usd: Decimal | None = attrs.field(default=None, converter=dollars)
    """What all attempts at the request may cost together, at worst, in dollars; one that may cost
    more is not sent. None is no limit."""
    resume: str = attrs.field(default="fail", converter=read_resume, validator=one_of(*RESUMES))
    """What becomes of a stream that breaks when a part of it was shown: "fail" raises
    StreamInterrupted; "continue" has another vendor go on exactly there, within what is left of
    ``max_tokens``, if it can take the text so far as a prefill; "restart" continues where that can
    be done, and else begins anew, which a ``Delta`` with ``restarts`` says, and the event
    ``Restarted``."""
    streamed: bool = flag(default=True)
    """Pieces are wanted as they come. The dispatcher sets it: where only the whole is wanted, as by
    ``send``, a vendor may send the reply in one."""
    strategy: Strategy | None = attrs.field(default=None, converter=read_strategy)
    """How to choose who answers; None leaves it to the dispatcher."""
    task: Task | None = attrs.field(default=None, converter=attrs.converters.optional(read_task))
    """What kind of work this is, where the caller knows; see ``models.task``."""
    cached: bool = flag(default=True)
    """Whether a reply that was kept of such a request will do, where the dispatcher has a cache.
    False has it made anew, and kept instead."""
    once: str = attrs.field(default="", validator=words, eq=False, repr=False)
    """Names the request to a vendor that does one only once. The dispatcher sets it."""

    def __attrs_post_init__(self) -> None:
        """Exactly one of the two kinds of prompt, and fields that go together."""
        if bool(self.messages) == (self.prompt is not None):
            raise BadRequest(
                "Request",
                {"messages": len(self.messages), "prompt": self.prompt},
                "made with either messages or a prompt",
            )
        if self.prefill and self.prompt is not None:
            raise BadRequest(
                "prefill", self.prefill, "appended to the prompt: a prompt has no prefill"
            )
        if self.suffix and self.prompt is None:
            raise BadRequest("suffix", self.suffix, "given with a prompt: messages have no suffix")
        if self.reasoning is not None and self.prompt is not None:
            allowed = "given with messages: a raw prompt has no template to switch"
            raise BadRequest("reasoning", self.reasoning, allowed)
        if self.effort is not None and (self.prompt is not None or self.reasoning is False):
            allowed = "given with messages, and not with reasoning=False"
            raise BadRequest("effort", self.effort, allowed)
        self._check_tools()
        seed, last = self.sampling.seed, MAX_SEED - self.n + 1
        if seed is not None and seed > last:
            raise BadRequest("seed", seed, f"at most {last} with n={self.n}: each choice takes one")

    def _check_tools(self) -> None:
        """A choice that can be made, of tools that can be told apart."""
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise BadRequest("tools", names, "tools of different names")
        if names and self.prompt is not None:
            raise BadRequest("tools", names, "given with messages: a raw prompt has no tools")
        wanted = {"auto", "none"} if not names else {*TOOL_CHOICES, *names}
        if self.tool_choice not in wanted:
            allowed = f"one of {', '.join(sorted(wanted))}"
            raise BadRequest("tool_choice", self.tool_choice, allowed)

    @property
    def text_bytes(self) -> int:
        """Size of all text in the prompt and the prefill, in UTF-8 bytes."""
        texts = [self.prompt] if self.prompt is not None else [m.text for m in self.messages]
        texts += [self.prefill, self.suffix]
        return sum(len(text.encode(errors="surrogatepass")) for text in texts)

    @classmethod
    def of(cls, prompt: Prompt, **options: Unpack[Options]) -> Request:
        """Build a request from what ``send`` and ``stream`` take.

        ``prompt`` is text, a message, a sequence of messages, or a request, of which the options
        given replace fields. Raises BadRequest for a value out of range and TypeError for an
        option that does not exist.
        """
        if unknown := set(options) - Options.__optional_keys__:
            raise TypeError(_unknown_option(min(unknown)))
        given: dict[str, Any] = dict(options)
        drawn = {name: given.pop(name) for name in FIELDS if name in given}
        if (schema := given.pop("schema", None)) is not None:
            if given.get("response_format") is not None:
                raise BadRequest("schema", schema, "given without a response_format")
            given["response_format"] = ResponseFormat.of(schema)
        base = prompt if isinstance(prompt, Request) else cls(messages=prompt)
        if drawn:
            given["sampling"] = attrs.evolve(base.sampling, **drawn)
        return attrs.evolve(base, **given) if given else base

    def within(self, deadlines: Deadlines, *, streamed: bool = True, once: str = "") -> Request:
        """Return a copy with other deadlines. What was validated once is not looked at again."""
        is_told = self.deadlines is deadlines and self.streamed is streamed
        if is_told and self.max_cost_usd is None and self.once == once:
            return self
        made = self._copy()
        _PUT["deadlines"](made, deadlines)
        _PUT["streamed"](made, streamed)
        _PUT["once"](made, once)
        _PUT["max_cost_usd"](made, None)  # the dispatcher's own, and no engine's
        return made

    def saying(self, prompt: str) -> Request:
        """Return a copy that says something else, and nothing more: one message of the user's."""
        made = self._copy()
        _PUT["messages"](made, (Message.of(prompt),))
        return made

    def _copy(self) -> Request:
        """Copy what was validated; ``copy`` goes through pickle's ways, which take far longer."""
        made = object.__new__(Request)
        for get, put in _SLOTS:
            put(made, get(self))
        return made


_PUT = {field.name: getattr(Request, field.name).__set__ for field in attrs.fields(Request)}
_SLOTS = tuple(
    (getattr(Request, field.name).__get__, _PUT[field.name]) for field in attrs.fields(Request)
)
"""How each field is read and set, past what makes a request frozen."""


def _unknown_option(name: str) -> str:
    hint = _MEANT.get(name) or nearest(name, Options.__optional_keys__)
    return f"unknown option {name!r}; {hint}"


_MEANT = {
    "timeout": "for limits of time give deadlines=Deadlines(total_s=…)",
    "system": "put a system(…) message first in the messages",
    "top_logprobs": "logprobs=k tells the k likeliest tokens too",
    "reasoning_effort": "effort='low' says how hard the model thinks",
    "max_completion_tokens": "max_tokens=… bounds the reply, thoughts included",
}
"""What people try that has another name here."""


Prompt = str | Message | Sequence[Message | Mapping[str, Any]] | Request
"""What a caller may hand to ``send`` and ``stream``."""


class Options(TypedDict, total=False):
    """Keyword options of ``send`` and ``stream``: the fields of Request and of Sampling.

    ``schema`` is short for ``response_format=ResponseFormat.of(schema)``.
    """

    max_tokens: int | None
    stop: str | Sequence[str] | None
    tools: Sequence[ToolSpec | Mapping[str, Any]] | None
    tool_choice: str | None
    parallel_tools: bool
    response_format: ResponseFormat | None
    schema: type | Mapping[str, Any] | None
    vendor: str | None
    model: str | None
    allow_cloud: bool
    deadlines: Deadlines | None
    n: int | None
    logprobs: int | None
    prefill: str | None
    suffix: str | None
    reasoning: bool | None
    effort: str | None
    tags: str | Sequence[str] | None
    max_cost_usd: Decimal | float | str | None
    resume: str | None
    adapters: Mapping[str, float] | Sequence[str] | None
    priority: int | None
    strategy: Strategy | Plan | str | None
    task: Task | str | None
    cached: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    xtc_probability: float | None
    xtc_threshold: float | None
    seed: int | None
