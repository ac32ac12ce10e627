"""Looks once a second whether a configuration file has changed, and has it read again then.

A file that changes between two looks is left until it does not: it may be half written.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from llmdispatcher.models.errors import DispatcherError

if TYPE_CHECKING:
    from llmdispatcher.config.source import Source

POLL_S = 1.0

Signature = tuple[tuple[int, int, int] | None, ...]
"""Of files: when each was changed, its size and its inode; None where there is none."""


class Watcher:
    """A thread, which keeps nothing alive: it ends with what it watches for."""

    def __init__(self, source: Source, poll_s: float = POLL_S) -> None:
        self._source = weakref.ref(source)
        self._known = self._seen = _signature(source)
        self._wakes = threading.Event()
        self._asked = self._ended = False
        self._thread = threading.Thread(
            target=self._watch, args=(poll_s,), name="llmdispatcher-config", daemon=True
        )
        self._thread.start()

    def ask(self) -> None:
        """Have the file read again now, changed or not. Returns at once; for signal handlers."""
        self._asked = True
        self._wakes.set()

    def close(self) -> None:
        """End. Idempotent."""
        self._ended = True
        self._wakes.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self, poll_s: float) -> None:
        while not self._ended:
            self._wakes.wait(poll_s)
            self._wakes.clear()
            source = self._source()
            if source is None or self._ended:
                return
            self._look(source)
            del source  # while it waits, it must not keep it

    def _look(self, source: Source) -> None:
        before, self._seen = self._seen, _signature(source)
        is_settled = self._seen == before and self._seen != self._known
        if not (is_settled or self._asked):
            return
        self._asked, self._known = False, self._seen
        with contextlib.suppress(DispatcherError):  # the listener was told
            source.reload()


def _signature(source: Source) -> Signature:
    found: list[tuple[int, int, int] | None] = []
    for path in source.paths():
        try:
            told = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((told.st_mtime_ns, told.st_size, told.st_ino))
    return tuple(found)
