"""What ``isolation.py`` measures, in a process of its own: a model in a thread, or in a worker.

    python bench/isolation_contender.py {thread,process} MODEL THREADS

Answers jobs: ``{"prompts": [...], "tokens": N}`` writes all at once and returns tokens per second
of writing and of the whole, and the longest time to a first token; ``{"kill": true}`` kills the
worker in the middle of a reply and returns the seconds until the next one is there; and
``{"memory": true}`` returns what the worker takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from llmdispatcher import AsyncDispatcher, DispatcherError, LlamaCpp, Request

CONTEXT = 8_192
"""Tokens that all sequences share."""


class Contender:
    """One model, asked from an event loop."""

    def __init__(self, kind: str, model: str, threads: int) -> None:
        spec = LlamaCpp(model, max_threads=threads, context_tokens=CONTEXT, isolation=kind)
        self._dispatcher = AsyncDispatcher(spec)
        self._runner = asyncio.Runner()

    def write(self, prompts: list[str], tokens: int) -> dict[str, float]:
        """Write replies to all prompts at once."""
        return self._runner.run(self._write(prompts, tokens))

    async def _write(self, prompts: list[str], tokens: int) -> dict[str, float]:
        began_s = time.perf_counter()
        tracks = await asyncio.gather(*(self._reply(text, tokens) for text in prompts))
        firsts, lasts, counts = zip(*tracks, strict=True)
        whole_s = max(lasts) - began_s
        writing_s = max(lasts) - max(firsts)
        return {
            "whole": sum(counts) / whole_s,
            "generation": (sum(counts) - len(counts)) / max(writing_s, 1e-9),
            "first_s": max(firsts) - began_s,
        }

    async def _reply(self, prompt: str, tokens: int) -> tuple[float, float, int]:
        first_s = 0.0
        request = Request(prompt=prompt)
        stream = self._dispatcher.stream(request, max_tokens=tokens, temperature=0.0)
        async for _ in stream:
            first_s = first_s or time.perf_counter()
        last_s = time.perf_counter()
        return first_s or last_s, last_s, stream.reply.usage.completion_tokens

    def recover(self) -> float:
        """Kill the worker in the middle of a reply; return the seconds until the next is there."""
        return self._runner.run(self._recover())

    async def _recover(self) -> float:
        stream = self._dispatcher.stream(Request(prompt="Once"), max_tokens=4000)
        await anext(stream)
        began_s = time.perf_counter()
        os.kill(self._worker(), signal.SIGKILL)
        try:
            async for _ in stream:
                pass
        except DispatcherError:
            pass
        await self._dispatcher.send(Request(prompt="Once"), max_tokens=1)
        return time.perf_counter() - began_s

    def memory(self) -> dict[str, float]:
        """Return what the worker takes, in MiB."""
        lines = Path(f"/proc/{self._worker()}/status").read_text(encoding="ascii").splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return {name: int(facts[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}

    def _worker(self) -> int:
        """Return the worker's pid: the one child of this process."""
        for task in Path("/proc/self/task").iterdir():
            if pids := (task / "children").read_text(encoding="ascii").split():
                return int(pids[0])
        raise SystemExit("there is no worker")

    def close(self) -> None:
        """End the engine."""
        self._runner.run(self._dispatcher.close())
        self._runner.close()


def main() -> None:
    """Serve jobs until standard input ends."""
    kind, model, threads = sys.argv[1:]
    contender = Contender(kind, model, int(threads))
    contender.write(["warm"], 2)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        if "kill" in job:
            answer: Any = contender.recover()
        elif "memory" in job:
            answer = contender.memory()
        else:
            answer = contender.write(**job)
        print(json.dumps(answer), flush=True)
    contender.close()


if __name__ == "__main__":
    main()
