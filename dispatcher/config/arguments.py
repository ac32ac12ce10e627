"""What may be said of a thing in a file: the arguments of whatever makes it, and their types.

Specs of vendors and policies are attrs classes with validators; what they accept is read from them,
so that nothing is written twice. Pure.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import attrs

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.vendors.http.preset import Preset
from llmdispatcher.vendors.http.secret import Secret
from llmdispatcher.vendors.http.vendor import HttpVendor

_ABSENT = {"httpx2": SimpleNamespace(Client=Any, AsyncClient=Any)}
"""Names that specs import for their types alone."""

_NO_DATA = frozenset({"preset", "client", "async_client", "loopback_only"})
"""Of HTTP vendors: what is an object of the program, or said in another way."""


@attrs.frozen
class Argument:
    """One key that may stand in a file."""

    name: str
    kind: Any
    """Its type."""
    is_required: bool = False
    is_secret: bool = False
    """Never shown: it may hold a key, named by a variable of the environment."""
    is_rest: bool = False
    """Takes all values of a list, as ``*values`` do."""
    field: attrs.Attribute[Any] | None = None
    """The field of an attrs class that it fills."""

    def refusal(self, value: object) -> BadRequest | None:
        """Return why a value cannot stand there, whatever stands beside it; None if it may."""
        if self.field is None:
            return None
        try:
            converter: Any = self.field.converter
            if converter is not None:
                value = converter(value)
            if self.field.validator is not None:
                self.field.validator(None, self.field, value)
        except BadRequest as refused:
            return refused
        except (AttributeError, TypeError, ValueError):
            pass  # it looks at other fields, or takes for granted what is not so
        return None


@attrs.frozen
class Maker:
    """Something that makes a value of keyword arguments."""

    make: Callable[..., Any]
    arguments: Mapping[str, Argument]

    def __call__(self, given: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever it makes
        """Make it. Raises what the maker does."""
        rest = [each for each in self.arguments.values() if each.is_rest and each.name in given]
        listed = [value for each in rest for value in given[each.name]]
        named = {key: value for key, value in given.items() if key not in {r.name for r in rest}}
        return self.make(*listed, **named)


def maker(make: Callable[..., Any]) -> Maker:
    """Return a callable with what it takes."""
    if isinstance(make, Preset):
        fields = of_class(HttpVendor)
        kept = {name: each for name, each in fields.items() if name not in _NO_DATA}
        return Maker(make, {**kept, "name": attrs.evolve(kept["name"], is_required=False)})
    if isinstance(make, type) and attrs.has(make) and not hasattr(make, "__attrs_init__"):
        return Maker(make, of_class(make))
    found = _of_signature(make)
    made = make if found else _made_whole(make)
    if found or made is make:
        return Maker(make, found)
    optional = {name: each for name, each in of_class(type(made)).items() if not each.is_required}
    return Maker(lambda **given: attrs.evolve(make(), **given), optional)


def _made_whole(make: Callable[..., Any]) -> Any:  # noqa: ANN401 - whatever it makes
    """Return what a function without arguments makes, if that can be changed; else the function."""
    made = make()
    return made if attrs.has(type(made)) and not hasattr(type(made), "__attrs_init__") else make


def of_class(kind: type) -> dict[str, Argument]:
    """Return the arguments of an attrs class."""
    hints = _hints(kind)
    return {
        field.name: Argument(
            field.name,
            hints.get(field.name, Any),
            is_required=field.default is attrs.NOTHING,
            is_secret=field.repr is False or _has(hints.get(field.name), Secret),
            field=field,
        )
        for field in attrs.fields(kind)
        if field.init
    }


def _of_signature(make: Callable[..., Any]) -> dict[str, Argument]:
    function = make.__init__ if isinstance(make, type) else make  # type: ignore[misc]
    hints = _hints(function)
    found = {}
    for name, each in inspect.signature(make).parameters.items():
        if each.kind in {each.VAR_KEYWORD, each.POSITIONAL_ONLY}:
            continue
        is_rest = each.kind is each.VAR_POSITIONAL
        kind = hints.get(name, Any)
        found[name] = Argument(
            name,
            list[str] if is_rest else kind,
            is_required=each.default is each.empty and not is_rest,
            is_secret=_has(kind, Secret),
            is_rest=is_rest,
        )
    return found


def _hints(owner: Any) -> dict[str, Any]:  # noqa: ANN401 - a class or a function
    """Return types by name; those of a foreign vendor that cannot be resolved are not known."""
    try:
        return typing.get_type_hints(owner, localns=_ABSENT)
    except (NameError, TypeError, AttributeError):
        return {}


def _has(kind: object, wanted: type) -> bool:
    """Whether a type is one of a union's, or the type itself."""
    return kind is wanted or wanted in typing.get_args(kind)
