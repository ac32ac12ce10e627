"""Claim: texts that share a decode are embedded faster than one after another, or by llama-server.

    python bench/embed.py [--server llama-server] [--model FILE.gguf] [--texts N] [--rounds N]

Texts per second of one process and one thread, on the same file:

    together   ``Dispatcher.embed`` of all texts in one request
    threads    16 threads that each embed one text at a time with one ``Dispatcher``
    one by one ``Dispatcher.embed`` of one text after another
    server     all texts in one request to llama-server, with as many slots as it likes best of
               1, 4 and 16; only if ``--server`` names the program

They take turns, every round with other texts, which are the same for all. Shown is also how far
their vectors are from those of one by one: weights are F16 and sums are rounded differently, which
makes a thousandth, and the bench stops if ours are further. (Those of llama-server 0.5.0 are, with
several slots and a causal model.) Short texts have some ten tokens, mixed ones up to 300. Without
``--model``: an encoder with random weights and the shape of all-MiniLM-L6 (384 wide, 6 layers), and
a llama of 15M that was not made for it. Needs the extra ``llamacpp``, gguf and numpy.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import json
import math
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import shapes
from harness import interleave, machine, median_ratio, save, show_table

from llmdispatcher import Dispatcher, LlamaCpp

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # where encoders are written
encoder: Any = importlib.import_module("embedding_gguf").encoder

Vectors = list[Sequence[float]]
Embed = Callable[[list[str]], Vectors]

SLOTS = (1, 4, 16)
CALLERS = 16
CONTEXT = 512
TOLERANCE = 1e-2
"""Between vectors of length 1."""
READY_S = 60.0
LETTERS = "abcdefghijklmnopqrstuvwxyz"

HEADERS = ("model, texts, contender", "texts/s", "x one by one", "differs by")


def one_by_one(d: Dispatcher) -> Embed:
    """Embed one text after another."""
    return lambda texts: [d.embed(text).vectors[0] for text in texts]


def together(d: Dispatcher) -> Embed:
    """Embed all texts in one request."""
    return lambda texts: list(d.embed(texts).vectors)


def threads(d: Dispatcher, pool: ThreadPoolExecutor) -> Embed:
    """Embed one text at a time, in many threads."""
    return lambda texts: list(pool.map(lambda text: d.embed(text).vectors[0], texts))


def post(port: int, texts: list[str]) -> Vectors:
    """Ask llama-server."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        body = json.dumps({"input": texts})
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        found = json.loads(connection.getresponse().read())["data"]
    return [each["embedding"] for each in sorted(found, key=lambda each: each["index"])]


@contextmanager
def server(program: str, model: Path, slots: int) -> Iterator[Embed]:
    """Run llama-server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["-m", str(model), "--embeddings", "--pooling", "mean", "--port", str(port)]
    flags += ["-c", str(CONTEXT * slots), "-b", str(CONTEXT), "-ub", str(CONTEXT)]
    flags += ["-np", str(slots), "-t", "1", "-tb", "1", "--no-ui", "--host", "127.0.0.1"]
    with subprocess.Popen([program, *flags], stdout=-3, stderr=-3) as process:
        try:
            wait(port)
            yield lambda texts: post(port, texts)
        finally:
            process.terminate()


def wait(port: int) -> None:
    """Wait until a server is ready."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("llama-server does not become ready")


def texts_of(kind: str, count: int, seed: int) -> list[str]:
    """Make texts of words that nobody has seen: short ones, or of very different lengths."""
    draw = random.Random(seed)  # noqa: S311 - texts, not secrets
    most = 5 if kind == "short" else 100

    def word() -> str:
        return "".join(draw.choices(LETTERS, k=draw.randint(1, 4)))

    lengths = [max(1, int(most * draw.random() ** 2)) for _ in range(count)]
    return [" ".join(word() for _ in range(length)) for length in lengths]


def measure(model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one model with both kinds of texts."""
    spec = LlamaCpp(
        model, pooling="mean", max_threads=1, context_tokens=CONTEXT, isolation="thread"
    )
    with ExitStack() as stack:
        d = stack.enter_context(Dispatcher(spec))
        pool = stack.enter_context(ThreadPoolExecutor(CALLERS))
        asked: dict[str, Embed] = {
            "one by one": one_by_one(d),
            "together": together(d),
            "threads": threads(d, pool),
        }
        for slots in SLOTS if options.server else ():
            started = stack.enter_context(server(options.server, model, slots))
            asked[f"server, {slots} slots"] = started
        return [measured(model, kind, asked, options) for kind in ("short", "mixed")]


def measured(
    model: Path, kind: str, asked: dict[str, Embed], options: argparse.Namespace
) -> dict[str, Any]:
    """Measure all contenders with one kind of texts."""
    for embed in asked.values():
        embed(texts_of(kind, 8, -1))

    def timed(embed: Embed) -> Callable[[int], tuple[float, Vectors]]:
        def run(number: int) -> tuple[float, Vectors]:
            texts = texts_of(kind, options.texts, number)
            began = time.perf_counter()
            vectors = embed(texts)
            return len(texts) / (time.perf_counter() - began), vectors

        return run

    runs = interleave(options.rounds, {name: timed(embed) for name, embed in asked.items()})
    far = {
        name: max(
            max(map(math.dist, mine, other))
            for (_, mine), (_, other) in zip(results, runs["one by one"], strict=True)
        )
        for name, results in runs.items()
    }
    if max(far["together"], far["threads"]) > TOLERANCE:
        raise SystemExit(f"vectors depend on what they share a decode with: {far}")
    rates = {name: [rate for rate, _ in results] for name, results in runs.items()}
    return {
        "model": model.stem,
        "texts": kind,
        "texts_per_s": {name: statistics.median(each) for name, each in rates.items()},
        "differs_by": far,
        "x": {name: median_ratio(each, rates["one by one"]) for name, each in rates.items()},
    }


def main() -> None:
    """Measure, show, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file with a context of 512 or more")
    parser.add_argument("--server", help="the program llama-server")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    facts = machine("llmdispatcher", "llama-cpp-python")
    with tempfile.TemporaryDirectory() as folder:
        models = [options.model] if options.model else written(Path(folder))
        results = [result for model in models for result in measure(model, options)]
    lines = [
        (
            f"{it['model']}, {it['texts']}, {name}",
            f"{rate:.0f}",
            f"{it['x'][name]:.2f}",
            f"{it['differs_by'][name]:.4f}",
        )
        for it in results
        for name, rate in it["texts_per_s"].items()
    ]
    show_table(f"Embeddings ({options.rounds} rounds; medians)", HEADERS, lines)
    save("embed", {"machine": facts, "rounds": options.rounds, "results": results})


def written(folder: Path) -> list[Path]:
    """Write the models that need no download."""
    llama = folder / "llama-15M.gguf"
    shapes.write(llama, shapes.SHAPE_15M)
    sizes = {"width": 384, "layers": 6, "heads": 12, "feed_forward": 1536, "context": CONTEXT}
    return [encoder(folder / "MiniLM.gguf", words=30_000, storage="F16", **sizes), llama]


if __name__ == "__main__":
    main()
