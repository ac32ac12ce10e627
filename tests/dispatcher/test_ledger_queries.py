"""What the ledger answers: figures by group, and rows for other programs."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from books import NOON_S, ask, closed, opening
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import BadRequest, LedgerUnusable, SpendingCap, Usage, usage_view
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_entry import Fate
from llmdispatcher.ledger_queries import COLUMNS, GROUPS, Reader, Times, since_of
from llmdispatcher.models.reply import Outcome
from llmdispatcher.prometheus import text as prometheus
from llmdispatcher.usage_view import rows_as_csv, rows_as_json, table

HOSTILE = '=cmd|"/c calc"!A0,\\x'
"""A model's name that a spreadsheet would run, with what CSV and Prometheus must escape."""


class Time:
    """A clock."""

    now_s = NOON_S


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A ledger of two days: a request with a failure before it, a free one, one of unknown cost."""
    place = tmp_path / "ledger.sqlite3"
    cap = SpendingCap("1", period="day", scope="tag", name="capped")
    ledger = Ledger(place, caps=[cap], wall=lambda: Time.now_s)
    used = Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=60, reasoning_tokens=5)

    failed = ask(ledger, one=opening("a", model="big", request_id="r1", tags=("x", "y")))
    ledger.settle(failed, closed(0, Outcome.FAILED, error="Overloaded: secret words", status=529))
    served = ask(ledger, one=opening("b", model="small", request_id="r1", number=2, tags=("x",)))
    ledger.settle(served, closed(700, usage=used, latency_s=1.0, first_token_s=0.2))
    ledger.absorb([failed])
    free = ask(ledger, one=opening("b", model="small", request_id="r2", key="k1"))
    ledger.settle(free, closed(0, latency_s=3.0, first_token_s=0.4))
    Time.now_s = NOON_S + 86_400
    unknown = ask(ledger, one=opening("b", model=HOSTILE, request_id="r3"))
    ledger.settle(unknown, closed(None, usage=Usage(completion_tokens=1, estimated=True)))
    cut = ask(ledger, 500, opening("a", model="big", request_id="r4", tags=("capped",)))
    ledger.settle(cut, closed(None, Outcome.FAILED, fate=Fate.PARTIAL, unknown_outcome=True))
    ask(ledger, 900, opening("a", model="big", request_id="r5", tags=("capped",)))
    ledger.close()
    yield place
    Time.now_s = NOON_S


def test_figures_by_model_keep_what_is_known_and_what_is_not_apart(path: Path) -> None:
    """Requests, attempts, fates, tokens, cost, and times of what was served."""
    big, hostile, small = Reader(path).tallies("model")

    assert (big.group, big.requests, big.attempts) == ("a/big", 3, 3)
    assert (big.absorbed, big.partial, big.open, big.served, big.failed) == (1, 1, 1, 0, 0)
    assert (big.cost_microusd, big.unknown_cost) == (0, 1)
    assert (big.assumed_microusd, big.reserved_microusd) == (500, 900)
    assert big.latency == Times()
    assert hostile.group == f"b/{HOSTILE}"
    assert (hostile.estimated, hostile.unknown_cost, hostile.completion_tokens) == (1, 1, 1)
    assert (small.requests, small.served, small.cost_microusd) == (2, 2, 700)
    assert (small.prompt_tokens, small.cached_tokens, small.reasoning_tokens) == (110, 60, 5)
    assert small.latency == Times(count=2, sum_s=4.0, mean_s=2.0, p50_s=1.0, p95_s=3.0)
    assert small.first_token.p50_s == 0.2


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("vendor", {"a": 3, "b": 3}),
        ("day", {"2026-11-20": 3, "2026-11-21": 3}),
        ("tag", {"": 2, "x": 2, "y": 1, "capped": 2}),
        ("key", {"": 5, "k1": 1}),
        ("outcome", {"absorbed": 1, "served": 3, "partial": 1, "open": 1}),
        ("", {"": 6}),
    ],
)
def test_every_grouping_counts_every_attempt(path: Path, by: str, expected: dict[str, int]) -> None:
    """An attempt of two tags is in both; one without any has a group, too."""
    assert {tally.group: tally.attempts for tally in Reader(path).tallies(by)} == expected


def test_a_request_counts_once_in_each_group(path: Path) -> None:
    """Two attempts of one request are one request in all, and one at each vendor."""
    (total,) = Reader(path).tallies()

    assert (total.requests, total.attempts) == (5, 6)
    assert {tally.group: tally.requests for tally in Reader(path).tallies("vendor")} == {
        "a": 3,
        "b": 3,
    }


def test_since_leaves_out_what_was_before(path: Path) -> None:
    """By the time at which an attempt began."""
    (tally,) = Reader(path, since_of("2026-11-21", datetime.now(UTC))).tallies()

    assert tally.attempts == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", "2026-11-13T12:00:00.000000Z"),
        ("12h", "2026-11-20T00:00:00.000000Z"),
        ("30m", "2026-11-20T11:30:00.000000Z"),
        ("2026-11-01", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T10:00+02:00", "2026-11-01T08:00:00.000000Z"),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: str) -> None:
    """Spans before now, and days and times in UTC unless they say otherwise."""
    assert since_of(text, datetime.fromtimestamp(NOON_S, UTC)) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "d", "-1d", "99999999999d", "2026-13-01", "²d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With what would be one."""
    with pytest.raises(BadRequest, match="such as 7d"):
        since_of(text, datetime.fromtimestamp(NOON_S, UTC))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_percentiles_are_values_that_so_many_do_not_exceed(seconds: list[float]) -> None:
    """Nearest rank: a value that was measured, with at least that share at or below it."""
    times = Times.of(seconds)

    for share, value in ((0.5, times.p50_s), (0.95, times.p95_s)):
        assert value in seconds
        assert sum(each <= value for each in seconds) >= share * len(seconds)
        assert sum(each < value for each in seconds) < share * len(seconds)
    assert times.mean_s == pytest.approx(statistics.fmean(seconds))


def test_a_ledger_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """Reading makes no file."""
    reader = Reader(tmp_path / "none.sqlite3")

    assert reader.tallies("model") == ()
    assert list(reader.rows()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """Garbage and databases of others."""
    garbage, other = tmp_path / "garbage", tmp_path / "other"
    garbage.write_bytes(b"no database " * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()

    for path in (garbage, other):
        with pytest.raises(LedgerUnusable, match=path.name):
            Reader(path).tallies()
        with pytest.raises(LedgerUnusable, match=path.name):
            list(Reader(path).rows())
    with pytest.raises(BadRequest, match="vendor"):
        Reader(garbage).tallies("colour")


def test_reading_waits_for_no_writer(path: Path) -> None:
    """A transaction that is open elsewhere does not hold readers up."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM attempts")
    try:
        assert Reader(path).tallies()[0].attempts == 6
    finally:
        writer.close()


def test_json_has_every_row_and_reads_back(path: Path) -> None:
    """A list of objects, tags as lists, truths as truths."""
    rows = json.loads("".join(rows_as_json(Reader(path).rows())))

    assert [row["request_id"] for row in rows] == ["r1", "r1", "r2", "r3", "r4", "r5"]
    assert rows[0]["tags"] == ["x", "y"]
    assert rows[3]["estimated"] is True
    assert rows[3]["cost_microusd"] is None
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert json.loads("".join(rows_as_json(iter([])))) == []


def test_csv_is_rfc_4180_and_no_cell_is_a_formula(path: Path) -> None:
    """A header, CRLF, quotes doubled; what a spreadsheet would run begins with an apostrophe."""
    text = "".join(rows_as_csv(Reader(path).rows()))
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)

    assert header == list(COLUMNS)
    assert len(rows) == 6
    assert text.count("\r\n") == 7
    model = rows[3][header.index("model")]
    assert model == f"'{HOSTILE}"
    assert '"\'=cmd|""/c calc""!A0,\\x"' in text
    assert rows[0][header.index("tags")] == "x y"
    assert rows[3][header.index("cost_microusd")] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_begins_as_a_formula_does(start: str) -> None:
    """Not even in a tag; numbers stay numbers."""
    row = {**dict.fromkeys(COLUMNS, -1), "vendor": f"{start}1", "tags": [f"{start}1"]}
    _, cells = csv.reader(io.StringIO("".join(rows_as_csv(iter([row]))), newline=""))

    found = dict(zip(COLUMNS, cells, strict=True))
    assert found["vendor"] == found["tags"] == f"'{start}1"
    assert found["status"] == "-1"


LINE = re.compile(
    r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\}'
    r" (?P<value>NaN|[0-9.e+-]+)"
)


def test_prometheus_text_is_well_formed(path: Path) -> None:
    """Help and type before the samples of each family, labels escaped, no series twice."""
    seen: set[str] = set()
    family = kind = ""
    for line in prometheus(Reader(path)).splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen
            seen.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            kind = line.split()[3]
            assert kind in {"counter", "gauge", "summary"}
            assert (kind == "counter") == family.endswith("_total")
        else:
            match = LINE.fullmatch(line)
            assert match, line
            suffix = match["name"].removeprefix(family)
            assert suffix in ({"", "_sum", "_count"} if kind == "summary" else {""})
            series = line.rpartition(" ")[0]
            assert series not in seen
            seen.add(series)


def test_prometheus_has_the_figures(path: Path) -> None:
    """Dollars exact, unknown costs apart, absorbed failures a label."""
    lines = prometheus(Reader(path)).splitlines()
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')

    small, big = 'vendor="b",model="small"', 'vendor="a",model="big"'
    assert f"llmdispatcher_cost_usd_total{{{small}}} 0.0007" in lines
    assert f'llmdispatcher_attempts_total{{{big},outcome="absorbed"}} 1' in lines
    assert f'llmdispatcher_tokens_total{{{small},kind="cached"}} 60' in lines
    assert f"llmdispatcher_reserved_usd{{{big}}} 0.0009" in lines
    assert f'llmdispatcher_latency_seconds{{{small},quantile="0.95"}} 3.0' in lines
    assert f"llmdispatcher_latency_seconds_count{{{small}}} 2" in lines
    unknown = f'llmdispatcher_unknown_cost_attempts_total{{vendor="b",model="{escaped}"}} 1'
    assert unknown in lines


def test_the_table_has_a_line_for_each_group_and_one_for_all(path: Path) -> None:
    """Every figure is a column, and a hostile name is only text."""
    tallies = [*Reader(path).tallies("model"), *Reader(path).tallies()]

    lines = table("model", tallies, is_tty=False).splitlines()

    assert lines[0].split()[:3] == ["model", "requests", "attempts"]
    small = next(line.split() for line in lines if line.startswith("b/small"))
    assert small[1:10] == ["2", "2", "0", "0", "110", "60", "25", "$0.000700", "0"]
    assert small[10:] == ["2.00/1.00/3.00", "0.30/0.20/0.40"]
    assert any(line.startswith("in all") for line in lines)
    marked = attrs.evolve(tallies[0], group="[bold]a[/bold]\x1b[31m")
    assert "[bold]a[/bold][31m" in table("tag", [marked, tallies[-1]], is_tty=True)


def test_the_words_are_those_of_the_command_line() -> None:
    """What can be grouped by is the same in both."""
    assert usage_view._BY == GROUPS
