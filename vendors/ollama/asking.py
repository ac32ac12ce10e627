"""From a request to what Ollama is asked: a path and a JSON body. Pure.

Conversations go to ``/api/chat``, raw prompts and what is to be filled in to ``/api/generate``.
Every ask switches off what Ollama does by default and tells nobody: cutting a prompt that is too
long (``truncate``), and forgetting its beginning while the reply grows (``shift``). What Ollama
would leave out silently is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import Shape
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.ollama import content
from llmdispatcher.vendors.wire.exchange import Ask, Site

CHAT, GENERATE = "/api/chat", "/api/generate"

OPTIONS = frozenset(
    {
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "repeat_last_n",
        "presence_penalty",
        "frequency_penalty",
        "seed",
    }
)
"""Of our names of sampling fields, those that Ollama has too: ``Options`` in api/types.go. It warns
of unknown ones in its log alone."""

EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}
"""Ollama's word for ours; between two that are as near, the one that costs less."""

WHOLE = {"truncate": False, "shift": False}
"""Neither cut a prompt nor forget what was said."""

_WAYS_OUT = "take another vendor for this request, such as llama-server or LlamaCpp(…)"


def checked(site: Site) -> Site:
    """Return the site. Raises BadRequest for fields of the vendor's own that cannot be sent."""
    options = site.extra.get("options", {})
    if not isinstance(options, Mapping):
        raise BadRequest("extra", options, "with a mapping for options, as {'num_ctx': 8192}")
    return site


def ask(request: Request, card: ModelCard, site: Site) -> Ask:
    """Return what to ask. Raises Unsupported for what Ollama cannot do."""
    _check(request)
    body = {**standing(site), "model": card.model, **_asked(request, card)}
    if options := {**site.extra.get("options", {}), **_options(request)}:
        body["options"] = options
    body["stream"] = site.streaming
    return Ask(path=CHAT if request.prompt is None else GENERATE, body=body, streams=site.streaming)


def standing(site: Site, *, keeps: bool = True) -> dict[str, Any]:
    """Return what goes into every ask that loads a model to write with: else it is loaded anew.

    ``keeps`` is False where the model must be there for the next ask.
    """
    body: dict[str, Any] = {**WHOLE, **site.extra}
    seconds = keep_alive(site)
    if seconds is not None and (keeps or seconds):
        body["keep_alive"] = seconds
    return body


def keep_alive(site: Site) -> float | None:
    """Return for how many seconds the model stays loaded; below 0 is for ever."""
    seconds = site.keep_alive_s
    if seconds is None or not math.isfinite(seconds):
        return None if seconds is None else -1
    return int(seconds) if seconds == int(seconds) else seconds


def _check(request: Request) -> None:
    """Refuse what has no field at all."""
    if request.n > 1:
        raise Unsupported("n", "Ollama draws one reply of a prompt: send the request several times")
    if request.adapters:
        told = "Ollama applies no adapters by request: make a model with ADAPTER in its Modelfile"
        raise Unsupported("adapters", told)
    if request.prefill:
        told = f"Ollama does not promise to go on with the beginning of a reply: {_WAYS_OUT}"
        raise Unsupported("prefill", told)
    if request.response_format.shape is Shape.GRAMMAR:
        raise Unsupported(
            "response_format", f"Ollama takes no grammar: ask for a JSON schema, or {_WAYS_OUT}"
        )
    if unknown := sorted(set(request.sampling.given()) - OPTIONS):
        told = f"Ollama has no {', '.join(unknown)}, and would not say so: leave it out"
        raise Unsupported(unknown[0], told)


def _asked(request: Request, card: ModelCard) -> dict[str, Any]:
    """Return what the request asks for, besides the options."""
    body = _raw(request) if request.prompt is not None else _chat(request, card)
    form = request.response_format
    if form.shape is Shape.JSON:
        body["format"] = "json"
    elif form.shape is Shape.SCHEMA:
        body["format"] = dict(form.schema)
    if request.logprobs is not None:
        body["logprobs"] = True
        if request.logprobs:
            body["top_logprobs"] = request.logprobs
    return body


def _options(request: Request) -> dict[str, Any]:
    options: dict[str, Any] = request.sampling.given()
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.stop:
        options["stop"] = [*request.stop]
    return options


# -- raw prompts -------------------------------------------------------------------------------


def _raw(request: Request) -> dict[str, Any]:
    """A template puts prefix and suffix together, so that ``raw`` would drop the suffix.

    Without ``think`` a model that thinks has its tags taken out of the text even here.
    """
    if not request.prompt:
        told = "Ollama takes an empty prompt for a wish to load the model: give it some text"
        raise Unsupported("prompt", told)
    body: dict[str, Any] = {"prompt": request.prompt, "think": False}
    return body | ({"suffix": request.suffix} if request.suffix else {"raw": True})


# -- conversations -----------------------------------------------------------------------------


def _chat(request: Request, card: ModelCard) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": content.messages(request.messages)}
    if request.tools and request.tool_choice != "none":
        _check_tools(request)
        body["tools"] = content.tools(request.tools)
    if request.effort is not None:
        if Capability.EFFORT not in card.capabilities:
            told = f"{card.model} takes no word for how hard to think: leave out effort"
            raise Unsupported("effort", told)
        body["think"] = EFFORTS[request.effort]
    elif request.reasoning is not None:
        body["think"] = request.reasoning  # a model that cannot is refused by the server, in words
    return body


def _check_tools(request: Request) -> None:
    """Refuse what Ollama would not heed."""
    if request.tool_choice != "auto":
        raise Unsupported(
            "tool_choice",
            f"Ollama demands no calls, and would not heed {request.tool_choice!r}: leave the choice"
            f" to the model, or {_WAYS_OUT}",
        )
    if not request.parallel_tools:
        told = f"Ollama cannot forbid several calls at once: {_WAYS_OUT}"
        raise Unsupported("parallel_tools", told)
    if request.response_format.shape is not Shape.TEXT:
        raise Unsupported(
            "response_format",
            "Ollama's format leaves no room for calls of tools: leave out one of the two, or forbid"
            " calls with tool_choice='none'",
        )
