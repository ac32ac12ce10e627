"""Claim: many requests at once are as fast as llama.cpp can decode them, and nobody waits long.

    python bench/engine.py --llama-bin DIR [--quick] [--envs DIR] [--files DIR] [--threads 2]

Throughput at 1, 4, 8 and 16 requests (``throughput.py``), greedy, distinct prompts, the same file,
threads, batch and flash attention for all, each in a process of its own, in turns:

    batched-bench   llama-batched-bench: C++ alone, nothing sampled, no text. The limit; with
                    ``-kvu`` in the layout of our engine (one cache for all sequences), without in
                    the other (a cache each), over which attention is faster
    bare            llama_decode, greedy sampler, token_to_piece in a ctypes loop
    async, sync     ``llmdispatcher.AsyncDispatcher`` and ``Dispatcher``, streams
    llama-server    with a streaming HTTP client for each request, in both layouts: raw clients,
                    the least that a server can cost; and with the SDK ``openai``, in one process,
                    a thread for each request, which is what Python programs use
    lock            ``llama_cpp.Llama``, a lock, threads
    xllamacpp       its in-process server, threads; a wheel for AVX2, not built for this machine:
                    on the 15M shape that alone can make it faster, see ``shapes.py``

Then how long callers of our engine wait (``latency.py``). Models have random weights and the shapes
of real ones (``shapes.py``). Of the limit, ``llama-server``, the SDK and xllamacpp those are left
out that are not there, and it is said. A turn that other processes disturb is taken again, and a
goal whose turns stayed disturbed counts as noisy, not as met: two threads on one free processor
wait for each other, and that says nothing about anybody. On a quiet machine the bench takes about a
quarter of an hour, ``--quick`` three minutes. Needs the extra ``llamacpp``, gguf and numpy;
``--envs`` and ``--files`` keep what is installed and written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import latency
import throughput
from crowd import Setup
from harness import ChildDied, machine, save, show_table
from latency_contender import STREAMS
from rivals import python_with
from shapes import SHAPES, Shape, write
from throughput import (
    BARE,
    CONTENDERS,
    LIMIT,
    LOCK,
    NOISY,
    OURS,
    PACKAGES,
    SERVER,
    SERVER_SDK,
    SERVER_SPLIT,
    Options,
    disturbance,
)

CONTEXT = 8_192
"""Tokens that all sequences share."""

PROMPT_TOKENS = 64
SMALL, LARGE = "15M", "135M"

BUSY = 8
"""Sequences at which rivals are compared."""

LIMIT_GOALS = (("generation", LIMIT, "≥ 0.95"),)
"""For the large model: the limit samples nothing, which on the small one alone costs more."""
BARE_GOALS = (("generation", BARE, "≥ 0.95"), ("whole", BARE, "≥ 0.95"))
"""For the small model, where Python's share of a step is largest."""
RIVAL_GOALS = (
    ("whole", SERVER, "≥ 1.5"),
    ("whole", SERVER_SDK, "≥ 1.5"),
    ("whole", LOCK, "≥ 1.8"),
)
"""A server is held against us twice: with clients that cost almost nothing, and with real ones."""


def files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Write the models that are not there yet."""
    made = {}
    for name in names:
        shape: Shape = replace(SHAPES[name], context=CONTEXT)
        made[name] = path = folder / f"{name}-{shape.matrices}.gguf"
        if not path.exists():
            print(f"writing {path}", file=sys.stderr)
            partial = path.with_suffix(".part")
            write(partial, shape)
            partial.replace(path)
    return made


def goals(cases: Sequence[Mapping[str, Any]], waits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against the goals."""
    return [
        {"what": what, "goal": goal, "found": found, "met": _met(goal, found), "others": others}
        for what, goal, found, others in [*_speed_goals(cases), *_wait_goals(waits)]
        if found is not None
    ]


Measured = tuple[list[dict[str, Any]], Mapping[str, Any]]
"""The cases of throughput, and latency; empty where it was not measured."""

Goal = tuple[str, str, float | None, float]
"""What, how much, what was found, and how many processors others kept busy meanwhile."""


def _met(goal: str, found: float) -> bool:
    """Compare with a goal such as "≥ 0.95"."""
    sign, bound = goal.split()
    return found >= float(bound) if sign == "≥" else found <= float(bound)


def _speed_goals(cases: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    """Yield the goals of throughput; a rival's ratio is of all tokens, as callers see them."""
    for case in cases:
        wanted = list(LIMIT_GOALS if case["name"].startswith(LARGE) else BARE_GOALS)
        if case["sequences"] == BUSY:
            wanted += RIVAL_GOALS
        for ours in OURS:
            for phase, other, goal in wanted:
                it = case["contenders"].get(ours, {}).get(f"{phase}_over", {})
                if other in it:
                    what = f"{case['name']}: {ours}, {phase} ÷ {other}"
                    yield what, goal, it[other], disturbance(case, ours, other)


def _wait_goals(waits: Mapping[str, Any]) -> Iterator[Goal]:
    """Yield the goals of latency."""
    if not waits:
        return
    others = waits["others"]
    yield "first token, warm ÷ cold", "≤ 0.05", waits["warm"]["warm_over_cold"], others["warm"]
    gaps = waits["gaps"]
    if gaps["streams"] == STREAMS:
        yield (
            "longest gap beside a long prompt ÷ a full step",
            "≤ 2",
            gaps["longest_over_step"],
            max(others["gaps"], others["step"]),
        )
    for where, words in latency.PLACES.items():
        free_ms = waits["cancel"][where]["release_ms"]
        yield f"caller is free, ms: {words}", "≤ 50", free_ms, others[where]


def show_throughput(cases: Sequence[Mapping[str, Any]], options: Options) -> None:
    """Print the table, and what it does not say."""
    show_table(
        f"{options.prompt_tokens} + {options.tokens} tokens for each request"
        f" ({options.rounds} rounds; medians; x, + and ± are medians of each round's)",
        throughput.HEADERS,
        [row for case in cases for row in throughput.rows(case)],
    )
    for case in cases:
        for line in throughput.differences(case):
            print(f"settings differ: {line}")
        for name, why in case["left_out"].items():
            print(f"left out: {case['name']}, {name}: {why}")


def show_goals(held: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of goals."""
    show_table(
        "Goals",
        ("what", "goal", "found", "met"),
        [
            (
                it["what"],
                it["goal"],
                f"{it['found']:.3f}",
                "noisy" if it["others"] > NOISY else "yes" if it["met"] else "NO",
            )
            for it in held
        ],
    )
    if any(it["others"] > NOISY for it in held):
        print(f"noisy: others kept more than {NOISY} processors busy, so this proves nothing")


def find_pythons(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return the interpreters of contenders with an environment, that are wanted and can be had."""
    found: dict[str, Path] = {}
    if "throughput" not in options.parts:
        return found
    for name in PACKAGES.keys() & options.contenders:
        try:
            found[name] = python_with(PACKAGES[name], (options.envs or folder).resolve())
        except ChildDied as error:
            print(error, file=sys.stderr)
    return found


def parse() -> argparse.Namespace:
    """Read the command line; ``--quick`` changes the defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--llama-bin", type=Path, help="a folder with llama.cpp's programs")
    parser.add_argument("--envs", type=Path, help="keep the environments of rivals here")
    parser.add_argument("--files", type=Path, help="keep the models here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--tokens", type=int, help="new ones of each reply")
    parser.add_argument("--sequences", type=int, nargs="+")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=[SMALL, LARGE])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS)
    parts = ("throughput", "latency")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--save-as", help="name of the JSON; engine, if nothing was left away")
    options = parser.parse_args()
    quick = options.quick
    is_whole = not quick and len(options.parts) + len(options.shapes) == len(parts) + 2
    if is_whole and options.sequences is None and options.contenders is None:
        options.save_as = options.save_as or "engine"
    less = [kind for kind in CONTENDERS if kind != SERVER_SPLIT]
    options.contenders = options.contenders or (less if quick else CONTENDERS)
    options.rounds = options.rounds or (2 if quick else 5)
    options.tokens = options.tokens or (32 if quick else 64)
    options.sequences = options.sequences or ([BUSY] if quick else [1, 4, BUSY, 16])
    return options


def measure(options: argparse.Namespace, measured: Options, paths: Mapping[str, Path]) -> Measured:
    """Measure what was asked for."""
    setups = {name: Setup(str(path), CONTEXT, options.threads, 1) for name, path in paths.items()}
    cases = [
        throughput.measure(replace(setup, sequences=sequences), measured)
        for setup in setups.values()
        for sequences in options.sequences
        if "throughput" in options.parts
    ]
    if "latency" not in options.parts:
        return cases, {}
    rounds, tries = (1, 1) if options.quick else (3, 2)  # most situations take seconds
    setup = setups.get(LARGE) or next(iter(setups.values()))
    try:
        return cases, latency.measure(setup, replace(measured, rounds=rounds, tries=tries))
    except (ChildDied, ValueError) as error:  # what was measured before is worth showing
        print(f"latency was not measured: {error}")
        return cases, {}


def main() -> None:
    """Measure, show, save."""
    options = parse()
    facts = machine("llmdispatcher", "llama-cpp-python")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.files or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        measured = Options(
            contenders=tuple(options.contenders),
            rounds=options.rounds,
            tries=2 if options.quick else 3,
            prompt_tokens=PROMPT_TOKENS,
            tokens=options.tokens,
            llama_bin=options.llama_bin,
            pythons=find_pythons(options, Path(temporary)),
        )
        cases, waits = measure(options, measured, files(folder, options.shapes))
    if cases:
        show_throughput(cases, measured)
    if waits:
        latency.show(waits)
    held = goals(cases, waits)
    show_goals(held)
    if options.save_as is None:
        print("\nnot written: that takes the whole bench, or --save-as")
        return
    asked = ("threads", "rounds", "tokens")
    settings = {name: getattr(options, name) for name in asked}
    settings |= {"prompt_tokens": PROMPT_TOKENS, "context": CONTEXT}
    results = {"throughput": cases, "latency": waits, "goals": held}
    save(options.save_as, {"machine": facts, "options": settings, **results})


if __name__ == "__main__":
    main()
