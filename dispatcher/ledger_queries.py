"""What the ledger is asked: figures by vendor, model, day, tag, key or outcome, and its rows.

Reading waits for no writer and changes nothing. Costs that are known and costs that are not stand
apart: nothing unknown is added up as zero, or as its worst case.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from llmdispatcher.ledger_entry import Fate
from llmdispatcher.ledger_file import Trouble, check, reading, trouble_of
from llmdispatcher.models.errors import BadRequest, LedgerUnusable

GROUPS = ("vendor", "model", "day", "tag", "key", "outcome")
"""What figures can be grouped by."""

_GROUP_SQL = {
    "": "''",
    "vendor": "vendor",
    "model": "vendor || '/' || model",
    "day": "day",
    "tag": "tag.value",
    "key": "key_fingerprint",
    "outcome": "fate",
}
_SUMS = {
    "requests": "count(DISTINCT request_id)",
    "attempts": "count(*)",
    **{str(fate): f"sum(fate = '{fate}')" for fate in Fate},
    "prompt_tokens": "sum(prompt_tokens)",
    "completion_tokens": "sum(completion_tokens)",
    "cached_tokens": "sum(cached_tokens)",
    "cache_write_tokens": "sum(cache_write_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "estimated": "sum(estimated)",
    "cost_microusd": "coalesce(sum(cost_microusd), 0)",
    "unknown_cost": "sum(cost_microusd IS NULL AND fate != 'open')",
    "assumed_microusd": "sum(CASE WHEN cost_microusd IS NULL THEN counted_microusd"
    " ELSE counted_microusd - cost_microusd END)",
    "reserved_microusd": "coalesce(sum(CASE WHEN fate = 'open' THEN reserved_microusd END), 0)",
}

_COLUMNS = (
    "id request_id number retry_of unknown_outcome vendor model served_model key_fingerprint tags"
    " fate error_class status vendor_request_id started_at ended_at expired_at day prompt_tokens"
    " completion_tokens cached_tokens cache_write_tokens reasoning_tokens estimated cost_microusd"
    " counted_microusd reserved_microusd charged_microusd price_version latency_s first_token_s"
    " load_s"
)
COLUMNS = tuple(_COLUMNS.split())
"""What is told of an attempt, in this order."""


@attrs.frozen(kw_only=True)
class Times:
    """Seconds over attempts that were served; None where there was none."""

    count: int = 0
    sum_s: float = 0.0
    mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Sum up; a percentile is the least value that so many do not exceed (nearest rank)."""
        if not seconds:
            return cls()
        ordered, total = sorted(seconds), math.fsum(seconds)
        rank = [ordered[max(0, math.ceil(len(ordered) * share) - 1)] for share in (0.5, 0.95)]
        return cls(
            count=len(ordered),
            sum_s=total,
            mean_s=total / len(ordered),
            p50_s=rank[0],
            p95_s=rank[1],
        )


@attrs.frozen(kw_only=True)
class Tally:
    """The figures of one group."""

    group: str
    """Its vendor, ``vendor/model``, day, tag, key or outcome; "" for all together."""
    requests: int
    """With at least one attempt in this group."""
    attempts: int
    open: int
    served: int
    failed: int
    absorbed: int
    """Failures that nobody noticed, because another attempt served the request."""
    cancelled: int
    partial: int
    expired: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    estimated: int
    """Attempts whose tokens are estimated."""
    cost_microusd: int
    """Sum over the attempts whose cost is known."""
    unknown_cost: int
    """Attempts whose cost is not known."""
    assumed_microusd: int
    """What caps count beyond that: worst cases of attempts of unknown cost or outcome."""
    reserved_microusd: int
    """Set aside for attempts that have not ended."""
    latency: Times
    first_token: Times


def since_of(text: str, now: datetime) -> str:
    """Read a time: ``7d``, ``12h``, ``30m`` before now, or a day or time in UTC (ISO 8601).

    Returns it as rows have it. Raises BadRequest.
    """
    units = {"d": 86_400, "h": 3_600, "m": 60}
    try:
        if text[-1:] in units and text[:-1].isascii() and text[:-1].isdigit():
            at_s = now.timestamp() - int(text[:-1]) * units[text[-1]]
            found = datetime.fromtimestamp(at_s, UTC)
        else:
            found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        allowed = "such as 7d, 12h, 30m, 2026-11-20 or 2026-11-20T10:00 (UTC)"
        raise BadRequest("since", text, allowed) from None
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Reader:
    """Reads a ledger. A file that does not exist is an empty one."""

    def __init__(self, path: Path, since: str = "") -> None:
        """``since`` leaves out attempts that began before that time, as ``since_of`` returns it."""
        self._path, self._since = path, since

    def tallies(self, by: str = "") -> tuple[Tally, ...]:
        """Return the figures of each group, in order of name. Raises BadRequest, LedgerUnusable.

        An attempt with several tags is in the group of each; one without has the group "".
        """
        if by not in _GROUP_SQL:
            raise BadRequest("by", by, f"one of {', '.join(GROUPS)}")
        group = _GROUP_SQL[by]
        source = "attempts"
        if by == "tag":  # an empty list has no row of its own
            source += ", json_each(iif(tags = '[]', '[\"\"]', tags)) AS tag"
        sums = ", ".join(_SUMS.values())
        select = f"SELECT {group}, {sums} FROM {source} WHERE started_at >= ?"  # noqa: S608 - our own words
        times = (
            f"SELECT {group}, latency_s, first_token_s FROM {source}"  # noqa: S608 - our own words
            " WHERE started_at >= ? AND fate = 'served'"
        )
        names = ("group", *_SUMS)
        with self._opened() as connection:
            if connection is None:
                return ()
            connection.execute("BEGIN")  # both see the same moment
            rows = connection.execute(f"{select} GROUP BY 1 ORDER BY 1", (self._since,)).fetchall()
            spans: dict[str, tuple[list[float], list[float]]] = {row[0]: ([], []) for row in rows}
            for name, latency_s, first_s in connection.execute(times, (self._since,)):
                spans[name][0].extend([latency_s] if latency_s is not None else ())
                spans[name][1].extend([first_s] if first_s is not None else ())
        return tuple(
            Tally(
                **dict(zip(names, row, strict=True)),
                latency=Times.of(spans[row[0]][0]),
                first_token=Times.of(spans[row[0]][1]),
            )
            for row in rows
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return every attempt, oldest first, by names of columns. Raises LedgerUnusable."""
        with self._opened() as connection:
            if connection is None:
                return
            found = connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM attempts"  # noqa: S608 - our own words
                " WHERE started_at >= ? ORDER BY started_at, id",
                (self._since,),
            )
            for row in found:
                each = dict(zip(COLUMNS, row, strict=True))
                each["tags"] = json.loads(each["tags"])
                each["estimated"] = bool(each["estimated"])
                each["unknown_outcome"] = bool(each["unknown_outcome"])
                yield each

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        if not self._path.exists():
            yield None
            return
        try:
            with contextlib.closing(reading(self._path)) as connection:
                yield connection if check(connection, self._path) else None
        except (sqlite3.Error, OSError, Trouble) as error:
            raise LedgerUnusable(str(trouble_of(error, self._path))) from error
