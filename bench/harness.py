"""What the benches share: children, turns that interleave, ratios, machine facts, a table, JSON.

Every bench measures its contenders in turns, each round in another order, and compares them round
by round: on a machine that is never quiet, a ratio within a round means more than any figure.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

RESULTS = Path(__file__).parent / "results"

ANSWER_S = 300.0
"""A child that has not answered after so long hangs, and is killed."""

LAST_WORDS = 2_000
"""Bytes of a dead child's standard error that are shown."""

T = TypeVar("T")


class ChildDied(SystemExit):
    """A child ended or hung; a bench that does not catch this ends with its message."""


class Child:
    """A program that answers each line of JSON with another, in a process of its own.

    Its first line says that it is ready, and is kept as ``hello``.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.hello = self._answer()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, **job: object) -> Any:  # noqa: ANN401 - JSON
        """Send a job and return its result. Raises ChildDied."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is said below
        return self._answer()

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        timer = threading.Timer(ANSWER_S, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            code = self._process.wait()
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - LAST_WORDS))
            words = self._errors.read().decode(errors="replace").strip()
            raise ChildDied(f"the contender {self.name} ended with status {code}: {words}")
        return json.loads(line)


def machine(*distributions: str) -> dict[str, Any]:
    """Return what the figures depend on: processors, system, load, versions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in distributions},
    }


def version(distribution: str) -> str:
    """Return the version of an installed distribution; "none" if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def interleave(rounds: int, contenders: Mapping[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Call each contender once a round with the round's number; every round begins with another."""
    names = list(contenders)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(contenders[name](number))
    return results


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the differences of each round."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median with the lowest and the highest."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
    }


def show_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the figures to the right."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    print(f"\n{title}")
    for number, line in enumerate(lines):
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def save(name: str, result: Mapping[str, Any]) -> None:
    """Write the result as JSON beside the scripts."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def _cpu() -> str:
    """Return the processor's name, which ``platform`` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
