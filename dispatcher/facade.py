"""``Dispatcher`` and ``AsyncDispatcher``: the same verbs for threads and for asyncio.

Everything that decides is in ``flow``; everything shared is in ``desk``; how a caller of either
world holds a reply on its way is in ``stream``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Self, Unpack

from llmdispatcher.desk import Vendor
from llmdispatcher.drive import arun, run
from llmdispatcher.front import Front
from llmdispatcher.listener import OnEvent
from llmdispatcher.models.count import TokenCount
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.embedding import (
    Embeddings,
    EmbedRequest,
    Reranked,
    RerankRequest,
    RouteOptions,
)
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.plan import Plan
from llmdispatcher.models.reply import Reply, Saved
from llmdispatcher.models.request import Options, Prompt
from llmdispatcher.models.task import Task
from llmdispatcher.steps import Flow
from llmdispatcher.stream import AsyncStream, Stream

__all__ = ["AsyncDispatcher", "AsyncStream", "Dispatcher", "OnEvent", "Stream", "Vendor"]


class Dispatcher(Front):
    """Sends each request to the cheapest vendor that can serve it, and to the next if it fails.

    Args:
        vendors: specs such as ``LlamaCpp("model.gguf")``, or names of installed vendors. Without
            any, the small embedded model answers.
        on_event: called with each event of ``llmdispatcher.models.event``, from whichever thread
            it happens in; must return at once.
        deadlines: how long each phase may take, for requests that bring no deadlines.
        retry: how often and how long a request may be tried again, on the same vendor and on
            others. All of it is one allowance, so that retries never multiply.
        breaker: when a vendor that keeps failing is left alone, and when it is tried again.
        limits: what a vendor (``"openai"``) or one of its models (``"openai/gpt-5.4"``) may be
            asked for: by the minute, by the day, at once. Those who come too early wait in line.
            With ``Ledger(share=True)`` those by the time hold for all programs together.
        ledger: where every attempt and its cost is written down, and whose caps hold. It may be
            shared with other dispatchers, and stays open when this one is closed.
        strategy: by what those that can serve a request are put in order: a name such as "cost"
            (the default), "latency" or "local_first", a ``Strategy``, or a plan such as
            ``Hedge()``. A request may bring its own.
        routing: what strategies go by: priorities, weights, what time is worth.
        catalog: facts about models that win over what vendors report; see ``models.catalog``.
        max_memory_mb: MiB of main memory for all local models together. Those that were not used
            for the longest time are unloaded to make room for one that is asked for; one that
            cannot fit is refused with ModelTooLarge. None unloads nothing to make room.
        max_vram_mb: the same for the memory of GPUs.
        preset: a word for deadlines, retry, breaker, strategy and routing together: "development",
            "production", "critical", "cost_optimized", "quality_first" or "speed_first". What is
            given beside it goes before it.
        offline: connect to nothing but this machine, and look no name up. Vendors that are
            elsewhere have no models then, and models whose server passes text on are not asked;
            ``explain`` says so for each. A vendor that cannot be kept here raises ConfigError.
        cache: where replies are kept, so that the same request is answered at once and for nothing;
            ``Reply.is_cached`` tells. A request with ``cached=False`` is made anew all the same.
            None keeps nothing. What a plan makes is not kept.

    Thread-safe. Close it, or use it in a ``with`` block, to give memory back early.
    """

    def send(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Return the whole reply.

        Args:
            prompt: text, a message, a sequence of messages (or of ``{"role", "content"}``
                mappings), or a ``Request``.
            options: fields of ``Request`` and ``Sampling``, such as ``max_tokens=100``.

        Raises:
            RequestError: the request is wrong, or too long for every model.
            NoCandidate: no registered model can do what it asks for.
            VendorError: the only vendor that was tried failed.
            AllVendorsFailed: all that were tried failed; it holds each error.
        """
        stream = Stream(self._desk, prompt, options, streaming=False)
        for _ in stream:
            pass
        return stream.reply

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """Return an iterator over the pieces of the reply as they are made.

        Pieces of several choices (``n``) come as they are made; ``Delta.index`` tells whose each
        is. A piece's text may be empty where ``logprobs`` were asked for.

        Of a reply with a form (``schema``) pieces are shown before anybody can tell whether it
        keeps to it: one that does not raises StreamInterrupted, whose cause says what is wrong and
        where. With ``resume="restart"`` it begins anew instead; ``send`` asks again by itself.

        Takes and raises what ``send`` does; errors of vendors are raised while iterating. Once a
        piece was shown, a failure raises StreamInterrupted, which holds the text so far, of the
        first choice.
        """
        return Stream(self._desk, prompt, options, streaming=True)

    def delegate(self, task: Task | str, prompt: Prompt, /, **options: Unpack[Options]) -> Reply:
        """Return the whole reply of a model that suits a task, such as ``"summarisation"``.

        As ``send`` with ``task=`` and ``strategy="auto"``: the task's rule says which tiers of
        quality come last and where it is best run. See ``models.task.Task``.
        """
        given: Options = {"strategy": "auto", **options, "task": task}
        return self.send(prompt, **given)

    def ensemble(
        self, prompt: Prompt, *, by: str = "vote", count: int = 3, **options: Unpack[Options]
    ) -> Reply:
        """Have several models answer, and return one answer that is made of theirs.

        Short for ``send(prompt, strategy=Ensemble(by=by, count=count))``; ``Ensemble`` has more to
        set, and says what each way does. Takes and raises what ``send`` does, and NoGoodAnswer.
        """
        options["strategy"] = _ensemble(by, count)
        return self.send(prompt, **options)

    def send_many(
        self, prompts: Iterable[Prompt], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> list[Reply | DispatcherError]:
        """Send many requests and return what became of each, in their order.

        Args:
            prompts: what ``send`` takes, each.
            concurrency: how many are under way at once, 1 to 1024.
            options: those of ``send``, for all of them.

        A request that fails has its error in its place: nothing is raised midway, and nothing that
        was paid for is lost. Raises BadRequest and TypeError for wrong options, before any is sent.
        """
        from llmdispatcher import many  # noqa: PLC0415 - few need it

        checked = many.checked(prompts, options, concurrency)
        return many.send(self._desk, checked, options, concurrency)

    def embed(
        self,
        texts: str | Sequence[str] | EmbedRequest,
        *,
        normalize: bool | None = None,
        **options: Unpack[RouteOptions],
    ) -> Embeddings:
        """Return a vector for each text, from a model that was registered for it.

        Args:
            texts: one text, a sequence of texts, or an ``EmbedRequest``.
            normalize: give every vector the length 1, which is the default.
            options: vendor, model, allow_cloud, deadlines and priority, as of ``send``.

        Raises what ``send`` does. ContextOverflow names the text that is too long: none is cut.
        """
        asked = EmbedRequest.of(texts, normalize=normalize, **options)
        return _result(self._desk.embedding(asked))  # type: ignore[no-any-return]

    def rerank(
        self,
        query: str | RerankRequest,
        documents: Sequence[str] = (),
        *,
        top: int | None = None,
        **options: Unpack[RouteOptions],
    ) -> Reranked:
        """Return how well each document answers a query, and which do so best.

        Args:
            query: what is looked for, or a ``RerankRequest``.
            documents: what to score.
            top: how many of the best to name in ``order``; None names all.
            options: vendor, model, allow_cloud, deadlines and priority, as of ``send``.

        Raises what ``send`` does. ContextOverflow names the document that is too long.
        """
        asked = RerankRequest.of(query, documents, top=top, **options)
        return _result(self._desk.reranking(asked))  # type: ignore[no-any-return]

    def count_tokens(self, prompt: Prompt, **options: Unpack[Options]) -> TokenCount:
        """Return how many tokens a prompt has, for the model that would be asked first.

        Takes what ``send`` does, and sends no request for a reply. Where the vendor does not tell,
        as most do not, the count is estimated, and says so.

        Raises what ``send`` does.
        """
        return _result(self._desk.counting(prompt, options))  # type: ignore[no-any-return]

    def explain(self, prompt: Prompt, **options: Unpack[Options]) -> Decision:
        """Return how a request would be routed: who would be asked, in which order and why.

        Takes what ``send`` does, and asks nobody. Printed, it is a table. Models that nobody could
        ask are in it with the reason, so nothing is raised where there is no candidate.
        """
        return _result(self._desk.explaining(prompt, options))  # type: ignore[no-any-return]

    def save_state(
        self, path: str | PathLike[str], prompt: Prompt, **options: Unpack[Options]
    ) -> Saved:
        """Put what a local model remembers of a conversation into a file, reading it if it must.

        Whoever restores it, in another process too, goes on without reading the conversation
        again. The file holds the conversation and is readable by its owner alone.

        Raises what ``send`` does, and StateUnusable if it cannot be written.
        """
        return _result(self._desk.saving(path, prompt, options))  # type: ignore[no-any-return]

    def restore_state(self, path: str | PathLike[str], *, vendor: str | None = None) -> Saved:
        """Have a local model remember a conversation that ``save_state`` put into a file.

        Args:
            path: the file.
            vendor: whose it is; needed only if several could have saved it.

        Raises StateUnusable, which says why, if the file is of another model, another llama.cpp or
        other settings, or is damaged.
        """
        return _result(self._desk.restoring(path, vendor))  # type: ignore[no-any-return]

    def load(self, model: str, vendor: str | None = None) -> None:
        """Load a model before the first request needs it, and wait until it is loaded.

        Args:
            model: the model's name, as on its card.
            vendor: whose it is; needed only if several have one of this name.

        Raises BadRequest for a name that is not registered, TimedOut after ``load_s`` of the
        deadlines (the load goes on), and another VendorError if it cannot be loaded.
        """
        _result(self._desk.loading(model, vendor))

    def unload(self, model: str, vendor: str | None = None) -> None:
        """Give a model's memory back, once the requests that it is serving have ended.

        Requests that come meanwhile wait for its next load. Do not call it from a thread that
        holds a stream of this model open: the two would wait for each other.

        Raises BadRequest as ``load`` does, and Unsupported for a model that is not in the memory of
        this machine.
        """
        _result(self._desk.unloading(model, vendor))

    def close(self) -> None:
        """Stop all work and give the memory back; requests in flight fail. Idempotent."""
        self._desk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncDispatcher(Front):
    """``Dispatcher`` for asyncio: the same verbs, with ``await`` and ``async for``.

    Takes the arguments of ``Dispatcher``, of which see the documentation. One instance may be
    used from several event loops and threads.
    """

    async def send(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Return the whole reply; see ``Dispatcher.send``. Cancelling the task stops the model."""
        async with AsyncStream(self._desk, prompt, options, streaming=False) as stream:
            async for _ in stream:
                pass
        return stream.reply

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncStream:
        """Return an async iterator over the reply, without ``await``; see ``Dispatcher.stream``."""
        return AsyncStream(self._desk, prompt, options, streaming=True)

    async def delegate(
        self, task: Task | str, prompt: Prompt, /, **options: Unpack[Options]
    ) -> Reply:
        """Return the reply of a model that suits a task; see ``Dispatcher.delegate``."""
        given: Options = {"strategy": "auto", **options, "task": task}
        return await self.send(prompt, **given)

    async def ensemble(
        self, prompt: Prompt, *, by: str = "vote", count: int = 3, **options: Unpack[Options]
    ) -> Reply:
        """Have several models answer, and make one of it; see ``Dispatcher.ensemble``."""
        options["strategy"] = _ensemble(by, count)
        return await self.send(prompt, **options)

    async def send_many(
        self, prompts: Iterable[Prompt], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> list[Reply | DispatcherError]:
        """Send many requests; see ``Dispatcher.send_many``."""
        from llmdispatcher import many  # noqa: PLC0415 - few need it

        checked = many.checked(prompts, options, concurrency)
        return await many.asend(self._desk, checked, options, concurrency)

    async def embed(
        self,
        texts: str | Sequence[str] | EmbedRequest,
        *,
        normalize: bool | None = None,
        **options: Unpack[RouteOptions],
    ) -> Embeddings:
        """Return a vector for each text; see ``Dispatcher.embed``."""
        asked = EmbedRequest.of(texts, normalize=normalize, **options)
        return await _aresult(self._desk.embedding(asked))  # type: ignore[no-any-return]

    async def rerank(
        self,
        query: str | RerankRequest,
        documents: Sequence[str] = (),
        *,
        top: int | None = None,
        **options: Unpack[RouteOptions],
    ) -> Reranked:
        """Return how well each document answers a query; see ``Dispatcher.rerank``."""
        asked = RerankRequest.of(query, documents, top=top, **options)
        return await _aresult(self._desk.reranking(asked))  # type: ignore[no-any-return]

    async def count_tokens(self, prompt: Prompt, **options: Unpack[Options]) -> TokenCount:
        """Return how many tokens a prompt has; see ``Dispatcher.count_tokens``."""
        return await _aresult(self._desk.counting(prompt, options))  # type: ignore[no-any-return]

    async def explain(self, prompt: Prompt, **options: Unpack[Options]) -> Decision:
        """Return how a request would be routed; see ``Dispatcher.explain``."""
        return await _aresult(self._desk.explaining(prompt, options))  # type: ignore[no-any-return]

    async def save_state(
        self, path: str | PathLike[str], prompt: Prompt, **options: Unpack[Options]
    ) -> Saved:
        """Put a conversation into a file; see ``Dispatcher.save_state``."""
        flow = self._desk.saving(path, prompt, options)
        return await _aresult(flow)  # type: ignore[no-any-return]

    async def restore_state(self, path: str | PathLike[str], *, vendor: str | None = None) -> Saved:
        """Remember a conversation from a file; see ``Dispatcher.restore_state``."""
        flow = self._desk.restoring(path, vendor)
        return await _aresult(flow)  # type: ignore[no-any-return]

    async def load(self, model: str, vendor: str | None = None) -> None:
        """Load a model before it is needed; see ``Dispatcher.load``."""
        await _aresult(self._desk.loading(model, vendor))

    async def unload(self, model: str, vendor: str | None = None) -> None:
        """Give a model's memory back; see ``Dispatcher.unload``."""
        await _aresult(self._desk.unloading(model, vendor))

    async def close(self) -> None:
        """Stop all work and give the memory back; requests in flight fail. Idempotent."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        await asyncio.to_thread(self._desk.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _ensemble(by: str, count: int) -> Plan:
    from llmdispatcher.models.race import Ensemble  # noqa: PLC0415 - few need it

    return Ensemble(by=by, count=count)


def _result(flow: Flow) -> Any:  # noqa: ANN401 - what the flow emits, once
    """Run a flow that emits nothing but its result."""
    with contextlib.closing(run(flow)) as source:
        return next(source)


async def _aresult(flow: Flow) -> Any:  # noqa: ANN401 - what the flow emits, once
    """Do the same as ``_result`` in an event loop."""
    async with contextlib.aclosing(arun(flow)) as source:
        return await anext(source)
