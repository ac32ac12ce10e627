"""The rule that a reply is held to: what a request's format asks for, checked before it is queued.

Importing this loads neither llama.cpp nor the engine for grammars, so a request that cannot be
served is refused before a model is loaded. Refused is what could not be enforced, and what would
exhaust or crash the engine. ``constraint`` carries a rule out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.vendors.llamacpp.rules import gbnf
from llmdispatcher.vendors.llamacpp.rules.schemas import OPTIONS, enforceable


class Kind(StrEnum):
    """What the text of a rule is written in."""

    SCHEMA = "schema"
    LARK = "lark"
    GBNF = "gbnf"


@attrs.frozen
class Rule:
    """What a reply must be: a JSON schema, a Lark grammar or a GBNF grammar, as text.

    ``source`` of a schema is what ``schemas.enforceable`` makes; that of a Lark grammar is trusted,
    and whoever writes it puts schemas in with ``embedded``.
    """

    kind: Kind
    source: str


ANY_JSON = Rule(Kind.SCHEMA, json.dumps({"x-guidance": OPTIONS, "type": ["object", "array"]}))
"""Any JSON object or array, of any values."""


def rule_of(form: ResponseFormat) -> Rule | None:
    """Return the rule of a reply's format; None for text. Raises InvalidGrammar."""
    match form.shape:
        case Shape.TEXT:
            return None
        case Shape.JSON:
            return ANY_JSON
        case Shape.SCHEMA:
            return Rule(Kind.SCHEMA, enforceable(form.schema))
        case Shape.GRAMMAR:
            gbnf.parse(form.grammar)
            return Rule(Kind.GBNF, form.grammar)


def embedded(schema: Mapping[str, Any]) -> str:
    """Return a schema as a part of a Lark rule: ``call: "[" JSON "]"``. Raises InvalidGrammar."""
    return f"%json {enforceable(schema)}"
