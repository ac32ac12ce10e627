"""Child processes: how they start, what is read of them, how they end, and what stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import psutil
import pytest

from llmdispatcher.models.errors import ExecutableNotFound, OutOfMemory, VendorError
from llmdispatcher.vendors.llamacpp.child import tail as tails
from llmdispatcher.vendors.llamacpp.child import ties
from llmdispatcher.vendors.llamacpp.child.spawn import Child, Order, start
from llmdispatcher.vendors.llamacpp.child.ties import Tie

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ties are tested on Linux")

LONG_S = 60.0
"""What should take milliseconds is given up on after this."""

TIES = (Tie.NONE, Tie.KERNEL, Tie.SETPRIV, Tie.WATCHER)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what is remembered of children."""
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


def order(code: str, *words: str, **more: object) -> Order:
    """Order a Python that runs the code."""
    usual = Order(
        command=(sys.executable, "-c", code, *words),
        environment={"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8"},
        kind="server",
    )
    return attrs.evolve(usual, **more)  # type: ignore[arg-type]


@contextmanager
def started(what: Order, tie: Tie | None = None) -> Iterator[Child]:
    """Start it, and leave nothing of it behind."""
    child = start(what, tie)
    try:
        yield child
    finally:
        child.forget()


def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def held() -> set[object]:
    """List what this process has: open files, threads and children.

    What others left may go at any moment, so what is new is looked for, and nothing is counted.
    """
    found: set[object] = {*threading.enumerate(), *psutil.Process().children(recursive=True)}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder that is being listed
            found.add((path.name, str(path.readlink())))
    return found


# -- starting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", TIES)
def test_the_child_is_the_program_itself(tie: Tie, runtime: Path) -> None:
    """Its number is the program's, which leads a group and a session, whatever ties it."""
    code = "import os; print(os.getpid(), os.getpgrp(), os.getsid(0), os.getppid())"
    with started(order(code), tie) as child:
        assert child.wait(LONG_S) == 0
        numbers = [int(word) for word in child.tail.text().split()]

    assert numbers == [child.pid, child.pid, child.pid, os.getpid()]


@pytest.mark.parametrize("tie", TIES)
def test_the_child_gets_what_was_ordered_and_no_more(tie: Tie) -> None:
    """Arguments, environment and descriptors are those of the order."""
    code = (
        "import os, sys; print(sys.argv[1:], dict(os.environ), sorted(os.listdir('/proc/self/fd')))"
    )
    heard, said = os.pipe()
    os.set_inheritable(heard, True)  # noqa: FBT003 - which is not how one is passed on
    environment = {"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8", "ODD": "a b\n$c"}
    what = order(code, "$HOME", "", "two words", environment=environment, pass_fds=(said,))
    try:
        with started(what, tie) as child:
            assert child.wait(LONG_S) == 0
            told = child.tail.text()
    finally:
        os.close(heard)
        os.close(said)

    listing = str(max(said, 3) + 1) if said == 3 else "3"  # the folder that is being listed
    fds = sorted({"0", "1", "2", str(said), listing})
    assert told == f"{['$HOME', '', 'two words']} {environment} {fds}"


def test_a_tie_adds_nothing_to_an_environment_without_a_locale() -> None:
    """Python sets LC_CTYPE for itself in the C locale; the program in its place does not see it."""
    environment = {"PATH": os.environ["PATH"]}
    what = Order(command=("env",), environment=environment, kind="server")
    for tie in TIES:
        with started(what, tie) as child:
            assert child.wait(LONG_S) == 0
            assert child.tail.text() == f"PATH={environment['PATH']}"


def test_stdin_is_empty_unless_asked_for() -> None:
    """A child cannot read the terminal, and reads what its owner writes where that was ordered."""
    code = "import sys; print('read', repr(sys.stdin.readline()))"
    with started(order(code)) as child:
        assert child.stdin is None
        assert child.wait(LONG_S) == 0
        assert child.tail.text() == "read ''"
    with started(order(code, stdin=True)) as child:
        assert child.stdin is not None
        child.stdin.write(b"hello\n")
        assert child.wait(LONG_S) == 0
        assert child.tail.text() == "read 'hello\\n'"


def test_a_program_is_found_by_the_childs_path(tmp_path: Path) -> None:
    """A name without a folder is looked for where the child's PATH says."""
    program = tmp_path / "my-server"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    what = Order(command=("my-server",), environment={"PATH": str(tmp_path)}, kind="server")
    with started(what) as child:
        assert child.wait(LONG_S) == 0
        assert child.tail.text() == "found"


def test_what_cannot_be_run_is_refused_by_name(tmp_path: Path) -> None:
    """A program that is missing, forbidden, a folder or no program is named, with what to do."""
    (tmp_path / "plain").write_bytes(b"\x7fELF")
    (tmp_path / "garbage").write_bytes(b"\x7fELF of nothing")
    (tmp_path / "garbage").chmod(0o755)
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    rows = {
        "no-such-server": "not on PATH; install it",
        str(tmp_path / "missing"): "not there; give the path",
        str(tmp_path / "plain"): "chmod \\+x",
        str(tmp_path): "is a folder",
        str(tmp_path / "garbage"): "Exec format error",
        str(tmp_path / "lost"): "No such file",
    }
    for name, told in rows.items():
        for tie in (None, Tie.NONE, Tie.WATCHER):
            with pytest.raises(ExecutableNotFound, match=told) as caught:
                start(Order(command=(name,), environment={"PATH": "/usr/bin"}, kind="server"), tie)
            assert name in str(caught.value)


def test_what_the_system_refuses_for_another_reason_is_told() -> None:
    """Arguments that are too long are no missing program."""
    with pytest.raises(VendorError, match="Argument list too long"):
        start(order("pass", "x" * 2**22))


STARVED = """
import os, resource, sys
from llmdispatcher.models.errors import OutOfMemory
from llmdispatcher.vendors.llamacpp.child import folders, pidfiles, spawn, ties
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)  # root may start as many as it likes
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
for tie in ties.Tie:
    try:
        spawn.start(spawn.Order(command=("/bin/true",), environment={}, kind="server"), tie)
    except OutOfMemory as error:
        print(error)
print(len(os.listdir("/proc/self/fd")))
"""


def test_no_room_for_a_process_is_out_of_memory() -> None:
    """Where the system starts no more processes, the error says so and nothing is left open."""
    done = subprocess.run(
        [sys.executable, "-c", STARVED], capture_output=True, text=True, check=False, cwd="/"
    )
    *told, descriptors = done.stdout.splitlines() or [done.stderr, "0"]

    assert len(told) == len(Tie), done.stderr
    assert all("no room for another process" in line for line in told)
    assert int(descriptors) <= 4


# -- ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", TIES)
def test_statuses_are_those_of_subprocess(tie: Tie) -> None:
    """An exit status is passed on, and a signal is negative."""
    with started(order("import sys; sys.exit(7)"), tie) as child:
        assert child.wait(LONG_S) == 7
        assert child.poll() == 7
    with started(order("import os; os.kill(os.getpid(), 6)"), tie) as child:
        assert child.wait(LONG_S) == -6


def test_waiting_ends_when_the_child_does_or_the_time_is_up() -> None:
    """A child that lives is no status, after the time that was given."""
    with started(order("import time; time.sleep(60)")) as child:
        began_s = time.monotonic()
        assert child.wait(0.2) is None
        assert time.monotonic() - began_s >= 0.2
        assert child.wait(0) is None
        assert child.poll() is None


def test_a_child_without_a_log_is_waited_for() -> None:
    """A program may close its standard streams and live on."""
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.5); os._exit(4)"
    with started(order(code)) as child:
        assert child.wait(LONG_S) == 4


def test_many_threads_may_wait() -> None:
    """Everybody who waits hears the same end."""
    found: list[int | None] = []
    with started(order("import time; time.sleep(60)")) as child:
        threads = [
            threading.Thread(target=lambda: found.append(child.wait(LONG_S))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        child.terminate()
        for thread in threads:
            thread.join()
    assert found == [-signal.SIGTERM] * 8


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked\\n"))  # print cannot interrupt print
os.write(1, b"ready\\n")
while True: time.sleep(0.1)
"""


@pytest.mark.parametrize("tie", TIES)
def test_a_child_that_does_not_want_to_end_is_killed(tie: Tie) -> None:
    """Asking reaches the program, which may refuse; killing ends it."""
    with started(order(STUBBORN), tie) as child:
        until(lambda: "ready" in child.tail.text())
        child.terminate()
        until(lambda: "asked" in child.tail.text())
        assert child.poll() is None
        child.kill()
        assert child.wait(LONG_S) == -signal.SIGKILL


FAMILY = """
import subprocess, sys, time
code = "import time; print('in', flush=True); time.sleep(600)"
mine = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
mine.stdout.readline()
print(mine.pid, flush=True)
if sys.argv[1] == "stay": time.sleep(600)
"""
"""Has a child that runs by the time that it is told of, and holds the log open by its errors."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("how", ["stay", "go"])
def test_a_childs_own_children_end_with_it(tie: Tie, how: str) -> None:
    """Killed, or ending by itself: what it started and left behind goes as well."""
    with started(order(FAMILY, how), tie) as child:
        until(child.tail.text)
        pid = int(child.tail.text())
        assert is_alive(pid) or how == "go"
        if how == "stay":
            child.kill()
        child.wait(LONG_S)
    until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Whether there is such a process, one that is dead and not reaped aside."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_signals_after_the_end_reach_nobody() -> None:
    """The number may be somebody else's by then."""
    with started(order("pass")) as child:
        assert child.wait(LONG_S) == 0
        child.kill()
        child.terminate()
    child.kill()
    assert child.poll() == 0


def test_forgetting_a_living_child_kills_it() -> None:
    """Whatever way a host is left, its child goes, and forgetting twice does no harm."""
    child = start(order("import time; time.sleep(60)", stdin=True))
    child.forget()
    child.forget()

    assert child.poll() == -signal.SIGKILL
    assert not is_alive(child.pid)


def test_fifty_children_leave_nothing(runtime: Path) -> None:
    """No descriptor, thread, process or file stays behind, whichever way they end."""
    with started(order("pass")) as child:  # what is loaded on first use
        child.wait(LONG_S)
    before = held()
    for number in range(50):
        child = start(order("print('x' * 100)", stdin=number % 2 == 0), TIES[number % 4])
        if number % 3:
            child.wait(LONG_S)
        child.forget()
        if number % 10 == 0:
            with pytest.raises(ExecutableNotFound):
                start(order("pass", command=("/no/such",)))

    assert not [*runtime.iterdir()]
    until(lambda: held() <= before)


# -- what it says --------------------------------------------------------------------------------


def test_all_that_was_written_is_there_with_the_status() -> None:
    """Once there is a status, the last words can be read, also those of two streams."""
    code = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\nwithout an end'); os._exit(3)"
    for _ in range(20):
        with started(order(code), Tie.NONE) as child:
            assert child.wait(LONG_S) == 3
            assert child.tail.text() == "out\nerr\nwithout an end"


def test_a_child_that_floods_its_log_is_not_held_up() -> None:
    """Everything is read, and the last lines are kept."""
    code = "for n in range(200_000): print('line', n)"
    with started(order(code)) as child:
        assert child.wait(LONG_S) == 0
        lines = child.tail.text().splitlines()

    assert lines[-1] == "line 199999"
    assert len(lines) == tails.MAX_LINES


def test_a_log_that_a_stranger_holds_open_is_not_waited_for() -> None:
    """A process that left the group keeps the pipe; the end is noticed all the same."""
    code = (
        "import subprocess; stranger = subprocess.Popen(['sleep', '60'], start_new_session=True);"
        "print(stranger.pid)"
    )
    with started(order(code)) as child:
        assert child.wait(LONG_S) == 0
        stranger = int(child.tail.text())
        assert is_alive(stranger)
        os.kill(stranger, signal.SIGKILL)


# -- ties ----------------------------------------------------------------------------------------


def test_the_tie_fits_the_program(tmp_path: Path) -> None:
    """The kernel ends a program; a script's children, and programs with privileges, need more."""
    script, privileged = tmp_path / "run.sh", tmp_path / "privileged"
    script.write_text("#!/bin/sh\n")
    privileged.write_bytes(b"\x7fELF")
    privileged.chmod(0o4755)

    assert ties.fitting(sys.executable) is Tie.KERNEL
    assert ties.fitting(str(script)) is Tie.WATCHER
    assert ties.fitting(str(privileged)) is Tie.WATCHER
    assert ties.fitting(str(tmp_path / "missing")) is Tie.KERNEL  # starting it will say so


def test_a_frozen_application_has_no_python_to_tie_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its executable is itself: setpriv does it, or the error names it."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with started(Order(command=("true",), environment=dict(os.environ), kind="server")) as child:
        assert child.wait(LONG_S) == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    for tie in (Tie.KERNEL, Tie.WATCHER):
        with pytest.raises(ExecutableNotFound, match="install setpriv"):
            start(Order(command=("/bin/true",), environment={}, kind="server"), tie)


def test_no_thread_for_the_log_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose log cannot be read is not left running."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = held()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OutOfMemory, match="no thread"):
        start(order("import time; time.sleep(60)"))

    assert held() <= before
