"""Answers of OpenAI's responses endpoint: whole, and as the events that they come in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PIECE_CHARS = 4

USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 10},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 80,
}


def answer(*output: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a whole answer."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "model": "gpt-5.6-sol-2026-07-01",
        "status": "completed",
        "output": [{"id": f"item_{place}", **item} for place, item in enumerate(output)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": USAGE,
        **more,
    }


def message(*parts: Mapping[str, Any] | str, **more: Any) -> dict[str, Any]:
    """Return a message of the assistant, as an item of an answer."""
    content = [said(part) if isinstance(part, str) else part for part in parts]
    item = {"type": "message", "role": "assistant", "status": "completed", "content": content}
    return {**item, **more}


def said(text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return a part that is text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*logprobs]}


def refusal(text: str) -> dict[str, Any]:
    """Return a part that says that the model will not."""
    return {"type": "refusal", "refusal": text}


def call(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    """Return a call of a tool."""
    item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return {**item, "status": "completed"}


def thoughts(*summary: str, sealed: str | None = "c2VhbGVk") -> dict[str, Any]:
    """Return what the model thought, sealed, with a summary."""
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "summary": parts, "encrypted_content": sealed}


def logprob(token: str, value: float, *top: tuple[str, float]) -> dict[str, Any]:
    """Return a token as the endpoint tells it."""
    likely = [{"token": t, "logprob": v, "bytes": [*t.encode()]} for t, v in top]
    return {"token": token, "logprob": value, "bytes": [*token.encode()], "top_logprobs": likely}


ANSWERS: dict[str, dict[str, Any]] = {
    "plain": answer(message("Grüße, 世界! 🙂")),
    "empty": answer(message("")),
    "parts": answer(message("One, ", "two, "), message("three.")),
    "thoughts": answer(thoughts("**First**\n\nI look.", "**Then**\n\nI tell."), message("Done.")),
    "calls": answer(
        thoughts(),
        call("add", '{"x": 1, "y": "é"}', "call_a"),
        call("nothing", "", "call_b"),
    ),
    "mixed": answer(
        thoughts("I must look."),
        message("Let me look.", phase="commentary"),
        thoughts(sealed="bW9yZQ=="),
        call("look", '{"at": "it"}', "call_c"),
    ),
    "refused": answer(message(refusal("I cannot do that."))),
    "cut": answer(
        message("It goes on and"),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
    ),
    "filtered": answer(
        message("It was"), status="incomplete", incomplete_details={"reason": "content_filter"}
    ),
    "json": answer(message('{"name": "Ada", "age": 36}')),
    "logprobs": answer(
        message(
            said(
                "Hi you",
                [
                    logprob("Hi", -0.25, ("Hi", -0.25), ("Ho", -1.5)),
                    logprob(" you", -0.0, (" you", -0.0), (" me", -9999.0)),
                ],
            )
        )
    ),
}
"""What a model may answer, by what is special about it."""


def events(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events in which an answer comes."""
    begun = {**told, "status": "in_progress", "output": [], "usage": None}
    made = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for place, item in enumerate(told["output"]):
        made += _item(item, place)
    made.append({"type": f"response.{told['status']}", "response": {**told}})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def sse(made: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return events as their bytes."""
    return [
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in made
    ]


def _item(item: Mapping[str, Any], place: int) -> Iterator[dict[str, Any]]:
    empty: dict[str, dict[str, Any]] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
    }
    begun = {**item, **empty.get(item["type"], {"summary": []}), "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": place, "item": begun}
    here = {"item_id": item["id"], "output_index": place}
    match item["type"]:
        case "message":
            for index, part in enumerate(item["content"]):
                yield from _part(part, {**here, "content_index": index})
        case "function_call":
            kind = "response.function_call_arguments"
            for piece in _pieces(item["arguments"]):
                yield {"type": f"{kind}.delta", "delta": piece, **here}
            yield {"type": f"{kind}.done", "arguments": item["arguments"], **here}
        case "reasoning":
            for index, part in enumerate(item["summary"]):
                yield from _summary(part, {**here, "summary_index": index})
    yield {"type": "response.output_item.done", "output_index": place, "item": {**item}}


def _part(part: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    field = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if field == "refusal" else "response.output_text"
    begun = {**part, field: ""}
    yield {"type": "response.content_part.added", "part": begun, **here}
    if tokens := part.get("logprobs"):
        for token in tokens:
            yield {"type": f"{kind}.delta", "delta": token["token"], "logprobs": [token], **here}
    else:
        for piece in _pieces(part[field]):
            yield {"type": f"{kind}.delta", "delta": piece, "logprobs": [], **here}
    logprobs = {"logprobs": part["logprobs"]} if field == "text" else {}
    yield {"type": f"{kind}.done", field: part[field], **logprobs, **here}
    yield {"type": "response.content_part.done", "part": {**part}, **here}


def _summary(part: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = "response.reasoning_summary"
    yield {"type": f"{kind}_part.added", "part": {**part, "text": ""}, **here}
    for piece in _pieces(part["text"]):
        yield {"type": f"{kind}_text.delta", "delta": piece, **here}
    yield {"type": f"{kind}_text.done", "text": part["text"], **here}
    yield {"type": f"{kind}_part.done", "part": {**part}, **here}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]
