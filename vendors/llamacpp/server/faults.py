"""From an error that llama-server answers to the error that it stands for. Pure.

The server tells kinds of errors by a type and a status; only where it uses one kind for several
things is its message looked at. ``format_error_response`` in tools/server/server-common.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContextOverflow,
    DispatcherError,
    InvalidGrammar,
    OutOfMemory,
    Overloaded,
    Unsupported,
)
from llmdispatcher.vendors.llamacpp.server.wire import Ask

LOADING_S = 1.0
"""When to ask again a server that still loads, which it does not once it was ready."""

_MESSAGE_CHARS = 500
"""How much of a message is passed on."""

_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)", re.DOTALL)
_TOO_LONG = re.compile(r"\((\d+) tokens\).*context size \((\d+)")
_GRAMMAR = re.compile(r"grammar|json.?schema|\$ref", re.IGNORECASE)
_CANNOT = re.compile(r"not support|not implemented|cannot use|only supported", re.IGNORECASE)
_FULL = re.compile(r"context size has been exceeded|kv cache", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate", re.IGNORECASE)


def of_answer(status: int, body: bytes, ask: Ask) -> DispatcherError:
    """Return the error of an answer that is none."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    match told:
        case {"error": {} as error}:
            return of_error({"code": status, **error}, ask)
        case {"error": str(message)}:
            return of_error({"code": status, "message": message}, ask)
    shown = body[:_MESSAGE_CHARS].decode(errors="replace")
    return of_error({"code": status, "message": shown}, ask)


def of_error(error: Mapping[str, Any], ask: Ask) -> DispatcherError:
    """Return what an error object stands for."""
    code, kind = error.get("code"), error.get("type")
    status = code if isinstance(code, int) else 500
    message = str(error.get("message", ""))[:_MESSAGE_CHARS].strip() or "no reason"
    if (overflow := _overflow(error, message)) is not None:
        return overflow
    if status in {401, 403} or kind == "authentication_error":
        return AuthRejected(f"llama-server does not take its own key: {message}", status=status)
    if status == 501 or kind == "not_supported_error":  # noqa: PLR2004 - HTTP's own number
        return Unsupported(_feature(message), f"this llama-server cannot do it: {message}")
    if status == 503 or kind == "unavailable_error":  # noqa: PLR2004 - as above
        return Overloaded(
            f"llama-server is not ready: {message}", status=status, retry_after_s=LOADING_S
        )
    if 400 <= status < 500:  # noqa: PLR2004 - as above
        return _refusal(status, message, ask)
    return _failure(status, message)


def _overflow(error: Mapping[str, Any], message: str) -> ContextOverflow | None:
    """Return the error of what does not fit, with its numbers."""
    match error:
        case {"n_prompt_tokens": int(needed), "n_ctx": int(limit)}:
            return ContextOverflow(needed, limit)
    found = _TOO_LARGE.search(message)
    if found is None and error.get("type") == "exceed_context_size_error":
        found = _TOO_LONG.search(message)
    return ContextOverflow(int(found[1]), int(found[2])) if found else None


def _refusal(status: int, message: str, ask: Ask) -> DispatcherError:
    """Return the error of a request that was not taken."""
    if status == 404:  # noqa: PLR2004 - as above
        return Unsupported(ask.path, f"this llama-server has no {ask.path}: install a newer one")
    body = ask.body
    is_formed = any(name in body for name in ("grammar", "json_schema", "response_format", "tools"))
    if _CANNOT.search(message):
        return Unsupported(_feature(message), f"llama-server refuses: {message}")
    if is_formed and _GRAMMAR.search(message):
        return InvalidGrammar(f"llama-server cannot use the grammar or schema: {message}")
    return BadRequest("request", message, "one that this llama-server takes")


def _failure(status: int, message: str) -> DispatcherError:
    """Return the error of a server that failed."""
    if _FULL.search(message):
        return Overloaded(
            f"the replies together did not fit the server's context: {message}; ask for shorter"
            " ones with max_tokens, or allow fewer at once with max_parallel",
            status=status,
        )
    if _NO_MEMORY.search(message):
        return OutOfMemory(f"llama-server ran out of memory: {message}", status=status)
    if _CANNOT.search(message):  # what it cannot do it sometimes calls its own failure
        return Unsupported(_feature(message), f"llama-server refuses: {message}")
    return BadReply(f"llama-server failed: {message}", status=status)


def _feature(message: str) -> str:
    """Return a short name for what cannot be done."""
    for word, feature in (
        ("image", "images"),
        ("audio", "audio"),
        ("tool", "tools"),
        ("logprobs", "logprobs"),
        ("embedding", "embed"),
        ("rerank", "rerank"),
        ("infill", "suffix"),
    ):
        if word in message.lower():
            return feature
    return "request"
