"""Grammars that make a model call tools: Lark text for llguidance.

A rule forces a call, or lets the model write freely and forces what follows the marker of a call.
Arguments follow the tool's own schema. Pure: the text is made here, and compiled by others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from llmdispatcher.models.errors import InvalidGrammar
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.rules.rules import embedded
from llmdispatcher.vendors.llamacpp.speech.arguments import listed, types_of
from llmdispatcher.vendors.llamacpp.speech.dialect import Head, Speech, Tags
from llmdispatcher.vendors.llamacpp.speech.quoted import QUOTE

TokenOf = Callable[[str], int | None]
"""The id of a control token by its text; None where the vocabulary has none."""

MAX_KNOWN = 1024
"""Schemas whose rules are remembered: each request brings those of all its tools again."""

MAX_ID = 24
"""Letters and digits of an id that a model makes up; as many as ours have."""

_COMMON = r"""
w: WS?
WS: /[ \t\n]{1,8}/
TEXT: /(.|\n)*/
"""


def call_rule(  # noqa: PLR0913 - what decides the grammar, each by name
    speech: Speech,
    tools: Sequence[ToolSpec],
    choice: str,
    *,
    parallel: bool,
    token_of: TokenOf,
    reasons: bool = False,
) -> str | None:
    """Return the Lark text that a reply must follow, or None where nothing is to be enforced.

    ``choice`` is that of ``Request.tool_choice``. ``reasons`` says that the prompt ends inside a
    block of reasoning. "auto" enforces nothing where calls have no marker, as in llama.cpp.
    """
    if choice == "none" or not tools:
        return None
    wanted = [tool for tool in tools if choice in {"auto", "required", tool.name}]
    writer = _Writer(speech, wanted, token_of, parallel=parallel)
    return writer.free(reasons=reasons) if choice == "auto" else writer.forced(reasons=reasons)


def answer_rule(  # noqa: PLR0913 - what decides the grammar, each by name
    speech: Speech,
    rule: str,
    tools: Sequence[ToolSpec] = (),
    *,
    parallel: bool = True,
    token_of: TokenOf,
    reasons: bool = False,
) -> str:
    """Return the Lark text of an answer in JSON, in front of which the model may think.

    ``rule`` is the text of a ``rules.Rule`` of a schema. With tools, calls may come in its place.
    """
    return _Writer(speech, tools, token_of, parallel=parallel).answer(rule, reasons=reasons)


class _Writer:
    """Writes the rules of one grammar."""

    def __init__(
        self, speech: Speech, tools: Sequence[ToolSpec], token_of: TokenOf, *, parallel: bool
    ) -> None:
        self._speech, self._parallel = speech, parallel
        self._tokens = {mark: token_of(mark) for mark in speech.markers}
        self._rules = [self._call(number, tool) for number, tool in enumerate(tools)]
        self._any = " | ".join(f"call{number}" for number in range(len(tools)))

    def forced(self, *, reasons: bool) -> str:
        """Require calls, after reasoning if there is any."""
        return self._text(f"start: {self._reasoning(reasons=reasons)}w calls")

    def answer(self, rule: str, *, reasons: bool) -> str:
        """Require JSON, or calls if there are tools, after reasoning if there is any."""
        begin, head = self._reasoning(reasons=reasons, behind=" w"), ""
        if self._speech.harmony:
            head = self._literal("<|channel|>final<|message|>") + " "
        elif self._speech.recipients:
            head = _quoted("all\n") + " "
        answer = f"answer: {head}%json {rule}"
        if self._any:
            return self._text(f"start: {begin}(answer | calls)\n{answer}")
        return "\n".join([f"start: {begin}answer", answer, *self._rules]) + _COMMON

    def free(self, *, reasons: bool) -> str | None:
        """Let anything be written; once the marker of a call begins, a call must follow."""
        speech = self._speech
        if speech.bare or speech.harmony:
            return None
        if speech.recipients:
            return self._text(
                'start: "all\\n" TEXT | "all\\n" head calls | calls\nhead[lazy]: TEXT ">>>"'
            )
        opener = speech.section[0] or speech.call[0]
        if (token := self._tokens.get(opener)) is not None:
            return self._text(f"start: <[^{token}]>* calls?")
        thought = ""
        if self._special(speech.think[1]):
            thought = self._reasoning(reasons=False)
            if reasons:  # text has no control tokens, so what closes the block is named
                thought = f"(TEXT {self._literal(speech.think[1])})? "
        behind = self._calls().removeprefix(_quoted(opener))
        return self._text(
            f"start: {thought}(TEXT | head {behind})\nhead[lazy]: TEXT {_quoted(opener)}"
        )

    def _text(self, start: str) -> str:
        needed = [f"calls: {self._calls()}", f"one: {self._any}", *self._rules]
        if self._speech.quoted:
            quote = self._literal(QUOTE)
            text = f"{quote} TEXT {quote}" if self._special(QUOTE) else f"{quote} quoted"
            needed += [f"string: {text}", f"quoted[lazy]: TEXT {_quoted(QUOTE)}", _QUOTED]
        return "\n".join([start, *needed]) + _COMMON

    def _special(self, mark: str) -> bool:
        return self._tokens.get(mark) is not None

    def _reasoning(self, *, reasons: bool, behind: str = "") -> str:
        """Write a block of reasoning: the rest of one that was opened, else perhaps one."""
        if self._speech.harmony:
            opener, closer = "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"
        else:
            opener, closer = self._speech.think
        if not closer:
            return ""
        begin = "" if reasons else self._literal(opener) + " "
        text = f"TEXT {self._literal(closer)}"
        if not any(self._special(mark) and mark in closer for mark in self._tokens):
            self._rules.append(f"thought[lazy]: TEXT {_quoted(closer)}")
            text = "thought"
        return f"{begin}{text}{behind} " if reasons else f"(w {begin}{text}{behind})? "

    def _literal(self, text: str) -> str:
        """Write a text with its control tokens; the rest is quoted."""
        special = sorted((m for m in self._tokens if self._special(m)), key=len, reverse=True)
        pattern = "|".join(map(re.escape, special))
        parts = re.split(f"({pattern})", text) if pattern else [text]
        return " ".join(
            f"<[{self._tokens[part]}]>" if part in special else _quoted(part)
            for part in parts
            if part
        )

    # -- what stands around calls ----------------------------------------------------------------

    def _calls(self) -> str:
        """Write all calls of a reply."""
        speech = self._speech
        if speech.harmony:
            return "one"
        if speech.bare:
            return self._bare()
        one, sequel = "one", "w one"
        if speech.recipients:
            sequel = f"{_quoted(speech.call[0])} one"
        elif speech.call[0] and not speech.json_list:
            begin, end = map(self._literal, speech.call)
            one = f"{begin} w one w {end}"
            sequel = f"w {one}"
        if speech.json_list or speech.pythonic:
            one = self._listed()
            if any(speech.call):
                one = " w ".join(
                    (self._literal(speech.call[0]), one, self._literal(speech.call[1]))
                )
        elif self._parallel:
            one = f"{one} ({sequel})*"
        begin, end = map(self._literal, speech.section)
        return f"{begin} w {one} w {end}" if begin else one

    def _listed(self) -> str:
        """Write a list of calls, which JSON and Python write alike."""
        calls = 'one (w "," w one)*' if self._parallel else "one"
        return f'"[" w {calls} w "]"'

    def _bare(self) -> str:
        if not self._speech.json_list:
            return "one"
        return f'"{{" w "\\"tool_calls\\"" w ":" w {self._listed()} w "}}"'

    # -- one call --------------------------------------------------------------------------------

    def _call(self, number: int, tool: ToolSpec) -> str:
        """Write the rule of a call of one tool."""
        speech, schema = self._speech, schema_for(tool)
        head = speech.head
        if speech.harmony:
            written = f"<|channel|>commentary to=functions.{tool.name} <|constrain|>json<|message|>"
            body = f"{self._literal(written)} {_arguments(schema)}"
        elif speech.pythonic and not speech.bare:
            body = f"{_quoted(tool.name)} {self._python(schema)}"
        elif head and speech.tags:
            return self._tagged(number, tool, head, speech.tags)
        elif head and speech.quoted:
            body = f"{self._head(head, tool)} dict"
        elif head:
            end = _FENCE if "```" in speech.closers else ""
            body = f"{self._head(head, tool)} {_arguments(schema)}{end}"
        else:
            body = self._object(tool.name, schema)
        return f"call{number}: {body}"

    def _head(self, head: Head, tool: ToolSpec) -> str:
        before, has_id, behind = head.write.partition("{id}")
        written = [self._literal(before.replace("{name}", tool.name))]
        if has_id:
            length = self._speech.id_length
            written.append(f"/[a-zA-Z0-9]{{{length or 1},{length or MAX_ID}}}/")
        return " ".join([*written, self._literal(behind.replace("{name}", tool.name))])

    def _object(self, name: str, schema: Mapping[str, Any]) -> str:
        """Write a call as a JSON object."""
        speech = self._speech
        arguments = _arguments(schema)
        if speech.name_key:
            return _members([(name, arguments)])
        keys = speech.json_keys
        members = [(keys[0], _quoted(_json(name))), (keys[1], arguments)]
        if speech.id_key:
            form = r'/"[a-zA-Z0-9]{9}"/' if speech.id_length else f'/"[a-zA-Z0-9]{{1,{MAX_ID}}}"/'
            members.insert(len(members) if speech.late_id else 0, (speech.id_key, form))
        return _members(members)

    def _tagged(self, number: int, tool: ToolSpec, head: Head, tags: Tags) -> str:
        """Write a call whose parameters have tags: the required in order, then others."""
        schema = schema_for(tool)
        properties, required = _parameters(schema)
        rules: list[str] = []
        needed: list[str] = []
        others: list[str] = []
        for place, (key, told) in enumerate(properties.items()):
            name = f"call{number}_{place}"
            rules += self._parameter(name, (key, told), schema, tags)
            (needed if key in required else others).append(name)
        parts = [self._head(head, tool), *needed]
        parts += [f"({' | '.join(others)})*"] if others else []
        parts += ["w", self._literal(tags.end)] if tags.end else []
        return "\n".join([f"call{number}: {' '.join(parts)}", *rules])

    def _parameter(
        self, name: str, parameter: tuple[str, object], schema: Mapping[str, Any], tags: Tags
    ) -> list[str]:
        """Write the rules of one parameter, given by its key and its own schema."""
        key, value = parameter
        told = value if isinstance(value, Mapping) else {}
        types = types_of(told, schema)
        free = not types or "string" in types
        written = tags.write.format(key=key, value="\0", string=_json(free), w="\1")
        before, _, behind = written.partition("\0")
        begin = f"{name}: {self._spaced(before)} "
        if not free:
            shared = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
            return [f"{begin}{_arguments({**shared, **told})} {self._spaced(behind)}"]
        options = listed(told.get("enum")) or ([told["const"]] if "const" in told else [])
        if options and all(isinstance(option, str) for option in options):
            choice = " | ".join(_quoted(option) or '""' for option in options)
            return [f"{begin}({choice}) {self._spaced(behind)}"]
        close = tags.value[1]
        if self._special(close):
            return [f"{begin}TEXT {self._spaced(behind[behind.index(close) :])}"]
        ended, _, rest = behind.partition("\1")
        text = f"{name}_v[lazy]: TEXT {_quoted(ended)}"
        return [f"{begin}{name}_v {self._spaced(chr(1) + rest)}", text]

    def _spaced(self, text: str) -> str:
        """Write a text in which white space may stand at every control character 1."""
        return " w ".join(self._literal(part) for part in text.split("\1"))

    def _python(self, schema: Mapping[str, Any]) -> str:
        """Write arguments as in Python, with values as in JSON, which readers of these take too."""
        properties, required = _parameters(schema)
        shared = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
        needed: list[str] = []
        others: list[str] = []
        for key, told in properties.items():
            value = {**shared, **told} if isinstance(told, Mapping) else {}
            form = _arguments(value)
            if value.get("type") == "string" and not value.keys() - _TOLD:
                form = f"({form} | /'([^'\\\\\\n]|\\\\.)*'/)"
            told_by = f"{_quoted(key + '=')} {form}"
            (needed if key in required else others).append(told_by)
        first = ' "," w '.join(needed)
        choice = " | ".join(f"({other})" for other in others)
        if not others:
            body = first
        elif needed:
            body = f'{first} ("," w ({choice}))*'
        else:
            body = f'(({choice}) ("," w ({choice}))*)?'
        return f'"(" {body} ")"'


_TOLD = {"type", "description", "title", "default", "examples"}
"""Keys of a schema under which any string is a value."""

_QUOTED = r"""
dict: "{" (pair ("," pair)*)? "}"
pair: /[^:{}\[\],\s]+/ ":" value
list: "[" (value ("," value)*)? "]"
value: string | dict | list | /-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?/ | /true|false|null/
""".strip()
"""Arguments as Gemma 4 writes them, whatever the schema: llama.cpp enforces no more either."""


def _parameters(schema: Mapping[str, Any]) -> tuple[dict[str, object], set[str]]:
    """Return the parameters that a schema names, and those that are required."""
    named = schema.get("properties")
    named = named if isinstance(named, Mapping) else {}
    required = {key for key in listed(schema.get("required")) if isinstance(key, str)}
    return {key: told for key, told in named.items() if isinstance(key, str)}, required


_FENCE = ' "\\n```"'


def _arguments(schema: Mapping[str, Any]) -> str:
    """Write the rule of a JSON value; of a schema that cannot be enforced, any value.

    A tool is often somebody else's, so its schema is no reason to refuse a request.
    """
    return _enforced(_json(schema))[0]


@lru_cache(maxsize=MAX_KNOWN)
def _enforced(text: str) -> tuple[str, str]:
    """Return the rule of a schema, and why it is not the whole schema's if that is so."""
    schema = json.loads(text)
    try:
        return embedded(schema), ""
    except InvalidGrammar as error:
        any_value = {"type": "object"} if schema.get("type") == "object" else {}
        return embedded(any_value), str(error)


def unenforced(tools: Sequence[ToolSpec]) -> list[str]:
    """Say of which tools the arguments are not held to their schema, and why."""
    whys = {tool.name: _enforced(_json(schema_for(tool)))[1] for tool in tools}
    return [
        f"the arguments of {name!r} may be any JSON object: {why}"
        for name, why in whys.items()
        if why
    ]


def schema_for(tool: ToolSpec) -> dict[str, Any]:
    """Return the schema of a tool's arguments: no others than it names, unless it says so.

    A tool without parameters takes none.
    """
    schema = {"type": "object", "properties": {}, **tool.parameters}
    if not ({"additionalProperties", "$ref", "anyOf", "oneOf", "allOf"} & schema.keys()):
        schema["additionalProperties"] = False
    return schema


def _members(members: list[tuple[str, str]]) -> str:
    """Write a JSON object with these members in this order."""
    inner = ' w "," w '.join(f'{_quoted(_json(key))} w ":" w {value}' for key, value in members)
    return f'"{{" w {inner} w "}}"'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)


def _quoted(text: str) -> str:
    """Write a text as a Lark string; nothing where it is empty."""
    return json.dumps(text, ensure_ascii=False) if text else ""
