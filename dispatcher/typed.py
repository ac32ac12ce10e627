"""From the JSON of a reply to what was asked for.

Owns reading JSON strictly, and making it into a class. Nothing is guessed or mended: a number in
quotes is no number, and a key that is there twice is a mistake. One thing is forgiven, since many
models do it: a single block of JSON between ``` fences, with text around it. cattrs is imported
when the first reply is made into a class.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from llmdispatcher.models.conform import same, shown, wrong
from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.schema import DECIMAL_PATTERN, describes_itself, schema_of

if TYPE_CHECKING:
    from cattrs import Converter

MAX_DIGITS = 1000
"""Of a whole number: the time that Python takes to read one grows with their square."""

MAX_CLASSES = 128
"""What makes values is kept for so many classes, the ones used last."""

SHOWN_CHARS = 200
"""How much of a reply, of the path to a value, and of a class's own words an error shows."""


def parsed(text: str, form: ResponseFormat, *, loose: bool = False) -> Any:  # noqa: ANN401
    """Return the JSON of a reply, as ``form.into`` where that is a class.

    A class is made as ``models.schema.schema_of`` describes it; of a union, the first member that
    fits is made, and 5.0 is a whole number, as JSON schema has it. A plain schema is compared as
    far as ``models.conform`` does: what that leaves out, the engine guarantees for a local model,
    and most vendors for theirs. Without a class, a number that no float can hold is a Decimal.

    ``loose`` also reads a single object with text around it, of a model that nobody holds to JSON.

    Raises BadReply that says where, what was expected and how the reply begins.
    """
    try:
        value = _read(
            _bared(_unfenced(text)) if loose else _unfenced(text),
            real=_real if form.into is None else _float,
        )
        _compare(value, form)
        return value if form.into is None else _maker(form.into).made(value)
    except _Mismatch as error:
        raise _refusal(text, str(error)) from None
    except RecursionError:
        raise _refusal(text, "it is nested too deep") from None


def _compare(value: object, form: ResponseFormat) -> None:
    """Compare with the schema, and with the class's own if another was given with it."""
    schemas = [form.schema] if form.schema else []
    if form.into is not None and form.schema != (own := _maker(form.into).schema):
        schemas.append(own)
    for schema in schemas:
        if found := wrong(value, schema):
            raise _Mismatch(found.where, found.told)


class _Mismatch(ValueError):
    """A value that is not what was asked for."""

    def __init__(self, where: tuple[str | int, ...] | str, told: str) -> None:
        super().__init__(f"at {_path(where)}: {told}")


def _path(where: tuple[str | int, ...] | str) -> str:
    if not isinstance(where, str):
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
        where = "$" + "".join(steps)
    return _cut(where)


def _refusal(text: str, told: str) -> BadReply:
    begun = _cut(" ".join(text[: 2 * SHOWN_CHARS].split()))
    unfit = BadReply(
        f"the reply is not the JSON that was asked for: {told}; ask again, or ask a model that"
        f" keeps to a schema. It begins: {begun or 'no, it is empty'}"
    )
    unfit.is_unfit, unfit.misfit = True, told
    return unfit


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


# -- from text to values -----------------------------------------------------------------------


def _unfenced(text: str) -> str:
    """Return what is between the fences if there is one such block, else the text itself."""
    lines = text.split("\n")  # and nowhere else: a text in the JSON may hold other line ends
    fences = [index for index, line in enumerate(lines) if line.lstrip().startswith("```")]
    if len(fences) != 2:  # noqa: PLR2004 - one opens and one closes
        return text
    first, last = fences
    if lines[first].strip().lower() not in {"```", "```json"} or lines[last].strip() != "```":
        return text
    return "\n".join(lines[first + 1 : last])


def _bared(text: str) -> str:
    """Return the only object in a text; the text itself where there is none, or another brace."""
    begin = text.find("{")
    if begin <= 0 and text.rstrip().endswith("}"):
        return text
    try:
        _, end = json.JSONDecoder().raw_decode(text, max(begin, 0))
    except ValueError:
        return text
    rest = text[end:]
    return text if begin < 0 or "{" in rest or "}" in rest else text[begin:end]


def _read(text: str, *, real: Callable[[str], float | Decimal]) -> Any:  # noqa: ANN401 - JSON
    """Read JSON as RFC 8259 has it, with every key once and numbers that Python can hold."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=real,
            parse_constant=_constant,
        )
        if "\\u" in text:  # only an escape can be half of a character
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _Mismatch(place, f"it is no JSON ({error.msg})") from None
    except UnicodeEncodeError:
        raise _Mismatch("$", "an escape in a text is half of a character") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in made if keys.count(key) > 1)
        raise _Mismatch("an object in it", f"the key {shown(twice)} is there twice")
    return made


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _Mismatch(f"a number of {len(text)} digits", f"{MAX_DIGITS} digits is most")
    return int(text)


def _real(text: str) -> float | Decimal:
    value = float(text)
    return Decimal(text) if math.isinf(value) else value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Mismatch("a number in it", f"{shown(text)} is too large for a float")
    return value


def _constant(name: str) -> float:
    raise _Mismatch("a number in it", f"{name} is no number in JSON")


# -- from values to a class --------------------------------------------------------------------


class _Maker:
    """Makes values of one class, from JSON that its schema allows."""

    def __init__(self, into: Any) -> None:  # noqa: ANN401 - a class
        self.schema = schema_of(into)
        self._into = into
        self._converter = None if describes_itself(into) else _converter()

    def made(self, value: object) -> Any:  # noqa: ANN401 - an instance of the class
        """Make one. What the class's own checks refuse is a mismatch as well."""
        from cattrs import BaseValidationError, transform_error  # noqa: PLC0415 - on first use

        try:
            if self._converter is None:
                return self._into.model_validate(value)
            return self._converter.structure(value, self._into)
        except BaseValidationError as error:
            told, _, path = transform_error(error, format_exception=_told)[0].rpartition(" @ ")
            raise _Mismatch(path, told) from None
        except _REFUSALS as error:  # pydantic's own, or of a class that is one plain value
            raise _Mismatch("$", _told(error, None)) from None


_maker = lru_cache(maxsize=MAX_CLASSES)(_Maker)

_REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError)
"""What Python's own types raise for a value that they do not take."""


def _told(error: BaseException, _: object) -> str:
    """Say why a class does not take a value, on one line."""
    return _cut(" ".join(str(error).split())) or type(error).__name__


def _converter() -> Converter:
    """Make a converter for values that were compared with their schema before."""
    from cattrs import Converter  # noqa: PLC0415 - on first use
    from cattrs.cols import is_namedtuple, namedtuple_dict_structure_factory  # noqa: PLC0415

    converter = Converter(use_alias=True, forbid_extra_keys=True)
    for kind, read in _READERS.items():
        converter.register_structure_hook(kind, _reading(read))
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_factory(_is_choice, _union)
    converter.register_structure_hook_factory(
        is_namedtuple,
        lambda kind, own: namedtuple_dict_structure_factory(kind, own, "from_converter", True),  # noqa: FBT003 - refuses other keys
    )
    return converter


def _reading(read: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: read(value)


def _datetime(text: str) -> datetime:
    if not re.match(r"\S{10}[Tt ]", text):
        raise ValueError(f"{shown(text)} is no date with a time, such as 2026-01-31T12:00:00Z")
    return datetime.fromisoformat(text)


def _decimal(text: str) -> Decimal:
    if not re.fullmatch(DECIMAL_PATTERN, text):
        raise ValueError(f"{shown(text)} is no decimal number, such as -12.50")
    return Decimal(text)


def _nothing(value: None) -> None:
    return value


_READERS: dict[type, Callable[[Any], Any]] = {
    NoneType: _nothing,
    datetime: _datetime,
    date: date.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
    Decimal: _decimal,
}
"""How text becomes a value of these; cattrs knows of the others."""


def _is_literal(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return get_origin(kind) is Literal


def _literal(value: object, kind: object) -> object:
    """Return the argument of Literal that is equal to a value, which may be one of an Enum."""
    for item in get_args(kind):
        if same(value, item.value if isinstance(item, Enum) else item):
            return item
    raise ValueError(f"{shown(value)} is not among {kind}")


def _is_choice(kind: object) -> bool:
    """Whether a type is a union of several beside None."""
    is_union = get_origin(kind) in (Union, UnionType)
    return is_union and len(set(get_args(kind)) - {NoneType}) > 1


def _union(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - a union
    members = [(member, schema_of(member)) for member in get_args(kind)]

    def made(value: object, _: object) -> object:
        """Make the first member that fits; 5 is an int and 5.0 a float, where both are there.

        Only of text is another tried if it is no date after all: to try several for what has parts
        would try all combinations of theirs.
        """
        exact = type(value) if isinstance(value, int | float) else None
        refused: Exception = ValueError(f"{shown(value)} is none of {kind}")
        for member, schema in sorted(members, key=lambda pair: pair[0] is not exact):
            if wrong(value, schema) is None:
                try:
                    return converter.structure(value, member)
                except _REFUSALS as error:
                    if not isinstance(value, str):
                        raise
                    refused = error
        raise refused

    return made
