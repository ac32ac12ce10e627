"""No orphans: whatever ends a process, its children are gone, at the latest when it starts anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from llmdispatcher.vendors.llamacpp.child import pidfiles, spawn
from llmdispatcher.vendors.llamacpp.child.spawn import Order
from llmdispatcher.vendors.llamacpp.child.ties import Tie

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ties are tested on Linux")

GONE_S = 60.0
"""A child is to be gone within a second; it lives for ten minutes if nobody ends it."""

TIED = ("KERNEL", "SETPRIV", "WATCHER")

PARENT = """
import os, signal, sys, time
from llmdispatcher.vendors.llamacpp.child import spawn, ties
for number in (signal.SIGINT, signal.SIGHUP):  # which nohup, and a shell's &, have ignored
    signal.signal(number, signal.SIG_DFL)
tie, manner, *command = sys.argv[1:]
tie = ties.Tie[tie] if tie else None
order = spawn.Order(command=tuple(command), environment=dict(os.environ), kind="server")
children = [spawn.start(order, tie) for _ in range(2)]
while not all("ready" in child.tail.text() for child in children):
    time.sleep(0.01)
sibling = os.fork() if manner == "forked" else 0
if manner == "forked" and sibling == 0:
    time.sleep(600)  # holds all that its parent had open
print(*(child.pid for child in children), sibling, flush=True)
if manner == "aborts":
    os.abort()
if manner == "leaves":
    os._exit(0)
time.sleep(600)
"""

PROGRAM = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
"""Ends for nothing that it is asked."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what is remembered of children."""
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@contextmanager
def parent(
    tie: str, manner: str = "", program: tuple[str, ...] = (sys.executable, "-c", PROGRAM)
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Run a process that starts two children; yields it and them. Nothing is left of any."""
    command = [sys.executable, "-c", PARENT, tie, manner, *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        *pids, sibling = [int(word) for word in process.stdout.readline().split()]
        children = [found for pid in pids for found in family(pid)]
        try:
            yield process, children
        finally:
            process.kill()
            if sibling:
                os.kill(sibling, signal.SIGKILL)
            for child in children:
                # what has ended may be reaped at any moment
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def family(pid: int) -> list[psutil.Process]:
    """List the processes of a child's group, watchers included, unless it is gone already."""
    return [found for found in psutil.process_iter() if is_alive(found) and group(found) == pid]


def group(found: psutil.Process) -> int:
    """Return the group of a process, which may end while one looks; 0 for none."""
    try:
        return os.getpgid(found.pid)
    except ProcessLookupError:
        return 0


def is_alive(found: psutil.Process) -> bool:
    """Whether it is still the same process and has not ended."""
    try:
        return found.is_running() and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(children: list[psutil.Process]) -> bool:
    """Wait until all have ended, for as long as may be."""
    deadline_s = time.monotonic() + GONE_S
    while any(map(is_alive, children)) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not any(map(is_alive, children))


@pytest.mark.parametrize("tie", TIED)
@pytest.mark.parametrize("manner", ["", "forked"])
def test_children_go_with_a_parent_that_is_killed(tie: str, manner: str) -> None:
    """Also where another process holds all of the parent's descriptors open."""
    with parent(tie, manner) as (process, children):
        assert len(children) == (4 if tie == "WATCHER" else 2)
        assert all(map(is_alive, children))
        process.kill()
        assert all_gone(children)


@pytest.mark.parametrize("tie", TIED)
@pytest.mark.parametrize("manner", ["aborts", "leaves"])
def test_children_go_with_a_parent_that_crashes_or_leaves(tie: str, manner: str) -> None:
    """A parent that does not say goodbye takes its children along."""
    with parent(tie, manner) as (process, children):
        process.wait()
        assert all_gone(children)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("tie", TIED)
def test_children_go_with_a_parent_that_is_interrupted(tie: str, number: int) -> None:
    """Ctrl-C, a service manager and a closed terminal are as good as a kill."""
    with parent(tie) as (process, children):
        process.send_signal(number)
        assert all_gone(children)


def test_what_a_script_starts_goes_as_well(tmp_path: Path) -> None:
    """A user's script may run the server as a child of its own, which is what holds the memory."""
    script = tmp_path / "run.sh"
    script.write_text(f'#!/bin/sh\n{sys.executable} -c "$1"\n')
    script.chmod(0o755)
    with parent("", "forked", (str(script), PROGRAM)) as (process, children):
        assert len(children) == 6  # two scripts, what they run, and who watches them
        process.kill()
        assert all_gone(children)


def test_asking_a_child_to_end_does_not_untie_it() -> None:
    """The watcher gets the same signal as the program that ignores it, and stays."""
    with parent("WATCHER") as (process, children):
        for child in children:
            child.terminate()
        time.sleep(0.2)
        assert all(map(is_alive, children))
        process.kill()
        assert all_gone(children)


def test_a_watcher_ends_with_its_program() -> None:
    """It is there for the program, not the other way round."""
    order = Order(
        command=(sys.executable, "-c", PROGRAM), environment=dict(os.environ), kind="server"
    )
    child = spawn.start(order, Tie.WATCHER)
    members = family(child.pid)
    assert len(members) == 2
    os.kill(child.pid, signal.SIGKILL)  # it alone
    assert child.wait(GONE_S) == -signal.SIGKILL
    child.forget()
    assert all_gone(members)


# -- what an earlier life left -------------------------------------------------------------------


def remembered(runtime: Path) -> list[dict[str, object]]:
    """Return what is written down of children."""
    return [json.loads(path.read_text()) for path in sorted(runtime.iterdir())]


def test_untied_children_are_ended_by_the_next_life(runtime: Path) -> None:
    """Should the tie fail, the next start finds them by what was written down."""
    with parent("NONE") as (process, children):
        assert pidfiles.reap() == 0  # their parent lives
        process.kill()
        process.wait()
        time.sleep(0.2)
        assert all(map(is_alive, children))

        assert pidfiles.reap() == 2

        assert all_gone(children)
        assert remembered(runtime) == []
        assert pidfiles.reap() == 0


def test_the_first_start_looks_for_children_of_earlier_lives() -> None:
    """Nobody has to ask for it."""
    with parent("NONE") as (process, children):
        process.kill()
        process.wait()
        with parent("NONE"):
            assert all_gone(children)


def test_children_of_the_living_are_left_alone(runtime: Path) -> None:
    """Two programs of one user run at the same time, and a file says who owns which child."""
    with parent("KERNEL") as (process, children):
        files = remembered(runtime)
        assert [entry["parent"] for entry in files] == [process.pid] * 2
        assert {entry["pid"] for entry in files} == {child.pid for child in children}
        assert pidfiles.reap() == 0
        assert remembered(runtime) == files
        assert all(map(is_alive, children))


LIES: dict[str, dict[str, object]] = {
    "another process has the number": {"started": "1"},
    "it runs another program": {"executable": "/usr/bin/other"},
    "the machine was started anew": {"place": "another-boot pid:[1]"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_process_that_is_not_the_same_is_left_alone(lie: str, runtime: Path) -> None:
    """A number is given again; only start time, program and machine together tell."""
    with parent("NONE") as (process, children):
        process.kill()
        process.wait()
        for path in runtime.iterdir():
            path.write_text(json.dumps(json.loads(path.read_text()) | LIES[lie]))

        assert pidfiles.reap() == 0

        assert all(map(is_alive, children))
        assert remembered(runtime) == []


def test_numbers_of_another_container_mean_nothing_here(runtime: Path) -> None:
    """Containers may share a folder: neither process nor file is touched."""
    with parent("NONE") as (process, children):
        process.kill()
        process.wait()
        for path in runtime.iterdir():
            entry = json.loads(path.read_text())
            entry["place"] = entry["place"].rpartition(" ")[0] + " pid:[1]"
            path.write_text(json.dumps(entry))

        assert pidfiles.reap() == 0

        assert all(map(is_alive, children))
        assert len(remembered(runtime)) == 2


def test_how_a_process_is_told_may_be_given(runtime: Path) -> None:
    """Where there is no /proc, something else says when a process started."""
    with parent("NONE") as (process, children):
        process.kill()
        process.wait()
        assert pidfiles.reap(lambda _: None) == 0  # so they are gone, as far as one can tell
        assert all(map(is_alive, children))
        assert remembered(runtime) == []
