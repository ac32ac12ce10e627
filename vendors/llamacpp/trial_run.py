"""Runs a throw-away child, and reads what it told of itself. ``trial_child`` is what runs in it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.vendors.llamacpp.trial_child import BEGIN

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.child.spawn import Child

END_LIMIT_S = 5.0
"""How long a killed child may take to be gone."""

LOOK_S = 0.1
"""How often to ask whether anybody still waits."""

MARK = "LLMDISPATCHER_TRIAL"
"""Set in the child's environment: one that wants a trial of its own is a program that was started
where a Python was expected, and must not start another."""

_MODULE = "llmdispatcher.vendors.llamacpp.trial_child"


@attrs.frozen(kw_only=True)
class Ended:
    """How a child ended."""

    status: int | None
    """None: it did not end in time, and was killed."""
    log: str
    """The last of what it wrote."""
    took_s: float

    def told(self) -> dict[str, Any]:
        """Return all that it told of itself, later words over earlier ones.

        What it told several times under ``device`` and ``measure`` is a list under that name.
        """
        told: dict[str, Any] = {"device": [], "measure": []}
        for piece in self.log.split(BEGIN)[1:]:
            try:
                facts, _ = json.JSONDecoder().raw_decode(piece)
            except (ValueError, RecursionError):
                continue  # cut through by what native code wrote at the same time
            for name, value in facts.items() if isinstance(facts, dict) else ():
                told[name] = [*told[name], value] if name in {"device", "measure"} else value
        return told

    def lines(self) -> list[str]:
        """Return the lines that others wrote, without empty ones."""
        return [line for line in self.log.splitlines() if line.strip() and BEGIN not in line]


def can_run() -> bool:
    """Say whether there is a Python to run a child with, and this process is not one itself."""
    return not (MARK in os.environ or getattr(sys, "frozen", False)) and bool(sys.executable)


def run(
    *arguments: str,
    limit_s: float,
    go_on: Callable[[], bool] = lambda: True,
    began: Callable[[Child], None] = lambda _: None,
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Start a child, wait for its end, and kill it after ``limit_s`` or when ``go_on`` says no.

    Must be called from a thread that outlives the call. ``began`` is called with the child, whose
    environment has ``variables`` as well. Raises the VendorError of a start that failed.
    """
    from llmdispatcher.vendors.llamacpp.child import (  # noqa: PLC0415 - starts processes
        interpreter,
        spawn,
    )

    # one thread is enough for a trial, and a debugger that prints an abort takes seconds to start
    given = {MARK: "1", "GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1"}
    given |= variables or {}
    given["PYTHONUNBUFFERED"] = "1"  # or what it prints comes after the traceback that ends it
    began_s = time.monotonic()
    child = spawn.start(
        spawn.Order(
            command=interpreter.command(_MODULE, "main", *arguments),
            environment={**os.environ, **given},
            kind="trial",
        )
    )
    try:
        began(child)
        status = _end(child, began_s + limit_s, go_on)
        if status is None:
            child.kill()
            child.wait(END_LIMIT_S)
    finally:
        child.forget()
    return Ended(status=status, log=child.tail.text(), took_s=time.monotonic() - began_s)


def _end(child: Child, until_s: float, go_on: Callable[[], bool]) -> int | None:
    """Wait for a child's end; None if it does not end in time, or nobody waits any more."""
    while go_on() and (left_s := until_s - time.monotonic()) > 0:
        status = child.wait(min(LOOK_S, left_s))
        if status is not None:
            return status
    return None
