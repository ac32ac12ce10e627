"""Values on their way between this process and a worker: to JSON, and back with every check.

Requests, pieces, errors and events cross as plain JSON, so that a worker whose native code went
wild, or was taken over by a hostile file, can at worst say something untrue. Nothing is pickled.
What cannot be read back raises ``Garbled``; what cannot be sent is refused with BadRequest.
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cattrs import Converter, override
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.strategies import configure_tagged_union

from llmdispatcher.models import errors
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector, Work
from llmdispatcher.models.errors import BadRequest, DispatcherError
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import Image, Text
from llmdispatcher.models.reply import Delta, Finish, Piece, Progress, Saved, Usage
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

T = TypeVar("T")

WORKS: dict[str, Any] = {kind.__name__: kind for kind in (Request, EmbedRequest, RerankRequest)}
PIECES: dict[str, Any] = {kind.__name__: kind for kind in (Delta, Finish, Progress, Score)}

_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, DispatcherError)
    and kind not in {errors.ConfigError, errors.AllVendorsFailed}
}
"""What a worker may fail with; the two others hold values of their own, and never come from one."""

_FACTS = frozenset(
    [
        "vendor",
        "model",
        "status",
        "request_id",
        "retry_after_s",
        "field",
        "value",
        "allowed",
        "needed_tokens",
        "limit_tokens",
        "feature",
        "reasons",
        "phase",
        "limit_s",
        "partial",
        "path",
        "architecture",
        "needed_bytes",
        "limit_bytes",
        "parts",
        "signal",
        "tail",
        "part",
    ]
)
"""Names of the facts that errors carry; a worker cannot set any other attribute."""


class Garbled(ValueError):
    """A message is not what it must be."""


def encode(message: list[Any]) -> bytes:
    """Return a message as bytes. Raises BadRequest for a value that JSON cannot hold."""
    try:
        return json.dumps(message, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest("request", str(error), "made of what JSON can hold") from None


def decode(data: bytes) -> list[Any]:
    """Read a message: a list that begins with the name of its kind. Raises Garbled."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"not JSON: {error}") from None
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise Garbled("not a list that begins with a name")
    return message


def work_out(work: Work) -> list[Any]:
    """Put a request into plain values."""
    return [type(work).__name__, _converter.unstructure(work)]


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
    kind = type(error) if type(error).__name__ in _ERRORS else errors.VendorError
    facts = {name: _plain(fact) for name, fact in vars(error).items() if name in _FACTS}
    return [kind.__name__, [str(arg) for arg in error.args], facts]


def error_in(values: object) -> DispatcherError:
    """Make an error of plain values. Raises Garbled."""
    match values:
        case [str(name), list(told), dict(facts)] if name in _ERRORS and facts.keys() <= _FACTS:
            kind = _ERRORS[name]
            error = kind.__new__(kind)
            error.args = tuple(str(each) for each in told)
            vars(error).update(facts)
            return error
    raise Garbled("not an error")


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
