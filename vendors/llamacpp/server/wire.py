"""From a request to what a supervised llama-server is asked, and who reads its answers. Pure.

The dialect is the one of ``vendors.openai``, with the ways of a llama-server whose build and model
are known. Here is what only a server of our own can do or must be spared: adapters by their places,
filling in by tokens, and refusing what it would leave out silently, or could not hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Image
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai import chat, embedding
from llmdispatcher.vendors.openai.known import UNKNOWN
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.ways import Pictures
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Site

WAYS = attrs.evolve(
    ROWS["llama-server"].ways,
    always={**ROWS["llama-server"].ways.always, "cache_prompt": True},
    any_json={"type": ["object", "array"]},  # as our own engine means it
    joins_texts=False,  # templates do it, as they do for our own engine
    pictures=Pictures.DATA,  # it would fetch any address that a prompt names; our own engine none
)

SITE = Site(vendor="llamacpp", local=True)

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
class Asked:
    """What a request becomes, and what it claims."""

    exchanges: Sequence[Exchange]
    slots: int = 1
    tokens: int = 0
    """The most that it can take of the context, all choices together."""


def asked(work: Request | EmbedRequest | RerankRequest, able: Abilities, model: str) -> Asked:
    """Return what to ask of a model. Raises a RequestError for what this server cannot do."""
    if isinstance(work, Request):
        _check(work, able)
        exchange = _reply(work, able, model)
        return Asked(exchanges=(exchange,), slots=work.n, tokens=_most_tokens(work, able))
    if isinstance(work, EmbedRequest) and "" in work.texts:
        allowed = "a text that is not empty: llama-server takes no empty ones"
        raise BadRequest(f"texts[{work.texts.index('')}]", "", allowed)
    return Asked(exchanges=embedding.exchanges(work, model, SITE, WAYS))


def _reply(request: Request, able: Abilities, model: str) -> Exchange:
    """Ask for a reply. Nothing is known of a model by its name: the server has read its file."""
    plain = attrs.evolve(request, adapters=(), suffix="")
    if request.tool_choice == "none":  # our own engine does not show them to the model either
        plain = attrs.evolve(plain, tools=(), tool_choice="auto")
    exchange = chat.exchange(plain, model, UNKNOWN, SITE, WAYS)
    body = dict(exchange.ask.body or {})
    if request.suffix:
        body["prompt"] = _filled(request, able)
    if able.adapters:
        wanted = dict(request.adapters)
        body["lora"] = [
            {"id": place, "scale": wanted.get(name, 0.0)}
            for place, name in enumerate(able.adapters)
        ]
    return attrs.evolve(exchange, ask=attrs.evolve(exchange.ask, body=body))


def _filled(request: Request, able: Abilities) -> list[int | str]:
    """Put prefix and suffix as /infill does, which would cut long ones without a word.

    A prompt that begins with text begins with the token for that, where the model wants one.
    """
    if able.fill_in is None:
        raise Unsupported("suffix", "this model has no tokens for filling in (FIM)")
    before, between, behind = able.fill_in
    parts: list[int | str] = ["", before, request.prompt or "", between, request.suffix, behind]
    return [part for index, part in enumerate(parts) if part != "" or index == 0]


def is_formed(ask: Ask) -> bool:
    """Whether a reply of a certain form is asked for, so that a grammar is made for it."""
    names = ("grammar", "json_schema", "response_format", "tools")
    return any(name in (ask.body or {}) for name in names)


# -- what is refused ---------------------------------------------------------------------------


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
    if able.vision is False and _has_pictures(request):
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
    if request.response_format.shape is not Shape.TEXT and request.tool_choice != "auto":
        raise Unsupported("response_format", "a call is demanded, which has its own form")


def _has_pictures(request: Request) -> bool:
    return any(isinstance(part, Image) for m in request.messages for part in m.content)


def _most_tokens(request: Request, able: Abilities) -> int:
    """Bound what a request can take of the context: a token is at least a byte.

    Where the replies' length is not given, each may take the rest of a context.
    """
    if request.max_tokens is None or _has_pictures(request):
        return able.context_tokens * request.n
    size = request.text_bytes + MESSAGE_TOKENS * (2 + len(request.messages))
    size += sum(len(str(tool)) for tool in request.tools)
    size += sum(len(call.arguments) for m in request.messages for call in m.tool_calls)
    prompt = min(size, able.context_tokens)
    return prompt + min(request.max_tokens, able.context_tokens) * request.n
