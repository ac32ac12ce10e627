"""What holds a child from outside: control groups as trees of files, and structures of Windows."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmdispatcher.vendors.llamacpp.limits import cgroups, jobs
from llmdispatcher.vendors.llamacpp.limits.cage import Grouped, Open, cage
from llmdispatcher.vendors.llamacpp.limits.caps import Caps

MIB = 2**20
LIMIT = 300 * MIB


class Tree:
    """Files like those of /sys/fs/cgroup and /proc."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup files"
        self.own, self.mounts = folder / "cgroup", folder / "mountinfo"
        self.root.mkdir()
        self.member("/")
        self.mounted("/")

    def member(self, inside: str) -> None:
        """Say which group the process is in."""
        self.own.write_text(f"4:memory:/elsewhere\n0::{inside}\n")

    def mounted(self, part: str) -> None:
        """Say which part of the tree is mounted; spaces are written as mountinfo does."""
        point = str(self.root).replace(" ", "\\040")
        self.mounts.write_text(
            "30 1 0:5 / /proc rw - proc proc rw\n"
            f"41 31 0:38 {part} {point} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
        )

    def group(self, path: str, *, controllers: str = "memory", enabled: str = "") -> Path:
        """Make a group with some controllers, of which some are enabled for its own groups."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers + "\n")
        (folder / "cgroup.subtree_control").write_text(enabled + "\n")
        return folder

    def make(self) -> cgroups.Group:
        """Make a group for a child."""
        return cgroups.make(LIMIT, own=self.own, mounts=self.mounts)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make an empty tree."""
    return Tree(tmp_path)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """Start a child that waits."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def emptied(group: cgroups.Group) -> None:
    """Take the files away, which in a real group are not there to be deleted."""
    for file in group.folder.iterdir():
        file.unlink()


def test_a_group_has_the_limits(tree: Tree, child: subprocess.Popen[str]) -> None:
    """All memory of the child, no swap, and it dies as a whole; the folder goes at the end."""
    folder = tree.group("app", enabled="cpu memory")
    tree.member("/app")

    group = tree.make()
    group.add(child.pid)

    assert group.folder.parent == folder
    assert group.folder.name.startswith(f"llmdispatcher-{os.getpid()}-")
    assert {file.name: file.read_text() for file in group.folder.iterdir()} == {
        "memory.max": str(LIMIT),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cgroup.procs": str(child.pid),
    }
    emptied(group)
    assert group.remove()
    assert not group.folder.exists()
    assert group.remove(), "a second time does no harm"


def test_two_children_have_two_groups(tree: Tree) -> None:
    """Their names differ."""
    tree.group("", enabled="memory")

    assert tree.make().folder != tree.make().folder


def test_the_controller_is_enabled_where_it_may_be(tree: Tree) -> None:
    """A group without processes, delegated to us, may have it switched on."""
    folder = tree.group("app")
    tree.member("/app")

    tree.make()

    assert (folder / "cgroup.subtree_control").read_text() == "+memory"


@pytest.mark.parametrize("part", ["/", "/docker/abc"])
def test_a_container_sees_a_part_of_the_tree(tree: Tree, part: str) -> None:
    """Its group is found below what is mounted, whether names count from there or from the root."""
    folder = tree.group("inner", enabled="memory")
    tree.mounted(part)
    tree.member("/inner" if part == "/" else "/docker/abc/inner")

    assert tree.make().folder.parent == folder


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("/none", "no memory controller"),
        ("/missing", "no memory controller"),
        ("/../outside", "no control groups of version 2"),
    ],
)
def test_where_there_is_no_place_the_reason_is_told(tree: Tree, inside: str, why: str) -> None:
    """No controller, no such group, or one that is not seen from here."""
    tree.group("none", controllers="hugetlb")
    tree.member(inside)

    with pytest.raises(cgroups.NoGroup, match=why):
        tree.make()


def test_without_version_2_there_is_no_group(tree: Tree) -> None:
    """Nothing mounted, or nothing to read at all."""
    tree.mounts.write_text("30 1 0:5 / /proc rw - proc proc rw\n")
    with pytest.raises(cgroups.NoGroup, match="no control groups of version 2"):
        tree.make()

    tree.mounts.unlink()
    with pytest.raises(cgroups.NoGroup, match="no control groups of version 2"):
        tree.make()


def test_groups_above_count_only_where_they_are_ours(tree: Tree) -> None:
    """A user's own group above is used; root owns every group, which gives it none."""
    tree.group("", controllers="")
    folder = tree.group("app", enabled="memory")
    tree.group("app/scope", controllers="")
    tree.member("/app/scope")

    if os.geteuid() == 0:
        with pytest.raises(cgroups.NoGroup, match="no memory controller"):
            tree.make()
    else:
        assert tree.make().folder.parent == folder


def test_a_group_that_takes_no_limit_is_not_left_behind(tree: Tree) -> None:
    """A folder that cannot be made a group of is as it was."""
    folder = tree.group("app", enabled="memory")
    tree.member("/app")
    # here the group's own name is taken by a file, so it cannot be made
    number = int(tree.make().folder.name.rpartition("-")[2])
    (folder / f"llmdispatcher-{os.getpid()}-{number + 1}").write_text("")

    with pytest.raises(cgroups.NoGroup, match="lets us make no group"):
        tree.make()


def test_groups_of_the_dead_are_taken_away(tree: Tree) -> None:
    """A program that was killed could not remove its own; one that lives keeps it."""
    folder = tree.group("app", enabled="memory")
    tree.member("/app")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    names = [f"llmdispatcher-{gone.pid}-1", f"llmdispatcher-{os.getpid()}-999999", "other-1"]
    for name in names:
        (folder / name).mkdir()

    tree.make()

    assert [(folder / name).exists() for name in names] == [False, True, True]


def test_a_cage_counts_the_kernels_kills(tree: Tree, child: subprocess.Popen[str]) -> None:
    """Those of its group, and what was counted is known after the group is gone."""
    tree.group("", enabled="memory")
    group = tree.make()
    caged = Grouped(group, LIMIT)
    caged.add(child.pid)

    assert caged.oom_kills() == 0
    assert [str(each) for each in caged.measures] == [
        "memory from outside: cgroup memory.max 300 MiB"
    ]
    assert caged.measures[0].enforced

    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert caged.oom_kills() == 2

    (group.folder / "memory.events").write_text("oom_kill 3\n")
    caged.close()
    emptied(group)
    caged.close()
    assert caged.oom_kills() == 3


def test_a_cage_that_the_child_did_not_enter_claims_nothing(tree: Tree) -> None:
    """Where the kernel refuses the process, the measure says so."""
    tree.group("", enabled="memory")
    group = tree.make()
    caged = Grouped(group, LIMIT)
    (group.folder / "cgroup.procs").mkdir()  # cannot be written to, as if refused

    caged.add(os.getpid())

    assert not caged.measures[0].enforced
    assert "refused the process" in caged.measures[0].how


def test_an_open_cage_counts_the_machines_kills(tmp_path: Path) -> None:
    """Without a group, those since the cage was made, whoever was killed."""
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 7\n")
    caged = Open("no place", vmstat)
    assert caged.oom_kills() == 0

    vmstat.write_text("nr_free_pages 5\noom_kill 9\n")
    assert caged.oom_kills() == 2

    vmstat.unlink()
    assert caged.oom_kills() == 0
    assert [str(each) for each in caged.measures] == ["memory from outside: no place"]


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_cage_on_this_machine(limit: int | None, child: subprocess.Popen[str]) -> None:
    """Whatever this machine offers: the cage is made, takes the child and is closed, twice."""
    caged = cage(Caps(memory_bytes=limit))
    caged.add(child.pid)

    assert caged.oom_kills() == 0
    (measure,) = caged.measures
    assert measure.how
    assert limit is not None or not measure.enforced

    child.kill()
    child.wait()
    caged.close()
    caged.close()


@pytest.mark.parametrize(
    ("structure", "size"), [(jobs.BasicLimits, 64), (jobs.ExtendedLimits, 144)]
)
def test_structures_of_windows_have_their_sizes(
    structure: type[ctypes.Structure], size: int
) -> None:
    """As in winnt.h for 64-bit processors, with its padding."""
    assert ctypes.sizeof(structure) == size


def test_a_job_ends_with_us_and_limits_what_is_committed() -> None:
    """Without a limit it only ends its processes."""
    free, limited = jobs.limits(None), jobs.limits(LIMIT)

    assert free.BasicLimitInformation.LimitFlags == 0x2000
    assert limited.BasicLimitInformation.LimitFlags == 0x2100
    assert (free.ProcessMemoryLimit, limited.ProcessMemoryLimit) == (0, LIMIT)
