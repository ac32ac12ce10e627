"""``llmdispatcher config``: write a configuration file, check one, show what it comes to."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.check import path_of
from llmdispatcher.models.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from llmdispatcher.config.places import Place
    from llmdispatcher.config.settings import Settings
    from llmdispatcher.config.showing import Row
    from llmdispatcher.terminal import Terminal
    from llmdispatcher.vendors.contract import VendorSpec

WRONG = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the three commands and their options."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    init = commands.add_parser("init", help="write a file, made of what is found on this machine")
    init.add_argument("models", nargs="*", metavar="FILE.gguf", help="models to put into it")
    init.add_argument("--path", metavar="FILE", help="where; default: ./llmdispatcher.yaml")
    check = commands.add_parser("check", help="tell every problem of a file; exit code 2 if any")
    show = commands.add_parser("show", help="show which file counts and what it comes to")
    for each in (check, show):
        each.add_argument("file", nargs="?", metavar="FILE", help="default: the one that is found")
        each.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, terminal: Terminal, _: Sequence[VendorSpec]) -> int:
    """Do what the options say, and return the exit code."""
    match args.what:
        case "init":
            return _init(args, terminal)
        case "check":
            return _check(args, terminal)
    return _show(args, terminal)


CONFIG = (add_options, run)


def _init(args: argparse.Namespace, terminal: Terminal) -> int:
    from llmdispatcher.config import found, making, places  # noqa: PLC0415 - yaml takes a while
    from llmdispatcher.vendors.http import scout  # noqa: PLC0415 - as above

    files = [path_of("model", each) for each in args.models]
    for path in files:
        if not path.is_file():
            raise RequestError(f"there is no file {path}")
    content = making.text(found.clouds(os.environ), scout.shared().look(), files)
    path = path_of("--path", args.path or places.FILE)
    making.write(path, content, os.environ)
    terminal.write(f"wrote {path}: edit it, then llmdispatcher config check\n")
    return 0


def _check(args: argparse.Namespace, terminal: Terminal) -> int:
    place = _place(args)
    if place is None:
        raise RequestError("there is no configuration file; llmdispatcher config init writes one")
    try:
        settings = _load(place)
    except ConfigError as error:
        problems = [attrs.asdict(problem) for problem in error.problems]
        told = {"file": str(place.path), "ok": False, "problems": problems, "notes": []}
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        terminal.write(json.dumps(told) + "\n" if args.json else f"{error}\n{count}\n")
        return WRONG
    notes = [attrs.asdict(hint) for hint in settings.hints]
    if args.json:
        told = {"file": str(place.path), "ok": True, "problems": [], "notes": notes}
        terminal.write(json.dumps(told) + "\n")
        return 0
    for hint in settings.hints:
        terminal.note(str(hint))
    names = ", ".join(spec.name for spec in settings.specs) or "what is found"
    terminal.write(f"{place.path}: ok; asks {names}\n")
    return 0


def _show(args: argparse.Namespace, terminal: Terminal) -> int:
    from llmdispatcher.config import places, showing  # noqa: PLC0415 - yaml takes a while
    from llmdispatcher.config.settings import Settings  # noqa: PLC0415 - as above

    place = _place(args)
    settings = Settings() if place is None else _load(place)
    rows = showing.rows(settings, os.environ)
    looked = places.places(args.file, os.environ)
    if args.json:
        told = {
            "file": None if place is None else str(place.path),
            "why": None if place is None else place.why,
            "looked": [str(each.path) for each in looked],
            "values": [attrs.asdict(row) for row in rows],
        }
        terminal.write(json.dumps(told) + "\n")
        return 0
    for each in looked:
        chosen = place is not None and each.path == place.path
        state = "this one counts" if chosen else "there is none"
        state = "comes after it" if each.is_there and not chosen else state
        terminal.write(f"# {each.path} ({each.why}): {state}\n")
    terminal.write(_table(rows))
    return 0


def _table(rows: Sequence[Row]) -> str:
    width = min(60, max(len(f"{row.key}: {row.value}") for row in rows))
    return "".join(f"{f'{row.key}: {row.value}':<{width}}  # {row.source}\n" for row in rows)


def _place(args: argparse.Namespace) -> Place | None:
    from llmdispatcher.config import places  # noqa: PLC0415 - as above

    return places.chosen(args.file, os.environ)


def _load(place: Place) -> Settings:
    from llmdispatcher.config import settings  # noqa: PLC0415 - as above

    return settings.load(place.path, os.environ, is_strange=place.is_strange)
