"""What a reply may be made of: the shape of its text, and the tools that it may call."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llmdispatcher.models.check import mapping, words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.schema import schema_of


@attrs.frozen
class ToolSpec:
    """A tool that the model may call; ``parameters`` is a JSON schema of an object."""

    name: str = attrs.field(validator=words)
    description: str = attrs.field(default="", validator=words)
    parameters: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)

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


@attrs.frozen
class ResponseFormat:
    """What the reply must look like; ``schema`` and ``grammar`` go with the shape of their name.

    ``into`` is a class that the JSON of the reply is made into, which ``Reply.parsed`` then is.
    """

    shape: Shape = attrs.field(converter=Shape, default=Shape.TEXT)
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
        if isinstance(schema, Mapping):
            return cls(Shape.SCHEMA, schema)
        return cls(Shape.SCHEMA, schema_of(schema), into=schema)

    @property
    def is_json(self) -> bool:
        """Whether the reply is JSON."""
        return self.shape in {Shape.JSON, Shape.SCHEMA}
