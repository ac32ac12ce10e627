"""What both dispatchers share: the vendors, the books, the listener.

From a caller's words to the flow that serves them. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from llmdispatcher import health, offline, patience
from llmdispatcher.account import Account
from llmdispatcher.breakers import Breakers
from llmdispatcher.chooser import Chooser
from llmdispatcher.flow import dispatch
from llmdispatcher.landlord import Landlord
from llmdispatcher.limits import Limiters
from llmdispatcher.listener import Listener, OnEvent
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.errors import BadRequest, ConfigError, Problem, Refused
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Deadlines, Options, Prompt, Request
from llmdispatcher.patience import Patience
from llmdispatcher.policies import Policies
from llmdispatcher.release import Stopper
from llmdispatcher.shelf import Target
from llmdispatcher.spec import Registered, spec_of
from llmdispatcher.steps import Flow
from llmdispatcher.tenancy import Budget
from llmdispatcher.trial import Job
from llmdispatcher.usage import Books
from llmdispatcher.vendors.contract import Engine, Finder, Status, VendorSpec

if TYPE_CHECKING:
    from llmdispatcher.eras import Eras
    from llmdispatcher.ledger import Ledger

W = TypeVar("W", bound=Work)


@attrs.frozen
class Vendor:
    """A registered vendor as it is now."""

    name: str
    cards: tuple[ModelCard, ...]
    status: Status


class Desk:
    """What both dispatchers share: the vendors, the books, the listener."""

    _clock: Callable[[], float] = staticmethod(time.monotonic)
    """Of every request; a replay sets another one."""

    def __init__(
        self,
        vendors: tuple[VendorSpec | str, ...],
        on_event: OnEvent | None,
        policies: Policies,
        catalog: Mapping[str, Any] | None,
        budget: Budget,
    ) -> None:
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._engines: dict[str, Engine] = {}
        self._specs: dict[str, VendorSpec] = {}
        self.eras: Eras | None = None
        """Of a dispatcher that can be reloaded; see ``swap``."""
        self._changes = 0
        self._report = Listener(on_event).report
        self._ledger = policies.ledger
        sharing = None
        if self._ledger is not None:
            sharing = self._ledger.sharing()
            self._ledger.listen(self._report)
        self._patience = Patience(
            retry=policies.retry or patience.RETRY,
            breakers=Breakers(policies.breaker or patience.BREAKER, sharing),
            limiters=Limiters(dict(policies.limits), sharing),
        )
        self._follow(policies)
        self._catalog = Catalog.parse(catalog or {})
        self._is_offline, self._cache = policies.offline, policies.cache
        self._closed = False
        self.books = Books()
        self.landlord = self._landlord = Landlord(budget, self._report)
        self.chooser = Chooser(policies, self._catalog, self._patience.breakers, self._landlord)
        self._finders: tuple[Finder, ...] = ()
        """Of the engines, and whoever else looks for models; asked before each request."""
        self.found: set[str] = set()
        """Names of the vendors that nobody named."""
        try:
            for vendor in vendors or ("embedded",):
                self.register(vendor)
        except ConfigError:
            self.close()
            raise
        if not vendors:
            self.look_around()

    def _follow(self, policies: Policies) -> None:
        """Take over what requests are ranked and bounded by."""
        self._deadlines = policies.deadlines or Deadlines()
        self._strategy = policies.strategy
        bare = Request(messages="?")
        self._bare = [bare.within(self._deadlines, streamed=each) for each in (False, True)]
        """Requests that say nothing but a text, whole and streamed: checked once for all."""

    def register(self, vendor: VendorSpec | str) -> Engine:
        """Start a vendor; text is the name of an installed one. Raises ConfigError."""
        spec = spec_of(vendor)
        self._check_open()
        engine = self.start(spec)
        with self._lock:
            refused = self._closed or spec.name in self._engines
            if not refused:
                self._engines[spec.name], self._specs[spec.name] = engine, spec
                self._finders += (engine,) if isinstance(engine, Finder) else ()
        if refused:
            engine.close()
            self._check_open()
            message = "registered already; give one of the two another name="
            raise ConfigError([Problem(message, f"vendor {spec.name!r}")])
        return engine

    def start(self, spec: VendorSpec) -> Engine:
        """Make the engine of a vendor, not yet registered. Raises ConfigError."""
        return (offline.confined(spec) if self._is_offline else spec).start(self._report)

    def registered(self) -> dict[str, Registered]:
        """Return the specs and the engines of all vendors, by name. Raises Refused when closed."""
        with self._lock:
            return {n: Registered(self._specs[n], engine) for n, engine in self._all().items()}

    def obey(self, policies: Policies, catalog: Catalog, vendors: Mapping[str, Registered]) -> None:
        """Go by these from now on, all at once; requests under way keep what they have."""
        with self._lock:
            self._check_open()
            self._changes += 1
            self._specs = {name: each.spec for name, each in vendors.items()}
            self._engines = {name: each.engine for name, each in vendors.items()}
            self._finders = tuple(
                each for each in self._engines.values() if isinstance(each, Finder)
            )
            self._catalog, self._cache = catalog, policies.cache
            self._follow(policies)
            self._patience = attrs.evolve(self._patience, retry=policies.retry or patience.RETRY)
            self._patience.breakers.obey(policies.breaker or patience.BREAKER)
            self._patience.limiters.obey(policies.limits)
            if policies.ledger is not self._ledger:
                self._write_into(policies.ledger)
            self.chooser = Chooser(
                policies, catalog, self._patience.breakers, self._landlord, self.chooser
            )

    def _write_into(self, ledger: Ledger | None) -> None:
        """Keep books in another ledger from now on. The lock is held."""
        self._ledger = ledger
        sharing = None if ledger is None else ledger.sharing()
        if ledger is not None:
            ledger.listen(self._report)
        self._patience.breakers.share(sharing)
        self._patience.limiters.share(sharing)

    def look_around(self) -> None:
        """Have servers of this machine that answer join in, from a thread; requests wait for it."""
        from llmdispatcher.around import Around  # noqa: PLC0415 - few programs name nothing

        around = Around(self._take_in)
        with self._lock:
            self._finders = (*self._finders, around)

    def _take_in(self, spec: VendorSpec) -> Engine:
        engine = self.register(spec)
        self.found.add(spec.name)
        return engine

    def vendors(self) -> tuple[Vendor, ...]:
        """Return every registered vendor with its models and its state."""
        with self._lock:
            engines = dict(self._engines)
        return tuple(self._vendor(name, engine) for name, engine in engines.items())

    def _vendor(self, name: str, engine: Engine) -> Vendor:
        cards, status = self._cards(engine), engine.status()
        local = [card.name for card in cards if card.local]
        if local:
            by_model = self.books.snapshot().by_model
            loads_s = [s for s in map(self._landlord.load_s, local) if s is not None]
            queue = health.Queue(
                waiting=sum(map(self._landlord.waiting, local)), load_s=max(loads_s, default=None)
            )
            figures = [by_model[model] for model in local if model in by_model]
            status = health.complete(status, queue, figures)
        return Vendor(name, cards, status)

    def judge(self, reply: Reply, *, good: bool) -> None:
        """See ``Front.judge``."""
        if not self.chooser.judge(reply.vendor, reply.model, is_good=good):
            name = f"{reply.vendor}/{reply.model}"
            raise BadRequest("reply", name, "a reply of a model that is registered here")

    def flow(self, prompt: Prompt, options: Options, stopper: Stopper, *, streaming: bool) -> Flow:
        """Check a request for a reply and return its flow, not yet begun."""
        if isinstance(prompt, str) and not options:
            request = self._bare[streaming].saying(prompt)
        else:
            request = Request.of(prompt, **options)
        plan = (request.strategy or self._strategy).plan
        if plan is None:
            serve = dispatch if self._cache is None else self._cached
            return self._begin(request, stopper, serve, streaming=streaming)
        from llmdispatcher import plans  # noqa: PLC0415 - few need it

        return self._begin(request, stopper, plans.flow_of(plan), streaming=streaming)

    def _cached(self, job: Job[Request]) -> Flow:
        from llmdispatcher import cached  # noqa: PLC0415 - few programs keep replies

        assert self._cache is not None  # noqa: S101 - or nobody would call this
        return cached.dispatch(job, self._cache)

    def embedding(self, request: EmbedRequest) -> Flow:
        """Return the flow of a request for vectors, not yet begun."""
        from llmdispatcher import embed  # noqa: PLC0415 - few need it

        return self._begin(request, Stopper(), embed.embed)

    def reranking(self, request: RerankRequest) -> Flow:
        """Return the flow of a request for scores, not yet begun."""
        from llmdispatcher import embed  # noqa: PLC0415 - few need it

        return self._begin(request, Stopper(), embed.rerank)

    def counting(self, prompt: Prompt, options: Options) -> Flow:
        """Return the flow that counts a prompt's tokens, not yet begun."""
        from llmdispatcher import count  # noqa: PLC0415 - few need it

        return self._begin(Request.of(prompt, **options), Stopper(), count.count)

    def explaining(self, prompt: Prompt, options: Options) -> Flow:
        """Return the flow that tells how a request would be routed, not yet begun."""
        from llmdispatcher import explain  # noqa: PLC0415 - few need it

        return self._begin(Request.of(prompt, **options), Stopper(), explain.explain)

    def saving(self, path: str | PathLike[str], prompt: Prompt, options: Options) -> Flow:
        """Return the flow that puts a conversation into a file, not yet begun."""
        from llmdispatcher import keep  # noqa: PLC0415 - few need it

        request = keep.question(Request.of(prompt, **options))
        return self._begin(request, Stopper(), lambda job: keep.save(job, Path(path)))

    def restoring(self, path: str | PathLike[str], vendor: str | None) -> Flow:
        """Return the flow that takes a conversation up from a file, not yet begun."""
        from llmdispatcher import keep  # noqa: PLC0415 - few need it

        targets = [t for t in self._targets() if vendor in {None, t.card.vendor}]
        return keep.restore(targets, Path(path), self._deadlines, self._landlord)

    def loading(self, model: str, vendor: str | None) -> Flow:
        """Return the flow that loads a model, not yet begun."""
        from llmdispatcher import warm  # noqa: PLC0415 - few need it

        target = warm.choose(self._targets(), model, vendor)
        return warm.load(self._landlord, target, self._deadlines.load_s)

    def unloading(self, model: str, vendor: str | None) -> Flow:
        """Return the flow that unloads a model, not yet begun."""
        from llmdispatcher import warm  # noqa: PLC0415 - few need it

        return warm.unload(self._landlord, warm.choose(self._targets(), model, vendor))

    def _all(self) -> dict[str, Engine]:
        with self._lock:
            self._check_open()
            return dict(self._engines)

    def _targets(self) -> Sequence[Target]:
        return [each for each in self.chooser.shelf(self._all()).targets if not each.barred]

    def _begin(
        self,
        request: W,
        stopper: Stopper,
        serve: Callable[[Job[W]], Flow],
        *,
        streaming: bool = False,
    ) -> Flow:
        """Return the flow of a request, which first waits for vendors that look for models."""
        if self.eras is None:
            return self._serving(request, stopper, serve, streaming=streaming)
        self._check_open()
        return self.eras.within(lambda: self._serving(request, stopper, serve, streaming=streaming))

    def _serving(
        self, request: W, stopper: Stopper, serve: Callable[[Job[W]], Flow], *, streaming: bool
    ) -> Flow:
        engines = self._all()
        counting = self.chooser.counting(request, engines) if isinstance(request, Request) else {}
        finders = self._finders

        def begun(counts: Mapping[str, int]) -> Flow:
            def ranked() -> Job[W]:
                return self._whole(
                    lambda: self._job(request, stopper, streaming=streaming, counts=counts)
                )

            if not finders:
                return serve(ranked())
            from llmdispatcher import look  # noqa: PLC0415 - few need it

            return look.first(finders, ranked, serve, self._deadlines_of(request))

        if not counting:
            return begun({})
        from llmdispatcher import weigh  # noqa: PLC0415 - few need it

        return weigh.first(counting, begun, stopper)

    def _whole(self, make: Callable[[], Job[W]]) -> Job[W]:
        """Make a job that goes by what was before a change or after it, and never by parts of both.

        No lock is held while engines are asked: one might report meanwhile to who waits for it.
        """
        while True:
            with self._lock:  # a change that is being made is waited for
                before = self._changes
            job = make()
            if self._changes == before:
                return job

    def _deadlines_of(self, request: Work) -> Deadlines:
        return request.deadlines or self._deadlines

    def _job(
        self,
        request: W,
        stopper: Stopper,
        *,
        streaming: bool = False,
        account: Account | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Job[W]:
        """Rank who can serve a request now, and put together what its flow needs."""
        account = account or Account(self._ledger, request)

        def ask(another: Request, its_stopper: Stopper, *, streaming: bool) -> Job[Request]:
            part = account.share(another)
            return self._job(another, its_stopper, streaming=streaming, account=part)

        return Job(
            request=request,
            ranking=self.chooser.ranking(request, self._all(), counts or {}, self._clock()),
            deadlines=self._deadlines_of(request),
            streaming=streaming,
            books=self.books,
            report=self._report,
            stopper=stopper,
            clock=self._clock,
            landlord=self._landlord,
            patience=self._patience,
            account=account,
            chooser=self.chooser,
            ask=ask,
        )

    def close(self) -> None:
        """Close every engine. Idempotent."""
        with self._lock:
            self._closed = True
            engines = list(self._engines.values())
        if self._ledger is not None:
            self._ledger.leave(self._report)
        self._landlord.close()
        with contextlib.ExitStack() as stack:  # all of them, also if one raises
            if self.eras is not None:
                stack.callback(self.eras.close)
            for engine in engines:
                stack.callback(engine.close)

    def _cards(self, engine: Engine) -> tuple[ModelCard, ...]:
        return tuple(self._catalog.apply(card) for card in engine.cards())

    def _check_open(self) -> None:
        if self._closed:
            raise Refused("the dispatcher is closed; make a new one")
