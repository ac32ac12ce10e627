"""How tokens are drawn, and how hard a model thinks: from our words to a host's fields.

What a host, or a model at a host that enforces it, does not take raises Unsupported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai.known import NONE, Known
from llmdispatcher.vendors.openai.ways import Logprobs, Thinking, Ways


def drawn(request: Request, ways: Ways) -> dict[str, Any]:
    """Return the fields of sampling, stop strings and choices."""
    fields: dict[str, Any] = {}
    for name, value in request.sampling.given().items():
        if name not in ways.sampling:
            raise Unsupported(name, f"this host takes no {name}: leave it out")
        fields[ways.sampling[name]] = value
    if request.stop:
        if ways.max_stops is not None and len(request.stop) > ways.max_stops:
            told = f"this host takes at most {ways.max_stops} stop strings"
            raise Unsupported("stop", f"{told}, and these are {len(request.stop)}")
        fields["stop"] = [*request.stop]
    if request.n > 1:
        if request.n > ways.max_choices:
            told = f"this host draws at most {ways.max_choices} replies to one request"
            raise Unsupported("n", f"{told}, and n is {request.n}: ask several times")
        fields["n"] = request.n
    return fields


def logprobs(request: Request, ways: Ways) -> dict[str, Any]:
    """Return the fields that ask for log-probabilities."""
    if request.logprobs is None:
        return {}
    if ways.logprobs is Logprobs.NEVER:
        raise Unsupported("logprobs", "this host tells no log-probabilities: leave logprobs out")
    count = max(ways.least_logprobs, request.logprobs)
    if request.prompt is not None:
        return {ways.raw_logprobs: count}
    if ways.logprobs is Logprobs.NUMBER:
        return {"logprobs": max(1, count)}  # 0 asks for none at all
    return {"logprobs": True, "top_logprobs": count}


def effort(request: Request, row: Known, ways: Ways) -> str | None:
    """Return the word for the effort that a host is told; None is told nothing."""
    word = row.effort(request)
    how = ways.thinking
    if not how.by_model:
        word = request.effort
    return word if word is None or word == NONE else nearest(word, how.words)


def thinking(request: Request, row: Known, ways: Ways) -> dict[str, Any]:
    """Return the fields that say whether and how hard to think."""
    word, how = effort(request, row, ways), ways.thinking
    fields: dict[str, Any] = {}
    if request.reasoning is not None and not how.by_model:
        fields |= _switch(how, row, wanted=request.reasoning)
    if word is None:
        return fields
    if not how.effort:
        raise Unsupported("effort", "this host takes no word for the effort: leave effort out")
    return merged(fields, put(how.effort, word))


def _switch(how: Thinking, row: Known, *, wanted: bool) -> Mapping[str, Any]:
    """Return what switches thinking; nothing for a model that is known to have no thoughts."""
    if not wanted and row.is_known and not row.thinks:
        return {}
    fields = how.on if wanted else how.off
    if fields is None:
        raise Unsupported(
            "reasoning", "this host cannot switch thinking on or off: leave reasoning out"
        )
    return fields


def check(request: Request, row: Known, word: str | None) -> None:
    """Refuse what a model does not take, at a host that enforces it."""
    resting = " while it thinks: give reasoning=False, or" if row.can_rest else ":"
    if names := row.refused(request, word):
        raise Unsupported(names[0], f"this model takes no {names[0]}{resting} leave it out")
    if request.stop and not row.takes_stop:
        raise Unsupported("stop", "this model takes no stop strings: leave stop out")
    if request.logprobs is not None and not row.takes_logprobs(word):
        told = f"this model tells no log-probabilities{resting} leave logprobs out"
        raise Unsupported("logprobs", told)


def thinks(request: Request, ways: Ways) -> bool:
    """Whether the model will think, as far as the request says."""
    if request.reasoning is not None:
        return request.reasoning
    return request.effort is not None or ways.thinking.by_default


def nearest(word: str, words: Sequence[str]) -> str:
    """Return the word itself or the nearest there is; of two as near the lesser."""
    place = EFFORTS.index(word)
    return min(words, key=lambda each: abs(EFFORTS.index(each) - place))


def merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Add fields; two objects of one name become one."""
    both = dict(fields)
    for name, value in more.items():
        own = both.get(name)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            both[name] = {**own, **value}
        else:
            both[name] = value
    return both


def put(names: Sequence[str], value: object) -> dict[str, Any]:
    """Return a value behind names, from the outside in."""
    for name in reversed(names[1:]):
        value = {name: value}
    return {names[0]: value}
