"""Brings a server to where it serves: what to start, and how far it is. Event loop of the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.host import progress
from llmdispatcher.vendors.llamacpp.limits import probe
from llmdispatcher.vendors.llamacpp.limits.caps import Caps
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB
from llmdispatcher.vendors.llamacpp.server import planned, settings
from llmdispatcher.vendors.llamacpp.server.flags import MORE_HTTP_THREADS
from llmdispatcher.vendors.llamacpp.server.holding import stacks_bytes
from llmdispatcher.vendors.llamacpp.server.program import Program, program_for
from llmdispatcher.vendors.llamacpp.server.signs import Sight

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.hosting import Life
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan
    from llmdispatcher.vendors.llamacpp.server.running import Running
    from llmdispatcher.vendors.llamacpp.server.settings import Settings

STEP = 0.01
"""By how much a load must have come on to be reported."""

MORE_THREADS = 4
"""Of a server beside those that compute and those that answer: it waits, logs and queues."""


@attrs.frozen(kw_only=True)
class Task:
    """What is to be started."""

    program: Program
    header: Header
    plan: Plan
    settings: Settings
    uses_gpu: bool


def prepared(life: Life, program: Program | None) -> Task:
    """Read the file, find a program and plan. Raises a VendorError."""
    spec = life.spec
    header = gguf.read_header(spec.model_path)
    pooling = planned.pooling_of(spec, header)
    if pooling is None:
        header.check_generates()
    program = program or program_for(spec)
    gpus = () if spec.max_gpu_layers == 0 else program.gpus()
    plan = planned.plan(spec, header, pooling, life.rung, gpus)
    return Task(
        program=program,
        header=header,
        plan=plan,
        settings=settings.made(spec, life.card.model, header, plan, pooling),
        uses_gpu=bool(gpus),
    )


def caps(life: Life, task: Task) -> Caps:
    """Return what to hold the server to."""
    limit, told = life.spec.max_memory_mb, task.settings
    threads = 2 * told.threads + told.parallel + MORE_HTTP_THREADS + MORE_THREADS
    return Caps(
        memory_bytes=None if limit is None else limit * MIB,
        mapped_bytes=task.header.weight_bytes if told.mapped else 0,
        reserved_bytes=stacks_bytes(threads),
        gives_way=life.spec.gives_way,
        uses_gpu=task.uses_gpu,
    )


def sight(running: Running, pieces: int) -> Sight:
    """Look for what a server did until now."""
    sample = probe.process(running.child.pid)
    if sample is None:
        return Sight(marks=(running.log.lines, pieces), cpu_s=0.0)
    marks = (running.log.lines, pieces, sample.read_bytes, sample.resident_bytes // MIB)
    return Sight(marks=marks, cpu_s=sample.cpu_s)


class Progress:
    """Tells how far a load is: never less than before, and the end exactly once."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._began_s = time.monotonic()
        self._told = -1.0

    def look(self, running: Running, resident_bytes: int | None, need_bytes: int) -> None:
        """Tell how far it is, if that is further."""
        self.tell(running.log.fraction((resident_bytes or 0) / max(1, need_bytes)))

    def tell(self, fraction: float) -> None:
        """Report a fraction."""
        if fraction < 1 and fraction < self._told + STEP:
            return
        self._told = fraction
        self._life.report(progress(self._life.card, fraction, self._began_s))


Look = Callable[[], None]
"""Looks at a server, and raises what it must end for."""
