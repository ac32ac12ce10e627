"""The race for a budget: many threads in several processes, one of them killed in each round."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import spender
from books import audit, read

from llmdispatcher.ledger import Ledger

PROCESSES, THREADS = 4, 64
POINTS = ("reserved", "sent")


class Runner:
    """A process that spends; when it was killed, another one takes its place."""

    def __init__(self, path: Path, rounds: int) -> None:
        self._command = [sys.executable, spender.__file__, str(path), str(rounds), str(THREADS)]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Wait until it can play, if it is new."""
        assert self._process.stdout is not None
        if not hasattr(self._process, "is_ready"):
            assert self._process.stdout.readline() == "ready\n"
            self._process.is_ready = True  # type: ignore[attr-defined]

    def play(self, number: int, point: str) -> None:
        """Begin a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number} {point}\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, int] | None:
        """Return how many were served and refused; None if it was killed, and is started again."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            told: dict[str, int] = json.loads(line)
            return told
        assert self.close() == -signal.SIGKILL
        self._start()
        return None

    def close(self) -> int:
        """Let it end."""
        self._process.communicate()
        return self._process.returncode


def race(path: Path, rounds: int) -> Counter[str]:
    """Play all rounds; return how often which point was where a process was killed."""
    kills: Counter[str] = Counter()
    runners = [Runner(path, rounds) for _ in range(PROCESSES)]
    for number in range(rounds):
        point = POINTS[number % len(POINTS)]
        for runner in runners:
            runner.ready()
        for runner in runners:
            runner.play(number, point)
        results = [runner.result() for runner in runners]
        killed = results.count(None)
        assert killed == 1, f"round {number}: {killed} processes were killed"
        kills[point] += 1
        told = [result for result in results if result is not None]
        assert sum(each["served"] + each["refused"] for each in told) == (PROCESSES - 1) * THREADS
        assert sum(each["served"] for each in told) < spender.CALLS
    for runner in runners:
        runner.ready()
        assert runner.close() == 0
    return kills


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_a_budget_for_five_calls_admits_exactly_five(
    tmp_path: Path, rounds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 threads in 4 processes, one killed: five reservations, not one micro-dollar over."""
    path = tmp_path / "ledger.sqlite3"

    kills = race(path, rounds)

    by_round = read(path, "SELECT tags, count(*), sum(reserved_microusd) FROM attempts GROUP BY 1")
    assert len(by_round) == rounds
    assert {row[1:] for row in by_round} == {(spender.CALLS, spender.CALLS * spender.COST)}
    ledger = Ledger(path)
    ledger.expire()
    ledger.close()
    fates = audit(path)
    assert set(fates) <= {"served", "expired"}
    assert fates["expired"] >= rounds, "who was killed had one that nobody settles"
    assert fates.total() == rounds * spender.CALLS
    limits = {cap.name: cap.limit_microusd for cap in spender.caps(rounds)}
    select = "SELECT name, spent_microusd, reserved_microusd FROM accounts"
    spent = read(path, f"{select} WHERE scope = 'tag' AND start = ''")
    over = sum(max(0, taken + open_ - limits[name]) for name, taken, open_ in spent)
    assert over == 0
    assert sum(taken for _, taken, _ in spent) == rounds * spender.CALLS * spender.COST
    sent = [int(line.split()[1]) for line in path.with_name("sent").read_text().splitlines()]
    known = dict(read(path, "SELECT id, fate FROM attempts"))
    assert len(set(sent)) == len(sent)
    assert set(sent) <= known.keys(), "something was sent that the books do not know"
    assert {entry for entry, fate in known.items() if fate == "served"} <= set(sent)
    assert all(kills[point] == rounds // 2 for point in POINTS)
    with capsys.disabled():
        print(  # noqa: T201 - the count is a result
            f"\n{rounds} rounds: {fates.total()} reservations, {over} micro-dollars over; killed"
            f" {kills['reserved']} times between reserve and send, {kills['sent']} times between"
            f" send and settle; {fates['expired']} expired"
        )
