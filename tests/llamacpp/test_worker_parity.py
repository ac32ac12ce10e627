"""What a worker answers is what the same model answers in a thread, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from embedding_gguf import encoder, qwen3_reranker
from lora_gguf import lora
from tiny_gguf import tiny_model
from vision_gguf import picture, seeing_model, tiny_projector

from llmdispatcher import (
    Dispatcher,
    DispatcherError,
    Image,
    LlamaCpp,
    Reply,
    Request,
    RequestError,
    ToolSpec,
    user,
)

SEEDED: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "seed": 7, "max_tokens": 40}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
OBJECT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
ITSELF: dict[str, Any] = {"type": "object"}
ITSELF["properties"] = ITSELF

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": ("Once upon", GREEDY),
    "seed": ("Once upon", SEEDED),
    "eight choices": ("Once upon", {**SEEDED, "n": 8}),
    "log-probabilities": ("Once upon", {**SEEDED, "logprobs": 20, "max_tokens": 300}),
    "all at once": ("Once upon", {**SEEDED, "n": 3, "logprobs": 5, "stop": ["a"]}),
    "a stop string": ("Once upon", {**GREEDY, "stop": ["e", "o"]}),
    "no template": (Request(prompt="Once"), GREEDY),
    "a schema": ("Who?", {**SEEDED, "schema": OBJECT, "max_tokens": 200}),
    "tools": ("Add.", {**SEEDED, "tools": [ADD], "max_tokens": 100}),
    "a beginning": ("Once", {**SEEDED, "prefill": "It was"}),
    "several turns": ([user("Once"), user("upon")], SEEDED),
    "NUL and other controls": ("a\0b\x1b[2Jc\r\n", SEEDED),
    "what is no text": ("half a pair: \ud83d", SEEDED),
    "emoji and marks": ("\U0001f469\u200d\U0001f467 \u202eabc \ufe0f", SEEDED),
    "a prompt too long": ("word " * 2_000_000, SEEDED),
    "an image for the blind": ([user([Image(data=picture(1)), "a"])], SEEDED),
    "a schema deeper than any": (
        "Who?",
        {**SEEDED, "schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}},
    ),
}


def both(spec: LlamaCpp, ask: Callable[[Dispatcher], Any]) -> list[Any]:
    """Ask in a child process and in a thread; an error is an answer too."""
    answers = []
    for isolation in ("process", "thread"):
        with Dispatcher(attrs.evolve(spec, isolation=isolation)) as d:
            try:
                answers.append(ask(d))
            except DispatcherError as error:
                answers.append((type(error), str(error), vars(error).keys()))
    return answers


def said(reply: Reply) -> Mapping[str, Any]:
    """Return all of a reply that does not depend on time."""
    return {"choices": reply.choices, "usage": reply.usage, "warnings": reply.warnings}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    """A small model in one thread, whose sums have one order."""
    path = tiny_model(tmp_path_factory.mktemp("same") / "m.gguf", vocab=600, context=512)
    return LlamaCpp(path, max_threads=1, cache_type="f32")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES)
def test_a_reply_is_the_same(case: str, model: LlamaCpp) -> None:
    """Text, log-probabilities, counts and errors, whatever is asked."""
    prompt, options = CASES[case]

    there, here = both(model, lambda d: said(d.send(prompt, **options)))

    assert there == here


@pytest.mark.parametrize("schema", [ITSELF, {"default": {1, 2}}, {"default": object()}])
def test_what_json_cannot_hold_is_the_callers_mistake(
    schema: dict[str, Any], model: LlamaCpp
) -> None:
    """In both, and whoever comes next is served."""
    with Dispatcher(model) as d:
        with pytest.raises(RequestError):
            d.send("Who?", schema=schema, **SEEDED)
        assert d.send("Once", **GREEDY).usage.completion_tokens > 0


def test_what_is_seen_is_the_same(tmp_path: Path) -> None:
    """Images cross as they are."""
    spec = LlamaCpp(
        seeing_model(tmp_path / "m.gguf", "mlp"),
        projector_path=tiny_projector(tmp_path / "eye.gguf"),
        max_threads=1,
        cache_type="f32",
    )
    content: list[str | Image] = ["a", Image(data=picture(1)), "b", Image(data=picture(2))]

    there, here = both(spec, lambda d: said(d.send([user(content)], **SEEDED)))

    assert there == here


def test_what_is_adapted_is_the_same(tmp_path: Path) -> None:
    """Adapters are asked for by name, with their strength."""
    path = tiny_model(tmp_path / "m.gguf", vocab=600, context=512)
    files = {
        name: lora(tmp_path / f"{name}.gguf", path, seed=seed) for seed, name in enumerate("ab")
    }
    spec = LlamaCpp(path, adapters=files, max_threads=1, cache_type="f32")

    def ask(d: Dispatcher) -> list[Any]:
        sets: list[dict[str, float]] = [{}, {"a": 1.0}, {"a": -0.5, "b": 2.0}]
        return [said(d.send("Once", adapters=each, **SEEDED)) for each in sets]

    there, here = both(spec, ask)

    assert there == here
    assert there[0] != there[1]


def test_vectors_and_scores_are_the_same(tmp_path: Path) -> None:
    """Two thousand texts in one request, and documents for a query."""
    texts = [f"text {number} " * (number % 7 + 1) for number in range(2000)]
    embedding = LlamaCpp(encoder(tmp_path / "e.gguf"), max_threads=1)
    ranking = LlamaCpp(qwen3_reranker(tmp_path / "r.gguf"), max_threads=1)

    there, here = both(embedding, lambda d: d.embed(texts).vectors)
    best, found = both(ranking, lambda d: d.rerank("text", texts[:50]).scores)

    assert there == here
    assert len(there) == len(texts)
    assert best == found


def test_a_state_that_was_saved_there_is_read_here(model: LlamaCpp, tmp_path: Path) -> None:
    """States are the same in both, and errors about files too."""
    said_before = [user("ba da ga la ma na " * 10)]
    path = tmp_path / "a.state"

    saved = both(model, lambda d: (d.send(said_before, **GREEDY), d.save_state(path, said_before)))
    read = both(model, lambda d: d.restore_state(path))
    missing = both(model, lambda d: d.restore_state(tmp_path / "none"))
    nowhere = both(model, lambda d: d.save_state(tmp_path / "no" / "folder", said_before))

    assert saved[0][1] == saved[1][1]
    assert read[0] == read[1]
    assert missing[0] == missing[1]
    assert nowhere[0] == nowhere[1]
