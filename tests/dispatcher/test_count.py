"""How long a prompt is: told by whoever would serve it, or estimated and said so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import attrs
import pytest
from http_hosts import HOSTS, Host
from loopback import Answer, Got, Loopback

from llmdispatcher import (
    AsyncDispatcher,
    AuthRejected,
    Deadlines,
    Dispatcher,
    NoCandidate,
    Scripted,
    TimedOut,
    TokenCount,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.scripted import ScriptedEngine

COUNTING = {
    "anthropic": ("/v1/messages/count_tokens", {"input_tokens": 42}),
    "gemini": (":countTokens", {"totalTokens": 42}),
    "llama-server": ("/v1/chat/completions/input_tokens", {"input_tokens": 42}),
    "vllm": ("/tokenize", {"count": 42, "max_model_len": 8192, "tokens": [1] * 42}),
}
"""Hosts that tell, where they are asked, and what they say."""


def of_a_host(preset: str) -> Host:
    """Find a host's row."""
    return next(host for host in HOSTS if host.preset == preset)


@pytest.mark.parametrize("preset", COUNTING)
def test_a_vendor_that_tells_is_asked(preset: str) -> None:
    """The count is the vendor's own, in both worlds, and nothing is generated."""
    path, told = COUNTING[preset]
    host = of_a_host(preset)
    with Loopback(lambda _: Answer.json(told)) as server:
        with Dispatcher(host.vendor(server)) as d:
            count = d.count_tokens("How long is this?", max_tokens=9)

        async def main() -> TokenCount:
            async with AsyncDispatcher(host.vendor(server)) as d:
                return await d.count_tokens("How long is this?", max_tokens=9)

        assert asyncio.run(main()) == count

    assert count == TokenCount(vendor=preset, model=host.model, tokens=42)
    assert all(got.path.endswith(path) for got in server.got)


SILENT = tuple(host for host in HOSTS if host.preset not in COUNTING)


@pytest.mark.parametrize("host", SILENT, ids=lambda host: host.preset)
def test_elsewhere_it_is_estimated_and_said_so(host: Host) -> None:
    """A vendor that tells nothing is not asked."""
    with (
        Loopback(lambda _: Answer.json({})) as server,
        Dispatcher(host.vendor(server)) as d,
    ):
        count = d.count_tokens("12345678")

    assert count == TokenCount(vendor=host.preset, model=host.model, tokens=2, estimated=True)
    assert not server.got


def test_an_error_of_the_vendor_is_told() -> None:
    """A key that is refused is no estimate."""
    host = of_a_host("anthropic")
    with (
        Loopback(lambda _: host.failed("auth")) as server,
        Dispatcher(host.vendor(server)) as d,
        pytest.raises(AuthRejected),
    ):
        d.count_tokens("Hello.")


def test_a_vendor_that_says_nothing_is_late() -> None:
    """The wait is bounded by the first token's deadline."""
    host = of_a_host("llama-server")

    def slow(_: Got) -> Answer:
        return Answer.sse([10.0])

    with (
        Loopback(slow) as server,
        Dispatcher(host.vendor(server)) as d,
        pytest.raises(TimedOut),
    ):
        d.count_tokens("Hello.", deadlines=Deadlines(first_token_s=0.1))


def test_nobody_to_ask_is_told() -> None:
    """As for a request."""
    with Dispatcher(Scripted("x")) as d, pytest.raises(NoCandidate):
        d.count_tokens("Hello.", model="nowhere")


def test_a_dialect_with_a_bug_leaves_nobody_waiting() -> None:
    """What an engine's future fails with is what the caller gets."""

    class Failing(ScriptedEngine):
        def count(self, _: Request, __: str) -> Future[int | None]:
            failed: Future[int | None] = Future()
            failed.set_exception(AuthRejected("no"))
            return failed

    @attrs.frozen
    class Spec:
        name: str = "failing"
        make: Callable[[Scripted, Report], ScriptedEngine] = Failing

        def start(self, report: Report) -> ScriptedEngine:
            return self.make(Scripted("x", name="failing"), report)

    with Dispatcher(Spec()) as d, pytest.raises(AuthRejected):
        d.count_tokens("Hello.")
