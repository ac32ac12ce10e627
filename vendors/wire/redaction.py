"""Makes a stranger's text fit to be shown: one short line without keys and terminal codes. Pure.

``cleaned`` knows keys by their looks, ``blotted`` those that it is given. Neither keeps a text that
is longer than asked for, and both take time in proportion to what they read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

SHOWN_CHARS = 500
"""How much of a vendor's words an error repeats."""

HIDDEN = "[redacted]"
"""Stands where something like a key was."""

MIN_SECRET_CHARS = 4
"""What is shorter is no secret, and blotting it out would make any text unreadable."""

_LOOKED_AT = 4
"""How many times the shown length is looked at: escapes and keys make a text shorter."""

_TAIL_CHARS = 32
"""What is left of a key at the cut of a long text may be too short to be known for one."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,2048}(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]{0,4}[0-~]?"
)
"""Orders to a terminal: colours and the cursor, titles and other texts, the rest."""
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
"""Control characters, and what changes the direction of the text or is not seen at all."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")

_RUN = r"[A-Za-z0-9_\-+/=.~*…•]"
"""What keys are made of, with what vendors put in place of their middle."""

_KEYS = re.compile(
    rf"\b(?:sk|pk|rk|gsk|csk|hf|xai|r8|tgp|tok|key|nvapi|pplx|fw|glpat|gh[opsu]|github_pat|lm)"
    rf"[-_]{_RUN}{{8,}}"
    rf"|\b(?:AIza|AKIA|ASIA|ya29\.|eyJ){_RUN}{{8,}}"
    rf"|\b(?:bearer|basic)\s{{1,4}}(?!token\b|auth\b|key\b){_RUN}{{6,}}",
    re.IGNORECASE,
)
"""Keys by how they begin: those of vendors, of clouds, and JSON web tokens."""

_NAMED = re.compile(
    r"((?:api[-_ ]?key|apikey|key|token|authorization|secret|password|credentials?)"
    r"(?:(?:\s{1,2}[a-z]{1,10}){0,3}[\"'`)\]]?\s{0,2}[:=]\s{0,2}[\"'`(]?"  # "key provided: ..."
    r"|\s{0,2}[\"'`(]|\s))"
    rf"((?=[A-Za-z_\-+/=.~*…•]{{0,64}}[0-9*…•]){_RUN}{{16,}})",
    re.IGNORECASE,
)
"""What follows the word key or its like, is long, and has digits or stars in it."""

_USERS = re.compile(r"(://)[^/@\s]{1,256}@")
_QUERIES = re.compile(r"([?&][a-z_\-]{0,32}(?:key|token|sig|secret)=)[^&\s\"']+", re.IGNORECASE)


def cleaned(text: str, limit_chars: int = SHOWN_CHARS) -> str:
    """Return a text as one line of at most ``limit_chars`` that is safe to print and to log."""
    window = limit_chars * _LOOKED_AT + _TAIL_CHARS
    if len(text) > window:
        text = text[: window - _TAIL_CHARS]
    text = _ESCAPES.sub("", _hidden(text))  # before: an escape may swallow how a key begins
    text = _SURROGATES.sub("\ufffd", _UNSEEN.sub("", text))
    text = _SPACES.sub(" ", text).strip()
    text = _hidden(text)
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 1].rstrip()}…"


def _hidden(text: str) -> str:
    """Return a text without what looks like a key."""
    text = _USERS.sub(rf"\1{HIDDEN}@", text)
    text = _QUERIES.sub(rf"\1{HIDDEN}", text)
    text = _KEYS.sub(HIDDEN, text)
    return _NAMED.sub(rf"\1{HIDDEN}", text)


def blotted(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return what a vendor sent without the secrets that were sent to it, as they are and in JSON.

    A key of any form may be echoed; the place that sends it knows it.
    """
    for secret in secrets:
        if len(secret) < MIN_SECRET_CHARS:
            continue
        for form in {secret, json.dumps(secret)[1:-1]}:
            data = data.replace(form.encode(errors="surrogatepass"), HIDDEN.encode())
    return data
