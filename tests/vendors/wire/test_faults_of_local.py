"""Errors of the servers that people run themselves, and what each stands for."""

from __future__ import annotations

from typing import Any

import pytest

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
    Unreachable,
    Unsupported,
    UnsupportedArchitecture,
)

Row = tuple[str, int, Any, type[DispatcherError], dict[str, Any], dict[str, str]]


def vllm(message: str, kind: str, code: int, param: str | None = None) -> Any:
    """Return an error in the shape of vLLM."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def llama(message: str, kind: str, code: int, **more: Any) -> Any:
    """Return an error in the shape of llama-server."""
    return {"error": {"code": code, "message": message, "type": kind, **more}}


INVALID = "invalid_request_error"
TEXT = {"content-type": "text/plain; charset=utf-8"}

OLLAMA: list[Row] = [
    (
        "2.5 model",
        404,
        {"error": "model 'x' not found"},
        ModelNotFound,
        {"says": "model 'x' not found"},
        {},
    ),
    (
        "2.5 model, of old",
        404,
        {"error": 'model "x" not found, try pulling it first'},
        ModelNotFound,
        {"says": "pulling"},
        {},
    ),
    (
        "2.5 queue",
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        Overloaded,
        {},
        {},
    ),
    (
        "1.7 chat",
        400,
        {"error": "the prompt is longer than the context length"},
        ContextOverflow,
        {"needed_tokens": None},
        {},
    ),
    (
        "1.7 embeddings",
        400,
        {"error": "the input length exceeds the context length"},
        ContextOverflow,
        {},
        {},
    ),
    (
        "2.5 tools",
        400,
        {"error": "registry.ollama.ai/library/gemma:2b does not support tools"},
        Unsupported,
        {"feature": "tools"},
        {},
    ),
    (
        "2.5 thinking",
        400,
        {"error": '"llama3" does not support thinking'},
        Unsupported,
        {"feature": "reasoning"},
        {},
    ),
    (
        "2.5 memory",
        500,
        {"error": "model requires more system memory (5.3 GiB) than is available (4.0 GiB)"},
        ModelTooLarge,
        {"needed_bytes": 5690831667, "limit_bytes": 4294967296},
        {},
    ),
    (
        "2.5 memory of the card",
        500,
        {"error": "llama runner process has terminated: cudaMalloc failed: out of memory"},
        OutOfMemory,
        {},
        {},
    ),
    (
        "2.5 died",
        500,
        {"error": "llama runner process has terminated: signal: killed"},
        EngineCrashed,
        {},
        {},
    ),
    (
        "2.5 died in a stream",
        200,
        {
            "error": "model runner has unexpectedly stopped, this may be due to resource"
            " limitations or an internal error, check ollama server logs for details"
        },
        EngineCrashed,
        {"status": None},
        {},
    ),
    (
        "2.5 architecture",
        500,
        {"error": "llama_model_load: error loading model: unknown model architecture: 'x9'"},
        UnsupportedArchitecture,
        {"architecture": "x9"},
        {},
    ),
    ("1.6 cancelled", 499, {"error": "request canceled"}, Unreachable, {"status": 499}, {}),
    (
        "1.6 cloud key",
        401,
        {"error": "unauthorized", "signin_url": "https://ollama.com/connect?key=abcdefgh"},
        AuthRejected,
        {},
        {},
    ),
    (
        "2.5 cloud limit",
        429,
        {"error": "you have reached your weekly usage limit, please upgrade to continue"},
        QuotaExhausted,
        {},
        {},
    ),
    ("2.5 no such path", 404, b"404 page not found", Unsupported, {"feature": "endpoint"}, TEXT),
    (
        "2.5 Go reads types",
        400,
        {"error": "json: cannot unmarshal string into Go struct field ChatRequest.think"},
        BadRequest,
        {},
        {},
    ),
]

VLLM: list[Row] = [
    ("1.6 key", 401, {"error": "Unauthorized"}, AuthRejected, {}, {}),
    (
        "2.6 model",
        404,
        vllm("The model `x` does not exist.", "NotFoundError", 404, "model"),
        ModelNotFound,
        {},
        {},
    ),
    ("2.6 no such path", 404, {"detail": "Not Found"}, Unsupported, {"feature": "endpoint"}, {}),
    ("2.6 no such path", 405, {"detail": "Method Not Allowed"}, Unsupported, {}, {}),
    (
        "1.7 context",
        400,
        vllm(
            "This model's maximum context length is 2048 tokens. However, your request has 8 input"
            " tokens plus 2045 'max_tokens'. Please reduce one or the other.",
            "BadRequestError",
            400,
            "input_tokens, max_tokens",
        ),
        ContextOverflow,
        {"needed_tokens": 2053, "limit_tokens": 2048},
        {},
    ),
    (
        "1.7 flat, of old",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 6048 tokens. However, you requested"
            " 6616 tokens (568 in the messages, 6048 in the completion).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        ContextOverflow,
        {"needed_tokens": 6616, "limit_tokens": 6048},
        {},
    ),
    (
        "1.7 the reply alone is too long",
        400,
        vllm(
            "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum"
            " context length is 4096 tokens and your request has 100 input tokens"
            " (5000 > 4096 - 100).",
            "BadRequestError",
            400,
        ),
        ContextOverflow,
        {"needed_tokens": None, "limit_tokens": 4096},
        {},
    ),
    (
        "1.7 nothing is left for a reply",
        400,
        vllm("max_tokens must be at least 1, got -186.", "BadRequestError", 400),
        ContextOverflow,
        {},
        {},
    ),
    (
        "1.7 prompt",
        400,
        vllm(
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "BadRequestError",
            400,
        ),
        ContextOverflow,
        {"needed_tokens": 5000, "limit_tokens": 4096},
        {},
    ),
    (
        "2.6 queue",
        503,
        vllm("Too many requests in the queue.", "Service Unavailable", 503),
        Overloaded,
        {},
        {},
    ),
    (
        "2.6 tools switched off",
        400,
        vllm(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be'
            " set",
            "BadRequestError",
            400,
        ),
        Unsupported,
        {"feature": "tools"},
        {},
    ),
    (
        "2.6 a prompt that pydantic repeats",
        400,
        vllm(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'top_a'), 'msg': 'Extra inputs are not"
            " permitted', 'input': {'prompt': 'rate limit exceeded, my secret'}}]",
            "Bad Request",
            400,
        ),
        Unsupported,
        {"says": "not permitted'"},
        {},
    ),
    (
        "2.6 grammar",
        400,
        vllm(
            "The provided JSON schema contains features not supported by xgrammar.",
            "BadRequestError",
            400,
        ),
        InvalidGrammar,
        {},
        {},
    ),
    (
        "2.6 its own failure",
        500,
        vllm("boom", "InternalServerError", 500),
        BadReply,
        {"status": 500},
        {},
    ),
    (
        "2.6 engine",
        500,
        vllm("EngineCore encountered an issue.", "InternalServerError", 500),
        EngineCrashed,
        {},
        {},
    ),
    ("2.6 in a stream", 200, vllm("boom", "InternalServerError", 500), BadReply, {}, {}),
    ("1.1 health", 503, b"", Overloaded, {"status": 503}, {}),
]

LLAMA: list[Row] = [
    (
        "2.9 loading",
        503,
        llama("Loading model", "unavailable_error", 503),
        Overloaded,
        {"says": "Loading model"},
        {},
    ),
    (
        "1.7 context",
        400,
        llama(
            "the request exceeds the available context size, try increasing it",
            "exceed_context_size_error",
            400,
            n_prompt_tokens=600,
            n_ctx=512,
        ),
        ContextOverflow,
        {"needed_tokens": 600, "limit_tokens": 512},
        {},
    ),
    (
        "1.7 context in words",
        400,
        llama(
            "request (9 tokens) exceeds the available context size (8 tokens), try increasing it",
            INVALID,
            400,
        ),
        ContextOverflow,
        {"needed_tokens": 9, "limit_tokens": 8},
        {},
    ),
    (
        "1.7 embeddings",
        500,
        llama(
            "input (700 tokens) is too large to process. increase the physical batch size"
            " (current batch size: 512)",
            "server_error",
            500,
        ),
        ContextOverflow,
        {"needed_tokens": 700, "limit_tokens": 512},
        {},
    ),
    (
        "1.7 all together",
        500,
        llama("Context size has been exceeded.", "server_error", 500),
        Overloaded,
        {},
        {},
    ),
    ("2.9 key", 401, llama("Invalid API Key", "authentication_error", 401), AuthRejected, {}, {}),
    (
        "2.9 no such path",
        404,
        llama("File Not Found", "not_found_error", 404),
        Unsupported,
        {"feature": "endpoint"},
        {},
    ),
    (
        "2.9 router",
        400,
        llama("model 'x' not found", INVALID, 400),
        ModelNotFound,
        {},
        {},
    ),
    ("2.9 router, asleep", 400, llama("model is not loaded", INVALID, 400), ModelNotFound, {}, {}),
    (
        "2.9 switched off",
        501,
        llama("This server does not support embeddings.", "not_supported_error", 501),
        Unsupported,
        {"feature": "embed", "status": 501},
        {},
    ),
    (
        "2.9 log-probs",
        400,
        llama("logprobs is not supported with tools + stream", INVALID, 400),
        Unsupported,
        {},
        {},
    ),
    ("2.9 grammar", 400, llama("Failed to parse grammar", INVALID, 400), InvalidGrammar, {}, {}),
    (
        "1.5 flat, in a stream",
        200,
        {"code": 500, "message": "Compute error.", "type": "server_error"},
        BadReply,
        {"status": 500},
        {},
    ),
]

STUDIO: list[Row] = [
    (
        "1.7 context",
        400,
        {
            "error": "Trying to keep the first 5000 tokens when context the overflows. However, the"
            " model is loaded with context length of only 4096 tokens, which is not enough."
        },
        ContextOverflow,
        {"needed_tokens": 5000, "limit_tokens": 4096},
        {},
    ),
    (
        "1.7 context in a stream",
        200,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the"
            " context length."
        },
        ContextOverflow,
        {"needed_tokens": None},
        {},
    ),
    (
        "2.7 no such path, with status 200",
        200,
        {"error": "Unexpected endpoint or method. (POST /v1/x)"},
        Unsupported,
        {"feature": "endpoint"},
        {},
    ),
    (
        "2.7 nothing is loaded",
        404,
        vllm("No models loaded. Please load a model.", INVALID, 404, "model"),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.7 event",
        200,
        {"type": "error", "error": {"type": "model_not_found", "message": "No.", "param": "model"}},
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.7 died",
        400,
        {"error": "The model has crashed without additional information. (Exit code: 6)"},
        EngineCrashed,
        {},
        {},
    ),
    (
        "2.7 JSON mode",
        400,
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        Unsupported,
        {"feature": "response_format.type"},
        {},
    ),
]

LOCALAI: list[Row] = [
    (
        "2.8 loading",
        503,
        {
            "error": {"code": 503, "message": "model is loading", "type": "model_loading"},
            "loading": {"state": "loading", "progress": 0.4, "eta_seconds": 12.5},
        },
        Overloaded,
        {"retry_after_s": 12.5},
        {},
    ),
    (
        "2.8 loading, with the header",
        503,
        {"error": {"message": "x"}, "loading": {"eta_seconds": 12.5}},
        Overloaded,
        {"retry_after_s": 5.0},
        {"retry-after": "5"},
    ),
    (
        "2.8 quota",
        429,
        {"error": {"code": 429, "message": "quota", "type": "quota_exceeded"}},
        QuotaExhausted,
        {"retry_after_s": 60.0},
        {"retry-after": "60"},
    ),
    (
        "2.8 admission",
        503,
        {"error": {"code": 503, "message": "full", "type": "admission_rejected"}},
        Overloaded,
        {},
        {},
    ),
    ("1.6 opaque", 500, b"", BadReply, {"says": "500 Internal Server Error"}, {}),
    ("1.1 starting", 503, {"status": "starting"}, Overloaded, {}, {}),
]

ROWS = [*OLLAMA, *VLLM, *LLAMA, *STUDIO, *LOCALAI]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_an_error_stands_for_this(row: Row, judge: Any) -> None:
    """The class and the facts are those of the row; its number is the section it comes from."""
    judge(row)
