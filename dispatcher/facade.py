"""``Dispatcher`` and ``AsyncDispatcher``: the same verbs for threads and for asyncio.

Everything that decides is in ``flow``; everything shared is in ``Desk``; how a caller of either
world holds a reply on its way is in ``stream``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import attrs

from llmdispatcher.drive import arun, run
from llmdispatcher.flow import Flow, Job, dispatch
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.embedding import (
    Embeddings,
    EmbedRequest,
    Reranked,
    RerankRequest,
    RouteOptions,
    Work,
)
from llmdispatcher.models.errors import BadRequest, ConfigError, Problem, Refused
from llmdispatcher.models.event import Event
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Deadlines, Options, Prompt, Request
from llmdispatcher.release import Stopper
from llmdispatcher.route import Target, rank
from llmdispatcher.stream import AsyncStream, Stream
from llmdispatcher.usage import Books, Stats
from llmdispatcher.vendors.contract import Engine, Status, VendorSpec

__all__ = ["AsyncDispatcher", "AsyncStream", "Dispatcher", "OnEvent", "Stream", "Vendor"]

OnEvent = Callable[[Event], None]

W = TypeVar("W", bound=Work)


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
        """Check a request for a reply and return its flow, not yet begun."""
        request = Request.of(prompt, **options)
        return dispatch(self._job(request, stopper, streaming=streaming))

    def embedding(self, request: EmbedRequest) -> Flow:
        """Return the flow of a request for vectors, not yet begun."""
        from llmdispatcher import embed  # noqa: PLC0415 - few need it

        return embed.embed(self._job(request, Stopper()))

    def reranking(self, request: RerankRequest) -> Flow:
        """Return the flow of a request for scores, not yet begun."""
        from llmdispatcher import embed  # noqa: PLC0415 - few need it

        return embed.rerank(self._job(request, Stopper()))

    def _job(self, request: W, stopper: Stopper, *, streaming: bool = False) -> Job[W]:
        """Rank who can serve a request now, and put together what its flow needs."""
        with self._lock:
            self._check_open()
            engines = list(self._engines.values())
        targets = [Target(card, engine) for engine in engines for card in self._cards(engine)]
        return Job(
            request=request,
            ranking=rank(request, targets),
            deadlines=request.deadlines or self._deadlines,
            streaming=streaming,
            books=self.books,
            report=self._report,
            stopper=stopper,
            clock=time.monotonic,
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

    def embed(
        self,
        texts: str | Sequence[str] | EmbedRequest,
        *,
        normalize: bool | None = None,
        **options: Unpack[RouteOptions],
    ) -> Embeddings:
        """Return a vector for each text, from a model that was registered for it.

        Args:
            texts: one text, a sequence of texts, or an ``EmbedRequest``.
            normalize: give every vector the length 1, which is the default.
            options: vendor, model, allow_cloud, deadlines and priority, as of ``send``.

        Raises what ``send`` does. ContextOverflow names the text that is too long: none is cut.
        """
        asked = EmbedRequest.of(texts, normalize=normalize, **options)
        return _result(self._desk.embedding(asked))  # type: ignore[no-any-return]

    def rerank(
        self,
        query: str | RerankRequest,
        documents: Sequence[str] = (),
        *,
        top: int | None = None,
        **options: Unpack[RouteOptions],
    ) -> Reranked:
        """Return how well each document answers a query, and which do so best.

        Args:
            query: what is looked for, or a ``RerankRequest``.
            documents: what to score.
            top: how many of the best to name in ``order``; None names all.
            options: vendor, model, allow_cloud, deadlines and priority, as of ``send``.

        Raises what ``send`` does. ContextOverflow names the document that is too long.
        """
        asked = RerankRequest.of(query, documents, top=top, **options)
        return _result(self._desk.reranking(asked))  # type: ignore[no-any-return]

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

    async def embed(
        self,
        texts: str | Sequence[str] | EmbedRequest,
        *,
        normalize: bool | None = None,
        **options: Unpack[RouteOptions],
    ) -> Embeddings:
        """Return a vector for each text; see ``Dispatcher.embed``."""
        asked = EmbedRequest.of(texts, normalize=normalize, **options)
        return await _aresult(self._desk.embedding(asked))  # type: ignore[no-any-return]

    async def rerank(
        self,
        query: str | RerankRequest,
        documents: Sequence[str] = (),
        *,
        top: int | None = None,
        **options: Unpack[RouteOptions],
    ) -> Reranked:
        """Return how well each document answers a query; see ``Dispatcher.rerank``."""
        asked = RerankRequest.of(query, documents, top=top, **options)
        return await _aresult(self._desk.reranking(asked))  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Stop all work and give the memory back; requests in flight fail. Idempotent."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        await asyncio.to_thread(self._desk.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _result(flow: Flow) -> Any:  # noqa: ANN401 - what the flow emits, once
    """Run a flow that emits nothing but its result."""
    with contextlib.closing(run(flow)) as source:
        return next(source)


async def _aresult(flow: Flow) -> Any:  # noqa: ANN401 - what the flow emits, once
    """Do the same as ``_result`` in an event loop."""
    async with contextlib.aclosing(arun(flow)) as source:
        return await anext(source)
