"""Finds out why a vendor refused or failed: from its words and its status to one cause. Pure.

What an error is called decides, and what is said of it; its status where neither tells more than a
status would. Where several causes are named, the first in the order of ``Cause`` stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from llmdispatcher.vendors.wire.causes import BY_ENDING, BY_KIND, BY_STATUS, Cause
from llmdispatcher.vendors.wire.said import Said
from llmdispatcher.vendors.wire.sentences import SENTENCES

_VAGUE = frozenset({Cause.SERVER, Cause.BAD})
"""Names that say no more than the first digit of a status does."""


def cause_of(said: Said, status: int | None) -> Cause:
    """Return why a vendor refused or failed; ``status`` is None where none is known."""
    named = sorted({*_named(said)} | {*_worded(said, status)})
    if named and named[0] not in _VAGUE:
        return named[0]
    told = None if status is None else BY_STATUS.get(status)
    if status == HTTPStatus.NOT_FOUND and (said.is_page or not said.message):
        return Cause.ENDPOINT  # a vendor that knows the path says which model it does not know
    if told is not None:
        return told
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Cause.SERVER
    if named:
        return named[0]
    return Cause.SERVER if status is None else Cause.BAD


def _named(said: Said) -> Iterator[Cause]:
    """Yield the causes that the vendor names."""
    for kind in said.kinds:
        if kind in BY_KIND:
            yield BY_KIND[kind]
            continue
        for suffix, cause in BY_ENDING:
            if kind.endswith(suffix):
                yield cause


def _worded(said: Said, status: int | None) -> Iterator[Cause]:
    """Yield the causes that the vendor has no name for."""
    for sentence in SENTENCES:
        if status is not None and status not in sentence.statuses:
            continue
        if not said.kinds & sentence.unless and sentence.pattern.search(said.message):
            yield sentence.cause
