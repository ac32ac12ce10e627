"""What a reply may be made of: the shape of its text, and the tools that it may call."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llmdispatcher.models.check import mapping, title, words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.schema import schema_of


@attrs.frozen
class ToolSpec:
    """A tool that the model may call; ``parameters`` is a JSON schema of an object."""

    name: str = attrs.field(validator=title)
    description: str = attrs.field(default="", validator=words)
    parameters: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)

    def __attrs_post_init__(self) -> None:
        """Arguments have names."""
        if (kind := self.parameters.get("type", "object")) != "object":
            raise BadRequest("parameters", {"type": kind}, "a JSON schema of type 'object'")

    @classmethod
    def of(cls, value: ToolSpec | Mapping[str, Any]) -> ToolSpec:
        """Take a tool, or the mapping that the OpenAI API uses for one."""
        match value:
            case ToolSpec():
                return value
            case {"function": {"name": name} as function}:
                return cls(
                    name, function.get("description") or "", function.get("parameters") or {}
                )
        allowed = "a ToolSpec('add', 'Adds.'), or {'type': 'function', 'function': {'name': …}}"
        raise BadRequest("tools", value, allowed)


class Shape(StrEnum):
    """The shape that a reply must have."""

    TEXT = "text"
    JSON = "json"
    SCHEMA = "schema"
    GRAMMAR = "grammar"


def _shape(value: Shape | str) -> Shape:
    try:
        return Shape(value)
    except ValueError:
        raise BadRequest("shape", value, f"one of {', '.join(Shape)}") from None


@attrs.frozen
class ResponseFormat:
    """What the reply must look like; ``schema`` and ``grammar`` go with the shape of their name.

    ``into`` is a class that the JSON of the reply is made into, which ``Reply.parsed`` then is.
    """

    shape: Shape = attrs.field(converter=_shape, default=Shape.TEXT)
    schema: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)
    grammar: str = attrs.field(default="", validator=words)
    into: type | None = None

    def __attrs_post_init__(self) -> None:
        """A schema or grammar is there exactly when the shape asks for it."""
        if bool(self.schema) != (self.shape is Shape.SCHEMA):
            raise BadRequest("schema", dict(self.schema), "given exactly when shape is 'schema'")
        if bool(self.grammar) != (self.shape is Shape.GRAMMAR):
            raise BadRequest("grammar", self.grammar, "given exactly when shape is 'grammar'")

    @classmethod
    def of(cls, schema: type | Mapping[str, Any]) -> ResponseFormat:
        """Take a JSON schema, or a class whose fields have types; see ``models.schema``."""
        if isinstance(schema, Mapping) and schema:
            return cls(Shape.SCHEMA, schema)
        given: Any = schema
        if isinstance(given, Mapping | str | bytes | int | float):
            allowed = (
                "a JSON schema (a mapping that is not empty: text goes through json.loads, and for"
                " any JSON take response_format=ResponseFormat('json')), or a class: attrs, a"
                " dataclass, a pydantic model, a TypedDict or a NamedTuple"
            )
            raise BadRequest("schema", schema, allowed)
        return cls(Shape.SCHEMA, schema_of(given), into=given)

    @property
    def is_json(self) -> bool:
        """Whether the reply is JSON."""
        return self.shape in {Shape.JSON, Shape.SCHEMA}
