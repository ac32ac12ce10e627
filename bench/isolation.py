"""Claim: a model in a process of its own is as fast as in this one, or nearly, and soon there.

    python bench/isolation.py [--llama-bin DIR] [--files DIR] [--threads 2] [--rounds 7] [--quick]

The same file, threads and prompts through ``LlamaCpp(isolation="process")``, the default, and
``isolation="thread"``, which take turns, each in a program of its own:

    generation      tokens per second of 1 and of 8 streams, as their readers see them
    first token     of a prompt of a few tokens, on a model that is loaded
    cold start      from the start of a program until its first token is there: Python, imports,
                    the worker's start, the load; ``llama-server``, from its start on, beside it
    recovery        from SIGKILL to the worker, in the middle of a reply, to the next reply
    memory          of a worker before it loads a model, which plans count (planning.WORKER_BYTES)

Models have random weights and the shapes of real ones (``shapes.py``); cold starts and recovery are
those of the embedded model. Needs the extra ``llamacpp``, gguf and numpy.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from crowd import Setup
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
from rivals import Server
from shapes import SHAPES, write

import llmdispatcher.models

KINDS = ("thread", "process")
SCRIPT = Path(__file__).with_name("isolation_contender.py")
DEMO = Path(llmdispatcher.models.__file__ or "").with_name("demo.gguf")

STREAMS = (1, 8)
TOKENS = {"15M": 400, "135M": 120}
PROMPT = "the quick brown fox jumps over the lazy dog and "

FIRST_ROUNDS = 60
"""First tokens that are measured: single ones differ by more than what is looked for."""

GOAL_RATIO, GOAL_MS = 0.95, 2.0

ONE_REPLY = (
    "from llmdispatcher import Dispatcher, LlamaCpp, Request\n"
    "import sys\n"
    "d = Dispatcher(LlamaCpp(sys.argv[1], isolation=sys.argv[2]))\n"
    "for _ in d.stream(Request(prompt='Once'), max_tokens=1): pass\n"
    "print('there', flush=True)\n"
)
BARE_WORKER = (
    "import llmdispatcher.vendors.llamacpp.worker.main, llmdispatcher.vendors.llamacpp.making\n"
    "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')))\n"
)


def speeds(
    stack: ExitStack, model: Path, threads: int, rounds: int, tokens: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of both kinds for each number of streams."""
    children = {
        kind: stack.enter_context(
            Child(kind, [sys.executable, str(SCRIPT), kind, str(model), str(threads)])
        )
        for kind in KINDS
    }
    found = {}
    for streams in STREAMS:

        def turn(child: Child, number: int, streams: int = streams) -> dict[str, float]:
            prompts = [f"{number} {index} {PROMPT}" * 4 for index in range(streams)]
            answer: dict[str, float] = child.ask(prompts=prompts, tokens=tokens)
            return answer

        turns = interleave(rounds, {k: _bound(turn, child) for k, child in children.items()})
        found[str(streams)] = {
            name: {
                "process": spread([each[name] for each in turns["process"]]),
                "thread": spread([each[name] for each in turns["thread"]]),
                "ratio": median_ratio(
                    [each[name] for each in turns["process"]],
                    [each[name] for each in turns["thread"]],
                ),
            }
            for name in ("generation", "whole")
        }
    return found


def _bound(turn: Callable[..., Any], child: Child) -> Callable[[int], Any]:
    return lambda number: turn(child, number)


def first_tokens(stack: ExitStack, threads: int) -> dict[str, Any]:
    """Return what a worker adds to the time to a first token of the embedded model."""
    turns = {}
    for kind in KINDS:
        command = [sys.executable, str(SCRIPT), kind, str(DEMO), str(threads)]
        child = stack.enter_context(Child(kind, command))
        turns[kind] = lambda number, child=child: child.ask(prompts=[f"{number} fox"], tokens=1)
    found = interleave(FIRST_ROUNDS, turns)
    times = {kind: [1000 * each["first_s"] for each in found[kind]] for kind in KINDS}
    added = median_difference(times["process"], times["thread"])
    return {kind: spread(times[kind]) for kind in KINDS} | {"added_ms": added}


def cold_starts(rounds: int, llama_bin: Path | None) -> dict[str, Any]:
    """Return how long programs take from their start to a first token."""

    def program(kind: str) -> float:
        began_s = time.perf_counter()
        command = [sys.executable, "-c", ONE_REPLY, str(DEMO), kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            if process.stdout is None or not process.stdout.readline():
                raise SystemExit("the program ended without a reply")
            return time.perf_counter() - began_s

    starts: dict[str, Callable[[int], float]] = {
        kind: lambda _, kind=kind: program(kind)  # type: ignore[misc]
        for kind in KINDS
    }
    if llama_bin is not None:
        starts["llama-server"] = lambda _: served(llama_bin / "llama-server")
    return {name: spread(times) for name, times in interleave(rounds, starts).items()}


def served(program: Path) -> float:
    """Return how long llama-server takes from its start to a first token."""
    setup = Setup(str(DEMO), 512, 1, 1)
    began_s = time.perf_counter()
    with closing(Server(program, setup, unified=True)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        job = json.dumps({"prompt": "Once", "n_predict": 1})
        connection.request("POST", "/completion", job, {"Content-Type": "application/json"})
        connection.getresponse().read()
        took_s = time.perf_counter() - began_s
        connection.close()
    return took_s


def recoveries(stack: ExitStack, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds from a kill to the next reply, and the worker's memory with the model."""
    command = [sys.executable, str(SCRIPT), "process", str(DEMO), "1"]
    child = stack.enter_context(Child("process", command))
    memory: dict[str, float] = child.ask(memory=True)
    return spread([child.ask(kill=True) for _ in range(rounds)]), memory


def bare_mib() -> float:
    """Return what a worker takes before it loads a model, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", BARE_WORKER], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[1]) / 1024


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    rows = [
        (
            f"{shape}, {streams}",
            f"{part['generation']['thread']['median']:.0f}",
            f"{part['generation']['process']['median']:.0f}",
            f"{part['generation']['ratio']:.3f}",
            f"{part['whole']['ratio']:.3f}",
            "yes" if part["generation"]["ratio"] >= GOAL_RATIO else "NO",
        )
        for shape, parts in result["speed"].items()
        for streams, part in parts.items()
    ]
    heads = ("model, streams", "thread tok/s", "process tok/s", "ratio", "whole", "≥ 0.95")
    show_table("Generation, process ÷ thread", heads, rows)
    first = result["first_token"]
    added = first["added_ms"]
    print(
        f"\nfirst token, embedded model: thread {first['thread']['median']:.2f} ms,"
        f" process {first['process']['median']:.2f} ms, added {added:.2f} ms"
        f" (goal ≤ {GOAL_MS:g}: {'met' if added <= GOAL_MS else 'NOT met'})"
    )
    for name, times in result["cold_start_s"].items():
        print(f"cold start to first token, {name}: {times['median']:.2f} s")
    print(f"from SIGKILL to the next reply: {result['recovery_s']['median']:.2f} s")
    memory = result["memory_mib"]
    print(
        f"a worker before it loads a model: {memory['bare']:.0f} MiB;"
        f" with the embedded one: {memory['VmRSS']:.0f} MiB"
    )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llama-bin", type=Path, help="folder of llama-server")
    parser.add_argument("--files", type=Path, help="folder that keeps the models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the 15M shape alone, three rounds")
    return parser.parse_args(argv)


def main() -> None:
    """Measure, print, save."""
    options = arguments()
    shapes = ["15M"] if options.quick else [*TOKENS]
    rounds = 3 if options.quick else options.rounds
    facts = machine("llama-cpp-python", "llmdispatcher")
    speed = {}
    with tempfile.TemporaryDirectory() as made:
        folder = options.files or Path(made)
        for name in shapes:
            shape = SHAPES[name]
            path = folder / f"{shape.name}-{shape.matrices}.gguf"
            if not path.exists():
                write(path, shape)
            with ExitStack() as stack:
                tokens = TOKENS[name]
                speed[name] = speeds(stack, path, options.threads, rounds, tokens)
            print(f"measured: {name}", file=sys.stderr)
    with ExitStack() as stack:
        first = first_tokens(stack, 1)
    with ExitStack() as stack:
        recovery, memory = recoveries(stack, rounds)
    result = {
        "machine": facts,
        "speed": speed,
        "first_token": first,
        "cold_start_s": cold_starts(rounds, options.llama_bin),
        "recovery_s": recovery,
        "memory_mib": {"bare": bare_mib(), **memory},
        "rounds": rounds,
        "rounds_first_token": FIRST_ROUNDS,
    }
    show(result)
    save("isolation", result)


if __name__ == "__main__":
    main()
