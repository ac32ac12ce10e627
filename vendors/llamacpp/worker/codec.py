"""Values on their way between this process and a worker: to JSON, and back with every check.

Requests, pieces, errors and events cross as plain JSON, so that a worker whose native code went
wild, or was taken over by a hostile file, can at worst say something untrue. Nothing is pickled.
What cannot be read back raises ``Garbled``; what cannot be sent is refused with BadRequest.
"""

from __future__ import annotations

import json
import math
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from cattrs import Converter, override
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.strategies import configure_tagged_union

from llmdispatcher.models import errors
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector, Work
from llmdispatcher.models.errors import BadRequest, DispatcherError, OutOfMemory, VendorFacts
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import Image, Text
from llmdispatcher.models.reply import Delta, Finish, Piece, Progress, Saved, Usage
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

T = TypeVar("T")

WORKS: dict[str, Any] = {kind.__name__: kind for kind in (Request, EmbedRequest, RerankRequest)}
PIECES: dict[str, Any] = {kind.__name__: kind for kind in (Delta, Finish, Progress, Score)}


def _is_text(fact: object) -> bool:
    return isinstance(fact, str)


def _is_count(fact: object) -> bool:
    return type(fact) is int and 0 <= fact < 2**63


def _is_time(fact: object) -> bool:
    return type(fact) in {int, float} and 0 <= fact < math.inf  # type: ignore[operator]


def _is_table(fact: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(fact, dict) and all(map(fits, fact.values()))


_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, DispatcherError)
    and kind not in {errors.ConfigError, errors.AllVendorsFailed}
}
"""What a worker may fail with; the two others hold values of their own, and never come from one."""

_FACTS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(["vendor", "model", "field", "allowed", "feature", "phase"], _is_text),
    **dict.fromkeys(["partial", "path", "architecture", "tail", "part"], _is_text),
    **dict.fromkeys(["needed_tokens", "limit_tokens", "needed_bytes", "limit_bytes"], _is_count),
    "limit_s": _is_time,
    **dict.fromkeys(["status", "signal"], lambda fact: fact is None or _is_count(fact)),
    "retry_after_s": lambda fact: fact is None or _is_time(fact),
    "request_id": lambda fact: fact is None or _is_text(fact),
    "value": lambda _: True,
    "reasons": lambda fact: _is_table(fact, _is_text),
    "parts": lambda fact: _is_table(fact, _is_count),
}
"""The facts that errors carry, and what each may be; a worker cannot set any other attribute."""

MAX_TOLD_CHARS = 64 * 1024
"""Of a text in an error: as much as is kept of a log."""

_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\ufffd")
"""All but the tab and the end of a line: a terminal would obey them."""


class Garbled(ValueError):
    """A message is not what it must be."""


def encode(message: list[Any]) -> bytes:
    """Return a message as bytes. Raises BadRequest for a value that JSON cannot hold."""
    return _holdable(lambda: json.dumps(message, separators=(",", ":")).encode("ascii"))


def decode(data: bytes) -> list[Any]:
    """Read a message: a list that begins with the name of its kind. Raises Garbled."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"not JSON: {error}") from None
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise Garbled("not a list that begins with a name")
    return message


def too_long(size_bytes: int, limit_bytes: int) -> BadRequest:
    """Return the error of a message that is longer than any may be."""
    return BadRequest("request", f"{size_bytes} bytes", f"of at most {limit_bytes} bytes")


def work_out(work: Work) -> list[Any]:
    """Put a request into plain values. Raises BadRequest where that cannot be."""
    return [type(work).__name__, _holdable(lambda: _converter.unstructure(work))]


def work_in(name: object, values: object) -> Work:
    """Make a request of plain values. Raises Garbled."""
    work: Work = _checked(lambda: _converter.structure(values, WORKS[str(name)]))
    return work


def piece_out(piece: Piece) -> list[Any]:
    """Put a piece into plain values; most are text of the first choice, and nothing else."""
    if isinstance(piece, Vector):  # numbers as they lie in memory: both ends are one machine
        data = b64encode(piece.values.tobytes()).decode("ascii")
        return ["Vector", piece.index, data]
    values = _converter.unstructure(piece)
    if type(piece) is Delta and values.keys() == {"text"}:
        return [piece.text]
    return [type(piece).__name__, values]


def piece_in(values: list[Any]) -> Piece:
    """Make a piece of plain values. Raises Garbled."""
    match values:
        case [str(text)]:
            return Delta(text)
        case ["Vector", int(index), str(data)]:
            return _checked(lambda: _vector(index, data))
        case [str(name), dict(fields)]:
            piece: Piece = _checked(lambda: _converter.structure(fields, PIECES[name]))
            return piece
    raise Garbled("not a piece of a reply")


def error_out(error: DispatcherError) -> list[Any]:
    """Put an error into plain values: its class, what it says, and its facts."""
    kind = type(error)
    if _ERRORS.get(kind.__name__) is not kind:
        return error_out(errors.VendorError(str(error)))
    facts = {name: _plain(getattr(error, name)) for name in _facts_of(kind.__name__)}
    return [kind.__name__, [str(arg) for arg in error.args], facts]


def error_in(values: object) -> DispatcherError:
    """Make an error of plain values. Raises Garbled."""
    match values:
        case [str(name), list(told), dict(facts)] if name in _ERRORS:
            kind = _ERRORS[name]
            if facts.keys() != _facts_of(name):
                raise Garbled(f"not the facts of {name}")
            if wrong := [fact for fact, value in facts.items() if not _FACTS[fact](value)]:
                raise Garbled(f"{wrong[0]} of {name} is of the wrong kind")
            error = kind.__new__(kind)
            error.args = tuple(_shown(str(each)) for each in told)
            vars(error).update((fact, _shown(value)) for fact, value in facts.items())
            return error
    raise Garbled("not an error")


@cache
def _facts_of(name: str) -> frozenset[str]:
    """Return the facts that an error of this name has: what it is made of beside its message."""
    kind = _ERRORS[name]
    made = [vars(base)["__init__"] for base in kind.__mro__[:-1] if "__init__" in vars(base)]
    ours = [each for each in made if isinstance(each, FunctionType)]  # not those of Exception
    named = {parameter for each in ours for parameter in signature(each).parameters}
    named -= {"self", "message", "facts"}
    if issubclass(kind, errors.VendorError):
        named |= VendorFacts.__annotations__.keys()
    return frozenset(named)


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return a text as a person may be shown it, and other values as they are."""
    if isinstance(value, dict):
        return {_shown(name): _shown(each) for name, each in value.items()}
    return value[:MAX_TOLD_CHARS].translate(_CONTROLS) if isinstance(value, str) else value


def usage_out(usage: Usage) -> dict[str, Any]:
    """Put a count of tokens into plain values."""
    counts: dict[str, Any] = _converter.unstructure(usage)
    return counts


def usage_in(values: object) -> Usage:
    """Make a count of tokens of plain values. Raises Garbled."""
    return _checked(lambda: _converter.structure(values, Usage))


def saved_out(saved: Saved) -> dict[str, Any]:
    """Put the account of a saved state into plain values."""
    account: dict[str, Any] = _converter.unstructure(saved)
    return account


def saved_in(values: object) -> Saved:
    """Make the account of a saved state of plain values. Raises Garbled."""
    return _checked(lambda: _converter.structure(values, Saved))


def spec_out(spec: LlamaCpp) -> dict[str, Any]:
    """Put what is to be loaded into plain values."""
    fields: dict[str, Any] = _converter.unstructure(spec)
    return fields


def spec_in(values: object) -> LlamaCpp:
    """Make what is to be loaded of plain values. Raises Garbled."""
    return _checked(lambda: _converter.structure(values, LlamaCpp))


def _checked(make: Callable[[], T]) -> T:
    """Make a value. Whatever its parts object to is one error here."""
    try:
        return make()
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise Garbled(f"{type(error).__name__}: {error}") from None
    except (ForbiddenExtraKeysError, OverflowError) as error:
        raise Garbled(str(error)) from None
    except DispatcherError as error:
        raise Garbled(str(error)) from None


def _holdable(write: Callable[[], T]) -> T:
    """Write a caller's values, which may be of any kind, hold themselves, or change meanwhile."""
    try:
        return write()
    except MemoryError:
        raise OutOfMemory("there was no memory left to hand the request to the worker") from None
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise BadRequest("request", str(error), "made of what JSON can hold") from None


def _plain(fact: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return a fact as JSON can hold it; of anything else, what it says of itself."""
    if fact is None or isinstance(fact, bool | int | float | str):
        return fact
    if isinstance(fact, Mapping):
        return {str(name): _plain(each) for name, each in fact.items()}
    return repr(fact)


def _bytes(values: Any, _: object) -> bytes:  # noqa: ANN401 - it comes from outside
    return b64decode(values, validate=True)


def _vector(index: int, data: str) -> Vector:
    return Vector(index, array("f", b64decode(data, validate=True)))


def _made() -> Converter:
    """Return what knows how every value is written."""
    made = Converter(omit_if_default=True, forbid_extra_keys=True, detailed_validation=False)
    made.register_unstructure_hook(bytes, lambda data: b64encode(data).decode("ascii"))
    made.register_structure_hook(bytes, _bytes)
    made.register_unstructure_hook(Path, str)
    made.register_structure_hook(Path, lambda text, _: Path(text))
    configure_tagged_union(Text | Image, made)
    for kind, left_out in ((ResponseFormat, "into"), (LlamaCpp, "price")):
        omit: Any = {left_out: override(omit=True)}  # the parent's own to read
        made.register_unstructure_hook(kind, make_dict_unstructure_fn(kind, made, **omit))
        made.register_structure_hook(kind, make_dict_structure_fn(kind, made, **omit))
    made.register_structure_hook(
        Request,
        make_dict_structure_fn(
            Request, made, adapters=override(struct_hook=lambda pairs, _: dict(pairs))
        ),
    )
    return made


_converter = _made()
