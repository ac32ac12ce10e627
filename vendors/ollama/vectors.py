"""Texts to be turned into vectors: what Ollama is asked, and what its answers say. Pure.

A request goes out in parts, so that no answer is large. Texts that are too long are refused, where
Ollama would cut them by default.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import EmbedRequest, Vector, size_bytes
from llmdispatcher.models.errors import BadReply, Unsupported
from llmdispatcher.models.reply import Finish, FinishReason, Piece, Usage
from llmdispatcher.vendors.ollama import faults
from llmdispatcher.vendors.ollama.asking import keep_alive
from llmdispatcher.vendors.ollama.stream import BYTES_PER_TOKEN
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Site
from llmdispatcher.vendors.wire.reading import items, tally, words

EMBED = "/api/embed"

PART = 32
"""Texts of one ask: vectors of 4096 numbers make an answer of about 2 MB."""


def exchanges(work: EmbedRequest, card: ModelCard, site: Site) -> Iterator[Exchange]:
    """Yield what to ask, in order. Raises Unsupported."""
    if not work.normalize:
        told = "Ollama gives every vector the length 1: take normalize=True"
        raise Unsupported("normalize", told)
    standing = {} if (seconds := keep_alive(site)) is None else {"keep_alive": seconds}
    for first in range(0, len(work.texts), PART):
        part = work.texts[first : first + PART]
        body = {"model": card.model, "input": [*part], "truncate": False, **standing}
        size = sum(map(size_bytes, part))
        yield Exchange(
            Ask(path=EMBED, body=body), OllamaVectors(first, len(part), prompt_bytes=size)
        )


class OllamaVectors:
    """Reads the vectors of ``count`` texts, the first of which is number ``first``."""

    def __init__(self, first: int, count: int, *, prompt_bytes: int = 0) -> None:
        self.is_done = False
        self._first, self._count = first, count
        self._usage = Usage(prompt_tokens=-(-prompt_bytes // BYTES_PER_TOKEN), estimated=True)
        self._served_model = ""

    def take(self, event: str, message: Any) -> Iterator[Piece]:  # noqa: ANN401, ARG002 - a stranger's JSON; there is but one
        """Read the only message, where it came as a line."""
        yield from self.whole(message)

    def whole(self, message: Any) -> Iterator[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read the answer. Raises BadReply, or what an error stands for."""
        told = faults.check(message)
        rows = items(told.get("embeddings"))
        if len(rows) != self._count:
            raise BadReply(f"Ollama sent {len(rows)} vectors for {self._count} texts")
        vectors = [Vector(self._first + place, _numbers(row)) for place, row in enumerate(rows)]
        if tokens := tally(told.get("prompt_eval_count")):
            self._usage = Usage(prompt_tokens=tokens)
        model = told.get("model")
        self._served_model = words(model) if isinstance(model, str) else ""
        self.is_done = True
        yield from vectors

    def finish(self) -> Finish | None:
        """Return the end, once the vectors are there."""
        if not self.is_done:
            return None
        return Finish(FinishReason.STOP, self._usage, served_model=self._served_model)

    def usage(self) -> Usage:
        """Return the tokens read; estimated where they are not told."""
        return self._usage


def _numbers(row: object) -> array[float]:
    if not isinstance(row, list):
        raise BadReply("Ollama sent a vector that is no list")
    try:
        values = array("f", row)
    except (TypeError, ValueError, OverflowError):
        raise BadReply("Ollama sent a vector with what is no number") from None
    if not values or not all(map(math.isfinite, values)):
        raise BadReply("Ollama sent a vector that is empty, or has numbers that are not finite")
    return values
