"""The conversations that chat templates are compared on, and how the OpenAI API writes them."""

from __future__ import annotations

from typing import Any

import attrs

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import (
    Message,
    Role,
    Text,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)


@attrs.frozen
class Talk:
    """What a template is given."""

    messages: list[Message]
    tools: list[ToolSpec] = attrs.field(factory=list)
    reasoning: bool | None = None

    def body(self) -> dict[str, Any]:
        """Write it as a request to llama-server."""
        body: dict[str, Any] = {"messages": [_message(message) for message in self.messages]}
        if self.tools:
            body["tools"] = [_tool(spec) for spec in self.tools]
        if self.reasoning is not None:
            switches = ("enable_thinking", "thinking")
            body["chat_template_kwargs"] = dict.fromkeys(switches, self.reasoning)
        return body


def _message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": str(message.role), "content": _content(message)}
    if message.tool_calls:
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    if message.reasoning:
        written["reasoning_content"] = message.reasoning
    return written


def _content(message: Message) -> str | list[dict[str, str]]:
    texts = [part.text for part in message.content if isinstance(part, Text)]
    if len(texts) < 2:
        return "".join(texts)
    return [{"type": "text", "text": text} for text in texts]


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {
        "name": spec.name,
        "description": spec.description,
        "parameters": dict(spec.parameters),
    }
    return {"type": "function", "function": function}


WEATHER = ToolSpec(
    "get_weather",
    'Tells the "weather" of a city — today\'s.',
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where, like Zürich"},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"], "default": "celsius"},
            "days": {"type": "integer", "description": "How many"},
        },
        "required": ["city"],
    },
)
CLOCK = ToolSpec("clock", "Tells the time.")
TOOLS = [WEATHER, CLOCK]

PARIS = ToolCall("call00001", "get_weather", '{"city": "Paris", "days": 2}')
ROME = ToolCall("call00002", "get_weather", '{"city": "Rom\\u00e9", "now": true}')


def _calls(content: str, *calls: ToolCall, reasoning: str = "") -> Message:
    return Message(Role.ASSISTANT, content, list(calls), None, reasoning)


ASKED = user("How warm is it in Paris?")
SUNNY = tool(PARIS, '{"sky": "sunny", "t": 21}')
RAINY = tool(ROME, "rain & <wind>")
DONE = [ASKED, _calls("", PARIS), SUNNY, assistant("Sunny, 21 °C."), user("And tomorrow?")]

TALKS: dict[str, Talk] = {
    "user": Talk([user("Hello, who are you?")]),
    "system": Talk([system("Be brief."), user("Hi")]),
    "empty system": Talk([system(""), user("Hi")]),
    "empty user": Talk([user("")]),
    "system alone": Talk([system("Be brief.")]),
    "turns": Talk([user("One"), assistant("Two"), user("Three"), assistant("Four"), user("5")]),
    "system and turns": Talk([system("S"), user("U"), assistant("A"), user("V")]),
    "two users": Talk([user("One"), user("Two")]),
    "late system": Talk([user("U"), assistant("A"), system("S"), user("V")]),
    "unicode": Talk([system("Sois bref — né"), user("日本語 😀\u200d\u00a0é\u0301 \\n <&> '\"")]),
    "spaces": Talk([user("  \n in the middle \n\n "), assistant(" a\n"), user("\tb ")]),
    "markers": Talk([user("<|im_start|>system\nx<|im_end|></s>[INST]<think>")]),
    "parts": Talk([user(["One", "Two"]), assistant("A"), user(["Three", "Four", "Five"])]),
    "tools": Talk([ASKED], TOOLS),
    "tools and system": Talk([system("Be brief."), ASKED], TOOLS),
    "tools and turns": Talk([user("U"), assistant("A"), ASKED], TOOLS),
    "call": Talk([ASKED, _calls("", PARIS), SUNNY], TOOLS),
    "call with text": Talk([ASKED, _calls("I look.", PARIS), SUNNY], TOOLS),
    "call without tools": Talk([ASKED, _calls("", PARIS), SUNNY]),
    "call after system": Talk([system("S"), ASKED, _calls("", PARIS), SUNNY], TOOLS),
    "calls": Talk([ASKED, _calls("", PARIS, ROME), SUNNY, RAINY], TOOLS),
    "calls in turn": Talk([ASKED, _calls("", PARIS), SUNNY, _calls("", ROME), RAINY], TOOLS),
    "call and answer": Talk(DONE, TOOLS),
    "call of no arguments": Talk(
        [ASKED, _calls("", ToolCall("call00001", "clock", "{}")), tool("call00001", "noon")], TOOLS
    ),
    "call with a list": Talk(
        [
            ASKED,
            _calls("", ToolCall("call00001", "f", '{"a": ["x", 1], "b": {"c": null}}')),
            tool("call00001", "noon"),
        ],
        TOOLS,
    ),
    "reasoning, text and call": Talk(
        [ASKED, _calls("I say.", PARIS, reasoning="I look."), SUNNY], TOOLS
    ),
    "call of no JSON": Talk(
        [ASKED, _calls("", ToolCall("call00001", "clock", "raw")), tool("call00001", "x")], TOOLS
    ),
    "reasoning": Talk([user("U"), Message(Role.ASSISTANT, "A", (), None, "I thought."), user("V")]),
    "reasoning and call": Talk([ASKED, _calls("", PARIS, reasoning="I look."), SUNNY], TOOLS),
    "reasoning, call and answer": Talk(
        [
            *(ASKED, _calls("", PARIS, reasoning="I look."), SUNNY),
            *(Message(Role.ASSISTANT, "Sunny", (), None, "It is."), user("Thanks")),
        ],
        TOOLS,
    ),
    "continued": Talk([user("U"), assistant("Once upon")]),
    "continued after turns": Talk([system("S"), *DONE, assistant("Tomorrow")], TOOLS),
    "continued reasoning": Talk([user("U"), Message(Role.ASSISTANT, "", (), None, "Let me")]),
    "continued after reasoning": Talk(
        [user("U"), Message(Role.ASSISTANT, "So", (), None, "I thought.")]
    ),
    "thinking": Talk([system("S"), user("U")], reasoning=True),
    "not thinking": Talk([system("S"), user("U")], reasoning=False),
    "thinking with tools": Talk(DONE, TOOLS, reasoning=True),
    "not thinking with tools": Talk(DONE, TOOLS, reasoning=False),
    "not thinking, continued": Talk([user("U"), assistant("Once")], reasoning=False),
    "ends with a call": Talk([ASKED, _calls("", PARIS)], TOOLS),
}
"""By name. The set may grow; each template is compared on all."""
