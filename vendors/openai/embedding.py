"""Texts to be turned into vectors and documents to be scored: what is asked, what is read. Pure.

A request goes out in parts of as many texts as a host takes at once. Every answer must be for each
text of its part exactly once.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector
from llmdispatcher.models.errors import BadReply, Unsupported
from llmdispatcher.models.reply import Finish, FinishReason, Piece, Usage
from llmdispatcher.vendors.openai.chat import keep_alive
from llmdispatcher.vendors.openai.figures import Figures
from llmdispatcher.vendors.openai.ways import Ways
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Site
from llmdispatcher.vendors.wire.reading import fields, shown, words


def exchanges(
    work: EmbedRequest | RerankRequest, model: str, site: Site, ways: Ways
) -> Sequence[Exchange]:
    """Return what to ask, a part each. Raises Unsupported where the host has no such thing."""
    if isinstance(work, EmbedRequest):
        if not ways.embeddings:
            raise Unsupported("embed", "this host makes no vectors: ask another model")
        return [*_embeds(work, model, site, ways)]
    if not ways.rerank:
        raise Unsupported("rerank", "this host scores no documents: ask another model")
    return [*_reranks(work, model, ways)]


def _embeds(work: EmbedRequest, model: str, site: Site, ways: Ways) -> Iterator[Exchange]:
    path = ways.path(ways.embeddings, model)
    for first in range(0, len(work.texts), ways.max_texts):
        part = work.texts[first : first + ways.max_texts]
        body = {
            "model": model,
            "input": [*part],
            "encoding_format": "base64" if ways.packed_vectors else "float",
            **ways.normalize.get(work.normalize, {}),
            **keep_alive(site, ways),
        }
        replies = VectorReplies(part, first, ways, normalize=work.normalize)
        yield Exchange(Ask(path=path, body=body), replies)


def _reranks(work: RerankRequest, model: str, ways: Ways) -> Iterator[Exchange]:
    path = ways.path(ways.rerank, model)
    for first in range(0, len(work.documents), ways.max_texts):
        part = work.documents[first : first + ways.max_texts]
        body = {"model": model, "query": work.query, "documents": [*part], "top_n": len(part)}
        texts = [text for document in part for text in (work.query, document)]
        yield Exchange(Ask(path=path, body=body), ScoreReplies(len(part), first, ways, texts))


class _Rows:
    """What both kinds of answers have in common: a row for each text, and usage."""

    def __init__(self, count: int, first: int, ways: Ways, texts: Sequence[str]) -> None:
        self.is_done = False
        self._count, self._first, self._ways = count, first, ways
        self._figures = Figures(sum(map(len, texts)), charges=ways.charges)
        self._is_whole = False
        self._model = ""

    def take(self, event: str, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read the one message of an answer that came as a stream."""
        del event
        yield from self.whole(message)

    def whole(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer."""
        told = fields(message)
        if told.get("error") or told.get("object") == "error":
            raise faults.of_message(message, self._ways.habits)
        pieces = self._pieces(message)
        places = sorted(piece.index for piece in pieces)
        if places != [*range(self._first, self._first + self._count)]:
            raise BadReply(f"the vendor answered for {len(places)} texts of {self._count}")
        self._figures.begin()
        self._figures.take(told.get("usage"))
        if isinstance(model := told.get("model"), str):
            self._model = words(model)
        self._is_whole = True
        yield from pieces

    def finish(self) -> Finish | None:
        """Return the end, once all texts are answered for."""
        if not self._is_whole:
            return None
        return Finish(FinishReason.STOP, self.usage(), served_model=self._model)

    def usage(self) -> Usage:
        """Return the tokens that were read."""
        return self._figures.usage()

    def _pieces(self, message: object) -> list[Vector] | list[Score]:
        raise NotImplementedError


class VectorReplies(_Rows):
    """Reads vectors."""

    def __init__(self, texts: Sequence[str], first: int, ways: Ways, *, normalize: bool) -> None:
        super().__init__(len(texts), first, ways, texts)
        self._normalize = normalize

    def _pieces(self, message: object) -> list[Vector]:
        rows = fields(message).get("data")
        if not isinstance(rows, list):
            raise BadReply(f"the vendor sent what are no vectors: {shown(message)}")
        return [self._vector(place, fields(row)) for place, row in enumerate(rows)]

    def _vector(self, place: int, row: Any) -> Vector:  # noqa: ANN401 - a stranger's JSON
        values = _values(row.get("embedding"))
        size = math.sqrt(math.fsum(value * value for value in values))
        if not math.isfinite(size) or not values:
            raise BadReply("the vendor sent a vector that is empty, or has numbers that are none")
        if self._normalize and size:
            values = array("f", [value / size for value in values])
        return Vector(self._first + _place(row, place), values)


class ScoreReplies(_Rows):
    """Reads scores."""

    def _pieces(self, message: object) -> list[Score]:
        told = fields(message)
        rows = message if isinstance(message, list) else told.get("results", told.get("data"))
        if not isinstance(rows, list):
            raise BadReply(f"the vendor sent what are no scores: {shown(message)}")
        return [self._score(fields(row)) for row in rows]

    def _score(self, row: Any) -> Score:  # noqa: ANN401 - a stranger's JSON
        value = row.get("relevance_score", row.get("score"))
        try:
            number = math.nan if isinstance(value, bool | str) else float(value)
        except (TypeError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise BadReply("the vendor sent a score that cannot be read")
        return Score(self._first + _place(row, -1), number)


def _place(row: Any, place: int) -> int:  # noqa: ANN401 - a stranger's JSON
    """Return which text of its part a row is for; vectors without a number are in order."""
    index = row.get("index", place)
    return index if isinstance(index, int) and not isinstance(index, bool) else -1 << 32


def _values(told: object) -> array[float]:
    values = array("f")
    try:
        if isinstance(told, str):
            values.frombytes(base64.b64decode(told, validate=True))
            if sys.byteorder != "little":
                values.byteswap()
        elif isinstance(told, list):
            values.extend(told)
    except (TypeError, ValueError, OverflowError, binascii.Error):
        raise BadReply("the vendor sent a vector that cannot be read") from None
    return values
