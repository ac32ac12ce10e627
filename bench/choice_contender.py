"""LiteLLM's cost-based routing, put before the situations and into the world. See ``choice.py``.

    python bench/choice_contender.py

Reads a job a line: ``{"situation": {...}}`` answers with whom the Router sent a request to, and
``{"world": seed, "requests": n, "free": usd}`` with what all requests of a world cost. Its choice,
retries and cooldowns are its own, with its defaults and the strategy by cost; vendors are a custom
provider that replies as it is told. Time is simulated: ``time.time`` is that of the world, and
whoever sleeps makes it later. Runs in the environment of the package.

Models are in a group for each capability, as its users do that, since the Router knows of none; and
it is told the context of each, and to check it before a call.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sys
import time
from collections import Counter
from typing import Any

from choice_world import MODELS, Ask, Meter, Model, World

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices come from here, and not from a network

AGAIN_S, AGAIN = 5.0, 5
"""A caller who is told that nobody is there comes back after its cooldown, so often."""
BEGAN_S = 1_800_000_000.0
"""What ``time.time`` is when the world begins."""
MESSAGE = [{"role": "user", "content": "x"}]
PICO_PER_USD = 10**12


class Clock:
    """Seconds of the world, for everything that asks ``time`` for them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, wait_s: float) -> None:
        """Be later."""
        self.now_s += max(0.0, wait_s)

    async def pause(self, delay: float, result: object = None) -> object:
        """Be later, where a coroutine sleeps. Without a delay it lets others go on, as ever."""
        if delay > 0:
            self.sleep(delay)
        return await SLEEP(0, result)

    def begin(self) -> None:
        """Take the place of the machine's own."""
        self.now_s = 0.0
        time.time = lambda: BEGAN_S + self.now_s
        time.sleep = self.sleep  # type: ignore[assignment]
        asyncio.sleep = self.pause  # type: ignore[assignment]


SLEEP = asyncio.sleep
CLOCK = Clock()
CLOCK.begin()  # before anything keeps a function of its own

litellm: Any = importlib.import_module("litellm")  # it must find the clock in place

litellm.suppress_debug_info = True
logging.disable(logging.CRITICAL)


class Provider(litellm.CustomLLM):  # type: ignore[misc]
    """Vendors that reply as ``reply`` says."""

    reply: Any = None

    async def acompletion(self, *args: Any, **given: Any) -> Any:  # noqa: ANN401 - as it is called
        """Reply, or fail."""
        del args
        return self.reply(given["model"], given["model_response"])


LOOP = asyncio.new_event_loop()
"""The strategy by cost is there for coroutines alone."""
PROVIDER = Provider()
litellm.custom_provider_map = [{"provider": "world", "custom_handler": PROVIDER}]


def deployment(group: str, name: str, facts: dict[str, Any], context: int | None) -> dict[str, Any]:
    """Return an entry of the Router's list; ``facts`` are prices, those that are known."""
    params = {"model": f"world/{name}", "api_key": "none", **facts}
    info: dict[str, Any] = {"id": f"{group}:{name}"}
    if context is not None:
        info["max_input_tokens"] = context
    return {"model_name": group, "litellm_params": params, "model_info": info}


def router(entries: list[dict[str, Any]], **options: Any) -> Any:  # noqa: ANN401 - of litellm
    """Make a Router that goes by cost."""
    return litellm.Router(
        model_list=entries,
        routing_strategy="cost-based-routing",
        enable_pre_call_checks=True,
        **options,
    )


def situation(told: dict[str, Any]) -> str:
    """Return the name of whom a request was sent to; an error's name where it was nobody."""
    CLOCK.begin()
    asked: list[str] = []
    down = {offer["name"] for offer in told["offers"] if offer["down"]}

    def reply(model: str, response: Any) -> Any:  # noqa: ANN401 - of litellm
        if model in down:
            raise litellm.ServiceUnavailableError("down", "world", model)
        asked.append(model)
        return _said(response, "ok", (1, 0, 1))

    PROVIDER.reply = reply
    entries = [
        deployment("all", offer["name"], offer["facts"], offer["context"])
        for offer in told["offers"]
    ]
    made = router(entries, num_retries=3, cooldown_time=3600, allowed_fails=0)
    for name in down:
        _try(made, f"all:{name}", {})
    asked.clear()
    error = _try(made, "all", {"messages": told["messages"], **told["options"]})
    return asked[0] if asked else error


def _try(made: Any, model: str, given: dict[str, Any]) -> str:  # noqa: ANN401 - a Router
    try:
        LOOP.run_until_complete(made.acompletion(model=model, **{"messages": MESSAGE, **given}))
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        return type(error).__name__
    return ""


def _said(response: Any, text: str, usage: tuple[int, int, int]) -> Any:  # noqa: ANN401 - of litellm
    prompt, cached, completion = usage
    response.choices[0].message.content = text
    response.usage = litellm.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details={"cached_tokens": cached},
    )
    return response


class Replay:
    """A world, request by request. What takes time there does not hold up the next request."""

    def __init__(self, world: World, free_usd: float) -> None:
        self._world = world
        self._meter = Meter(world)
        self._models = {model.name: model for model in MODELS}
        self._ask: Ask | None = None
        self._served: Counter[str] = Counter()
        self._attempts = 0
        entries = [
            deployment(need or "text", model.name, _prices(model, free_usd), model.context)
            for need in ("", "tools", "json", "vision")
            for model in MODELS
            if not need or need in model.able
        ]
        self._router = router(entries)
        PROVIDER.reply = self._reply

    def run(self) -> dict[str, Any]:
        """Send everything."""
        unserved = [ask.number for ask in self._world.asks if not self._send(ask)]
        return {
            "usd": self._meter.pico / PICO_PER_USD,
            "unserved": unserved,
            "attempts": self._attempts,
            "served": dict(self._served.most_common()),
        }

    def _send(self, ask: Ask) -> bool:
        """Send a request at its time, and again where nobody was there."""
        self._ask = ask
        CLOCK.now_s = ask.at_s
        # Its token count is of the text; words of four letters are a token or so each.
        given: dict[str, Any] = {"messages": _messages(ask)}
        if ask.max_tokens is not None:
            given["max_tokens"] = ask.max_tokens
        for _ in range(AGAIN):
            if not _try(self._router, ask.need or "text", given):
                return True
            CLOCK.sleep(AGAIN_S)
        return False

    def _reply(self, name: str, response: Any) -> Any:  # noqa: ANN401 - of litellm
        assert self._ask is not None  # noqa: S101 - somebody asked
        self._attempts += 1
        trouble, bill = self._meter.ask(self._ask, self._models[name], CLOCK.now_s)
        if trouble is None:
            self._served[name] += 1
            return _said(response, "ok", (bill.prompt, bill.cached, bill.completion))
        if trouble.kind == "limited":
            raise litellm.RateLimitError("slow down", "world", name)
        if trouble.kind == "overloaded":
            raise litellm.ServiceUnavailableError("no room", "world", name)
        raise litellm.APIConnectionError(trouble.kind, "world", name)


def _messages(ask: Ask) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[place % 2], "content": "four " * (size // 5)}
        for place, size in enumerate(ask.sizes)
    ]


def _prices(model: Model, free_usd: float) -> dict[str, float]:
    """Return dollars per token, as the Router is told them."""
    known = {
        "input_cost_per_token": model.rates.input / PICO_PER_USD,
        "output_cost_per_token": model.rates.output / PICO_PER_USD,
    }
    return {name: usd or free_usd for name, usd in known.items()}


def main() -> None:
    """Answer jobs until there are no more."""
    print(json.dumps({"version": version()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "situation" in job:
            answer: Any = situation(job["situation"])
        else:
            CLOCK.begin()
            answer = Replay(World(job["world"], job["requests"]), job["free"]).run()
        print(json.dumps(answer), flush=True)


def version() -> str:
    """Return which release this is."""
    import importlib.metadata  # noqa: PLC0415 - for a line

    return importlib.metadata.version("litellm")


if __name__ == "__main__":
    main()
