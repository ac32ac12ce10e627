"""Trials: native libraries that would take a process down are tried in one that may die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from llmdispatcher.models.errors import (
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Refused,
    TimedOut,
    VendorError,
)
from llmdispatcher.vendors.llamacpp import (
    mark,
    processor,
    trial,
    trial_cache,
    trial_run,
    weights,
)
from llmdispatcher.vendors.llamacpp.weights import Packing

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.trial import Trial

WAY_OUT = "pip install 'llama-cpp-python==0.3.36' jinja2 psutil"

PREBUILT = """
__version__ = "2026.1"
def get_system_info():
    return "CPU : SSE3 = 1 | AVX2 = 1 | "
def get_device_info():
    sizes = {"memory_free": 5, "memory_total": 7}
    return [
        {"name": "CPU", "description": "a processor", "type": 0, **sizes},
        {"name": "CUDA0", "description": "x" * 9000, "type": 1, **sizes},
        {"name": "?", "description": "", "type": 99, **sizes},
    ]
"""

Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember trials in the test's own folder."""
    monkeypatch.setenv("LLMDISPATCHER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv(mark.MARK, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "llama_cpp"]:
        monkeypatch.delitem(sys.modules, name)  # as in a process that has not used it yet
    return tmp_path / "cache" / "trials"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package whose source is given, in front of all others."""

    def write(source: str, package: str = "llama_cpp") -> Path:
        folder = tmp_path / "installed" / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder

    return write


def cause_of(found: Trial) -> VendorError:
    """Return why a library does not work, which must be known."""
    assert found.works is False
    assert found.cause is not None
    return found.cause


# -- what works --------------------------------------------------------------------------------


def test_the_installed_library_works_and_is_described() -> None:
    """Version, build and devices are told, and this process has not imported it."""
    found = trial.try_library()

    assert (found.works, found.cause, found.version) == (True, None, "0.3.36")
    assert "CPU" in found.build
    assert [device.kind for device in found.devices][-1] == "processor"
    assert found.devices[-1].total_bytes > 2**20
    assert found.took_s > 0
    assert "llama_cpp" not in sys.modules


SPOILED = """
import os, signal
__version__ = "0.3.36"
__path__.append({folder!r})
import llama_cpp.llama_cpp as real
decode = real.llama_decode
def spoiled(context, batch):
    if batch.n_tokens > 1 and os.environ.get("LLMDISPATCHER_WEIGHTS") != "plain":
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(context, batch)
real.llama_decode = spoiled
"""
"""The real library, as GCC 12.2 compiles it for a processor with matrix tiles."""


@pytest.fixture
def spoiled(install: Install) -> Path:
    """Install a build whose code for tiles is spoiled."""
    found = find_spec("llama_cpp")
    assert found is not None
    assert found.origin is not None
    return install(SPOILED.format(folder=str(Path(found.origin).parent)))


def test_a_build_that_spoils_tiles_works_without(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out with many tokens at once, remembered, and told to whoever loads a model."""
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setattr(processor, "flags", lambda: processor.TILES)

    found = trial.try_library()
    again = trial.try_library()

    assert (found.works, found.packs, found.remembered) == (True, False, False)
    assert (again.works, again.packs, again.remembered) == (True, False, True)
    assert weights.packing() is Packing.PLAIN


def test_a_crash_has_nothing_to_do_with_tiles_that_are_not_there(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another processor such an end is a crash, and nothing else is tried."""
    monkeypatch.setattr(processor, "flags", frozenset)

    assert isinstance(cause_of(trial.try_library()), EngineCrashed)


@pytest.mark.parametrize(
    ("has", "told", "expected"),
    [
        (frozenset(), "", Packing.PACKED),
        (frozenset(), "plain", Packing.PLAIN),
        (frozenset(), "nonsense", Packing.PACKED),
        (processor.TILES, "tiled", Packing.TILED),
        (processor.TILES, "packed", Packing.PACKED),
    ],
)
def test_how_weights_may_be_kept_is_known_without_a_trial(
    has: frozenset[str], told: str, expected: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no tiles, and where somebody has said it, nothing is started."""
    monkeypatch.setattr(processor, "flags", lambda: has)
    monkeypatch.setattr(trial_run, "run", None)
    monkeypatch.setenv(weights.VARIABLE, told)

    assert weights.packing() is expected


def test_any_library_can_be_tried(install: Install) -> None:
    """The prebuilt one is asked in the same way; long names are cut, unknown kinds are 'other'."""
    install(PREBUILT, trial.PREBUILT)

    found = trial.try_library(trial.PREBUILT)

    assert (found.works, found.version) == (True, "2026.1")
    assert found.build == {"CPU": {"SSE3": "1", "AVX2": "1"}}
    assert [device.kind for device in found.devices] == ["processor", "gpu", "other"]
    assert len(found.devices[1].description) == 1000
    assert (found.devices[0].free_bytes, found.devices[0].total_bytes) == (5, 7)


def test_noise_does_not_matter(install: Install) -> None:
    """Native code prints what it likes, to stdout and stderr, with and without ends of lines."""
    noise = "import os\nfor i in range(5000): os.write(1 + i % 2, b'noise \\xff { %d\\n' % i)\n"
    noise += "os.write(1, b'[llmdispatcher-trial] {\"broken\": ')\n"
    install(noise + PREBUILT, trial.PREBUILT)

    assert trial.try_library(trial.PREBUILT).version == "2026.1"


# -- what does not -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_signal_at_the_import_is_a_crash_with_its_signal(name: str, install: Install) -> None:
    """The child dies of it; what it was doing is told."""
    install(f"import os, signal; os.kill(os.getpid(), signal.{name})")

    found = trial.try_library()
    cause = cause_of(found)

    assert isinstance(cause, EngineCrashed)
    assert cause.signal == signal.Signals[name]
    assert found.stage == "importing it"


def test_a_real_illegal_instruction_is_named(install: Install) -> None:
    """A build for another processor: the way out is one that fits."""
    install(
        "import ctypes, mmap\n"
        "code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "code.write(bytes.fromhex('0f0b'))\n"  # ud2 on x86, and nothing valid on arm64 either
        "at = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "ctypes.CFUNCTYPE(None)(at)()\n"
    )

    cause = cause_of(trial.try_library())

    assert isinstance(cause, EngineCrashed)
    assert cause.signal == signal.SIGILL
    assert "instruction" in str(cause)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("__version__ = '0.2.90'", "there is 0.2.90"),
        ("", "a broken one (it has no version)"),
        ("__version__ = 3", "a broken one (it has no version)"),
        ("raise RuntimeError('Failed to load shared library')", "(Failed to load shared library)"),
        ("import jinja3", "there is no jinja3"),
        ("print('garbage'); 1 / 0", "a broken one (ZeroDivisionError: division by zero)"),
        ("def (", "a broken one (SyntaxError"),
        ("import os; os._exit(0)", "ends the program"),
        ("import sys; sys.exit(0)", "ends the program"),
        (
            "raise OSError('libgomp.so.1: cannot open shared object file')",
            "apt install libgomp1",
        ),
        ('raise OSError("version `GLIBC_2.99\' not found")', "compile it here"),
        ("__version__ = '0.3.36'", "a broken one (cannot import name '_utils'"),
    ],
)
def test_what_is_not_installed_right_is_told_with_the_command(
    source: str, words: str, install: Install
) -> None:
    """Missing parts, other versions and libraries that do not load end with what to type."""
    install(source)

    cause = cause_of(trial.try_library())

    assert isinstance(cause, ExecutableNotFound)
    assert words in str(cause)
    assert str(cause).endswith(WAY_OUT)


def test_a_missing_library_is_told_without_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started to find out that there is nothing."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    cause = cause_of(trial.try_library(trial.PREBUILT))

    assert "there is no xllamacpp" in str(cause)
    assert str(cause).endswith("pip install 'llmdispatcher[prebuilt]'")


def test_other_ends_are_crashes(install: Install) -> None:
    """An exit status of the library's own is told."""
    install("import os; os.write(2, b'ggml.c:42: no such thing\\n'); os._exit(3)")

    cause = cause_of(trial.try_library())

    assert isinstance(cause, EngineCrashed)
    assert "ggml.c:42: no such thing" in cause.tail


def test_no_memory_is_out_of_memory(install: Install) -> None:
    """What C++ says when it gets none is known."""
    text = "terminate called after throwing an instance of std::bad_alloc"
    install(f"import os; os.write(2, b'{text}\\n'); os.abort()")

    assert isinstance(cause_of(trial.try_library()), OutOfMemory)


def test_a_library_without_its_other_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package with damaged or missing shared libraries: the loader's words are told."""
    real = find_spec("llama_cpp")
    assert real is not None
    assert real.origin is not None
    folder = tmp_path / "installed" / "llama_cpp"
    shutil.copytree(Path(real.origin).parent, folder, ignore=shutil.ignore_patterns("lib*"))
    (folder / "lib").mkdir()
    shutil.copy(Path(real.origin).parent / "lib" / "libllama.so", folder / "lib")
    monkeypatch.syspath_prepend(str(folder.parent))

    missing = str(cause_of(trial.try_library()))
    (folder / "lib" / "libllama.so").write_bytes(b"\x7fELF")
    damaged = str(cause_of(trial.try_library()))

    assert "libggml" in missing
    assert "cannot open shared object file" in missing
    assert "file too short" in damaged
    assert missing.endswith(WAY_OUT)


def test_a_hang_ends_in_time_and_leaves_no_process(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that never answers is given up, and the child killed."""
    pid_file = tmp_path / "pid"
    # how long Python takes to come to the driver is not counted: the time passes once it hangs
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * pid_file.exists())
    monkeypatch.setattr(trial_run, "time", clock)
    install(
        "import os, pathlib, time\n"
        f"begun = pathlib.Path({str(tmp_path / 'begun')!r})\n"
        "begun.write_text(str(os.getpid()))\n"
        f"begun.replace({str(pid_file)!r})\n"
        "time.sleep(1000)"
    )

    found = trial.try_library(limit_s=300)
    cause = cause_of(found)

    assert isinstance(cause, TimedOut)
    assert cause.limit_s == 300
    assert found.stage == "importing it"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_load_that_is_stopped_does_not_wait_for_the_trial(install: Install) -> None:
    """Who closes the dispatcher meanwhile is not kept waiting for a library that hangs."""
    install("import time; time.sleep(1000)")
    began_s = time.monotonic()

    with pytest.raises(Refused):
        trial.require(lambda: time.monotonic() < began_s + 0.5)

    assert time.monotonic() - began_s < trial.TRIAL_LIMIT_S / 2


# -- remembering -------------------------------------------------------------------------------


def test_what_worked_is_remembered_for_its_owner_alone(cache: Path) -> None:
    """The second time nothing is started; the file is nobody else's to read or to write."""
    first, second = trial.try_library(), trial.try_library()

    assert (first.remembered, second.remembered) == (False, True)
    assert second.works
    assert (second.version, second.build) == (first.version, first.build)
    (path,) = cache.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_what_failed_is_tried_again(install: Install, cache: Path) -> None:
    """A repaired install works at once."""
    install("raise OSError('half installed')", trial.PREBUILT)
    assert trial.try_library(trial.PREBUILT).works is False
    assert not cache.exists()

    install(PREBUILT + "# repaired", trial.PREBUILT)

    assert trial.try_library(trial.PREBUILT).works is True


@pytest.mark.parametrize("what", ["library", "variable", "folder"])
def test_whatever_changes_is_tried_again(
    what: str, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file, another place or another search path may be another library."""
    folder = install(PREBUILT, trial.PREBUILT)
    trial.try_library(trial.PREBUILT)

    if what == "library":
        (folder / "lib").mkdir()
        (folder / "lib" / "libllama.so").write_bytes(b"new")
    elif what == "variable":
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    else:
        monkeypatch.syspath_prepend(str(shutil.copytree(folder.parent, tmp_path / "elsewhere")))

    assert trial.try_library(trial.PREBUILT).remembered is False
    assert trial.try_library(trial.PREBUILT).remembered is True


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"garbage",
        b"[" * 60_000,
        b"{}",
        b'{"format": 1}',
        "of another format",
        "facts of another kind",
        "written by others",
        "cut",
    ],
)
def test_a_damaged_memory_is_no_memory(damage: bytes | str, install: Install, cache: Path) -> None:
    """Whatever the file holds, the library is tried and the file is whole again."""
    install(PREBUILT, trial.PREBUILT)
    trial.try_library(trial.PREBUILT)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    kept = json.loads(whole)
    match damage:
        case bytes():
            path.write_bytes(damage)
        case "of another format":
            path.write_text(json.dumps({**kept, "format": 99}))
        case "facts of another kind":
            path.write_text(json.dumps({**kept, "facts": {**kept["facts"], "device": [7]}}))
        case "written by others":
            path.chmod(0o666)
        case "cut":
            path.write_bytes(whole[:-10])

    assert trial.try_library(trial.PREBUILT).remembered is False
    assert path.read_bytes() == whole
    assert trial.try_library(trial.PREBUILT).remembered is True


def test_a_cache_that_cannot_be_written_does_not_matter(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is tried each time."""
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("LLMDISPATCHER_CACHE_DIR", str(tmp_path / "a file"))
    install(PREBUILT, trial.PREBUILT)

    assert trial.try_library(trial.PREBUILT).works
    assert trial.try_library(trial.PREBUILT).remembered is False


def test_few_installs_are_remembered(cache: Path) -> None:
    """The last ones: a folder of forgotten virtual environments does not grow."""
    for number in range(trial_cache.MOST_KEPT + 5):
        trial_cache.write([number], {"n": number})
        # the clock of a file system may not tell apart what was written in one moment
        os.utime(trial_cache._path([number]), (number, number))

    assert len([*cache.iterdir()]) == trial_cache.MOST_KEPT
    assert trial_cache.read([trial_cache.MOST_KEPT + 4]) == {"n": trial_cache.MOST_KEPT + 4}


def test_a_fresh_trial_forgets_what_worked(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that fails now, for reasons that cannot be seen from outside, is not trusted."""
    install(
        "import os\nif 'BREAK' in os.environ: raise OSError('broken')\n" + PREBUILT, "xllamacpp"
    )
    assert trial.try_library(trial.PREBUILT).works
    monkeypatch.setenv("BREAK", "1")

    assert trial.try_library(trial.PREBUILT).works is True
    assert trial.try_library(trial.PREBUILT, fresh=True).works is False
    assert trial.try_library(trial.PREBUILT).works is False


# -- before the first import -------------------------------------------------------------------


def test_requiring_raises_the_cause(install: Install) -> None:
    """What would have ended this process is an error."""
    install("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

    with pytest.raises(EngineCrashed):
        trial.require()


@pytest.mark.parametrize("where", ["a worker", "a process that uses it", "another trial"])
def test_nothing_is_tried_where_it_means_nothing(
    where: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is thrown away itself, what is imported works, and a trial starts no trial."""
    install("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    if where == "a worker":
        monkeypatch.setenv(mark.MARK, "1")
    elif where == "another trial":
        monkeypatch.setenv(trial_run.MARK, "1")
    else:
        monkeypatch.setitem(sys.modules, "llama_cpp", sys)

    trial.require()


def test_an_application_without_python_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executable is itself, not a Python: starting it would start the application."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    found = trial.try_library()

    assert (found.works, found.cause) == (None, None)
