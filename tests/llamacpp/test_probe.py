"""Memory and processors of this machine, of containers made of files, and of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmdispatcher.vendors.llamacpp.limits.probe import Sample, created_s, memory, process, threads

MIB = 2**20


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Make an empty tree like /sys/fs/cgroup."""
    return Box(tmp_path)


class Box:
    """A container's files."""

    def __init__(self, folder: Path) -> None:
        self.cgroups, self.own = folder / "cgroup", folder / "own"
        self.own.write_text("")

    def member(self, text: str) -> None:
        """Say which groups the process is in."""
        self.own.write_text(text)

    def write(self, path: str, text: str) -> None:
        """Write one of the group's files."""
        (self.cgroups / path).parent.mkdir(parents=True, exist_ok=True)
        (self.cgroups / path).write_text(text)

    def available(self) -> int:
        """Return the available memory in MiB."""
        return memory(self.cgroups, self.own).available_bytes // MIB


def test_this_machine_has_memory() -> None:
    """The real numbers are sane."""
    found = memory()
    assert 0 < found.available_bytes <= found.total_bytes <= psutil.virtual_memory().total


def test_this_machine_has_threads() -> None:
    """At least one, and no more than the process may use."""
    assert 1 <= threads() <= len(os.sched_getaffinity(0))


def test_affinity_limits_threads(box: Box) -> None:
    """A process tied to one processor gets one thread."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert threads(box.cgroups, box.own) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_cgroup_2_limits_memory(box: Box) -> None:
    """What the group may use, less what it uses, plus the cache that it can drop."""
    box.member("0::/job/step\n")
    box.write("job/memory.max", f"{64 * MIB}\n")
    box.write("job/memory.current", f"{50 * MIB}\n")
    box.write("job/memory.stat", f"anon 1\ninactive_file {10 * MIB}\n")
    box.write("job/step/memory.max", "max\n")
    assert box.available() == 24
    assert memory(box.cgroups, box.own).total_bytes == 64 * MIB


def test_cgroup_1_limits_memory(box: Box) -> None:
    """Version 1 has other names, and a number near 2^63 for no limit."""
    box.member("4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n")
    box.write("memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    box.write("memory/job/memory.limit_in_bytes", f"{32 * MIB}\n")
    box.write("memory/job/memory.usage_in_bytes", f"{30 * MIB}\n")
    box.write("memory/job/memory.stat", f"total_inactive_file {MIB}\n")
    assert box.available() == 3


def test_the_root_counts_in_a_container(box: Box) -> None:
    """Where the group's own path is not visible, the root is the container's group."""
    box.member("0::/../../docker/abc\n")
    box.write("memory.max", f"{16 * MIB}\n")
    box.write("memory.current", "0\n")
    assert box.available() == 16


def test_a_group_over_its_limit_has_nothing_left(box: Box) -> None:
    """Available memory is never negative."""
    box.member("0::/\n")
    box.write("memory.max", f"{MIB}\n")
    box.write("memory.current", f"{2 * MIB}\n")
    assert box.available() == 0


@pytest.mark.parametrize("text", ["", "max", "nonsense", "\xff\xfe", "12 34"])
def test_nonsense_is_no_limit(box: Box, text: str) -> None:
    """What cannot be read does not limit."""
    box.member("0::/\nnonsense\n:::\n")
    box.write("memory.max", text)
    box.write("cpu.max", text)
    assert box.available() > 16
    assert threads(box.cgroups, box.own) >= 1


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1)])
def test_cgroup_2_limits_threads(box: Box, quota: str, expected: int) -> None:
    """A quota of processor time is a number of threads, at least one."""
    box.member("0::/job\n")
    box.write("job/cpu.max", quota)
    assert threads(box.cgroups, box.own) == expected


def test_cgroup_1_limits_threads(box: Box) -> None:
    """Version 1 has two files, and -1 for no limit."""
    box.member("1:cpu,cpuacct:/\n")
    unlimited = threads(box.cgroups, box.own)
    box.write("cpu/cpu.cfs_period_us", "100000\n")
    box.write("cpu/cpu.cfs_quota_us", "-1\n")
    assert threads(box.cgroups, box.own) == unlimited
    box.write("cpu/cpu.cfs_quota_us", "100000\n")
    assert threads(box.cgroups, box.own) == 1


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Start a child that waits for a line and ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def dead(child: subprocess.Popen[bytes]) -> None:
    """End a child and wait until it is a zombie, which it stays until somebody waits for it."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


MAPPING = """
import mmap, sys
size = 32 * 2**20
print("before", flush=True)
sys.stdin.readline()
{}
print("now", flush=True)
sys.stdin.readline()
"""


def around(code: str) -> tuple[Sample, Sample]:
    """Have a fresh process do something; return what it takes before and after.

    This one has run other tests: what it takes anew may be what it has, and anything may go.
    """
    found = []
    with subprocess.Popen(
        [sys.executable, "-c", MAPPING.format(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for word in ("before", "now"):
            assert child.stdout.readline() == f"{word}\n"
            found.append(process(child.pid))
            child.stdin.write("\n")
            child.stdin.flush()
    before, now = found
    assert before is not None
    assert now is not None
    return before, now


def test_a_process_is_seen() -> None:
    """What a process takes is sane, and grows with what it takes."""
    before, now = around(
        "kept = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for place in range(0, size, mmap.PAGESIZE): kept[place] = 1"
    )

    assert now.resident_bytes >= before.resident_bytes + 28 * MIB
    assert now.own_bytes >= before.own_bytes + 28 * MIB
    assert 0 < now.own_bytes < now.resident_bytes
    assert now.threads >= 1
    assert now.cpu_s >= before.cpu_s >= 0


def test_mapped_files_are_not_its_own(tmp_path: Path) -> None:
    """Pages of a mapped file are resident and shared with everybody who maps it."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(MIB) * 32)
    before, now = around(
        f"file = open({str(path)!r}, 'rb')\n"
        "kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "assert sum(kept[:: mmap.PAGESIZE]) > 0"
    )

    assert now.resident_bytes >= before.resident_bytes + 28 * MIB
    assert now.own_bytes <= before.own_bytes + 4 * MIB


def test_work_is_seen(child: subprocess.Popen[bytes]) -> None:
    """Processor time is that of the process asked for, and counts up."""
    before = process(os.getpid())
    assert before is not None
    assert before.cpu_s > 0
    assert process(child.pid) is not None

    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass

    now = process(os.getpid())
    assert now is not None
    assert now.cpu_s >= before.cpu_s + 0.05


def test_a_dead_process_is_not_seen(child: subprocess.Popen[bytes]) -> None:
    """Neither while it waits to be reaped nor after."""
    assert created_s(child.pid) is not None
    dead(child)
    assert process(child.pid) is None
    assert created_s(child.pid) is None

    child.wait()
    assert process(child.pid) is None
    assert created_s(child.pid) is None


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**40])
def test_what_is_no_process_is_not_seen(pid: int) -> None:
    """Numbers that no process can have are answered, not refused."""
    assert process(pid) is None
    assert created_s(pid) is None


def test_a_start_tells_processes_apart(child: subprocess.Popen[bytes]) -> None:
    """It stays the same for one process, and differs from that of one that was started later."""
    first = created_s(child.pid)
    time.sleep(0.03)  # the kernel counts starts in ticks of 10 ms
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        second = created_s(later.pid)
        later.kill()

    assert first == created_s(child.pid)
    assert first != second
    assert None not in (first, second)
