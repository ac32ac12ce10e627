"""What tests of the ledger share: attempts of few words, and an audit of the file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from llmdispatcher import Usage
from llmdispatcher.budget import Payer, Worst, accounts
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_entry import Closing, Opening, Slip
from llmdispatcher.models.reply import Attempt, Outcome

PATIENCE_S = 30.0
"""How long a test waits for what must come."""

NOON_S = 1_795_176_000.0
"""2026-11-20 12:00 UTC."""

_numbers = count(1)


def opening(vendor: str = "v", **facts: Any) -> Opening:
    """An attempt about to be made."""
    facts = {"request_id": f"r{next(_numbers)}", "number": 1, "model": "m", **facts}
    return Opening(vendor=vendor, **facts)


def closed(cost: int | None = 0, outcome: Outcome = Outcome.SERVED, **facts: Any) -> Closing:
    """An attempt that ended."""
    told = {
        name: facts.pop(name) for name in ("fate", "status", "unknown_outcome") if name in facts
    }
    attempt = Attempt(
        vendor="v",
        model="m",
        outcome=outcome,
        usage=facts.pop("usage", Usage(prompt_tokens=10, completion_tokens=5)),
        cost_microusd=cost,
        latency_s=facts.pop("latency_s", 0.5),
        **facts,
    )
    return Closing(attempt=attempt, **told)


def ask(ledger: Ledger, worst: int | None = 100, one: Opening | None = None) -> Slip:
    """Open an attempt and wait until it may be sent. Raises what ``open`` and the future do."""
    slip = ledger.open(one or opening(), lambda: Worst(worst, "nobody knows it"))
    if slip.waiting is not None:
        slip.waiting.result(PATIENCE_S)
    return slip


def until(what: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def read(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the file itself."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, values).fetchall()


def is_first(path: Path, what: str) -> bool:
    """Whether this process, of all that work beside a ledger, is the first to come to a point."""
    try:
        os.close(os.open(path.with_name(what), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def audit(path: Path) -> Counter[str]:
    """Check that every account is the sum of its rows, to the micro-dollar; count rows by fate."""
    spent: Counter[tuple[str, str, str]] = Counter()
    reserved: Counter[tuple[str, str, str]] = Counter()
    fates: Counter[str] = Counter()
    rows = read(
        path,
        "SELECT vendor, key_fingerprint, (SELECT group_concat(value, '\x1f') FROM json_each(tags)),"
        " day, fate, counted_microusd, reserved_microusd FROM attempts",
    )
    for vendor, key, tags, day, fate, counted, set_aside in rows:
        fates[fate] += 1
        payer = Payer(vendor, key, tuple(tags.split("\x1f")) if tags else ())
        for account in accounts(payer, day):
            name = (account.scope, account.name, account.start)
            spent[name] += counted
            reserved[name] += set_aside if fate == "open" else 0
    kept = read(path, "SELECT * FROM accounts")
    assert {(s, n, t): (a, b) for s, n, t, a, b in kept if a or b} == {
        name: (spent[name], reserved[name])
        for name in spent.keys() | reserved.keys()
        if spent[name] or reserved[name]
    }
    assert read(path, "PRAGMA integrity_check") == [("ok",)]
    return fates
