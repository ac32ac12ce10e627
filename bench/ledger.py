"""Claim: the ledger takes 30 µs of a caller's time at most, a reservation one wait for the disk.

    python bench/ledger.py [--rounds 7] [--quick] [--folder DIR]

All write the same rows to files in the same folder, in turns:

    books           counting in memory alone, as without a ledger
    ledger          an attempt opened and settled, no cap: rows are written behind the caller
    naive           an INSERT and a COMMIT by the caller for each attempt, not waiting for the disk
    capped          an attempt under a cap: reserved, on the disk before it may be sent, and settled
    shared          a share of a limit, drawn in the file by a program that shares it with others
    naive, durable  an INSERT and a COMMIT by the caller for each attempt, waiting for the disk

Sequential figures are from one thread; concurrent ones from 64 at once, divided by the number of
attempts. What the writer's thread does meanwhile is in the processor time, not in the caller's.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from harness import interleave, machine, median_ratio, save, show_table, spread

from llmdispatcher import Limits, SpendingCap, Usage
from llmdispatcher.bucket import Needs
from llmdispatcher.budget import Worst
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_entry import Closing, Opening
from llmdispatcher.models.reply import Attempt, Outcome
from llmdispatcher.usage import Books

GOAL_US = 30.0
"""Of the caller's time, for an attempt without a cap."""

THREADS = 64

ATTEMPT = Attempt(
    vendor="openai",
    model="gpt",
    outcome=Outcome.SERVED,
    usage=Usage(prompt_tokens=1200, completion_tokens=300, cached_tokens=800),
    cost_microusd=450,
    latency_s=1.2,
    first_token_s=0.3,
)
CLOSING = Closing(attempt=ATTEMPT)
CAP = SpendingCap(1_000_000, period="ever")

_names = count()

Work = Callable[[], None]
"""One attempt, as its caller sees it."""

Figures = dict[str, float]
"""Microseconds for an attempt: the caller's, and of the processor."""


def opened() -> Opening:
    """Make the facts of an attempt, as a flow would."""
    return Opening(request_id=f"r{next(_names)}", number=1, vendor="openai", model="gpt")


def books() -> tuple[Work, Work]:
    """Count in memory."""
    counts = Books()

    def work() -> None:
        counts.open()
        counts.settle(ATTEMPT)

    return work, lambda: None


def ledger(folder: Path, *caps: SpendingCap) -> tuple[Work, Work]:
    """Use the ledger; the end waits for its writer."""
    made = Ledger(folder / f"ledger-{next(_names)}.sqlite3", caps=caps, lock_wait_s=60)

    def work() -> None:
        slip = made.open(opened(), lambda: Worst(900))
        if slip.waiting is not None:
            slip.waiting.result()
        made.settle(slip, CLOSING)

    work()  # the file is made before the clock runs
    made.flush()
    return work, made.close


def shared(folder: Path) -> tuple[Work, Work]:
    """Draw a share of a limit that is never used up."""
    made = Ledger(folder / f"shared-{next(_names)}.sqlite3", share=True, lock_wait_s=60)
    sharing = made.sharing()
    assert sharing is not None  # noqa: S101 - it shares
    pool = sharing.pool("openai/gpt", Limits(requests_per_minute=10**9, tokens_per_day=10**12))

    def work() -> None:
        pool.draw(Needs(1200, 300)).ends.result()

    work()
    return work, made.close


def naive(folder: Path, synchronous: str) -> tuple[Work, Work]:
    """Write a row of the same size in a transaction of its own, one caller after the other."""
    connection = sqlite3.connect(
        folder / f"naive-{next(_names)}.sqlite3", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE attempts (id INTEGER PRIMARY KEY, facts TEXT)")
    lock, row = threading.Lock(), "x" * 250

    def work() -> None:
        with lock:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO attempts (facts) VALUES (?)", (row,))
            connection.execute("COMMIT")

    return work, connection.close


def sequential(make: Callable[[], tuple[Work, Work]], attempts: int) -> Figures:
    """Do so many attempts, one after the other."""
    work, end = make()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    for _ in range(attempts):
        work()
    took_s = time.perf_counter() - began_s
    end()
    return _figures(took_s, time.process_time() - cpu_s, attempts)


def concurrent(make: Callable[[], tuple[Work, Work]], attempts: int) -> Figures:
    """Do so many attempts from many threads."""
    work, end = make()
    barrier = threading.Barrier(THREADS + 1)

    def several() -> None:
        barrier.wait()
        for _ in range(attempts // THREADS):
            work()

    threads = [threading.Thread(target=several) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began_s
    end()
    return _figures(took_s, time.process_time() - cpu_s, attempts)


def _figures(took_s: float, cpu_s: float, attempts: int) -> Figures:
    return {"caller_us": took_s / attempts * 1e6, "cpu_us": cpu_s / attempts * 1e6}


def main() -> None:
    """Measure, and show tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of the attempts")
    parser.add_argument("--folder", help="where the files are written; default: the system's own")
    args = parser.parse_args()
    scale = 10 if args.quick else 1
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        plain: dict[str, Callable[[], tuple[Work, Work]]] = {
            "books": books,
            "ledger": lambda: ledger(folder),
            "naive": lambda: naive(folder, "NORMAL"),
        }
        limited = {"shared": lambda: shared(folder), "naive": plain["naive"]}
        durable: dict[str, Callable[[], tuple[Work, Work]]] = {
            "capped": lambda: ledger(folder, CAP),
            "naive, durable": lambda: naive(folder, "FULL"),
        }
        result = {
            "goal_us": GOAL_US,
            "machine": machine("llmdispatcher"),
            "sqlite": sqlite3.sqlite_version,
            "threads": THREADS,
            "jobs": {
                "no cap, sequential": measure(args.rounds, sequential, plain, 5000 // scale),
                "no cap, concurrent": measure(args.rounds, concurrent, plain, 6400 // scale),
                "a shared limit, sequential": measure(
                    args.rounds, sequential, limited, 2000 // scale
                ),
                "a shared limit, concurrent": measure(
                    args.rounds, concurrent, limited, 6400 // scale
                ),
                "cap, sequential": measure(args.rounds, sequential, durable, 200 // scale),
                "cap, concurrent": measure(args.rounds, concurrent, durable, 1280 // scale),
            },
        }
    show(result["jobs"])  # type: ignore[arg-type]
    save("ledger", result)


def measure(
    rounds: int,
    job: Callable[[Callable[[], tuple[Work, Work]], int], Figures],
    contenders: dict[str, Callable[[], tuple[Work, Work]]],
    attempts: int,
) -> dict[str, dict[str, list[float]]]:
    """Return each contender's figures, one for each round."""

    def one(make: Callable[[], tuple[Work, Work]]) -> Callable[[int], Figures]:
        return lambda _: job(make, attempts)

    found = interleave(rounds, {name: one(make) for name, make in contenders.items()})
    return {
        name: {what: [figures[what] for figures in rows] for what in ("caller_us", "cpu_us")}
        for name, rows in found.items()
    }


def show(jobs: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Print a table for each job; the ratio is to the naive way, round by round."""
    for job, contenders in jobs.items():
        last = list(contenders)[-1]
        rows: list[Sequence[str]] = []
        for name, figures in contenders.items():
            caller: dict[str, Any] = spread(figures["caller_us"])
            ratio = median_ratio(figures["caller_us"], contenders[last]["caller_us"])
            rows.append(
                (
                    name,
                    f"{caller['median']:.1f}",
                    f"{caller['lowest']:.1f} to {caller['highest']:.1f}",
                    f"{ratio:.2f}",
                    f"{spread(figures['cpu_us'])['median']:.1f}",
                )
            )
        headers = ("", "caller µs", "spread", f"to {last}", "processor µs")
        show_table(f"An attempt, {job} (goal without a cap: {GOAL_US:g} µs)", headers, rows)


if __name__ == "__main__":
    main()
