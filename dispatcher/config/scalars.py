"""What a plain scalar means: the core schema of YAML 1.2, where 1.1 has its traps. Pure.

``yes``, ``no``, ``on`` and ``off`` are text, as are dates, times and numbers with a leading zero or
with ``_``; ``1e3`` is a number. Where such a text stands for what it is not, ``hint`` says so.
"""

from __future__ import annotations

import re

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_OCTAL = re.compile(r"0o[0-7]{1,20}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,40}|(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,3})?"
)
_WORDS: dict[str, object] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    "+.inf": float("inf"),
    ".nan": float("nan"),
}
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def meaning(text: str) -> object:
    """Return what a scalar without quotes stands for."""
    word = text if text in _WORDS else text.lower() if text in _cased(text) else text
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _cased(text: str) -> tuple[str, str]:
    """Return the spellings of a word that YAML takes, beside the small one."""
    return text.upper(), text.capitalize()


def hint(text: object, *, wants: str) -> str:
    """Say what to write instead of a text that YAML 1.1 reads otherwise; nothing if it does not."""
    if not isinstance(text, str):
        return ""
    if wants == "bool":
        word = _SWITCHES.get(text.lower())
        return f"write {word}" if word else ""
    return next((told for looks, told in _NUMBERS if looks.fullmatch(text)), "")


_NUMBERS = (
    (
        re.compile(r"[-+]?0[0-9_]+"),
        "a leading zero means eight to some readers and ten to others: leave it out",
    ),
    (re.compile(r"[-+]?[0-9][0-9_,]*(\.[0-9_]+)?"), "write the digits alone"),
    (
        re.compile(r"[0-9]+(:[0-5][0-9])+(\.[0-9]+)?"),
        "a time of day is no number: write it in the unit of the key",
    ),
    (
        re.compile(r"[$€]\s*[0-9.]+|[0-9.]+\s*[A-Za-z%$€µ]{1,12}"),
        "write the number alone: the unit is in the name of the key",
    ),
)
"""What is meant for a number, by its looks, and how to write it."""
