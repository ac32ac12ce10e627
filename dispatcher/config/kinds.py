"""What kind of type a type is. Pure."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any


def is_anything(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether any value will do."""
    return kind is Any or kind is object


def is_union(kind: Any) -> bool:  # noqa: ANN401 - a type
    """Whether it is one of several, None among them or not."""
    return NoneType in typing.get_args(kind) or _origin(kind) in {UnionType, typing.Union}


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


def _origin(kind: Any) -> Any:  # noqa: ANN401 - a type
    return typing.get_origin(kind) or kind
