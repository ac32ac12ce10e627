"""Files about children: what runs, and what crashed; for their owner alone, and never fatal."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import platformdirs
import pytest

import llmdispatcher
from llmdispatcher.models.errors import EngineCrashed, OutOfMemory
from llmdispatcher.vendors.llamacpp.child import folders, pidfiles, reports

FACTS = {"vendor": "llamacpp", "model": "small.gguf", "weights": "12 MiB"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes where a user's own files are."""
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("LLMDISPATCHER_CRASH_DIR", str(tmp_path / "crashes"))


# -- folders -------------------------------------------------------------------------------------


def test_folders_are_the_systems_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files lie where each system has them; the environment names other places."""
    asked: list[Path] = []
    monkeypatch.setattr(folders, "private", asked.append)
    monkeypatch.delenv("LLMDISPATCHER_RUNTIME_DIR")
    monkeypatch.delenv("LLMDISPATCHER_CRASH_DIR")
    folders.runtime()
    folders.crashes()

    assert asked == [
        platformdirs.user_cache_path("llmdispatcher") / "children",
        platformdirs.user_log_path("llmdispatcher") / "crashes",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_files_and_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    """What is written says which processes to end, and how a program crashed."""
    path = pidfiles.write("worker", os.getpid())
    report = reports.write(FACTS, OutOfMemory("no memory"))

    assert path is not None
    assert report is not None
    for file in (path, report):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    pidfiles.remove(path)
    pidfiles.remove(path)
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_a_folder_that_others_may_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can put a file there could have any process of this user's ended."""
    shared, linked = tmp_path / "shared", tmp_path / "linked"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "own").mkdir(mode=0o700)
    linked.symlink_to(tmp_path / "own")
    for folder in (shared, linked):
        monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(folder))
        monkeypatch.setenv("LLMDISPATCHER_CRASH_DIR", str(folder))
        assert pidfiles.write("worker", os.getpid()) is None
        assert pidfiles.reap() == 0
        assert reports.write(FACTS, OutOfMemory("no memory")) is None
        assert list(folder.iterdir()) == []


def test_no_folder_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder's place, or a place that cannot be made: work goes on without."""
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(folder))
        monkeypatch.setenv("LLMDISPATCHER_CRASH_DIR", str(folder))
        assert pidfiles.write("worker", os.getpid()) is None
        assert pidfiles.reap() == 0
        assert reports.write(FACTS, OutOfMemory("no memory")) is None


FULL = """
import resource, signal, sys
from pathlib import Path
from llmdispatcher.models.errors import OutOfMemory
from llmdispatcher.vendors.llamacpp.child import pidfiles, reports
import os, platformdirs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
print(pidfiles.write("worker", os.getpid()), reports.write({}, OutOfMemory("no memory")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of this kind are POSIX's")
def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    """A file is there whole or not at all."""
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stdout == "None None\n"
    assert list((tmp_path / "runtime").iterdir()) == []
    assert list((tmp_path / "crashes").iterdir()) == []


# -- pidfiles ------------------------------------------------------------------------------------

SOUND = {
    "pid": 2**22 + 1,  # above Linux's largest
    "started": "1",
    "executable": "/usr/bin/x",
    "parent": 2**22 + 2,
    "parent_started": "1",
    "place": pidfiles.place(),
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        "[" * 10_000,
        json.dumps(SOUND | {"pid": 1}),
        json.dumps(SOUND | {"pid": -1}),
        json.dumps(SOUND | {"pid": 0}),
        json.dumps(SOUND | {"pid": True}),
        json.dumps(SOUND | {"pid": "2"}),
        json.dumps(SOUND | {"started": None}),
        json.dumps(SOUND | {"more": 1}),
        json.dumps(SOUND | {"executable": "x" * pidfiles.MAX_FILE_BYTES}),
        json.dumps(SOUND),
    ],
)
def test_nonsense_ends_no_process_and_is_removed(text: str, tmp_path: Path) -> None:
    """A file that is damaged, or was made by hand, is not believed."""
    folder = folders.runtime()
    (folder / "worker-1.json").write_text(text)

    assert pidfiles.reap() == 0
    assert list(folder.iterdir()) == []


def test_files_of_others_are_not_touched() -> None:
    """Only what is named as ours is looked at."""
    folder = folders.runtime()
    (folder / "notes.txt").write_text("mine")
    pidfiles.reap()

    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_process_is_told_from_all_others() -> None:
    """Its start is the same whenever asked, another's differs, and one that is gone has none."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        first = pidfiles.started_of(other.pid)
        assert first is not None
        assert first == pidfiles.started_of(other.pid)
        assert first != pidfiles.started_of(os.getpid())
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert pidfiles.started_of(other.pid) is None  # dead, and not reaped
    assert pidfiles.started_of(other.pid) is None
    assert pidfiles.write("worker", other.pid) is None
    assert pidfiles.executable_of(other.pid) == ""


def test_an_earlier_life_is_looked_for_once() -> None:
    """Each start asks, and the first one does it."""
    pidfiles.reap_once()
    folder = folders.runtime()
    (folder / "worker-1.json").write_text("")
    pidfiles.reap_once()

    assert [path.name for path in folder.iterdir()] == ["worker-1.json"]


# -- crash reports -------------------------------------------------------------------------------


def test_a_report_says_what_happened() -> None:
    """Versions, facts, the error and the end of the log, each where a person finds it."""
    error = EngineCrashed("it died", signal=6, tail="one\ntwo").at("llamacpp", "small")
    path = reports.write(FACTS | {"plan": "rung 0\n4 layers"}, error)

    assert path is not None
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("date: 2")
    assert lines[1] == f"llmdispatcher: {llmdispatcher.__version__}"
    assert lines[2].startswith("llama-cpp-python: ")
    assert lines[3].startswith("python: ")
    assert lines[4].startswith(f"platform: {sys.platform} ")
    assert lines[5:] == [
        "vendor: llamacpp",
        "model: small.gguf",
        "weights: 12 MiB",
        "plan: rung 0 4 layers",
        "error: EngineCrashed",
        "message: llamacpp/small: it died",
        "",
        "the end of its log:",
        "one",
        "two",
    ]


def test_ten_reports_are_kept() -> None:
    """The newest ones; other files in the folder are let be."""
    folder = folders.crashes()
    (folder / "notes.txt").write_text("mine")
    paths = [reports.write(FACTS, EngineCrashed(f"crash {number}")) for number in range(25)]

    left = sorted(folder.iterdir())
    assert left == [path for path in paths[-10:] if path] + [folder / "notes.txt"]


def test_reports_of_many_threads_do_not_meet() -> None:
    """Several models may crash at once."""
    threads = [
        threading.Thread(target=reports.write, args=(FACTS, EngineCrashed("crash")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = list(folders.crashes().iterdir())
    assert 1 <= len(found) <= reports.MAX_REPORTS
    assert all("message: crash" in path.read_text() for path in found)


def test_a_report_is_bounded() -> None:
    """However long the facts and the log."""
    path = reports.write(FACTS, EngineCrashed("\ud800" + "x" * 10**6, tail="y" * 10**6))

    assert path is not None
    assert path.stat().st_size <= reports.MAX_CHARS + 100
