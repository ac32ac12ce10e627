"""Values of a configuration file that know where they stand, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from llmdispatcher.config.secrecy import safe
from llmdispatcher.models.errors import ConfigError, Problem


@attrs.frozen(eq=False)
class Node:
    """A value: text, a number, true or false, nothing, a list of nodes, or nodes by key."""

    value: Any
    file: str = ""
    line: int = 1
    column: int = 1
    path: str = ""
    """Its keys from the top: ``vendors.fast.models[0]``."""
    text: str = ""
    """A plain scalar as it was written."""
    key_place: tuple[int, int] | None = None
    """Line and column of its key."""
    is_plain: bool = False
    """A scalar without quotes, whose kind its looks tell."""

    @property
    def items(self) -> Mapping[str, Node]:
        """Its values by key; none where it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, key: str) -> Node | None:
        """Return the value of a key; None where it is not there, or says nothing."""
        found = self.items.get(key)
        return None if found is None or found.value is None else found

    def without(self, *keys: str) -> Node:
        """Return it without some keys."""
        left = {key: node for key, node in self.items.items() if key not in keys}
        return attrs.evolve(self, value=left)

    def all(self) -> Iterator[Node]:
        """Walk through it and all within it."""
        yield self
        for each in self.value if isinstance(self.value, list) else self.items.values():
            yield from each.all()

    def bare(self) -> Any:  # noqa: ANN401 - what was written
        """Return the value without its place, all the way down."""
        if isinstance(self.value, dict):
            return {key: node.bare() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.bare() for node in self.value]
        return self.value


def overlaid(under: Node, over: Node) -> Node:
    """Lay one mapping over another: what is said above wins, key by key, all the way down."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return under if over.value is None else over
    merged = dict(under.value)
    for key, node in over.value.items():
        merged[key] = overlaid(merged[key], node) if key in merged else node
    return attrs.evolve(over, value=merged)


class Notes:
    """What was found out about a file: its problems, and what is only worth a word."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.hints: list[Problem] = []

    def wrong(self, node: Node, message: str, *, at_key: bool = False) -> None:
        """Note a problem where a value stands, or where its key does."""
        self.problems.append(_problem(node, message, at_key=at_key))

    def hint(self, node: Node, message: str) -> None:
        """Note what may be meant so, and may not."""
        self.hints.append(_problem(node, message, at_key=False))

    def whole(self, message: str, line: int | None = None, column: int | None = None) -> None:
        """Note a problem of the file as a whole, or of its form at some place."""
        self.problems.append(Problem(safe(message), "", self.file, line, column))

    def end(self) -> None:
        """Raise ConfigError with every problem, in the order of the file, if there is one."""
        if self.problems:
            raise ConfigError(ordered(self.problems))


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems in the order of the file, each once."""
    return sorted(dict.fromkeys(problems), key=lambda each: (each.line or 0, each.column or 0))


def _problem(node: Node, message: str, *, at_key: bool) -> Problem:
    line, column = (node.line, node.column)
    if at_key and node.key_place is not None:
        line, column = node.key_place
    path = node.path if len(node.path) <= MAX_PATH_CHARS else f"{node.path[:MAX_PATH_CHARS]}…"
    return Problem(safe(message), safe(path), node.file, line, column)


MAX_PATH_CHARS = 120
"""Of a path as a problem shows it; those of files that mean something are shorter."""
