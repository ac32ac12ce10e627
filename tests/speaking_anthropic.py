"""Replies, errors and lists of models as Anthropic's Messages API puts them on the wire.

Long texts come in several pieces, so that a reader has something to join.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loopback import Answer

MODEL = "claude-opus-4-8"

SIGNATURE = "EqoBCkgIARABGAIiQL8="
"""Of thoughts; nobody reads it."""

REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def spoken(  # noqa: PLR0913 - one keyword for each thing that a reply has
    *,
    text: str = "",
    reasoning: str = "",
    calls: Sequence[tuple[str, str, str]] = (),
    finish: str = "stop",
    usage: tuple[int, int, int] = (12, 5, 0),
    streams: bool,
) -> list[bytes]:
    """Return a reply: one body, or the events of a stream.

    ``calls`` are ids, names and arguments; ``usage`` is prompt, completion and what of the prompt
    came from the vendor's cache.
    """
    blocks: list[dict[str, Any]] = []
    if reasoning:
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": SIGNATURE})
    if text:
        blocks.append({"type": "text", "text": text})
    for made, name, arguments in calls:
        given = json.loads(arguments or "{}")
        blocks.append({"type": "tool_use", "id": made, "name": name, "input": given})
    if not streams:
        return [json.dumps(message(blocks, REASONS[finish], usage)).encode()]
    texts = [arguments for _, _, arguments in calls]
    return [*_streamed(blocks, texts, REASONS[finish], usage)]


def message(
    blocks: Sequence[Mapping[str, Any]], reason: str | None, usage: tuple[int, int, int]
) -> dict[str, Any]:
    """Return a whole message."""
    prompt, completion, cached = usage
    return {
        "id": "msg_013Zva2CMHLNnjNjJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [*blocks],
        "stop_reason": reason,
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "cyber", "explanation": None}
        if reason == "refusal"
        else None,
        "usage": {
            "input_tokens": prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": completion,
        },
    }


def event(kind: str, **fields: Any) -> bytes:
    """Return an event of a stream."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _streamed(
    blocks: Sequence[dict[str, Any]],
    arguments: Sequence[str],
    reason: str,
    usage: tuple[int, int, int],
) -> Iterator[bytes]:
    begun = message([], None, (usage[0], 1, usage[2]))
    yield event("message_start", message=begun)
    yield event("ping")
    texts = iter(arguments)
    for index, block in enumerate(blocks):
        yield from _block(index, block, texts)
    whole = message([], reason, usage)
    delta = {name: whole[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield event("message_delta", delta=delta, usage={"output_tokens": usage[1]})
    yield event("message_stop")


def _block(index: int, block: dict[str, Any], arguments: Iterator[str]) -> Iterator[bytes]:
    kind = block["type"]
    empty: dict[str, Any] = {"thinking": "", "signature": "", "text": "", "input": {}}
    begun = {name: empty.get(name, value) for name, value in block.items()}
    yield event("content_block_start", index=index, content_block=begun)
    deltas: list[dict[str, Any]] = []
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
    elif kind == "tool_use":
        pieces = ["", *cut(next(arguments))]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    for delta in deltas:
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def cut(text: str) -> list[str]:
    """Return a text in pieces of four characters."""
    return [text[i : i + 4] for i in range(0, len(text), 4)]


_FAILURES: dict[str, tuple[int, str, str, dict[str, str]]] = {
    "auth": (401, "authentication_error", "invalid x-api-key", {}),
    "rate": (
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit",
        {"retry-after": "7"},
    ),
    "quota": (
        402,
        "billing_error",
        "Your credit balance is too low to access the Anthropic API.",
        {},
    ),
    "overflow": (
        400,
        "invalid_request_error",
        "prompt is too long: 201000 tokens > 200000 maximum",
        {},
    ),
    "overloaded": (529, "overloaded_error", "Overloaded", {}),
    "missing": (404, "not_found_error", "model: claude-none", {}),
    "filter": (
        400,
        "invalid_request_error",
        "Output blocked by content filtering policy",
        {},
    ),
    "bad": (400, "invalid_request_error", "max_tokens: must be greater than 0", {}),
}


def failed(kind: str) -> Answer:
    """Return an error, as the vendor answers it; ``inside`` comes in a stream that had begun."""
    if kind == "inside":
        error = {"type": "overloaded_error", "message": "Overloaded"}
        begun = spoken(text="Once upon", streams=True)[:4]
        return Answer.sse([*begun, event("error", error=error)])
    status, name, told, headers = _FAILURES[kind]
    body = {"type": "error", "error": {"type": name, "message": told}, "request_id": "req_011C"}
    return Answer.json(body, status, {"request-id": "req_011C", **headers})


def models() -> bytes:
    """Return the list of models, on one page."""
    rows = [row("claude-opus-4-8", "Claude Opus 4.8"), row("claude-haiku-4-5", "Claude Haiku 4.5")]
    return json.dumps(page(rows)).encode()


def page(rows: Sequence[Mapping[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """Return a page of a list of models."""
    names = [each["id"] for each in rows]
    return {
        "data": [*rows],
        "has_more": has_more,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def row(name: str, title: str = "Claude", **fields: Any) -> dict[str, Any]:
    """Return a row of that list."""
    yes = {"supported": True}
    return {
        "type": "model",
        "id": name,
        "display_name": title,
        "created_at": "2026-05-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
        "capabilities": {"image_input": yes, "structured_outputs": yes, "thinking": yes},
        **fields,
    }
