"""From messages to the text that the model was trained to read: the chat template of the GGUF file.

Templates come from strangers' files, so they are rendered in jinja2's immutable sandbox: no
attribute that starts with an underscore, no change of our values, ``range`` bounded. A model
without a template gets a plain format, and whoever asks is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Message, Role

PLAIN_WARNING = (
    "the model file has no chat template, so a plain 'User: … Assistant:' format was used;"
    " give LlamaCpp(chat_template=…) if the model was trained on another"
)
PLAIN_STOPS = ("\nUser:",)
"""A model that was never taught to end its turn begins the next one: stop there."""


_REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template can raise: its own refusals, and whatever its expressions run into."""


class ChatTemplate:
    """A compiled template. ``warning`` is what to tell the caller about it, if anything."""

    def __init__(self, source: str | None) -> None:
        """Compile ``source``, or take the plain format for None. Raises Unsupported."""
        self.warning = PLAIN_WARNING if source is None else ""
        self.stops = PLAIN_STOPS if source is None else ()
        self._rounds = _Rounds()
        self._template = None if source is None else _compile(source, self._rounds)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        bos: str = "",
        eos: str = "",
    ) -> str:
        """Return the prompt up to where the assistant's next turn begins.

        ``bos`` and ``eos`` are how the model writes the start and the end of a text. Raises
        Unsupported where the template refuses the conversation, as some do for a system message
        or for roles that do not alternate.
        """
        if self._template is None:
            return _plain(messages)
        self._rounds.left = MAX_ROUNDS
        try:
            return self._template.render(
                messages=[_as_dict(message) for message in messages],
                tools=[_tool(tool) for tool in tools] or None,
                add_generation_prompt=True,
                bos_token=bos,
                eos_token=eos,
            )
        except _REFUSALS as error:
            raise Unsupported(
                "messages", f"the model's chat template refuses these messages: {error}"
            ) from error


class _Rounds:
    """Counts the rounds of all loops of one rendering together."""

    def __init__(self) -> None:
        self.left = MAX_ROUNDS

    def bounded(self, items: Iterable[object]) -> Iterator[object]:
        """Pass the items of a loop on while there are rounds left."""
        for item in items:
            self.left -= 1
            if self.left < 0:
                _refuse(f"its loops have more than {MAX_ROUNDS:,} rounds")
            yield item


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, and bounds on the operators that make much out of little in one step.

    One operation on huge numbers holds the interpreter, and with it every thread of the program.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: object, right: object
    ) -> object:
        """Carry an operation out if its result is of bounded size."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            _refuse(f"{operator} on {type(left).__name__} is not available in a template")
        most = MAX_LENGTH if isinstance(left, Sized) or isinstance(right, Sized) else MAX_NUMBER
        if _size(left) * _size(right) > most:
            _refuse(f"the result of {operator} is too large for a template")
        return super().call_binop(context, operator, left, right)


def _size(value: object) -> int:
    """Say how large a number is, or how long a text or list."""
    if isinstance(value, int):
        return abs(value)
    return len(value) if isinstance(value, Sized) else 1


MAX_ROUNDS = 1_000_000
"""Of all loops of one rendering: a quarter of a second, and more than any conversation takes."""
MAX_LENGTH = 10_000_000
"""Of text or a list that is repeated: longer than any context."""
MAX_NUMBER = 10**18
"""More than any counter, time or position comes to."""


def _compile(source: str, rounds: _Rounds) -> jinja2.Template:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    for toy in ("lipsum", "cycler", "joiner"):
        del environment.globals[toy]
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    environment.filters["tojson"] = _to_json
    environment.filters["bounded_rounds"] = rounds.bounded
    try:
        tree = environment.parse(source)
        for loop in tree.find_all(jinja2.nodes.For):
            loop.iter = jinja2.nodes.Filter(loop.iter, "bounded_rounds", [], [], None, None)
        return environment.from_string(tree)
    except (jinja2.TemplateError, RecursionError, MemoryError) as error:
        raise Unsupported(
            "chat_template",
            f"the model's chat template does not compile: {error}; give LlamaCpp(chat_template=…)",
        ) from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(value: object, indent: int | None = None) -> str:
    """Write JSON as models were shown it: without the HTML escapes of jinja2's own filter."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _as_dict(message: Message) -> dict[str, Any]:
    """Write a message in the shape that templates expect, which is that of the OpenAI API."""
    shown: dict[str, Any] = {"role": str(message.role), "content": message.text}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _arguments(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse the arguments of a call, which templates expect as an object, where they are JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def _plain(messages: Sequence[Message]) -> str:
    """Write a conversation as a transcript, which a base model continues."""
    names = {Role.USER: "User: ", Role.ASSISTANT: "Assistant: ", Role.TOOL: "Tool: "}
    turns = [f"{names.get(message.role, '')}{message.text}" for message in messages]
    return "\n".join([*turns, "Assistant:"])
