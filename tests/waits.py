"""Waiting in tests: for what is to be so, and for no time that a slow machine could outlast."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import attrs

from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.scripted import ResidentScriptedEngine, Scripted, ScriptedEngine

SOON_S = 10.0
"""A bound on what is to happen at once, where the alternative is a minute: a machine may be slow,
and busy with something else. How soon it is, is measured in ``bench/``."""

WAIT_S = 60.0
"""A bound on what is to happen at all."""

POLL_S = 0.005


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(POLL_S)


async def auntil(true: Callable[[], object]) -> None:
    """Wait until something is so, while the event loop goes on."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came to be"
        await asyncio.sleep(POLL_S)


@attrs.frozen
class HeldLoad:
    """A scripted vendor whose model is loaded when a test says so, and not before."""

    spec: Scripted
    go_on: threading.Event = attrs.field(factory=threading.Event)
    """Loads end from then on."""

    @property
    def name(self) -> str:
        """The name of the vendor."""
        return self.spec.name

    def start(self, report: Report) -> ScriptedEngine:
        """Make the engine, which ends with the test at the latest."""
        kind = ScriptedEngine if self.spec.memory_mb is None else ResidentScriptedEngine
        return _held(kind)(self.spec, report, self.go_on)


def _held(kind: type[ScriptedEngine]) -> Callable[..., ScriptedEngine]:
    class Held(kind):  # type: ignore[misc,valid-type]
        """Waits before it loads."""

        def __init__(self, spec: Scripted, report: Report, go_on: threading.Event) -> None:
            super().__init__(spec, report)
            self._go_on = go_on

        def _load(self, loaded: Future[None], model: str) -> None:
            self._go_on.wait(WAIT_S)
            super()._load(loaded, model)

        def close(self) -> None:
            self._go_on.set()
            super().close()

    return Held
