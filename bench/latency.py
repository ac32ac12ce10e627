"""How long callers of the engine wait: for a first token, between tokens, after a cancel.

Part of ``engine.py``; our engine alone, beside the time of one full step in the bare loop.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from burst import Burst, percentile, prompts
from crowd import Setup
from harness import Child, show_table
from latency_contender import LONG, SHARED, STREAMS, TAIL
from throughput import BARE, NOISY, Options, Others, crowd

PLACES = {
    "prompt": f"a prompt of {LONG} tokens, alone",
    "generation": "generation, alone",
    "beside": f"a prompt of {LONG} tokens beside {STREAMS} streams",
}
"""Where a request is cancelled."""

ARRIVALS = 16
"""Requests that arrive at once."""

FULL_STEP = 512
"""Tokens that llama.cpp decodes at once."""

STRIDE = 10
"""Between the seeds of situations: each uses a few."""

Figures = dict[str, Any]


class Ward:
    """Our engine and the bare loop, which are put into situations."""

    def __init__(self, setup: Setup, options: Options, stack: ExitStack) -> None:
        setup = replace(setup, sequences=ARRIVALS)
        self._options = options
        self._ours = stack.enter_context(_contender(setup))
        self._bare = stack.enter_context(crowd(BARE, replace(setup, sequences=1)))
        self._seeds = itertools.count(STRIDE, STRIDE)
        self._ours.ask(situation="warm", seed=0)  # warms up

    def round(self) -> dict[str, Figures]:
        """Make every situation once; each has prompts that nobody has read before."""
        warm = self._make(situation="warm")
        # A third of the long prompt is read by then, or less beside others.
        delay_s = warm["cold_s"]
        return {
            "warm": warm,
            "step": self._undisturbed(self._step),
            "gaps": self._make(situation="gaps"),
            **{
                where: self._make(situation="cancel", where=where, delay_s=delay_s)
                for where in PLACES
            },
            "burst": self._make(situation="burst", count=ARRIVALS, tokens=self._options.tokens),
        }

    def _make(self, **job: Any) -> Figures:  # noqa: ANN401 - JSON
        return self._undisturbed(lambda seed: self._ours.ask(seed=seed, **job))

    def _step(self, seed: int) -> Figures:
        sent = self._bare.ask(prompts=prompts(seed, 1, FULL_STEP), tokens=1)
        return {"step_s": Burst.parse(sent).whole_s}

    def _undisturbed(self, make: Callable[[int], Figures]) -> Figures:
        """Make a situation, again if others disturb it; the least disturbed counts."""
        made: list[Figures] = []
        while len(made) < self._options.tries and all(it["others"] > NOISY for it in made):
            began_s, cpu_s, others = time.perf_counter(), self._cpu_s(), Others()
            figures = make(next(self._seeds))
            took_s = time.perf_counter() - began_s
            disturbed = others.processors(self._cpu_s() - cpu_s, took_s)
            made.append({**figures, "others": disturbed})
        return min(made, key=lambda it: float(it["others"]))

    def _cpu_s(self) -> float:
        times = [psutil.Process(child.pid).cpu_times() for child in (self._ours, self._bare)]
        return sum(it.user + it.system for it in times)


def _contender(setup: Setup) -> Child:
    script = str(Path(__file__).with_name("latency_contender.py"))
    numbers = map(str, (setup.context, setup.threads, setup.sequences))
    return Child("llmdispatcher", (sys.executable, script, setup.model, *numbers))


def measure(setup: Setup, options: Options) -> Figures:
    """Measure every situation, in each round one after the other. Raises ChildDied."""
    taken: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        ward = Ward(setup, options, stack)
        for number in range(1, options.rounds + 1):
            for name, figures in ward.round().items():
                taken.setdefault(name, []).append(figures)
            print(f"measured: latency, round {number} of {options.rounds}", file=sys.stderr)
    return {
        "model": Path(setup.model).stem,
        "rounds": options.rounds,
        "warm": _warm(taken["warm"]),
        "gaps": _gaps(taken["gaps"], [it["step_s"] for it in taken["step"]]),
        "cancel": {where: _cancel(taken[where]) for where in PLACES},
        "burst": _burst(taken["burst"]),
        "others": {
            name: statistics.median(it["others"] for it in made) for name, made in taken.items()
        },
    }


def _ms(values: Sequence[float | None], pick: Callable[..., float] = statistics.median) -> Any:  # noqa: ANN401 - a figure or None
    """Return milliseconds; None if a value is not known."""
    known = [value for value in values if value is not None]
    return 1e3 * pick(known) if known and len(known) == len(values) else None


def _warm(taken: Sequence[Figures]) -> Figures:
    return {
        "cold_ms": _ms([it["cold_s"] for it in taken]),
        "warm_ms": _ms([it["warm_s"] for it in taken]),
        "warm_over_cold": statistics.median(it["warm_s"] / it["cold_s"] for it in taken),
    }


def _gaps(taken: Sequence[Figures], step_s: Sequence[float]) -> Figures:
    """Longest gaps are medians of each round's longest, and the longest of all."""
    before = [it["before_s"] or [0.0] for it in taken]
    during = [it["during_s"] or [0.0] for it in taken]
    return {
        "step_ms": _ms(step_s),
        "streams": min(it["running"] for it in taken),
        "streams_that_lasted": min(it["lasted"] for it in taken),
        "long_prompt_first_ms": _ms([it["first_s"] for it in taken]),
        "long_prompt_alone_ms": _ms([it["alone_s"] for it in taken]),
        "before": _pauses(before),
        "during": _pauses(during),
        "longest_over_step": statistics.median(
            max(gaps) / alone_s for gaps, alone_s in zip(during, step_s, strict=True)
        ),
    }


def _pauses(rounds: Sequence[Sequence[float]]) -> Figures:
    return {
        "median_ms": _ms([statistics.median(gaps) for gaps in rounds]),
        "p95_ms": _ms([percentile(gaps, 0.95) for gaps in rounds]),
        "longest_ms": _ms([max(gaps) for gaps in rounds]),
        "longest_of_all_ms": _ms([max(gaps) for gaps in rounds], max),
    }


def _cancel(taken: Sequence[Figures]) -> Figures:
    names = ("release", "idle", "next", "usual")
    return {
        "in_time": sum(it["in_time"] for it in taken),
        **{f"{name}_ms": _ms([it[f"{name}_s"] for it in taken]) for name in names},
        "longest_release_ms": _ms([it["release_s"] for it in taken], max),
        "longest_idle_ms": _ms([it["idle_s"] for it in taken], max),
    }


def _burst(taken: Sequence[Figures]) -> Figures:
    bursts = [Burst.parse(it["burst"]) for it in taken]
    return {
        "first_p50_ms": _ms([percentile(burst.first_s, 0.5) for burst in bursts]),
        "first_p95_ms": _ms([percentile(burst.first_s, 0.95) for burst in bursts]),
        "tokens_per_s": statistics.median(burst.tokens / burst.whole_s for burst in bursts),
        "evenness": statistics.median(burst.evenness() for burst in bursts),
        "least_evenness": min(burst.evenness() for burst in bursts),
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    title = f"{result['model']}, {result['rounds']} rounds, medians"
    others = ", ".join(f"{name} {count:.1f}" for name, count in result["others"].items())
    print(f"\nprocessors that others kept busy while callers waited: {others}")
    warm, gaps, burst = result["warm"], result["gaps"], result["burst"]
    show_table(
        f"First token of a prompt of {SHARED + TAIL} tokens ({title})",
        ("prompt", "ms", "x cold"),
        [
            ("nothing of it was read before", _form(warm["cold_ms"]), "1.000"),
            (
                f"{SHARED} tokens were read before",
                _form(warm["warm_ms"]),
                f"{warm['warm_over_cold']:.3f}",
            ),
        ],
    )
    show_table(
        f"Gaps between tokens of {gaps['streams']} streams, as a prompt of {LONG} tokens arrives;"
        f" a full step alone takes {_form(gaps['step_ms'])} ms ({title})",
        ("when", "median ms", "p95 ms", "longest ms", "of all rounds"),
        [(when, *map(_form, gaps[when].values())) for when in ("before", "during")],
    )
    print(
        f"longest gap {gaps['longest_over_step']:.2f} x the step; the long prompt's first token"
        f" after {_form(gaps['long_prompt_first_ms'])} ms, alone after"
        f" {_form(gaps['long_prompt_alone_ms'])} ms; {gaps['streams_that_lasted']} streams lasted"
    )
    _show_cancel(result, title)
    show_table(
        f"{ARRIVALS} requests at once ({title})",
        ("first p50 ms", "first p95 ms", "tok/s", "least ÷ most progress at half time"),
        [
            (
                _form(burst["first_p50_ms"]),
                _form(burst["first_p95_ms"]),
                f"{burst['tokens_per_s']:.0f}",
                f"{burst['evenness']:.2f} ({burst['least_evenness']:.2f})",
            )
        ],
    )


def _show_cancel(result: Mapping[str, Any], title: str) -> None:
    columns = ("release", "longest_release", "idle", "longest_idle", "next", "usual")
    show_table(
        f"Cancelled in … (ms from the cancel until; {title})",
        (
            "where",
            "caller is free",
            "longest",
            "engine is",
            "longest",
            "next request's first token",
            "same without a cancel",
            "in time",
        ),
        [
            (
                words,
                *(_form(it[f"{column}_ms"]) for column in columns),
                f"{it['in_time']}/{result['rounds']}",
            )
            for where, words in PLACES.items()
            if (it := result["cancel"][where])
        ],
    )


def _form(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
