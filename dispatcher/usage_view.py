"""``llmdispatcher usage`` and ``export``: what the ledger says, for people and programs.

Owns the options of both. Text that a vendor or a caller chose is shown as text: no control
characters reach a terminal, and no cell a spreadsheet would run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.check import path_of
from llmdispatcher.terminal import one_line

if TYPE_CHECKING:
    import argparse

    from llmdispatcher.ledger_queries import Reader, Tally, Times
    from llmdispatcher.terminal import Terminal
    from llmdispatcher.vendors.contract import VendorSpec

FORMATS = ("json", "csv", "prometheus")

_BY = ("vendor", "model", "day", "tag", "key", "outcome")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, "CSV injection")."""


def usage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``usage``."""
    parser.add_argument("--by", choices=_BY, default="model", help="one line for each of these")
    _common(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``export``."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="json and csv: every attempt; prometheus: sums, in its text format",
    )
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", metavar="WHEN", help="7d, 12h, 30m, or a day or time in UTC; default: all"
    )
    parser.add_argument(
        "--ledger", metavar="FILE", help="default: the one in the user's data folder"
    )


def usage(args: argparse.Namespace, terminal: Terminal, _: Sequence[VendorSpec]) -> int:
    """Show what was used and what it cost."""
    reader, path = _reader(args)
    tallies = reader.tallies(args.by)
    if args.json:
        total = reader.tallies()
        terminal.write(as_json(args.by, tallies, total[0] if total else None))
        return 0
    if not tallies:
        terminal.note(f"there is nothing in the ledger {path}")
        return 0
    terminal.write(table(args.by, [*tallies, *reader.tallies()], terminal.writes_tty))
    return 0


def export(args: argparse.Namespace, terminal: Terminal, _: Sequence[VendorSpec]) -> int:
    """Write the ledger for other programs."""
    reader, _path = _reader(args)
    if args.format == "prometheus":
        from llmdispatcher import prometheus  # noqa: PLC0415 - the others do without

        terminal.write(prometheus.text(reader))
        return 0
    pieces = rows_as_json if args.format == "json" else rows_as_csv
    for piece in pieces(reader.rows()):
        terminal.write(piece)
    return 0


def _reader(args: argparse.Namespace) -> tuple[Reader, Path]:
    from llmdispatcher.ledger_file import default_path  # noqa: PLC0415 - sqlite3 takes 5 ms
    from llmdispatcher.ledger_queries import Reader, since_of  # noqa: PLC0415 - as above

    path = path_of("--ledger", args.ledger) if args.ledger else default_path()
    since = since_of(args.since, datetime.now(UTC)) if args.since else ""
    return Reader(path, since), path


# -- for people --------------------------------------------------------------------------------


def _seconds(times: Times) -> str:
    if times.mean_s is None:
        return "-"
    return "/".join(f"{s or 0:.2f}" for s in (times.mean_s, times.p50_s, times.p95_s))


def _cost(tally: Tally) -> str:
    from llmdispatcher.budget import dollars  # noqa: PLC0415 - with the reader

    return dollars(tally.cost_microusd)


_COLUMNS: tuple[tuple[str, Callable[[Tally], str]], ...] = (
    ("requests", lambda t: f"{t.requests:,}"),
    ("attempts", lambda t: f"{t.attempts:,}"),
    ("absorbed", lambda t: f"{t.absorbed:,}"),
    ("failed", lambda t: f"{t.failed + t.partial + t.expired:,}"),
    ("tokens in", lambda t: f"{t.prompt_tokens:,}"),
    ("cached", lambda t: f"{t.cached_tokens:,}"),
    ("out", lambda t: f"{t.completion_tokens:,}"),
    ("cost", _cost),
    ("unknown", lambda t: f"{t.unknown_cost:,}"),
    ("latency s", lambda t: _seconds(t.latency)),
    ("first token s", lambda t: _seconds(t.first_token)),
)
_LEGEND = (
    "absorbed: failures after which another model served; failed: also cut and never settled;"
    " unknown: attempts whose cost is not known, and so is not in the cost;"
    " s: mean/median/95th percentile of what was served\n"
)


def table(by: str, tallies: Sequence[Tally], is_tty: bool) -> str:  # noqa: FBT001 - a fact
    """Draw the figures, the last line being the sum: boxed on a terminal, else plain text."""
    from rich import box  # noqa: PLC0415 - 50 ms, for this alone
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    drawn = Table(box=box.SIMPLE_HEAD if is_tty else None, pad_edge=False)
    drawn.add_column(by, overflow="fold")
    for title, _ in _COLUMNS:
        drawn.add_column(title, justify="right", no_wrap=True)
    for number, tally in enumerate(tallies, 1):
        name = "in all" if number == len(tallies) else one_line(tally.group) or "(none)"
        drawn.add_row(Text(name), *(Text(show(tally)) for _, show in _COLUMNS))
    out = io.StringIO()
    # Wide enough for every column: a reader of lines would rather scroll than guess.
    Console(file=out, width=240, color_system=None, legacy_windows=False).print(drawn)
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(line for line in lines if line) + "\n" + _LEGEND


# -- for programs ------------------------------------------------------------------------------


def as_json(by: str, tallies: Sequence[Tally], total: Tally | None) -> str:
    """Write the figures as one JSON object, all in ASCII."""
    groups = [attrs.asdict(tally) for tally in tallies]
    whole = attrs.asdict(total) if total is not None else None
    return json.dumps({"by": by, "groups": groups, "total": whole}, indent=1) + "\n"


def rows_as_json(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Write every attempt as an object in a JSON list, piece by piece."""
    before = "["
    for row in rows:
        yield f"{before}\n{json.dumps(row)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def rows_as_csv(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Write every attempt as a line of CSV (RFC 4180), after a line with the names."""
    import csv  # noqa: PLC0415 - for this alone

    from llmdispatcher.ledger_queries import COLUMNS  # noqa: PLC0415 - sqlite3 takes 5 ms

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    yield _taken(out)
    for row in rows:
        writer.writerow(_cell(row[name]) for name in COLUMNS)
        yield _taken(out)


def _taken(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


def _cell(value: object) -> object:
    """Return a value as a spreadsheet takes it for text or a number, and for nothing else."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


USAGE = (usage_options, usage)
EXPORT = (export_options, export)
"""Options and deed of each command."""
