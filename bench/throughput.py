"""Tokens per second of several requests at once: who takes part, the turns, the table.

Part of ``engine.py``. A *case* is a model and a number of sequences; every case starts all
contenders anew, since most of them fix the number of sequences when they start.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from burst import Burst, Turn, prompts
from crowd import Setup
from harness import Child, ChildDied, interleave, median_difference, median_ratio, spread
from rivals import batched_bench, raw_clients, sdk_clients

LIMIT = "batched-bench -kvu"
"""The limit with one cache for all sequences: what our engine has, so that they share prefixes."""
LIMIT_SPLIT = "batched-bench"
"""The limit with a cache for each sequence, over which attention is faster."""
SERVER = "llama-server -kvu"
SERVER_SPLIT = "llama-server"
SERVER_SDK = "llama-server, SDK"
"""With one cache, as ``SERVER``; that one is asked by raw clients, which cost almost nothing, this
one by the SDK that Python programs use."""
BARE = "bare"
OURS = ("async", "sync")
LOCK = "lock"
XLLAMACPP = "xllamacpp"

CONTENDERS = (LIMIT, LIMIT_SPLIT, BARE, *OURS, SERVER, SERVER_SPLIT, SERVER_SDK, LOCK, XLLAMACPP)

PACKAGES = {XLLAMACPP: "xllamacpp", SERVER_SDK: "openai"}
"""What contenders need that have an environment of their own."""

NOISY = 0.2
"""Processors; where others kept more of them busy, nothing is proved."""

REST_S = 0.05
"""Pause before each turn, in which the threads of the one before stop spinning."""

SEEDS = 1_000
"""More than there are rounds."""

WARM_UP = 1_000_000
"""The round before the first, which is not counted."""

HEADERS = (
    "model, sequences, contender",
    "gen tok/s",
    "whole",
    "gen x -kvu",
    "gen x split",
    "gen x bare",
    "whole x -kvu",
    "whole x bare",
    "whole x server",
    "whole x SDK",
    "+µs/tok",
    "CPU µs/tok",
    "+CPU",
    "first ms",
    "cores",
    "same text",
    "others",
)
"""``gen`` counts tokens while all replies are on their way, ``whole`` all from the requests to the
last end. ``-kvu`` and ``split`` are the limit in both layouts, ``server`` and ``SDK`` are
``llama-server`` with one cache and raw clients, and with those of the SDK; + is what is added to
bare; ``cores`` is how many processors the contender kept busy, ``others`` how many other processes.
"""


@dataclass(frozen=True)
class Options:
    """What is measured, and with what."""

    contenders: tuple[str, ...]
    rounds: int
    tries: int
    """How often a turn is taken that others disturb."""
    prompt_tokens: int
    tokens: int
    """New ones of each reply."""
    llama_bin: Path | None
    """Where llama.cpp's programs are."""
    pythons: Mapping[str, Path]
    """For contenders that have an environment of their own, its interpreter; see PACKAGES."""


Run = Callable[[int], Turn]
"""Serves the burst of a round."""


def _undisturbed(run: Run, number: int, tries: int) -> Turn:
    """Take a turn, again with other prompts if it was disturbed; the least disturbed counts."""
    first = best = _observed(run, number)
    for more in range(1, tries):
        if (best.others or 0.0) <= NOISY:
            break
        again = _observed(run, number + more * SEEDS)
        best = min(best, again, key=lambda turn: turn.others or 0.0)
    return replace(best, texts=first.texts)


def _observed(run: Run, number: int) -> Turn:
    """Take a turn and look at what others did meanwhile."""
    time.sleep(REST_S)
    began_s, children_s, others = time.perf_counter(), _children_s(), Others()
    turn = run(number)
    own_s = (turn.cpu_s or 0.0) + _children_s() - children_s
    return replace(turn, others=others.processors(own_s, time.perf_counter() - began_s))


class Others:
    """Looks at what other processes do with the processors, from now on.

    The threads of llama.cpp wait for each other by spinning: with one fewer processor than threads
    a figure may be a tenth of what it is on a quiet machine, so a bench must know.
    """

    def __init__(self) -> None:
        self._busy_s = self._now_s()

    def processors(self, own_s: float, took_s: float) -> float:
        """Return how many processors others kept busy, on average."""
        return max(0.0, (self._now_s() - self._busy_s - own_s) / took_s)

    @staticmethod
    def _now_s() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _children_s() -> float:
    """Return the processor time of children that have ended: of the limit's program."""
    times = os.times()
    return times.children_user + times.children_system


class Field:
    """The contenders of a case. Whoever cannot start or dies is left out, and it is said."""

    def __init__(self, setup: Setup, options: Options, stack: ExitStack) -> None:
        self._setup = setup
        self._options = options
        self._stack = stack
        self.settings: dict[str, Mapping[str, str]] = {}
        self.left_out: dict[str, str] = {}
        self.runs: dict[str, Callable[[int], Turn | None]] = {}
        for name in options.contenders:
            try:
                self.runs[name] = partial(self._guarded, name, self._start(name))
            except (ChildDied, OSError) as error:
                self._leave_out(name, str(error))

    def measure(self) -> dict[str, list[Turn]]:
        """Let all take turns; returns those of the contenders that lasted."""
        for run in self.runs.values():
            run(WARM_UP)
        runs = {name: run for name, run in self.runs.items() if name not in self.left_out}
        turns = interleave(self._options.rounds, runs)
        return {
            name: [turn for turn in made if turn is not None]
            for name, made in turns.items()
            if name not in self.left_out
        }

    def _guarded(self, name: str, run: Run, number: int) -> Turn | None:
        """Take a turn, or give the contender up."""
        if name in self.left_out:
            return None
        try:
            return self._checked(_undisturbed(run, number, self._options.tries))
        except (ChildDied, ValueError) as error:
            self._leave_out(name, str(error))
            return None

    def _checked(self, turn: Turn) -> Turn:
        """Return a turn that was as much work as others had. Raises ValueError."""
        wanted = self._setup.sequences * self._options.tokens
        if turn.tokens != wanted:
            raise ValueError(f"its replies had {turn.tokens} tokens, not {wanted}")
        return turn

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[name] = why
        print(f"left out with {self._setup.sequences} sequences: {name}: {why}", file=sys.stderr)

    def _start(self, name: str) -> Run:
        """Start a contender. Raises ChildDied."""
        options, setup = self._options, self._setup
        sizes = options.prompt_tokens, options.tokens
        if name in {LIMIT, LIMIT_SPLIT}:
            program = self._program("llama-batched-bench")
            unified = name == LIMIT
            return lambda _: batched_bench(program, setup, sizes, unified=unified)
        if name in {SERVER, SERVER_SPLIT}:
            program = self._program("llama-server")
            asked = self._stack.enter_context(raw_clients(program, setup, unified=name == SERVER))
            return lambda number: Turn.of(asked(self._prompts(number), options.tokens))
        if name in PACKAGES and name not in options.pythons:
            raise ChildDied(f"{PACKAGES[name]} is not installed")
        if name == SERVER_SDK:
            program = self._program("llama-server")
            clients = sdk_clients(program, setup, options.pythons[name])
            asked, child = self._stack.enter_context(clients)
            self.settings[name] = child.hello
            return lambda number: Turn.of(asked(self._prompts(number), options.tokens))
        python = options.pythons.get(name, sys.executable)
        child = self._stack.enter_context(crowd(name, setup, str(python)))
        self.settings[name] = child.hello
        return lambda number: Turn.of(
            Burst.parse(child.ask(prompts=self._prompts(number), tokens=options.tokens))
        )

    def _prompts(self, number: int) -> list[str]:
        return prompts(number, self._setup.sequences, self._options.prompt_tokens)

    def _program(self, name: str) -> Path:
        folder = self._options.llama_bin
        if folder is None or not (folder / name).is_file():
            raise ChildDied(f"there is no {name} in --llama-bin {folder or ''}")
        return (folder / name).resolve()


def crowd(kind: str, setup: Setup, python: str = sys.executable) -> Child:
    """Start a contender that is a Python program."""
    script = str(Path(__file__).with_name("crowd.py"))
    numbers = map(str, (setup.context, setup.threads, setup.sequences))
    return Child(kind, (python, script, kind, setup.model, *numbers))


def measure(setup: Setup, options: Options) -> dict[str, Any]:
    """Measure a case."""
    with ExitStack() as stack:
        field = Field(setup, options, stack)
        turns = field.measure()
    name = f"{Path(setup.model).stem}, {setup.sequences}"
    print(f"measured: {name} ({', '.join(turns)})", file=sys.stderr)
    return {
        "name": name,
        **asdict(setup),
        "model": Path(setup.model).stem,
        "settings": field.settings,
        "left_out": field.left_out,
        "contenders": {name: figures(turns, name) for name in turns},
    }


def figures(turns: Mapping[str, Sequence[Turn]], name: str) -> dict[str, Any]:
    """Return the figures of a contender, and what they are beside those of others by round."""
    mine = turns[name]
    return {
        "generation_per_s": _spread([turn.generation_per_s for turn in mine]),
        "whole_per_s": spread([turn.whole_per_s for turn in mine]),
        "generation_over": {
            other: _ratio(
                [turn.generation_per_s for turn in mine],
                [turn.generation_per_s for turn in theirs],
            )
            for other, theirs in turns.items()
        },
        "whole_over": {
            other: median_ratio([it.whole_per_s for it in mine], [it.whole_per_s for it in theirs])
            for other, theirs in turns.items()
        },
        "us_per_token": statistics.median(turn.us_per_token for turn in mine),
        "cpu_us_per_token": _spread([turn.cpu_us_per_token for turn in mine]),
        "first_ms": _spread([1e3 * s for turn in mine for s in turn.first_s]),
        "cores": _spread([turn.cores for turn in mine]),
        "others": spread([turn.others or 0.0 for turn in mine]),
        **_beside_bare(mine, turns.get(BARE)),
    }


def _beside_bare(mine: Sequence[Turn], bare: Sequence[Turn] | None) -> dict[str, float | None]:
    """Return what is added to the bare loop, and the share of its texts that are the same."""
    if bare is None:
        return {"added_us_per_token": None, "added_cpu_us_per_token": None, "same_texts": None}
    pairs = [
        pair
        for ours, theirs in zip(mine, bare, strict=True)
        for pair in zip(ours.texts, theirs.texts, strict=False)
    ]
    cpu = [turn.cpu_us_per_token or 0.0 for turn in mine]
    bare_cpu = [turn.cpu_us_per_token or 0.0 for turn in bare]
    return {
        "added_us_per_token": median_difference(
            [turn.us_per_token for turn in mine], [turn.us_per_token for turn in bare]
        ),
        "added_cpu_us_per_token": median_difference(cpu, bare_cpu) if all(cpu) else None,
        "same_texts": sum(a == b for a, b in pairs) / len(pairs) if pairs else None,
    }


def disturbance(case: Mapping[str, Any], *kinds: str) -> float:
    """Return how many processors others kept busy in the turns of these contenders, at most."""
    contenders = case["contenders"]
    found = [contenders[kind]["others"]["median"] for kind in kinds if kind in contenders]
    return float(max(found))


def _known(values: Sequence[float | None]) -> list[float] | None:
    """Return the values if all are known."""
    known = [value for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = _known(values)
    return None if known is None else spread(known)


def _ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    mine, others = _known(ours), _known(theirs)
    return None if mine is None or others is None else median_ratio(mine, others)


def rows(case: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the lines of the table for a case."""
    return [_row(f"{case['name']}, {kind}", it) for kind, it in case["contenders"].items()]


def _row(name: str, it: Mapping[str, Any]) -> tuple[str, ...]:
    generation, whole = it["generation_over"], it["whole_over"]
    return (
        name,
        _show(it["generation_per_s"], "{:.0f}"),
        _show(it["whole_per_s"], "{:.0f}"),
        _show(generation.get(LIMIT), "{:.3f}"),
        _show(generation.get(LIMIT_SPLIT), "{:.3f}"),
        _show(generation.get(BARE), "{:.3f}"),
        _show(whole.get(LIMIT), "{:.3f}"),
        _show(whole.get(BARE), "{:.3f}"),
        _show(whole.get(SERVER), "{:.3f}"),
        _show(whole.get(SERVER_SDK), "{:.3f}"),
        _show(it["added_us_per_token"], "{:+.0f}"),
        _show(it["cpu_us_per_token"], "{:.0f}"),
        _show(it["added_cpu_us_per_token"], "{:+.0f}"),
        _show(it["first_ms"], "{:.1f}"),
        _show(it["cores"], "{:.1f}"),
        _show(it["same_texts"], "{:.0%}"),
        _show(it["others"], "{:.1f}"),
    )


def _show(value: float | Mapping[str, float] | None, form: str) -> str:
    """Format a figure, or the median of several; a dash stands for what was not measured."""
    if value is None:
        return "-"
    return form.format(value["median"] if isinstance(value, Mapping) else value)


def differences(case: Mapping[str, Any]) -> list[str]:
    """Return how the settings that llama.cpp logged differ from those of the bare loop."""
    settings = case["settings"]
    bare = settings.get(BARE, {})
    lines = []
    for kind, mine in settings.items():
        other = {
            key: f"{mine[key]} (bare: {bare[key]})"
            for key in mine
            if mine[key] != bare.get(key, mine[key])
        }
        if other:
            lines.append(f"{case['name']}, {kind}: {other}")
    return lines
