"""What is known of models by their names: sizes, abilities, and what a family refuses.

The vendors that speak this dialect tell little of their models: OpenAI's own list has names alone.
So there is a table, of patterns of names. A name that no row fits gets one that assumes nothing.
Nothing here decides whether a rule is enforced: hosts that serve models under these names take
other requests than OpenAI does.
"""

from __future__ import annotations

import functools
import re
from enum import Enum

import attrs

from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.models.request import Request

NONE = "none"
"""The word for not thinking at all; ``EFFORTS`` are the words for thinking."""

MAX_CACHED = 1024
"""Names whose rows are remembered."""


class When(Enum):
    """When a model takes what changes how tokens are drawn."""

    ALWAYS = "always"
    RESTING = "resting"
    """Only while it does not think."""
    NEVER = "never"


class Endpoint(Enum):
    """Which endpoint serves a model."""

    EITHER = "either"
    TOOLS = "tools"
    """Chat completions refuse tools while it thinks, and the effort "max"."""
    RESPONSES = "responses"
    """Chat completions do not have it."""


@attrs.frozen(kw_only=True)
class Known:
    """What is known of a model. None is "not known"."""

    context_tokens: int | None = None
    """Of prompt and reply together."""
    max_output_tokens: int | None = None
    """Thoughts included."""
    capabilities: frozenset[Capability] = frozenset()
    """Beyond what every model of the host can do."""
    lacks: frozenset[Capability] = frozenset()
    """What the host's other models can do and this one cannot."""
    efforts: tuple[str, ...] = ()
    """The words of ``EFFORTS`` that it takes, in order; empty where it takes none."""
    default_effort: str | None = None
    """Where the request says nothing."""
    thinks: bool = False
    can_rest: bool = False
    """It takes the effort ``NONE``."""
    sampling: When = When.ALWAYS
    """Temperature, top_p and log-probabilities."""
    takes_penalties: bool = True
    takes_stop: bool = True
    endpoint: Endpoint = Endpoint.EITHER
    wants_developer_role: bool = False
    """For what the system says."""
    streams: bool = True
    """It can be asked for its reply in pieces."""
    is_known: bool = True

    def capable(self, defaults: frozenset[Capability]) -> frozenset[Capability]:
        """Return what it can do at a host whose models can do ``defaults``."""
        return (defaults | self.capabilities) - self.lacks

    def takes_sampling(self, effort: str | None) -> bool:
        """Whether it takes a temperature other than 1, or top_p, at this effort."""
        if self.sampling is When.RESTING:
            return (effort or self.default_effort) == NONE
        return self.sampling is When.ALWAYS

    def takes_logprobs(self, effort: str | None) -> bool:
        """Whether it tells log-probabilities at this effort: where it can be sampled."""
        return self.takes_sampling(effort)

    def needs_responses(self, has_tools: bool, effort: str | None) -> bool:  # noqa: FBT001 - read as a fact of the request
        """Whether OpenAI serves such a request at the responses endpoint alone.

        An effort that is not told counts as thinking, whatever the default is said to be: it
        changed between models, and only the word "none" is safe.
        """
        if self.endpoint is Endpoint.TOOLS:
            return effort == "max" or (has_tools and effort != NONE)
        return self.endpoint is Endpoint.RESPONSES

    def refused(self, request: Request, effort: str | None) -> tuple[str, ...]:
        """Return the fields of the request's sampling that it refuses at this effort."""
        given = request.sampling.given()
        names = []
        if not self.takes_sampling(effort):
            names += [name for name in ("temperature", "top_p") if given.get(name, 1) != 1]
        if not self.takes_penalties:
            penalties = ("presence_penalty", "frequency_penalty")
            names += [name for name in penalties if given.get(name, 0) != 0]
        return tuple(names)

    def effort(self, request: Request) -> str | None:
        """Return the word for how hard to think; None leaves it to the vendor.

        Of the words that it does not know the nearest stands, of two as near the lesser. Raises
        Unsupported where the request wants a model to think, or not to, that does otherwise.
        """
        if request.effort is not None:
            return self._nearest(request.effort)
        if request.reasoning is None:
            return NONE if self._must_rest(request) else None
        if not self.is_known:
            return "medium" if request.reasoning else NONE
        return self._thinking() if request.reasoning else self._resting()

    def _nearest(self, word: str) -> str:
        if not self.is_known:
            return word
        if not self.efforts:
            raise Unsupported("effort", "this model takes no effort: leave it out")
        place = EFFORTS.index(word)
        return min(self.efforts, key=lambda each: abs(EFFORTS.index(each) - place))

    def _must_rest(self, request: Request) -> bool:
        """It rests by default, and what is asked for holds only then: better to say so."""
        given = request.sampling
        asked = (request.logprobs, given.temperature, given.top_p) != (None, None, None)
        return asked and self.sampling is When.RESTING and self.default_effort == NONE

    def _thinking(self) -> str | None:
        if not self.thinks:
            raise Unsupported("reasoning", "this model does not think: leave reasoning out")
        return self._nearest("medium") if self.default_effort == NONE else None

    def _resting(self) -> str | None:
        if self.can_rest:
            return NONE
        if self.thinks:
            least = f": effort={self.efforts[0]!r} has it think the least" if self.efforts else ""
            raise Unsupported("reasoning", f"this model always thinks{least}")
        return None


@functools.lru_cache(MAX_CACHED)
def of(model: str) -> Known:
    """Return what is known of a model by its name.

    Of a name with a provider in front (``openai/gpt-5-mini``) the last part counts, of one with a
    variant behind (``gpt-oss:20b``) the first, and of a tuned model the one that it was made from.
    """
    name = model.lower().removeprefix("ft:").rpartition("/")[2].partition(":")[0]
    return next((row for pattern, row in _COMPILED if pattern.match(name)), UNKNOWN)


UNKNOWN = Known(is_known=False)
"""The row that assumes nothing."""

_SEES, _EFFORT = frozenset({Capability.VISION}), frozenset({Capability.EFFORT})
_LOGPROBS = frozenset({Capability.LOGPROBS})
_UP_TO_HIGH = ("low", "medium", "high")
_UP_TO_XHIGH = (*_UP_TO_HIGH, "xhigh")
_UP_TO_MAX = (*_UP_TO_XHIGH, "max")
_ONLY_RESPONSES = frozenset({Capability.CHOICES, Capability.COMPLETION})
"""What a model that only the responses endpoint has cannot do."""

_TALKS = Known(capabilities=_SEES | _LOGPROBS)
"""OpenAI's models that do not think."""
_THINKS = Known(
    capabilities=_SEES | _EFFORT,
    lacks=_LOGPROBS,
    thinks=True,
    sampling=When.NEVER,
    takes_penalties=False,
    takes_stop=False,
    wants_developer_role=True,
)
"""OpenAI's models that always think."""
_RESTS = attrs.evolve(
    _THINKS,
    capabilities=_SEES | _EFFORT | _LOGPROBS,
    lacks=frozenset(),
    can_rest=True,
    sampling=When.RESTING,
)
"""OpenAI's models that can be told not to think."""
_ALONE = attrs.evolve(_THINKS, endpoint=Endpoint.RESPONSES, lacks=_LOGPROBS | _ONLY_RESPONSES)

_GPT_6 = attrs.evolve(
    _THINKS,
    context_tokens=1_050_000,
    max_output_tokens=128_000,
    efforts=_UP_TO_MAX,
    default_effort="medium",
    endpoint=Endpoint.TOOLS,
)
_GPT_5_6 = attrs.evolve(
    _RESTS,
    context_tokens=1_050_000,
    max_output_tokens=128_000,
    efforts=_UP_TO_MAX,
    default_effort="medium",
    endpoint=Endpoint.TOOLS,
)
_GPT_5_5 = attrs.evolve(_GPT_5_6, efforts=_UP_TO_XHIGH)
_GPT_5_4 = attrs.evolve(_GPT_5_5, default_effort=NONE)
_GPT_5_2 = attrs.evolve(_GPT_5_4, context_tokens=400_000, endpoint=Endpoint.EITHER)
_GPT_5 = attrs.evolve(
    _THINKS,
    context_tokens=400_000,
    max_output_tokens=128_000,
    efforts=("minimal", *_UP_TO_HIGH),
    default_effort="medium",
)
_CODEX = attrs.evolve(
    _ALONE,
    context_tokens=400_000,
    max_output_tokens=128_000,
    efforts=_UP_TO_HIGH,
    default_effort="medium",
)
_CODEX_RESTS = attrs.evolve(
    _RESTS,
    lacks=_ONLY_RESPONSES,
    context_tokens=400_000,
    max_output_tokens=128_000,
    efforts=_UP_TO_XHIGH,
    default_effort="medium",
    endpoint=Endpoint.RESPONSES,
)
_PRO = attrs.evolve(
    _CODEX, context_tokens=1_050_000, efforts=("medium", "high", "xhigh"), default_effort=None
)
_CHAT_LATEST = attrs.evolve(
    _THINKS, capabilities=_SEES, context_tokens=128_000, max_output_tokens=16_384
)
"""They think as they like, and take no word about it."""
_O = attrs.evolve(
    _THINKS,
    context_tokens=200_000,
    max_output_tokens=100_000,
    efforts=_UP_TO_HIGH,
    default_effort="medium",
)
_O_ALONE = attrs.evolve(_O, endpoint=Endpoint.RESPONSES, lacks=_ALONE.lacks)
_GPT_4O = attrs.evolve(_TALKS, context_tokens=128_000, max_output_tokens=16_384)
_SEARCH = attrs.evolve(
    _GPT_4O,
    capabilities=frozenset(),
    lacks=frozenset({Capability.TOOLS, Capability.CHOICES}) | _LOGPROBS,
    sampling=When.NEVER,
    takes_penalties=False,
    takes_stop=False,
)
_OLD = attrs.evolve(_TALKS, capabilities=_LOGPROBS, max_output_tokens=4096)

_OSS = Known(
    context_tokens=131_072,
    capabilities=_EFFORT,
    efforts=_UP_TO_HIGH,
    default_effort="medium",
    thinks=True,
)
_DEEPSEEK = Known(
    context_tokens=1_000_000,
    max_output_tokens=393_216,
    capabilities=_EFFORT,
    efforts=_UP_TO_MAX,
    default_effort="high",
    thinks=True,
    can_rest=True,
)
_MISTRAL = Known(
    context_tokens=262_144,
    capabilities=_SEES | _EFFORT,
    efforts=("high",),
    default_effort=NONE,
    thinks=True,
    can_rest=True,
)
_EMBEDS = Known(
    context_tokens=8192,
    capabilities=frozenset({Capability.EMBED}),
    lacks=frozenset(Capability) - {Capability.EMBED},
    sampling=When.NEVER,
)
_NO_WORDS = Known(lacks=frozenset(Capability), sampling=When.NEVER)
"""Pictures, speech and the like, which this dialect does not do."""

_ROWS: tuple[tuple[str, Known], ...] = (
    # OpenAI. Sizes and efforts: the vendor's model pages and LiteLLM 1.109.1's table of models,
    # which gives the prompt's part of the context by itself.
    (r"gpt-(image|realtime|live|transcribe|\S*-transcribe|\S*-tts|\S*-realtime)", _NO_WORDS),
    (r"(whisper|tts|dall-e|sora|omni-moderation|chatgpt-image)", _NO_WORDS),
    (r"text-embedding-(3-small|3-large|ada-002)", attrs.evolve(_EMBEDS, context_tokens=8191)),
    (r"gpt-6-(sol|luna)", attrs.evolve(_GPT_5_6, efforts=_UP_TO_MAX)),
    (r"gpt-6(\.\d+)?", _GPT_6),
    (r"gpt-daybreak-(red|blue)", _CODEX),
    (r"gpt-5\.2-pro", attrs.evolve(_PRO, context_tokens=400_000)),
    (r"gpt-5\.[4-9]-pro", _PRO),
    (r"gpt-5\.[1-9]-chat", _CHAT_LATEST),
    (r"gpt-5\.3-codex", _CODEX_RESTS),
    (r"gpt-5\.(1-codex-max|2-codex)", attrs.evolve(_CODEX, efforts=_UP_TO_XHIGH)),
    (r"gpt-5(\.1)?-codex", _CODEX),
    (r"gpt-5\.[6-9]", _GPT_5_6),
    (r"gpt-5\.5", _GPT_5_5),
    (r"gpt-5\.4-(mini|nano)", attrs.evolve(_GPT_5_4, context_tokens=400_000)),
    (r"gpt-5\.4", _GPT_5_4),
    (r"gpt-5\.2", _GPT_5_2),
    (r"gpt-5\.1", attrs.evolve(_GPT_5_2, efforts=_UP_TO_HIGH)),
    (
        r"gpt-5-pro",
        attrs.evolve(
            _PRO,
            context_tokens=400_000,
            max_output_tokens=272_000,
            efforts=("high",),
            default_effort="high",
            streams=False,
        ),
    ),
    (r"gpt-5-chat", _GPT_4O),
    (r"gpt-5-search-api", attrs.evolve(_SEARCH, context_tokens=400_000, max_output_tokens=128_000)),
    (r"gpt-5", _GPT_5),
    (r"o1-pro", attrs.evolve(_O_ALONE, streams=False)),
    (r"o[34](-mini)?-(pro|deep-research)", _O_ALONE),
    (r"o3-mini", attrs.evolve(_O, capabilities=_EFFORT, takes_stop=True)),
    (r"o1", attrs.evolve(_O, takes_stop=True)),
    (r"o[34]", _O),
    (r"gpt-4\.1", attrs.evolve(_TALKS, context_tokens=1_047_576, max_output_tokens=32_768)),
    (r"gpt-4o(-mini)?-search", _SEARCH),
    (r"(gpt-4o|chatgpt-4o)", _GPT_4O),
    (r"gpt-4-turbo", attrs.evolve(_TALKS, context_tokens=128_000, max_output_tokens=4096)),
    (r"gpt-4-(1106|0125)", attrs.evolve(_OLD, context_tokens=128_000)),
    (r"gpt-4", attrs.evolve(_OLD, context_tokens=8192)),
    (r"gpt-3\.5-turbo-instruct", attrs.evolve(_OLD, context_tokens=4096)),
    (r"gpt-3\.5-turbo", attrs.evolve(_OLD, context_tokens=16_385)),
    # Open weights and the other vendors of this dialect: the same table, the lesser where hosts
    # differ. How much a reply may hold is the host's to say.
    (r"gpt-oss", _OSS),
    (
        r"deepseek-(v4(\.\d+)?-)?flash",
        attrs.evolve(_DEEPSEEK, capabilities=_SEES | _EFFORT),
    ),
    (r"deepseek-v4(\.\d+)?", _DEEPSEEK),
    (r"(mistral|codestral)-embed", _EMBEDS),
    (r"mistral-(ocr|moderation)", _NO_WORDS),
    (r"voxtral-(mini-transcribe|mini-realtime|mini-tts)", _NO_WORDS),
    (r"mistral-large-4", attrs.evolve(_MISTRAL, context_tokens=1_048_576)),
    (r"mistral-large", Known(context_tokens=262_144, capabilities=_SEES)),
    (r"mistral-(medium|small)", _MISTRAL),
    (r"magistral-(medium|small)", _MISTRAL),
    (r"ministral-(3-)?3b", Known(context_tokens=131_072, capabilities=_SEES)),
    (r"ministral", Known(context_tokens=262_144, capabilities=_SEES)),
    (r"pixtral", Known(context_tokens=128_000, capabilities=_SEES)),
    (r"codestral-mamba", Known(context_tokens=256_000, lacks=frozenset({Capability.TOOLS}))),
    (r"(codestral|mistral-code|open-mistral-nemo)", Known(context_tokens=128_000)),
    (r"devstral", Known(context_tokens=256_000)),
)

_COMPILED = tuple((re.compile(f"(?:{pattern})(?:-|$)"), row) for pattern, row in _ROWS)
"""What follows a pattern is a date or a variant."""
