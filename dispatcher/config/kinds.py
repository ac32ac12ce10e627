"""What kind of type a type is. Pure."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from llmdispatcher.vendors.http.secret import Secret

_TEXTS = frozenset({str, Path, Secret})
"""Types whose values are written as text."""


def is_anything(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether any value will do."""
    return kind is Any or kind is object


def is_union(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is one of several, None among them or not."""
    return NoneType in typing.get_args(kind) or _origin(kind) in {UnionType, typing.Union}


def is_enum(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is one of several values that have names."""
    return isinstance(kind, type) and issubclass(kind, Enum)


def is_mapping(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is a mapping."""
    origin = _origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_list(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is a sequence, or another thing to iterate over, that is no text."""
    origin = _origin(kind)
    if not isinstance(origin, type) or issubclass(origin, str | bytes | Mapping):
        return False
    return issubclass(origin, Iterable) and not issubclass(origin, os.PathLike)


def takes_text(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether text will do: alone, or as one of several."""
    return any(each in _TEXTS or is_anything(each) for each in _several(kind))


def takes_mapping(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether a mapping will do: alone, or as one of several."""
    return any(is_mapping(each) or is_anything(each) for each in _several(kind))


def is_written(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is made of text, or of texts by name."""
    return takes_text(kind) or takes_mapping(kind)


def _several(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    return typing.get_args(kind) if is_union(kind) else (kind,)


def _origin(kind: Any) -> Any:  # noqa: ANN401 - a type
    return typing.get_origin(kind) or kind
