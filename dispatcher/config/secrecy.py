"""Secrets of a configuration: what looks like one, and how one is named instead. Pure.

A file holds the *names* of environment variables, never keys. Whatever looks like a key is refused
wherever it stands, and nothing that is said of a file shows it.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from llmdispatcher.vendors.wire.redaction import HIDDEN, cleaned

REFERENCE = re.compile(r"\$\{([^{}]*)\}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_BEGINNINGS = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_\-]{8,}"
    r"|(?:[prc]k|xai|pplx|nvapi|glpat|csk)-[A-Za-z0-9_]{16,}"
    r"|(?:sk|pk|rk|gsk|csk|hf|r8|tgp|fw|gh[opsu]|github_pat)_[A-Za-z0-9_\-]{12,}"
    r"|(?:AIza|AKIA|ASIA|ya29\.|eyJ)[A-Za-z0-9_\-.]{8,})"
)
"""How keys of vendors and of clouds begin, and JSON web tokens."""

_RUN = re.compile(r"[A-Za-z0-9]{24,}|[A-Za-z0-9+/_\-]{40,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Fa-f])[0-9a-fA-F]{32,}(?![0-9A-Fa-f/])")
"""Not a folder of a path: stores of models name them by such sums."""
_PATH = re.compile(r"(?:~|\.{0,2})/[^+=]*/[^+=]*\.[a-z0-9]{1,8}$|[a-z][a-z0-9+.\-]{1,16}://")
"""A file, or an address."""
_BEARER = re.compile(r"\b(?:bearer|basic)\s+[A-Za-z0-9+/_\-.=]{6,}", re.IGNORECASE)

LEAST_BITS = 4.1
"""Of a letter of what was drawn at random, over so long a text; names and paths have fewer."""


def is_key(text: object) -> bool:
    """Whether a text has something in it that looks like a key."""
    if not isinstance(text, str):
        return False
    if _BEGINNINGS.search(text) or _BEARER.search(text):
        return True
    if any(_is_mixed(found.group(), kinds=2) for found in _HEX.finditer(text)):
        return True
    if _PATH.match(text):
        return False
    return any(_is_drawn(found.group()) for found in _RUN.finditer(text))


def is_secret(name: str) -> bool:
    """Whether a key of a mapping says that a secret stands behind it."""
    return _NAMES.search(name.lower()) is not None


_NAMES = re.compile(
    r"(?:^|[_\-])(?:(?:api|access|auth|secret|private)[_\-]?key|token|secret|passw(?:or)?d"
    r"|authorization|credentials?)$|^key$"
)
"""Not keys of caches, and not numbers of tokens."""


def _is_drawn(run: str) -> bool:
    """Whether letters follow each other as if they were drawn."""
    parts = re.split(r"[/_\-+]", run)
    longest = max(parts, key=len)
    if len(longest) < 16:  # noqa: PLR2004 - words of a path or of a model's name are shorter
        return False
    return _is_mixed(run, kinds=3) and _bits(run) >= LEAST_BITS


def _is_mixed(run: str, kinds: int) -> bool:
    found = (any(map(str.isdigit, run)), any(map(str.isupper, run)), any(map(str.islower, run)))
    return sum(found) >= kinds


def _bits(run: str) -> float:
    """Return the entropy of a letter."""
    return -sum(n / len(run) * math.log2(n / len(run)) for n in Counter(run).values())


def safe(text: str) -> str:
    """Return a line of what is said of a file, with whatever looks like a key taken out."""
    words = [HIDDEN if is_key(word) else word for word in re.split(r"(\s+|[\"'`(),;]+)", text)]
    return cleaned("".join(words), MAX_MESSAGE_CHARS)


MAX_MESSAGE_CHARS = 2000
"""Of a problem; long lists of what is known are part of some."""
