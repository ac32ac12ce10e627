"""Watches what a worker takes, from outside, and says when that is too much.

The system holds the worker to its limit where it can (``limits.caps`` inside, ``limits.cage``
around it). This is what is left to do everywhere: look, tell the worker to give back what it can
spare, and at last say that it must be killed. Also keeps the figures for ``Vitals``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import OutOfMemory
from llmdispatcher.vendors.llamacpp.host import Vitals
from llmdispatcher.vendors.llamacpp.limits import gpu, probe
from llmdispatcher.vendors.llamacpp.limits.cage import Cage, cage
from llmdispatcher.vendors.llamacpp.limits.caps import Caps, Measure
from llmdispatcher.vendors.llamacpp.limits.watch import GPU_LOOK_S, Action, Watch
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB
from llmdispatcher.vendors.llamacpp.worker.codec import Garbled
from llmdispatcher.vendors.llamacpp.worker.pulse import OBEY_S, SLOW_OBEY_S
from llmdispatcher.vendors.llamacpp.worker.speed import Speed

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.hosting import Life


class Guard:
    """Of one worker."""

    def __init__(self, life: Life) -> None:
        spec = life.spec
        self._limit_bytes = None if spec.max_memory_mb is None else spec.max_memory_mb * MIB
        vram = None if spec.max_vram_mb is None else spec.max_vram_mb * MIB
        self._gives_way = spec.gives_way
        self._sees = spec.projector_path is not None
        self._watch = Watch(self._limit_bytes, vram)
        self._may_use_gpus = spec.max_gpu_layers != 0
        self._before: tuple[gpu.Device, ...] | None = None
        """The devices as they were before the worker was started, where they are of interest."""
        self._cage: Cage | None = None
        self._pid: int | None = None
        self._speed = Speed()
        self._now_bytes: int | None = None
        self._peak_bytes: int | None = None
        self._gpu_bytes: int | None = None
        self._gpu_s = 0.0

    def obey_s(self) -> float:
        """Return how long the worker may go on with what was cancelled before it counts as hung."""
        return SLOW_OBEY_S if self._sees or self._before else OBEY_S

    def room(self) -> dict[str, Any]:
        """Return what the worker is to hold itself to."""
        return {"memory_bytes": self._limit_bytes, "gives_way": self._gives_way}

    def prepare(self) -> None:
        """Look at the devices as they are before the worker is started, which may take a while."""
        if self._may_use_gpus:  # asking may wake a laptop's device: only if it may be used
            self._before = gpu.devices()

    def watch(self, pid: int) -> None:
        """Begin to watch a process."""
        self._pid = pid
        self._cage = cage(Caps(memory_bytes=self._limit_bytes))
        self._cage.add(pid)

    def held(self, told: list[Any]) -> tuple[Measure, ...]:
        """Return all that holds the worker: what it says itself, and what is around it."""
        around = () if self._cage is None else self._cage.measures
        vram = [Measure("vram", enforced=False, how="planned and watched")] if self._before else []
        return (*(_measure(each) for each in told), *around, *vram)

    def look(self, now_s: float, trim: Callable[[], None]) -> OutOfMemory | None:
        """Look at what it takes. Returns why it must be killed, if so."""
        sample = None if self._pid is None else probe.process(self._pid)
        if sample is None:
            return None
        self._now_bytes = sample.resident_bytes
        self._peak_bytes = max(self._peak_bytes or 0, sample.resident_bytes)
        if self._before and now_s - self._gpu_s >= GPU_LOOK_S:
            self._gpu_s, self._gpu_bytes = now_s, self._on_gpus(self._before)
        action = self._watch.look(sample, self._gpu_bytes, now_s)
        if action is Action.TRIM:
            trim()
        if action is not Action.KILL:
            return None
        return OutOfMemory(f"the worker took more than it may, and was ended: {self._watch.breach}")

    def _on_gpus(self, before: tuple[gpu.Device, ...]) -> int | None:
        """Return what it takes of the devices; where no driver tells, by how much they filled."""
        taken = None if self._pid is None else gpu.of_process(self._pid)
        return gpu.grown_bytes(before, gpu.devices()) if taken is None else taken

    def drew(self, tokens: int, running: int, now_s: float) -> None:
        """Note how many tokens have been drawn in all, and for how many requests at once."""
        self._speed.note(tokens, running, now_s)

    def vitals(self) -> Vitals:
        """Return how the worker is."""
        return Vitals(
            pid=self._pid,
            memory_bytes=self._now_bytes,
            peak_bytes=self._peak_bytes,
            gpu_bytes=self._gpu_bytes,
            tokens_per_s=self._speed.tokens_per_s,
        )

    def oom_kills(self) -> int:
        """Return how often the system has killed for memory since the worker was started."""
        return 0 if self._cage is None else self._cage.oom_kills()

    def close(self) -> None:
        """Take away what was put around it."""
        if self._cage is not None:
            self._cage.close()


def _measure(told: object) -> Measure:
    match told:
        case [str(what), bool(enforced), str(how)]:
            return Measure(what, enforced, how)
    raise Garbled("not a measure")
