"""What is asked for a reply: the path and the body, for conversations and raw prompts. Pure.

What is asked for and the host cannot do raises Unsupported, before anything is sent.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from math import ceil
from typing import Any

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import Shape
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai import content, sampling
from llmdispatcher.vendors.openai.known import Known
from llmdispatcher.vendors.openai.stream import ChatReplies, Expected
from llmdispatcher.vendors.openai.ways import Prefill, Ways
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Site

CHAT = "/chat/completions"


def exchange(request: Request, model: str, row: Known, site: Site, ways: Ways) -> Exchange:
    """Return what to ask, and who reads the answer. Raises a RequestError."""
    if request.adapters:
        raise Unsupported(
            "adapters", "this host applies no adapters by request: name a model that has them"
        )
    endpoint, own = _raw(request, ways) if request.prompt is not None else _talk(request, row, ways)
    streams = site.streaming and _can_stream(request, ways)
    shared = (
        sampling.drawn(request, ways),
        sampling.logprobs(request, ways),
        content.form(request, ways),
        _streaming(ways) if streams else {"stream": False},
        _local(request, site, ways),
        ways.insists if ways.insists and _is_demanding(request) else {},
        ways.always,
        *(fields for pattern, fields in ways.of_models if fnmatchcase(model.lower(), pattern)),
        site.extra,
    )
    body: dict[str, Any] = {"model": model, **own}
    for fields in filter(None, shared):
        body = sampling.merged(body, fields)
    expected = Expected(
        choices=request.n,
        top=request.logprobs,
        prefill=request.prefill if _is_repeated(ways.prefill, streams=streams) else "",
        prompt_bytes=request.text_bytes,
        raw=request.prompt is not None,
    )
    ask = Ask(path=ways.path(endpoint, model), body=body, streams=streams)
    return Exchange(ask, ChatReplies(ways, expected))


def conversation(request: Request, row: Known, ways: Ways) -> dict[str, Any]:
    """Return what is said to the model: its messages, its tools and how it is to think."""
    is_asked_as_developer = ways.developer_role and row.wants_developer_role
    return sampling.merged(
        {
            "messages": content.messages(
                request, ways, "developer" if is_asked_as_developer else "system"
            ),
            **content.tools(request, ways),
            **(ways.prefill.body if request.prefill and ways.prefill else {}),
        },
        sampling.thinking(request, row, ways),
    )


def _talk(request: Request, row: Known, ways: Ways) -> tuple[str, dict[str, Any]]:
    if ways.refuses_by_model:
        sampling.check(request, row, sampling.effort(request, row, ways))
    body = conversation(request, row, ways)
    if request.max_tokens is not None:
        body[ways.max_tokens] = request.max_tokens
    elsewhere = request.prefill and ways.prefill and ways.prefill.endpoint
    return elsewhere or CHAT, body


def _raw(request: Request, ways: Ways) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"prompt": request.prompt}
    if request.suffix:
        if not ways.infill:
            raise Unsupported("suffix", "this host fills in nothing: ask another model")
        body["suffix"] = request.suffix
    elif not ways.raw:
        raise Unsupported("prompt", "this host takes no raw prompts: give messages")
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    return ways.infill if request.suffix else ways.raw, body


def _is_repeated(prefill: Prefill | None, *, streams: bool) -> bool:
    """Whether the reply's text begins with what was given."""
    return prefill is not None and (prefill.repeats or (prefill.repeats_whole and not streams))


def _can_stream(request: Request, ways: Ways) -> bool:
    """Whether the host streams what is asked for; else it is asked for whole."""
    if request.response_format.is_json and not ways.streams_forms:
        return False
    if request.n > 1 and not ways.streams_choices:
        return False
    has_both = request.logprobs is not None and bool(request.tools)
    return ways.logprobs_beside_tools or not has_both


def _streaming(ways: Ways) -> dict[str, Any]:
    options = {} if ways.stream_options is None else {"stream_options": dict(ways.stream_options)}
    return {"stream": True, **options}


def _local(request: Request, site: Site, ways: Ways) -> dict[str, Any]:
    """Return what servers with a queue, or with models to unload, are told."""
    fields = keep_alive(site, ways)
    if ways.priority and request.priority:
        fields["priority"] = -request.priority
    return fields


def keep_alive(site: Site, ways: Ways) -> dict[str, Any]:
    """Return how long the model is to stay loaded, in whole seconds, at least one."""
    if not ways.keep_alive or site.keep_alive_s is None:
        return {}
    return {ways.keep_alive: max(1, ceil(site.keep_alive_s))}


def _is_demanding(request: Request) -> bool:
    """Whether there is more to a request than messages, which a model may be unable to do."""
    return bool(
        request.sampling.given()
        or request.stop
        or request.tools
        or request.logprobs is not None
        or request.response_format.shape is not Shape.TEXT
    )
