"""How a host of the chat-completions dialect differs from others, as data.

``Ways`` has a field for every difference, and its defaults are those of a host of which nothing is
known but that it speaks the dialect. The rows of the known hosts are in ``rows``. Nothing here
decides anything: whoever encodes or reads looks the difference up.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs

from llmdispatcher.models.fields import EFFORTS, MAX_CHOICES
from llmdispatcher.vendors.wire.faults import Habits

ALIKE = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
"""The fields of ``Sampling`` that the OpenAI API has, under the same names."""


class Choosing(Enum):
    """How a tool may be demanded."""

    ALL = "all"
    """With the words, and with an object that names one."""
    WORDS = "words"
    """With the words alone: of a tool that is named, only that one is sent, and demanded."""
    NEVER = "never"


class Pictures(Enum):
    """How a picture may be given."""

    ANY = "any"
    DATA = "data"
    """Only its bytes: the host fetches nothing."""
    NEVER = "never"


class JsonMode(Enum):
    """How a reply in JSON of any form is asked for."""

    OBJECT = "object"
    SCHEMA = "schema"
    """As a schema, ``Ways.any_json``."""
    NEVER = "never"


class Logprobs(Enum):
    """How log-probabilities are asked for."""

    FLAG = "flag"
    """``logprobs`` is true, and ``top_logprobs`` says how many."""
    NUMBER = "number"
    """``logprobs`` says how many."""
    NEVER = "never"


class Prices(Enum):
    """What the numbers in a list's ``pricing`` are."""

    NONE = "none"
    PER_TOKEN = "per token"  # noqa: S105 - of language
    """Dollars a token, as text."""
    PER_MILLION = "per million"
    """Dollars per million tokens."""


@attrs.frozen(kw_only=True)
class Thinking:
    """How a host is told to think, or not to."""

    by_model: bool = False
    """The words for the effort say it all, also "none": which of them a model takes is known of
    the model (``known``)."""
    on: Mapping[str, Any] | None = None
    """Fields that switch it on; None: there is no such switch."""
    off: Mapping[str, Any] | None = None
    effort: tuple[str, ...] = ()
    """Where the word for the effort goes, from the outside in; empty where none is taken."""
    words: tuple[str, ...] = EFFORTS
    """The words that the host takes."""
    by_default: bool = False
    """Models think where nothing is said."""
    forbids_demands: bool = False
    """While they think, no call of a tool can be demanded."""


@attrs.frozen(kw_only=True)
class Prefill:
    """How a host is told to continue a reply, whose beginning is the last message."""

    body: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of the request."""
    message: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of that message."""
    endpoint: str = ""
    """Where to ask instead, if it is another place."""
    repeats: bool = False
    """The reply's text begins with what was given."""
    repeats_whole: bool = False
    """That of a reply that comes in one does; streams begin behind it."""


@attrs.frozen(kw_only=True)
class Place:
    """Where something is asked for, beside the replies."""

    path: str
    at_root: bool = False
    """Behind the server's root, not behind the base address."""


@attrs.frozen(kw_only=True)
class Ways:
    """How a host speaks."""

    # -- where --
    route: str = "{endpoint}"
    """Path of a model's endpoint: takes ``endpoint``, ``model`` and ``version``."""
    plain_route: str = "{endpoint}"
    """The same for what belongs to no model."""
    api_version: str = ""
    """What ``version`` stands for."""
    raw: str = ""
    """Endpoint for raw prompts; empty where there is none."""
    infill: str = ""
    """Endpoint for a prompt with a suffix."""
    embeddings: str = "/embeddings"
    rerank: str = ""
    tells_loaded: bool = False
    """Its list says which models are in memory."""
    listing: Place | None = attrs.field(factory=lambda: Place(path="/models"))
    probe: Place = attrs.field(factory=lambda: Place(path="/models"))
    loading: Place | None = None
    """What answers when the model is loaded; the path takes ``model``. A GET."""
    loads_by_chat: bool = False
    """Asking for a reply of one token loads a model, where it is not loaded yet."""
    count_chat: Place | None = None
    """Counts the tokens of a conversation."""
    count_raw: Place | None = None
    """Counts the tokens of a raw prompt, or takes it apart."""
    responses: bool = False
    """Has the responses endpoint, and refuses here what only that one serves."""

    # -- what a request holds --
    always: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of every request for a reply."""
    of_models: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Fields of those to models whose names fit a pattern (as file names do); each that fits."""
    insists: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields that have a host refuse what it would leave out without a word; sent where there is
    more to a request than messages."""
    max_tokens: str = "max_tokens"
    """The field that bounds a reply of a conversation. For raw prompts it is ``max_tokens``."""
    stream_options: Mapping[str, Any] | None = attrs.field(factory=lambda: {"include_usage": True})
    """What asks for the usage of a stream; None where it comes by itself or never."""
    sampling: Mapping[str, str] = attrs.field(factory=lambda: {name: name for name in ALIKE})
    """The host's names of the fields of ``Sampling`` that it takes."""
    refuses_by_model: bool = False
    """Enforces what is known of a model: thinking models take no temperature, and so on."""
    max_stops: int | None = None
    max_choices: int = MAX_CHOICES
    logprobs: Logprobs = Logprobs.FLAG
    raw_logprobs: str = "logprobs"
    """The field of a request with a raw prompt that says how many."""
    least_logprobs: int = 0
    """The least number that can be asked for; what is too much is left out when it is read."""
    logprobs_beside_tools: bool = True
    choosing: Choosing = Choosing.ALL
    parallel: bool = True
    """Takes ``parallel_tool_calls``."""
    says_parallel: bool = False
    """Sends it also where several calls are allowed, which is not this host's default."""
    json: JsonMode = JsonMode.OBJECT
    any_json: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object"})
    """The schema that stands for JSON of any form, where it takes a schema to ask for that."""
    schema: bool = True
    """Takes a JSON schema for the reply."""
    strict_by_rules: bool = True
    """``strict`` holds for a schema of certain rules only, and is an error for others; else it
    holds for all."""
    grammar: tuple[str, ...] = ()
    """Where a grammar goes, from the outside in; empty where none is taken."""
    raw_schema: str = ""
    """Where a schema goes beside a raw prompt: ``"response_format"`` as in a conversation, another
    field as it is; empty where none is taken."""
    streams_forms: bool = True
    """A reply of a certain form can be streamed; else it is asked for whole."""
    streams_choices: bool = True
    """Several choices can be streamed; else they are asked for whole."""
    thinking: Thinking = attrs.field(factory=lambda: Thinking(effort=("reasoning_effort",)))
    thoughts: str = ""
    """The field of an assistant's message that takes its thoughts back: empty where none does,
    ``"content"`` for parts of the content."""
    thoughts_always: bool = False
    """Every assistant's message must have that field."""
    keepsake: str = ""
    """The field of a message whose content comes back with its turn."""
    developer_role: bool = False
    """Thinking models take the system's words from the developer."""
    joins_texts: bool = True
    """Several texts of one message go as one; else as a list, which the host puts together."""
    pictures: Pictures = Pictures.ANY
    prefill: Prefill | None = None
    numbered_calls: bool = False
    """Calls that are given back have an ``index``."""
    short_ids: bool = False
    """Ids of calls have nine letters or digits."""
    priority: bool = False
    """Takes a ``priority``, of which the lower is served first: ours is negated. Where none is
    taken, the order is the host's own."""
    keep_alive: str = ""
    """The field for how many seconds a model stays loaded behind the request."""
    usage_per_choice: bool = False
    """Each choice has its own usage, to be added up."""
    piece_is_token: bool = False
    """Streams every token as a piece of its own, which is counted until the usage comes."""
    charges: bool = False
    """Usage tells the ``cost``, in dollars."""

    # -- texts --
    max_texts: int = 128
    """Texts, or documents, of one request."""
    packed_vectors: bool = False
    """Sends vectors as base64 where asked."""
    normalize: Mapping[bool, Mapping[str, Any]] = attrs.field(factory=dict)
    """Fields that ask for vectors of length 1, or as the model made them."""

    # -- models --
    prices: Prices = Prices.NONE
    sizes_by_name: bool = True
    """A model of a name has the size that is known of the name; else the host decides."""

    habits: Habits = attrs.field(factory=Habits)

    def path(self, endpoint: str, model: str = "") -> str:
        """Return the path of an endpoint, of a model if one is named."""
        route = self.route if model else self.plain_route
        if route == "{endpoint}":
            return endpoint
        from urllib.parse import quote  # noqa: PLC0415 - a slow import, for few hosts

        return route.format(
            endpoint=endpoint, model=quote(model, safe=""), version=quote(self.api_version, safe="")
        )
