"""Log-probabilities of tokens, in the two shapes in which hosts tell them.

The OpenAI API tells of each token by itself; the older completions and Together have parallel
arrays. What cannot be read raises BadReply.
"""

from __future__ import annotations

import math
from typing import Any

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import TokenLogprob
from llmdispatcher.vendors.wire.reading import fields, items


def logprobs(
    told: object, top: int, text: str = "", likely: object = None
) -> tuple[TokenLogprob, ...]:
    """Return the tokens of a piece.

    ``text`` and ``likely`` are the token and its neighbours where a bare number is told.
    """
    if told is None:
        return ()
    if isinstance(told, dict):
        if isinstance(told.get("tokens"), list):
            return _arrays(told, top)
        rows = [*items(told.get("content")), *items(told.get("refusal"))]
        return tuple(_token(row, top) for row in rows)
    if text and not isinstance(told, list):
        own = _made(text, None, told)
        return (TokenLogprob(own.token, own.data, own.logprob, _ranked(likely, top)),)
    return ()


def _token(row: object, top: int) -> TokenLogprob:
    if not isinstance(row, dict):
        raise _unreadable()
    rows = items(row.get("top_logprobs"))
    likely = sorted((_alone(each) for each in rows), key=lambda each: -each.logprob)
    own = _alone(_uncut(row, rows))
    return TokenLogprob(own.token, own.data, own.logprob, tuple(likely[:top]))


def _uncut(row: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
    """Return a token whole: llama-server cuts it at a stop string, but not among its neighbours."""
    number = row.get("id")
    same = (each for each in rows if number is not None and fields(each).get("id") == number)
    return next(same, row)


def _alone(row: object) -> TokenLogprob:
    told = fields(row)
    return _made(told.get("token"), told.get("bytes"), told.get("logprob"))


def _arrays(told: dict[str, Any], top: int) -> tuple[TokenLogprob, ...]:
    tokens, numbers = told["tokens"], items(told.get("token_logprobs"))
    others = told.get("top_logprobs")
    if len(numbers) != len(tokens):
        raise _unreadable()
    made = []
    for place, (token, number) in enumerate(zip(tokens, numbers, strict=True)):
        own = _made(token, None, 0.0 if number is None else number)
        likely: object = others
        if isinstance(others, list):
            likely = others[place] if place < len(others) else None
        elif len(tokens) > 1:
            likely = None  # of all tokens together, which says nothing of one
        made.append(TokenLogprob(own.token, own.data, own.logprob, _ranked(likely, top)))
    return tuple(made)


def _ranked(told: object, top: int) -> tuple[TokenLogprob, ...]:
    likely = [_made(token, None, number) for token, number in fields(told).items()]
    likely.sort(key=lambda each: -each.logprob)
    return tuple(likely[:top])


def _made(token: object, data: object, number: object) -> TokenLogprob:
    if not isinstance(token, str):
        raise _unreadable()
    try:
        own = bytes(data) if isinstance(data, list) else token.encode(errors="replace")
    except (TypeError, ValueError):
        raise _unreadable() from None
    return TokenLogprob(own.decode(errors="replace"), own, _number(number))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unreadable()
    try:
        number = float(value)
    except OverflowError:
        raise _unreadable() from None
    if math.isnan(number):
        raise _unreadable()
    return min(0.0, number)


def _unreadable() -> BadReply:
    return BadReply("the vendor sent a log-probability that cannot be read")
