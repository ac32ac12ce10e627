"""One client of the exam of faults, in a process of its own. Started by ``reliability.py``.

    python bench/reliability_contender.py NAME

Reads a job a line: ``{"open": {...}}`` makes a client, ``{"ask": prompt, "stream": bool}`` asks it
once and answers with an outcome, ``{"crowd": n, ...}`` has n streams at once. The names are those
of ``WAYS``. Every peer gets what the public exam gives it: two retries, one timeout, one fallback,
and its own defaults else. Runs in the environment of the package that it examines, and imports
nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

RETRIES = 2
CONNECT_S = 5.0
"""The default of the OpenAI SDK."""

Outcome = dict[str, Any]
Ask = Callable[[str, bool], Awaitable[Outcome]]
Settings = dict[str, Any]
"""Addresses of ``primary`` and ``fallback``, and the times of the pace."""


class Screen:
    """What came until now, also where an error ends it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.model = ""
        self.has_usage = False

    def read(self, chunk: Any) -> None:  # noqa: ANN401 - of a package that may not be here
        """Take a chunk of the OpenAI SDK, or of who imitates it."""
        self.model = getattr(chunk, "model", None) or self.model
        self.has_usage |= bool(getattr(chunk, "usage", None))
        for choice in chunk.choices or ():
            if choice.delta is not None:
                self.texts.append(choice.delta.content or "")

    def whole(self, reply: Any) -> None:  # noqa: ANN401 - as above
        """Take a reply in one."""
        self.model, self.has_usage = reply.model, reply.usage is not None
        self.texts.append(reply.choices[0].message.content or "")

    def outcome(self, error: str, *, stream: bool) -> Outcome:
        """Return what became of it."""
        text = "".join(self.texts)
        return {
            "text": text,
            "shown": text if stream else None,
            "error": error,
            "model": self.model,
            "has_usage": self.has_usage,
        }


Peer = Callable[[Settings], Callable[[Screen, str, bool], Awaitable[None]]]
"""Makes what asks once, and shows what comes."""


def openai_sdk(told: Settings) -> Callable[[Screen, str, bool], Awaitable[None]]:
    """Make the official client, which has no fallback."""
    client = _openai(told, told["primary"])

    async def ask(screen: Screen, prompt: str, stream: bool) -> None:  # noqa: FBT001 - of a line
        asked: dict[str, Any] = {"model": "primary", "messages": _messages(prompt)}
        if not stream:
            screen.whole(await client.chat.completions.create(**asked))
            return
        options = {"include_usage": True}
        chunks = await client.chat.completions.create(**asked, stream=True, stream_options=options)
        async for chunk in chunks:
            screen.read(chunk)

    return ask


def litellm(told: Settings) -> Callable[[Screen, str, bool], Awaitable[None]]:
    """Make LiteLLM's Router."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched at import
    package = importlib.import_module("litellm")
    package.__dict__["suppress_debug_info"] = True
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": told[name],
                "api_key": "none",
            },
        }
        for name in ("primary", "fallback")
    ]
    elsewhere = [{"primary": ["fallback"]}]
    router = package.Router(
        model_list=models,
        num_retries=RETRIES,
        timeout=told["timeout_s"],
        fallbacks=elsewhere,
        context_window_fallbacks=elsewhere,
    )

    async def ask(screen: Screen, prompt: str, stream: bool) -> None:  # noqa: FBT001 - of a line
        asked: dict[str, Any] = {"model": "primary", "messages": _messages(prompt)}
        if not stream:
            screen.whole(await router.acompletion(**asked))
            return
        options = {"include_usage": True}
        async for chunk in await router.acompletion(**asked, stream=True, stream_options=options):
            screen.read(chunk)

    return ask


def langchain(told: Settings) -> Callable[[Screen, str, bool], Awaitable[None]]:
    """Make LangChain's chat model with a fallback."""
    package = importlib.import_module("langchain_openai")
    first, second = (
        package.ChatOpenAI(
            model=name,
            base_url=told[name],
            api_key="none",
            max_retries=RETRIES,
            timeout=told["timeout_s"],
            stream_usage=True,
        )
        for name in ("primary", "fallback")
    )
    chain = first.with_fallbacks([second])

    def take(screen: Screen, message: Any) -> None:  # noqa: ANN401 - as above
        screen.texts.append(message.text if isinstance(message.text, str) else message.text())
        screen.model = (message.response_metadata or {}).get("model_name") or screen.model
        screen.has_usage |= bool(message.usage_metadata)

    async def ask(screen: Screen, prompt: str, stream: bool) -> None:  # noqa: FBT001 - of a line
        if not stream:
            take(screen, await chain.ainvoke(prompt))
            return
        async for message in chain.astream(prompt):
            take(screen, message)

    return ask


def pydantic_ai(told: Settings) -> Callable[[Screen, str, bool], Awaitable[None]]:
    """Make pydantic-ai's model with a fallback."""
    direct, messages = (
        importlib.import_module(f"pydantic_ai.{name}") for name in ("direct", "messages")
    )
    chat = importlib.import_module("pydantic_ai.models.openai").OpenAIChatModel
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    first, second = (
        chat(name, provider=provider(openai_client=_openai(told, told[name])))
        for name in ("primary", "fallback")
    )
    model = importlib.import_module("pydantic_ai.models.fallback").FallbackModel(first, second)

    async def ask(screen: Screen, prompt: str, stream: bool) -> None:  # noqa: FBT001 - of a line
        asked = [messages.ModelRequest.user_text_prompt(prompt)]
        if not stream:
            reply = await direct.model_request(model, asked)
            screen.texts.extend(part.content for part in reply.parts)
        else:
            async with direct.model_request_stream(model, asked) as events:
                async for event in events:
                    if isinstance(event, messages.PartStartEvent):
                        screen.texts.append(event.part.content)
                    elif isinstance(event, messages.PartDeltaEvent):
                        screen.texts.append(event.delta.content_delta)
            reply = events.get()
        screen.model, screen.has_usage = reply.model_name, reply.usage.output_tokens > 0

    return ask


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _openai(told: Settings, url: str) -> Any:  # noqa: ANN401 - as above
    package = importlib.import_module("openai")
    timeout = package.Timeout(told["timeout_s"], connect=CONNECT_S)
    return package.AsyncOpenAI(base_url=url, api_key="none", max_retries=RETRIES, timeout=timeout)


def peer(make: Peer) -> Callable[[Settings], Ask]:
    """Return what makes a client whose errors are outcomes."""

    def opened(told: Settings) -> Ask:
        once = make(told)

        async def ask(prompt: str, stream: bool) -> Outcome:  # noqa: FBT001 - of a line
            screen, error = Screen(), ""
            try:
                await once(screen, prompt, stream)
            except Exception as failed:  # noqa: BLE001 - of any package: that is what is examined
                error = f"{type(failed).__name__}: {str(failed)[:200]}"
            return screen.outcome(error, stream=stream)

        return ask

    return opened


def ours(told: Settings) -> Ask:
    """Make this package's client, as its tests do."""
    tests = str(Path(__file__).parent.parent / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    attrs, exam, client = (
        importlib.import_module(name) for name in ("attrs", "faults.exam", "faults.ours")
    )
    pace = exam.Pace(**told["pace"])
    loop = client.Loop(told["primary"], told["fallback"], pace)

    async def ask(prompt: str, stream: bool) -> Outcome:  # noqa: FBT001 - of a line
        outcome: Outcome = attrs.asdict(await loop.ask(prompt, stream=stream))
        return outcome

    return ask


WAYS: dict[str, Callable[[Settings], Ask]] = {
    "openai": peer(openai_sdk),
    "litellm": peer(litellm),
    "langchain": peer(langchain),
    "pydantic-ai": peer(pydantic_ai),
    "ours": ours,
}

HUNG = {"error": "Hung: it was given up", "hung": True}


async def crowd(ask: Ask, job: dict[str, Any]) -> dict[str, Any]:
    """Have many streams at once, and tell what each costs here."""
    before_bytes, before_s = _resident_bytes(), time.process_time()
    peak, done = [before_bytes], asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _resident_bytes())
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    began_s = time.perf_counter()
    outcomes = await asyncio.gather(
        *(ask(job["prompt"], job["stream"]) for _ in range(job["crowd"]))
    )
    wall_s = time.perf_counter() - began_s
    done.set()
    await watching
    return {
        "cpu_s": time.process_time() - before_s,
        "wall_s": wall_s,
        "grown_bytes": peak[0] - before_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "texts": sorted({outcome["text"] for outcome in outcomes}),
        "errors": sorted({outcome["error"] for outcome in outcomes if outcome["error"]}),
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def answer(job: dict[str, Any], ask: Ask, runner: asyncio.Runner) -> dict[str, Any]:
    """Do a job."""
    if "crowd" in job:
        return runner.run(crowd(ask, job))

    async def bounded() -> Outcome:
        try:
            return await asyncio.wait_for(ask(job["ask"], job["stream"]), job["hang_s"])
        except TimeoutError:
            return HUNG

    return runner.run(bounded())


def main() -> None:
    """Answer jobs until there are no more."""
    name = sys.argv[1]
    ask: Ask | None = None
    with asyncio.Runner() as runner:
        print(json.dumps({"ready": name}), flush=True)
        for line in sys.stdin:
            job = json.loads(line)
            if "open" in job:
                ask, told = WAYS[name](job["open"]), {"opened": name}
            elif ask is None:
                raise SystemExit("nobody was opened")
            else:
                told = answer(job, ask, runner)
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
