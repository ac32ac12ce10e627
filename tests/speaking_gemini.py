"""Canonical answers as Gemini sends them: replies, failures, lists of models, vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from loopback import Answer

MODEL = "gemini-2.5-flash"
RESPONSE_ID = "resp-1"

_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}

PIECE_CHARS = 3
"""Of text, in a stream."""

_FAILED: dict[str, tuple[int, str, str]] = {
    "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "rate": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    "quota": (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
    "overflow": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "missing": (404, "NOT_FOUND", "models/gemini-0 is not found for API version v1beta."),
    "bad": (400, "INVALID_ARGUMENT", "Invalid value at 'contents[0].role'."),
}

_DETAILS: dict[str, list[dict[str, Any]]] = {
    "auth": [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
    ],
    "rate": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
}


def spoken(  # noqa: PLR0913 - one keyword for each part of a reply
    *,
    text: str = "",
    reasoning: str = "",
    calls: Sequence[tuple[str, str, str]] = (),
    finish: str = "stop",
    usage: tuple[int, int, int] = (0, 0, 0),
    streams: bool,
) -> list[bytes]:
    """Render a reply: one answer, or the events of a stream."""
    thought: list[dict[str, Any]] = [
        {"text": piece, "thought": True} for piece in _pieces(reasoning)
    ]
    said: list[dict[str, Any]] = [{"text": piece} for piece in _pieces(text)]
    called: list[dict[str, Any]] = [
        {"functionCall": {"id": call_id, "name": name, "args": json.loads(arguments)}}
        for call_id, name, arguments in calls
    ]
    if not streams:
        whole: list[dict[str, Any]] = [{"text": reasoning, "thought": True}] if reasoning else []
        whole += [{"text": text}] if text else []
        parts = [*whole, *called]
        return [json.dumps(message(parts, _REASONS[finish], usage, bool(reasoning))).encode()]
    told = [message([part], "", (usage[0], 0, usage[2])) for part in (*thought, *said, *called)]
    told.append(message([{"text": ""}], _REASONS[finish], usage, bool(reasoning)))
    return [event(each) for each in told]


def message(
    parts: Sequence[dict[str, Any]],
    reason: str = "",
    usage: tuple[int, int, int] = (0, 0, 0),
    thinks: bool = False,  # noqa: FBT001, FBT002 - whether half of the tokens are thoughts
) -> dict[str, Any]:
    """Return one message, as a stream is made of, or a whole answer."""
    prompt, completion, cached = usage
    thoughts = completion // 2 if thinks else 0
    counts: dict[str, int] = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": completion - thoughts,
        "totalTokenCount": prompt + completion,
    }
    counts |= {"cachedContentTokenCount": cached} if cached else {}
    counts |= {"thoughtsTokenCount": thoughts} if thoughts else {}
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    candidate |= {"finishReason": reason} if reason else {}
    return {
        "candidates": [candidate],
        "usageMetadata": counts,
        "modelVersion": MODEL,
        "responseId": RESPONSE_ID,
    }


def event(told: object) -> bytes:
    """Return a server-sent event, with the ends of lines that Google sends."""
    return b"data: " + json.dumps(told).encode() + b"\r\n\r\n"


def as_json(body: bytes) -> Answer:
    """Return an answer that is this JSON."""
    return Answer(headers={"content-type": "application/json"}, chunks=(body,))


def failed(kind: str) -> Answer:
    """Return an answer that fails in this way."""
    if kind == "filter":
        return Answer.json({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": MODEL})
    if kind == "inside":
        code, status, words = _FAILED["overloaded"]
        error = {"error": {"code": code, "message": words, "status": status}}
        begun = event(message([{"text": "Hel"}]))
        return Answer.sse([begun, json.dumps(error, indent=2).encode() + b"\n\n"])
    code, status, words = _FAILED[kind]
    fields: dict[str, Any] = {"code": code, "message": words, "status": status}
    if kind in _DETAILS:
        fields["details"] = _DETAILS[kind]
    return Answer.json({"error": fields}, status=code)


def models() -> bytes:
    """Return the list of models, on one page."""
    told = [
        {
            "name": "models/gemini-2.5-flash",
            "displayName": "Gemini 2.5 Flash",
            "inputTokenLimit": 1048576,
            "outputTokenLimit": 65536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "temperature": 1,
            "maxTemperature": 2,
            "topP": 0.95,
            "topK": 64,
            "thinking": True,
        },
        {
            "name": "models/gemini-embedding-001",
            "displayName": "Gemini Embedding 001",
            "inputTokenLimit": 2048,
            "outputTokenLimit": 1,
            "supportedGenerationMethods": ["embedContent", "countTokens"],
        },
    ]
    return json.dumps({"models": told}).encode()


def vectors(count: int) -> bytes:
    """Return the vectors of so many texts, of length 5 each."""
    told = [{"values": [3.0, 4.0 if place % 2 else -4.0]} for place in range(count)]
    usage = {"promptTokenCount": 2 * count, "totalTokenCount": 2 * count}
    return json.dumps({"embeddings": told, "usageMetadata": usage}).encode()


def _pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
