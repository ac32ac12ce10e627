"""The race for a limit: many threads in several processes, one of them killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sharer
from books import audit, read

PROCESSES, THREADS = 4, 12

Start = Callable[..., "list[Runner]"]


class Runner:
    """A process that asks."""

    def __init__(self, path: Path, limits: dict[str, object]) -> None:
        command = [sys.executable, sharer.__file__, str(path), str(THREADS), json.dumps(limits)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Wait until it can play."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def play(self, model: str, times: int, point: str = "never") -> None:
        """Begin a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{model} {times} {point}\n")
        self._process.stdin.flush()

    def result(self) -> Counter[str] | None:
        """Return how many were served and refused; None if it was killed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return Counter(json.loads(line)) if line else None

    def close(self) -> int:
        """Let it end."""
        self._process.communicate()
        return self._process.returncode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where all of them keep their ledger."""
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start processes, which end with the test."""
    started: list[Runner] = []

    def some(count: int, **limits: object) -> list[Runner]:
        made = [Runner(path, limits) for _ in range(count)]
        started.extend(made)
        for runner in made:
            runner.ready()
        return made

    yield some
    for runner in started:
        runner.close()


def sent(path: Path, model: str) -> list[float]:
    """Return when requests for a model were sent, in order."""
    lines = map(str.split, path.with_name("sent").read_text().splitlines())
    return sorted(float(at_s) for name, at_s in lines if name == model)


def totals(results: Sequence[Counter[str] | None]) -> Counter[str]:
    """Add up what those tell who live."""
    return sum((each for each in results if each is not None), Counter())


LIMIT = 200
"""A day. In the minutes that a round may last, less than one flows in."""


@pytest.mark.timeout(600)
def test_a_limit_of_200_lets_exactly_200_pass(path: Path, start: Start) -> None:
    """Asked for three times as much by 48 threads in 4 processes, it refuses all the others."""
    runners = start(PROCESSES, requests_per_day=LIMIT, waits=False)

    for runner in runners:
        runner.play("m", 3 * LIMIT // (PROCESSES * THREADS))
    told = totals([runner.result() for runner in runners])

    assert len(sent(path, "m")) == told["served"] == LIMIT
    assert told.total() == PROCESSES * THREADS * (3 * LIMIT // (PROCESSES * THREADS))
    assert audit(path)["served"] == LIMIT


@pytest.mark.timeout(600)
def test_whoever_is_killed_gives_nobody_a_second_share(path: Path, start: Start) -> None:
    """What it drew and did not send is lost to all; what it sent counts; not one more passes."""
    runners = start(PROCESSES, requests_per_day=LIMIT, waits=False)

    for runner in runners:
        runner.play("m", 30, "served")
    results = [runner.result() for runner in runners]

    assert results.count(None) == 1
    assert runners[results.index(None)].close() == -signal.SIGKILL
    passed = len(sent(path, "m"))
    assert LIMIT - THREADS <= passed <= LIMIT
    (late,) = start(1, requests_per_day=LIMIT, waits=False)
    late.play("m", 1)
    assert late.result() == {"refused": THREADS}
    ((row,),) = read(path, "SELECT value FROM shared_state WHERE key = 'limit:v/m'")
    ((taken, _),) = json.loads(row).values()
    assert LIMIT - 1 < taken <= LIMIT


@pytest.mark.timeout(600)
def test_those_who_wait_pass_by_the_law_of_one_bucket(path: Path, start: Start) -> None:
    """All of them are served in the end, and at no time have more passed than flowed in."""
    began_s = time.time()
    runners = start(PROCESSES, requests_per_minute=1200, burst=0.01)
    capacity, rate_per_s = 12, 20

    for runner in runners:
        runner.play("m", 3, "never")
    told = totals([runner.result() for runner in runners])

    assert told == {"served": PROCESSES * THREADS * 3}
    for count, at_s in enumerate(sent(path, "m"), 1):
        assert count <= capacity + rate_per_s * (at_s - began_s) + 1e-3


@pytest.mark.timeout(600)
def test_tokens_that_others_did_not_use_come_back_to_all(path: Path, start: Start) -> None:
    """A day's tokens are for 20 replies as long as feared, and for many more as long as they are.

    Whoever waits hears of it from the file, as the bucket by itself fills in a day.
    """
    runners = start(PROCESSES, output_tokens_per_day=200)

    for runner in runners:
        runner.play("m", 2, "never")
    told = totals([runner.result() for runner in runners])

    assert told == {"served": PROCESSES * THREADS * 2}
