"""Spends under caps until it is told to die: a process of the race in ``laws/test_ledger_race.py``.

``python spender.py PATH ROUNDS THREADS``. Each line of stdin is a round: its number, and where to
be killed, ``reserved`` (admitted, not sent) or ``sent`` (sent, not settled). The first of all
processes that gets there kills itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from books import closed, is_first, opening

from llmdispatcher import BudgetExceeded, SpendingCap
from llmdispatcher.budget import Worst
from llmdispatcher.ledger import Ledger

CALLS, COST = 5, 101
"""A budget is for so many calls of so many micro-dollars each, and a rest of less than a call."""

SPREAD_S = 0.1
"""Over which threads begin, in rounds in which they do not all at once."""


def caps(rounds: int) -> list[SpendingCap]:
    """Return the budget of each round, a tag of its own."""
    usd = f"0.{CALLS * COST + COST - 1:06d}"
    return [
        SpendingCap(usd, period="ever", scope="tag", name=f"round-{number}")
        for number in range(rounds)
    ]


class Spender:
    """Asks from many threads at once."""

    def __init__(self, path: Path, rounds: int, threads: int) -> None:
        self.path, self.threads = path, threads
        self.ledger = Ledger(path, caps=caps(rounds), lock_wait_s=60)
        self.sent = os.open(path.with_name("sent"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def play(self, number: int, point: str) -> dict[str, int]:
        """Let every thread ask once, all at the same moment."""
        barrier = threading.Barrier(self.threads)
        results: list[str] = []

        def ask() -> None:
            barrier.wait()
            if number // 2 % 2:  # in every other pair of rounds, so that processes take turns
                time.sleep(random.uniform(0, SPREAD_S))  # noqa: S311 - not a secret
            results.append(self.ask(number, point))

        threads = [threading.Thread(target=ask) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ledger.flush()
        return {word: results.count(word) for word in ("served", "refused")}

    def ask(self, number: int, point: str) -> str:
        """Reserve, send, settle."""
        one = opening(tags=(f"round-{number}",))
        slip = self.ledger.open(one, lambda: Worst(COST))
        assert slip.waiting is not None
        try:
            slip.waiting.result()
        except BudgetExceeded:
            return "refused"
        self.perhaps_die(number, point, "reserved")
        os.write(self.sent, f"{number} {slip.entry}\n".encode())
        self.perhaps_die(number, point, "sent")
        self.ledger.settle(slip, closed(COST))
        return "served"

    def perhaps_die(self, number: int, point: str, here: str) -> None:
        """Be the one that is killed in this round, if nobody was yet."""
        if point == here and is_first(self.path, f"killed-{number}-{here}"):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Play rounds until stdin ends."""
    path, rounds, threads = sys.argv[1:]
    spender = Spender(Path(path), int(rounds), int(threads))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        number, point = line.split()
        sys.stdout.write(json.dumps(spender.play(int(number), point)) + "\n")
        sys.stdout.flush()
    spender.ledger.close()


if __name__ == "__main__":
    main()
