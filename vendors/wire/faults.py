"""From an error that a vendor answers to the error that it stands for, whatever its shape. Pure.

``said`` reads the body, ``diagnosis`` finds the cause, ``patience`` how long to wait, and
``outcomes`` makes the error. What a vendor says is shown cut, on one line and without keys.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import attrs

from llmdispatcher.models.errors import DispatcherError, RequestError, Unreachable
from llmdispatcher.vendors.wire.case import Case
from llmdispatcher.vendors.wire.causes import Cause
from llmdispatcher.vendors.wire.diagnosis import cause_of
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.outcomes import MADE
from llmdispatcher.vendors.wire.redaction import cleaned
from llmdispatcher.vendors.wire.said import of_body, of_json

_PLACE_CHARS = 200
"""How much of an address is shown."""


@attrs.frozen(kw_only=True)
class Habits:
    """How a vendor's errors differ from everybody's, as data."""

    forbidden_is_overflow: bool = False
    """403 says that the prompt is too long (Together), unless it speaks of keys."""
    too_large_is_rate: bool = False
    """413 says that the request is larger than the limit of tokens a minute (Groq)."""


def of_answer(head: Head, body: bytes, habits: Habits | None = None) -> DispatcherError:
    """Return the error of an answer with a status of 300 or more."""
    said = of_body(body, head.media_type)
    status = head.status if head.status >= HTTPStatus.MULTIPLE_CHOICES else said.code
    return _error(Case(said=said, status=status, headers=head.headers), habits or Habits())


def of_message(message: Any, habits: Habits | None = None) -> DispatcherError:  # noqa: ANN401
    """Return the error of an error object inside an answer with status 200, or inside a stream."""
    said = of_json(message)
    return _error(Case(said=said, status=said.code, headers={}), habits or Habits())


def _error(case: Case, habits: Habits) -> DispatcherError:
    """Return what a case stands for."""
    if (between := _between(case)) is not None:
        return between
    error = MADE[_cause(case, habits)](case)
    if isinstance(error, RequestError):
        error.status, error.request_id = case.status, case.request_id
    return error


def _cause(case: Case, habits: Habits) -> Cause:
    """Return why, as this vendor means it."""
    cause = cause_of(case.said, case.status)
    if case.status == HTTPStatus.FORBIDDEN and habits.forbidden_is_overflow:
        names_key = cause_of(case.said, None) is Cause.AUTH
        return Cause.OVERFLOW if cause is Cause.AUTH and not names_key else cause
    if case.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and habits.too_large_is_rate:
        return Cause.NEVER_FITS
    return cause


def _between(case: Case) -> DispatcherError | None:
    """Return the error of an answer that is not the vendor's."""
    status = case.status or 0
    if 300 <= status < 400:  # noqa: PLR2004 - as HTTP counts
        return _redirect(case)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Unreachable(
            f"the proxy wants a name and a password: {case.words}; put them into its address",
            **case.facts(),
        )
    if status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
        return Unreachable(f"this network wants a login first: {case.words}", **case.facts())
    if status == HTTPStatus.FORBIDDEN and case.said.is_page:
        return Unreachable(
            f"something between here and the vendor refused: {case.words}", **case.facts()
        )
    return None


def _redirect(case: Case) -> Unreachable:
    """Return the error of an answer that points elsewhere, where keys are not sent."""
    target = re.split(r"[?#]", case.headers.get("location", ""), maxsplit=1)[0]
    place = cleaned(target, _PLACE_CHARS)
    pointed = f"to {place}" if place else "without saying where"
    return Unreachable(
        f"the address has moved ({case.status}), {pointed}; a key is not sent on: if that place is"
        " the vendor's, set it as the base address",
        **case.facts(),
    )
