"""From an error that a vendor answers to the error that it stands for, whatever its shape. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply, DispatcherError
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.reading import shown


@attrs.frozen(kw_only=True)
class Habits:
    """How a vendor's errors differ from everybody's, as data."""

    forbidden_is_overflow: bool = False
    """403 says that the prompt is too long (Together)."""
    too_large_is_rate: bool = False
    """413 says that the request is larger than the limit of tokens a minute (Groq)."""


def of_answer(head: Head, body: bytes, habits: Habits | None = None) -> DispatcherError:
    """Return the error of an answer with a status of 300 or more."""
    return BadReply(f"{head.status}: {shown(body)} {habits}", status=head.status)


def of_message(message: Any, habits: Habits | None = None) -> DispatcherError:  # noqa: ANN401
    """Return the error of an error object inside an answer with status 200, or inside a stream."""
    return BadReply(f"{shown(message)} {habits}")
