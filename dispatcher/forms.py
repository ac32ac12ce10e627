"""Forms of replies in words: for models that keep to none by themselves, and after a misfit. Pure.

A model whose vendor cannot hold it to JSON is told of it in its first message. One whose reply was
another than asked for is shown that reply, and told what was wrong and where. Both work on copies
of a request; how the reply is compared with what was asked for stays the same.
"""

from __future__ import annotations

import json

import attrs

from llmdispatcher.draft import Draft, ReplyDraft
from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import BadReply, DispatcherError
from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.message import Message, Role, Text, assistant, system, user
from llmdispatcher.models.request import Request

SHOWN_CHARS = 4000
"""How much of its own reply a model is shown, half from the beginning and half from the end."""

MISFIT_CHARS = 400
"""How much it is told of what was wrong."""

_JSON = "Reply with JSON alone, and no other text around it."
_SCHEMA = (
    "Reply with JSON alone, and no other text around it: a single value that is valid under this"
    " JSON schema: "
)
_AGAIN = "Reply once more with all of it, put right, and nothing else."


def tell(request: Request, card: ModelCard) -> Request:
    """Return the request with the form of its reply in words, as far as a model needs them.

    One that can be held to JSON, and to no schema, is held to JSON.
    """
    form, able = request.response_format, card.capabilities
    wanted = Capability.SCHEMA if form.shape is Shape.SCHEMA else Capability.JSON
    if not form.is_json or wanted in able:
        return request
    words = _JSON
    if form.shape is Shape.SCHEMA:
        words = _SCHEMA + json.dumps(form.schema, ensure_ascii=False, separators=(",", ":"))
    return attrs.evolve(
        request,
        messages=_opened(request.messages, words),
        response_format=ResponseFormat(Shape.JSON) if Capability.JSON in able else None,
    )


def _opened(messages: tuple[Message, ...], words: str) -> tuple[Message, ...]:
    """Put words behind the system message, or make one of them."""
    first, *rest = messages
    if first.role is not Role.SYSTEM:
        return (system(words), *messages)
    return (attrs.evolve(first, content=(*first.content, Text(f"\n\n{words}"))), *rest)


def put_right(request: Work, draft: Draft, error: DispatcherError) -> Request | None:
    """Return the request that shows a model its reply, and says what was wrong with it.

    None where there is nothing to show, or nowhere to: a raw prompt has no turns, and of several
    choices nobody knows which one was meant.
    """
    if not isinstance(error, BadReply) or not error.is_unfit or not error.misfit:
        return None
    if not isinstance(request, Request) or not isinstance(draft, ReplyDraft):
        return None
    text = request.prefill + draft.text
    if request.prompt is not None or request.n > 1 or draft.has_calls or not text.strip():
        return None
    told = f"That reply cannot be used: {_cut(error.misfit, MISFIT_CHARS)}. {_AGAIN}"
    return attrs.evolve(
        request, messages=(*request.messages, assistant(_cut(text, SHOWN_CHARS)), user(told))
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"
