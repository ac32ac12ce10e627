"""Where a model runs: in a thread of this process, in a child process, or in a supervised server.

A *host* is one life of one model. It begins to load when it is made, serves until it is told to
stop or dies, and is never started again: ``serving`` makes the next one. Whatever a host's model
does, the host's methods return at once and every call that was submitted ends.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import attrs

from llmdispatcher.models.errors import DispatcherError, Refused
from llmdispatcher.models.event import Event, LoadProgress

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from llmdispatcher.models.card import ModelCard
    from llmdispatcher.models.embedding import Work
    from llmdispatcher.models.reply import Saved
    from llmdispatcher.models.request import Request
    from llmdispatcher.vendors.contract import Call, Report


@attrs.frozen(kw_only=True)
class Vitals:
    """How a host is, as last measured; None is not known."""

    pid: int | None = None
    """Of the process that holds the model."""
    memory_bytes: int | None = None
    """Resident in main memory, mapped weights included."""
    peak_bytes: int | None = None
    """The most that ``memory_bytes`` ever was."""
    gpu_bytes: int | None = None
    tokens_per_s: float | None = None
    """Drawn for all replies together, while any was being drawn."""


class Reporting:
    """Passes events on to whoever listens, and knows in which threads it is just doing so.

    A listener that asks the model which reports to it would wait for its own thread.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._threads: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        here = threading.get_ident()
        self._threads.add(here)
        try:
            self._report(event)
        finally:
            self._threads.discard(here)

    def misused(self) -> DispatcherError | None:
        """Return why the caller must not wait for the host, if it is its listener."""
        if threading.get_ident() not in self._threads:
            return None
        return Refused("on_event must not ask the model that reports to it: it would wait")


def progress(card: ModelCard, fraction: float, began_s: float) -> LoadProgress:
    """Return the event of a load that began at a ``time.monotonic()``, and is so far done."""
    return LoadProgress(
        vendor=card.vendor,
        model=card.model,
        fraction=min(1.0, max(0.0, fraction)),
        elapsed_s=time.monotonic() - began_s,
    )


class Host(Protocol):
    """One life of one model."""

    @property
    def loaded(self) -> Future[None]:
        """Done when the model can serve; fails with the DispatcherError of a failed load."""

    def submit(self, work: Work) -> Call:
        """Begin to serve a request. Raises a DispatcherError where it cannot be taken."""

    def misused(self) -> DispatcherError | None:
        """Return why the caller must not wait for this host, if so: a fork, its own thread."""

    def ended(self) -> DispatcherError | None:
        """Return why it serves no more; None while it loads or serves.

        Refused after ``stop``; a VendorError where it failed or died.
        """

    def has_served(self) -> bool:
        """Whether it ever finished a request."""

    def counts(self) -> tuple[int, int]:
        """Return how many requests wait and how many are being served."""

    def vitals(self) -> Vitals:
        """Return how it is."""

    def trim(self) -> None:
        """Give back what memory can be spared: what is remembered of finished conversations."""

    def count(self, request: Request) -> Future[Saved] | None:
        """Count the tokens of a prompt, which are ``Saved.tokens``; None where nobody could."""

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.save``."""

    def restore(self, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.restore``."""

    def stop(self) -> None:
        """Tell it to end, without waiting; calls in flight fail with Refused. Idempotent."""

    def join(self) -> None:
        """Wait until it has ended and its memory is given back, if it was told to; bounded."""
