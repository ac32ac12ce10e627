"""What NVIDIA's driver says of its devices' memory. The only module that imports pynvml.

Nothing here fails: without the library, a driver or a device there are no devices, nothing is known
of any process, and ``reason`` tells why. Figures of other makers' devices are not to be had here.

Never run with a driver; what turns its answers into numbers is pure and tested.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

_NOT_AVAILABLE = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE as nvml.h writes it, where the library did not make it None."""


@attrs.frozen(kw_only=True)
class Device:
    """One device, or one instance of a device that is split (MIG), which then stands for itself."""

    uuid: str
    name: str
    total_bytes: int
    used_bytes: int
    """By everybody, the driver included."""
    driver: str
    """Version of the driver."""
    mig: bool = False
    """Whether this is an instance of a split device."""


def devices() -> tuple[Device, ...]:
    """Return the devices of this machine that can be asked; takes milliseconds."""
    if (nvml := _nvml.opened()) is None:
        return ()
    found = (_device(nvml, handle, mig=mig) for handle, mig in _handles(nvml))
    return tuple(device for device in found if device is not None)


def of_process(pid: int) -> int | None:
    """Return how many bytes of all devices a process takes; None where nobody knows.

    It is not known for a process that uses no device, under Windows' usual driver model (WDDM),
    and in containers whose driver counts processes by the host's numbers. Where it must be known,
    take ``devices`` before a load and after: ``grown_bytes``.
    """
    if (nvml := _nvml.opened()) is None:
        return None
    return in_use_bytes([_listed(nvml, handle) for handle, _ in _handles(nvml)], pid)


def reason() -> str | None:
    """Return why nothing is known of NVIDIA's devices; None where it is."""
    if _nvml.opened() is None:
        return _nvml.reason
    return None if devices() else "NVIDIA's driver is there and lists no device that can be asked"


# -- answers into numbers: pure ----------------------------------------------------------------

Listed = Mapping[str, Sequence[tuple[int, int | None]]]
"""Of one device: the kind of list, ``compute`` or ``graphics``, to processes and their bytes."""


def in_use_bytes(listed: Iterable[Listed], pid: int) -> int | None:
    """Add up what a process takes of all devices; None where it is not listed, or not known.

    A process that computes and draws stands in both lists of a device with one and the same sum.
    """
    total, known = 0, False
    for lists in listed:
        mine = [used for rows in lists.values() for number, used in rows if number == pid]
        if any(used is None or used == _NOT_AVAILABLE for used in mine):
            return None
        known = known or bool(mine)
        total += max((used or 0 for used in mine), default=0)
    return total if known else None


def grown_bytes(before: Iterable[Device], now: Iterable[Device]) -> int:
    """Return how much more of all devices is used than before, by whomever.

    A device that was not there before counts from nothing used; one that is gone does not count.
    """
    then = {device.uuid: device.used_bytes for device in before}
    return sum(max(0, device.used_bytes - then.get(device.uuid, 0)) for device in now)


# -- the driver ----------------------------------------------------------------------------------


class _Nvml:
    """The library, opened once for each process and never closed: it ends with the process."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._opened: Any = None
        self._pid: int | None = None
        self._lock = threading.Lock()

    def opened(self) -> Any:  # noqa: ANN401 - pynvml has no types
        """Return pynvml, ready to be asked, or None; what once failed is not tried again."""
        with self._lock:
            if self._pid != os.getpid():  # a fork does not inherit what was opened
                self._pid = os.getpid()
                self._opened, self.reason = _open()
            return self._opened


_nvml = _Nvml()


def _open() -> tuple[Any, str | None]:
    """Load the library and connect to the driver; or return why not, and the way out."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, "memory of NVIDIA devices is not seen: pip install nvidia-ml-py"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return None, f"NVIDIA's driver does not answer: {error}"
    return nvml, None


def _errors(nvml: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - pynvml has no types
    """List what a question may raise: the second where the driver is older than the library."""
    return (nvml.NVMLError, nvml.NVMLLibraryMismatchError)


def _handles(nvml: Any) -> list[tuple[Any, bool]]:  # noqa: ANN401 - pynvml has no types
    """List the devices, and in place of a split one its instances."""
    found: list[tuple[Any, bool]] = []
    for index in range(_asked(nvml, "nvmlDeviceGetCount") or 0):
        device = _asked(nvml, "nvmlDeviceGetHandleByIndex", index)
        if device is None:
            continue
        now, _ = _asked(nvml, "nvmlDeviceGetMigMode", device) or (0, 0)
        if not now:
            found.append((device, False))
            continue
        for place in range(_asked(nvml, "nvmlDeviceGetMaxMigDeviceCount", device) or 0):
            instance = _asked(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", device, place)
            if instance is not None:
                found.append((instance, True))
    return found


def _device(nvml: Any, handle: Any, *, mig: bool) -> Device | None:  # noqa: ANN401 - pynvml has no types
    """Describe a device; None where its memory cannot be asked for."""
    memory = _asked(nvml, "nvmlDeviceGetMemoryInfo", handle)
    if memory is None:
        return None
    return Device(
        uuid=str(_asked(nvml, "nvmlDeviceGetUUID", handle) or ""),
        name=str(_asked(nvml, "nvmlDeviceGetName", handle) or "NVIDIA device"),
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        driver=str(_asked(nvml, "nvmlSystemGetDriverVersion") or ""),
        mig=mig,
    )


def _listed(nvml: Any, handle: Any) -> Listed:  # noqa: ANN401 - pynvml has no types
    """Return a device's processes. What CUDA starts computes; what Vulkan starts draws."""
    return {
        kind: [
            (int(each.pid), None if each.usedGpuMemory is None else int(each.usedGpuMemory))
            for each in _asked(nvml, f"nvmlDeviceGet{kind.title()}RunningProcesses", handle) or ()
        ]
        for kind in ("compute", "graphics")
    }


def _asked(nvml: Any, name: str, *about: Any) -> Any:  # noqa: ANN401 - pynvml has no types
    """Ask the driver; None where it cannot tell: not supported, not permitted, device lost."""
    try:
        return getattr(nvml, name)(*about)
    except _errors(nvml):
        return None
