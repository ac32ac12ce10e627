"""What ``on_event=`` reports: frozen values, one class for each thing that can happen.

Events are for people, logs and meters; nothing in llmdispatcher depends on whether anyone listens.
"""

from __future__ import annotations

import attrs

from llmdispatcher.models.budget import SpendingCap
from llmdispatcher.models.errors import Problem
from llmdispatcher.models.reply import Attempt


@attrs.frozen(kw_only=True)
class LoadProgress:
    """A model is being loaded; ``fraction`` runs from 0 to 1, and 1 is reported exactly once."""

    vendor: str
    model: str
    fraction: float
    elapsed_s: float


@attrs.frozen(kw_only=True)
class AttemptStarted:
    """A vendor is about to be asked; ``number`` counts the attempts of this request from 1."""

    vendor: str
    model: str
    number: int


@attrs.frozen(kw_only=True)
class AttemptEnded:
    """A vendor served, failed or was cancelled; exactly one for each AttemptStarted."""

    attempt: Attempt
    number: int


@attrs.frozen(kw_only=True)
class Fallback:
    """A vendor failed and the next one is asked."""

    failed: str
    """``vendor/model`` that failed."""
    next: str
    """``vendor/model`` that is asked now."""
    reason: str


@attrs.frozen(kw_only=True)
class Retried:
    """A vendor failed, and the same is asked again, after a pause."""

    name: str
    """``vendor/model``."""
    waited_s: float
    reason: str


@attrs.frozen(kw_only=True)
class Restarted:
    """A stream that broke begins anew: what was shown of it until now counts no more."""

    name: str
    """``vendor/model`` that begins."""
    shown_chars: int
    """How much had been shown."""


@attrs.frozen(kw_only=True)
class BreakerMoved:
    """A vendor's model is left alone from now on, or is asked again; see ``BreakerPolicy``."""

    name: str
    """``vendor/model``."""
    before: str
    """"closed" (it is asked), "open" (it is left alone) or "half-open" (one request tries it)."""
    after: str
    reason: str
    """The class of the error that opened it; empty where it closed."""
    next_probe_s: float | None = None
    """In how many seconds it is tried again, where it is open."""


@attrs.frozen(kw_only=True)
class EngineDied:
    """A local engine died; the next request starts it again, unless it died too often."""

    vendor: str
    model: str
    reason: str
    """The class of the error and its message."""
    report: str
    """The path of the crash report; "" if none could be written."""


@attrs.frozen(kw_only=True)
class ModelUnloaded:
    """A model's memory was given back; the next request for it loads it again."""

    vendor: str
    model: str
    reason: str
    """Why: "to make room for vendor/model", "not used for 300 s", or "asked to"."""


@attrs.frozen(kw_only=True)
class BudgetAlert:
    """So much of a cap is spent; each share is reported once a period, by whoever reached it."""

    cap: SpendingCap
    percent: int
    """50, 80 or 95."""
    spent_microusd: int
    """What is settled; reservations of requests in flight are not in it."""
    period_start: str
    """The day or month in UTC, as ``2026-11-20`` or ``2026-11``; "" for a cap that never ends."""


@attrs.frozen(kw_only=True)
class LedgerTrouble:
    """The ledger cannot be written, or can again; reported when that changes, not per request."""

    kind: str
    """``full``, ``read-only``, ``corrupt``, ``locked``, ``newer``, ``unusable``; ``replaced``: the
    file was moved away and begun anew; ``clock``: the clock stands behind the last entry;
    ``lost``: rows had to be given up; or ``over``: all that was kept is written."""
    detail: str
    """What is wrong, where, and the way out."""
    kept: int = 0
    """Entries that wait in memory to be written."""
    lost: int = 0
    """Entries given up since the ledger was opened, because memory for them is bounded."""


@attrs.frozen(kw_only=True)
class CacheTrouble:
    """The cache cannot be used; told once, until a reply is kept again. Requests are served."""

    kind: str
    """``full``, ``read-only``, ``corrupt`` (the file was moved aside and begun anew), ``locked``,
    ``newer`` or ``unusable``."""
    detail: str
    """What is wrong, and where."""


@attrs.frozen(kw_only=True)
class ConfigReloaded:
    """The configuration was read again, and what is sent from now on goes by it."""

    file: str
    started: tuple[str, ...] = ()
    """Vendors that are new, or that changed and were started anew."""
    kept: tuple[str, ...] = ()
    """Vendors that are as they were: what they had loaded stays loaded."""
    closed: tuple[str, ...] = ()
    """Vendors that are gone, or that changed: each ends with its last request."""


@attrs.frozen(kw_only=True)
class ConfigRefused:
    """The configuration was read again and is wrong: what held before still holds, all of it."""

    file: str
    problems: tuple[Problem, ...]


Event = (
    LoadProgress
    | AttemptStarted
    | AttemptEnded
    | Fallback
    | Retried
    | Restarted
    | BreakerMoved
    | EngineDied
    | ModelUnloaded
    | BudgetAlert
    | LedgerTrouble
    | CacheTrouble
    | ConfigReloaded
    | ConfigRefused
)
