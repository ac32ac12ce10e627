"""Which settings go to Gemini with a request, and what is refused before it goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from asking_gemini import NEW, OLD, SITE, WIRE, ask, body

from llmdispatcher import EmbedRequest, Image, Request, RerankRequest, ToolSpec
from llmdispatcher.models.errors import BadReply, Unsupported
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import system, user
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.gemini import known
from llmdispatcher.vendors.gemini.wire import GeminiWire
from llmdispatcher.vendors.wire.exchange import Site

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
ADD = ToolSpec("add", "Adds.", SCHEMA)
SUB = ToolSpec("sub")
PIXEL = b"\x89PNG"


def test_settings_are_sent_under_geminis_names() -> None:
    """What is not set is not sent, and without any setting there is no generationConfig."""
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
    )
    sent = body(
        Request(messages="x", sampling=sampling, max_tokens=9, stop=["a", "b"], n=2, logprobs=3)
    )
    assert sent["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": -0.2,
        "maxOutputTokens": 9,
        "stopSequences": ["a", "b"],
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
    }
    assert body(Request.of("x")).keys() == {"contents"}
    assert body(Request.of("x", logprobs=0))["generationConfig"] == {"responseLogprobs": True}


def test_forms_are_sent() -> None:
    """JSON goes by its media type, and a schema as the JSON schema that it is."""
    loose = body(Request.of("x", response_format=ResponseFormat("json")))["generationConfig"]
    assert loose == {"responseMimeType": "application/json"}
    strict = body(Request.of("x", schema=SCHEMA))["generationConfig"]
    assert strict == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}


def test_tools_are_declared_and_chosen() -> None:
    """What Gemini does by itself is not sent; a named tool is the only one allowed."""
    sent = body(Request.of("x", tools=[ADD, SUB]))
    assert sent["tools"] == [
        {
            "functionDeclarations": [
                {"name": "add", "description": "Adds.", "parametersJsonSchema": SCHEMA},
                {"name": "sub"},
            ]
        }
    ]
    assert "toolConfig" not in sent

    def calling(**options: Any) -> Any:
        return body(Request.of("x", tools=[ADD, SUB], **options))["toolConfig"]

    assert calling(tool_choice="none") == {"functionCallingConfig": {"mode": "NONE"}}
    assert calling(tool_choice="required") == {"functionCallingConfig": {"mode": "ANY"}}
    named = {"mode": "ANY", "allowedFunctionNames": ["sub"]}
    assert calling(tool_choice="sub") == {"functionCallingConfig": named}


def test_tools_beside_a_form() -> None:
    """Version 3 takes both; older ones take a form once calls are forbidden."""
    both = Request.of("x", tools=[ADD], schema=SCHEMA)
    assert body(both, NEW).keys() == {"contents", "tools", "generationConfig"}
    with pytest.raises(Unsupported, match="Gemini 3 or newer"):
        body(both)
    assert "tools" not in body(attrs.evolve(both, tool_choice="none"))
    with pytest.raises(Unsupported, match="its own form"):
        body(attrs.evolve(both, tool_choice="required"), NEW)


SHOWN: dict[str, Any] = {"includeThoughts": True}
THOUGHTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (OLD, {"reasoning": True}, SHOWN | {"thinkingBudget": -1}),
    (OLD, {"reasoning": False}, {"thinkingBudget": 0}),
    (OLD, {"effort": "low"}, SHOWN | {"thinkingBudget": 1024}),
    (OLD, {"effort": "max"}, SHOWN | {"thinkingBudget": 24576}),
    ("gemini-2.5-pro", {"effort": "max"}, SHOWN | {"thinkingBudget": 32768}),
    ("gemini-2.5-pro", {"effort": "minimal"}, SHOWN | {"thinkingBudget": 512}),
    (NEW, {"reasoning": True}, SHOWN),
    (NEW, {"effort": "minimal"}, SHOWN | {"thinkingLevel": "LOW"}),
    (NEW, {"effort": "xhigh"}, SHOWN | {"thinkingLevel": "HIGH"}),
    (NEW, {"effort": "medium", "reasoning": True}, SHOWN | {"thinkingLevel": "MEDIUM"}),
    ("gemini-3-pro-preview", {"effort": "medium"}, SHOWN | {"thinkingLevel": "LOW"}),
    ("gemini-3.1-flash-lite", {"reasoning": False}, {"thinkingLevel": "MINIMAL"}),
    ("models/gemini-4-argon", {"effort": "high"}, SHOWN | {"thinkingLevel": "HIGH"}),
    ("gemini-2.0-flash", {"reasoning": False}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "options", "expected"), THOUGHTS)
def test_thinking(model: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    """2.5 takes a number of tokens and newer ones a word; thoughts are told when asked for."""
    sent = body(Request.of("x", **options), model)
    assert sent.get("generationConfig", {}).get("thinkingConfig", {}) == expected


def test_every_effort_has_a_place_in_every_family() -> None:
    """Whatever the word, what is sent is something that the family takes."""
    for family in known.FAMILIES:
        for effort in EFFORTS:
            if family.levels:
                assert known.nearest(effort, family.levels) in family.levels
            if family.budget:
                least, most = family.budget
                assert least <= known.tokens(effort, family.budget) <= most


GRAMMAR = ResponseFormat("grammar", grammar="root ::= x")

REFUSED: list[tuple[str, str, Callable[[], Request]]] = [
    ("prompt", OLD, lambda: Request(prompt="x")),
    ("suffix", OLD, lambda: Request(prompt="x", suffix="y")),
    ("prefill", OLD, lambda: Request.of("x", prefill="y")),
    ("adapters", OLD, lambda: Request.of("x", adapters=["a"])),
    ("grammar", OLD, lambda: Request.of("x", response_format=GRAMMAR)),
    ("parallel_tools", NEW, lambda: Request.of("x", tools=[ADD], parallel_tools=False)),
    ("min_p", OLD, lambda: Request.of("x", min_p=0.1)),
    ("repeat_penalty", OLD, lambda: Request.of("x", repeat_penalty=1.1)),
    ("top_k", OLD, lambda: Request.of("x", top_k=0)),
    ("seed", OLD, lambda: Request.of("x", seed=2**31)),
    ("temperature", NEW, lambda: Request.of("x", temperature=1)),
    ("top_p", "gemini-4-argon", lambda: Request.of("x", top_p=0.5)),
    ("presence_penalty", NEW, lambda: Request.of("x", presence_penalty=1)),
    ("frequency_penalty", "gemini-3.1-pro-preview", lambda: Request.of("x", frequency_penalty=1)),
    ("reasoning", "gemini-2.5-pro", lambda: Request.of("x", reasoning=False)),
    ("reasoning", NEW, lambda: Request.of("x", reasoning=False)),
    ("reasoning", "gemini-2.0-flash", lambda: Request.of("x", reasoning=True)),
    ("effort", "gemma-3-27b-it", lambda: Request.of("x", effort="low")),
    ("images", OLD, lambda: Request.of([system([Image(PIXEL)]), user("x")])),
    ("images", OLD, lambda: Request.of(user([Image(url="file:///etc/x.png")]))),
]  # fmt: skip


@pytest.mark.parametrize(("feature", "model", "make"), REFUSED)
def test_what_gemini_cannot_do_is_refused(
    feature: str, model: str, make: Callable[[], Request]
) -> None:
    """Nothing is dropped silently, and who refuses is named."""
    with pytest.raises(Unsupported) as caught:
        ask(make(), model)
    assert (caught.value.feature, caught.value.vendor, caught.value.model) == (
        feature,
        "gemini",
        model,
    )


def test_no_field_of_sampling_is_dropped() -> None:
    """Every field is sent or refused, by every family."""
    for field in attrs.fields(Sampling):
        value = 1 if field.name != "seed" else 5
        for model in (OLD, NEW, "gemini-2.0-flash", "unheard-of"):
            request = Request(messages="x", sampling=Sampling(**{field.name: value}))
            try:
                sent = body(request, model)["generationConfig"]
            except Unsupported as error:
                sent = {"refused": error.feature}
            assert [*sent.values()] in ([value], [field.name])


def test_documents_are_not_scored() -> None:
    """Gemini has no reranking, and says so."""
    with pytest.raises(Unsupported, match="embed them"):
        WIRE.exchanges(RerankRequest(query="q", documents=("d",)), WIRE.card(OLD))


PATHS = {
    "gemini-2.5-flash": "/models/gemini-2.5-flash",
    "models/gemini-2.5-flash": "/models/gemini-2.5-flash",
    "tunedModels/my-1": "/tunedModels/my-1",
    "../a?b#c/d:e f": "/models/..%2Fa%3Fb%23c%2Fd%3Ae%20f",
    "ä": "/models/%C3%A4",
}


@pytest.mark.parametrize(("model", "path"), PATHS.items())
def test_names_of_models_are_quoted(model: str, path: str) -> None:
    """A name is one step of the path, with or without Google's word before it."""
    found = ask(Request.of("x"), model)
    assert found.path == f"{path}:streamGenerateContent?alt=sse"
    assert found.streams
    (whole,) = GeminiWire(Site(vendor="g", streaming=False)).exchanges(
        Request.of("x"), attrs.evolve(WIRE.card(OLD), model=model)
    )
    assert whole.ask.path == f"{path}:generateContent"
    assert not whole.ask.streams


def test_several_candidates_are_not_streamed() -> None:
    """Gemini draws several for whole answers alone."""
    assert ask(Request.of("x", n=2)).path == "/models/gemini-2.5-flash:generateContent"


def test_fields_of_the_site_go_along() -> None:
    """Objects are merged, lists joined, and what the request says wins."""
    extra = {
        "cachedContent": "cachedContents/1",
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "seed": 1},
        "tools": [{"googleSearch": {}}],
        "contents": "never",
    }
    wire = GeminiWire(Site(vendor="gemini", extra=extra))
    sent = body(Request.of("x", seed=2, tools=[SUB]), NEW, wire)
    assert sent["cachedContent"] == "cachedContents/1"
    assert sent["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW", "seed": 2}
    assert sent["tools"] == [{"functionDeclarations": [{"name": "sub"}]}, {"googleSearch": {}}]
    assert sent["contents"][0]["role"] == "user"


def test_counting_asks_with_all_that_is_sent() -> None:
    """System and tools count too."""
    request = Request.of([system("S"), user("x")], tools=[ADD])
    counting = WIRE.counting(request, WIRE.card(OLD))
    assert counting is not None
    assert counting.path == "/models/gemini-2.5-flash:countTokens"
    sent = {"model": "models/gemini-2.5-flash", **body(request)}
    assert counting.body == {"generateContentRequest": sent}
    assert WIRE.counted({"totalTokens": 3}) == 3
    bads: tuple[Any, ...] = (
        {},
        {"totalTokens": True},
        {"totalTokens": -1},
        {"totalTokens": 2**63},
        [],
        None,
        {"totalTokens": "3"},
    )
    for bad in bads:
        with pytest.raises(BadReply):
            WIRE.counted(bad)


def test_texts_go_a_hundred_at_a_time() -> None:
    """Each batch asks for vectors of its own texts."""
    request = EmbedRequest(texts=[str(i) for i in range(201)])
    wire = GeminiWire(SITE, vector_extra={"outputDimensionality": 64})
    found = wire.exchanges(request, wire.card("gemini-embedding-001"))
    bodies = [dict(each.ask.body or {}) for each in found]
    assert [len(each["requests"]) for each in bodies] == [100, 100, 1]
    assert {each.ask.path for each in found} == {"/models/gemini-embedding-001:batchEmbedContents"}
    assert bodies[2]["requests"] == [
        {
            "model": "models/gemini-embedding-001",
            "content": {"parts": [{"text": "200"}]},
            "outputDimensionality": 64,
        }
    ]


def test_nothing_is_loaded() -> None:
    """Gemini's models are always there."""
    assert WIRE.loading(OLD) is None
