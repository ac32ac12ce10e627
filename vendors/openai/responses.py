"""What the responses endpoint of the OpenAI API is asked. Pure.

Some models are served there alone, others only with tools while they think; ``known`` says which.
Nothing is stored there: every request holds the whole conversation, with the thoughts in the sealed
form in which the vendor gave them. What the endpoint has no field for is refused, with the way out.
"""

from __future__ import annotations

from typing import Any

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.fields import TOOL_CHOICES
from llmdispatcher.models.form import Shape, ToolSpec
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai import known
from llmdispatcher.vendors.openai.content import keeps_rules
from llmdispatcher.vendors.openai.known import Known
from llmdispatcher.vendors.openai.responses_items import items
from llmdispatcher.vendors.openai.responses_stream import ResponsesReplies
from llmdispatcher.vendors.openai.sampling import merged
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Site
from llmdispatcher.vendors.wire.faults import Habits

PATH = "/responses"

MIN_TOKENS = 16
"""The endpoint refuses a lower bound for a reply."""

_SAMPLING = frozenset({"temperature", "top_p"})
"""The fields of ``Sampling`` that the endpoint has, under the same names."""

_ELSEWHERE = "take a model that is served by chat completions"


def exchange(
    work: Request,
    card: ModelCard,
    site: Site,
    row: Known | None = None,
    habits: Habits | None = None,
) -> Exchange:
    """Return what to ask, and who reads the answer.

    ``row`` is what is known of the model, where its name does not tell (a deployment); None looks
    the name up. Raises Unsupported for what the endpoint or the model cannot do.
    """
    row = known.of(card.model) if row is None else row
    effort = row.effort(work)
    _check(work)
    _check_model(work, row, effort)
    streams = site.streaming and row.streams
    body: dict[str, Any] = {
        "model": card.model,
        "input": items(work.messages, developer=row.wants_developer_role),
        "store": False,
        "truncation": "disabled",
        **work.sampling.given(),
        **_bounds(work),
        **_thoughts(work, row, effort),
        **_form(work),
        **_tools(work),
    }
    if streams:
        body["stream"] = True
    ask = Ask(path=PATH, body=merged(body, site.extra), streams=streams)
    replies = ResponsesReplies(work.text_bytes, logprobs=work.logprobs, habits=habits)
    return Exchange(ask, replies)


# -- what cannot be had ------------------------------------------------------------------------


def _check(work: Request) -> None:
    """Refuse what the endpoint has no field for."""
    refused = [
        (work.prompt is not None, "prompt", "no raw prompts: give messages"),
        (work.n > 1, "n", "one reply at a time: send the request several times"),
        (work.stop, "stop", "no stop strings: cut the text, or close the stream, where one comes"),
        (work.prefill, "prefill", f"no beginning of a reply: ask for it in words, or {_ELSEWHERE}"),
        (work.adapters, "adapters", "no adapters: name the tuned model"),
        (
            work.response_format.shape is Shape.GRAMMAR,
            "grammar",
            "no grammar for the text: give a JSON schema",
        ),
        (
            work.max_tokens is not None and work.max_tokens < MIN_TOKENS,
            "max_tokens",
            f"no bound below {MIN_TOKENS} tokens",
        ),
    ]
    for is_asked, feature, told in refused:
        if is_asked:
            raise Unsupported(feature, f"the responses endpoint takes {told}")
    if foreign := [name for name in work.sampling.given() if name not in _SAMPLING]:
        told = f"the responses endpoint takes no {foreign[0]}: leave it out, or {_ELSEWHERE}"
        raise Unsupported(foreign[0], told)


def _check_model(work: Request, row: Known, effort: str | None) -> None:
    """Refuse what the model would refuse."""
    rest = "; it does with reasoning=False" if row.can_rest else ": leave it out"
    if refused := row.refused(work, effort):
        told = f"this model takes no {refused[0]} while it thinks{rest}"
        raise Unsupported(refused[0], told)
    if work.logprobs is not None and not row.takes_logprobs(effort):
        told = f"this model tells no log-probabilities while it thinks{rest}"
        raise Unsupported("logprobs", told)


# -- what is asked -----------------------------------------------------------------------------


def _bounds(work: Request) -> dict[str, Any]:
    return {} if work.max_tokens is None else {"max_output_tokens": work.max_tokens}


def _thoughts(work: Request, row: Known, effort: str | None) -> dict[str, Any]:
    """A summary is asked for where thinking is: OpenAI refuses it to accounts it does not know."""
    reasoning = {} if effort is None else {"effort": effort}
    if work.reasoning:
        reasoning["summary"] = "auto"
    include = []
    if row.thinks and effort != known.NONE:
        include.append("reasoning.encrypted_content")
    if work.logprobs is not None:
        include.append("message.output_text.logprobs")
    fields: dict[str, Any] = {"reasoning": reasoning, "include": include}
    if work.logprobs is not None:
        fields["top_logprobs"] = work.logprobs
    return {name: value for name, value in fields.items() if value or name == "top_logprobs"}


def _form(work: Request) -> dict[str, Any]:
    form = work.response_format
    if form.shape is Shape.JSON:
        return {"text": {"format": {"type": "json_object"}}}
    if form.shape is Shape.SCHEMA:
        told = {"type": "json_schema", "name": "reply", "schema": dict(form.schema)}
        return {"text": {"format": {**told, "strict": keeps_rules(form.schema)}}}
    return {}


def _tools(work: Request) -> dict[str, Any]:
    if not work.tools:
        return {}
    choice: str | dict[str, str] = work.tool_choice
    if choice not in TOOL_CHOICES:
        choice = {"type": "function", "name": work.tool_choice}
    fields = {"tools": [_tool(spec) for spec in work.tools], "tool_choice": choice}
    return fields if work.parallel_tools else {**fields, "parallel_tool_calls": False}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    """Not strict, which is the endpoint's own default: it would demand what may be left out."""
    tool = {
        "type": "function",
        "name": spec.name,
        "parameters": {"type": "object", "properties": {}, **spec.parameters},
        "strict": False,
    }
    return {**tool, "description": spec.description} if spec.description else tool
