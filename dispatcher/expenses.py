"""The money of the command line: what an answer may cost, and the ledger that it is written in."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llmdispatcher.ledger import Ledger
from llmdispatcher.models.event import BudgetAlert, LedgerTrouble

if TYPE_CHECKING:
    from llmdispatcher.terminal import Terminal


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    money = parser.add_argument_group("the money")
    money.add_argument(
        "--max-cost", metavar="USD", help="ask nobody whose answer may cost more, in dollars"
    )
    money.add_argument(
        "--no-ledger",
        action="store_true",
        help="leave no line in the ledger, which is what llmdispatcher usage reads; there is never"
        " a prompt or an answer in it",
    )


def ledger(args: argparse.Namespace, terminal: Terminal) -> Ledger | None:
    """Return the user's ledger; whatever is wrong with it is told, and costs nobody the answer."""
    if args.no_ledger:
        return None

    def hear(event: BudgetAlert | LedgerTrouble) -> None:
        if isinstance(event, LedgerTrouble) and event.kind != "over":
            terminal.note(f"{event.detail}; --no-ledger does without")

    return Ledger(on_trouble="degrade", report=hear)
