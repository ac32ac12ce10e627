"""A reply as it is kept: from a ``Reply`` to bytes, and from bytes to what a vendor would deliver.

What comes back is replayed piece by piece, so that it is looked at as any reply is: of a file that
somebody changed nothing is believed. JSON through cattrs, which is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.reply import CallDelta, Choice, Delta, Finish, FinishReason, Reply, Usage

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""How replies end that are kept."""


@attrs.frozen(kw_only=True)
class Kept:
    """What is kept of a reply."""

    choices: tuple[Choice, ...]
    usage: Usage
    warnings: tuple[str, ...] = ()

    def deltas(self) -> Iterator[Delta]:
        """Return the text and the rest, a piece for each choice."""
        for index, choice in enumerate(self.choices):
            calls = (
                CallDelta(at, call.id, call.name, call.arguments)
                for at, call in enumerate(choice.tool_calls)
            )
            yield Delta(
                choice.text,
                index,
                choice.logprobs,
                reasoning=choice.reasoning,
                tool_calls=tuple(calls),
                keepsakes=choice.keepsakes,
            )

    def finish(self) -> Finish:
        """Return the end."""
        first, *others = (choice.finish_reason for choice in self.choices)
        return Finish(first, self.usage, self.warnings, tuple(others))


def packed(reply: Reply) -> bytes:
    """Return a reply as bytes. What was made of its JSON is made anew from its text."""
    kept = Kept(
        choices=tuple(attrs.evolve(choice, parsed=None) for choice in reply.choices),
        usage=reply.usage,
        warnings=reply.warnings,
    )
    return _converter().dumps(kept).encode()


def unpacked(body: bytes) -> Kept | None:
    """Return what ``packed`` packed; None for bytes that are nothing of the kind."""
    from cattrs import BaseValidationError  # noqa: PLC0415 - on first use

    try:
        kept = _converter().loads(body, Kept)
    except (BaseValidationError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return kept if kept.choices else None


@cache
def _converter() -> JsonConverter:
    from cattrs.preconf.json import make_converter  # noqa: PLC0415 - on first use

    return make_converter()
