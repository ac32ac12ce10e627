"""The public API as its users write it: checked by mypy and pyright, never run.

A line that must be refused carries an ignore comment, which the checkers report if the line is
accepted after all.
"""

from __future__ import annotations

from array import array
from decimal import Decimal
from typing import assert_type

from llmdispatcher import (
    AsyncDispatcher,
    AsyncStream,
    BudgetAlert,
    Cache,
    Capability,
    Choice,
    ConfigReloaded,
    Deadlines,
    Decision,
    Delta,
    Dispatcher,
    DispatcherError,
    Event,
    FinishReason,
    Hedge,
    HttpVendor,
    Ledger,
    LedgerTrouble,
    LlamaCpp,
    LoadProgress,
    ModelCard,
    Ollama,
    OpenAI,
    Price,
    Reply,
    Request,
    Sampling,
    Scripted,
    SpendingCap,
    Stats,
    Stream,
    TokenCount,
    TokenLogprob,
    Usage,
    Vendor,
    assistant,
    fingerprint,
    system,
    user,
)
from llmdispatcher.models.embedding import Embeddings, EmbedRequest, Reranked, RerankRequest
from llmdispatcher.vendors.contract import Engine, Report, VendorSpec
from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine
from llmdispatcher.vendors.scripted import ScriptedEngine


def sync() -> None:
    """Threads."""
    with Dispatcher(LlamaCpp("model.gguf", max_threads=2), Scripted("ok"), "embedded") as d:
        assert_type(d, Dispatcher)
        reply = d.send("hi", max_tokens=3, temperature=0.5, stop=["x"], seed=None)
        assert_type(reply, Reply)
        assert_type(reply.text, str)
        assert_type(reply.usage, Usage)
        assert_type(reply.finish_reason, FinishReason)
        assert_type(reply.cost_microusd, int | None)
        assert_type(reply.cost_usd, Decimal | None)
        assert_type(reply.decision, Decision)
        d.send([{"role": "user", "content": "hi"}])
        d.send([system("s"), user("u"), assistant("a")])
        d.send(Request(prompt="raw", stop=("x",), sampling=Sampling(top_k=3)), max_tokens=2)
        with d.stream("hi", deadlines=Deadlines(total_s=3)) as stream:
            assert_type(stream, Stream)
            for delta in stream:
                assert_type(delta, Delta)
        assert_type(stream.reply, Reply)
        assert_type(d.stats(), Stats)
        assert_type(d.vendors(), tuple[Vendor, ...])
        assert_type(d.vendors()[0].cards, tuple[ModelCard, ...])


def choices(d: Dispatcher) -> None:
    """Several replies to one prompt, with their log-probabilities."""
    reply = d.send("hi", n=2, logprobs=3, prefill="Well,", priority=-1, seed=1)
    assert_type(reply.choices, tuple[Choice, ...])
    assert_type(reply.choices[1].text, str)
    assert_type(reply.choices[1].finish_reason, FinishReason)
    assert_type(reply.logprobs, tuple[TokenLogprob, ...])
    assert_type(reply.logprobs[0].logprob, float)
    assert_type(reply.logprobs[0].token, str)
    assert_type(reply.logprobs[0].data, bytes)
    assert_type(reply.logprobs[0].top, tuple[TokenLogprob, ...])
    for delta in d.stream("hi", n=None, logprobs=None, prefill=None, priority=None):
        assert_type(delta.index, int)
        assert_type(delta.logprobs, tuple[TokenLogprob, ...])
    request = Request(messages="hi", n=2, logprobs=0, prefill="x", priority=5)
    assert_type(request.n, int)
    assert_type(request.logprobs, int | None)
    assert_type(request.prefill, str)
    assert_type(request.priority, int)
    Reply(
        text="x",
        finish_reason=FinishReason.STOP,
        usage=Usage(),
        vendor="v",
        model="m",
        cost_microusd=None,
        latency_s=0.0,
        first_token_s=None,
        decision=Decision(),
    )
    Scripted(capabilities={Capability.CHOICES, Capability.LOGPROBS, Capability.PREFILL})


def pooled(d: Dispatcher) -> None:
    """Vectors and scores."""
    embedded = d.embed(["a", "b"], normalize=False, vendor="v", deadlines=Deadlines(total_s=3))
    assert_type(embedded, Embeddings)
    assert_type(embedded.vectors, tuple[array[float], ...])
    assert_type(embedded.dimensions, int)
    assert_type(embedded.usage, Usage)
    assert_type(embedded.decision, Decision)
    assert_type(d.embed("a", priority=1, model=None), Embeddings)
    d.embed(EmbedRequest(texts=("a",)), allow_cloud=False)
    ranked = d.rerank("query", ["a", "b"], top=1)
    assert_type(ranked, Reranked)
    assert_type(ranked.scores, tuple[float, ...])
    assert_type(ranked.order, tuple[int, ...])
    assert_type(ranked.cost_microusd, int | None)
    d.rerank(RerankRequest(query="q", documents=["a"]))
    d.embed(5)  # type: ignore[arg-type]
    d.embed("a", temperature=1)  # type: ignore[call-arg]
    d.rerank("q", ["a"], top="2")  # type: ignore[arg-type]


async def asynchronous() -> None:
    """The same verbs in an event loop."""
    async with AsyncDispatcher(Scripted("ok", price=Price.per_million(1, 2))) as d:
        assert_type(await d.send("hi"), Reply)
        assert_type(await d.embed("hi"), Embeddings)
        assert_type(await d.rerank("hi", ["you"]), Reranked)
        assert_type(await d.send_many(["hi"]), list[Reply | DispatcherError])
        assert_type(await d.ensemble("hi", by="best", max_tokens=9), Reply)
        assert_type(await d.send("hi", strategy=Hedge(max_extra=0.2)), Reply)
        assert_type(await d.count_tokens("hi"), TokenCount)
        assert_type(await d.explain("hi"), Decision)
        async with d.stream("hi") as stream:
            assert_type(stream, AsyncStream)
            async for delta in stream:
                assert_type(delta, Delta)
        assert_type(stream.reply, Reply)


def configured() -> None:
    """Both dispatchers are made of a file, and are what they are."""
    with Dispatcher.from_config("llmdispatcher.yaml", watch=True, on_event=events) as d:
        assert_type(d, Dispatcher)
        assert_type(d.reload(), ConfigReloaded)
    assert_type(AsyncDispatcher.from_config(allow_cloud=True), AsyncDispatcher)
    Dispatcher(preset="production")
    Dispatcher(preset=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def events(event: Event) -> None:
    """Events are told apart by class."""
    if isinstance(event, LoadProgress):
        assert_type(event.fraction, float)


def vendors(report: Report) -> None:
    """Specs and engines fit the contract by their shape."""
    specs: list[VendorSpec] = [LlamaCpp("x.gguf"), Scripted(), OpenAI(models=["m"]), Ollama()]
    assert_type(OpenAI(api_key_env="MY_KEY", extra={"service_tier": "flex"}), HttpVendor)
    engines: list[Engine] = [spec.start(report) for spec in specs]
    assert_type(LlamaCpp("x").start(report), LlamaCppEngine)
    assert_type(Scripted().start(report), ScriptedEngine)
    Dispatcher(*specs, on_event=events)
    del engines


def refused(d: Dispatcher) -> None:
    """What a checker must not accept."""
    d.send("hi", temprature=1)  # type: ignore[call-arg]
    d.send("hi", max_tokens="5")  # type: ignore[arg-type]
    d.send("hi", n="2")  # type: ignore[arg-type]
    d.send("hi", logprobs="all")  # type: ignore[arg-type]
    d.send("hi", prefill=b"x")  # type: ignore[arg-type]
    d.send(5)  # type: ignore[arg-type]
    d.send("hi", effort=3)  # type: ignore[arg-type]
    OpenAI(key="x")  # type: ignore[call-arg]
    LlamaCpp("x", max_memory="2GB")  # type: ignore[call-arg]


def money() -> None:
    """Caps and the ledger."""
    caps = [
        SpendingCap("5.00", period="day"),
        SpendingCap(Decimal("0.5"), period="month", scope="tag", name="nightly"),
        SpendingCap(1, period="ever", scope="key", name=fingerprint("sk"), unknown_price="allow"),
    ]
    assert_type(caps[0].usd, Decimal)
    assert_type(caps[0].limit_microusd, int)
    SpendingCap("5.00")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ledger = Ledger("ledger.sqlite3", caps=caps, on_trouble="degrade", report=told_of_money)
    assert_type(ledger.trouble, str)
    Ledger(share=True)
    Ledger(share=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ledger.close()


def kept() -> None:
    """Kept replies, and what stays on this machine."""
    cache = Cache("replies.sqlite3", max_mb=16, ttl_s=3600, store_sampled=True)
    with Dispatcher("ollama", offline=True, cache=cache) as d:
        reply = d.send("x", temperature=0, cached=False)
        assert_type(reply.is_cached, bool)
        assert_type(reply.decision.cached_s, float | None)
        assert_type(d.stats().cached, int)
    cache.close()
    Cache(max_mb="16")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def told_of_money(event: BudgetAlert | LedgerTrouble) -> None:
    """A listener for money alone."""
    if isinstance(event, BudgetAlert):
        assert_type(event.cap, SpendingCap)
        assert_type(event.spent_microusd, int)
    else:
        assert_type(event.kind, str)
