"""What an answer's headers tell of the limits that hold at the vendor. Pure.

Vendors use the same few words in different orders: ``x-ratelimit-remaining-tokens`` (OpenAI, Azure,
Groq), ``anthropic-ratelimit-output-tokens-reset``, ``x-ratelimit-limit-req-minute`` (Mistral),
``x-ratelimit-reset-requests-day`` (Cerebras), ``x-tokenlimit-remaining`` (Together). So a name is
read as a set of words; with a word that is not known, nothing is known of what it counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import attrs

from llmdispatcher.models.headroom import Headroom, Quantity, Room
from llmdispatcher.vendors.wire.patience import moment_s

MAX_ROOMS = 16
"""Of one answer; none tells of more than ten limits."""

_MAX_HEADERS = 256
_MAX_CHARS = 80
"""A name is not longer."""

_NAME = re.compile(
    r"(?P<via>llm_provider-)?(?:x-|anthropic-)?(?P<kind>ratelimit|ratelimitbysize|tokenlimit)"
    r"-(?P<words>[a-z0-9-]+)",
    re.ASCII,
)
"""A LiteLLM proxy passes on what its vendor said behind ``llm_provider-``."""

_FACTS = frozenset({"limit", "remaining", "reset"})
_SIDES = {
    "input": Quantity.INPUT_TOKENS,
    "prompt": Quantity.INPUT_TOKENS,
    "output": Quantity.OUTPUT_TOKENS,
    "generated": Quantity.OUTPUT_TOKENS,  # Fireworks
}
_UNITS = {
    "requests": Quantity.REQUESTS,
    "req": Quantity.REQUESTS,
    "tokens": Quantity.TOKENS,
}
_WINDOWS = {
    "second": "second",
    "minute": "minute",
    "hour": "hour",
    "1h": "hour",  # Nous
    "day": "day",
    "month": "month",
    "project": "project",  # OpenAI: of the project's own, beside the organisation's
}
_BARE = {
    "ratelimit": Quantity.REQUESTS,
    "ratelimitbysize": Quantity.TOKENS,  # Mistral, before 2026
    "tokenlimit": Quantity.TOKENS,
}
"""What a name counts that does not say it."""

_COUNT = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)


@attrs.frozen
class _Meaning:
    """What a header is about."""

    fact: str
    quantity: Quantity
    window: str
    is_passed_on: bool
    """By a proxy, whose own limits come first."""


def headroom(headers: Mapping[str, str]) -> Headroom:
    """Read all limits that the headers tell of; names are in lower case.

    Times of day count from the answer's own ``Date``. A limit of nothing is no limit: Azure has
    been seen to say so of what it went on to serve.
    """
    found: dict[tuple[Quantity, str], dict[str, str]] = {}
    for meaning, value in sorted(_told(headers), key=lambda told: told[0].is_passed_on):
        facts = found.setdefault((meaning.quantity, meaning.window), {})
        facts.setdefault(meaning.fact, value)
    rooms = (_room(key, facts, headers) for key, facts in found.items())
    return Headroom([room for room in rooms if room is not None][:MAX_ROOMS])


def _told(headers: Mapping[str, str]) -> Iterator[tuple[_Meaning, str]]:
    for name, value in [*headers.items()][:_MAX_HEADERS]:
        if "limit" not in name or len(name) > _MAX_CHARS:
            continue
        if (meaning := _meaning(name)) is not None:
            yield meaning, value


@lru_cache(maxsize=256)  # a vendor tells the same ones with every answer
def _meaning(name: str) -> _Meaning | None:
    """Tell what a name is about, if every word of it is known and none stands twice."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    fact, window = "", ""
    unit: Quantity | None = None
    side: Quantity | None = None
    for word in match["words"].split("-"):
        if not fact and word in _FACTS:
            fact = word
        elif unit is None and word in _UNITS:
            unit = _UNITS[word]
        elif side is None and word in _SIDES:
            side = _SIDES[word]
        elif not window and word in _WINDOWS:
            window = _WINDOWS[word]
        else:
            return None
    if not fact or (side is not None and unit is not Quantity.TOKENS):
        return None
    quantity = side or unit or _BARE[match["kind"]]
    return _Meaning(fact, quantity, window, match["via"] is not None)


def _room(
    key: tuple[Quantity, str], facts: Mapping[str, str], headers: Mapping[str, str]
) -> Room | None:
    """Make a limit of what was told of it, if that is anything to go by."""
    limit, remaining = _count(facts.get("limit")), _count(facts.get("remaining"))
    if limit == 0 or (limit is None and remaining is None):
        return None
    reset = moment_s(facts.get("reset"), headers)
    return Room(quantity=key[0], window=key[1], limit=limit, remaining=remaining, reset_s=reset)


def _count(value: str | None) -> int | None:
    """Return a whole number; None for what is none, such as -1."""
    text = (value or "").strip()
    return int(float(text)) if len(text) <= _MAX_CHARS and _COUNT.fullmatch(text) else None
