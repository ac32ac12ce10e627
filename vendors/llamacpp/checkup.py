"""What there is to say about llama.cpp on this machine: which engines, how built, and how limited.

Each part is looked at for itself: native code in throw-away processes, the rest by reading. What
cannot be found out is told as such, with the command that mends it; nothing here raises.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import OutOfMemory, TimedOut, VendorError
from llmdispatcher.vendors.llamacpp import choice, processor, trial, trial_run
from llmdispatcher.vendors.llamacpp.trial_child import LIMITS

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.limits.gpu import Device
    from llmdispatcher.vendors.llamacpp.trial import Trial

MIB = 2**20

_LIMITS_S = 20.0
"""How long a process may take to be limited; it takes a tenth of a second."""

_TRIED_BYTES = 1024 * MIB
"""What the process that is limited may take: far more than it does."""

_NVIDIA = Path("/proc/driver/nvidia/version")


@attrs.frozen
class Finding:
    """Something that is not as it should be, or could be better."""

    what: str
    remedy: str
    serious: bool = attrs.field(default=True, kw_only=True)
    """False: it works all the same."""


@attrs.frozen
class Part:
    """One thing that was looked at."""

    name: str
    facts: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


def parts() -> list[Part]:
    """Look at everything about llama.cpp; takes about a second."""
    binding, prebuilt = trial.try_library(fresh=True), None
    if choice.is_there(trial.PREBUILT):
        prebuilt = trial.try_library(trial.PREBUILT, fresh=True)
    return [
        chosen(),
        library("llama-cpp-python", binding),
        *([] if prebuilt is None else [library("xllamacpp", prebuilt)]),
        program(),
        gpus([tried for tried in (binding, prebuilt) if tried is not None]),
        limits(uses_gpu=_has_gpu(binding)),
    ]


# -- engines -----------------------------------------------------------------------------------


def chosen() -> Part:
    """Say which engine runs a file for which none was named."""
    try:
        taken = choice.choose("auto", None, "process", choice.look())
    except VendorError as error:
        what, _, remedy = str(error).partition(": ")
        return Part("engine", (), (Finding(what, remedy),))
    return Part("engine", (("runs GGUF files", f"{taken.kind} ({taken.why})"),))


def library(name: str, tried: Trial) -> Part:
    """Describe a native library by its trial."""
    where = trial.folder(tried.package)
    if where is None:  # not an error by itself: ``chosen`` says whether there is another engine
        return Part(name, (("installed", "no"),))
    version = tried.version or choice.version(tried.package) or "a version that it does not tell"
    facts = [("installed", f"{version}, in {where}")]
    if tried.works is None:
        return Part(name, (*facts, ("works", "not tried: there is no Python to try it with")))
    if tried.cause is not None:
        finding = _finding("it does not work", tried.cause, tried.stage)
        return Part(name, tuple(facts), (finding,))
    facts.append(("works", f"yes, tried in {tried.took_s:.2f} s in a process of its own"))
    for backend, features in tried.build.items():
        used = [name if value == "1" else f"{name}={value}" for name, value in features.items()]
        facts.append((f"built for {backend}", " ".join(used)))
    return Part(name, tuple(facts), _fits(tried))


def _finding(what: str, cause: VendorError, stage: str = "") -> Finding:
    """Say what an error says, with the way out where it has one of its own."""
    if isinstance(cause, TimedOut):
        during = f" (while {stage})" if stage else ""
        return Finding(f"{what}: {cause}{during}", _PATIENCE)
    if isinstance(cause, OutOfMemory):
        return Finding(f"{what}: {cause}", _ROOM)
    told, _, remedy = str(cause).rpartition(": ")
    return Finding(f"{what}: {told or remedy}", remedy if told else _OTHER)


_COMPILE_HERE = f"compile it on this machine: {trial.COMPILE}"
_UNPACKED = (
    "its code for matrix tiles (AMX) ends the process, as GCC before 11.5, 12.4, 13.3 and 14.1"
    " compiles it: weights are kept as the file has them, and prompts are read more slowly"
)
_NEWER = f"with a newer compiler, {trial.COMPILE}"
_PATIENCE = (
    "a driver or a disk does not answer: leave the GPU out (CUDA_VISIBLE_DEVICES=-1), restart the"
    f" machine, or {_COMPILE_HERE}"
)
_OTHER = "install another build of it, or remove it"
_ROOM = "close other programs, or raise the limits of this process (ulimit -d, ulimit -v)"


def _fits(tried: Trial) -> tuple[Finding, ...]:
    """Say whether the build is one for this processor."""
    found = processor.match(tried.build.get("CPU", {}), processor.flags())
    if not tried.packs:
        return (Finding(_UNPACKED, _NEWER, serious=False),)
    if found.lacking:
        lacking = ", ".join(found.lacking)
        what = f"it was built for a processor with {lacking}, which this one does not have"
        return (Finding(f"{what}: it crashes, now or later", _COMPILE_HERE),)
    if not found.unused:
        return ()
    what = f"it was built without {', '.join(found.unused)}, which this processor has: it is slower"
    way = _COMPILE_HERE if tried.package == trial.BINDING else f"for speed, {choice.COMPILED}"
    return (Finding(what, way, serious=False),)


def program() -> Part:
    """Describe the llama-server on PATH."""
    from llmdispatcher.vendors.llamacpp.server import build, find  # noqa: PLC0415 - first use

    try:
        path = find.executable(None)
    except VendorError:
        return Part("llama-server", (("installed", "no"),))
    facts = (("installed", f"{path}"),)
    try:
        known = build.known(path)
        facts = (("installed", f"{_program_version(path)}, {path}"),)
    except VendorError as error:
        return Part("llama-server", facts, (_finding("it cannot be used", error),))
    return Part("llama-server", (*facts, ("works", f"yes, and knows {len(known.flags)} flags")))


def _program_version(path: Path) -> str:
    """Ask a program for its version. Raises VendorError."""
    from llmdispatcher.vendors.llamacpp.child import spawn  # noqa: PLC0415 - starts processes
    from llmdispatcher.vendors.llamacpp.server.environment import (  # noqa: PLC0415 - first use
        environment,
    )

    command = (str(path), "--version")
    order = spawn.Order(command=command, environment=environment(os.environ), kind="server")
    child = spawn.start(order)
    try:
        child.wait(_VERSION_S)
    finally:
        child.forget()
    found = re.search(r"^version: (.*)", child.tail.text(), re.MULTILINE)
    return found[1] if found else "a version that it does not tell"


_VERSION_S = 10.0
"""How long it may take to print it; drivers of GPUs may be loaded before."""


# -- devices and limits ------------------------------------------------------------------------


def _has_gpu(tried: Trial) -> bool:
    return any(device.kind.endswith("gpu") for device in tried.devices)


def gpus(trials: list[Trial]) -> Part:
    """Say which GPUs there are, and whether a library can use them."""
    from llmdispatcher.vendors.llamacpp.limits import gpu  # noqa: PLC0415 - first use

    seen, reason = gpu.devices(), gpu.reason()
    facts = [
        (f"NVIDIA {place}", f"{device.name}, driver {device.driver}, {_free(device)}")
        for place, device in enumerate(seen)
    ]
    for tried in trials:
        if not tried.works:
            continue
        devices = [device for device in tried.devices if device.kind.endswith("gpu")]
        shown = [f"{device.name}: {device.description}" for device in devices]
        facts.append((f"used by {tried.package}", ", ".join(shown) or "none"))
    has_driver = bool(seen) or _NVIDIA.exists()
    findings = []
    if reason is not None and has_driver:
        what, _, way = reason.partition(": ")
        findings.append(Finding(what, way or "see nvidia-smi", serious=False))
    if has_driver and not any(_has_gpu(tried) for tried in trials):
        way = f'install CUDA\'s toolkit, then CMAKE_ARGS="-DGGML_CUDA=on" {trial.COMPILE}'
        what = "there is an NVIDIA GPU, and no library here was built to use it"
        findings.append(Finding(what, way, serious=False))
    if not has_driver:
        facts.append(("NVIDIA", "no driver"))
    return Part("GPUs", tuple(facts), tuple(findings))


def _free(device: Device) -> str:
    free = device.total_bytes - device.used_bytes
    return f"{free / MIB:,.0f} of {device.total_bytes / MIB:,.0f} MiB free"


def limits(*, uses_gpu: bool) -> Part:
    """Limit a throw-away process as a worker is, and say which limits the system keeps."""
    name = "limits of a worker"
    if not trial_run.can_run():
        return Part(name, (("tried", "no: there is no Python to try it with"),))
    from llmdispatcher.vendors.llamacpp.limits import cage, caps  # noqa: PLC0415 - first use

    held = cage.cage(caps.Caps(memory_bytes=_TRIED_BYTES, uses_gpu=uses_gpu))
    try:
        ended = trial_run.run(
            LIMITS,
            str(_TRIED_BYTES),
            "gpu" if uses_gpu else "",
            limit_s=_LIMITS_S,
            began=lambda child: held.add(child.pid),
        )
        measures = [caps.Measure(*told) for told in ended.told()["measure"]]
        measures += held.measures
    except VendorError as error:
        return Part(name, (), (_finding("no process could be limited", error),))
    finally:
        held.close()
    facts = [
        (each.what, f"{'enforced' if each.enforced else 'not enforced'}: {each.how}")
        for each in measures
    ]
    facts.append(("memory of GPUs", "not enforced: planned before loading, and watched"))
    kept = any(each.enforced for each in measures if each.what.startswith("memory"))
    findings = () if kept else (_unlimited(),)
    return Part(name, tuple(facts), findings)


def _unlimited() -> Finding:
    what = "max_memory_mb is planned and watched, and nothing in this system enforces it"
    systemd = "run the program in a scope of its own (systemd-run --user --scope -p Delegate=yes …)"
    way = systemd if sys.platform == "linux" else "this system offers nothing that would"
    return Finding(what, way, serious=False)
