"""Scripted vendors that tell log-probabilities, for the tests of plans that go by them."""

from __future__ import annotations

import math
from typing import Any

from llmdispatcher import Delta, Price, Scripted, TokenLogprob


def told(text: str, chance: float, index: int = 0) -> Delta:
    """Return a piece whose only token was drawn with a chance; another one has the rest."""
    drawn, other = _token(text, chance), _token("other", 1 - chance)
    top = tuple(sorted((drawn, other), key=lambda token: -token.logprob))
    return Delta(text, index, (TokenLogprob(drawn.token, drawn.data, drawn.logprob, top),))


def _token(text: str, chance: float) -> TokenLogprob:
    return TokenLogprob(text, text.encode(), math.log(max(chance, 1e-9)))


def sure(text: str, chance: float, name: str, usd: float = 1, **facts: Any) -> Scripted:
    """Return a vendor that gives one answer, so sure of it; it costs dollars by the million."""
    return Scripted([told(text, chance)], name=name, price=Price.per_million(usd, usd), **facts)


def says(name: str, *replies: Any, usd: float = 1, **facts: Any) -> Scripted:
    """Return a vendor with a price that says what it is told to."""
    return Scripted(*replies, name=name, price=Price.per_million(usd, usd), **facts)
