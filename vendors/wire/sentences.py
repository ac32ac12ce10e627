"""Words by which causes are known that have no name. All data.

Each row is looked for only beside the statuses that vendors use for it, since a message may repeat
what a user wrote. Patterns are bounded, so that a search takes no more than linear time.
"""

from __future__ import annotations

import re

import attrs

from llmdispatcher.vendors.wire.causes import Cause


@attrs.frozen
class Sentence:
    """Words by which a cause is known that has no name."""

    cause: Cause
    pattern: re.Pattern[str]
    statuses: frozenset[int]
    """Where they are looked for; beside a status that is not told, always."""
    unless: frozenset[str] = frozenset()
    """Names of errors that have these words for another reason."""


_REFUSED = frozenset({400, 403, 404, 413, 422, 429})
_FAILED = frozenset({400, 500, 502, 503})


def _sentence(cause: Cause, statuses: frozenset[int], *words: str, unless: str = "") -> Sentence:
    pattern = re.compile("|".join(words), re.IGNORECASE | re.DOTALL)
    return Sentence(cause, pattern, statuses, frozenset(unless.split()))


SENTENCES = (
    _sentence(
        Cause.MONEY,
        _REFUSED | {401, 503},
        r"insufficient (?:balance|credits?|funds)|\binsufficient_quota\b",
        r"credit balance is too low",
        r"prepayment credits? (?:are|is) (?:depleted|exhausted)",
        r"spend(?:ing)? (?:limit|cap)s? (?:has been |was |is )?(?:reached|exceeded)",
        r"(?:reached|exceeded|exceeds) (?:your|the|its) (?:\w{1,20} ){0,3}"
        r"(?:spend|usage|credit) limits?",
        r"budget has been exceeded",
        r"exceeded your monthly included credits",
        r"billing (?:hard limit|details are missing)",
        r"account is not active",
        r"never purchased credits|requires more credits",
        unless="rate_limit_exceeded ramp_limit_exceeded",
    ),
    _sentence(
        Cause.NEVER_FITS,
        frozenset({413, 429}),
        r"request too large for",
    ),
    _sentence(
        Cause.OVERFLOW,
        frozenset({400, 403, 404, 413, 422, 500}),
        r"maximum context length",
        r"exceeds? the (?:model'?s )?(?:available )?context (?:window|length|size)",
        r"(?:longer|greater) than the (?:model'?s )?(?:context length|maximum model length)",
        r"prompt is too long",
        r"context length of only",
        r"exceed context limit",
        r"input tokens exceed the configured limit",
        r"token count.{0,40}exceeds the maximum number of tokens",
        r"request payload size exceeds",
        r"exceed context window of",
        r"contextwindowexceedederror",
        r"tokens? ?`? \+ `?max_new_tokens`? must be <=",
        r"input \(\d{1,12} tokens\) is too large to process",
        r"reduce the length of (?:the|your) (?:messages|prompt|input)",
        r"input is too long for requested model",
        r"max_tokens must be at least 1, got -\d",
        unless="string_above_max_length",
    ),
    _sentence(
        Cause.FILTER,
        frozenset({400, 403, 422, 500}),
        r"content filtering policy",
        r"content management policy",
        r"(?:input|prompt|content|request|messages?) (?:was|were|is|has been) flagged",
        r"violat\w{1,6} our usage polic",
        r"rejected (?:by|as a result of) (?:the|our) safety system",
        r"content exists risk",
        r"^invalid prompt:",
    ),
    _sentence(
        Cause.AUTH,
        frozenset({400, 403, 404, 422}),
        r"api key not valid",
        r"(?:invalid|incorrect|missing|no|expired) api[ -]?key",
        r"api key (?:expired|is (?:invalid|missing|required))",
        r"^no connected db",  # LiteLLM without a database to look a key up in
        r"user location is not supported",
        r"organization has been disabled",
        r"must be a verified organization|must be verified to use",
    ),
    _sentence(
        Cause.MISSING,
        frozenset({400, 403, 422, 500}),
        r"model\b.{0,80}\b(?:not found|does not exist|doesn't exist|not loaded|is not available"
        r"|is not a valid model|has been decommissioned|no longer (?:available|supported))",
        r"is not a valid model id",
        r"no models? loaded",
        r"invalid model(?: name)?\b",
        r"unable to access model|does not have access to (?:the )?model",
        unless="invalid_json_schema",
    ),
    _sentence(
        Cause.CAPACITY,
        frozenset({429, 503}),
        r"no capacity available|tier capacity exceeded|at capacity",
        r"experiencing high demand",
    ),
    _sentence(
        Cause.ENDPOINT,
        frozenset({404, 405}),
        r"^404 page not found$",
        r"^not found$",
        r"^resource not found$",
        r"^file not found$",
        r"^method not allowed$",
        r"invalid url",
        r"unexpected endpoint or method",
        r"cannot (?:get|post) /",
        r"unknown (?:request )?(?:url|endpoint|path)",
    ),
    _sentence(
        Cause.RATE,
        _REFUSED | {500},
        r"rate limit (?:reached|exceeded)",
        r"too many requests",
        unless="server_is_overloaded unavailable_error",
    ),
    _sentence(
        Cause.OVERLOAD,
        _FAILED | {404, 429},
        r"server busy",
        r"(?<!error )loading model|currently loading|model is loading|still loading",
        r"(?:currently|temporarily|service|is|server) (?:overloaded|unavailable|at capacity)",
        r"over capacity|too busy|no healthy upstream",
        r"context size has been exceeded",  # llama-server: all requests together
        unless="rate_limit_exceeded rate_limit_error resource_exhausted",
    ),
    _sentence(
        Cause.MEMORY,
        _FAILED,
        r"out of memory",
        r"more system memory",
        r"bad_alloc|failed to allocate|cudamalloc failed",
        r"insufficient (?:system )?(?:memory|resources)",
    ),
    _sentence(
        Cause.CRASH,
        _FAILED,
        r"runner process has terminated",
        r"(?:runner|model) (?:has )?(?:unexpectedly stopped|crashed|process no longer running)",
        r"the model has crashed",
        r"enginecore encountered|enginedeaderror|engine (?:is|process) dead",
    ),
    _sentence(
        Cause.ARCHITECTURE,
        _FAILED,
        r"unknown model architecture",
        r"unsupported (?:model )?architecture",
    ),
    _sentence(
        Cause.GATEWAY,
        frozenset({500, 502, 503}),
        r"upstream connect error",
        r"bad gateway",
        r"error reading from server: eof",
    ),
    _sentence(
        Cause.LATE,
        frozenset({500, 502, 503}),
        r"(?:request|upstream|gateway|server|generation)[ -]?(?:request )?(?:timed out|time-?out)",
        r"timed out waiting",
        r"context deadline exceeded",
        r"timed out (?:while )?(?:loading|waiting)",
    ),
    _sentence(
        Cause.NO_SCHEMA,
        frozenset({400, 422, 500}),
        r"(?:response_format|json_schema|structured outputs?|output_config)\W.{0,60}"
        r"(?:not|n't) (?:yet )?(?:support|available|allow)",
        r"response_format\W{0,2}type\W{0,2} must be",
    ),
    _sentence(
        Cause.UNSUPPORTED,
        frozenset({404}),
        r"no endpoints found that (?:can handle|support)",  # OpenRouter
    ),
    _sentence(
        Cause.SCHEMA,
        frozenset({400, 422, 500}),
        r"invalid (?:json[ _-]?)?schema",
        r"(?:invalid|unsupported|failed|unable|cannot|could not|error|too complex|too many)"
        r".{0,80}\b(?:json[ _-]?schema|response_?schema|schema|grammar|gbnf|regex)\b",
        r"\b(?:json[ _-]?schema|response_?schema|schema|grammar|gbnf)\b.{0,120}"
        r"\b(?:invalid|not (?:valid|supported|permitted|allowed)|too (?:complex|many|large|deep)"
        r"|required to be|failed|unsupported|cannot|could not)\b",
    ),
    _sentence(
        Cause.UNSUPPORTED,
        frozenset({400, 405, 415, 422, 500}),
        r"(?:not|n't|no longer) (?:yet |currently |be )?(?:support|implement|allowed with)",
        r"\bunsupported\b",
        r"unrecognized request arguments?",
        r"unknown (?:parameter|name|field)",
        r"extra inputs are not permitted",
        r"is deprecated for this model",
        r"not (?:available|enabled) (?:for|with|in) (?:this model|models/)",
        r"only works in",
        r"requires? (?:--)?(?:enable-auto-tool-choice|jinja)",
    ),
)
"""Words of vendors, by cause."""
