"""Validators and field makers shared by the values. Every refusal is a ``BadRequest``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import attrs

from llmdispatcher.models.errors import BadRequest

T = TypeVar("T")


def words(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept text that can be encoded as UTF-8."""
    if not isinstance(value, str):
        raise BadRequest(field.name, value, "text (str)")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        cut = value[max(0, error.start - 10) : error.end + 10]
        raise BadRequest(field.name, cut, "text without lone surrogates") from None


def title(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept text that is not empty."""
    words(_, field, value)
    if not value:
        raise BadRequest(field.name, value, "a name that is not empty")


def mapping(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept a mapping."""
    if not isinstance(value, Mapping):
        raise BadRequest(field.name, value, "a mapping")


def number(name: str, low: float, high: float, *, default: float | None = None) -> Any:  # noqa: ANN401 - attrs.field is typed so
    """Make an optional number field with bounds (both allowed); NaN is refused."""

    def check(_: object, __: object, value: object) -> None:
        if value is None:
            return
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or math.isnan(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
            raise BadRequest(name, value, f"a number {_between(low, high)}")

    return attrs.field(default=default, validator=check)


def integer(name: str, low: int, high: int, *, default: int | None = None) -> Any:  # noqa: ANN401 - attrs.field is typed so
    """Make an integer field with bounds (both allowed), optional where the default is None."""
    check = whole(name, low, high)
    return attrs.field(
        default=default, validator=attrs.validators.optional(check) if default is None else check
    )


def count(name: str, low: int, high: int, *, default: int) -> Any:  # noqa: ANN401 - attrs.field is typed so
    """Make an integer field with bounds (both allowed), for which None stands for the default."""

    def fill(value: int | None) -> int:
        return default if value is None else value

    return attrs.field(default=default, converter=fill, validator=whole(name, low, high))


def whole(name: str, low: int, high: int) -> Callable[[object, object, object], None]:
    """Make a validator of integers with bounds (both allowed)."""

    def check(_: object, __: object, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadRequest(name, value, f"an integer {_between(low, high)}")

    return check


def instance(kind: type, example: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Make a validator that accepts None and instances of a class, and shows an example of one."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None and not isinstance(value, kind):
            raise BadRequest(field.name, value, f"a {kind.__name__}, such as {example}")

    return check


def one_of(*allowed: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Refuse what is none of these words."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in allowed:
            raise BadRequest(field.name, value, f"one of {', '.join(map(repr, allowed))}")

    return check


def flag(*, default: bool) -> Any:  # noqa: ANN401 - attrs.field is typed so
    """Make a field that is True or False and nothing like them."""

    def check(_: object, field: attrs.Attribute[bool], value: object) -> None:
        if not isinstance(value, bool):
            raise BadRequest(field.name, value, "True or False")

    return attrs.field(default=default, validator=check)


def path_of(name: str, given: str | os.PathLike[str]) -> Path:
    """Return a path; ``~`` is the user's own folder, and ``~mary`` Mary's.

    Raises BadRequest where there is no such user, and for what is no path.
    """
    try:
        return Path(given).expanduser()
    except TypeError:
        raise BadRequest(name, given, "a path") from None
    except RuntimeError:
        way_out = "say the whole path of a file of that name"
        allowed = f"a path; there is no user whose folder is {Path(given).parts[0]}: {way_out}"
        raise BadRequest(name, str(given), allowed) from None


def dollars(value: Decimal | float | str | None) -> Decimal | None:
    """Take ``max_cost_usd``; a float by its shortest decimal form, so that 0.1 is exactly 0.1."""
    if value is None:
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        usd = Decimal(-1)
    if isinstance(value, bool) or not usd.is_finite() or usd < 0:
        raise BadRequest("max_cost_usd", value, "dollars, of at least 0")
    return usd


def as_tuple(name: str, value: Iterable[T] | None) -> tuple[T, ...]:
    """Convert what can be iterated, or None for nothing, to a tuple."""
    if value is not None and not isinstance(value, Iterable):
        raise BadRequest(name, value, "a sequence")
    return tuple(value or ())


def at_most(most: int, what: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Make a validator that accepts a tuple of so many, ``what`` being the word for them."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        count = len(value) if isinstance(value, tuple) else 0
        if count > most:
            raise BadRequest(field.name, f"{count} {what}", f"at most {most} {what}")

    return check


def strings(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept a tuple of texts, none of them empty."""
    for item in value if isinstance(value, tuple) else ():
        words(_, field, item)
        if not item:
            raise BadRequest(field.name, value, "made of non-empty strings")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list them all."""
    import difflib  # noqa: PLC0415 - only for a mistake

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def _between(low: float, high: float) -> str:
    return f"of at least {low}" if high == math.inf else f"from {low} to {high}"
