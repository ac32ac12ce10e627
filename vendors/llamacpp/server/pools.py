"""Texts to be turned into vectors or scored: what is asked, and what the answers say. Pure.

A request goes out in parts, so that no answer is large and results come as they are made.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from array import array
from collections.abc import Iterator
from typing import Any

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector
from llmdispatcher.models.errors import BadReply, BadRequest
from llmdispatcher.vendors.llamacpp.server.wire import Ask

EMBED, RERANK = "/v1/embeddings", "/v1/rerank"

PART = 32
"""Texts of one part: as many as a server decodes at once, about."""

FLOAT_BYTES = 4


def asks(work: EmbedRequest | RerankRequest) -> Iterator[tuple[int, Ask]]:
    """Yield what to ask, each with the place of its first text. Raises BadRequest."""
    texts = work.texts if isinstance(work, EmbedRequest) else work.documents
    for first in range(0, len(texts), PART):
        part = texts[first : first + PART]
        yield (
            first,
            _embed(work, part, first) if isinstance(work, EmbedRequest) else _rerank(work, part),
        )


def _embed(work: EmbedRequest, part: tuple[str, ...], first: int) -> Ask:
    for index, text in enumerate(part, first):
        if not text:
            allowed = "a text that is not empty: llama-server takes no empty ones"
            raise BadRequest(f"texts[{index}]", text, allowed)
    body: dict[str, Any] = {
        "input": [*part],
        "encoding_format": "base64",
        "embd_normalize": 2 if work.normalize else -1,
    }
    return Ask(path=EMBED, body=body, choices=len(part))


def _rerank(work: RerankRequest, part: tuple[str, ...]) -> Ask:
    body = {"query": work.query, "documents": [*part], "top_n": len(part)}
    return Ask(path=RERANK, body=body, choices=len(part))


def results(ask: Ask, first: int, body: bytes) -> tuple[list[Vector | Score], int]:
    """Read an answer: what became of the texts, and how many tokens were read.

    Raises BadReply.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReply("the server answered with what is no JSON") from None
    match told:
        case {"data": list(rows)} if ask.path == EMBED:
            read: list[Vector | Score] = [_vector(row, first) for row in rows]
        case {"results": list(rows)} if ask.path == RERANK:
            read = [_score(row, first) for row in rows]
        case _:
            raise BadReply("the server answered with neither vectors nor scores")
    places = sorted(each.index for each in read)
    if places != [*range(first, first + ask.choices)]:
        raise BadReply(f"the server answered for {len(places)} texts of {ask.choices}")
    usage = told.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return read, tokens if isinstance(tokens, int) and tokens >= 0 else 0


def _vector(row: object, first: int) -> Vector:
    match row:
        case {"index": int(index), "embedding": str(packed)}:
            values = array("f")
            try:
                values.frombytes(base64.b64decode(packed, validate=True))
            except (ValueError, binascii.Error):
                raise BadReply("the server sent a vector that cannot be read") from None
            if sys.byteorder != "little":
                values.byteswap()
        case {"index": int(index), "embedding": list(numbers)}:
            try:
                values = array("f", numbers)
            except (TypeError, OverflowError):
                raise BadReply("the server sent a vector that cannot be read") from None
        case _:
            raise BadReply("the server sent a vector that cannot be read")
    if not values or not all(map(math.isfinite, values)):
        raise BadReply("the server sent a vector that is empty, or has numbers that are none")
    return Vector(first + index, values)


def _score(row: object, first: int) -> Score:
    match row:
        case {"index": int(index), "relevance_score": int() | float() as value}:
            if math.isfinite(value):
                return Score(first + index, float(value))
    raise BadReply("the server sent a score that cannot be read")
