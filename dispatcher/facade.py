"""``Dispatcher`` and ``AsyncDispatcher``: the same verbs for threads and for asyncio.

Everything that decides is in ``flow``; everything shared is in ``Desk``; what is left here is how
a caller of either world holds a reply.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Self, Unpack

import attrs

from llmdispatcher.drive import arun, run
from llmdispatcher.flow import Flow, Job, dispatch
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.errors import BadRequest, Cancelled, ConfigError, Problem, Refused
from llmdispatcher.models.event import Event
from llmdispatcher.models.reply import Delta, Reply
from llmdispatcher.models.request import Deadlines, Options, Prompt, Request
from llmdispatcher.release import Stopper
from llmdispatcher.route import Target, rank
from llmdispatcher.usage import Books, Stats
from llmdispatcher.vendors.contract import Engine, Status, VendorSpec

OnEvent = Callable[[Event], None]


@attrs.frozen
class Vendor:
    """A registered vendor as it is now."""

    name: str
    cards: tuple[ModelCard, ...]
    status: Status


class Listener:
    """The caller's ``on_event``. Engines hold this and never the dispatcher itself."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event

    def report(self, event: Event) -> None:
        """Tell the listener; its errors are its own and never reach a request."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # foreign code: whatever it raises must not break a request
            import logging  # noqa: PLC0415 - 5 ms at import, for a line that is rarely written

            log = logging.getLogger("llmdispatcher")
            if not log.handlers:  # or Python prints on stderr where nobody set logging up
                log.addHandler(logging.NullHandler())
            log.exception("on_event raised for %s", type(event).__name__)


class Desk:
    """What both dispatchers share: the vendors, the books, the listener."""

    def __init__(
        self,
        vendors: tuple[VendorSpec | str, ...],
        on_event: OnEvent | None,
        deadlines: Deadlines | None,
        catalog: Mapping[str, Any] | None,
    ) -> None:
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._engines: dict[str, Engine] = {}
        self._report = Listener(on_event).report
        if not isinstance(deadlines, Deadlines | None):
            raise BadRequest("deadlines", deadlines, "a Deadlines, such as Deadlines(total_s=30)")
        self._deadlines = deadlines or Deadlines()
        self._catalog = Catalog.parse(catalog or {})
        self._closed = False
        self.books = Books()
        try:
            for vendor in vendors or ("embedded",):
                self.register(vendor)
        except ConfigError:
            self.close()
            raise

    def register(self, vendor: VendorSpec | str) -> None:
        """Start a vendor; text is the name of an installed one. Raises ConfigError."""
        spec = _spec(vendor)
        self._check_open()
        engine = spec.start(self._report)
        with self._lock:
            refused = self._closed or spec.name in self._engines
            if not refused:
                self._engines[spec.name] = engine
        if refused:
            engine.close()
            self._check_open()
            message = "registered already; give one of the two another name="
            raise ConfigError([Problem(message, f"vendor {spec.name!r}")])

    def vendors(self) -> tuple[Vendor, ...]:
        """Return every registered vendor with its models and its state."""
        with self._lock:
            engines = dict(self._engines)
        return tuple(
            Vendor(name, self._cards(engine), engine.status()) for name, engine in engines.items()
        )

    def flow(self, prompt: Prompt, options: Options, stopper: Stopper, *, streaming: bool) -> Flow:
        """Check a request and return its flow, not yet begun."""
        request = Request.of(prompt, **options)
        with self._lock:
            self._check_open()
            engines = list(self._engines.values())
        targets = [Target(card, engine) for engine in engines for card in self._cards(engine)]
        return dispatch(
            Job(
                request=request,
                ranking=rank(request, targets),
                deadlines=request.deadlines or self._deadlines,
                streaming=streaming,
                books=self.books,
                report=self._report,
                stopper=stopper,
                clock=time.monotonic,
            )
        )

    def close(self) -> None:
        """Close every engine. Idempotent."""
        with self._lock:
            self._closed = True
            engines = list(self._engines.values())
        with contextlib.ExitStack() as stack:  # all of them, also if one raises
            for engine in engines:
                stack.callback(engine.close)

    def _cards(self, engine: Engine) -> tuple[ModelCard, ...]:
        return tuple(self._catalog.apply(card) for card in engine.cards())

    def _check_open(self) -> None:
        if self._closed:
            raise Refused("the dispatcher is closed; make a new one")


def _spec(vendor: object) -> VendorSpec:
    """Find the vendor that a name stands for."""
    if isinstance(vendor, str):
        from llmdispatcher.vendors import discovery  # noqa: PLC0415 - importlib.metadata is slow

        try:
            vendor = discovery.find(vendor)()
        except TypeError as error:
            message = f"cannot be made without arguments: {error}"
            raise ConfigError([Problem(message, f"vendor {vendor!r}")]) from error
    if isinstance(vendor, VendorSpec):
        return vendor
    message = f"must be a vendor such as LlamaCpp(…) or a vendor's name, not {vendor!r}"
    raise ConfigError([Problem(message, "vendors")])


class _Front:
    """The verbs that are the same in both worlds, since nothing in them waits."""

    def __init__(
        self,
        *vendors: VendorSpec | str,
        on_event: OnEvent | None = None,
        deadlines: Deadlines | None = None,
        catalog: Mapping[str, Any] | None = None,
    ) -> None:
        self._desk = Desk(vendors, on_event, deadlines, catalog)

    def register_vendor(self, vendor: VendorSpec | str) -> None:
        """Add a vendor. Raises ConfigError if one of its name is there already."""
        self._desk.register(vendor)

    def vendors(self) -> tuple[Vendor, ...]:
        """Return the registered vendors, their models and their states now."""
        return self._desk.vendors()

    def stats(self) -> Stats:
        """Return figures of all requests of this dispatcher until now."""
        return self._desk.books.snapshot()


class Dispatcher(_Front):
    """Sends each request to the cheapest vendor that can serve it, and to the next if it fails.

    Args:
        vendors: specs such as ``LlamaCpp("model.gguf")``, or names of installed vendors. Without
            any, the small embedded model answers.
        on_event: called with each event of ``llmdispatcher.models.event``, from whichever thread
            it happens in; must return at once.
        deadlines: how long each phase may take, for requests that bring no deadlines.
        catalog: facts about models that win over what vendors report; see ``models.catalog``.

    Thread-safe. Close it, or use it in a ``with`` block, to give memory back early.
    """

    def send(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Return the whole reply.

        Args:
            prompt: text, a message, a sequence of messages (or of ``{"role", "content"}``
                mappings), or a ``Request``.
            options: fields of ``Request`` and ``Sampling``, such as ``max_tokens=100``.

        Raises:
            RequestError: the request is wrong, or too long for every model.
            NoCandidate: no registered model can do what it asks for.
            VendorError: the only vendor that was tried failed.
            AllVendorsFailed: all that were tried failed; it holds each error.
        """
        stream = Stream(self._desk, prompt, options, streaming=False)
        for _ in stream:
            pass
        return stream.reply

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """Return an iterator over the pieces of the reply as they are made.

        Pieces of several choices (``n``) come as they are made; ``Delta.index`` tells whose each
        is. A piece's text may be empty where ``logprobs`` were asked for.

        Takes and raises what ``send`` does; errors of vendors are raised while iterating. Once a
        piece was shown, a failure raises StreamInterrupted, which holds the text so far, of the
        first choice.
        """
        return Stream(self._desk, prompt, options, streaming=True)

    def close(self) -> None:
        """Stop all work and give the memory back; requests in flight fail. Idempotent."""
        self._desk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncDispatcher(_Front):
    """``Dispatcher`` for asyncio: the same verbs, with ``await`` and ``async for``.

    Takes the arguments of ``Dispatcher``, of which see the documentation. One instance may be
    used from several event loops and threads.
    """

    async def send(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Return the whole reply; see ``Dispatcher.send``. Cancelling the task stops the model."""
        async with AsyncStream(self._desk, prompt, options, streaming=False) as stream:
            async for _ in stream:
                pass
        return stream.reply

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncStream:
        """Return an async iterator over the reply, without ``await``; see ``Dispatcher.stream``."""
        return AsyncStream(self._desk, prompt, options, streaming=True)

    async def close(self) -> None:
        """Stop all work and give the memory back; requests in flight fail. Idempotent."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        await asyncio.to_thread(self._desk.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Held:
    """What a stream of either world holds: the text so far, and the reply once it is whole."""

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        self._stopper = Stopper()
        self._flow = desk.flow(prompt, options, self._stopper, streaming=streaming)
        self._texts: list[str] = []
        self._reply: Reply | None = None

    @property
    def partial(self) -> str:
        """The text of the first choice that was shown until now."""
        return "".join(self._texts)

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has been read to its end. RuntimeError before that."""
        if self._reply is None:
            raise RuntimeError("the stream has no reply yet: read it to its end first")
        return self._reply

    def _keep(self, piece: Delta | Reply) -> Delta | None:
        """Keep a piece; None is the end."""
        if isinstance(piece, Reply):
            self._reply = piece
            return None
        if piece.index == 0:
            self._texts.append(piece.text)
        return piece


class Stream(_Held):
    """A reply on its way: an iterator over deltas, and a context manager.

    Leaving the ``with`` block, or ``close``, stops the model. ``close`` may be called from another
    thread; the iteration then ends as if the reply were over, and ``reply`` stays unset.
    """

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        super().__init__(desk, prompt, options, streaming=streaming)
        self._source = run(self._flow)

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        try:
            delta = self._keep(next(self._source))
        except Cancelled:
            delta = None
        if delta is None:
            raise StopIteration
        return delta

    def close(self) -> None:
        """Stop the request, from any thread. Idempotent."""
        self._stopper.stop()
        with contextlib.suppress(ValueError):  # another thread is in it, and is being released
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Held):
    """A reply on its way: an async iterator over deltas, and an async context manager.

    Leaving the ``async with`` block, ``close``, or cancelling the task stops the model.
    """

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        super().__init__(desk, prompt, options, streaming=streaming)
        self._source = arun(self._flow)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = self._keep(await anext(self._source))
        except Cancelled:
            delta = None
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def close(self) -> None:
        """Stop the request, from any task. Idempotent."""
        self._stopper.stop()
        with contextlib.suppress(RuntimeError):  # another task is in it, and is being released
            await self._source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
