"""Claim: no fault of a vendor reaches the caller; and a thousand streams at once cost little.

    python bench/reliability.py [--envs DIR] [--pace short] [--only NAME ...] [--crowd 1000]

An exam of faults: a server on this machine fails in one exact way at a time, and a judge holds what
the client returned against what the server saw. The first sixteen faults are those of a public exam
for gateways (failoverbench, methodology 0.1), judged by its rules; the others are ours. Every
client is asked from a process and an environment of its own, with two retries, one timeout and one
fallback, as there.

The published marks of the OpenAI SDK and of LiteLLM's Router are reproduced first: if they are not,
the judge is wrong, and ours is not scored. ``--pace full`` takes the public exam's own times, about
five minutes for each client; ``short`` has shorter ones, with room for pauses that are built into
peers. Peers sit the exam side by side, since they wait nearly all the time.

Then a thousand streams at once in one event loop, against the same server, each of sixty words in
half a minute: processor time, memory and threads of the client.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from harness import Child, machine, save, show_table
from rivals import python_with

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))  # where the exam is

from faults.exam import (  # noqa: E402 - as above
    FULL,
    PROMPT,
    SHORT,
    Mark,
    Outcome,
    Pace,
    Scenario,
    Verdict,
    examine,
)
from faults.further import FURTHER  # noqa: E402
from faults.misdeeds import ANSWER, WORDS, Manner, saying  # noqa: E402
from faults.scenarios import SIXTEEN  # noqa: E402
from faults.server import FaultServer  # noqa: E402

PACES = {"full": FULL, "short": SHORT}

PEERS = {
    "openai": "openai",
    "litellm": "litellm",
    "langchain": "langchain-openai",
    "pydantic-ai": "pydantic-ai-slim[openai]",
}
"""Clients that need an environment of their own, and what is installed there."""

OURS = "ours"
WITHOUT_FALLBACK = {"openai"}

Marks = tuple[int, int, int, int]
"""Passes, partial passes, safe ends and fails."""

PUBLISHED: Mapping[str, Marks] = {
    "openai": (6, 0, 10, 0),
    "litellm": (9, 3, 4, 0),
    "langchain": (9, 3, 4, 0),
}
"""Scorecard of 2026-09-12, at the full pace."""

SIGNS = {Verdict.PASS: "pass", Verdict.PARTIAL: "part", Verdict.SAFE: "safe", Verdict.FAIL: "FAIL"}

CROWD_WORD_S = 0.5
"""Between two words of one of many streams: as slow as a busy model is."""

Sat = dict[str, dict[str, Mark]]
"""Marks of one client, by form and scenario."""


class Examined:
    """A client in another process."""

    def __init__(self, name: str, child: Child, addresses: tuple[str, str], pace: Pace) -> None:
        self.has_fallback = name not in WITHOUT_FALLBACK
        self._child, self._hang_s = child, pace.hang_s
        primary, fallback = addresses
        child.ask(open={"primary": primary, "fallback": fallback, **_times(pace)})

    def ask(self, prompt: str, *, stream: bool) -> Outcome:
        """See ``Client``."""
        return Outcome(**self._child.ask(ask=prompt, stream=stream, hang_s=self._hang_s))

    def close(self) -> None:
        """Keep the process for the next scenario."""


def _times(pace: Pace) -> dict[str, Any]:
    return {"timeout_s": pace.timeout_s, "pace": attrs.asdict(pace)}


def main() -> None:
    """Hold the exam, and show tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=Path, help="where environments of peers are kept")
    parser.add_argument("--pace", choices=PACES, default="short")
    parser.add_argument("--only", nargs="*", choices=[*PEERS, OURS], help="save nothing")
    parser.add_argument("--crowd", type=int, default=1000, help="streams at once; 0 leaves it out")
    args = parser.parse_args()
    names = args.only or [*PEERS, OURS]
    with ExitStack() as stack:
        envs = args.envs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pythons = {name: python_with(PEERS[name], envs) for name in names if name in PEERS}
        pythons |= {OURS: Path(sys.executable)} if OURS in names else {}
        versions = {name: _version(PEERS[name], pythons[name]) for name in names if name in PEERS}
        sat = _hold(pythons, PACES[args.pace])
    crowd = measure_crowd(args.crowd) if args.crowd and OURS in names else None
    result = _result(sat, args.pace)
    _show(sat)
    if crowd is not None:
        _show_crowd(crowd)
    if not args.only:
        facts = {"machine": machine("httpx2", "attrs"), "peers": versions, "crowd": crowd}
        save("reliability", {**facts, **result})


def _version(package: str, python: Path) -> str:
    """Return which release of a peer is in its environment."""
    name = package.partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return f"{name} {done.stdout.strip()}"


def _hold(pythons: Mapping[str, Path], pace: Pace) -> dict[str, Sat]:
    """Examine the peers side by side, and ours if the published marks came out."""
    peers = {name: python for name, python in pythons.items() if name != OURS}
    sat: dict[str, Sat] = {}
    if peers:
        with ThreadPoolExecutor(len(peers)) as pool:
            told = pool.map(lambda name: _sit(name, peers[name], pace), peers)
            sat = dict(zip(peers, told, strict=True))
    _check_published(sat)
    if OURS in pythons:
        sat[OURS] = _sit(OURS, pythons[OURS], pace)
    return sat


def _check_published(sat: Mapping[str, Sat]) -> None:
    """End here if the judge gives other marks than the public one."""
    wrong = False
    for name in sat.keys() & PUBLISHED.keys():
        found, published = _count(sat[name]["streamed"], SIXTEEN), PUBLISHED[name]
        print(f"{name}: published {_slashed(published)}, found {_slashed(found)}")
        wrong |= found != published
    if wrong:
        for name in sat:
            _explain(name, sat[name])
        raise SystemExit("the published marks do not come out: ours is not scored by such a judge")


def _sit(name: str, python: Path, pace: Pace) -> Sat:
    """Put a client through everything, streamed and whole."""
    script = str(HERE / "reliability_contender.py")
    sat: Sat = {"streamed": {}, "whole": {}}
    with Child(name, [str(python), script, name]) as child:
        for form, marks in sat.items():
            for scenario in (*SIXTEEN, *FURTHER):

                def made(primary: str, fallback: str, pace: Pace) -> Examined:
                    return Examined(name, child, (primary, fallback), pace)

                marks[scenario.id] = examine(scenario, made, pace, stream=form == "streamed")
                print(f"{name} {form} {scenario.id} {marks[scenario.id].verdict}", file=sys.stderr)
    return sat


def _count(marks: Mapping[str, Mark], scenarios: Sequence[Scenario]) -> Marks:
    counts = Counter(marks[scenario.id].verdict for scenario in scenarios)
    passes, partial, safe, fail = (counts[verdict] for verdict in Verdict)
    return passes, partial, safe, fail


def _slashed(marks: Marks) -> str:
    return "/".join(map(str, marks))


def _result(sat: Mapping[str, Sat], pace: str) -> dict[str, Any]:
    """Return all there is to keep."""
    return {
        "pace": {"name": pace, **attrs.asdict(PACES[pace])},
        "published": {
            name: {
                "expected": _slashed(published),
                "found": _slashed(_count(sat[name]["streamed"], SIXTEEN)),
            }
            for name, published in PUBLISHED.items()
            if name in sat
        },
        "marks": {
            name: {
                f"{title}, {form}": _slashed(_count(marks, scenarios))
                for title, scenarios in (("exam", SIXTEEN), ("further", FURTHER))
                for form, marks in told.items()
            }
            for name, told in sat.items()
        },
        "cells": {
            name: {
                form: {key: _cell(mark) for key, mark in marks.items()}
                for form, marks in told.items()
            }
            for name, told in sat.items()
        },
    }


def _cell(mark: Mark) -> dict[str, Any]:
    record = mark.record
    return {
        "verdict": mark.verdict,
        "reason": mark.reason,
        "beyond": list(mark.beyond),
        "primary": len(record.primary),
        "fallback": len(record.fallback),
        "seconds": round(max(outcome.seconds for outcome in record.outcomes), 2),
    }


def _show(sat: Mapping[str, Sat]) -> None:
    for form in ("streamed", "whole"):
        for title, scenarios in (("the public exam", SIXTEEN), ("further faults", FURTHER)):
            rows = [
                (
                    f"{scenario.id} {scenario.title}",
                    *(SIGNS[told[form][scenario.id].verdict] for told in sat.values()),
                )
                for scenario in scenarios
            ]
            sums = [_slashed(_count(told[form], scenarios)) for told in sat.values()]
            heads = ("fault", *sat)
            show_table(f"{title}, {form}", heads, [*rows, ("pass/partial/safe/fail", *sums)])
    if OURS in sat:
        _explain(OURS, sat[OURS])


def _explain(name: str, told: Sat) -> None:
    """Say why a mark is no pass, and which of our own rules were broken."""
    for form, marks in told.items():
        for key, mark in marks.items():
            if mark.verdict is not Verdict.PASS or mark.beyond:
                why = "; ".join(filter(None, (mark.reason, *mark.beyond)))
                print(f"{name}, {form}, {key}: {mark.verdict}: {why}")


def measure_crowd(streams: int) -> dict[str, Any]:
    """Have so many streams at once through ours in one event loop, and return what one costs."""
    slow = saying(Manner(word_s=CROWD_WORD_S))
    patient = attrs.evolve(FULL, first_token_s=60, idle_s=30)
    script = str(HERE / "reliability_contender.py")
    with (
        FaultServer(primary=saying(), fallback=saying()) as server,
        Child(OURS, [sys.executable, script, OURS]) as child,
    ):
        Examined(OURS, child, (server["primary"].url, server["fallback"].url), patient)
        child.ask(crowd=8, prompt=PROMPT, stream=True)  # all is imported now
        server.begin(primary=slow)
        told = child.ask(crowd=streams, prompt=PROMPT, stream=True)
        seen = len(server["primary"].seen), len(server["fallback"].seen)
    if told["errors"] or told["texts"] != [ANSWER]:
        raise SystemExit(f"of {streams} streams not all were whole: {told['errors'][:3]}")
    return {
        "streams": streams,
        "words": WORDS,
        "wall_s": told["wall_s"],
        "cpu_ms_per_stream": told["cpu_s"] / streams * 1e3,
        "cpu_us_per_word": told["cpu_s"] / streams / WORDS * 1e6,
        "memory_kb_per_stream": told["grown_bytes"] / streams / 1024,
        "peak_mb": told["peak_bytes"] / 2**20,
        "requests": {"primary": seen[0], "fallback": seen[1]},
    }


def _show_crowd(crowd: Mapping[str, Any]) -> None:
    show_table(
        f"{crowd['streams']} streams at once, {WORDS} words each",
        ("what", "figure"),
        [
            ("wall, s", f"{crowd['wall_s']:.1f}"),
            ("processor time of a stream, ms", f"{crowd['cpu_ms_per_stream']:.2f}"),
            ("processor time of a word, µs", f"{crowd['cpu_us_per_word']:.0f}"),
            ("memory of a stream, KB", f"{crowd['memory_kb_per_stream']:.0f}"),
            ("peak of the process, MB", f"{crowd['peak_mb']:.0f}"),
        ],
    )


if __name__ == "__main__":
    main()
