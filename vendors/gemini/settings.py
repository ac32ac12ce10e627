"""From a request to ``generationConfig``, ``tools`` and ``toolConfig``. Pure.

What Gemini has no field for is refused, and so is what a model takes and does not heed. What a
model refuses in words of its own (more candidates than it draws, log-probabilities that it does not
tell) is left to it: that is on its card, and changes without notice.
"""

from __future__ import annotations

from typing import Any

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import Shape, ToolSpec
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.gemini import known
from llmdispatcher.vendors.gemini.known import Family

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}
_IGNORED = {"temperature", "top_p", "top_k"}
_PENALTIES = {"presence_penalty", "frequency_penalty"}

MAX_SEED = 2**31 - 1
"""Gemini's seed is a signed number of 32 bits."""


def check(request: Request) -> None:
    """Refuse what no Gemini model does. Raises Unsupported."""
    if request.prompt is not None:
        what = "suffix" if request.suffix else "prompt"
        raise Unsupported(
            what, "Gemini continues no raw text: give messages, which it answers as a conversation"
        )
    if request.prefill:
        raise Unsupported(
            "prefill",
            "Gemini begins its replies itself: say in the messages how the reply should begin, or"
            " ask for a form with schema=…",
        )
    if request.adapters:
        raise Unsupported(
            "adapters", "Gemini applies no LoRA adapters by request: name a tuned model instead"
        )
    if request.response_format.shape is Shape.GRAMMAR:
        raise Unsupported("grammar", "Gemini follows no grammars: give a JSON schema instead")


def generation(request: Request, model: str) -> dict[str, Any]:
    """Return ``generationConfig``, empty where all is left to Gemini. Raises Unsupported."""
    family = known.family(model)
    config = _sampling(request, model, family)
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.stop:
        config["stopSequences"] = [*request.stop]
    if request.n > 1:
        config["candidateCount"] = request.n
    if request.logprobs is not None:
        config["responseLogprobs"] = True
        if request.logprobs:
            config["logprobs"] = request.logprobs
    form = request.response_format
    if form.is_json:
        config["responseMimeType"] = "application/json"
        if form.shape is Shape.SCHEMA:
            config["responseJsonSchema"] = dict(form.schema)
    if thinking := _thinking(request, model, family):
        config["thinkingConfig"] = thinking
    return config


def _sampling(request: Request, model: str, family: Family) -> dict[str, Any]:
    given = request.sampling.given()
    for name in given:
        if name not in _SAMPLING:
            raise Unsupported(name, f"Gemini has no {name}: leave it out, or name another vendor")
        if name in _IGNORED and not family.samples:
            raise Unsupported(name, f"{model} takes a {name} and does not heed it: leave it out")
        if name in _PENALTIES and not family.penalties:
            raise Unsupported(
                name, f"{model} takes no penalties: leave them out, or take Gemini 2.5"
            )
    if given.get("top_k") == 0:
        raise Unsupported("top_k", "Gemini cannot keep all tokens: give a top_k of 1 or more")
    if given.get("seed", 0) > MAX_SEED:
        raise Unsupported("seed", f"Gemini's seeds end at {MAX_SEED}")
    return {_SAMPLING[name]: value for name, value in given.items()}


def _thinking(request: Request, model: str, family: Family) -> dict[str, Any]:
    """Thoughts are told where thinking was asked for; else all is left to the model."""
    if request.reasoning is False:
        return _unthinking(model, family)
    if request.reasoning is None and request.effort is None:
        return {}
    if not family.thinks:
        what = "reasoning" if request.effort is None else "effort"
        raise Unsupported(what, f"{model} does not think: take Gemini 2.5 or newer")
    config: dict[str, Any] = {"includeThoughts": True}
    if family.budget is not None:
        effort = request.effort
        config["thinkingBudget"] = -1 if effort is None else known.tokens(effort, family.budget)
    elif request.effort is not None:
        config["thinkingLevel"] = known.nearest(request.effort, family.levels).upper()
    return config


def _unthinking(model: str, family: Family) -> dict[str, Any]:
    if not family.thinks:
        return {}
    if not family.stoppable:
        raise Unsupported(
            "reasoning", f"{model} always thinks: effort='minimal' has it think as little as it can"
        )
    return {"thinkingBudget": 0} if family.budget else {"thinkingLevel": family.levels[0].upper()}


# -- tools -------------------------------------------------------------------------------------


def tools(request: Request, model: str) -> dict[str, Any]:
    """Return ``tools`` and ``toolConfig``. Raises Unsupported.

    ``auto`` is not sent: it is what Gemini does by itself.
    """
    choice, form = request.tool_choice, request.response_format.shape
    if not request.tools:
        return {}
    if choice == "none" and form is not Shape.TEXT:
        return {}  # as good as none, says Google; and where some are told, some models refuse forms
    if choice != "none":
        _check_tools(request, model)
    told: dict[str, Any] = {"tools": [{"functionDeclarations": [*map(_declared, request.tools)]}]}
    if choice == "auto":
        return told
    calling: dict[str, Any] = {"mode": "NONE" if choice == "none" else "ANY"}
    if choice not in {"none", "required"}:
        calling["allowedFunctionNames"] = [choice]
    return {**told, "toolConfig": {"functionCallingConfig": calling}}


def _check_tools(request: Request, model: str) -> None:
    if not request.parallel_tools:
        raise Unsupported(
            "parallel_tools",
            "Gemini cannot be kept from calling several tools at once: leave parallel_tools out,"
            " and answer every call",
        )
    if request.response_format.shape is Shape.TEXT:
        return
    if request.tool_choice != "auto":
        raise Unsupported("response_format", "a call is demanded, which has its own form")
    if not known.family(model).forms_with_tools:
        raise Unsupported(
            "response_format",
            f"{model} takes no tools where the reply has a form: leave out one of the two, forbid"
            " calls with tool_choice='none', or take Gemini 3 or newer",
        )


def _declared(spec: ToolSpec) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": spec.name}
    if spec.description:
        declared["description"] = spec.description
    if spec.parameters:
        declared["parametersJsonSchema"] = dict(spec.parameters)
    return declared
