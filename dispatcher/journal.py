"""Events as records of ``logging``: ``Dispatcher(on_event=Journal())``.

Each record has a plain sentence, and its facts as attributes for whoever writes logs as JSON:
``record.event``, the kind, and ``record.facts``, a dict of text, numbers and None. No words of a
vendor are in either: of an error, only its class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmdispatcher.models import event as events
from llmdispatcher.terminal import one_line

if TYPE_CHECKING:
    import logging

_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_CLASS = re.compile(r"[A-Za-z_]\w{0,63}\Z", re.ASCII)

Facts = dict[str, Any]

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""The levels of ``logging``, which takes 5 ms to import."""


class Journal:
    """Writes a record for each event. Loading progress is at DEBUG, what failed at WARNING."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Write to a logger; by default to ``llmdispatcher``."""
        if logger is None:
            import logging  # noqa: PLC0415 - 5 ms at import

            logger = logging.getLogger("llmdispatcher")
        self._logger = logger

    def __call__(self, event: events.Event) -> None:
        """Write one event."""
        level, sentence, facts = _told(event)
        if not self._logger.isEnabledFor(level):
            return
        clean = {name: _clean(fact) for name, fact in facts.items()}
        kind = _WORD.sub("_", type(event).__name__).lower()
        self._logger.log(
            level, "%s", one_line(sentence.format(**clean)), extra={"event": kind, "facts": clean}
        )


def _clean(fact: object) -> object:
    return one_line(fact) if isinstance(fact, str) else fact


def _told(event: events.Event) -> tuple[int, str, Facts]:
    """Return level, sentence and facts of an event."""
    for kind, tell in _TELLERS.items():
        if isinstance(event, kind):
            return tell(event)
    return INFO, type(event).__name__, {}


def _class_of(reason: str) -> str:
    """Return the class at the beginning of "Class: words of a vendor"."""
    name = reason.partition(":")[0]
    return name if _CLASS.match(name) else ""


def _progress(event: events.LoadProgress) -> tuple[int, str, Facts]:
    facts = {"vendor": event.vendor, "model": event.model, "fraction": event.fraction}
    return DEBUG, "loading {vendor}/{model}: {fraction:.0%}", facts


def _started(event: events.AttemptStarted) -> tuple[int, str, Facts]:
    facts = {"vendor": event.vendor, "model": event.model, "number": event.number}
    return DEBUG, "attempt {number}: asking {vendor}/{model}", facts


def _ended(event: events.AttemptEnded) -> tuple[int, str, Facts]:
    attempt = event.attempt
    error = _class_of(attempt.error)
    facts = {
        "vendor": attempt.vendor,
        "model": attempt.model,
        "number": event.number,
        "outcome": str(attempt.outcome),
        "error": error,
        "cost_microusd": attempt.cost_microusd,
        "prompt_tokens": attempt.usage.prompt_tokens,
        "completion_tokens": attempt.usage.completion_tokens,
        "latency_s": attempt.latency_s,
        "first_token_s": attempt.first_token_s,
        "waited_s": attempt.waited_s,
    }
    sentence = "attempt {number}: {vendor}/{model} {outcome} after {latency_s:.3f} s"
    return (WARNING, sentence + ": {error}", facts) if error else (INFO, sentence, facts)


def _fallback(event: events.Fallback) -> tuple[int, str, Facts]:
    facts = {"failed": event.failed, "next": event.next, "error": _class_of(event.reason)}
    return WARNING, "{failed} failed ({error}); asking {next}", facts


def _died(event: events.EngineDied) -> tuple[int, str, Facts]:
    facts = {
        "vendor": event.vendor,
        "model": event.model,
        "error": _class_of(event.reason),
        "report": event.report,
    }
    return ERROR, "the engine of {vendor}/{model} died ({error})", facts


def _unloaded(event: events.ModelUnloaded) -> tuple[int, str, Facts]:
    facts = {"vendor": event.vendor, "model": event.model, "reason": event.reason}
    return INFO, "{vendor}/{model} was unloaded {reason}", facts


def _alert(event: events.BudgetAlert) -> tuple[int, str, Facts]:
    facts = {
        "percent": event.percent,
        "cap": str(event.cap),
        "scope": str(event.cap.scope),
        "name": event.cap.name,
        "period": str(event.cap.period),
        "period_start": event.period_start,
        "spent_microusd": event.spent_microusd,
        "limit_microusd": event.cap.limit_microusd,
    }
    return WARNING, "{percent} % of the cap of {cap} is spent", facts


def _trouble(event: events.LedgerTrouble) -> tuple[int, str, Facts]:
    facts = {"kind": event.kind, "detail": event.detail, "kept": event.kept, "lost": event.lost}
    return (INFO if event.kind == "over" else ERROR), "ledger: {detail}", facts


def _uncached(event: events.CacheTrouble) -> tuple[int, str, Facts]:
    return WARNING, "cache: {detail}", {"kind": event.kind, "detail": event.detail}


def _retried(event: events.Retried) -> tuple[int, str, Facts]:
    facts = {"name": event.name, "waited_s": event.waited_s, "error": _class_of(event.reason)}
    return INFO, "asking {name} again after {error} and {waited_s:.2f} s", facts


def _restarted(event: events.Restarted) -> tuple[int, str, Facts]:
    facts = {"name": event.name, "shown_chars": event.shown_chars}
    return WARNING, "{name} begins a reply anew of which {shown_chars} characters were shown", facts


def _moved(event: events.BreakerMoved) -> tuple[int, str, Facts]:
    facts = {
        "name": event.name,
        "before": event.before,
        "after": event.after,
        "error": event.reason,
        "next_probe_s": event.next_probe_s,
    }
    level = WARNING if event.after == "open" else INFO
    return level, "the breaker of {name} went from {before} to {after}", facts


def _reloaded(event: events.ConfigReloaded) -> tuple[int, str, Facts]:
    facts = {
        "file": event.file,
        "started": ", ".join(event.started),
        "kept": ", ".join(event.kept),
        "closed": ", ".join(event.closed),
    }
    sentence = "the configuration {file} holds from now on; started: {started}; closed: {closed}"
    return INFO, sentence, facts


def _refused(event: events.ConfigRefused) -> tuple[int, str, Facts]:
    problems = "; ".join(map(str, event.problems))  # they show no secrets
    facts = {"file": event.file, "count": len(event.problems), "problems": problems}
    return ERROR, "the configuration {file} is wrong, so what held before holds: {problems}", facts


_TELLERS: dict[type, Callable[[Any], tuple[int, str, Facts]]] = {
    events.LoadProgress: _progress,
    events.AttemptStarted: _started,
    events.AttemptEnded: _ended,
    events.Fallback: _fallback,
    events.Retried: _retried,
    events.Restarted: _restarted,
    events.BreakerMoved: _moved,
    events.EngineDied: _died,
    events.ModelUnloaded: _unloaded,
    events.BudgetAlert: _alert,
    events.LedgerTrouble: _trouble,
    events.CacheTrouble: _uncached,
    events.ConfigReloaded: _reloaded,
    events.ConfigRefused: _refused,
}
