"""Puts a conversation's decoded state into a file, and takes it back in another process.

The engine's thread only copies the state; hashing the model and the disk are left to a thread of
their own, so that no reply stutters for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from llmdispatcher.models.errors import DispatcherError, EngineCrashed, StateUnusable
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.engine.cells import BLOCK_TOKENS
from llmdispatcher.vendors.llamacpp.engine.inbox import Inbox, Job
from llmdispatcher.vendors.llamacpp.files import gguf, statefile

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop

MAX_STATE_BYTES = 64 * 2**30
"""A file of more is no conversation: the largest caches of a million tokens take as much."""

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Subject:
    """The model that a host loads, as far as those need to know who only keep or serve it."""

    vendor: str
    model: str
    path: Path
    """Its file; of a model in several files, the first."""
    cache_type: str

    def origin(self) -> statefile.Origin:
        """Return what tells states apart that it cannot read. Reads the model's file."""
        from llmdispatcher.vendors.llamacpp.binding.library import build  # noqa: PLC0415 - loads llama.cpp

        first, *more = map(Path, gguf.read_header(self.path).paths)
        return statefile.Origin(statefile.fingerprint(first, *more), build(), self.cache_type)

    def saved(self, tokens: int, size_bytes: int) -> Saved:
        """Say what was saved, or read back."""
        return Saved(vendor=self.vendor, model=self.model, tokens=tokens, size_bytes=size_bytes)


def save(inbox: Inbox, subject: Subject, request: Request, path: Path) -> Future[Saved]:
    """Save what is decoded of a conversation. The future fails with a DispatcherError."""

    def work() -> Saved:
        tokens, data = _done(inbox, lambda loop: loop.save(request))
        if not tokens:
            raise StateUnusable(
                f"nothing can be saved to {path}: the model does not remember the conversation,"
                f" which is too short (of fewer than {BLOCK_TOKENS} tokens nothing is kept), or was"
                " dropped for others",
                path=str(path),
                part="size",
            )
        state = statefile.State(subject.origin(), tuple(tokens), data, subject.model)
        return subject.saved(len(tokens), statefile.write(path, state))

    return _later(work)


def restore(inbox: Inbox, subject: Subject, path: Path) -> Future[Saved]:
    """Read a saved conversation back; whoever goes on with it finds it decoded.

    The future fails with StateUnusable for a file that is not of this model, this llama.cpp and
    these settings, or that is damaged, and where there is no room for it.
    """

    def work() -> Saved:
        state = statefile.read(path, subject.origin(), most_bytes=MAX_STATE_BYTES)
        tokens, data = [*state.tokens], bytes(state.data)
        if not _done(inbox, lambda loop: loop.restore(tokens, data)):
            raise StateUnusable(
                f"{path} cannot be taken back now: the model has no room for {len(tokens)} tokens"
                " beside what it is doing; try again later, or send the whole conversation",
                path=str(path),
                part="size",
            )
        return subject.saved(len(tokens), path.stat().st_size)

    return _later(work)


def count(inbox: Inbox, subject: Subject, request: Request) -> Future[Saved]:
    """Count the tokens of a prompt; told as of a state that has no file."""
    return _later(lambda: subject.saved(_done(inbox, lambda loop: loop.count(request)), 0))


def _done(inbox: Inbox, work: Callable[[EngineLoop], T]) -> T:
    """Have the engine do something between two steps, and wait for it."""
    job = Job(work)
    inbox.ask(job)
    result: T = job.done.result()
    return result


def _later(work: Callable[[], Saved]) -> Future[Saved]:
    """Do something in a thread of its own."""
    future: Future[Saved] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except DispatcherError as error:
            future.set_exception(error)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            future.set_exception(EngineCrashed(f"the state was not moved: {error!r}"))

    threading.Thread(target=run, name="llama-state", daemon=True).start()
    return future
