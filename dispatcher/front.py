"""The verbs of a dispatcher in which nothing waits: the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdispatcher.cache import Cache
from llmdispatcher.configured import Configured
from llmdispatcher.desk import Desk, Vendor
from llmdispatcher.ledger import Ledger
from llmdispatcher.listener import OnEvent
from llmdispatcher.models.plan import Plan
from llmdispatcher.models.policy import BreakerPolicy, Limits, RetryPolicy
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Deadlines
from llmdispatcher.models.routing import Routing
from llmdispatcher.models.strategy import Strategy
from llmdispatcher.policies import Policies
from llmdispatcher.tenancy import Budget
from llmdispatcher.usage import Stats
from llmdispatcher.vendors.contract import Engine, VendorSpec


class Front(Configured):
    """What both dispatchers are made of."""

    def __init__(  # noqa: PLR0913 - keywords of the public face, each with a default
        self,
        *vendors: VendorSpec | str,
        on_event: OnEvent | None = None,
        deadlines: Deadlines | None = None,
        retry: RetryPolicy | None = None,
        breaker: BreakerPolicy | None = None,
        limits: Mapping[str, Limits] | None = None,
        ledger: Ledger | None = None,
        strategy: Strategy | Plan | str | None = None,
        routing: Routing | None = None,
        catalog: Mapping[str, Any] | None = None,
        max_memory_mb: int | None = None,
        max_vram_mb: int | None = None,
        offline: bool = False,
        cache: Cache | None = None,
        preset: str | None = None,
    ) -> None:
        budget = Budget(max_memory_mb=max_memory_mb, max_vram_mb=max_vram_mb)
        policies = Policies.over(
            preset,
            deadlines=deadlines,
            retry=retry,
            breaker=breaker,
            limits=limits,
            ledger=ledger,
            strategy=strategy,
            routing=routing,
            offline=offline,
            cache=cache,
        )
        self._desk = Desk(vendors, on_event, policies, catalog, budget)

    def register_vendor(self, vendor: VendorSpec | str) -> Engine:
        """Add a vendor, and return its engine, which few programs need.

        Raises ConfigError if one of its name is there already.
        """
        return self._desk.register(vendor)

    def vendors(self) -> tuple[Vendor, ...]:
        """Return the registered vendors, their models and their states now."""
        return self._desk.vendors()

    def stats(self) -> Stats:
        """Return figures of all requests of this dispatcher until now."""
        return self._desk.books.snapshot()

    def judge(self, reply: Reply, *, good: bool) -> None:
        """Tell whether an answer was good, which moves what is expected of its model.

        The expected cost of a good answer is the cost divided by the chance of one, which begins as
        a prior by the model's quality tier; some twenty verdicts weigh as much as that. Misfits of
        a ``schema`` count as verdicts by themselves. Raises BadRequest for a reply of a model that
        is not registered here.
        """
        self._desk.judge(reply, good=good)
