"""One way of asking an instant server, measured in a process of its own.

    python bench/transport_contender.py NAME BASE_URL

Reads a job a line, ``{"job": "sequential" | "concurrent" | "stream", "calls": n}``, and answers
with the processor time and the time of a call, in microseconds. The names are those of ``WAYS``.
Runs in the environment of the package that it measures, and imports nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TOGETHER = 32
PROMPT = "Name three uses of a paperclip."
MESSAGES = [{"role": "user", "content": PROMPT}]
TEXT_CHARS = 64 * len("word ")

Once = Callable[[], str]
Aonce = Callable[[], Awaitable[str]]


class Way:
    """How a package is asked: once and whole, or streamed, from threads and from asyncio."""

    whole: Once
    streamed: Once
    awhole: Aonce
    astreamed: Aonce


def bare(url: str, *, parses: bool) -> Way:
    """The HTTP client alone; ``parses`` reads the JSON of every chunk as well."""
    import httpx2  # noqa: PLC0415 - not in every contender's environment

    way, client = Way(), httpx2.Client(timeout=30)
    path, body = url + "/chat/completions", {"model": "instant", "messages": MESSAGES}
    headers = {"Authorization": "Bearer none"}

    def whole() -> str:
        told = client.post(path, json=body, headers=headers).json()
        return str(told["choices"][0]["message"]["content"])

    def streamed() -> str:
        sent = {**body, "stream": True}
        with client.stream("POST", path, json=sent, headers=headers) as answer:
            if not parses:
                return "word " * 64 if sum(map(len, answer.iter_raw())) else ""
            return "".join(map(_text, answer.iter_lines()))

    aclient: list[httpx2.AsyncClient] = []

    async def awhole() -> str:
        if not aclient:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
            aclient.append(httpx2.AsyncClient(timeout=30, limits=limits))
        told = (await aclient[0].post(path, json=body, headers=headers)).json()
        return str(told["choices"][0]["message"]["content"])

    async def astreamed() -> str:
        if not aclient:
            aclient.append(httpx2.AsyncClient(timeout=30))
        sent = {**body, "stream": True}
        async with aclient[0].stream("POST", path, json=sent, headers=headers) as answer:
            if not parses:
                size = 0
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                return "word " * 64 if size else ""
            return "".join([_text(line) async for line in answer.aiter_lines()])

    way.whole, way.streamed, way.awhole, way.astreamed = whole, streamed, awhole, astreamed
    return way


def _text(line: str) -> str:
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line[6:])["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


def ours(url: str) -> Way:
    """This package: the whole way of a request, with its ranking, books and deadlines."""
    from llmdispatcher import (  # noqa: PLC0415 - as above
        AsyncDispatcher,
        Dispatcher,
        OpenAICompatible,
    )

    way = Way()
    vendor = OpenAICompatible(base_url=url, models=["instant"], api_key="none")
    d, a = Dispatcher(vendor), AsyncDispatcher(vendor)
    way.whole = lambda: d.send(PROMPT).text
    way.streamed = lambda: "".join(delta.text for delta in d.stream(PROMPT))

    async def awhole() -> str:
        return (await a.send(PROMPT)).text

    async def astreamed() -> str:
        return "".join([delta.text async for delta in a.stream(PROMPT)])

    way.awhole, way.astreamed = awhole, astreamed
    return way


def openai_sdk(url: str) -> Way:
    """The official client."""
    openai = importlib.import_module("openai")
    way = Way()
    client, aclient = (
        kind(base_url=url, api_key="none", max_retries=0)
        for kind in (openai.OpenAI, openai.AsyncOpenAI)
    )
    asked: dict[str, Any] = {"model": "instant", "messages": MESSAGES}

    def read(chunk: Any) -> str:  # noqa: ANN401 - of a package that may not be here
        return chunk.choices[0].delta.content or "" if chunk.choices else ""

    def streamed() -> str:
        return "".join(map(read, client.chat.completions.create(**asked, stream=True)))

    async def awhole() -> str:
        told = await aclient.chat.completions.create(**asked)
        return str(told.choices[0].message.content)

    async def astreamed() -> str:
        stream = await aclient.chat.completions.create(**asked, stream=True)
        return "".join([read(chunk) async for chunk in stream])

    way.whole = lambda: str(client.chat.completions.create(**asked).choices[0].message.content)
    way.streamed, way.awhole, way.astreamed = streamed, awhole, astreamed
    return way


def any_llm(url: str) -> Way:
    """Mozilla's any-llm, its client kept."""
    package = importlib.import_module("any_llm")
    way = Way()
    # one for each world: connections that a thread made are another event loop's
    client, aclient = (
        package.AnyLLM.create("openai", api_key="none", api_base=url) for _ in range(2)
    )
    asked: dict[str, Any] = {"model": "instant", "messages": MESSAGES}

    def read(chunk: Any) -> str:  # noqa: ANN401 - of a package that may not be here
        return chunk.choices[0].delta.content or "" if chunk.choices else ""

    async def awhole() -> str:
        return str((await aclient.acompletion(**asked)).choices[0].message.content)

    async def astreamed() -> str:
        stream = await aclient.acompletion(**asked, stream=True)
        return "".join([read(chunk) async for chunk in stream])

    way.whole = lambda: str(client.completion(**asked).choices[0].message.content)
    way.streamed = lambda: "".join(map(read, client.completion(**asked, stream=True)))
    way.awhole, way.astreamed = awhole, astreamed
    return way


def litellm(url: str) -> Way:
    """LiteLLM's library."""
    package = importlib.import_module("litellm")
    package.__dict__["suppress_debug_info"] = True
    way = Way()
    asked: dict[str, Any] = {
        "model": "openai/instant",
        "messages": MESSAGES,
        "api_base": url,
        "api_key": "none",
    }

    def read(chunk: Any) -> str:  # noqa: ANN401 - of a package that may not be here
        return chunk.choices[0].delta.content or "" if chunk.choices else ""

    async def awhole() -> str:
        return str((await package.acompletion(**asked)).choices[0].message.content)

    async def astreamed() -> str:
        stream = await package.acompletion(**asked, stream=True)
        return "".join([read(chunk) async for chunk in stream])

    way.whole = lambda: str(package.completion(**asked).choices[0].message.content)
    way.streamed = lambda: "".join(map(read, package.completion(**asked, stream=True)))
    way.awhole, way.astreamed = awhole, astreamed
    return way


WAYS: dict[str, Callable[[str], Way]] = {
    "bare": lambda url: bare(url, parses=False),
    "bare-parsed": lambda url: bare(url, parses=True),
    "ours": ours,
    "openai": openai_sdk,
    "any-llm": any_llm,
    "litellm": litellm,
}


async def _together(once: Aonce, calls: int) -> None:
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            _check(await once())

    await asyncio.gather(*(work() for _ in range(TOGETHER)))


def _check(text: str) -> None:
    if len(text) != TEXT_CHARS:
        raise SystemExit(f"{len(text)} characters came, and {TEXT_CHARS} were sent")


def _run(way: Way, job: str, calls: int, runner: asyncio.Runner) -> None:
    match job:
        case "sequential":
            for _ in range(calls):
                _check(way.whole())
        case "stream":
            for _ in range(calls):
                _check(way.streamed())
        case "astream":
            runner.run(_each(way.astreamed, calls))
        case "threads":
            with ThreadPoolExecutor(TOGETHER) as pool:
                for text in pool.map(lambda _: way.whole(), range(calls)):
                    _check(text)
        case "asequential":
            runner.run(_each(way.awhole, calls))
        case "concurrent":
            runner.run(_together(way.awhole, calls))


async def _each(once: Aonce, calls: int) -> None:
    for _ in range(calls):
        _check(await once())


def main() -> None:
    """Answer jobs until there are no more."""
    name, url = sys.argv[1:3]
    way = WAYS[name](url)
    with asyncio.Runner() as runner:
        print(json.dumps({"ready": name}), flush=True)
        for line in sys.stdin:
            job = json.loads(line)
            calls = job["calls"]
            _run(way, job["job"], max(1, calls // 10), runner)
            gc.collect()
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            _run(way, job["job"], calls, runner)
            spent = {
                "cpu_us": (time.process_time() - cpu_s) / calls * 1e6,
                "wall_us": (time.perf_counter() - wall_s) / calls * 1e6,
            }
            print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
