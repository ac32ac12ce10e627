"""Reads what a vendor says of an error out of any shape of body. Pure.

Some wrap the error in an object, a list, a string of JSON inside its message, or a page of HTML;
``Said`` is what they have in common. What it stands for is told in ``causes`` and ``faults``.
Whatever it is given, it reads a bounded part of it and raises nothing.
"""

from __future__ import annotations

import html
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

MATCHED_CHARS = 4000
"""How much of the words is looked at: vendors repeat whole requests in their errors."""

MAX_BODY_BYTES = 32 * 2**20
"""What is longer is not parsed: it holds more than an error."""

MAX_PARTS = 64
"""How many objects, lists and texts of a body are read, the outermost first."""

MAX_ITEMS = 8
"""How many items of a list are read."""

_PAGE_CHARS = 64 * 2**10
"""Where the title of a page is looked for."""

_WORD_CHARS = 100
"""A code or a name that is longer is none."""

_TEXTS = (
    "message",
    "msg",
    "error_message",
    "errorMessage",
    "error_description",
    "description",
    "detail",
    "title",
)
"""Fields that tell in words what happened. Some hold an object instead."""

_KINDS = (
    "type",
    "code",
    "status",
    "error_type",
    "error_code",
    "errorCode",
    "provider_code",
    "status_code",
    "statusCode",
    "raw_status_code",
    "reason",
)
"""Fields that name the error, for programs."""

_INSIDE = (
    "error",
    "errors",
    "details",
    "innererror",
    "inner_error",
    "metadata",
    "raw",
    "response",
    "loading",
    "violations",
    "fieldViolations",
    "x_groq",
    "incomplete_details",
)
"""Fields that hold more of the same."""

_NUMBERS = frozenset({"n_prompt_tokens", "n_ctx"})
_WAITS = frozenset(
    {
        "eta_seconds",
        "estimated_time",
        "retryDelay",
        "retry_after",
        "retry_after_seconds",
        "retryAfter",
    }
)
"""Seconds until it is worth asking again: numbers, or durations as text."""

_NOTHING = frozenset({"None", "null", "nil", ""})
"""What some languages write for nothing (LiteLLM: Python's)."""

_PAGES = ("<!doctype", "<html", "<head", "<body", "<?xml", "<error", "<center", "<h1")
_HEADINGS = ("title", "message", "h1", "code")
_REPEATED = re.compile(r"""['"]input['"]: |\binput_value=|\[type=\w{1,40}, """)
"""From here on pydantic repeats what it was given, which may be a whole prompt (vLLM)."""
_LITELLM = re.compile(r"litellm\.([A-Za-z]{3,60})")


@attrs.frozen(kw_only=True)
class Said:
    """What a vendor said of an error. All of it is the vendor's own, not fit to be shown yet."""

    message: str = ""
    """All the words, the outermost first; at most ``MATCHED_CHARS``."""
    kinds: frozenset[str] = frozenset()
    """Types, codes and reasons, in lower case."""
    code: int | None = None
    """The status that the body tells."""
    param: str = ""
    """The field of the request that is at fault."""
    numbers: Mapping[str, int] = attrs.field(factory=dict)
    """Counts of tokens by the vendor's name for them."""
    waits: tuple[object, ...] = ()
    """How long to wait, in the vendor's forms."""
    quotas: tuple[str, ...] = ()
    """Names and values of the limits that were hit."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Headers of the vendor behind the vendor; names in lower case."""
    request_id: str = ""
    is_page: bool = False
    """The body is a page for people: it comes from something in between."""


def of_body(body: bytes, media_type: str = "") -> Said:
    """Read the body of an answer."""
    trimmed = bytes(body[:MAX_BODY_BYTES]).strip()
    opening = trimmed[:_PAGE_CHARS].decode(errors="replace")
    if opening.lower().startswith(_PAGES) or ("html" in media_type and opening[:1] == "<"):
        return Said(message=_heading(opening), is_page=True)
    if len(body) <= MAX_BODY_BYTES:
        for text in (trimmed, *_framed(trimmed)):
            if (told := _parsed(text)) is not None:
                return of_json(told)
    return of_json(opening)


def of_json(told: object) -> Said:
    """Read an error that was parsed already, or a text."""
    reading = _Reading()
    reading.read(told)
    return reading.said()


def _parsed(text: bytes | str) -> Any:  # noqa: ANN401 - a stranger's JSON
    """Parse JSON; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _framed(body: bytes) -> Iterator[bytes]:
    """Yield the data of a body that is a stream, and of one with a text a line."""
    for line in body.split(b"\n", MAX_ITEMS)[:MAX_ITEMS]:
        data = line.strip().removeprefix(b"data:").strip()
        if data[:1] in {b"{", b"["} and len(data) < len(body):
            yield data


def _heading(page: str) -> str:
    """Return what a page is titled, or what an XML error says."""
    lower = page.lower()
    for name in _HEADINGS:
        start = lower.find(f"<{name}")
        opened = lower.find(">", start) + 1
        end = lower.find(f"</{name}", opened)
        if start >= 0 and 0 < opened <= end and (text := page[opened:end].strip()):
            return html.unescape(text[:MATCHED_CHARS])
    return ""


class _Reading:
    """Walks through a body, breadth first, and keeps what it finds."""

    def __init__(self) -> None:
        self._parts: deque[object] = deque()
        self._texts: list[str] = []
        self._kinds: set[str] = set()
        self._code: int | None = None
        self._param = ""
        self._numbers: dict[str, int] = {}
        self._waits: list[object] = []
        self._quotas: list[str] = []
        self._headers: dict[str, str] = {}
        self._request_id = ""

    def read(self, told: object) -> None:
        """Read everything, as far as the bounds go."""
        self._parts.append(told)
        for _ in range(MAX_PARTS):
            if not self._parts:
                return
            match self._parts.popleft():
                case str(text):
                    self._text(text)
                case list(rows):
                    self._parts.extend(rows[:MAX_ITEMS])
                case dict(fields):
                    self._fields(fields)

    def said(self) -> Said:
        """Return what was found."""
        return Said(
            message=": ".join(self._texts)[:MATCHED_CHARS],
            kinds=frozenset(self._kinds),
            code=self._code,
            param=self._param,
            numbers=self._numbers,
            waits=tuple(self._waits),
            quotas=tuple(self._quotas),
            headers=self._headers,
            request_id=self._request_id,
        )

    def _text(self, text: str) -> None:
        """Keep a text, or read the JSON in it."""
        text = text.strip()
        start = text.find('{"', 0, MATCHED_CHARS)
        inner = _leading(text[start:]) if start >= 0 and len(text) <= MAX_BODY_BYTES else None
        words = text if inner is None else text[:start].rstrip(" -:b'\"")
        if inner is not None:
            self._parts.append(inner)
        for name in _LITELLM.findall(words[:MATCHED_CHARS]):
            self._kinds.add(name.lower())
        words = _REPEATED.split(words[:MATCHED_CHARS], maxsplit=1)[0].rstrip(" ,[{")
        if words and not any(words in kept for kept in self._texts):
            self._texts.append(words)

    def _fields(self, fields: dict[str, Any]) -> None:
        """Read an object."""
        if "loc" in fields:  # FastAPI: one complaint about one field; its type is Python's
            self._complaint(fields)
            return
        for name in _TEXTS:
            self._part(fields.get(name))
        for name in _KINDS:
            self._kind(fields.get(name))
        for name in _INSIDE:
            self._part(fields.get(name))
        if isinstance(fields.get("loading"), dict):
            self._kinds.add("model_loading")
        if isinstance(fields.get("flagged_input"), str):  # OpenRouter's moderation
            self._kinds.add("moderation")
        self._particulars(fields)

    def _part(self, value: object) -> None:
        if isinstance(value, str):
            self._text(value)
        elif isinstance(value, dict | list):
            self._parts.append(value)

    def _kind(self, value: object) -> None:
        """Keep a name of the error; a number, or a text of one, is a status."""
        if isinstance(value, str) and 0 < len(value) <= _WORD_CHARS:
            self._kinds.add(value.lower())
            if len(value) == 3 and value.isascii() and value.isdecimal():  # noqa: PLR2004 - "429"
                value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 300 <= value < 600:  # noqa: PLR2004 - as HTTP counts
            self._code = self._code or value

    def _complaint(self, fields: dict[str, Any]) -> None:
        """Keep what FastAPI says of a field: what it repeats of the request is left."""
        path = fields["loc"] if isinstance(fields["loc"], list) else []
        names = [str(part)[:_WORD_CHARS] for part in path[:MAX_ITEMS] if part != "body"]
        message = fields.get("msg")
        if isinstance(message, str):
            self._text(f"{'.'.join(names)}: {message}" if names else message)
        self._param = self._param or ".".join(names)

    def _particulars(self, fields: dict[str, Any]) -> None:
        """Keep what only some vendors tell."""
        for name, value in fields.items():
            if name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
                self._numbers.setdefault(name, value)
            elif name in _WAITS and isinstance(value, str | int | float):
                self._waits.append(value)
            elif name == "quotaId" and isinstance(value, str):
                self._quotas.append(value[:_WORD_CHARS])
            elif name in {"param", "field"} and isinstance(value, str):
                told = value[:_WORD_CHARS] if value not in _NOTHING else ""
                self._param = self._param or told
            elif name == "request_id" and isinstance(value, str):
                self._request_id = self._request_id or value[:_WORD_CHARS]
            elif name == "headers" and isinstance(value, dict):
                pairs = {k.lower(): v for k, v in value.items() if isinstance(v, str)}
                self._headers.update(pairs)


_DECODER = json.JSONDecoder()


def _leading(text: str) -> object:
    """Return the object that a text begins with; None where it begins with none."""
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
