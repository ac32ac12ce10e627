"""Claim: a request through llmdispatcher costs little more than the HTTP client that it uses.

    python bench/transport.py [--envs DIR] [--rounds 7] [--quick]

Every contender asks the same server (``instant_server.py``), which answers at once, from a process
of its own (``transport_contender.py``), in turns; what is counted is the contender's own processor
time, since the answer itself costs nothing:

    sequential      500 replies, one after the other, whole, from a thread
    concurrent      512 replies, 32 at once, whole, in an event loop
    stream          50 replies of 64 chunks, from a thread; and the same in an event loop

``bare`` is httpx2 alone: it reads the JSON of a whole reply, and of a stream only its bytes;
``bare-parsed`` reads the JSON of every chunk, as whoever wants the text must. llmdispatcher ranks
models, keeps books and deadlines, and reads usage and finish reasons as well. Its goals: at most
150 µs for a call and 15 µs for a chunk over ``bare``, in the same world.

any-llm and LiteLLM get virtual environments of their own in DIR, since their pins conflict. Needs
the openai package (extra ``test``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from harness import Child, interleave, machine, median_difference, save, show_table, spread
from instant_server import CHUNKS
from rivals import python_with

HERE = Path(__file__).parent

JOBS: Mapping[str, tuple[str, int]] = {
    "sequential": ("sequential", 500),
    "concurrent": ("concurrent", 512),
    "stream": ("stream", 50),
    "async stream": ("astream", 50),
}
"""What is measured, and how many calls of it make one figure."""

RIVALS = {"any-llm": "any-llm-sdk[openai]", "litellm": "litellm"}
"""Contenders that need an environment of their own, and what is installed there."""

OWN = ("bare", "bare-parsed", "ours", "openai")

GOAL_CALL_US, GOAL_CHUNK_US = 150.0, 15.0

Figures = dict[str, dict[str, list[float]]]
"""Microseconds of processor time, by job and contender, a figure for each round."""


def main() -> None:
    """Measure, and show a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=Path, help="where environments of rivals are kept")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds, no rivals")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds
    with ExitStack() as stack:
        envs = args.envs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(_Server()).port
        pythons = dict.fromkeys(OWN, Path(sys.executable))
        if not args.quick:
            pythons |= {name: python_with(package, envs) for name, package in RIVALS.items()}
        figures = _measure(pythons, f"http://127.0.0.1:{port}/v1", rounds)
    result = _judge(figures)
    _show(figures, result)
    if not args.quick:
        facts = machine("httpx2", "openai", "attrs")
        save("transport", {"machine": facts, "rounds": rounds, **result, "figures": _all(figures)})


class _Server:
    """The server's process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "instant_server.py")], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _measure(pythons: Mapping[str, Path], url: str, rounds: int) -> Figures:
    """Let the contenders take turns, job by job."""
    script = str(HERE / "transport_contender.py")
    figures: Figures = {}
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(Child(name, [str(python), script, name, url]))
            for name, python in pythons.items()
        }
        for title, (job, calls) in JOBS.items():

            def turn(child: Child, job: str = job, calls: int = calls) -> float:
                return float(child.ask(job=job, calls=calls)["cpu_us"])

            turns = {name: lambda _, child=child: turn(child) for name, child in children.items()}
            figures[title] = interleave(rounds, turns)
    return figures


def _judge(figures: Figures) -> dict[str, Any]:
    """Hold our figures against the goals, round by round."""
    over = {title: median_difference(told["ours"], told["bare"]) for title, told in figures.items()}
    return {
        "over_bare_us": {
            "sequential": over["sequential"],
            "concurrent": over["concurrent"],
            "chunk": over["stream"] / CHUNKS,
            "async chunk": over["async stream"] / CHUNKS,
        },
        "over_parsed_us": {
            title: median_difference(figures[title]["ours"], figures[title]["bare-parsed"]) / CHUNKS
            for title in ("stream", "async stream")
        },
        "goals_us": {"call": GOAL_CALL_US, "chunk": GOAL_CHUNK_US},
    }


def _all(figures: Figures) -> dict[str, Any]:
    return {
        title: {name: spread(values) for name, values in told.items()}
        for title, told in figures.items()
    }


def _show(figures: Figures, result: Mapping[str, Any]) -> None:
    names: Sequence[str] = list(next(iter(figures.values())))
    show_table(
        "processor time of a call, µs, median (lowest)",
        ("contender", *figures),
        [(name, *(_cell(spread(told[name])) for told in figures.values())) for name in names],
    )
    goals = {"sequential": GOAL_CALL_US, "concurrent": GOAL_CALL_US}
    show_table(
        "ours over bare, µs",
        ("what", "over", "goal"),
        [
            (what, f"{over:.1f}", f"<= {goals.get(what, GOAL_CHUNK_US):.0f}")
            for what, over in result["over_bare_us"].items()
        ],
    )


def _cell(told: Mapping[str, float]) -> str:
    return f"{told['median']:.0f} ({told['lowest']:.0f})"


if __name__ == "__main__":
    main()
