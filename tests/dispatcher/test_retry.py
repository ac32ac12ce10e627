"""The table of verdicts, walked whole."""

from __future__ import annotations

import pytest

from llmdispatcher.models import errors
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.retry import VERDICTS, Verdict, verdict

NEXT = {
    "ContextOverflow",
    "Unsupported",
    "LimitReached",
    "BreakerOpen",
    "VendorError",
    "RateLimited",
    "QuotaExhausted",
    "Overloaded",
    "TimedOut",
    "Unreachable",
    "AuthRejected",
    "ModelNotFound",
    "BadReply",
    "StreamInterrupted",
    "ExecutableNotFound",
    "ModelFileMissing",
    "CorruptModel",
    "UnsupportedArchitecture",
    "ModelTooLarge",
    "OutOfMemory",
    "EngineCrashed",
    "StateUnusable",
    "RequestError",
    "BadRequest",
    "InvalidGrammar",
}
STOP = {
    "ConfigError",
    "Refused",
    "BudgetExceeded",
    "LedgerUnusable",
    "OfflineRefused",
    "NoCandidate",
    "ContentRefused",
    "Cancelled",
    "AllVendorsFailed",
}


def tree(kind: type[DispatcherError]) -> list[type[DispatcherError]]:
    """List the classes below a class."""
    return [c for sub in kind.__subclasses__() for c in (sub, *tree(sub))]


def bare(kind: type[DispatcherError]) -> DispatcherError:
    """Make an instance without facts: the table must not need any."""
    if issubclass(kind, ExceptionGroup):
        return kind("x", [errors.Cancelled()])
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", tree(DispatcherError), ids=lambda kind: kind.__name__)
def test_every_error_has_the_verdict_written_here(kind: type[DispatcherError]) -> None:
    """Each class of the tree leads to the next candidate or to the caller, as listed above."""
    expected = Verdict.NEXT if kind.__name__ in NEXT else Verdict.STOP

    assert kind.__name__ in NEXT | STOP, "a new error needs a decision"
    assert verdict(bare(kind)) is expected


def test_the_table_holds_no_row_that_its_base_implies() -> None:
    """A row says something that the nearest base does not say already, or stands for a branch."""
    for kind, row in VERDICTS.items():
        base = next((b for b in kind.__mro__[1:] if b in VERDICTS), None)
        assert base is None or VERDICTS[base] is not row
