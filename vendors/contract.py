"""What a vendor is. Whoever writes a vendor reads this file and needs no other.

A *vendor spec* is a frozen value that says how to reach something that answers: ``LlamaCpp(
"model.gguf")``. Registering it starts an *engine*, which loads models and serves requests. The
dispatcher chooses an engine, submits a request, and reads the pieces of the reply from the *call*.
Work comes in three kinds, each with pieces of its own, and an engine is only given what the card
lists: a ``Request`` (CHAT, COMPLETION) is answered with ``Delta``, an ``EmbedRequest`` (EMBED) with
one ``Vector`` for each text, a ``RerankRequest`` (RERANK) with one ``Score`` for each document.

Rules for an engine:
- ``cards``, ``status``, ``submit`` and ``cancel`` return at once; work happens elsewhere.
- Every submitted call ends: with one ``Finish``, or with one error from ``models.errors``.
- It may be called from any thread, and from a thread that runs an event loop.
- What a request asks for is done or refused (``Unsupported``), never dropped. The dispatcher keeps
  ``n`` above 1, ``logprobs`` and ``prefill`` from a model whose card does not list them.
- The pieces of ``n`` choices may come in any order; a single ``Finish`` ends all of them. Vectors
  and scores may come in any order too, each exactly once, before a ``Finish`` with STOP.
- ``EmbedRequest.normalize`` is done here. ``RerankRequest.top`` is not: every document is scored.
- The dispatcher enforces the deadlines. An engine may use them, and ``priority``, to decide which
  of the requests that wait is next.
- An engine never prints, and never touches the process's file descriptors or signal handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.event import Event
from llmdispatcher.models.reply import Piece, Saved, Usage

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from llmdispatcher.models.request import Request

Report = Callable[[Event], None]
"""Takes an event; returns at once and never raises. It must not wait for a caller of the engine:
loads go on in the thread that reports."""


class State(StrEnum):
    """Whether a model can serve."""

    ABSENT = "absent"
    """Not loaded; the first request loads it."""
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    """Ready, and serving requests."""
    RESTARTING = "restarting"
    """Loading again, after it died."""
    FAILED = "failed"
    """The last load failed, or it died; the next request tries again."""
    BROKEN = "broken"
    """It died so often in a row that it is left alone for a while; see ``Status.detail``."""
    CLOSED = "closed"


@attrs.frozen
class Status:
    """The state of an engine now."""

    state: State
    detail: str = ""
    """Why, in words; for FAILED the error."""
    waiting: int = 0
    """Requests that wait for their turn."""
    running: int = 0
    """Requests being served."""
    expected_wait_s: float | None = None
    """How long a request that comes now would wait for its turn, guessed from the last ones; None
    is not known."""
    memory_bytes: int | None = None
    """Main memory of the model's own process, as last measured, mapped weights included; None where
    it has none of its own."""
    gpu_bytes: int | None = None
    tokens_per_s: float | None = None
    """Drawn for all replies together, while any was being drawn."""
    loaded: tuple[str, ...] | None = None
    """The models that a server has in memory, as last seen; None where that is not told."""


class Call(Protocol):
    """One request being served. One consumer reads it."""

    def receive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Block for the next pieces, all that there are, at least one.

        Raises the error that ended the call, once the pieces before it have been read, and
        TimeoutError if nothing comes within ``timeout_s`` seconds (None: no limit).
        """

    async def areceive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Do the same as ``receive`` in an event loop."""

    def usage(self) -> Usage:
        """Tokens used until now, finished or not."""

    def cancel(self) -> None:
        """Stop serving, from any thread, at any time, any number of times. Never blocks.

        A consumer that waits for pieces is released at once, with ``Cancelled``.
        """


@runtime_checkable
class Deferred(Protocol):
    """A call whose reply may come in one, so that silence says nothing: ``whole_s`` bounds it."""

    is_whole: bool


@runtime_checkable
class Telling(Protocol):
    """A call whose answer tells more than the reply: over HTTP, which limits hold at the vendor."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the answer, by lower-case names; empty before it has begun."""


@runtime_checkable
class Gapped(Protocol):
    """A call that reads on behind a part that could not be read, until its end proves it needless.

    Meanwhile text may be missing in the middle of the pieces, and nobody can go on behind them.
    """

    has_gap: bool


class Engine(Protocol):
    """Serves one or more models."""

    def cards(self) -> Sequence[ModelCard]:
        """Return what can be asked here; known without loading, even where loading would fail.

        Of a ``Finder``, what was found until now.
        """

    def status(self) -> Status:
        """Return the state now."""

    def load(self, model: str) -> Future[None]:
        """Begin to load a model, or join a load in progress; done at once if it is loaded.

        The future fails with a VendorError. Nobody who stops waiting stops the load.
        """

    def submit(self, work: Work, model: str) -> Call:
        """Begin to serve a request on a model that is loaded; errors arrive through the call.

        ``work.deadlines`` are those that hold, with ``total_s`` as what is left of it now.
        """

    def close(self) -> None:
        """Stop everything and give the memory back; calls in flight fail. Idempotent."""


@runtime_checkable
class Keyed(Protocol):
    """An engine that sends an API key with its requests."""

    key_fingerprint: str
    """The ``fingerprint`` of the key, under which its spending is counted; empty without a key."""


@runtime_checkable
class Identified(Protocol):
    """An engine that can tell which model stands behind a name, so that its replies may be kept."""

    def identity(self, model: str) -> str:
        """Return a text that is another where another reply is to be expected.

        Of the file or the address, and of every setting that changes what is said. It may look at
        files. Empty where it cannot be told: then nothing is kept.
        """


@runtime_checkable
class Naming(Protocol):
    """An engine whose vendor does a request of one name only once, however often it is sent."""

    names_requests: bool
    """Whether ``work.once`` is that name here; it is empty else."""


@runtime_checkable
class Keeper(Protocol):
    """An engine that can put a conversation aside in a file, and take it up in another process."""

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """Save what the model remembers of a request's prompt. Fails with StateUnusable."""

    def restore(self, path: Path) -> Future[Saved]:
        """Remember what ``save`` wrote. Fails with StateUnusable for what is not its own."""


@attrs.frozen(kw_only=True)
class Footprint:
    """What a model takes of this machine, and how it wants to stay there."""

    memory_bytes: int
    """Of main memory: by its plan, or as measured where it is loaded and takes more."""
    gpu_bytes: int = 0
    pinned: bool = False
    """Never unloaded to make room."""
    keep_alive_s: float | None = None
    """Unloaded when nobody has asked for it so long; None: only to make room."""


@runtime_checkable
class Resident(Protocol):
    """An engine whose models take memory of this machine, and can give it back."""

    def footprint(self, model: str) -> Footprint:
        """Return what the model takes, or would. Raises the VendorError that a load would."""

    def unload(self, model: str) -> Future[None]:
        """Give the model's memory back; done when it is back. Calls in flight fail with Refused.

        The next ``load`` loads it again.
        """


@runtime_checkable
class Counter(Protocol):
    """An engine that can tell how many tokens a prompt has, without answering it."""

    def count(self, request: Request, model: str) -> Future[int | None]:
        """Begin to ask; None where this model's tokens cannot be asked for.

        Fails with a DispatcherError.
        """


@runtime_checkable
class Finder(Protocol):
    """An engine that must look which models it has: a server is asked for its list."""

    def found(self, *, afresh: bool = False) -> Future[None]:
        """Begin to look if nobody has, and return what is done when ``cards`` knows them.

        Done at once where they were found before, even if the list is old and looked at again
        meanwhile; ``afresh`` waits for that. Never fails: why nothing was found is in ``status``.
        """


@runtime_checkable
class Confinable(Protocol):
    """A spec whose vendor can be kept on this machine: ``Dispatcher(offline=True)`` takes no other.

    Whoever implements it promises that the engine, and every process that it starts, connects to
    nothing but this machine and looks no name up. Models that would need more are left out of
    ``cards``, and ``status`` says why.
    """

    def confined(self) -> VendorSpec:
        """Return a spec like this one that keeps the promise; itself, where it always does."""


@runtime_checkable
class VendorSpec(Protocol):
    """How to reach a vendor: a value that can be printed, compared and registered twice."""

    @property
    def name(self) -> str:
        """The vendor's name in replies, statistics and errors."""

    def start(self, report: Report) -> Engine:
        """Make the engine. Loads nothing yet; a vendor that cannot work says so when loading."""
