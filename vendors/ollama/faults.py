"""Errors of which Ollama's own words say more than everybody's classifier knows. Pure.

Ollama has one shape for all, ``{"error": "a sentence"}``, with a status before the first piece and
none behind it: so the sentence is looked at, and those that are in no table here are judged as
everybody's errors are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    DispatcherError,
    EngineCrashed,
    ModelNotFound,
    RequestError,
    Unsupported,
)
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.reading import fields, parsed
from llmdispatcher.vendors.wire.redaction import cleaned

_FEATURES = {
    "thinking": ("reasoning", "leave out reasoning and effort"),
    "tools": ("tools", "leave out the tools"),
    "insert": ("suffix", "leave out the suffix"),
    "vision": ("images", "leave out the pictures"),
    "audio": ("audio", "leave out the sound"),
    "chat": ("messages", "it may be one that embeds"),
    "completion": ("messages", "it may be one that embeds"),
    "generate": ("prompt", "it may be one that embeds"),
    "embedding": ("embed", "it may be one that writes"),
    "image generation": ("images", "leave it out"),
}
"""Ollama's word for an ability: ours, and the way out. ``errCapability…`` in server/images.go."""


@attrs.frozen
class _Told:
    """A sentence of which something is known."""

    found: re.Match[str]
    words: str
    """All of it, fit to be shown."""
    status: int | None


def of_answer(head: Head, body: bytes) -> DispatcherError:
    """Return the error of an answer with a status of 300 or more."""
    try:
        message = parsed(body)
    except BadReply:
        message = None
    return _known(message, head.status) or faults.of_answer(head, body)


def check(message: Any) -> dict[str, Any]:  # noqa: ANN401 - a stranger's JSON
    """Return a message that is an object and no error. Raises what an error stands for."""
    if not isinstance(message, dict):
        raise BadReply(f"Ollama sent {type(message).__name__} where an object belongs")
    if message.get("error"):
        raise _known(message, None) or faults.of_message(message)
    return message


def _known(message: object, status: int | None) -> DispatcherError | None:
    """Return the error of a sentence in the table."""
    text = fields(message).get("error")
    words = cleaned(text) if isinstance(text, str) else ""
    for form, made in _TABLE:
        if found := form.search(words):
            error = made(_Told(found, words, status))
            if isinstance(error, RequestError):
                error.status = status
            return error
    return None


def _no_model(told: _Told) -> DispatcherError:
    name = told.found[1]
    return ModelNotFound(f"{told.words}; bring it with: ollama pull {name}", status=told.status)


def _no_ability(told: _Told) -> DispatcherError:
    feature, way_out = _FEATURES[told.found[1].lower()]
    return Unsupported(feature, f"Ollama refuses: {told.words}; {way_out}, or name another model")


def _no_such_word(told: _Told) -> DispatcherError:
    way_out = "give another effort, or install a newer Ollama"
    return Unsupported("effort", f"Ollama refuses: {told.words}; {way_out}")


def _one_image(told: _Told) -> DispatcherError:
    return Unsupported("images", f"Ollama refuses: {told.words}; send one picture")


def _signed_out(told: _Told) -> DispatcherError:
    way_out = "sign in with `ollama signin`, or check the key"
    return AuthRejected(f"Ollama's cloud does not know who asks: {way_out}", status=told.status)


def _cloud_off(told: _Told) -> DispatcherError:
    return AuthRejected(f"this Ollama may not use its cloud: {told.words}", status=told.status)


def _crashed(told: _Told) -> DispatcherError:
    return EngineCrashed(f"Ollama's engine died: {told.words}", status=told.status)


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_TABLE: tuple[tuple[re.Pattern[str], Callable[[_Told], DispatcherError]], ...] = (
    (_form(r"model ['\"]([^'\"]+)['\"] not found"), _no_model),
    (_form(rf"does not support ({'|'.join(_FEATURES)})\b"), _no_ability),
    (_form(r"invalid think value|^think must be"), _no_such_word),
    (_form(r"only supports one image"), _one_image),
    (_form(r"^unauthorized\W*$"), _signed_out),
    (_form(r"^ollama cloud is disabled"), _cloud_off),
    (_form(r"error was encountered while running the model"), _crashed),
)
"""Sentences of server/routes.go, server/images.go, internal/cloud, api/types.go and llm/ in
Ollama's sources; the first that is found counts."""
