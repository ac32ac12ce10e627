"""How long a vendor wants to be left alone, in every form that vendors say it. Pure.

There is no clock here: times of day are counted from the answer's own ``Date``, and mean nothing
without it. What cannot be meant (less than nothing, not a number, years) counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 7 * 86400.0
"""A week; limits of tokens a month do not say when they end. What is longer is not meant."""

_MAX_HEADERS = 256
_MAX_CHARS = 64
"""A time or duration is not longer."""

_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_DURATION = re.compile(
    r"(?:(?P<d>\d{1,9}(?:\.\d{1,9})?)d)?(?:(?P<h>\d{1,9}(?:\.\d{1,9})?)h)?"
    r"(?:(?P<m>\d{1,9}(?:\.\d{1,9})?)m)?(?:(?P<s>\d{1,12}(?:\.\d{1,18})?)s)?"
    r"(?:(?P<ms>\d{1,15}(?:\.\d{1,9})?)ms)?(?:(?P<us>\d{1,18}(?:\.\d{1,9})?)(?:us|µs|μs))?"
    r"(?:(?P<ns>\d{1,18})ns)?",
    re.ASCII,
)
"""As Go writes durations, and Google: ``6m0s``, ``12ms``, ``37.2s``."""
_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_EPOCH_S, _EPOCH_MS = 1e9, 1e12
"""From here on a number is no duration but a time: seconds, or milliseconds, since 1970."""

_TOLD = re.compile(
    r"\b(?:try(?:ing)?(?: your request)? again|retry(?:ing)?|wait(?:ing)?(?: for)?|retry[- ]after"
    r"|available again|resets?)"
    r"(?: in| after| for| at least|:)?(?: about| approximately)? {0,2}"
    r"(?:(?P<amount>\d{1,9}(?:\.\d{1,18})?) (?P<unit>[a-z]{1,12})\b"
    r"|(?P<duration>(?:\d{1,9}(?:\.\d{1,18})?(?:ms|us|µs|[dhms])){1,6})(?!\w))",
    re.IGNORECASE,
)
_WORDS_S = {"mil": 1e-3, "sec": 1.0, "min": 60.0, "hou": 3600.0, "day": 86400.0}
"""Units by how they begin, written out."""


def retry_after_s(
    headers: Mapping[str, str], waits: Iterable[object] = (), message: str = ""
) -> float | None:
    """Return the seconds after which the vendor says to come back, or None.

    Headers come first (``retry-after-ms`` is the finer one), then fields of the body, then words.
    """
    if (wait_s := _scaled(headers.get("retry-after-ms"), 1e-3)) is not None:
        return wait_s
    if (wait_s := moment_s(headers.get("retry-after"), headers)) is not None:
        return wait_s
    for value in waits:
        if (wait_s := duration_s(value)) is not None:
            return wait_s
    return _worded(message)


def reset_s(headers: Mapping[str, str]) -> float | None:
    """Return when the limits that are used up are there again, by the headers that count them.

    Where none is said to be used up, what was asked for was more than was left: the longest of them
    then is what surely suffices. One vendor says when a day's limit ends beside a minute's, which
    is why used-up ones come first.
    """
    empty: list[float] = []
    others: list[float] = []
    for left, wait_s in _resets(headers):
        (empty if left == 0 else others).append(wait_s)
    return max(empty or others, default=None)


def _resets(headers: Mapping[str, str]) -> Iterator[tuple[float | None, float]]:
    """Yield what is left of each limit, and the seconds until it is whole again."""
    for name, value in [*headers.items()][:_MAX_HEADERS]:
        if "ratelimit" in name and "reset" in name:
            left = _scaled(headers.get(name.replace("reset", "remaining")), 1.0)
            if (wait_s := moment_s(value, headers)) is not None:
                yield left, wait_s
        elif name == "ratelimit":  # the IETF's draft: "default";r=0;t=30, or remaining=0, reset=30
            found = dict(re.findall(r"\b(r|t|remaining|reset)=(\d{1,9})", value[:200]))
            left = _scaled(found.get("r", found.get("remaining")), 1.0)
            if (wait_s := duration_s(found.get("t", found.get("reset")))) is not None:
                yield left, wait_s


def duration_s(value: object) -> float | None:
    """Return a number of seconds, or a duration such as ``6m0s``; None for what is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _bounded(value)
    if not isinstance(value, str) or len(value) > _MAX_CHARS:
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _bounded(float(text))
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    return _bounded(
        sum(float(part) * _UNITS_S[unit] for unit, part in found.groupdict().items() if part)
    )


def _bounded(wait_s: float) -> float | None:
    """Return what may be meant. A whole number may be too large for a float."""
    if not 0 <= wait_s <= MAX_WAIT_S or not math.isfinite(wait_s):
        return None
    return float(wait_s)


def _scaled(value: str | None, scale: float) -> float | None:
    """Return a plain number, times something."""
    text = (value or "").strip()
    if len(text) > _MAX_CHARS or not _NUMBER.fullmatch(text):
        return None
    return _bounded(float(text) * scale)


def moment_s(value: str | None, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a time, or a duration, that a header tells."""
    text = (value or "").strip()
    if not text or len(text) > _MAX_CHARS:
        return None
    if _NUMBER.fullmatch(text) and float(text) >= _EPOCH_S:
        stamp = float(text)
        when = stamp / 1000 if stamp >= _EPOCH_MS else stamp
    elif (wait_s := duration_s(text)) is not None:
        return wait_s
    elif (told := _time(text)) is not None:
        when = told
    else:
        return None
    now = _time(headers.get("date", "").strip()[:_MAX_CHARS])
    return None if now is None else _bounded(max(0.0, when - now))


def _time(text: str) -> float | None:
    """Return a time of day as seconds since 1970: an HTTP date, or as RFC 3339 writes it."""
    try:
        when = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _worded(message: str) -> float | None:
    """Return the wait that a sentence tells: ``Please try again in 6m0s``."""
    found = _TOLD.search(message)
    if found is None:
        return None
    if found["duration"]:
        return duration_s(found["duration"].lower())
    unit = found["unit"].lower()
    if (scale := _WORDS_S.get(unit[:3])) is not None:
        return _bounded(float(found["amount"]) * scale)
    return duration_s(found["amount"] + unit)
