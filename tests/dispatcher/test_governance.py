"""``allow_cloud=False`` is a promise about data: no byte of the request reaches a vendor elsewhere.

The vendor that is not local is a real HTTP server here, all of whose bytes are looked through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Answer, Got, Loopback, events

from llmdispatcher import (
    FREE,
    AsyncDispatcher,
    Capability,
    Dispatcher,
    DispatcherError,
    EmbedRequest,
    ModelCard,
    NoCandidate,
    OpenAICompatible,
    Overloaded,
    Price,
    Request,
    RerankRequest,
    Scripted,
)
from llmdispatcher.models.policy import BreakerPolicy, RetryPolicy
from llmdispatcher.vendors.scripted import ABLE, CUT

SECRET = "kumquat-4711"  # noqa: S105 - what must not leak, and no password

EVERY = frozenset(Capability)


def cloud(got: Got) -> Answer:
    """Answer everything, gladly."""
    if got.path.endswith("/models"):
        return Answer.json({"data": [{"id": "m"}]})
    if got.path.endswith("/embeddings"):
        row = {"index": 0, "embedding": [1.0]}
        return Answer.json({"data": [row], "usage": {"prompt_tokens": 1}})
    if not (got.body or {}).get("stream"):
        choice = {"message": {"content": "from afar"}, "finish_reason": "stop"}
        return Answer.json({"choices": [choice]})
    return Answer.sse(
        events(
            {"choices": [{"delta": {"content": "from afar"}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        )
    )


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Another's machine."""
    with Loopback(cloud) as made:
        yield made


def elsewhere(server: Loopback) -> Any:
    """Make the vendor of that server: it can do all, and costs nothing."""
    card = ModelCard(vendor="cloud", model="m", local=False, capabilities=EVERY, price=FREE)
    return OpenAICompatible(name="cloud", base_url=server.url, models=[card], local=False)


def dear(*replies: Any, **fields: Any) -> Scripted:
    """Make a local vendor that anybody who looks at money would ask last."""
    price = Price.per_million(100, 100)
    return Scripted(*replies, name="here", price=price, capabilities=ABLE, **fields)


def leaked(server: Loopback) -> list[Got]:
    """Return what was asked there with anything of a request in it."""
    word = SECRET.encode()
    return [
        got
        for got in server.got
        if word in got.raw or SECRET in f"{got.path}{got.query}{[*got.headers.values()]}"
    ]


STUBBORN: dict[str, Any] = {
    "retry": RetryPolicy(attempts=6, same_target=1, backoff_s=0.001),
    "breaker": BreakerPolicy(failures=1000),
}

VERBS: dict[str, Callable[[Dispatcher], object]] = {
    "send": lambda d: d.send(SECRET, allow_cloud=False),
    "request": lambda d: d.send(Request(messages=SECRET, allow_cloud=False)),
    "raw": lambda d: d.send(Request(prompt=SECRET, allow_cloud=False)),
    "named": lambda d: d.send(SECRET, allow_cloud=False, vendor="cloud"),
    "stream": lambda d: list(d.stream(SECRET, allow_cloud=False)),
    "restart": lambda d: list(d.stream(SECRET, allow_cloud=False, resume="restart")),
    "continue": lambda d: list(d.stream(SECRET, allow_cloud=False, resume="continue")),
    "send_many": lambda d: d.send_many([SECRET, SECRET], allow_cloud=False),
    "count_tokens": lambda d: d.count_tokens(SECRET, allow_cloud=False),
    "explain": lambda d: d.explain(SECRET, allow_cloud=False),
    "embed": lambda d: d.embed(SECRET, allow_cloud=False),
    "embed_request": lambda d: d.embed(EmbedRequest(texts=[SECRET], allow_cloud=False)),
    "rerank": lambda d: d.rerank(SECRET, [SECRET], allow_cloud=False),
    "rerank_request": lambda d: d.rerank(
        RerankRequest(query=SECRET, documents=[SECRET], allow_cloud=False)
    ),
    "save_state": lambda d: d.save_state(Path("never"), SECRET, allow_cloud=False),
    "metadata": lambda d: d.send("x", allow_cloud=False, tags=SECRET, stop=SECRET, suffix=None),
}


@pytest.mark.parametrize(
    "local",
    [dear("here"), dear(Overloaded("later")), dear(["he", CUT]), None],
    ids=["serves", "fails", "breaks", "none"],
)
@pytest.mark.parametrize("failures", [1, 1000], ids=["left alone", "asked on"])
def test_nothing_of_the_request_reaches_a_cloud(
    failures: int, local: Scripted | None, server: Loopback
) -> None:
    """Whether a local model serves, fails, breaks off or is not there: the cloud hears nothing."""
    vendors = [elsewhere(server), *([] if local is None else [local])]
    settings = {**STUBBORN, "breaker": BreakerPolicy(failures=failures)}
    with Dispatcher(*vendors, **settings) as d:
        for name, verb in VERBS.items():
            with contextlib.suppress(DispatcherError):
                verb(d)
            d.vendors()  # has it probed
            assert not leaked(server), name


def test_it_holds_in_an_event_loop(server: Loopback) -> None:
    """The promise is the flow's, so both worlds keep it."""

    async def main() -> None:
        async with AsyncDispatcher(elsewhere(server), dear(["he", CUT]), **STUBBORN) as d:
            with pytest.raises(DispatcherError):
                await d.send(SECRET, allow_cloud=False)
            with contextlib.suppress(DispatcherError):
                async for _ in d.stream(SECRET, allow_cloud=False, resume="restart"):
                    pass

    asyncio.run(main())
    assert not leaked(server)


def test_a_cloud_that_may_be_asked_hears_it(server: Loopback) -> None:
    """The look through the bytes finds what is there: without the promise the cloud is asked."""
    with Dispatcher(elsewhere(server), dear("here")) as d:
        assert d.send(SECRET).text == "from afar"
        d.embed(SECRET)

    assert len(leaked(server)) == 2


def test_a_refusal_names_the_promise(server: Loopback) -> None:
    """Whoever has no local model is told why nobody was asked."""
    with (
        Dispatcher(elsewhere(server)) as d,
        pytest.raises(NoCandidate, match="allow_cloud=False"),
    ):
        d.send(SECRET, allow_cloud=False)
