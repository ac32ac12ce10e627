"""Texts to be turned into vectors, documents to be scored, and what comes back of either.

A vector is an ``array('f')``: 32-bit floats, as models compute them, four bytes each. numpy takes
it as it is (``numpy.asarray(vector)``), and nothing here needs numpy. As everywhere, values are
checked when they are made, and what is out of range raises ``BadRequest``.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

import attrs

from llmdispatcher.models.check import count, flag, instance, integer, words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.request import Deadlines, Request

if TYPE_CHECKING:
    from llmdispatcher.models.decision import Decision
    from llmdispatcher.models.reply import Usage

MAX_TEXTS = 2048
"""Texts, or documents, of one request: as many as the OpenAI API takes."""

MAX_TEXT_BYTES = 64 * 2**20
"""Of all texts of one request, in UTF-8: some ten million tokens, days of work for a processor."""

T = TypeVar("T")


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Take one text as a tuple of one; what is no sequence is left to the validator's refusal."""
    given: Any = value
    if isinstance(given, str):
        return (given,)
    is_sequence = isinstance(given, Sequence) and not isinstance(given, bytes | bytearray)
    return tuple(given) if is_sequence else given


def _written(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept a tuple of texts, at least one; they may be empty."""
    if not isinstance(value, tuple):
        raise BadRequest(field.name, value, "a text or a sequence of texts")
    if not 1 <= len(value) <= MAX_TEXTS:
        raise BadRequest(field.name, f"{len(value)} texts", f"of 1 to {MAX_TEXTS} texts")
    for index, text in enumerate(value):
        try:
            words(None, field, text)
        except BadRequest as error:
            raise BadRequest(f"{field.name}[{index}]", error.value, error.allowed) from None
    size = sum(size_bytes(text) for text in value)
    if size > MAX_TEXT_BYTES:
        raise BadRequest(field.name, f"{size} bytes", f"of at most {MAX_TEXT_BYTES} bytes in all")


def size_bytes(text: str) -> int:
    """Return the size of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class RouteOptions(TypedDict, total=False):
    """Keyword options of ``embed`` and ``rerank``: who may serve, when, and how soon."""

    vendor: str | None
    model: str | None
    allow_cloud: bool
    deadlines: Deadlines | None
    priority: int | None


@attrs.frozen(kw_only=True)
class _Routed:
    """What both kinds of request have in common with ``Request``."""

    vendor: str | None = None
    model: str | None = None
    allow_cloud: bool = flag(default=True)
    deadlines: Deadlines | None = attrs.field(
        default=None, validator=instance(Deadlines, "Deadlines(total_s=30)")
    )
    priority: int = count("priority", -100, 100, default=0)
    """Of the requests that wait for the same model, the higher is served first; none waits for
    ever."""
    once: str = attrs.field(default="", validator=words, eq=False, repr=False)
    """As ``Request.once``."""

    def within(
        self,
        deadlines: Deadlines,
        *,
        streamed: bool = True,  # noqa: ARG002 - never
        once: str = "",
    ) -> Self:
        """Return a copy with other deadlines. What was validated once is not looked at again."""
        if self.deadlines is deadlines and self.once == once:
            return self
        made = copy.copy(self)
        object.__setattr__(made, "deadlines", deadlines)
        object.__setattr__(made, "once", once)
        return made


@attrs.frozen(kw_only=True)
class EmbedRequest(_Routed):
    """Texts to be turned into vectors, one each. Two texts of like meaning get near vectors."""

    texts: tuple[str, ...] = attrs.field(converter=_texts, validator=_written)
    normalize: bool = flag(default=True)
    """Give every vector the length 1, so that the sum of products of two is the cosine of their
    angle."""

    @property
    def text_bytes(self) -> int:
        """Size of all texts, in UTF-8 bytes."""
        return sum(map(size_bytes, self.texts))

    @classmethod
    def of(
        cls,
        texts: str | Sequence[str] | EmbedRequest,
        *,
        normalize: bool | None = None,
        **options: Unpack[RouteOptions],
    ) -> EmbedRequest:
        """Build a request from what ``embed`` takes; of a request, replace what is given."""
        given: dict[str, Any] = dict(options)
        if normalize is not None:
            given["normalize"] = normalize
        return _built(cls, texts if isinstance(texts, cls) else None, {"texts": texts}, given)


@attrs.frozen(kw_only=True)
class RerankRequest(_Routed):
    """Documents to be scored by how well each answers a query."""

    query: str = attrs.field(validator=words)
    documents: tuple[str, ...] = attrs.field(converter=_texts, validator=_written)
    top: int | None = integer("top", 1, MAX_TEXTS)
    """How many of the best are named in ``Reranked.order``; None names all. All are scored."""

    @property
    def text_bytes(self) -> int:
        """Size of what is read: the query goes with every document."""
        query = size_bytes(self.query)
        return sum(query + size_bytes(document) for document in self.documents)

    @classmethod
    def of(
        cls,
        query: str | RerankRequest,
        documents: Sequence[str] = (),
        *,
        top: int | None = None,
        **options: Unpack[RouteOptions],
    ) -> RerankRequest:
        """Build a request from what ``rerank`` takes; of a request, replace what is given."""
        given: dict[str, Any] = dict(options)
        if top is not None:
            given["top"] = top
        if isinstance(query, cls):
            if documents:
                given["documents"] = documents
            return _built(cls, query, {}, given)
        return _built(cls, None, {"query": query, "documents": documents}, given)


def _built(kind: type[T], base: T | None, fresh: Mapping[str, Any], given: Mapping[str, Any]) -> T:
    """Make a request, or a copy of one with what was given."""
    if base is None:
        return kind(**fresh, **given)
    return attrs.evolve(base, **given) if given else base  # type: ignore[misc]


Work = Request | EmbedRequest | RerankRequest
"""Everything that an engine can be asked for."""


@attrs.frozen
class Vector:
    """What became of one text."""

    index: int
    """Which of the request's texts, counted from 0."""
    values: array[float]


@attrs.frozen
class Score:
    """How well one document answers the query."""

    index: int
    """Which of the request's documents, counted from 0."""
    value: float
    """Higher is better. The scale is the model's own, which scores of other models are not on."""


@attrs.frozen(kw_only=True)
class _Account:
    """Who served, what that used and cost, and how it was decided; as in ``Reply``."""

    usage: Usage
    vendor: str
    model: str
    cost_microusd: int | None
    """All attempts included; None where a price is not known."""
    latency_s: float
    """Of all attempts together, without loading and without waiting for a turn."""
    decision: Decision
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Embeddings(_Account):
    """One vector for each text, in their order."""

    vectors: tuple[array[float], ...]

    @property
    def dimensions(self) -> int:
        """Numbers in each vector."""
        return len(self.vectors[0])


@attrs.frozen(kw_only=True)
class Reranked(_Account):
    """One score for each document, and which are best."""

    scores: tuple[float, ...]
    """In the order of the documents. Higher is better, on the model's own scale."""
    order: tuple[int, ...]
    """Places of the documents, best first, at most ``top``; of equal ones the earlier is first."""


def best_first(scores: Sequence[float], top: int | None) -> tuple[int, ...]:
    """Return the places of the highest scores, best first; of equal ones the earlier is first."""
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index])[:top])
