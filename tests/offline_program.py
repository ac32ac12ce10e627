"""A program that is offline, with a vendor of every kind: ``offline_program.py TOLD``.

TOLD is JSON: ``url`` of a server on this machine that plays Ollama, ``executable`` of a
llama-server, and ``strays``, which makes it do what it must not, for the test of what watches it.
Prints as JSON who answered, and why the others did not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import attrs

from llmdispatcher import (
    AsyncDispatcher,
    Deadlines,
    Dispatcher,
    DispatcherError,
    LiteLLM,
    LlamaCpp,
    LMStudio,
    Ollama,
    OpenAI,
    OpenAICompatible,
    Scripted,
)
from llmdispatcher.vendors.contract import State
from llmdispatcher.vendors.llamacpp.vendor import embedded

NOWHERE = "http://192.0.2.1:9"
"""An address that is for documentation alone (RFC 5737)."""

UNNAMED = "http://gateway.invalid:9/v1"
"""A name that nobody may have (RFC 6761)."""

PROBES_S = 20.0
"""For the looks at servers that are begun in threads."""

ARGUED = {"llamacpp", "azure", "openai-compatible"}
"""Vendors that are made with arguments."""


def vendors(told: dict[str, Any]) -> Iterator[Any]:
    """Make one of every kind."""
    there = {each.name for each in entry_points(group="llmdispatcher.vendors")}
    yield from sorted(there - ARGUED - {"scripted", "embedded"})
    port = told["url"].rpartition(":")[2]
    yield Ollama(name="here", base_url=told["url"], models=["m"])
    yield Ollama(name="here-by-name", base_url=f"http://localhost:{port}")
    yield LiteLLM(name="passes-on", base_url=told["url"], models=["m"])
    yield OpenAI(name="named", models=["gpt-5.4-mini"])
    yield OpenAICompatible(name="sworn", base_url=NOWHERE, models=["m"], local=True)
    yield OpenAICompatible(name="unnamed", base_url=UNNAMED, models=["m"], local=True)
    yield LMStudio(name="proxied", base_url=told["url"], proxy=NOWHERE, models=["m"])
    yield attrs.evolve(embedded(), name="worker", engine="worker")
    yield attrs.evolve(embedded(), name="server", engine="server", executable=told["executable"])
    yield LlamaCpp("missing.gguf", name="missing")
    yield Scripted("ok", name="local")
    yield Scripted("ok", name="cloud", local=False)


ANSWERING = ("here", "here-by-name", "worker", "server", "local")


def ask(d: Dispatcher, name: str) -> None:
    """Use all that a dispatcher has."""
    d.send("Hello?", vendor=name, max_tokens=2)
    list(d.stream("Hello?", vendor=name, max_tokens=2))
    d.count_tokens("Hello?", vendor=name)
    d.send_many(["a", "b"], vendor=name, max_tokens=2)
    with contextlib.suppress(DispatcherError):
        d.embed("Hello?", vendor=name)
    with contextlib.suppress(DispatcherError):
        d.rerank("Hello?", ["a", "b"], vendor=name)


def in_threads(told: dict[str, Any]) -> dict[str, Any]:
    """Ask everybody."""
    with Dispatcher(*vendors(told), offline=True) as d:
        decision = d.explain("Hello?")
        for name in ANSWERING:
            ask(d, name)
        until_s = time.monotonic() + PROBES_S
        while time.monotonic() < until_s and not _is_looked_at(d):
            time.sleep(0.01)
        left_out = {f"{each.vendor}/{each.model}": each.note for each in decision.excluded}
        reply = d.send("Hello?", max_tokens=2)
    with Dispatcher(offline=True) as bare:  # whatever runs on this machine
        bare.explain("Hello?")
    return {"left_out": left_out, "served": reply.vendor}


def _is_looked_at(d: Dispatcher) -> bool:
    looked = {vendor.name: vendor.status.state for vendor in d.vendors()}
    return all(looked[name] is not State.ABSENT for name in ("ollama", "lmstudio", "here"))


async def in_a_loop(told: dict[str, Any]) -> str:
    """Ask those of HTTP in an event loop."""
    d = AsyncDispatcher(*vendors(told), offline=True)
    async with d:
        for name in ("here", "here-by-name", "local"):
            reply = await d.send("Hello?", vendor=name, max_tokens=2)
            await d.count_tokens("Hello?", vendor=name)
    return reply.text


def stray() -> None:
    """Go where nobody may, as a dispatcher that is not offline does."""
    limits = Deadlines(connect_s=0.05, total_s=0.5)
    for url in (NOWHERE, UNNAMED):
        spec = OpenAICompatible(base_url=url, models=["m"], proxy="")
        with contextlib.suppress(DispatcherError), Dispatcher(spec) as d:
            d.send("Hello?", deadlines=limits)


def main() -> None:
    """Do as told."""
    told = json.loads(sys.argv[1])
    if told["strays"]:
        stray()
        print("{}")  # noqa: T201 - a program's word
        return
    found = in_threads(told)
    found["in_a_loop"] = asyncio.run(in_a_loop(told))
    print(json.dumps(found))  # noqa: T201 - as above


if __name__ == "__main__":
    main()
