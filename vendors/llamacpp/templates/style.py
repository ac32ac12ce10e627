"""One chat template, compiled, and what it understands, which is found by trying it.

No template is known by its name: short conversations with a mark in one place are rendered, and
where the mark comes out tells what the template does with it. llama.cpp finds out the same in
``common/jinja/caps.cpp`` and ``common/chat-diff-analyzer.cpp``.
"""

from __future__ import annotations

from typing import Any

import attrs

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.vendors.llamacpp.templates.effort import MAX_TOLD
from llmdispatcher.vendors.llamacpp.templates.sandbox import REFUSALS, Sandbox

Turn = dict[str, Any]
"""A message as templates get it: the shape is that of the OpenAI API."""

MARK, THOUGHT = "MARKqkzx", "THOUGHTqkzx"
"""Words that no template writes of its own."""

THOUGHT_BLOCK = "block"
THOUGHT_FIELDS = ("reasoning_content", "thinking", THOUGHT_BLOCK)
"""Where templates look for what an assistant thought: in a field, or in a part of the content."""
USUAL_TAGS = ("<think>", "</think>")
"""What is put around a thought where a template shows none but names these."""

KEPT = {
    "preserve_thinking": True,
    "clear_thinking": False,
    "drop_thinking": False,
    "truncate_history_thinking": False,
}
"""What templates ask before they show thoughts of earlier turns; llama-server keeps them."""


@attrs.frozen
class Opening:
    """What a template writes before, inside and after an assistant's turn."""

    start: str
    """From the end of the turn before to the thought, or to the text where there is none."""
    between: str = ""
    """From the thought to the text."""
    end: str = ""
    """After the text."""
    prompt: str = ""
    """What asks for a turn."""
    thinks: bool = attrs.field(default=False, kw_only=True)
    """Whether there is a place for a thought."""


class Style:
    """A compiled template; its fields say what it understands."""

    def __init__(self, source: str) -> None:
        """Compile and try it. Raises Unsupported where it does not compile."""
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.compile_bounded(source)
        except REFUSALS as error:
            raise Unsupported(
                "chat_template",
                f"the model's chat template does not compile: {str(error)[:MAX_TOLD]};"
                " give LlamaCpp(chat_template=…)",
            ) from error
        user = turn("user", "U")
        self.string_content = MARK in self._try(turn("user", MARK))
        parts = [{"type": "text", "text": MARK, "other": THOUGHT}]
        shown = self._try(turn("user", parts))
        self.typed_content = MARK in shown and THOUGHT not in shown
        self.system_role = MARK in self._try(turn("system", MARK), user)
        self._try_tools()
        self.thought_field = self._find_thoughts()
        self.tells_beside_calls = self._find_thoughts_beside()
        self.opening = self._find_opening(source)
        on, off = (self._asked(thinking=thinking) for thinking in (True, False))
        self.takes_reasoning = on != off
        prompts = {self._prompt(thinking=thinking) for thinking in (True, False)}
        empty_thought = on != off and off.startswith(on)
        self.thinks = self.opening.thinks or len(prompts) > 1 or empty_thought

    def render(self, context: dict[str, Any]) -> str:
        """Render. Raises Unsupported where the template refuses."""
        self._sandbox.effort.refill(sum(map(_length, context["messages"])))
        try:
            return self._template.render(context)
        except REFUSALS as error:
            raise Unsupported(
                "messages",
                f"the model's chat template refuses these messages: {str(error)[:MAX_TOLD]}",
            ) from error

    def _try(self, *turns: Turn, prompt: bool = True, **context: Any) -> str:  # noqa: ANN401
        """Render a conversation; nothing where it is refused. All trials share one effort."""
        shown = {"bos_token": "", "eos_token": "", "enable_thinking": True, **KEPT, **context}
        if prompt:
            shown["add_generation_prompt"] = True
        try:
            return self._template.render(messages=list(turns), **shown)
        except REFUSALS:
            return ""

    def _try_tools(self) -> None:
        """Find out what the template does with tools, calls of them and their results."""
        user, answered = turn("user", "U"), turn("assistant", "A")
        tools = [_tool(MARK)]

        def asked(arguments: object, role: str = "tool", **fields: object) -> str:
            call = {**called(arguments), **fields}
            result = turn(role, "R", tool_call_id=CALL_ID)
            return self._try(user, call, result, answered, user, tools=tools)

        shown, simple = asked({"arg": THOUGHT}), {"arg": "x"}
        self.object_arguments = THOUGHT in shown and f"'arg': '{THOUGHT}'" not in shown
        self.takes_tools = MARK in shown or MARK in self._try(user, tools=tools)
        responses = [{"name": "tool1", "response": THOUGHT}]
        self.tool_responses = THOUGHT in asked(simple, tool_responses=responses)
        if self.tool_responses:  # unless a message of a tool is more than one of anybody
            unknown = asked(simple, role="nobody").replace("nobody", "tool")
            self.tool_responses = unknown == asked(simple)

    def _find_thoughts(self) -> str:
        """Return where to put what an assistant thought."""
        user = turn("user", "U")
        for field in THOUGHT_FIELDS:
            answers = (
                thinking(turn("assistant", "A"), THOUGHT, field),
                thinking(called({"arg": "x"}), THOUGHT, field),
            )
            for answer in answers:
                shown = self._try(user, answer, prompt=False)
                if THOUGHT in shown and "'type'" not in shown and '"type"' not in shown:
                    return field
        return THOUGHT_FIELDS[0]

    def _find_thoughts_beside(self) -> bool:
        """Say whether a turn with a thought and calls may have a text, too."""
        turns = [
            thinking(called({"arg": "x"}, text), THOUGHT, self.thought_field) for text in ("", MARK)
        ]
        quiet, telling = (bool(self._try(turn("user", "U"), each)) for each in turns)
        return telling or not quiet

    def _asked(self, *, thinking: bool) -> str:
        return self._try(turn("user", "U"), enable_thinking=thinking, thinking=thinking)

    def _prompt(self, *, thinking: bool) -> str:
        """Return what asks for a turn that thinks, or does not."""
        over = self._try(
            turn("user", "U"), prompt=False, enable_thinking=thinking, thinking=thinking
        )
        asked = self._asked(thinking=thinking)
        return asked[_alike(over, asked) :]

    def _find_opening(self, source: str) -> Opening:
        """Find out how an assistant's turn begins and ends."""
        user, answer = turn("user", "U"), turn("assistant", MARK)
        over, told = self._try(user, prompt=False), self._try(user, answer, prompt=False)
        if MARK not in told:
            return Opening("")
        prompt, alike = self._prompt(thinking=True), _alike(over, told)
        start, end = told.split(MARK, 1)
        start = prompt if start.endswith(prompt) else start[alike:]
        answer = thinking(answer, THOUGHT, self.thought_field)
        before, found, after = self._try(user, answer, prompt=False).partition(THOUGHT)
        if found and MARK in after:
            between = after.split(MARK)[0]
            return Opening(_begun(prompt, before[alike:]), between, end, prompt, thinks=True)
        tags = _tags(prompt, self._prompt(thinking=False)) or _tags(
            self._asked(thinking=True), self._asked(thinking=False)
        )
        if tags is None and USUAL_TAGS[1] in source:
            tags = USUAL_TAGS
        if tags is None:
            return Opening(start, "", end, prompt)
        return Opening(prompt.split(tags[0])[0] + tags[0], tags[1], end, prompt, thinks=True)


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _begun(prompt: str, start: str) -> str:
    """Return where a thought begins: as the prompt has it, or else as earlier turns have it."""
    alike = _alike(prompt, start)
    if not prompt[alike:].strip() and not start[alike:].strip():
        return prompt  # it asks for a thought already
    return start[:alike] + start[alike:].lstrip("\n")


def _tags(prompt: str, thoughtless: str) -> tuple[str, str] | None:
    """Take apart the empty thought that a template writes to have none."""
    if not thoughtless.startswith(prompt):
        return None
    start, bracket, end = thoughtless[len(prompt) :].rpartition("<")
    if "<" not in start:
        return None
    return start.rstrip() if start.rstrip().endswith(">") else start, bracket + end.rstrip()


CALL_ID = "call00001"


def turn(role: str, content: object, **fields: object) -> Turn:
    """Make a message as templates get it."""
    return {"role": role, "content": content, **fields}


def _length(message: Turn) -> int:
    """Return how many characters a message's content has."""
    content = message.get("content", "")
    if isinstance(content, str):
        return len(content)
    return sum(len(text) for part in content for text in part.values())


def called(arguments: object, text: str = "") -> Turn:
    """Make a message that calls a tool."""
    function = {"name": "tool1", "arguments": arguments}
    calls = [{"type": "function", "function": function, "id": CALL_ID}]
    return turn("assistant", text, tool_calls=calls)


def thinking(answer: Turn, thought: str, field: str) -> Turn:
    """Add to a message what the assistant thought."""
    if field != THOUGHT_BLOCK:
        return {**answer, field: thought}
    thoughts = [{"type": "thinking", "thinking": thought}] if thought else []
    return {**answer, "content": [*thoughts, {"type": "text", "text": answer["content"]}]}


def _tool(name: str) -> dict[str, Any]:
    argument = {"type": "string", "description": "D"}
    schema = {"type": "object", "properties": {"arg": argument}, "required": ["arg"]}
    function = {"name": name, "description": "D", "parameters": schema}
    return {"type": "function", "function": function}
