"""Claim: guesses at the next tokens never cost much, gain where text repeats, and change nothing.

    python bench/speculation.py [--model FILE.gguf] [--rounds N] [--tokens N] [--threads N]

Tokens per second of greedy replies with ``LlamaCpp(speculate=None)``, which guesses where that was
measured to help, as a ratio to ``speculate=False``, on the same file, in turns:

    prose    a question, whose answer repeats little (the embedded model is too small to guess for)
    again    a text that the model is asked to go on with and has seen four times: what edits of
             code and quotations are like
    eight    eight of the first at once, where rows are not free

Without ``--model``: the embedded model, and shapes of 15M (F16) and 135M (Q8_0) with random
weights, whose greedy replies soon repeat themselves, as those of no trained model do. Texts are the
same but for near ties, since sums of several rows are rounded differently. Needs the extra
``llamacpp``, gguf and numpy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import shapes
from harness import interleave, machine, median_ratio, save, show_table

import llmdispatcher.models
from llmdispatcher import Dispatcher, LlamaCpp, Request

EMBEDDED = Path(llmdispatcher.models.__file__ or "").parent / "demo.gguf"

CODE = "def add(a, b):\n    return a + b\n\n"
TASKS = {
    "prose": ("Once upon a time there was a machine that", 1),
    "again": (CODE * 4 + "def add(", 1),
    "eight": ("Once upon a time there was a machine that", 8),
}
"""What is asked, and how many ask it at once."""

HEADERS = ("model, task", "plain tok/s", "guessing tok/s", "ratio", "lowest", "same text")

Turn = tuple[float, list[str]]
"""Tokens per second, and what was said."""


def asked(d: Dispatcher, task: str, tokens: int) -> Callable[[int], Turn]:
    """Return what serves a task once."""
    prompt, count = TASKS[task]

    def one(number: int) -> tuple[int, str]:
        request = Request(prompt=f"{number} {prompt}", max_tokens=tokens)
        reply = d.send(request, temperature=0)
        return reply.usage.completion_tokens, reply.text

    def turn(round_number: int) -> Turn:
        began_s = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            said = list(pool.map(one, range(round_number * count, (round_number + 1) * count)))
        took_s = time.perf_counter() - began_s
        return sum(made for made, _ in said) / took_s, [text for _, text in said]

    return turn


@dataclass(frozen=True)
class Found:
    """What was measured of one task on one model; tokens per second, and ratios of each round."""

    model: str
    task: str
    plain: float
    guessing: float
    ratio: float
    lowest: float
    same: float

    def row(self) -> list[str]:
        """Write a line of the table."""
        return [
            f"{self.model}, {self.task}",
            f"{self.plain:.0f}",
            f"{self.guessing:.0f}",
            f"{self.ratio:.3f}",
            f"{self.lowest:.3f}",
            f"{self.same:.0%}",
        ]


def measure(path: Path, options: argparse.Namespace) -> list[Found]:
    """Run all tasks on one model."""
    found = []
    with ExitStack() as stack:
        kinds = {
            name: stack.enter_context(
                Dispatcher(
                    LlamaCpp(
                        path,
                        speculate=speculate,
                        max_threads=options.threads,
                        isolation="thread",
                    )
                )
            )
            for name, speculate in (("plain", False), ("guessing", None))
        }
        for task in TASKS:
            runs = {name: asked(d, task, options.tokens) for name, d in kinds.items()}
            for run in runs.values():
                run(options.rounds)  # warms up
            turns = interleave(options.rounds, runs)
            speeds = {name: [speed for speed, _ in made] for name, made in turns.items()}
            pairs = zip(turns["plain"], turns["guessing"], strict=True)
            same = sum(a[1] == b[1] for a, b in pairs) / options.rounds
            ratios = [b / a for a, b in zip(speeds["plain"], speeds["guessing"], strict=True)]
            found.append(
                Found(
                    path.stem,
                    task,
                    statistics.median(speeds["plain"]),
                    statistics.median(speeds["guessing"]),
                    median_ratio(speeds["guessing"], speeds["plain"]),
                    min(ratios),
                    same,
                )
            )
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = [options.model] if options.model else [EMBEDDED, *made(Path(folder))]
        results = [found for path in models for found in measure(path, options)]
    show_table("Guessing against not guessing", HEADERS, [found.row() for found in results])
    told = [asdict(found) for found in results]
    save("speculation", {"machine": machine("llama-cpp-python"), "results": told})


def made(folder: Path) -> list[Path]:
    """Write the models with random weights."""
    paths = []
    for name, shape in shapes.SHAPES.items():
        paths.append(folder / f"{name}.gguf")
        shapes.write(paths[-1], shape)
    return paths


if __name__ == "__main__":
    main()
