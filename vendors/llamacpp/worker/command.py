"""How a worker is started: which program, with which arguments and environment.

It must import the same package as its parent, see ``child.interpreter``. A frozen application has
no Python to run, and says itself what starts a worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from llmdispatcher.models.errors import ExecutableNotFound
from llmdispatcher.vendors.llamacpp import weights
from llmdispatcher.vendors.llamacpp.child import interpreter
from llmdispatcher.vendors.llamacpp.mark import MARK
from llmdispatcher.vendors.llamacpp.worker.holding import STACK_MIB


def command(given: Sequence[str] | None, descriptor: int) -> tuple[str, ...]:
    """Return what to run. Raises ExecutableNotFound where nothing is known that would do."""
    if MARK in os.environ:
        raise ExecutableNotFound(
            "a worker started this program instead of the worker: worker_command must run"
            " llmdispatcher.vendors.llamacpp.worker.main.main() and nothing else"
        )
    ends = (str(descriptor), str(os.getpid()))
    if given is not None:
        return (*given, *ends)
    if getattr(sys, "frozen", False) or not sys.executable:
        raise ExecutableNotFound(
            "this application has no Python to run a worker with: give"
            " worker_command=[its own executable, an argument of yours], see to it that the"
            " argument runs llmdispatcher.vendors.llamacpp.worker.main.main(), with the two"
            " arguments that follow; or take isolation='thread'"
        )
    return interpreter.command("llmdispatcher.vendors.llamacpp.worker.main", "main", *ends)


def environment() -> dict[str, str]:
    """Return the worker's environment: this one's, with what llama.cpp reads when it is loaded.

    May have the library tried first, to know how weights may be kept.
    """
    given = {
        weights.VARIABLE: weights.packing(),
        MARK: "1",
        # ggml would start a debugger to print where it aborts, which takes seconds
        "GGML_NO_BACKTRACE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    usual = {
        "OMP_STACKSIZE": f"{STACK_MIB}M",
        # numpy's own threads, which nothing here uses, reserve address space for each processor
        "OPENBLAS_NUM_THREADS": "1",
    }
    return {**usual, **os.environ, **given}
