"""Claim: a single stream through llmdispatcher is as fast as llama.cpp in a bare loop, or nearly.

    python bench/single_stream.py [--model FILE.gguf] [--tokens N] [--threads N …] [--rounds N]

Tokens per second and time to first token of one reply, as its caller sees them, on the same file
with the same threads, context, batch and flash attention:

    bare        llama_decode, greedy sampler, token_to_piece in a ctypes loop: the limit
    llama_cpp   ``llama_cpp.Llama.create_completion(stream=True)``
    sync        ``llmdispatcher.Dispatcher.stream``
    async       ``llmdispatcher.AsyncDispatcher.stream``

Each has a process of its own (``contender.py``) and they take turns, every round with a new prompt
that is the same for all, so that no cache of prompts helps. Raw prompts, greedy; the bench stops if
texts, counts or settings differ. One thread unless told otherwise: on a busy machine the threads of
llama.cpp wait for each other, and little else is measured. Without ``--model``: the embedded one,
and a random one of the shape of a real 15M (``shapes.py``). Needs the extra ``llamacpp``, gguf and
numpy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import shapes
from contender import KINDS, SAME, Sample
from harness import (
    Child,
    interleave,
    machine,
    median_difference,
    median_ratio,
    save,
    show_table,
    spread,
)

import llmdispatcher.models

LIMIT = "bare"

HEADERS = (
    "model, threads, contender",
    "tok/s",
    "x bare",
    "whole x",
    "best x",
    "+µs/tok",
    "+CPU µs/tok",
    "first ms",
    "+ms",
    "best +ms",
)
"""``tok/s`` counts after the first token, ``whole`` the reply from the call to the end; 1 is as
fast as bare. ``+`` is what is added to bare, for µs the whole reply over its tokens. ``best``
compares the best round of each: what is left when the noise of a busy machine is taken away."""

REST_S = 0.02
"""Pause before each turn, in which the threads of the one before stop spinning."""

SHORTEST_REPLY = 16
"""Tokens; a reply that ended before that says nothing about speed."""


@dataclass(frozen=True)
class Model:
    """A file, and how long its prompts are."""

    path: Path
    context: int
    prompts: tuple[int, ...]
    most_threads: int | None = None
    """llmdispatcher takes no more for a model of this size, so nobody gets more."""


@dataclass(frozen=True)
class Case:
    """What is measured in one table row for each contender."""

    model: str
    prompt_tokens: int
    new_tokens: int
    threads: int


class Contender(Child):
    """A contender in its process."""

    def __init__(self, kind: str, model: Model, threads: int) -> None:
        script = str(Path(__file__).with_name("contender.py"))
        arguments = (kind, str(model.path), str(model.context), str(threads))
        super().__init__(kind, (sys.executable, script, *arguments))
        self.settings: dict[str, str] = self.hello

    def prompt(self, length: int, tokens: int, seed: int) -> str:
        """Let the contender with the tokenizer make a prompt."""
        return str(self.ask(length=length, tokens=tokens, seed=seed))

    def run(self, prompts: Sequence[str], tokens: int, number: int) -> Sample:
        """Complete the prompt of a round."""
        time.sleep(REST_S)
        return Sample(**self.ask(prompt=prompts[number], tokens=tokens))


def measure(model: Model, threads: int, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Measure every prompt length with one set of children."""
    with ExitStack() as stack:
        children = {kind: stack.enter_context(Contender(kind, model, threads)) for kind in KINDS}
        settings = {kind: child.settings for kind, child in children.items()}
        same = {kind: {name: it.get(name) for name in SAME} for kind, it in settings.items()}
        require_equal(f"settings of {model.path.name}", same)
        results = []
        for length in model.prompts:
            case = Case(model.path.stem, length, tokens, threads)
            prompts = [children[LIMIT].prompt(length, tokens, seed) for seed in range(rounds + 1)]
            contenders = {
                kind: partial(child.run, prompts, tokens) for kind, child in children.items()
            }
            contenders[LIMIT](rounds)
            samples = interleave(rounds, contenders)
            check(case, samples)
            results.append({**vars(case), "settings": settings, **summarize(samples)})
    return results


def check(case: Case, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Stop unless all contenders did the same work in every round."""
    for number, limit in enumerate(samples[LIMIT]):
        what = f"round {number} of {case}"
        texts = {kind: runs[number].text for kind, runs in samples.items()}
        require_equal(f"texts in {what}", texts)
        counts = {
            kind: (sample.prompt_tokens, sample.completion_tokens)
            for kind, runs in samples.items()
            if (sample := runs[number]).completion_tokens is not None
        }
        require_equal(f"token counts in {what}", counts)
        if (limit.completion_tokens or 0) < SHORTEST_REPLY:
            raise SystemExit(f"the reply in {what} ended after {limit.completion_tokens} tokens")
    distinct = len({sample.text for sample in samples[LIMIT]})
    print(f"{case}: texts identical in {len(samples[LIMIT])} rounds ({distinct} different replies)")


def require_equal(what: str, values: Mapping[str, object]) -> None:
    """Stop if not all values are the same."""
    expected = values[LIMIT]
    for kind, value in values.items():
        if value != expected:
            raise SystemExit(f"{what} differ:\n  {LIMIT}: {expected!r}\n  {kind}: {value!r}")


def summarize(samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Return the figures of every contender; the limit counted the tokens for all."""
    counts = [sample.completion_tokens or 0 for sample in samples[LIMIT]]
    limit = figures(samples[LIMIT], counts)
    contenders = {}
    for kind, runs in samples.items():
        mine = figures(runs, counts)
        contenders[kind] = {
            "tokens_per_s": spread(mine["rate"]),
            "rate_over_bare": median_ratio(mine["rate"], limit["rate"]),
            "speed_over_bare": median_ratio(limit["whole_us"], mine["whole_us"]),
            "best_speed_over_bare": min(limit["whole_us"]) / min(mine["whole_us"]),
            "added_us_per_token": median_difference(mine["whole_us"], limit["whole_us"]),
            "cpu_us_per_token": statistics.median(mine["cpu_us"]),
            "added_cpu_us_per_token": median_difference(mine["cpu_us"], limit["cpu_us"]),
            "first_ms": spread(mine["first_ms"]),
            "added_first_ms": median_difference(mine["first_ms"], limit["first_ms"]),
            "added_best_first_ms": min(mine["first_ms"]) - min(limit["first_ms"]),
            "pieces": statistics.median(sample.pieces for sample in runs),
        }
    return {
        "replies": spread(counts),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "contenders": contenders,
    }


def figures(runs: Sequence[Sample], counts: Sequence[int]) -> dict[str, list[float]]:
    """Return the figures of each round."""
    pairs = list(zip(runs, counts, strict=True))
    return {
        "rate": [(count - 1) / sample.rest_s for sample, count in pairs],
        "whole_us": [1e6 * (sample.first_s + sample.rest_s) / count for sample, count in pairs],
        "cpu_us": [1e6 * sample.cpu_s / count for sample, count in pairs],
        "first_ms": [1e3 * sample.first_s for sample in runs],
    }


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the lines of the table for one case."""
    name = f"{result['model']} {result['prompt_tokens']}+{result['replies']['median']:.0f}"
    return [
        (
            f"{name}, {result['threads']} thr, {kind}",
            f"{it['tokens_per_s']['median']:.0f}",
            f"{it['rate_over_bare']:.3f}",
            f"{it['speed_over_bare']:.3f}",
            f"{it['best_speed_over_bare']:.3f}",
            f"{it['added_us_per_token']:+.1f}",
            f"{it['added_cpu_us_per_token']:+.1f}",
            f"{it['first_ms']['median']:.2f}",
            f"{it['added_first_ms']:+.2f}",
            f"{it['added_best_first_ms']:+.2f}",
        )
        for kind, it in result["contenders"].items()
    ]


def models(given: Path | None, folder: Path) -> list[Model]:
    """Return the models to measure."""
    if given is not None:
        return [Model(given, 2_048, (64, 1_000))]
    package = Path(llmdispatcher.models.__file__ or "").parent
    random = folder / "random-15M.gguf"
    shapes.write(random, shapes.SHAPE_15M)
    return [Model(package / "demo.gguf", 512, (16, 400), 1), Model(random, 2_048, (64, 1_000))]


def main() -> None:
    """Measure, show, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file with a context of 2,048 or more")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens of a reply")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    facts = machine("llmdispatcher", "llama-cpp-python")
    with tempfile.TemporaryDirectory() as folder:
        results = [
            result
            for model in models(options.model, Path(folder))
            for threads in options.threads
            if threads <= (model.most_threads or threads)
            for result in measure(model, threads, options.tokens, options.rounds)
        ]
    show_table(
        f"One stream ({options.rounds} rounds; medians; x and ± against bare, by round)",
        HEADERS,
        [row for result in results for row in rows(result)],
    )
    save("single_stream", {"machine": facts, "rounds": options.rounds, "results": results})


if __name__ == "__main__":
    main()
