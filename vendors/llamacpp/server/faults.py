"""What an error means that a supervised llama-server answers, where it means more than elsewhere.

``vendors.wire.faults`` reads all errors. But this server's build and limits are ours, and it has
only one model: so there is another way out, or another meaning. Pure.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from llmdispatcher.models.errors import (
    BadReply,
    BadRequest,
    DispatcherError,
    InvalidGrammar,
    Overloaded,
    Unsupported,
)
from llmdispatcher.vendors.llamacpp.server.wire import is_formed
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Head
from llmdispatcher.vendors.wire.redaction import cleaned
from llmdispatcher.vendors.wire.said import of_body

LOADING_S = 1.0
"""When to ask again a server that still loads, which it does not once it was ready."""

_GRAMMAR = re.compile(r"grammar|json.?schema|\$?ref\b|pattern", re.IGNORECASE)
_EITHER = re.compile(r"cannot use (?:custom|both)\b", re.IGNORECASE)
_FULL = re.compile(r"context size has been exceeded|kv cache", re.IGNORECASE)


def of_answer(head: Head, body: bytes, ask: Ask) -> DispatcherError:
    """Return the error of an answer that is none."""
    said, status = of_body(body, head.media_type), head.status
    words = cleaned(said.message)
    if status == HTTPStatus.NOT_FOUND:
        return Unsupported(ask.path, f"this llama-server has no {ask.path}: install a newer one")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        told = f"llama-server is not ready: {words}"
        return Overloaded(told, status=status, retry_after_s=LOADING_S)
    if _EITHER.search(words):
        return Unsupported("response_format", f"llama-server refuses: {words}")
    error = faults.of_answer(head, body)
    if isinstance(error, BadRequest) and is_formed(ask) and _GRAMMAR.search(words):
        return InvalidGrammar(f"llama-server cannot use the grammar or schema: {words}")
    return meant(error)


def meant(error: DispatcherError) -> DispatcherError:
    """Return what an error means, wherever it came: also in the middle of a reply."""
    if isinstance(error, Overloaded | BadReply) and _FULL.search(str(error)):
        return Overloaded(
            f"the replies together did not fit the server's context: {error}; ask for shorter"
            " ones with max_tokens, or allow fewer at once with max_parallel",
            status=error.status,
        )
    return error
