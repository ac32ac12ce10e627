"""What an Ollama server sends: replies, errors, lists of models and vectors, as bytes.

The shapes are those of ``api/types.go`` and ``server/routes.go`` in Ollama's sources; figures that
are 0 are left out there, and here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from loopback import Answer

MODEL = "llama3.2:3b"
WHEN = "2026-08-21T18:48:22.123456Z"

JSON = {"content-type": "application/json; charset=utf-8"}
LINES = {"content-type": "application/x-ndjson"}


def spoken(  # noqa: PLR0913 - what a reply may be made of
    *,
    text: str = "",
    reasoning: str = "",
    calls: Sequence[tuple[str, str, str]] = (),
    finish: str = "stop",
    usage: tuple[int, int, int] = (7, 3, 0),
    streams: bool,
) -> list[bytes]:
    """Return a reply to a conversation, in lines or whole; calls are (id, name, arguments)."""
    last: dict[str, Any] = {"role": "assistant", "content": ""}
    called = [_call(place, call) for place, call in enumerate(calls)]
    if not streams:
        told: dict[str, Any] = {"thinking": reasoning} if reasoning else {}
        told |= {"tool_calls": called} if called else {}
        return [_line({"message": {**last, "content": text, **told}}, finish, usage)]
    lines = [_line({"message": {**last, "thinking": piece}}) for piece in _pieces(reasoning)]
    lines += [_line({"message": {**last, "content": piece}}) for piece in _pieces(text)]
    lines += [_line({"message": {**last, "tool_calls": [call]}}) for call in called]
    return [*lines, _line({"message": last}, finish, usage)]


def continued(
    *, text: str, finish: str = "stop", usage: tuple[int, int, int] = (7, 3, 0), streams: bool
) -> list[bytes]:
    """Return an answer to a raw prompt, in lines or whole."""
    if not streams:
        return [_line({"response": text}, finish, usage)]
    lines = [_line({"response": piece}) for piece in _pieces(text)]
    return [*lines, _line({"response": ""}, finish, usage)]


def answer(pieces: Sequence[bytes], *, streams: bool) -> Answer:
    """Return the whole answer of pieces, each sent by itself."""
    return Answer(headers=LINES if streams else JSON, chunks=tuple(pieces))


def failed(kind: str) -> Answer:
    """Return an answer that is an error."""
    if kind == "inside":
        begun = _line({"message": {"role": "assistant", "content": "It was"}})
        broken = {"error": "an error was encountered while running the model: unexpected EOF"}
        return Answer(headers=LINES, chunks=(begun, json.dumps(broken).encode() + b"\n"))
    status, error = ERRORS[kind]
    return Answer(status=status, headers=JSON, chunks=(json.dumps(error).encode(),))


ERRORS: dict[str, tuple[int, dict[str, str]]] = {
    "auth": (401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect?name=x"}),
    "overflow": (
        400,
        {
            "error": json.dumps(
                {
                    "error": {
                        "code": 400,
                        "message": "request (5000 tokens) exceeds the available context size"
                        " (4096 tokens), try increasing it",
                        "type": "exceed_context_size_error",
                        "n_prompt_tokens": 5000,
                        "n_ctx": 4096,
                    }
                }
            )
        },
    ),
    "overloaded": (
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
    ),
    "missing": (404, {"error": f'model "{MODEL}" not found, try pulling it first'}),
    "bad": (400, {"error": 'option "num_ctx" must be of type integer'}),
}


def models() -> bytes:
    """Return a list of three models: one that writes, one that embeds, one in Ollama's cloud."""
    return json.dumps({"models": [_WRITES, _EMBEDS, _AWAY]}).encode()


_WRITES = {
    "name": MODEL,
    "model": MODEL,
    "modified_at": WHEN,
    "size": 2019393189,
    "digest": "a80c4f17acd5",
    "details": {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
        "context_length": 131072,
        "embedding_length": 3072,
    },
    "capabilities": ["completion", "tools"],
}
_EMBEDS = {
    "name": "all-minilm:latest",
    "model": "all-minilm:latest",
    "modified_at": WHEN,
    "size": 45960996,
    "digest": "1b226e2802db",
    "details": {"family": "bert", "families": ["bert"], "parameter_size": "23M"},
    "capabilities": ["embedding"],
}
_AWAY = {
    "name": "gpt-oss:120b-cloud",
    "model": "gpt-oss:120b-cloud",
    "remote_model": "gpt-oss:120b",
    "remote_host": "https://ollama.com:443",
    "modified_at": WHEN,
    "size": 382,
    "digest": "569662207105",
    "details": {"family": "gptoss", "families": ["gptoss"], "parameter_size": "116.8B"},
    "capabilities": ["completion", "tools", "thinking"],
}


def vectors(count: int) -> bytes:
    """Return vectors of length 1 for so many texts."""
    rows = [[0.6, 0.8] if place % 2 else [1.0, 0.0] for place in range(count)]
    told = {"model": "all-minilm:latest", "embeddings": rows, "prompt_eval_count": 4 * count}
    return json.dumps({**told, "total_duration": 14143917, "load_duration": 1019500}).encode()


def _pieces(text: str) -> list[str]:
    """Return a text in words, the blanks with them."""
    words = text.split(" ")
    return [word if place == 0 else f" {word}" for place, word in enumerate(words)] if text else []


def _call(place: int, call: tuple[str, str, str]) -> dict[str, Any]:
    own, name, arguments = call
    function = {"index": place, "name": name, "arguments": json.loads(arguments or "{}")}
    return {"id": own, "function": function} if own else {"function": function}


def _line(
    parts: dict[str, Any], finish: str = "", usage: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    told: dict[str, Any] = {"model": MODEL, "created_at": WHEN, **parts, "done": bool(finish)}
    if finish:
        told["done_reason"] = "stop" if finish == "tool_calls" else finish
        told |= {"total_duration": 4883583458, "load_duration": 1334875}
        counts = {"prompt_eval_count": usage[0], "eval_count": usage[1]}
        told |= {name: count for name, count in counts.items() if count}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
