"""Events as log records: facts as attributes, no words of a vendor, nothing that forges a line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import get_args

import pytest

from llmdispatcher import (
    AttemptEnded,
    AttemptStarted,
    BreakerMoved,
    BudgetAlert,
    CacheTrouble,
    ConfigRefused,
    ConfigReloaded,
    EngineDied,
    Event,
    Fallback,
    LedgerTrouble,
    LoadProgress,
    ModelUnloaded,
    Restarted,
    Retried,
    SpendingCap,
    Usage,
)
from llmdispatcher.journal import Journal
from llmdispatcher.models.errors import Problem
from llmdispatcher.models.reply import Attempt, Outcome

EVIL = "Overloaded: sk-secret\nCRITICAL forged \x1b[31mline"
CAP = SpendingCap("1", period="day", scope="vendor", name="v")

EVENTS: list[Event] = [
    LoadProgress(vendor="v", model="m", fraction=0.5, elapsed_s=1),
    AttemptStarted(vendor="v", model="m", number=1),
    AttemptEnded(
        attempt=Attempt(
            vendor="v",
            model="m",
            outcome=Outcome.FAILED,
            usage=Usage(prompt_tokens=3),
            cost_microusd=None,
            latency_s=0.5,
            error=EVIL,
        ),
        number=1,
    ),
    Fallback(failed="v/m", next="w/n", reason=EVIL),
    Retried(name="v/m", waited_s=0.5, reason=EVIL),
    Restarted(name="v/m", shown_chars=5),
    BreakerMoved(name="v/m", before="closed", after="open", reason="Overloaded", next_probe_s=5),
    EngineDied(vendor="v", model="m", reason=EVIL, report="/tmp/report"),  # noqa: S108 - a text
    ModelUnloaded(vendor="v", model="m", reason="asked to"),
    BudgetAlert(cap=CAP, percent=80, spent_microusd=800_000, period_start="2026-11-20"),
    LedgerTrouble(kind="full", detail="no room", kept=5),
    CacheTrouble(kind="corrupt", detail="moved aside"),
    ConfigReloaded(file="x.yaml", started=("a", "b"), kept=(), closed=("a",)),
    ConfigRefused(
        file="x.yaml", problems=(Problem("is\x1b[31m 0", "retry.attempts", "x.yaml", 1),)
    ),
]


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What is logged to llmdispatcher."""
    handler, logger = Kept(), logging.getLogger("llmdispatcher")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_every_kind_of_event_is_here() -> None:
    """A new event cannot be forgotten."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_record_has_kind_and_facts_and_no_words_of_a_vendor(event: Event, kept: Kept) -> None:
    """One line, that nothing in it can break; of an error, its class."""
    Journal()(event)

    (record,) = kept.records
    shown = f"{record.getMessage()} {record.facts}"  # type: ignore[attr-defined]
    kind = record.event  # type: ignore[attr-defined]
    assert kind.replace("_", "") == type(event).__name__.lower()
    assert "sk-secret" not in shown
    assert "forged" not in shown
    assert record.getMessage().isprintable()
    assert {type(fact) for fact in record.facts.values()} <= {str, int, float, type(None)}  # type: ignore[attr-defined]


def test_an_alert_tells_the_figures(kept: Kept) -> None:
    """As attributes that a JSON formatter writes."""
    Journal()(next(event for event in EVENTS if isinstance(event, BudgetAlert)))

    (record,) = kept.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "80 % of the cap of $1 a day for vendor 'v' is spent"
    facts = record.facts  # type: ignore[attr-defined]
    assert facts["spent_microusd"] == 800_000
    assert facts["limit_microusd"] == 1_000_000


def test_names_cannot_forge_lines(kept: Kept) -> None:
    """Control characters are taken out of facts, too; braces in a name are no fields."""
    Journal()(AttemptStarted(vendor="v\nERROR {number}\x1b[2J", model="{0}", number=1))

    (record,) = kept.records
    assert record.getMessage() == "attempt 1: asking v ERROR {number}[2J/{0}"
    assert record.facts["vendor"] == "v ERROR {number}[2J"  # type: ignore[attr-defined]


def test_what_nobody_reads_is_not_made(kept: Kept) -> None:
    """The level of the logger holds; an own logger may be given."""
    logger = logging.getLogger("llmdispatcher.test_journal")
    logger.setLevel(logging.ERROR)
    Journal(logger)(EVENTS[1])

    assert not kept.records
