"""Claim: holding a reply to a JSON schema adds at most a tenth to the time of a token.

    python bench/constraint.py [--model FILE.gguf] [--tokens N] [--rounds N]

A reply is drawn at temperature 1 on the same model, with one thread, in turns:

    free        held to nothing: the limit
    agrees      held to a schema that nearly every token fits: a long text
    disagrees   held to a schema that nearly no token fits, as the weights are random: objects; each
                token is drawn, refused, and drawn again among those that fit

Then what it costs to check all tokens of the vocabulary at once, at each character of a text, for
us and for llama.cpp's own grammars, which read the same GBNF. Without ``--model``: random weights
in the shape of a real 15M, with 32,000 tokens (``shapes.py``). Needs the extra ``llamacpp``, gguf
and numpy.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import shapes
from harness import interleave, machine, median_difference, median_ratio, save, show_table, spread

from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.binding.opening import Setup
from llmdispatcher.vendors.llamacpp.binding.samplers import Samplers
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk
from llmdispatcher.vendors.llamacpp.engine.sampling import chain
from llmdispatcher.vendors.llamacpp.rules.constraint import Grammars
from llmdispatcher.vendors.llamacpp.rules.rules import Rule, rule_of

GOAL = 1.10
"""Of the time of a token without a rule."""

LIMIT = "free"

OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "kind": {"enum": ["first", "second", "third"]},
        "sizes": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
    },
    "required": ["name", "kind", "sizes"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "agrees": {"type": "string", "minLength": 100_000},
    "disagrees": {"type": "array", "items": OBJECT, "minItems": 1_000},
}
"""None can be complete in so few tokens: all replies are of the same length."""

JSON = r"""
root ::= value
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" space (pair (space "," space pair)*)? space "}"
pair ::= string space ":" space value
array ::= "[" space (value (space "," space value)*)? space "]"
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" ["\\bfnrt])* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,3})?
space ::= " "?
"""
"""A grammar that both engines read."""

TEXT = '{"name": "some words", "sizes": [1, 2.5e3], "more": {"a": null}}'


class Bench:
    """A loaded model."""

    def __init__(self, path: Path, tokens: int) -> None:
        room = tokens + 64
        setup = Setup(
            path=str(path),
            context_tokens=room,
            cells=room,
            slots=1,
            batch_tokens=64,
            threads=1,
            gpu_layers=0,
            cache_type="f16",
        )
        self.tokens = tokens
        self.backend = NativeBackend(setup, lambda _: True)
        self.grammars = Grammars(self.backend.vocabulary)
        self.samplers = Samplers(self.backend.vocabulary, self.backend.logits)

    def reply(self, rule: Rule | None, number: int) -> float:
        """Draw a reply; return the time of a token, in µs."""
        constraint = None if rule is None else self.grammars.constraint(rule)
        sampling = Sampling(temperature=1, seed=number)
        sampler = self.samplers.made(chain(sampling, number), (), constraint)
        self.backend.drop(0)
        self.backend.decode([Chunk(0, 0, self.backend.tokenize("a b c d")[:4], 1)])
        began = time.perf_counter()
        for position in range(4, 4 + self.tokens):
            token = sampler.sample(0)
            if self.backend.ends(token):
                token = 0  # only a free reply ends; it goes on, for the same length
            self.backend.decode([Chunk(0, position, [token], 1)])
        took_us = 1e6 * (time.perf_counter() - began) / self.tokens
        sampler.close()
        return took_us

    def spelt(self) -> list[int]:
        """Spell the text byte by byte."""
        vocabulary = self.backend.vocabulary
        found = {vocabulary.piece(token): token for token in reversed(range(vocabulary.size))}
        return [found[bytes([byte])] for byte in TEXT.encode()]

    def our_masks(self, _: int) -> list[float]:
        """Time our check of all tokens, at each character, in µs."""
        form = ResponseFormat(Shape.GRAMMAR, grammar=JSON)
        constraint = self.grammars.constraint(_rule(form))
        took = []
        for token in self.spelt():
            took.append(_time_us(constraint.mask))
            constraint.accept(token)
        return took

    def their_masks(self, _: int) -> list[float]:
        """Time llama.cpp's."""
        grammar = lib.llama_sampler_init_grammar(
            self.backend.vocabulary.pointer, JSON.encode(), b"root"
        )
        took = []
        for token in self.spelt():
            candidates = self.samplers.candidates(0)
            took.append(
                _time_us(partial(lib.llama_sampler_apply, grammar, ctypes.byref(candidates)))
            )
            lib.llama_sampler_accept(grammar, token)
        lib.llama_sampler_free(grammar)
        return took


def _time_us(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - began)


def _rule(form: ResponseFormat) -> Rule:
    rule = rule_of(form)
    assert rule is not None  # noqa: S101 - for the type checker
    return rule


def measure(path: Path, tokens: int, rounds: int) -> dict[str, Any]:
    """Measure one model."""
    bench = Bench(path, tokens)
    began = time.perf_counter()
    rules = {
        name: _rule(ResponseFormat(Shape.SCHEMA, schema=schema)) for name, schema in SCHEMAS.items()
    }
    contenders: dict[str, Rule | None] = {LIMIT: None, **rules}
    for rule in rules.values():
        bench.grammars.constraint(rule)
    prepared_s = time.perf_counter() - began
    replies = {name: partial(bench.reply, rule) for name, rule in contenders.items()}
    bench.reply(None, rounds)
    times = interleave(rounds, replies)
    masks = interleave(3, {"ours": bench.our_masks, "llama.cpp": bench.their_masks})
    return {
        "vocabulary": bench.backend.vocabulary.size,
        "prepared_s": prepared_s,
        "replies": {
            name: {
                "token_us": spread(found),
                "added_us": median_difference(found, times[LIMIT]),
                "over_free": median_ratio(found, times[LIMIT]),
                "best_over_free": min(found) / min(times[LIMIT]),
            }
            for name, found in times.items()
        },
        "mask_us": {
            name: {
                "median": statistics.median(us for run in runs for us in run),
                "highest": max(us for run in runs for us in run),
            }
            for name, runs in masks.items()
        },
    }


def show(name: str, result: dict[str, Any]) -> None:
    """Print the tables, and whether the goal is met."""
    show_table(
        f"A token of {name}, {result['vocabulary']} tokens to choose from",
        ("reply", "µs/token", "+µs", "x free", "best x"),
        [
            (
                kind,
                f"{it['token_us']['median']:.0f}",
                f"{it['added_us']:+.1f}",
                f"{it['over_free']:.3f}",
                f"{it['best_over_free']:.3f}",
            )
            for kind, it in result["replies"].items()
        ],
    )
    show_table(
        "Checking all tokens",
        ("whose", "median µs", "highest µs"),
        [
            (kind, f"{it['median']:.0f}", f"{it['highest']:.0f}")
            for kind, it in result["mask_us"].items()
        ],
    )
    worst = max(it["over_free"] for it in result["replies"].values())
    print(f"goal {GOAL:.2f}: {'met' if worst <= GOAL else 'missed'}, at most {worst:.3f};", end=" ")
    print(f"reading the vocabulary and the schemas took {result['prepared_s']:.2f} s")


def main() -> None:
    """Measure, show, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=192, help="new tokens of a reply")
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    facts = machine("llmdispatcher", "llama-cpp-python", "llguidance")
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(folder) / "random-15M.gguf"
        if options.model is None:
            shapes.write(path, shapes.SHAPE_15M)
        result = measure(path, options.tokens, options.rounds)
    show(path.stem, result)
    save("constraint", {"machine": facts, "rounds": options.rounds, "result": result})


if __name__ == "__main__":
    main()
