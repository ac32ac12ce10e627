"""The errors that causes stand for: one maker each, with facts, words and the way out. Pure.

Two choices: a vendor's own deadline (408, 504, 524) is Overloaded, because TimedOut is a deadline
of ours, with a limit in seconds that nobody tells here. A server that fails (500) gives BadReply:
it had no reply, and the request is not at fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    EngineCrashed,
    InvalidGrammar,
    ModelNotFound,
    ModelTooLarge,
    OutOfMemory,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Unreachable,
    Unsupported,
    UnsupportedArchitecture,
)
from llmdispatcher.vendors.wire import overflow, patience
from llmdispatcher.vendors.wire.case import Case
from llmdispatcher.vendors.wire.causes import Cause
from llmdispatcher.vendors.wire.redaction import cleaned


def _busy_budget(case: Case) -> DispatcherError:
    return RateLimited(
        f"the credit is held for requests that are under way: {case.words}",
        **case.facts(case.wait_s()),
    )


def _money(case: Case) -> DispatcherError:
    told = patience.retry_after_s(case.headers)
    return QuotaExhausted(
        f"the account's quota or credit is used up: {case.words}", **case.facts(told)
    )


def _never_fits(case: Case) -> DispatcherError:
    needed, limit = overflow.counts(case.said.message, case.said.numbers)
    if needed is not None and limit is not None and needed <= limit:
        return _rate(case)
    return ContextOverflow(needed, limit, message=case.words)


def _overflow(case: Case) -> DispatcherError:
    needed, limit = overflow.counts(case.said.message, case.said.numbers)
    if needed is not None and limit is not None and needed < limit:
        needed = None  # of the prompt alone; it is the reply that does not fit beside it
    return ContextOverflow(needed, limit, message=case.words)


def _filter(case: Case) -> DispatcherError:
    return ContentRefused(f"the content filter refused: {case.words}", **case.facts())


def _auth(case: Case) -> DispatcherError:
    return AuthRejected(
        f"access is refused: {case.words}; check the key, and what it may use",
        **case.facts(),
    )


def _missing(case: Case) -> DispatcherError:
    return ModelNotFound(f"the vendor does not have this model: {case.words}", **case.facts())


_PER_DAY = re.compile(r"perday|permonth", re.IGNORECASE)


def _rate(case: Case) -> DispatcherError:
    """Return a limit that passes; a day's that does not say when is a quota (Gemini)."""
    if any(_PER_DAY.search(quota) for quota in case.said.quotas):
        return _money(case)
    wait_s = case.wait_s()
    if wait_s is None:
        wait_s = patience.reset_s({**case.headers, **case.said.headers})
    return RateLimited(f"too many requests or tokens for now: {case.words}", **case.facts(wait_s))


def _overload(case: Case) -> DispatcherError:
    return Overloaded(f"there is no room now: {case.words}", **case.facts(case.wait_s()))


def _late(case: Case) -> DispatcherError:
    return Overloaded(
        f"the vendor's own deadline passed: {case.words}", **case.facts(case.wait_s())
    )


_SIZES = re.compile(
    r"requires more system memory \((\d{1,6}(?:\.\d{1,6})?) ?([KMGT])i?B\) than is available"
    r" \((\d{1,6}(?:\.\d{1,6})?) ?([KMGT])i?B\)",
    re.IGNORECASE,
)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def _memory(case: Case) -> DispatcherError:
    message = f"the server has too little memory: {case.words}"
    if found := _SIZES.search(case.said.message):  # Ollama
        needed, limit = (
            int(float(found[i]) * 1024 ** _POWERS[found[i + 1].upper()]) for i in (1, 3)
        )
        return ModelTooLarge(message, needed_bytes=needed, limit_bytes=limit, **case.facts())
    return OutOfMemory(message, **case.facts())


def _crash(case: Case) -> DispatcherError:
    return EngineCrashed(f"the server's engine died: {case.words}", **case.facts())


_ARCHITECTURE = re.compile(r"architecture:? ['\"]?([\w.-]{1,40})", re.IGNORECASE)


def _architecture(case: Case) -> DispatcherError:
    found = _ARCHITECTURE.search(case.said.message)
    return UnsupportedArchitecture(
        f"the server does not know this model's architecture: {case.words}",
        architecture=found[1] if found else "",
        **case.facts(),
    )


def _reply(case: Case) -> DispatcherError:
    unfit = BadReply(f"the model wrote what cannot be used: {case.words}", **case.facts())
    unfit.is_unfit = True
    return unfit


def _gateway(case: Case) -> DispatcherError:
    return Unreachable(f"the vendor cannot be reached: {case.words}", **case.facts(case.wait_s()))


def _schema(case: Case) -> DispatcherError:
    return InvalidGrammar(f"the vendor cannot use the grammar or schema: {case.words}")


_FEATURES = (
    ("image", "images"),
    ("vision", "images"),
    ("audio", "audio"),
    ("tool", "tools"),
    ("function", "tools"),
    ("logprob", "logprobs"),
    ("think", "reasoning"),
    ("reasoning", "reasoning"),
    ("schema", "json_schema"),
    ("response_format", "response_format"),
    ("embed", "embed"),
    ("stream", "streaming"),
)
"""What cannot be done, by a word of the message."""
_QUOTED = re.compile(r"[`'\"]([A-Za-z_][\w.\[\]]{0,60})[`'\"]")
_ARGUMENT = re.compile(
    r"(?:arguments?(?: supplied)?|parameters?|fields?):? ([a-z_][\w.]{0,60})", re.IGNORECASE
)


_FIELD = re.compile(r"([a-z_][a-z0-9_]{0,40}(?:\.[a-z0-9_]{1,40}){0,8}): ")
"""How Anthropic begins what it says of a field."""

_NAME_CHARS = 80


def _field(case: Case) -> str:
    """Return the field of the request that is at fault, where the vendor names it."""
    found = _FIELD.match(case.said.message)
    return cleaned(case.said.param, _NAME_CHARS) or (found[1] if found else "")


def _feature(case: Case) -> str:
    """Return the parameter that is not supported, or a short name for what is not."""
    if field := _field(case):
        return field
    message = case.said.message
    for pattern in (_ARGUMENT, _QUOTED):
        if (found := pattern.search(message)) and "_" in found[1]:
            return found[1]
    lower = message.lower()
    for word, feature in _FEATURES:
        if word in lower:
            return feature
    found = _QUOTED.search(message)
    return found[1] if found else "request"


def _unsupported(case: Case) -> DispatcherError:
    return Unsupported(_feature(case), f"the vendor cannot do this: {case.words}")


def _endpoint(case: Case) -> DispatcherError:
    return Unsupported(
        "endpoint",
        f"the vendor has nothing at this path: {case.words}; check the base address (many end in"
        " /v1)",
    )


def _server(case: Case) -> DispatcherError:
    return BadReply(f"the vendor failed: {case.words}", **case.facts(case.wait_s()))


def _bad(case: Case) -> DispatcherError:
    return BadRequest(
        _field(case) or "request",
        None,
        "what the vendor takes",
        message=f"the vendor does not take this request: {case.words}",
    )


MADE: dict[Cause, Callable[[Case], DispatcherError]] = {
    Cause.BUSY_BUDGET: _busy_budget,
    Cause.MONEY: _money,
    Cause.NEVER_FITS: _never_fits,
    Cause.OVERFLOW: _overflow,
    Cause.FILTER: _filter,
    Cause.AUTH: _auth,
    Cause.MISSING: _missing,
    Cause.CAPACITY: _overload,
    Cause.RATE: _rate,
    Cause.OVERLOAD: _overload,
    Cause.LATE: _late,
    Cause.MEMORY: _memory,
    Cause.CRASH: _crash,
    Cause.ARCHITECTURE: _architecture,
    Cause.REPLY: _reply,
    Cause.GATEWAY: _gateway,
    Cause.NO_SCHEMA: _unsupported,
    Cause.SCHEMA: _schema,
    Cause.UNSUPPORTED: _unsupported,
    Cause.ENDPOINT: _endpoint,
    Cause.SERVER: _server,
    Cause.BAD: _bad,
}
