"""The sections of a configuration file, as values that cattrs reads.

Their keys are the fields of the policies themselves; here is only what no policy has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from llmdispatcher.ledger import EXPIRE_S, MAX_KEPT
from llmdispatcher.models.budget import SpendingCap
from llmdispatcher.models.check import flag, integer, number, one_of
from llmdispatcher.models.policy import BreakerPolicy, Limits, RetryPolicy
from llmdispatcher.models.request import Deadlines
from llmdispatcher.models.routing import Routing
from llmdispatcher.models.strategy import STRATEGIES, Strategy

OLDER = ("providers", "fallback")
"""Keys of the older form."""

APART = (*OLDER, "vendors", "strategy", "ledger", "cache")
"""Sections that are read by more than their type."""


@attrs.frozen(kw_only=True)
class Books:
    """The ``ledger`` section: the arguments of ``Ledger``, but for the caps, which are budgets."""

    path: Path | None = None
    on_trouble: str = attrs.field(default="strict", validator=one_of("strict", "degrade"))
    expire_s: float = number("expire_s", 1, math.inf, default=EXPIRE_S)
    lock_wait_s: float = number("lock_wait_s", 0, 3600, default=5.0)
    max_kept: int = integer("max_kept", 1, 10**9, default=MAX_KEPT)
    share: bool = flag(default=False)


@attrs.frozen(kw_only=True)
class Replies:
    """The ``cache`` section: the arguments of ``Cache``."""

    path: Path | None = None
    max_mb: float = number("max_mb", 0.001, 2**40, default=64.0)
    ttl_s: float | None = number("ttl_s", 0.001, math.inf)
    store_sampled: bool = flag(default=False)


@attrs.frozen(kw_only=True)
class Sections:
    """What a file says besides its vendors, with a preset under it."""

    preset: str | None = None
    strategy: Strategy = STRATEGIES["cost"]
    routing: Routing = attrs.field(factory=Routing)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    breaker: BreakerPolicy = attrs.field(factory=BreakerPolicy)
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    limits: Mapping[str, Limits] = attrs.field(factory=dict)
    budgets: tuple[SpendingCap, ...] = ()
    ledger: Books | None = None
    cache: Replies | None = None
    catalog: Mapping[str, Any] = attrs.field(factory=dict)
    max_memory_mb: int | None = integer("max_memory_mb", 1, 2**40)
    max_vram_mb: int | None = integer("max_vram_mb", 1, 2**40)
    allow_cloud: bool | None = None
    offline: bool = False


@attrs.frozen(kw_only=True)
class Fallback:
    """The ``fallback`` section of the older form."""

    strategy: str = "cost"
    max_retries: int | None = integer("max_retries", 0, 999)
    """Attempts beyond the first."""
    timeout_seconds: float | None = number("timeout_seconds", 0, 86400)
    """For the whole request, without the loading of models."""
    retry_delay_seconds: float | None = number("retry_delay_seconds", 0, 3600)
    """Before the first time that the same vendor is asked again."""
