"""What Ollama's errors stand for."""

from __future__ import annotations

import json

import pytest
from speaking_ollama import ERRORS, JSON

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContextOverflow,
    DispatcherError,
    EngineCrashed,
    InvalidGrammar,
    ModelNotFound,
    ModelTooLarge,
    OutOfMemory,
    Overloaded,
    QuotaExhausted,
    RequestError,
    Unsupported,
    VendorError,
)
from llmdispatcher.vendors.ollama import faults
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Head, Site

WIRE = OllamaWire(Site(vendor="ollama", local=True))


def fault(status: int, message: object) -> DispatcherError:
    """Return the error of an answer."""
    return WIRE.fault(Head(status, JSON), json.dumps({"error": message}).encode())


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (404, 'model "a:1b" not found, try pulling it first', ModelNotFound, "ollama pull a:1b"),
        (404, "model 'a:1b' not found", ModelNotFound, "ollama pull a:1b"),
        (503, ERRORS["overloaded"][1]["error"], Overloaded, "maximum pending"),
        (401, "unauthorized", AuthRejected, "ollama signin"),
        (403, "ollama cloud is disabled: remote model inference", AuthRejected, "cloud"),
        (400, ERRORS["bad"][1]["error"], BadRequest, "num_ctx"),
        (400, "invalid JSON schema in format", InvalidGrammar, "schema"),
        (500, "CUDA error: out of memory", OutOfMemory, "memory"),
        (
            500,
            "model requires more system memory (8.4 GiB) than is available (6.1 GiB)",
            ModelTooLarge,
            "8.4 GiB",
        ),
        (500, "llama runner process has terminated: exit status 2", EngineCrashed, "died"),
        (500, "something else", BadReply, "something else"),
        (
            429,
            "you have reached your weekly usage limit, upgrade for higher limits",
            QuotaExhausted,
            "weekly",
        ),
    ],
)
def test_sentences(status: int, message: str, kind: type[DispatcherError], words: str) -> None:
    """Every sentence is the error that it stands for, with its words or the way out."""
    error = fault(status, message)
    assert type(error) is kind
    assert words in str(error)
    assert isinstance(error, VendorError | RequestError)
    assert error.status == status


@pytest.mark.parametrize(
    ("ability", "feature"),
    [
        ("thinking", "reasoning"),
        ("tools", "tools"),
        ("insert", "suffix"),
        ("vision", "images"),
        ("chat", "messages"),
        ("completion", "messages"),
        ("generate", "prompt"),
        ("embedding", "embed"),
    ],
)
def test_abilities_that_lack(ability: str, feature: str) -> None:
    """What a model cannot do is named with our word for it."""
    for name in ('"gemma:2b"', "registry.ollama.ai/library/gemma:2b"):
        error = fault(400, f"{name} does not support {ability}")
        assert isinstance(error, Unsupported)
        assert error.feature == feature
        assert "another model" in str(error)


def test_other_refusals() -> None:
    """A word for thinking that an older server lacks, and a second picture, are named."""
    words = 'invalid think value: "max" (must be "high", "medium", "low", true, or false)'
    for message, feature in [
        (words, "effort"),
        ("this model only supports one image while more than one image requested", "images"),
    ]:
        error = fault(400, message)
        assert isinstance(error, Unsupported)
        assert (error.feature, error.status) == (feature, 400)


@pytest.mark.parametrize(
    "message",
    [
        "the prompt is longer than the context length currently available to the model",
        "the input length exceeds the context length",
        "input exceeds maximum context length and cannot be truncated further",
    ],
)
def test_overflow(message: str) -> None:
    """A prompt that does not fit is an overflow, of which Ollama tells no numbers."""
    error = fault(400, message)
    assert isinstance(error, ContextOverflow)
    assert (error.needed_tokens, error.limit_tokens) == (None, None)


def test_an_error_of_the_server_within() -> None:
    """An error of the llama-server within comes as JSON inside the sentence, with its numbers."""
    status, told = ERRORS["overflow"]
    for error in (fault(status, told["error"]), _raised(told)):
        assert isinstance(error, ContextOverflow)
        assert (error.needed_tokens, error.limit_tokens) == (5000, 4096)


def test_what_is_no_json() -> None:
    """A page, nothing at all, and a list are still errors."""
    for body in (b"<html><body>Bad Gateway</body></html>", b"", b"[1]", b"\xff"):
        error = WIRE.fault(Head(502, {"content-type": "text/html"}), body)
        assert isinstance(error, VendorError)
        assert error.status == 502


def _raised(message: object) -> DispatcherError:
    with pytest.raises(DispatcherError) as caught:
        faults.check(message)
    return caught.value
