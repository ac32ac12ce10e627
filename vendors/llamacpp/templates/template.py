"""From messages to the text that the model was trained to read: the chat template of the GGUF file.

A prompt comes out as llama-server's, byte for byte; where it does not, the tests say why. Templates
come from strangers' files: see ``sandbox.py`` for what they can reach and ``effort.py`` for what
they may spend. A model without a template gets a plain format, and whoever asks is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Message, Role
from llmdispatcher.vendors.llamacpp.templates.style import KEPT, Style
from llmdispatcher.vendors.llamacpp.templates.turns import (
    MEDIA_MARKER,
    joined,
    pictures,
    tool,
    with_note,
    written,
)

PLAIN_WARNING = (
    "the model file has no chat template, so a plain 'User: … Assistant:' format was used;"
    " give LlamaCpp(chat_template=…) if the model was trained on another"
)
PLAIN_STOPS = ("\nUser:",)
"""A model that was never taught to end its turn begins the next one: stop there."""


class ChatTemplate:
    """A compiled template.

    Attributes:
        source: its text; None for the plain format.
        warning: what to tell the caller about it, if anything.
        stops: texts that end a reply beside those that the caller asks for.
        takes_tools: whether tools that are given reach the model at all.
        takes_reasoning: whether the model can be told to think, or not to.
    """

    def __init__(self, source: str | None, tool_use: str | None = None) -> None:
        """Compile and try the templates; None for ``source`` is the plain format.

        Args:
            source: the template, as in ``tokenizer.chat_template``.
            tool_use: another for requests with tools, as in ``tokenizer.chat_template.tool_use``.

        Raises Unsupported for one that does not compile.
        """
        self.source = source = source or tool_use
        self.warning = "" if source else PLAIN_WARNING
        self._untold = self.warning
        self.stops = () if source else PLAIN_STOPS
        self._style = Style(source) if source else None
        self._tool_use = Style(tool_use) if tool_use and tool_use != source else self._style
        self.takes_tools = self._tool_use is not None and self._tool_use.takes_tools
        self.takes_reasoning = self._style is not None and self._style.takes_reasoning

    def take_warning(self) -> str:
        """Return ``warning`` the first time: whoever is told with every reply stops reading."""
        told, self._untold = self._untold, ""
        return told

    def render(  # noqa: PLR0913 - what a prompt is made of; all but two by keyword
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        bos: str = "",
        eos: str = "",
        reasoning: bool | None = None,
        tools_note: str = "",
    ) -> str:
        """Return the prompt up to where the assistant goes on.

        That is where its next turn begins, or within the last message if that is the assistant's.

        Args:
            messages: the conversation. A picture becomes MEDIA_MARKER.
            tools: what the model may call.
            bos: how the model writes the start of a text.
            eos: how it writes the end of one.
            reasoning: whether to think first; None is as the template has it.
            tools_note: a text about the tools for the system message, where ``takes_tools`` is
                not; ``tools`` are then to be left out.

        Raises Unsupported where the template refuses the conversation, as some do for a system
        message or for roles that do not alternate, or where it has no place for a part of it, and
        BadRequest for a text that has MEDIA_MARKER in it.
        """
        images = pictures(messages)
        if tools_note:
            messages = with_note(messages, tools_note)
        style = self._tool_use if tools else self._style
        if style is None:
            text = _plain(messages)
        else:
            context = _context(style, reasoning=reasoning)
            context |= {"bos_token": bos, "eos_token": eos}
            if tools:
                context["tools"] = [tool(each) for each in tools]
            goes_on = bool(messages) and messages[-1].role is Role.ASSISTANT
            text = (_continued if goes_on else _asked)(style, messages, context)
        _check_images(text, images)
        return text


def _context(style: Style, *, reasoning: bool | None) -> dict[str, Any]:
    """Return what templates ask for beside the conversation; llama-server gives the same."""
    now = datetime.now().astimezone()
    context: dict[str, Any] = {
        **KEPT,
        "preserve_reasoning": True,
        "enable_thinking": style.thinks,
        "datetime": now.strftime("%b %d %Y"),
        "date_string": now.strftime("%d %b %Y"),
    }
    if reasoning is not None:
        context |= {"enable_thinking": reasoning, "thinking": reasoning}
    return context


def _asked(style: Style, messages: Sequence[Message], context: dict[str, Any]) -> str:
    """Render up to where the next turn begins."""
    turns = written(messages, style)
    text = style.render({**context, "messages": turns, "add_generation_prompt": True})
    opening = style.opening
    unasked = opening.prompt and opening.end.strip() and text.endswith(opening.end)
    if unasked and turns[-1]["role"] == "tool":
        text += opening.prompt  # the template took the last turn for unfinished, and it is not
    return text


def _continued(style: Style, messages: Sequence[Message], context: dict[str, Any]) -> str:
    """Render up to the end of the last message, which the model goes on with."""
    *before, last = messages
    if last.tool_calls:
        raise Unsupported(
            "messages",
            "the last message calls tools, which cannot be continued: add what they returned",
        )
    if before and before[-1].role is Role.ASSISTANT:
        raise Unsupported("messages", "of two messages of the assistant none can be continued")
    opening, said = style.opening, joined(last)
    context["messages"] = written(before, style)
    text = style.render({**context, "add_generation_prompt": True})
    if opening.prompt and text.endswith(opening.prompt):
        text = text.removesuffix(opening.prompt)
    else:
        text = style.render(context)
    text += opening.start
    if opening.thinks:
        text += last.reasoning
        if last.reasoning and not said:
            return text
        text += opening.between
    return text + said


def _check_images(text: str, images: int) -> None:
    """Refuse a prompt with more or fewer places for pictures than there are pictures."""
    places = text.count(MEDIA_MARKER)
    if places > images:
        raise BadRequest("messages", MEDIA_MARKER, "without it: it is the place of a picture")
    if places < images:
        raise Unsupported("images", "the model's chat template leaves a picture out")


def _plain(messages: Sequence[Message]) -> str:
    """Write a conversation as a transcript, which a base model continues."""
    names = {Role.USER: "User: ", Role.ASSISTANT: "Assistant: ", Role.TOOL: "Tool: "}
    turns = [f"{names.get(message.role, '')}{joined(message)}" for message in messages]
    last = messages[-1] if messages else None
    if last is None or last.role is not Role.ASSISTANT:
        turns.append("Assistant:")
    return "\n".join(turns)
