"""The filters, tests and operators of chat templates, each of which pays for what it makes.

Those that llama.cpp has, too, are here; others are not. Where jinja2 offers several forms, the
ones that chat templates were written for are meant: those of the transformers library.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sized
from itertools import zip_longest
from typing import Any

from jinja2.environment import Environment
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from llmdispatcher.vendors.llamacpp.templates.effort import (
    BYTES_PER_STEP,
    CALL_STEPS,
    MAX_LENGTH,
    Effort,
    refuse,
)

MAX_NUMBER = 10**18
"""More than any counter, time or position comes to."""
MAX_DIGITS = 1_000
"""Of a number that is read from text: those are read in no time."""
MAX_INDENT = 16
"""Spaces for a level of JSON."""
MAX_SEPARATOR = 16
"""Characters between items of JSON."""
SORTING = 20
"""How often sorting looks at an item: the logarithm of a million."""

SMALL = 4096
"""Characters of a text that is made without a look at what is left: the next round looks."""
CHARACTERS_PER_STEP = BYTES_PER_STEP // 4
"""A character has up to four bytes."""

SEQUENCES: Any = (str, list, tuple)
"""What ``+`` makes longer."""

ADD, JOIN, SLICE, WEIGH, LITERAL, ROUNDS = (
    *("a + b", "a ~ b", "a[b:c]", "a == b", "[a, b]", "for a in b"),
)
"""Names of operators among the filters; no template can write them."""

_PLAIN = ("abs", "count", "first", "float", "items", "last", "length")
_LAZY = ("map", "reject", "rejectattr", "select", "selectattr")
_SORTING = ("dictsort", "max", "min", "sort", "unique")
_WORDS = ("capitalize", "lower", "title", "trim", "upper")
_KINDS = (
    *("boolean", "callable", "defined", "divisibleby", "even", "false", "float", "integer"),
    *("iterable", "mapping", "none", "number", "odd", "sameas", "sequence", "string", "true"),
    "undefined",
)
_COMPARING = (
    *("==", "eq", "equalto", "ne", "in", "lower", "upper"),
    *("ge", "gt", "greaterthan", "le", "lt", "lessthan"),
)

TEXT_METHODS = frozenset(
    {
        *("capitalize", "count", "endswith", "find", "format", "index", "isalnum", "isalpha"),
        *("isdigit", "islower", "isspace", "isupper", "join", "lower", "lstrip", "partition"),
        *("removeprefix", "removesuffix", "replace", "rfind", "rpartition", "rsplit", "rstrip"),
        *("split", "splitlines", "startswith", "strip", "title", "upper"),
    }
)
"""What can be called on a text. Others make much of little, or are of no use here."""
LIST_METHODS = frozenset({"append", "pop"})
"""What can be called on a list that the template has made itself."""
EMPTY: dict[str, Any] = {
    "items": (),
    **dict.fromkeys(("capitalize", "lower", "replace", "strip", "title", "upper"), ""),
}
"""What methods of nothing return, which llama.cpp lets templates call."""


class Made(list[Any]):
    """A list that a template has made, and may change."""


class Filters:
    """The filters, tests and operators of one environment."""

    def __init__(self, environment: Environment, effort: Effort) -> None:
        self._environment, self._effort = environment, effort

    def table(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            **{name: FILTERS[name] for name in _PLAIN},
            **{name: self._lazy(FILTERS[name]) for name in _LAZY},
            **{name: self._weighing(FILTERS[name], SORTING) for name in _SORTING},
            **{name: self._wording(FILTERS[name]) for name in _WORDS},
            "d": _default,
            "default": _default,
            "indent": self._indent,
            "int": self._int,
            "join": self._join,
            "list": self._list,
            "replace": self._replace,
            "reverse": self._reverse,
            "safe": self.text,
            "string": self.text,
            "tojson": self._tojson,
            ADD: self._add,
            JOIN: self._concatenate,
            SLICE: self._slice,
            WEIGH: self._weigh,
            LITERAL: self._literal,
            ROUNDS: self._effort.rounds,
        }

    def tests(self) -> dict[str, Any]:
        """Return the tests by name."""
        kinds: dict[str, Any] = {name: TESTS[name] for name in _KINDS}
        return kinds | {name: self._weighing(TESTS[name], 1) for name in _COMPARING}

    # -- text --------------------------------------------------------------------------------

    def text(self, value: Any) -> str:  # noqa: ANN401 - whatever a template has
        """Write a value as text."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict | list | tuple):
            self._effort.weigh(value)
            return self._effort.made(_written(value))  # type: ignore[no-any-return]
        if not (value is None or isinstance(value, int | float | Undefined)):
            refuse(f"{type(value).__name__} is nothing to write")
        return str(value)

    def concat(self, parts: Iterable[str]) -> str:
        """Put the pieces of a template, a macro or a block together."""
        pieces = list(parts)
        self._effort.reserve(sum(map(len, pieces)))
        return "".join(pieces)

    def change(self, owner: Made, name: str, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Call one of LIST_METHODS."""
        self._effort.spend(1 + len(owner) // BYTES_PER_STEP)
        self._effort.weigh(args)
        return getattr(owner, name)(*args)

    def method(self, owner: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Call one of TEXT_METHODS."""
        if name == "replace":
            return self._replace(owner, *args, **kwargs)
        if name == "join":
            return self._join(args[0], owner)
        if name == "format":
            return self._format(owner, args)
        items = 1 if name in {"split", "rsplit", "splitlines"} else BYTES_PER_STEP
        self._effort.spend(1 + len(owner) // items)
        return self._effort.made(getattr(owner, name)(*args, **kwargs))

    def _concatenate(self, *values: Any) -> str:  # noqa: ANN401 - whatever a template has
        return self.concat(map(self.text, values))

    def _add(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - whatever a template has
        if type(left) is str and type(right) is str:
            length = len(left) + len(right)
            if length < SMALL:
                self._effort.left -= 1 + length // CHARACTERS_PER_STEP
                return left + right
        if isinstance(left, SEQUENCES) and isinstance(right, SEQUENCES):
            self._effort.reserve(len(left) + len(right))
            return self._effort.made(left + right)
        if left is None or isinstance(left, Undefined):
            left, right = right, left
        if isinstance(left, str) and (right is None or isinstance(right, Undefined)):
            return left  # llama.cpp lets what is not there be added to a text
        return left + right

    def multiply(self, left: Any, right: Any) -> None:  # noqa: ANN401 - whatever a template has
        """Pay for ``left * right`` or ``left % right``."""
        sized, times = (left, right) if isinstance(left, Sized) else (right, left)
        if isinstance(sized, Sized):
            self._effort.reserve(len(sized) * _number(times))
            self._effort.spend(self._effort.weigh(sized) * _number(times))
        elif _number(left) * _number(right) > MAX_NUMBER:
            refuse("a product is too large")

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:  # noqa: ANN401
        text, old, new = map(self.text, (value, old, new))
        self._effort.reserve(len(text))
        self._effort.reserve(len(text) + text.count(old) * len(new))
        return self._effort.made(text.replace(old, new, -1 if count is None else count))  # type: ignore[no-any-return]

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        items = self._effort.rounds(value, 1)
        if attribute is not None:
            items = (self._environment.getitem(item, attribute) for item in items)
        texts, between = [self.text(item) for item in items], self.text(d)
        self._effort.reserve(sum(map(len, texts)) + len(between) * len(texts))
        return between.join(texts)

    def _indent(self, value: Any, width: Any = 4, *others: bool, **options: bool) -> str:  # noqa: ANN401
        text = self.text(value)
        size = width if isinstance(width, int) else len(self.text(width))
        self._effort.reserve(len(text) + (1 + text.count("\n")) * max(0, size))
        return self._effort.made(FILTERS["indent"](text, width, *others, **options))  # type: ignore[no-any-return]

    def _format(self, text: str, values: tuple[Any, ...]) -> str:
        """Fill in ``{}``. What else a format can say could ask for any length."""
        pieces = text.split("{}")
        if any("{" in piece or "}" in piece for piece in pieces):
            refuse("a format with more than {} in it is not available")
        if len(values) < len(pieces) - 1:
            refuse("a format has fewer values than {}")
        filled = [self.text(value) for value in values[: len(pieces) - 1]]
        pairs = zip_longest(pieces, filled, fillvalue="")
        return self.concat(part for pair in pairs for part in pair)

    def _tojson(self, value: Any, *args: Any, **options: Any) -> str:  # noqa: ANN401
        """Write JSON as models were shown it: without the HTML escapes of jinja2's own filter."""
        names = ("ensure_ascii", "indent", "separators", "sort_keys")
        options = {"ensure_ascii": False, **dict(zip(names, args, strict=False)), **options}
        steps, indent = self._effort.weigh(value), options.get("indent")
        if indent is not None:
            self._effort.reserve(steps * BYTES_PER_STEP)
            if not isinstance(indent, int) or indent > MAX_INDENT:
                refuse(f"an indent is at most {MAX_INDENT}")
        if any(len(separator) > MAX_SEPARATOR for separator in options.get("separators") or ()):
            refuse(f"a separator of JSON has at most {MAX_SEPARATOR} characters")
        return self._effort.made(json.dumps(value, default=_null, **options))  # type: ignore[no-any-return]

    # -- lists and numbers -------------------------------------------------------------------

    def _list(self, value: Iterable[Any], steps: int = 1) -> list[Any]:
        return self._effort.made(list(self._effort.rounds(value, steps)))  # type: ignore[no-any-return]

    def _reverse(self, value: Any) -> Any:  # noqa: ANN401 - a text or a list
        return value[::-1] if isinstance(value, str) else self._list(value)[::-1]

    def _int(self, value: Any, *args: Any, **options: Any) -> int:  # noqa: ANN401
        if isinstance(value, str) and len(value) > MAX_DIGITS:
            refuse(f"a number has at most {MAX_DIGITS} digits")
        return FILTERS["int"](value, *args, **options)  # type: ignore[no-any-return]

    # -- what is paid beside what is done ----------------------------------------------------

    def _slice(self, value: Any) -> Any:  # noqa: ANN401 - passed on
        """Pay for taking a part of a value."""
        if isinstance(value, Sized):
            self._effort.spend(1 + len(value) // CHARACTERS_PER_STEP)
        return value

    def _weigh(self, value: Any) -> Any:  # noqa: ANN401 - passed on
        """Pay for looking through a value, to compare it or to search it."""
        if not isinstance(value, dict):
            self._effort.weigh(value)
        return value

    def _literal(self, value: Any) -> Any:  # noqa: ANN401 - passed on
        """Pay for a list, tuple or dict, as much as for all that is in it."""
        if type(value) is list:
            value = Made(value)
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        if any(isinstance(part, list | tuple | dict | Namespace) for part in parts):
            self._effort.weigh(value)
        else:
            self._effort.made(value)
        return value

    def _lazy(self, function: Any) -> Callable[..., Any]:  # noqa: ANN401 - jinja2 says no more of it
        @functools.wraps(function)
        def paid(*args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401
            return self._list(function(*args, **kwargs), CALL_STEPS)

        return paid

    def _weighing(self, function: Any, times: int) -> Callable[..., Any]:  # noqa: ANN401 - jinja2 says no more of it
        @functools.wraps(function)
        def paid(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            values = [value for value in args if not isinstance(value, Environment)]
            self._effort.spend(times * self._effort.weigh(values))
            return function(*args, **kwargs)

        return paid

    def _wording(self, function: Any) -> Callable[..., Any]:  # noqa: ANN401 - jinja2 says no more of it
        def paid(value: Any, *args: Any) -> str:  # noqa: ANN401
            text = self.text(value)
            self._effort.spend(1 + len(text) // CHARACTERS_PER_STEP)
            return function(text, *args)  # type: ignore[no-any-return]

        return paid


def _default(value: Any, other: Any = "", boolean: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - as jinja2 has it
    """Return something else for what is not there, or is None."""
    missing = not value if boolean else value is None or isinstance(value, Undefined)
    return other if missing else value


def _written(value: Any) -> str:  # noqa: ANN401 - whatever a template has
    """Write a value as Python does, but for quotes in text, which llama.cpp writes as JSON does."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if "'" in value else f"'{value}'"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(key)}: {_written(value[key])}' for key in value)}}}"
    if isinstance(value, list | tuple):
        items = ", ".join(map(_written, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, int | float | Undefined) or value is None:
        return str(value)
    return refuse(f"{type(value).__name__} is nothing to write")


def _number(value: Any) -> int:  # noqa: ANN401 - whatever a template multiplies with
    """Say how large a number is."""
    return min(abs(int(value)), MAX_LENGTH + MAX_NUMBER) if isinstance(value, int | float) else 1


def _null(value: object) -> None:
    """Write what is not there as null in JSON, as llama.cpp does."""
    if not isinstance(value, Undefined):
        refuse(f"{type(value).__name__} has no form in JSON")
