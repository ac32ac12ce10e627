"""From a request to the JSON that asks for a message. Pure.

What a model would reject, or what a server of other models would leave out without a word, is
refused here with the way out. None is the vendor's default, and is not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import Shape, ToolSpec
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.anthropic import content
from llmdispatcher.vendors.anthropic.known import (
    BUDGETS,
    DEFAULT_TOKENS,
    MIN_BUDGET_TOKENS,
    SAMPLING_VERSION,
    TAKEN,
    WHOLE_TOKENS,
    Family,
    Thinking,
)
from llmdispatcher.vendors.wire.exchange import Site

Body = dict[str, Any]

MAX_SCHEMA_DEPTH = 64
"""Of a schema whose objects are closed; below, they stay as they are."""

_CHOICES = frozenset({"anyOf", "oneOf"})
_LISTED = _CHOICES | {"prefixItems"}
_BY_NAME = frozenset({"properties", "$defs", "definitions"})

_SWITCHES = ("enable_thinking", "thinking")
"""What templates call the switch for thinking, behind servers that render them."""


@attrs.frozen
class Plan:
    """Who is asked, and how."""

    card: ModelCard
    family: Family
    site: Site
    version: str

    def no(self, feature: str, message: str) -> Unsupported:
        """Make the refusal of a feature."""
        return Unsupported(feature, message, vendor=self.card.vendor, model=self.card.model)


def generating(request: Request, plan: Plan) -> Body:
    """Return what asks for a reply. Raises a RequestError for what cannot be asked for."""
    most = _most_tokens(request, plan)
    body: Body = {
        **_prompt(request, plan, most),
        "max_tokens": most,
        **_sampling(request, plan),
    }
    if request.stop:
        body["stop_sequences"] = [*request.stop]
    if plan.site.streaming:
        body["stream"] = True
    return body | dict(plan.site.extra)


def counting(request: Request, plan: Plan) -> Body:
    """Return what asks for the size of the prompt: all that the model reads, and nothing else."""
    return _prompt(request, plan, _most_tokens(request, plan))


def _prompt(request: Request, plan: Plan, most: int) -> Body:
    _check(request, plan)
    first, rest = content.split(request.messages)
    messages = content.turns(rest, plan.family)
    if request.prefill:
        messages += [{"role": "assistant", "content": [{"type": "text", "text": request.prefill}]}]
        if len(messages) > 1 and messages[-2]["role"] == "assistant":
            messages[-2]["content"] += messages.pop()["content"]
    body: Body = {"model": plan.card.model, "messages": messages}
    system = content.instructions(first)
    content.mark([*system, *(block for turn in messages for block in turn["content"])])
    if system:
        body["system"] = system
    body |= _thinking(request, plan, most)
    body |= _output(request, plan)
    if request.tools:
        body |= _tools(request, plan)
    _check_together(request, plan, body)
    return body


def _check(request: Request, plan: Plan) -> None:
    """Refuse what the dialect has no words for."""
    if request.prompt is not None:
        raise plan.no("prompt", "this vendor takes conversations alone: give messages")
    if request.n > 1:
        raise plan.no("n", "this vendor draws one reply at a time: ask n times")
    if request.logprobs is not None:
        raise plan.no("logprobs", "this vendor tells no log-probabilities: leave logprobs out")
    if request.adapters:
        raise plan.no("adapters", "this vendor applies no LoRA adapters: leave them out")
    if request.prefill and Capability.PREFILL not in plan.card.capabilities:
        raise plan.no(
            "prefill",
            "this model does not continue a reply that was begun: say in the prompt how it shall"
            " begin, or give a schema",
        )


def _check_together(request: Request, plan: Plan, body: Body) -> None:
    """Refuse what Claude rejects in company."""
    if not plan.family.is_claude:
        return
    thinks = body.get("thinking", {}).get("type") in {"adaptive", "enabled"}
    if thinks and body.get("tool_choice", {}).get("type") in {"any", "tool"}:
        raise plan.no(
            "tool_choice",
            "a model that thinks cannot be made to call a tool: take tool_choice='auto', or leave"
            " reasoning and effort out",
        )
    drawn = request.sampling
    if thinks and (drawn.top_k is not None or drawn.temperature not in {None, 1}):
        raise plan.no(
            "sampling",
            "a model that thinks takes neither a temperature nor top_k: leave them out, or leave"
            " reasoning and effort out",
        )
    if not request.prefill:
        return
    if thinks or "format" in body.get("output_config", {}):
        raise plan.no("prefill", "a prefill goes neither with thinking nor with a schema")
    if request.prefill != request.prefill.rstrip():
        raise plan.no("prefill", "this vendor takes no prefill that ends with white space")


def _most_tokens(request: Request, plan: Plan) -> int:
    """Return the most that the reply may have, which has to be said."""
    if request.max_tokens is not None:
        return request.max_tokens
    room = plan.card.context_tokens if plan.site.local else None
    most = plan.card.max_output_tokens or room or DEFAULT_TOKENS
    return most if plan.site.streaming else min(most, WHOLE_TOKENS)


def _sampling(request: Request, plan: Plan) -> Body:
    given = request.sampling.given()
    if unknown := sorted(given.keys() - TAKEN):
        raise plan.no(
            "sampling",
            f"this vendor has no {', '.join(unknown)}: leave it out, or take another vendor",
        )
    if given and plan.family.is_claude:
        _check_sampling(given, plan)
    return dict(given)


def _check_sampling(given: Mapping[str, float | int], plan: Plan) -> None:
    names = ", ".join(sorted(given))
    if not plan.family.takes_sampling:
        raise plan.no("sampling", f"this model takes no {names}, whatever the value: leave it out")
    if plan.version > SAMPLING_VERSION:
        raise plan.no(
            "sampling",
            f"version {plan.version} of the API takes no {names}: leave it out, or speak version"
            f" {SAMPLING_VERSION} with the vendor",
        )
    if {"temperature", "top_p"} <= given.keys():
        raise plan.no("sampling", "this model takes temperature or top_p, not both: leave one out")
    if given.get("temperature", 0) > 1:
        raise plan.no("sampling", "this vendor takes a temperature from 0 to 1")


# -- thinking -----------------------------------------------------------------------------------


def _thinking(request: Request, plan: Plan, most: int) -> Body:
    if request.reasoning is None and request.effort is None:
        return {}
    if request.reasoning is False:
        return _silence(plan)
    if request.effort is not None and not plan.family.is_claude:
        raise plan.no(
            "effort",
            "in this dialect only Claude is told how hard to think: take reasoning=True",
        )
    if plan.family.thinking is not Thinking.BUDGET:
        return {"thinking": {"type": "adaptive", "display": "summarized"}}
    if most <= MIN_BUDGET_TOKENS:
        raise plan.no(
            "reasoning",
            f"this model thinks with {MIN_BUDGET_TOKENS} tokens or more, which are part of"
            f" max_tokens, and that is {most}: raise it",
        )
    budget = min(BUDGETS[request.effort or "medium"], max(MIN_BUDGET_TOKENS, most // 2))
    thinking = {"type": "enabled", "budget_tokens": budget}
    return {"thinking": thinking, **_switch(plan, on=True)}


def _silence(plan: Plan) -> Body:
    if plan.family.thinking is Thinking.ALWAYS:
        raise plan.no(
            "reasoning",
            "this model always thinks: leave reasoning out, or take effort='low'",
        )
    return {"thinking": {"type": "disabled"}, **_switch(plan, on=False)}


def _switch(plan: Plan, *, on: bool) -> Body:
    """Tell a local server that renders a template: the field of the dialect is not all it reads."""
    if not plan.site.local:
        return {}
    return {"chat_template_kwargs": dict.fromkeys(_SWITCHES, on)}


# -- the form of the reply ----------------------------------------------------------------------


def _output(request: Request, plan: Plan) -> Body:
    config: Body = {}
    if request.effort is not None and plan.family.efforts:
        config["effort"] = plan.family.effort(request.effort)
    form = request.response_format
    if form.shape is Shape.GRAMMAR:
        raise plan.no("response_format", "this vendor takes no grammar: give a schema")
    if form.shape is Shape.JSON:
        raise plan.no("response_format", "this vendor writes JSON only by a schema: give one")
    if form.shape is Shape.SCHEMA:
        if Capability.SCHEMA not in plan.card.capabilities:
            raise plan.no("response_format", "this model takes no schema: take another model")
        config["format"] = {"type": "json_schema", "schema": _closed(form.schema)}
    return {"output_config": config} if config else {}


def _closed(schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Close objects whose schema leaves that open: the vendor takes no others.

    What follows the closed schema also follows the one that was given. Schemas that are joined with
    others stay as they are: closed ones would exclude each other.
    """
    closed = dict(schema)
    if depth >= MAX_SCHEMA_DEPTH or "allOf" in closed:
        return closed
    is_joined = not _CHOICES.isdisjoint(closed)
    has_fields = closed.get("type") == "object" or "properties" in closed
    if has_fields and not is_joined:
        closed.setdefault("additionalProperties", False)
    for name, value in closed.items():
        if name in _BY_NAME and isinstance(value, Mapping):
            closed[name] = {key: _inside(each, depth) for key, each in value.items()}
        elif name in _LISTED and isinstance(value, list | tuple) and not (is_joined and has_fields):
            closed[name] = [_inside(each, depth) for each in value]
        elif name == "items":
            closed[name] = _inside(value, depth)
    return closed


def _inside(schema: object, depth: int) -> object:
    return _closed(schema, depth + 1) if isinstance(schema, Mapping) else schema


# -- tools --------------------------------------------------------------------------------------


def _tools(request: Request, plan: Plan) -> Body:
    if not plan.family.is_claude:
        return _tools_elsewhere(request, plan)
    choice: Body = {"type": request.tool_choice}
    if request.tool_choice not in {"auto", "none"}:
        if not plan.family.takes_force:
            raise plan.no(
                "tool_choice",
                "this model cannot be made to call a tool: take tool_choice='auto', and ask for"
                " the call in the prompt",
            )
        choice = _demanded(request.tool_choice)
    if not request.parallel_tools and request.tool_choice != "none":
        choice["disable_parallel_tool_use"] = True
    tools: Body = {"tools": [*map(_tool, request.tools)]}
    return tools if choice == {"type": "auto"} else tools | {"tool_choice": choice}


def _tools_elsewhere(request: Request, plan: Plan) -> Body:
    """Say it so that servers understand it that read little of tool_choice.

    Forbidden tools are not told, and of one that is demanded no others.
    """
    if request.tool_choice == "none":
        return {}
    if not request.parallel_tools:
        raise plan.no(
            "parallel_tools",
            "in this dialect only Claude is kept from calling several tools: leave it out",
        )
    if request.tool_choice == "auto":
        return {"tools": [*map(_tool, request.tools)]}
    told = [t for t in request.tools if request.tool_choice in {"required", t.name}]
    return {"tools": [*map(_tool, told)], "tool_choice": _demanded(request.tool_choice)}


def _demanded(choice: str) -> Body:
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}


def _tool(spec: ToolSpec) -> Body:
    tool: Body = {"name": spec.name, "input_schema": {"type": "object", **spec.parameters}}
    if spec.description:
        tool["description"] = spec.description
    return tool
