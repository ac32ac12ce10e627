"""Tries a native library in a throw-away child, before this process imports it.

A build for another processor, a missing shared library or a driver that hangs would take the user's
program down at the import. Here each becomes a ``Trial`` with a typed cause and the way out. What
worked is remembered by install (``trial_cache``); what failed is tried again.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.errors import (
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Refused,
    TimedOut,
    VendorError,
)
from llmdispatcher.vendors.llamacpp import processor, trial_cache, trial_run, weights
from llmdispatcher.vendors.llamacpp.loading import TESTED_VERSIONS
from llmdispatcher.vendors.llamacpp.mark import MARK
from llmdispatcher.vendors.llamacpp.trial_child import DECODING
from llmdispatcher.vendors.llamacpp.weights import Packing

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.trial_run import Ended

BINDING, PREBUILT = "llama_cpp", "xllamacpp"
"""The libraries that can be tried, by the names of their packages."""

TRIAL_LIMIT_S = 60.0
"""A build with CUDA reads a gigabyte of libraries and wakes the driver, which takes many seconds
from a cold disk; whatever takes a minute is not going to end."""

_WAYS = {
    BINDING: f"pip install 'llama-cpp-python=={TESTED_VERSIONS[-1]}' jinja2 psutil",
    PREBUILT: "pip install 'llmdispatcher[prebuilt]'",
}
_NAMES = {
    BINDING: f"running GGUF files needs llama-cpp-python {TESTED_VERSIONS[-1]}, jinja2 and psutil",
    PREBUILT: "the prebuilt engine needs xllamacpp",
}

_TITLES = {BINDING: "llama-cpp-python", PREBUILT: "xllamacpp"}
COMPILE = (
    "pip install --no-cache-dir --force-reinstall --no-binary llama-cpp-python"
    f" 'llama-cpp-python=={TESTED_VERSIONS[-1]}'"
)
"""Compiles the binding on this machine, and so for its processor."""

_ANEW = {
    BINDING: COMPILE,
    PREBUILT: "pip install 'llmdispatcher[llamacpp]', which compiles its own",
}

_HINTS = (
    ("libgomp", "apt install libgomp1 (Debian, Ubuntu) or dnf install libgomp (Fedora)"),
    ("libcudart", "install the CUDA runtime of the version that the library names"),
    ("libcublas", "install the CUDA runtime of the version that the library names"),
    ("libcuda.so", "install NVIDIA's driver, or a build without CUDA"),
    ("libvulkan", "apt install libvulkan1 (Debian, Ubuntu), or a build without Vulkan"),
    ("libamdhip", "install ROCm of the version that the library names"),
    ("GLIBC", "compile it here, since it was built for a newer system"),
    ("wrong ELF class", "it was built for another kind of processor"),
    ("invalid ELF header", "the file is damaged, or of another system"),
    ("incompatible architecture", "it was built for another kind of processor"),
    ("VCRUNTIME", "install Microsoft's Visual C++ redistributable"),
    ("DLL load failed", "install Microsoft's Visual C++ redistributable"),
)
"""What the dynamic loader says of a library that it cannot load, and what to do about that."""

_TRIES = ("LLAMA_CPP_LIB_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
"""Variables that change what is loaded: a trial holds for these values alone."""

_DRIVER = Path("/proc/driver/nvidia/version")
_lock = threading.Lock()
"""One trial at a time: the second finds what the first remembered."""


@attrs.frozen(kw_only=True)
class Device:
    """What a library can compute with."""

    name: str
    description: str
    kind: str
    """``processor``, ``gpu``, ``integrated gpu``, ``accelerator`` or ``other``."""
    free_bytes: int
    total_bytes: int


@attrs.frozen(kw_only=True)
class Trial:
    """How a library did."""

    works: bool | None
    """None: it could not be tried, since there is no Python to try it with."""
    package: str = BINDING
    version: str = ""
    """Empty where the library did not come to say it."""
    system_info: str = ""
    """What ``llama_print_system_info`` returns."""
    devices: tuple[Device, ...] = ()
    cause: VendorError | None = None
    """Why it does not work, and the way out."""
    stage: str = ""
    """What it was doing when it failed."""
    took_s: float = 0.0
    packs: bool = True
    """Whether weights may be put into an order of the library's own; see ``weights``."""
    remembered: bool = False
    """Nothing was tried now: it worked before, and nothing of it has changed."""

    @property
    def build(self) -> Mapping[str, Mapping[str, str]]:
        """The features that it was built with, by backend: ``build["CPU"]["AVX2"] == "1"``."""
        return processor.features(self.system_info)


def require(go_on: Callable[[], bool] = lambda: True) -> None:
    """Raise why llama.cpp would take this process down; at once if it is in use already.

    Called before the first import in a process that must not die of it. Not in a worker. Raises
    Refused when ``go_on`` says no, and else the VendorError that is ``Trial.cause``.
    """
    if BINDING in sys.modules or MARK in os.environ:  # a worker is thrown away already
        return
    with _lock:
        cause = try_library(go_on=go_on).cause
    if not go_on():
        raise Refused("the load was stopped")
    if cause is not None:
        raise cause


def packing() -> Packing:
    """Return how weights may be kept; of a library that does not work, or is not there, the most.

    Must be called from a thread that outlives the call.
    """
    with _lock:
        tried = try_library()
    if not tried.packs:
        return Packing.PLAIN
    no_tiles = tried.works and tried.build.get("CPU", {}).get("AMX_INT8", "0") == "0"
    return Packing.PACKED if no_tiles else Packing.TILED


def try_library(
    package: str = BINDING,
    *,
    fresh: bool = False,
    limit_s: float = TRIAL_LIMIT_S,
    go_on: Callable[[], bool] = lambda: True,
) -> Trial:
    """Use a library in a child process, and say how that went. Raises nothing.

    Must be called from a thread that outlives the call. ``fresh`` forgets what worked before;
    after ``limit_s`` seconds, or when ``go_on`` says no, the child counts as hanging.
    """
    if not trial_run.can_run():
        return Trial(works=None, package=package)
    place = folder(package)
    if place is None:
        return Trial(works=False, package=package, cause=refused(f"no {package}", package))
    key = _key(package, place)
    if not fresh and (known := trial_cache.read(key)) is not None:
        trial = _worked(package, known, took_s=0.0)
        if trial is not None:
            return attrs.evolve(trial, remembered=True)
    trial = _tried(package, limit_s, go_on)
    if trial.works:
        trial_cache.write(key, _facts(trial))
    elif fresh:
        trial_cache.forget(key)
    return trial


def folder(package: str) -> Path | None:
    """Return where a package lies, without importing it; None where there is none."""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):  # something in sys.modules or in the path stands in its way
        return None
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent


def refused(found: str, package: str = BINDING, hint: str = "") -> ExecutableNotFound:
    """Make the error that says what there is instead of the library, and what to type."""
    first = f" {hint}; or" if hint else ""
    return ExecutableNotFound(f"{_NAMES[package]}, and there is {found}:{first} {_WAYS[package]}")


def broken(text: str, package: str = BINDING) -> ExecutableNotFound:
    """Make the error for a library that does not load, from what the loader or the import says."""
    hint = next((told for sign, told in _HINTS if sign in text), "")
    return refused(f"a broken one ({text})", package, hint)


# -- what a child's end means --------------------------------------------------------------------


def _tried(package: str, limit_s: float, go_on: Callable[[], bool]) -> Trial:
    """Try; where computing ends the child, try once more with weights as the file has them."""
    tried = _tried_once(package, limit_s, go_on, {weights.VARIABLE: Packing.TILED})
    died = isinstance(tried.cause, EngineCrashed) and tried.stage == DECODING
    if died and weights.has_tiles():
        again = _tried_once(package, limit_s, go_on, {weights.VARIABLE: Packing.PLAIN})
        if again.works:
            return attrs.evolve(again, packs=False)
    return tried


def _tried_once(
    package: str, limit_s: float, go_on: Callable[[], bool], variables: Mapping[str, str]
) -> Trial:
    """Try, and say what the child's end means."""
    tested = TESTED_VERSIONS if package == BINDING else ()
    try:
        ended = trial_run.run(package, *tested, limit_s=limit_s, go_on=go_on, variables=variables)
    except VendorError as error:
        return Trial(works=False, package=package, cause=error)
    told = ended.told()
    if ended.status == 0 and (worked := _worked(package, told, took_s=ended.took_s)) is not None:
        return worked
    return Trial(
        works=False,
        package=package,
        version=str(told.get("version", told.get("untested", ""))),
        cause=TimedOut("load", limit_s) if ended.status is None else _cause(package, ended),
        stage=str(told.get("stage", "")),
        took_s=ended.took_s,
    )


def _cause(package: str, ended: Ended) -> VendorError:
    """Say why a child that ended did not say that it works."""
    told = ended.told()
    for word, made in _CAUSES.items():
        if word in told:
            return made(str(told[word]), package)
    lines = ended.lines()
    if ended.status in {0, 1} and lines:  # Python's own way to end, whose last line is the error
        return broken(lines[-1].strip()[:_SHOWN_CHARS], package)
    if not ended.status:
        return broken("importing it ends the program", package)
    return _crash(package, ended, "\n".join(lines))


def _crash(package: str, ended: Ended, tail: str) -> VendorError:
    """Say how a child died of its library."""
    from llmdispatcher.vendors.llamacpp.child import causes  # noqa: PLC0415 - first use

    died = causes.cause(causes.End(status=ended.status or 0, tail=tail))
    if not isinstance(died, EngineCrashed):
        return died
    how = f"exit status {ended.status}"
    if died.signal is not None:
        known = (each.name for each in signal.Signals if each == died.signal)
        how = next(known, f"signal {died.signal}")
    why = ", an instruction that this processor does not have" if how == "SIGILL" else ""
    during = ended.told().get("stage", "starting")
    return EngineCrashed(
        f"{_TITLES[package]} ends every process that uses it (tried in one of its own, which died"
        f" while {during}, with {how}{why}): {_ANEW[package]}",
        signal=died.signal,
        tail=died.tail,
    )


_CAUSES: dict[str, Callable[[str, str], VendorError]] = {
    "missing": lambda name, package: refused(f"no {name}", package),
    "untested": refused,
    "broken": broken,
    "memory": lambda text, _: OutOfMemory(text),
}
"""What a child tells of a library that it cannot use."""

_SHOWN_CHARS = 300
"""Of an error's last line."""


def _worked(package: str, facts: Mapping[str, Any], *, took_s: float) -> Trial | None:
    """Make the trial of a library that works; None if these facts do not say so."""
    try:
        return Trial(
            works=True,
            package=package,
            version=_words(facts["version"]),
            system_info=_words(facts["system_info"]),
            devices=tuple(_device(device) for device in facts["device"]),
            packs=facts.get("packs") is not False,
            took_s=took_s,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _device(facts: Mapping[str, Any]) -> Device:
    words = {name: _words(facts[name]) for name in ("name", "description", "kind")}
    return Device(
        **words, free_bytes=int(facts["free_bytes"]), total_bytes=int(facts["total_bytes"])
    )


def _words(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _facts(trial: Trial) -> dict[str, Any]:
    """Return what is remembered of a trial."""
    return {
        "version": trial.version,
        "system_info": trial.system_info,
        "packs": trial.packs,
        "device": [attrs.asdict(device) for device in trial.devices],
    }


# -- what a trial holds for --------------------------------------------------------------------


def _key(package: str, folder: Path) -> list[Any]:
    """Return all that a trial's result depends on, as far as that can be seen from outside."""
    libraries = [Path(given)] if (given := os.environ.get("LLAMA_CPP_LIB_PATH")) else []
    libraries += [folder, folder / "lib"]
    return [
        package,
        [sys.executable, sys.version],
        [[str(place), _state(place)] for place in libraries],
        {name: os.environ.get(name) for name in _TRIES},
        [platform.machine(), *sorted(processor.flags())],
        _driver(),
    ]


def _driver() -> str:
    """Return the version of NVIDIA's kernel module; empty where there is none."""
    try:
        return _DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _state(folder: Path) -> list[list[Any]]:
    """Return name, size and time of change of every file in a folder; none where there is none."""
    try:
        with os.scandir(folder) as entries:
            found = [
                [entry.name, entry.stat().st_size, entry.stat().st_mtime_ns]
                for entry in entries
                if entry.is_file()
            ]
    except OSError:
        return []
    return sorted(found)[:MOST_FILES]


MOST_FILES = 1000
"""Of a folder of libraries; builds have a few dozen."""
