"""What hosts of the OpenAI dialect say, in their own forms: replies, errors, lists and vectors.

``spoken`` renders one canonical reply as each host would put it on the wire; hosts that have no
field for something leave it out, and the tables at the top say which those are.
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loopback import Answer, events

Call = tuple[str, str, str]

THOUGHTS: Mapping[str, str] = {
    "vllm": "reasoning",
    "lmstudio": "reasoning",
    "localai": "reasoning",
    "llama-server": "reasoning_content",
    "groq": "reasoning",
    "together": "reasoning",
    "mistral": "content",
    "deepseek": "reasoning_content",
    "openrouter": "reasoning",
    "lightning": "reasoning_content",
    "litellm": "reasoning_content",
    "openai-compatible": "reasoning_content",
}
"""Where hosts tell the thoughts; OpenAI and Azure do not."""

NO_CACHE = frozenset({"together", "mistral"})
"""Hosts whose usage does not tell what was cached."""

WHOLE_CALLS = frozenset({"groq", "mistral", "lmstudio"})
"""Hosts that stream a call in one piece."""

PIECE = 3
"""Characters of a piece of text, or of arguments."""


# -- replies -----------------------------------------------------------------------------------


def spoken(  # noqa: PLR0913 - what a reply may hold
    preset: str,
    *,
    text: str = "",
    reasoning: str = "",
    calls: Sequence[Call] = (),
    finish: str = "stop",
    usage: tuple[int, int, int] = (0, 0, 0),
    streams: bool,
) -> list[bytes]:
    """Return the body of an answer: one part, or one for each event of a stream.

    ``usage`` is prompt, completion and cached tokens; ``finish`` one of OpenAI's words.
    """
    told = "eos" if preset == "together" and finish == "stop" else finish
    if not streams:
        return [_dumped(_whole(preset, text, reasoning, calls, told, usage))]
    chunks = [
        *_prelude(preset, usage),
        *(_chunk(delta) for delta in _deltas(preset, text, reasoning, calls)),
        *_end(preset, told, usage),
    ]
    return [*_comments(preset), *events(*chunks)]


def _whole(  # noqa: PLR0913, PLR0917 - as above
    preset: str,
    text: str,
    reasoning: str,
    calls: Sequence[Call],
    finish: str,
    usage: tuple[int, int, int],
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    message |= _thoughts(preset, reasoning, text)
    if calls:
        message["tool_calls"] = [_call(preset, index, call) for index, call in enumerate(calls)]
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return _base() | {
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(preset, usage),
    }


def _deltas(
    preset: str, text: str, reasoning: str, calls: Sequence[Call]
) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if preset != "llama-server" else None}
    for piece in _pieces(reasoning):
        if thoughts := _thoughts(preset, piece, ""):
            yield thoughts
    for piece in _pieces(text):
        yield {"content": piece}
    for index, (ident, name, arguments) in enumerate(calls):
        if preset in WHOLE_CALLS:
            yield {"tool_calls": [_call(preset, index, (ident, name, arguments))]}
            continue
        first = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": ident, "type": "function", "function": first}]}
        for piece in _pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _thoughts(preset: str, reasoning: str, text: str) -> dict[str, Any]:
    field = THOUGHTS.get(preset)
    if not reasoning or field is None:
        return {}
    if field != "content":
        return {field: reasoning}
    said = [{"type": "text", "text": text}] if text else []
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}
    return {"content": [thought, *said]}


def _call(preset: str, index: int, call: Call) -> dict[str, Any]:
    ident, name, arguments = call
    function = {"name": name, "arguments": arguments}
    told: dict[str, Any] = {"id": ident, "type": "function", "function": function}
    if preset == "mistral":
        return {
            **told,
            "index": index,
            "function": {**function, "arguments": json.loads(arguments)},
        }
    return {"index": index, **told} if preset in WHOLE_CALLS else told


def _prelude(preset: str, usage: tuple[int, int, int]) -> list[dict[str, Any]]:
    if preset in {"azure", "azure-dated"}:
        filtered = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]
        return [_base() | {"choices": [], "prompt_filter_results": filtered}]
    if preset == "llama-server":
        progress = {"total": usage[0], "processed": usage[0], "cache": usage[2], "time_ms": 1}
        return [_chunk({"role": "assistant", "content": None}) | {"prompt_progress": progress}]
    if preset == "localai":
        return [{"type": "mcp_tool_result", "name": "x"}]
    return []


def _end(preset: str, finish: str, usage: tuple[int, int, int]) -> list[dict[str, Any]]:
    last = _chunk({}, finish)
    told = _usage(preset, usage)
    if preset == "groq":
        return [last | {"x_groq": {"id": "req_1", "usage": told}}]
    if preset == "mistral":
        return [last | {"usage": told}]
    if preset == "openrouter":
        return [last, _chunk({"role": "assistant", "content": ""}) | {"usage": told}]
    if preset == "llama-server":
        timings = {"prompt_n": usage[0], "predicted_n": usage[1], "cache_n": usage[2]}
        return [last, _base() | {"choices": [], "usage": told, "timings": timings}]
    return [last | {"usage": None}, _base() | {"choices": [], "usage": told}]


def _usage(preset: str, usage: tuple[int, int, int]) -> dict[str, Any]:
    prompt, completion, cached = usage
    told: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if preset == "deepseek":
        told |= {"prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": prompt - cached}
    elif preset not in NO_CACHE:
        told["prompt_tokens_details"] = {"cached_tokens": cached}
    return told | ({"cost": 0.000125} if preset == "openrouter" else {})


def _comments(preset: str) -> list[bytes]:
    words = {"openrouter": b": OPENROUTER PROCESSING\n\n", "vllm": b": keep-alive\n\n"}
    return [words[preset]] if preset in words else []


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
    return _base() | {"choices": [choice]}


def _base() -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "model-1",
    }


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode()


# -- errors ------------------------------------------------------------------------------------

Fault = tuple[int, str, str, str]
"""Status, type, code and message."""

FAULTS: Mapping[str, Fault] = {
    "auth": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "rate": (429, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached for requests."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "overflow": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens, and your messages have 9000 tokens.",
    ),
    "overloaded": (503, "service_unavailable_error", "server_is_overloaded", "Try again later."),
    "missing": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "filter": (
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was refused.",
    ),
    "bad": (400, "invalid_request_error", "invalid_value", "Invalid value for 'temperature'."),
}
"""As OpenAI says them."""

OWN_FAULTS: Mapping[tuple[str, str], tuple[int, Any]] = {
    ("vllm", "auth"): (401, {"error": "Unauthorized"}),
    ("lmstudio", "overflow"): (
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the"
            " context length."
        },
    ),
    ("llama-server", "overflow"): (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9000,
                "n_ctx": 8192,
            }
        },
    ),
    ("llama-server", "overloaded"): (
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
    ),
    ("llama-server", "missing"): (
        400,
        {
            "error": {
                "code": 400,
                "message": "model 'model-1' not found",
                "type": "invalid_request_error",
            }
        },
    ),
    ("together", "overflow"): (
        403,
        {"error": {"message": "too many tokens", "type": "invalid_request_error", "code": None}},
    ),
    ("groq", "overflow"): (
        413,
        {
            "error": {
                "message": "Request too large: limit of tokens per minute",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    ),
    ("azure", "filter"): (
        400,
        {
            "error": {
                "message": "The response was filtered.",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    ("deepseek", "quota"): (
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": None}},
    ),
    ("openrouter", "overflow"): (
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"error_type": "context_length_exceeded"},
            }
        },
    ),
    ("openrouter", "quota"): (402, {"error": {"code": 402, "message": "Insufficient credits"}}),
    ("mistral", "overflow"): (
        400,
        {
            "object": "error",
            "message": "Prompt contains 9000 tokens, too large for model with 8192 maximum context"
            " length",
            "type": "invalid_request_error",
            "code": 3051,
        },
    ),
}
"""What hosts say otherwise."""


def failed(preset: str, kind: str) -> Answer:
    """Return an answer that is an error: a kind of ``FAULTS``, or "inside", behind some text."""
    if kind == "inside":
        error = {"message": "The server had an error", "type": "server_error", "code": 500}
        return Answer.sse(events(_chunk({"content": "Some"}), {"error": error}))
    headers = {"retry-after": "7"} if kind == "rate" else {}
    if (own := OWN_FAULTS.get((preset, kind))) is not None:
        return Answer.json(own[1], own[0], headers)
    status, name, code, message = FAULTS[kind]
    fields = {"message": message, "type": name, "param": None, "code": code}
    if preset == "mistral":
        return Answer.json({"object": "error", **fields}, status, headers)
    if preset in {"vllm", "openrouter"} and kind != "filter":
        fields["code"] = status  # type: ignore[assignment]
        if kind == "overflow":
            fields["param"] = "input_tokens"
    return Answer.json({"error": fields}, status, headers)


# -- models and vectors ------------------------------------------------------------------------

SHORTEST = {
    "id": "r1",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
"""A whole reply of one letter."""

CONTEXT_TOKENS = 8192
"""Of the model in every list that tells."""

LISTS: Mapping[str, Any] = {
    "vllm": {"object": "list", "data": [{"id": "model-1", "max_model_len": CONTEXT_TOKENS}]},
    "lmstudio": {
        "models": [
            {
                "type": "llm",
                "key": "model-1",
                "loaded_instances": [
                    {"id": "model-1", "config": {"context_length": CONTEXT_TOKENS}}
                ],
                "max_context_length": 4 * CONTEXT_TOKENS,
                "capabilities": {"vision": True, "trained_for_tool_use": True},
            }
        ]
    },
    "localai": {"object": "list", "data": [{"id": "model-1", "capabilities": ["chat", "vision"]}]},
    "llama-server": {
        "models": [{"name": "model-1", "capabilities": ["completion", "multimodal"]}],
        "object": "list",
        "data": [{"id": "model-1", "meta": {"n_ctx": CONTEXT_TOKENS, "n_params": 7, "size": 9}}],
    },
    "groq": {
        "object": "list",
        "data": [{"id": "model-1", "context_window": CONTEXT_TOKENS, "max_completion_tokens": 100}],
    },
    "together": [
        {
            "id": "model-1",
            "type": "chat",
            "context_length": CONTEXT_TOKENS,
            "pricing": {"input": 0.15, "output": 0.6, "hourly": 0},
        }
    ],
    "mistral": {
        "object": "list",
        "data": [
            {
                "id": "model-1",
                "max_context_length": CONTEXT_TOKENS,
                "capabilities": {"completion_chat": True, "function_calling": True, "vision": True},
            }
        ],
    },
    "openrouter": {
        "data": [
            {
                "id": "model-1",
                "context_length": CONTEXT_TOKENS,
                "top_provider": {"max_completion_tokens": 100},
                "pricing": {"prompt": "0.00000015", "completion": "0.0000006"},
                "supported_parameters": ["tools", "response_format", "structured_outputs"],
                "architecture": {"input_modalities": ["text", "image"]},
            }
        ]
    },
}
"""The lists of hosts that tell more than names."""


def models(preset: str) -> bytes:
    """Return a list of one model, ``model-1``."""
    plain = {"object": "list", "data": [{"id": "model-1", "object": "model", "owned_by": "x"}]}
    return _dumped(LISTS.get(preset, plain))


def vectors(count: int, *, packed: bool = False) -> bytes:
    """Return an answer with so many vectors, the last first: number i points along axis i % 3."""
    rows: list[dict[str, Any]] = []
    for index in reversed(range(count)):
        values = array("f", [2.0 if axis == index % 3 else 0.0 for axis in range(3)])
        told = base64.b64encode(values.tobytes()).decode() if packed else [*values]
        rows.append({"object": "embedding", "index": index, "embedding": told})
    usage = {"prompt_tokens": 2 * count, "total_tokens": 2 * count}
    return _dumped({"object": "list", "data": rows, "model": "model-1", "usage": usage})
