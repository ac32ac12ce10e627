"""Texts to vectors, by ``:batchEmbedContents``: so many at once as Gemini takes. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from llmdispatcher.models.embedding import EmbedRequest, Vector, size_bytes
from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import Finish, FinishReason, Piece, Usage
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.reading import fields, items, shown, tally

MAX_BATCH = 100
"""Texts of one request; Gemini refuses more ("at most 100 requests can be in one batch")."""

BYTES_PER_TOKEN = 4
"""Of text, about; where Gemini does not tell what was used."""

_MAX_FLOAT = 3.4e38
"""What fits in 32 bits."""


def batches(texts: Sequence[str]) -> list[tuple[int, Sequence[str]]]:
    """Split texts as Gemini takes them, each batch with the place of its first text."""
    return [(at, texts[at : at + MAX_BATCH]) for at in range(0, len(texts), MAX_BATCH)]


def body(model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what asks for the vectors; each text is a request of its own."""
    return {
        "requests": [
            {"model": model, "content": {"parts": [{"text": text}]}, **extra} for text in texts
        ]
    }


class VectorReplies:
    """Reads the answer to one batch; see ``wire.exchange.Replies``."""

    def __init__(self, request: EmbedRequest, first: int, texts: Sequence[str]) -> None:
        self.is_done = False
        self._normalize = request.normalize
        self._first = first
        self._count = len(texts)
        self._bytes = sum(map(size_bytes, texts))
        self._prompt: int | None = None

    def take(self, event: str, message: Any) -> list[Piece]:  # noqa: ANN401, ARG002 - see Replies
        """Read the answer, which is one message also where it comes as a stream."""
        return self.whole(message)

    def whole(self, message: Any) -> list[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read the answer. Raises BadReply for what is not one vector a text."""
        told = message[0] if isinstance(message, list) and len(message) == 1 else message
        if not isinstance(told, dict):
            raise BadReply(f"the vendor sent what are no vectors: {shown(message)}")
        if told.get("error"):
            raise faults.of_message(told)
        found = items(told.get("embeddings"))
        if len(found) != self._count:
            raise BadReply(f"the vendor sent {len(found)} vectors for {self._count} texts")
        usage = fields(told.get("usageMetadata"))
        if "promptTokenCount" in usage:
            self._prompt = tally(usage["promptTokenCount"])
        vectors = [self._vector(fields(each).get("values")) for each in found]
        self.is_done = True
        return [Vector(self._first + place, vector) for place, vector in enumerate(vectors)]

    def finish(self) -> Finish | None:
        """Return the end, once the vectors are there."""
        return Finish(FinishReason.STOP, self.usage()) if self.is_done else None

    def usage(self) -> Usage:
        """Return what was used: older models do not tell it, and it is estimated."""
        if self._prompt is not None:
            return Usage(prompt_tokens=self._prompt)
        return Usage(prompt_tokens=-(-self._bytes // BYTES_PER_TOKEN), estimated=True)

    def _vector(self, values: object) -> array[float]:
        """Read a vector; those that were shortened have not the length 1."""
        numbers = [_number(value) for value in items(values)]
        if not self._normalize:
            return array("f", numbers)
        length = math.hypot(*numbers)
        return array("f", [number / length for number in numbers] if length else numbers)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadReply(f"the vendor sent {type(value).__name__} where a number of a vector belongs")
    if not abs(value) <= _MAX_FLOAT:
        raise BadReply("the vendor sent a vector with numbers that are not finite")
    return float(value)
