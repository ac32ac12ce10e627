"""From a request to what llama-server is asked: a path and a JSON body. Pure.

Conversations go to ``/v1/chat/completions``, where the server renders the template and reads calls
of tools and reasoning from the reply; raw prompts go to ``/v1/completions``. What the server would
leave out silently is refused here. The sampling fields have the names that llama-server gives them.
"""

from __future__ import annotations

import base64
from typing import Any

import attrs

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import Shape, ToolSpec
from llmdispatcher.models.message import Image, Message, Text
from llmdispatcher.models.request import Request

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"

MESSAGE_TOKENS = 64
"""What a template may add to a message, at most, with a wide margin."""


@attrs.frozen(kw_only=True)
class Abilities:
    """What a running server can do."""

    slots: int = 1
    """Choices of one request."""
    context_tokens: int = 2**31
    tools: bool | None = None
    """Whether its template has a place for tools; None is not known."""
    vision: bool | None = None
    adapters: tuple[str, ...] = ()
    """Their names, in the order in which the server was given the files."""
    fill_in: tuple[int | str, int | str, int | str] | None = None
    """What goes before the prefix, before the suffix and behind it: tokens, or how they are
    written."""


@attrs.frozen(kw_only=True)
class Ask:
    """What to ask, and what to expect."""

    path: str
    body: dict[str, Any]
    choices: int = 1
    top: int | None = None
    """How many of the likeliest tokens to tell; None tells none, not even the one that came."""
    tokens: int = 0
    """The most tokens that it can take of the context, all choices together."""


def ask(request: Request, able: Abilities) -> Ask:
    """Return what to ask. Raises a RequestError for what this server cannot do."""
    _check(request, able)
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "cache_prompt": True,
        **request.sampling.given(),
    }
    if request.max_tokens is not None:
        body["n_predict"] = request.max_tokens
    if request.n > 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = [*request.stop]
    if request.logprobs is not None:
        body["n_probs"] = max(1, request.logprobs)
    if able.adapters:
        wanted = dict(request.adapters)
        body["lora"] = [
            {"id": index, "scale": wanted.get(name, 0.0)}
            for index, name in enumerate(able.adapters)
        ]
    body |= _raw(request, able) if request.prompt is not None else _chat(request)
    return Ask(
        path=CHAT if request.prompt is None else COMPLETION,
        body=body,
        choices=request.n,
        top=request.logprobs,
        tokens=_most_tokens(request, able),
    )


def _check(request: Request, able: Abilities) -> None:
    if request.n > able.slots:
        raise Unsupported(
            "n",
            f"this server draws at most {able.slots} choices of one prompt, and n is {request.n}:"
            " load the model with a larger max_parallel",
        )
    if unknown := [name for name, _ in request.adapters if name not in able.adapters]:
        there = ", ".join(able.adapters) or "none"
        raise BadRequest("adapters", unknown[0], f"one that the model was loaded with ({there})")
    if request.tools and request.tool_choice != "none":
        _check_tools(request, able)
    images = [part for m in request.messages for part in m.content if isinstance(part, Image)]
    if images and able.vision is False:
        raise Unsupported(
            "images",
            "this model was loaded without a projector: give LlamaCpp(projector_path=…) the"
            " mmproj file that belongs to it",
        )


def _check_tools(request: Request, able: Abilities) -> None:
    if able.tools is False:
        raise Unsupported(
            "tools",
            "the model's chat template has no place for tools, and llama-server would leave them"
            " out: take engine='worker', or give a chat_template that has",
        )
    shape = request.response_format.shape
    if shape is Shape.GRAMMAR:
        raise Unsupported(
            "response_format",
            "a grammar leaves no room for calls of tools; leave out one of the two, or forbid"
            " calls with tool_choice='none'",
        )
    if shape is not Shape.TEXT and request.tool_choice != "auto":
        raise Unsupported("response_format", "a call is demanded, which has its own form")
    if request.logprobs is not None:
        raise Unsupported("logprobs", "llama-server tells no log-probabilities beside tools")


# -- raw prompts -------------------------------------------------------------------------------


def _raw(request: Request, able: Abilities) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": request.prompt}
    if request.suffix:
        body["prompt"] = _filled(request, able)
    form = request.response_format
    if form.shape is Shape.JSON:
        body["json_schema"] = {"type": ["object", "array"]}
    elif form.shape is Shape.SCHEMA:
        body["json_schema"] = dict(form.schema)
    elif form.shape is Shape.GRAMMAR:
        body["grammar"] = form.grammar
    return body


def _filled(request: Request, able: Abilities) -> list[int | str]:
    """Put prefix and suffix as /infill does, which would cut long ones without a word.

    A prompt that begins with text begins with the token for that, where the model wants one.
    """
    if able.fill_in is None:
        raise Unsupported("suffix", "this model has no tokens for filling in (FIM)")
    before, between, behind = able.fill_in
    parts: list[int | str] = ["", before, request.prompt or "", between, request.suffix, behind]
    return [part for index, part in enumerate(parts) if part != "" or index == 0]


# -- conversations -----------------------------------------------------------------------------


def _chat(request: Request) -> dict[str, Any]:
    messages = [_message(message) for message in request.messages]
    body: dict[str, Any] = {"messages": messages}
    if request.prefill:
        messages.append({"role": "assistant", "content": request.prefill})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.reasoning is not None:
        switches = ("enable_thinking", "thinking")
        body["chat_template_kwargs"] = dict.fromkeys(switches, request.reasoning)
    if request.tools and request.tool_choice != "none":
        body |= _tools(request)
    form = request.response_format
    if form.shape is Shape.JSON:
        body["response_format"] = {"type": "json_object", "schema": {"type": ["object", "array"]}}
    elif form.shape is Shape.SCHEMA:
        schema = {"name": "reply", "strict": True, "schema": dict(form.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.shape is Shape.GRAMMAR:
        body["grammar"] = form.grammar
    return body


def _tools(request: Request) -> dict[str, Any]:
    """A demand for one tool is one for any, of that one alone: names are not understood."""
    choice, tools = request.tool_choice, request.tools
    if choice not in {"auto", "required"}:
        tools, choice = tuple(tool for tool in tools if tool.name == choice), "required"
    return {
        "tools": [_tool(tool) for tool in tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tools,
    }


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {
        "name": spec.name,
        "description": spec.description,
        "parameters": dict(spec.parameters),
    }
    return {"type": "function", "function": function}


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


def _content(message: Message) -> str | list[dict[str, Any]]:
    if len(message.content) == 1 and isinstance(message.content[0], Text):
        return message.content[0].text
    return [_part(part) for part in message.content] or ""


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": _url(part)}}


def _url(image: Image) -> str:
    if image.data:
        return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    if not image.url.lower().startswith("data:"):
        raise Unsupported(
            "images",
            f"a local model fetches nothing, so it cannot see {image.url[:80]!r}: read the file"
            " yourself and give Image(data=…), or a data: URL",
        )
    return image.url


def _most_tokens(request: Request, able: Abilities) -> int:
    """Bound what a request can take of the context: a token is at least a byte.

    Where the replies' length is not given, each may take the rest of a context.
    """
    sees = any(isinstance(part, Image) for m in request.messages for part in m.content)
    if request.max_tokens is None or sees:
        return able.context_tokens * request.n
    size = request.text_bytes + MESSAGE_TOKENS * (2 + len(request.messages))
    size += sum(len(str(tool)) for tool in request.tools)
    size += sum(len(call.arguments) for m in request.messages for call in m.tool_calls)
    prompt = min(size, able.context_tokens)
    return prompt + min(request.max_tokens, able.context_tokens) * request.n
