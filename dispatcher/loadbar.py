"""A bar that shows how far the loading of a model is, once that has taken a while.

Events only leave numbers here; a thread of its own looks at them and draws, so that neither the
engine nor the reader of the answer waits for a terminal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from llmdispatcher.models.event import LoadProgress
from llmdispatcher.terminal import one_line

PATIENCE_S = 0.5
"""A load that is over sooner shows nothing."""

TICK_S = 0.1
"""How often the thread looks."""


class LoadBar:
    """Draws on stderr while ``loading`` names a model. Start, feed and stop it from any thread.

    Stopping erases the bar and returns when it is gone; nothing else should be written before.
    """

    def __init__(self, loading: Callable[[], str | None]) -> None:
        self._loading = loading
        self._fraction: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="load-bar", daemon=True)

    def hear(self, progress: LoadProgress) -> None:
        """Take a number."""
        self._fraction = progress.fraction

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Erase the bar. Idempotent."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()

    def _watch(self) -> None:
        began_s: float | None = None
        while not self._done.wait(TICK_S):
            model = self._loading()
            if model is None:
                began_s = None
            elif began_s is None:
                began_s = time.monotonic() - TICK_S
            elif time.monotonic() - began_s >= PATIENCE_S:
                self._draw(model)
                began_s = None

    def _draw(self, model: str) -> None:
        from rich.console import Console  # noqa: PLC0415 - 50 ms that a quick load need not pay
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        name = TextColumn("loading {task.description}", markup=False)
        columns = (name, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(one_line(model), total=None)
            while self._loading() and not self._done.wait(TICK_S):
                if self._fraction is not None:
                    bar.update(task, total=1.0, completed=self._fraction)
