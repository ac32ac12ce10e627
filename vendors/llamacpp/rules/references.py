"""References between schemas, and between rules: where they lead, how deep, and whether they end.

The engine follows references by recursion, and a stack that overflows ends the process; what never
ends would be written for ever. Both are found here, in time that grows with the number of links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from llmdispatcher.models.errors import InvalidGrammar

MAX_CHAIN = 400
"""Schemas, or rules, that lead one to the next. Each is a step of recursion in the engine, of about
10 KiB of stack: an eighth of what the engine's thread has, and half of what a main thread has."""


def step(place: str, name: str) -> str:
    """Append a name to a JSON pointer (RFC 6901)."""
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


class Links:
    """The schemas in a schema by their places, and what refers to what."""

    def __init__(self) -> None:
        self._schemas: dict[str, Any] = {}
        self._levels: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        self._targets: dict[str, str] = {}

    def add(self, place: str, schema: dict[str, Any] | bool) -> None:  # noqa: FBT001 - JSON
        """Add a schema; those it lies in were added before."""
        parent = place
        while parent:
            parent = parent.rpartition("/")[0]
            if parent in self._schemas:
                break
        self._parents[place] = parent
        self._levels[place] = self._levels[parent] + 1 if place else 0
        self._schemas[place] = schema

    def refer(self, place: str, reference: str) -> None:
        """Add a reference: ``place`` is that of the keyword."""
        parts = [part.replace("~1", "/").replace("~0", "~") for part in reference[1:].split("/")]
        target = "".join(step("", unquote(part)) for part in parts[1:])
        self._targets[place.rpartition("/")[0]] = target

    def check(self) -> None:
        """Refuse references that lead nowhere, too deep, or to what never ends."""
        for place, target in self._targets.items():
            if target not in self._schemas:
                raise InvalidGrammar(
                    f"the schema refers to #{target} at {place}/$ref; there is no schema at that"
                    " place: put it under $defs"
                )
        self._check_depth()
        ending = fixpoint({place: self._needs(place) for place in self._schemas}, self._ends)
        for place, schema in self._schemas.items():
            if place not in ending and schema is not False:
                raise InvalidGrammar(
                    f"no value ever fits the schema at {place or '/'}: what it requires requires"
                    " itself, or is False; let it be left out, or be null"
                )

    def _check_depth(self) -> None:
        owners = {"", *self._targets.values()}
        owner: dict[str, str] = {}
        weights = dict.fromkeys(owners, 1)
        edges: dict[str, list[str]] = {place: [] for place in owners}
        for place, level in self._levels.items():  # a schema comes after those it lies in
            above = owner[self._parents[place]] if place else ""
            owner[place] = mine = place if place in owners else above
            weights[mine] = max(weights[mine], level - self._levels[mine] + 1)
            if mine != above:
                edges[above].append(mine)
            if place in self._targets:
                edges[mine].append(self._targets[place])
        depth = deepest(edges, weights)
        if depth > MAX_CHAIN:
            raise InvalidGrammar(
                f"the schema leads through up to {depth} schemas, one in the other or by $ref;"
                f" the most are {MAX_CHAIN}: divide it, or leave parts of it open"
            )

    def _needs(self, place: str) -> list[str]:
        """List the schemas that decide whether one can end."""
        schema = self._schemas[place]
        if isinstance(schema, bool):
            return []
        listed = [
            f"{place}/{key}/{index}"
            for key in ("allOf", "anyOf", "oneOf", "prefixItems")
            for index in range(len(schema.get(key, ())))
        ]
        named = [step(f"{place}/properties", name) for name in schema.get("properties", ())]
        single = [f"{place}/{k}" for k in ("items", "additionalProperties") if k in schema]
        target = self._targets.get(place)
        return [*listed, *named, *single, *([] if target is None else [target])]

    def _ends(self, place: str, ending: set[str]) -> bool:
        """Whether a value of a schema can be complete, by what is known of other schemas."""
        schema = self._schemas[place]
        if isinstance(schema, bool):
            return schema
        if place in self._targets and self._targets[place] not in ending:
            return False
        for key, enough in (("allOf", all), ("anyOf", any), ("oneOf", any)):
            places = (f"{place}/{key}/{index}" for index in range(len(schema.get(key, ()))))
            if key in schema and not enough(inner in ending for inner in places):
                return False
        kinds = schema.get("type", "null")
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        if "enum" in schema or "const" in schema or kinds - {"array", "object"}:
            return True
        if "object" in kinds and self._object_ends(place, schema, ending):
            return True
        return "array" in kinds and _array_ends(place, schema, ending)

    def _object_ends(self, place: str, schema: dict[str, Any], ending: set[str]) -> bool:
        for name in schema.get("required", ()):
            inner = step(f"{place}/properties", name)
            if name not in schema.get("properties", ()):
                if "patternProperties" in schema or "additionalProperties" not in schema:
                    continue  # the engine looks for a pattern that fits
                inner = f"{place}/additionalProperties"
            if inner not in ending:
                return False
        return True


def _array_ends(place: str, schema: dict[str, Any], ending: set[str]) -> bool:
    least, first = schema.get("minItems", 0), len(schema.get("prefixItems", ()))
    needed = [f"{place}/prefixItems/{index}" for index in range(min(least, first))]
    if least > first and "items" in schema:
        needed.append(f"{place}/items")
    return all(inner in ending for inner in needed)


def fixpoint(
    needs: Mapping[str, Sequence[str]], holds: Callable[[str, set[str]], bool]
) -> set[str]:
    """Return the least set of nodes that hold given the others in it."""
    users: dict[str, list[str]] = {node: [] for node in needs}
    for node, others in needs.items():
        for other in others:
            users[other].append(node)
    found: set[str] = set()
    waiting = list(needs)
    while waiting:
        node = waiting.pop()
        if node not in found and holds(node, found):
            found.add(node)
            waiting += users[node]
    return found


def deepest(edges: Mapping[str, Sequence[str]], weights: Mapping[str, int]) -> int:
    """Return a bound of the weight of every path that visits no node twice.

    Nodes that lead to each other count as one of all their weight, for finding the longest path
    among them has no quick way; the rest is the longest path exactly.
    """
    groups = _groups(edges)
    member = {node: index for index, group in enumerate(groups) for node in group}
    longest: list[int] = []
    for index, group in enumerate(groups):  # the groups that a group leads to come before it
        below = {member[other] for node in group for other in edges[node]} - {index}
        own = sum(weights[node] for node in group)
        longest.append(own + max((longest[other] for other in below), default=0))
    return max(longest, default=0)


def _groups(edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Find the strongly connected components, by Tarjan's algorithm (1972) without recursion."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    groups: list[list[str]] = []

    def enter(node: str) -> tuple[str, Iterator[str]]:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        waiting.add(node)
        return node, iter(edges[node])

    for root in edges:
        path = [] if root in order else [enter(root)]
        while path:
            node, others = path[-1]
            for other in others:
                if other not in order:
                    path.append(enter(other))
                    break
                if other in waiting:
                    lowest[node] = min(lowest[node], order[other])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    group = [stack.pop()]
                    while group[-1] != node:
                        group.append(stack.pop())
                    waiting.difference_update(group)
                    groups.append(group)
    return groups
