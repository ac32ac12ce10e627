"""Does the number of threads follow the processors that are really free?

    python bench/governor.py [--rounds 5] [--seconds 2] [--model FILE.gguf]

Writes tokens with a 15M model (random weights, made here) beside 0, 1, 2 … busy processes, with
every fixed number of threads and with the governor, in turns. The claim: in each case at least
0.85 times the speed of the best fixed number, which differs from case to case and which nobody
knows beforehand. Each contender has a process of its own, started once for each case.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import interleave, machine, median_ratio, save, show_table, spread
from shapes import SHAPE_15M, write

from llmdispatcher.models.request import Request
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.contract import Call
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.binding.opening import Setup
from llmdispatcher.vendors.llamacpp.engine.engine import Loaded
from llmdispatcher.vendors.llamacpp.engine.keeping import Subject
from llmdispatcher.vendors.llamacpp.engine.thread import EngineThread
from llmdispatcher.vendors.llamacpp.limits import probe
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

GOVERNED = "governed"
GOAL = 0.85
REPLY = 1900
"""Tokens of each reply: with the prompt, all that the context holds but a few."""
SETTLE_S = 1.5
"""The governor looks four times a second; neighbours that come are given this long to be seen."""


def serve(path: str, kind: str) -> None:
    """Be a contender: for each line on stdin, write for so many seconds and say how fast."""
    submit = _governed(path) if kind == GOVERNED else _fixed(path, int(kind))
    request = Request(prompt="Once upon a time", max_tokens=REPLY, sampling=Sampling(temperature=0))
    for line in sys.stdin:
        ends, tokens = time.monotonic() + float(line), 0
        while time.monotonic() < ends:
            call = submit(request)
            while time.monotonic() < ends and call.usage().completion_tokens < REPLY:
                call.receive(None)
            tokens += call.usage().completion_tokens
            call.cancel()
        print(tokens / float(line), flush=True)


def _governed(path: str) -> Callable[[Request], Call]:
    """Serve as everybody does."""
    spec = LlamaCpp(path, context_tokens=SHAPE_15M.context, isolation="thread")
    engine = spec.start(lambda _: None)
    model = engine.cards()[0].model
    engine.load(model).result()
    return lambda request: engine.submit(request, model)


def _fixed(path: str, threads: int) -> Callable[[Request], Call]:
    """Serve with the same engine, whose number of threads nobody moves."""
    setup = Setup(
        path=path,
        context_tokens=SHAPE_15M.context,
        cells=SHAPE_15M.context,
        slots=1,
        threads=threads,
        gpu_layers=-1,
        batch_tokens=512,
    )
    thread = EngineThread(
        lambda _: Loaded(backend=NativeBackend(setup, lambda _: True), template=ChatTemplate(None)),
        Subject(vendor="llamacpp", model="fixed", path=Path(path), cache_type="f16"),
    )
    thread.loaded.result()
    return thread.submit


Speeds = dict[str, list[float]]
"""Tokens per second by contender, one for each round."""


class Contender:
    """A process that writes when it is told to."""

    def __init__(self, path: Path, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", kind, "--model", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, seconds: float) -> float:
        """Return tokens per second."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SystemExit("the contender has no pipes")
        stdin.write(f"{seconds}\n")
        stdin.flush()
        return float(stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many processors busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(path: Path, count: int, kinds: Sequence[str], args: argparse.Namespace) -> Speeds:
    """Let all contenders take turns beside so many neighbours."""
    with ExitStack() as stack:
        contenders = {}
        for kind in kinds:
            contenders[kind] = made = Contender(path, kind)
            stack.callback(made.close)
        stack.enter_context(neighbours(count))
        for made in contenders.values():
            made.run(SETTLE_S)
        turns = {
            kind: lambda _, made=made: made.run(args.seconds) for kind, made in contenders.items()
        }
        return interleave(args.rounds, turns)


def report(results: Mapping[int, Speeds], kinds: Sequence[str]) -> None:
    """Print the table and write the JSON."""
    rows, saved = [], []
    for count, speeds in results.items():
        fixed = [kind for kind in kinds if kind != GOVERNED]
        best = max(fixed, key=lambda kind: spread(speeds[kind])["median"])
        ratio = median_ratio(speeds[GOVERNED], speeds[best])
        medians = [f"{spread(speeds[kind])['median']:.0f}" for kind in kinds]
        verdict = "met" if ratio >= GOAL else "MISSED"
        rows.append([str(count), *medians, best, f"{ratio:.2f}", verdict])
        saved.append({"neighbours": count, "best_fixed": best, "ratio": ratio, "tok_s": speeds})
    show_table(
        f"tokens per second, one stream; goal: governed ≥ {GOAL} x the best fixed number",
        ["neighbours", *kinds, "best fixed", "governed x", "goal"],
        rows,
    )
    save("governor", {"machine": machine("llama-cpp-python"), "cases": saved, "goal": GOAL})


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: a 15M model with random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of writing, in each turn")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(str(args.model), args.serve)
        return
    processors = probe.threads()
    kinds = [*map(str, range(1, processors + 1)), GOVERNED]
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or Path(folder) / "15M.gguf"
        if args.model is None:
            write(path, SHAPE_15M)
        results = {count: measure(path, count, kinds, args) for count in range(processors + 1)}
    report(results, kinds)


if __name__ == "__main__":
    main()
