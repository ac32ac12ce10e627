"""``llmdispatcher providers``: who is there to ask, and how each is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher import opening

if TYPE_CHECKING:
    from llmdispatcher.providers import Provider
    from llmdispatcher.terminal import Terminal
    from llmdispatcher.vendors.contract import VendorSpec


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    opening.add_file_options(parser.add_argument_group("the configuration"))


def providers(args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]) -> int:
    """List vendors; the exit code is 1 where none can be used."""
    from llmdispatcher.providers import Standing, look  # noqa: PLC0415 - the others do without

    priorities: Mapping[str, int] = {}
    if not vendors:
        vendors, priorities = opening.named(args)
    found = [
        attrs.evolve(each, priority=priorities.get(each.name, each.priority))
        for each in look(vendors)
    ]
    terminal.write(as_json(found) if args.json else text(found, terminal.writes_tty))
    usable = (Standing.ANSWERS, Standing.READY)
    return 0 if any(each.standing in usable for each in found) else 1


def text(found: Sequence[Provider], is_tty: bool) -> str:  # noqa: FBT001 - a fact
    """Draw a table of vendors."""
    from llmdispatcher.columns import Column, table  # noqa: PLC0415 - with the table

    return table(
        [
            Column(title="provider", cells=[each.name for each in found], worth=9),
            Column(title="status", cells=[each.standing for each in found], worth=9),
            Column(
                title="models",
                cells=["" if each.models is None else str(each.models) for each in found],
                right=True,
                worth=4,
            ),
            Column(
                title="ms",
                cells=[
                    "" if each.latency_s is None else f"{each.latency_s * 1000:.0f}"
                    for each in found
                ],
                right=True,
                worth=3,
            ),
            Column(
                title="priority",
                cells=["" if each.priority is None else str(each.priority) for each in found],
                right=True,
                worth=2,
            ),
            Column(title="", cells=[each.detail for each in found], folds=True),
        ],
        is_tty=is_tty,
    )


def as_json(found: Sequence[Provider]) -> str:
    """Write vendors as a JSON list, all in ASCII; null is "not known"."""
    return json.dumps([_row(each) for each in found], indent=1) + "\n"


def _row(each: Provider) -> Mapping[str, Any]:
    return {
        "name": each.name,
        "status": each.standing,
        "detail": each.detail or None,
        "local": each.local,
        "address": each.address or None,
        "latency_s": each.latency_s,
        "models": each.models,
        "priority": each.priority,
    }


PROVIDERS = (options, providers)
"""Options and deed of the command."""
