"""What to do after an error: one table over the whole error tree.

The table reads classes, never texts. A class that is not in it inherits the row of its nearest
base, and a test walks the tree, so that a new error cannot be forgotten.
"""

from __future__ import annotations

from enum import Enum

from llmdispatcher.models import errors


class Verdict(Enum):
    """What the flow does next."""

    NEXT = "ask the next candidate"
    STOP = "give the error to the caller"


VERDICTS: dict[type[errors.DispatcherError], Verdict] = {
    # What one vendor does not take another may: ranges, schemas, features and contexts differ.
    # What is wrong everywhere ``Request`` itself refuses.
    errors.RequestError: Verdict.NEXT,
    # Our own refusals concern the caller, except those that concern one vendor.
    errors.ConfigError: Verdict.STOP,
    errors.Refused: Verdict.STOP,
    errors.LimitReached: Verdict.NEXT,
    errors.BreakerOpen: Verdict.NEXT,
    # Whatever a vendor failed with, another vendor may do better ...
    errors.VendorError: Verdict.NEXT,
    # ... but nobody asks around for someone who answers what a content filter refused.
    errors.ContentRefused: Verdict.STOP,
    errors.Cancelled: Verdict.STOP,
    errors.AllVendorsFailed: Verdict.STOP,
}


def verdict(error: errors.DispatcherError) -> Verdict:
    """Look an error up in the table by its nearest class."""
    return next(VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS)
