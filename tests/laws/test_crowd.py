"""A crowd of streams for minutes: whatever is cut, given up or killed, the books balance."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import crowd_caller
import crowd_server
import psutil
import pytest
from books import audit, read
from waits import until

from llmdispatcher.ledger import Ledger

READ, WRITTEN = 1000, 3000
"""Micro-dollars for a token; see ``crowd_caller.PRICE``."""

MORE = 1.1
"""How much more memory the same crowd may take in its last fifth than in its second."""

NOISE_BYTES = 8 * 2**20
"""And as much more besides, for what an allocator happens to keep."""

LOOKS = 25
"""So often at least its memory is looked at."""


@attrs.frozen
class Size:
    """How large a crowd, and for how long."""

    streams: int
    seconds: float
    kills: int
    slow_s: float


FEW = Size(streams=60, seconds=6, kills=2, slow_s=0.05)
MANY = Size(streams=1000, seconds=300, kills=8, slow_s=0.5)


@contextmanager
def server(folder: Path, slow_s: float) -> Iterator[str]:
    """Run the vendor; gives its address."""
    command = [sys.executable, crowd_server.__file__, str(folder / "sent"), "1", str(slow_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


class Callers:
    """A process of callers."""

    def __init__(self, folder: Path, url: str, streams: int, seed: int) -> None:
        paths = str(folder / "ledger.sqlite3"), str(folder / "heard")
        command = [sys.executable, crowd_caller.__file__, url, *paths, str(streams), str(seed)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> int:
        """End it in the middle of everything; return which it was."""
        self.process.kill()
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL
        return self.process.pid

    def end(self) -> None:
        """Let its callers read what they have begun to read."""
        self.process.communicate(timeout=240)
        assert self.process.returncode == 0


def live(folder: Path, url: str, size: Size) -> tuple[set[int], list[int]]:
    """Let the crowd call; return who was killed, and what the process that lived took."""
    killed: set[int] = set()
    took: list[int] = []
    with ExitStack() as stack:
        half = size.streams // 2
        steady, other = (Callers(folder, url, half, seed) for seed in (1, 2))
        stack.callback(steady.process.kill)
        until(lambda: has_ended(folder, steady, half))  # all that is needed is loaded by then
        began_s, memory = time.monotonic(), psutil.Process(steady.process.pid)
        while (
            (passed_s := time.monotonic() - began_s) < size.seconds
            or len(killed) < size.kills
            or len(took) < LOOKS
        ):
            took.append(memory.memory_info().rss)
            is_time = passed_s > size.seconds * (len(killed) + 1) / (size.kills + 1)
            if is_time and len(killed) < size.kills:
                killed.add(other.kill())
                other = Callers(folder, url, half, len(killed) + 2)
            time.sleep(0.2)
        other.end()
        steady.end()
    return killed, took


def has_ended(folder: Path, callers: Callers, count: int) -> bool:
    """Whether a process has come to the end of so many requests."""
    lines = (folder / "heard").read_text(encoding="ascii").splitlines()
    return sum(caller(line) == callers.process.pid for line in lines) >= count


def told(path: Path) -> dict[str, list[str]]:
    """Read a file of one line a request; nobody has two."""
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    named = {name: rest for name, *rest in rows}
    assert len(named) == len(rows), "something happened to a request twice"
    return named


def caller(name: str) -> int:
    """Return the process that made a request."""
    return int(name.partition("-")[0])


FATES = {
    "served": {"served"},
    "left": {"cancelled", "partial"},
    "failed": {"failed", "partial"},
}
"""What the books may say of a request, by what its caller heard."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [FEW, pytest.param(MANY, marks=pytest.mark.soak)], ids=str)
def test_the_books_of_a_crowd_balance(
    tmp_path: Path, size: Size, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every request has one outcome, which is the vendor's own count, and memory stays flat."""
    with server(tmp_path, size.slow_s) as url:
        killed, took = live(tmp_path, url, size)

    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.expire()
    ledger.close()
    fates = audit(path)
    sent, heard = told(tmp_path / "sent"), told(tmp_path / "heard")
    rows = read(
        path,
        "SELECT json_extract(tags, '$[0]'), fate, prompt_tokens, completion_tokens, cost_microusd,"
        " counted_microusd FROM attempts",
    )
    books = {name: rest for name, *rest in rows}
    assert len(books) == len(rows), "a request has two outcomes"
    assert "open" not in fates
    assert sent.keys() <= books.keys(), "something was sent that the books do not know"
    unwritten = heard.keys() - books.keys()  # which is never one of ``sent``, as seen just now
    for name in unwritten:
        # It was given up while its reservation was on its way to the disk, and so before it could
        # be sent; then its process was killed, before the reservation was there.
        assert heard[name] == ["left"], (name, heard[name])
        assert caller(name) in killed, "a row was lost"
    lost = {name for name, row in books.items() if row[0] == "expired"}
    for name, (how,) in heard.items():
        word, _, tokens = how.partition(":")
        if name not in lost | unwritten:
            assert books[name][0] in FATES[word], (name, how, books[name])
        if word == "served":
            assert sent[name] == ["whole", tokens]
    for name, (fate, prompt, completion, cost, counted) in books.items():
        if fate == "served":
            assert sent[name] == ["whole", str(completion)]
            assert prompt == crowd_server.PROMPT_TOKENS
            assert cost == counted == prompt * READ + completion * WRITTEN
        if name not in heard or name in lost:
            assert caller(name) in killed, "only who was killed tells nobody"
    whole = {name: int(tokens) for name, (how, tokens) in sent.items() if how == "whole"}
    served = {name for name, row in books.items() if row[0] == "served"}
    missed = whole.keys() - served
    given_up = {name for name, (how,) in heard.items() if how == "left"}
    assert missed <= given_up | (books.keys() - heard.keys()) | lost, "a reply was lost"
    assert sum(row[2] for row in books.values() if row[0] == "served") == sum(
        whole[name] for name in served
    )
    assert len(killed) == size.kills
    fifth = len(took) // 5
    early, late = max(took[fifth : 2 * fifth]), max(took[-fifth:])
    assert late <= early * MORE + NOISE_BYTES
    kinds = Counter(how.partition(":")[0] for (how,) in heard.values())
    with capsys.disabled():
        print(  # noqa: T201 - the count is a result
            f"\n{len(books)} streams, {size.streams} at once, {len(killed)} processes killed:"
            f" {dict(fates)}; callers heard {dict(kinds)}, {len(unwritten)} of them of what was"
            f" never sent or written; memory {early >> 20} MiB, then {late >> 20} MiB"
        )
