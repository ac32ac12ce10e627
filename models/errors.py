"""Every error that llmdispatcher raises, as one tree.

DispatcherError
├─ ConfigError            the configuration is wrong; every problem at once
├─ RequestError           the request is wrong: change it before sending it again
│   ├─ BadRequest         a field has a value outside its range
│   ├─ ContextOverflow    prompt and reply do not fit the model's context
│   ├─ Unsupported        the model cannot do what the request asks for
│   └─ InvalidGrammar     the grammar or schema does not compile
├─ Refused                we refused; nothing left the process
│   ├─ BudgetExceeded  LedgerUnusable  LimitReached  BreakerOpen  OfflineRefused  NoCandidate
├─ VendorError            a vendor failed
│   ├─ RateLimited  QuotaExhausted  Overloaded  TimedOut  Unreachable
│   ├─ AuthRejected  ModelNotFound  ContentRefused  BadReply  StreamInterrupted
│   └─ local: ExecutableNotFound  ModelFileMissing  CorruptModel  UnsupportedArchitecture
│             ModelTooLarge  OutOfMemory  EngineCrashed  StateUnusable
├─ Cancelled              the caller stopped the request · NoGoodAnswer  a plan took none
└─ AllVendorsFailed       an exception group: one error for each vendor that was tried

Errors carry facts in attributes, and decisions read those, never the text. All can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import attrs

from llmdispatcher.models.told import overflow, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _revive(
    kind: type[DispatcherError], args: tuple[Any, ...], facts: dict[str, Any]
) -> DispatcherError:
    """Rebuild a pickled error without calling its ``__init__``."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class DispatcherError(Exception):
    """Base of every error that llmdispatcher raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message and facts; constructors with keyword facts need no more."""
        return _revive, (type(self), self.args, self.__dict__)


@attrs.frozen
class Problem:
    """One thing wrong with a configuration: what, and where to mend it."""

    message: str
    key_path: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """``file:line:column: key.path: message``, leaving out what is not known."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.key_path, self.message) if part)


class ConfigError(DispatcherError):
    """The configuration cannot be used; ``problems`` holds all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Join all problems into one message, a line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


# -- the request is wrong ----------------------------------------------------------------------


class RequestError(DispatcherError):
    """The request cannot be served as it is; sending it again unchanged would fail again.

    Where a vendor said so, ``status`` is its HTTP status and ``request_id`` its own name for it.
    """

    status: int | None = None
    request_id: str | None = None


class BadRequest(RequestError, ValueError):
    """A value is outside its range. Facts: ``field``, ``value``, ``allowed``."""

    def __init__(self, field: str, value: object, allowed: str, *, message: str = "") -> None:
        """Name field, value and what is allowed, or say what a vendor said in its own words."""
        self.field, self.value, self.allowed = field, value, allowed
        if message:
            super().__init__(message)
            return
        super().__init__(f"{field} is {shown(value)}; {field} must be {allowed}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a value that may not be picklable as its repr."""
        facts = {**self.__dict__, "value": repr(self.value)}
        return _revive, (type(self), self.args, facts)


class ContextOverflow(RequestError):
    """The prompt does not fit. Facts: ``needed_tokens``, ``limit_tokens``; None where not told."""

    def __init__(
        self,
        needed_tokens: int | None = None,
        limit_tokens: int | None = None,
        *,
        vendor: str = "",
        model: str = "",
        message: str = "",
    ) -> None:
        """Say what is needed and what there is, as far as known; ``message`` is the vendor's."""
        self.needed_tokens, self.limit_tokens = needed_tokens, limit_tokens
        self.vendor, self.model = vendor, model
        what = overflow(needed_tokens, limit_tokens, f"{vendor}/{model}" if vendor else "")
        words = f" ({message})" if message else ""
        super().__init__(f"{what}{words}; shorten the prompt, or use a model with a larger context")


class Unsupported(RequestError):
    """The model cannot do this. Facts: ``feature``, ``vendor``, ``model``."""

    def __init__(self, feature: str, message: str, *, vendor: str = "", model: str = "") -> None:
        """``feature`` is the short name, ``message`` what a person reads."""
        self.feature, self.vendor, self.model = feature, vendor, model
        super().__init__(message)


class InvalidGrammar(RequestError):
    """A grammar or JSON schema that does not compile."""


class Refused(DispatcherError):
    """The dispatcher refused before anything was sent. ``retry_after_s``: when to try again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        """``retry_after_s`` is None where waiting does not help."""
        self.retry_after_s = retry_after_s
        super().__init__(message)


class BudgetExceeded(Refused):
    """The worst case of this request does not fit a budget."""


class LedgerUnusable(Refused):
    """The ledger cannot be written and is to be strict: nothing is spent that it would not know."""


class LimitReached(Refused):
    """A request, token or concurrency limit of ours is used up, or a queue is full."""


class BreakerOpen(Refused):
    """The vendor failed too often lately, or is full, and is being left alone."""


class OfflineRefused(Refused):
    """The dispatcher is offline and this would have opened a connection."""


class NoCandidate(Refused):
    """No registered model can serve the request. ``reasons`` maps vendor/model to why not."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        """List every model that was left out and the reason."""
        self.reasons = dict(reasons)
        told = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        super().__init__(
            f"no registered model can serve this request ({told or 'none is registered'})"
        )


# -- a vendor failed ---------------------------------------------------------------------------


class VendorFacts(TypedDict, total=False):
    """The facts that every vendor error may carry, as keyword arguments."""

    vendor: str
    model: str
    status: int | None
    request_id: str | None
    retry_after_s: float | None


class VendorError(DispatcherError):
    """A vendor failed.

    Facts: ``vendor`` and ``model`` (empty until known), ``status`` (the HTTP status, where there
    is one), ``request_id`` (the vendor's own), ``retry_after_s`` (when the vendor said to return).
    """

    def __init__(self, message: str, **facts: Unpack[VendorFacts]) -> None:
        """``message`` says what happened and the way out, without the vendor's name."""
        self.vendor, self.model = facts.get("vendor", ""), facts.get("model", "")
        self.status, self.request_id = facts.get("status"), facts.get("request_id")
        self.retry_after_s = facts.get("retry_after_s")
        super().__init__(message)

    def __str__(self) -> str:
        """``vendor/model: message``, with the name left out until it is known."""
        name = "/".join(part for part in (self.vendor, self.model) if part)
        message = super().__str__()
        return f"{name}: {message}" if name else message

    def at(self, vendor: str, model: str) -> Self:
        """Fill in who failed, where the place that raised did not know."""
        self.vendor, self.model = self.vendor or vendor, self.model or model
        return self


class RateLimited(VendorError):
    """Too many requests or tokens for now."""


class QuotaExhausted(VendorError):
    """The account's quota or credit is used up; waiting a little does not help."""


class Overloaded(VendorError):
    """The vendor has no room now, through no fault of this request."""


class TimedOut(VendorError):
    """A deadline passed; ``phase`` tells which, ``limit_s`` how long it was.

    The phases are those of ``Deadlines``: connect, load, first_token, idle, whole and total.
    """

    def __init__(self, phase: str, limit_s: float, **facts: Unpack[VendorFacts]) -> None:
        """Name the phase that took too long and its limit."""
        self.phase, self.limit_s = phase, limit_s
        super().__init__(f"timed out: {_PHASES[phase]} took longer than {limit_s:g} s", **facts)


_PHASES = {
    "connect": "connecting",
    "load": "loading the model",
    "first_token": "waiting for the first token",
    "idle": "waiting for the next token",
    "whole": "waiting for the whole reply",
    "total": "the whole request",
}


class Unreachable(VendorError):
    """No connection could be made, or it broke before a reply began: then ``was_connected``."""

    was_connected = False


class AuthRejected(VendorError):
    """The vendor does not accept the key, or the key may not use the model."""


class ModelNotFound(VendorError):
    """The vendor does not have this model."""


class ContentRefused(VendorError):
    """The vendor's content filter refused the prompt or the reply."""


class BadReply(VendorError):
    """No reply came, or, ``is_unfit``, a whole one of another form: ``misfit`` says where."""

    is_unfit, misfit = False, ""


class StreamInterrupted(VendorError):
    """A reply ended before its finish reason. ``partial`` is the text that had arrived."""

    def __init__(self, message: str, *, partial: str = "", **facts: Unpack[VendorFacts]) -> None:
        """``partial`` is everything that arrived before the cut, so that nothing is lost."""
        self.partial = partial
        super().__init__(message, **facts)


class ExecutableNotFound(VendorError):
    """The engine that runs local models is not installed; the message says how to install it."""


class ModelFileMissing(VendorError):
    """There is no readable model file at ``path``."""

    def __init__(self, message: str, *, path: str, **facts: Unpack[VendorFacts]) -> None:
        """``path`` is the place that was looked at."""
        self.path = path
        super().__init__(message, **facts)


class CorruptModel(VendorError):
    """The file at ``path`` is not a whole, well-formed GGUF file."""

    def __init__(self, message: str, *, path: str = "", **facts: Unpack[VendorFacts]) -> None:
        """``message`` says what is wrong with the file, with the numbers."""
        self.path = path
        super().__init__(message, **facts)


class UnsupportedArchitecture(VendorError):
    """The engine does not know this model's ``architecture``."""

    def __init__(
        self, message: str, *, architecture: str = "", **facts: Unpack[VendorFacts]
    ) -> None:
        """``architecture`` is the name in the file's metadata."""
        self.architecture = architecture
        super().__init__(message, **facts)


class ModelTooLarge(VendorError):
    """The model does not fit the memory. ``needed_bytes``, ``limit_bytes``, ``parts`` (bytes)."""

    def __init__(
        self,
        message: str,
        *,
        needed_bytes: int,
        limit_bytes: int,
        parts: Mapping[str, int] | None = None,
        **facts: Unpack[VendorFacts],
    ) -> None:
        """``parts`` splits ``needed_bytes`` into weights, kv_cache, compute and so on."""
        self.needed_bytes, self.limit_bytes = needed_bytes, limit_bytes
        self.parts = dict(parts or {})
        super().__init__(message, **facts)


class OutOfMemory(VendorError):
    """The engine ran out of memory while loading or serving."""


class EngineCrashed(VendorError):
    """The engine died. ``signal``: which one ended it, if any; ``tail``: the last of its log."""

    def __init__(
        self,
        message: str,
        *,
        signal: int | None = None,
        tail: str = "",
        **facts: Unpack[VendorFacts],
    ) -> None:
        """``tail`` holds the engine's last words, which often name the cause."""
        self.signal, self.tail = signal, tail
        super().__init__(message, **facts)


class StateUnusable(VendorError):
    """A conversation's state cannot be saved, or not be read back here.

    ``path`` is the file, and ``part`` what is wrong: ``file`` (it cannot be opened or written),
    ``size``, ``format``, ``damage``, or what differs: ``fingerprint``, ``build`` or ``settings``.
    """

    def __init__(
        self, message: str, *, path: str = "", part: str = "", **facts: Unpack[VendorFacts]
    ) -> None:
        """``message`` names the file, says what is wrong with it and the way out."""
        self.path, self.part = path, part
        super().__init__(message, **facts)


class Cancelled(DispatcherError):
    """The caller stopped the request from another thread or task."""

    def __init__(self, message: str = "the request was stopped") -> None:
        super().__init__(message)


class AllVendorsFailed(DispatcherError, ExceptionGroup[DispatcherError]):
    """Every candidate was tried and failed; ``exceptions`` holds one error for each, in order."""

    def __new__(cls, message: str, errors: Sequence[DispatcherError]) -> Self:
        """Make the group; ``message`` already names everything tried."""
        return super().__new__(cls, message, errors)

    def __str__(self) -> str:
        """Return the message alone: it says how many failed, as Python would add again."""
        return self.message

    def derive(self, excs: Sequence[DispatcherError]) -> AllVendorsFailed:  # type: ignore[override]
        """Keep the type when ``except*`` splits the group."""
        return AllVendorsFailed(self.message, excs)

    @classmethod
    def after(cls, errors: Sequence[DispatcherError]) -> Self:
        """Compose the message from the errors of all attempts."""
        told = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
        return cls(f"all {len(errors)} attempts failed ({told})", errors)
