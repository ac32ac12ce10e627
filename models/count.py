"""How long a prompt is, before it is sent."""

from __future__ import annotations

import attrs

from llmdispatcher.models.check import integer, title


@attrs.frozen(kw_only=True)
class TokenCount:
    """The tokens of a prompt, as a model would read it."""

    vendor: str = attrs.field(validator=title)
    model: str = attrs.field(validator=title)
    tokens: int = integer("tokens", 0, 2**63 - 1, default=0)
    estimated: bool = False
    """Nobody could be asked: four bytes of text for a token, pictures not counted."""
