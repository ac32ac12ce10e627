"""``llmdispatcher explain``: who would be asked, in which order and why. Nobody is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llmdispatcher.columns import Column, table
from llmdispatcher.terminal import one_line

if TYPE_CHECKING:
    import argparse

    from llmdispatcher.models.decision import Candidate, Decision
    from llmdispatcher.models.request import Options

MICRO_PER_USD = 10**6


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add those that say how to choose."""
    group = parser.add_argument_group("the choice")
    group.add_argument(
        "--strategy",
        metavar="NAME",
        help="cost (the default), priority, latency, quality, local_first, local_only, auto…",
    )
    group.add_argument("--task", metavar="NAME", help="what kind of work it is: summarisation…")
    group.add_argument("--max-tokens", type=int, metavar="N", help="the longest answer")
    group.add_argument("--max-cost", metavar="USD", help="what it may cost at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def options(args: argparse.Namespace) -> Options:
    """Return what they say, for ``Dispatcher.explain``."""
    return {
        "strategy": args.strategy,
        "task": args.task,
        "max_tokens": args.max_tokens,
        "max_cost_usd": args.max_cost,
    }


def text(decision: Decision, *, is_tty: bool) -> str:
    """Tell it to people: a line for each model, with what a good answer is expected to cost."""
    rows = [(str(place), each) for place, each in enumerate(decision.candidates, 1)]
    rows += [("-", each) for each in decision.excluded]
    if not rows:
        return "there are no models\n"
    drawn = table(
        [
            Column(title="", cells=[place for place, _ in rows], right=True, worth=3),
            Column(title="model", cells=[f"{c.vendor}/{c.model}" for _, c in rows], worth=4),
            Column(title="expected", cells=[_usd(c) for _, c in rows], right=True, worth=2),
            Column(title="why", cells=[c.note for _, c in rows], folds=True),
        ],
        is_tty=is_tty,
    )
    return drawn + "".join(f"{one_line(note)}\n" for note in decision.notes)


def as_json(decision: Decision) -> str:
    """Write it for programs, all in ASCII."""
    told = {
        "candidates": [_row(each) for each in decision.candidates],
        "excluded": [_row(each) for each in decision.excluded],
        "notes": decision.notes,
    }
    return json.dumps(told) + "\n"


def _row(each: Candidate) -> dict[str, str | None]:
    cost = each.expected_cost_microusd
    return {
        "vendor": each.vendor,
        "model": each.model,
        "expected_cost_usd": None if cost is None else f"{cost / MICRO_PER_USD:.6f}",
        "note": each.note,
    }


def _usd(each: Candidate) -> str:
    cost = each.expected_cost_microusd
    return "" if cost is None else f"${cost / MICRO_PER_USD:.6f}"
