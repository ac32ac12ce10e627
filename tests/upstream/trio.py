"""One model three times: in our engine, in the binding's own class and in llama-server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import peers
from upstream.llama_server import LlamaServer, Settings
from upstream.prompts import Prompt

from llmdispatcher import Dispatcher, LlamaCpp, Reply, Request, Sampling
from llmdispatcher.vendors.llamacpp.binding.opening import CACHE_TYPES

if TYPE_CHECKING:
    from upstream.conftest import Serve

MAX_TOKENS = 60
GREEDY = Sampling(temperature=0, seed=0)
"""A seed makes no difference to what is drawn, but lets nothing depend on earlier requests."""


@attrs.frozen
class Answer:
    """What one of the three made of a prompt, in our terms."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    """Without the token that ended it."""
    finish_reason: str


@attrs.frozen
class Trio:
    """The three, loaded."""

    ours: Dispatcher
    server: LlamaServer
    binding: Any

    def ask_us(self, prompt: Prompt) -> Answer:
        """Ask our engine."""
        return seen(self.ours.send(request(prompt)))

    def ask_the_server(self, prompt: Prompt) -> Answer:
        """Ask llama-server, which counts the token that ends a text."""
        limits: dict[str, Any] = {"temperature": 0, "cache_prompt": False, "max_tokens": MAX_TOKENS}
        if isinstance(prompt, str):
            return completed(self.server.post("/completion", {"prompt": prompt, **limits}))
        found = self.server.post("/v1/chat/completions", {"messages": prompt, **limits})
        (choice,) = found["choices"]
        usage, reason = found["usage"], choice["finish_reason"]
        drawn = usage["completion_tokens"] - (reason == "stop")
        return Answer(choice["message"]["content"], usage["prompt_tokens"], drawn, reason)

    def ask_the_binding(self, prompt: Prompt) -> Answer:
        """Ask the binding; what it read for an earlier prompt is forgotten first."""
        self.binding.reset()  # or it reads only what is new in the prompt, which rounds differently
        if isinstance(prompt, str):
            found = self.binding.create_completion(prompt, max_tokens=MAX_TOKENS, temperature=0)
            text = found["choices"][0]["text"]
        else:
            found = self.binding.create_chat_completion(
                prompt, max_tokens=MAX_TOKENS, temperature=0
            )
            text = found["choices"][0]["message"]["content"]
        usage, reason = found["usage"], found["choices"][0]["finish_reason"]
        return Answer(text, usage["prompt_tokens"], usage["completion_tokens"], reason)


def request(prompt: Prompt) -> Request:
    """Ask for the likeliest tokens."""
    if isinstance(prompt, str):
        return Request(prompt=prompt, max_tokens=MAX_TOKENS, sampling=GREEDY)
    return Request(messages=prompt, max_tokens=MAX_TOKENS, sampling=GREEDY)


def seen(reply: Reply) -> Answer:
    """Put our reply in the terms that all three have."""
    usage = reply.usage
    reason = str(reply.finish_reason)
    return Answer(reply.text, usage.prompt_tokens, usage.completion_tokens, reason)


def completed(found: dict[str, Any]) -> Answer:
    """Put what llama-server completed in our terms."""
    kind = found["stop_type"]
    drawn = found["tokens_predicted"] - (kind == "eos")
    reason = "length" if kind == "limit" else "stop"
    return Answer(found["content"], found["tokens_evaluated"], drawn, reason)


@contextmanager
def loaded(settings: Settings, serve: Serve) -> Iterator[Trio]:
    """Load a model three times, with the same settings."""
    spec = LlamaCpp(
        settings.model,
        context_tokens=settings.context_tokens,
        max_threads=1,
        max_gpu_layers=0,
        cache_type=settings.cache_type,
        isolation="thread",
    )
    with ExitStack() as stack:
        ours = stack.enter_context(Dispatcher(spec))
        ours.send("hi", max_tokens=1)  # the engine's thread is there before a test counts threads
        server = stack.enter_context(serve(settings))
        binding = stack.enter_context(closing(bound(settings)))
        yield Trio(ours, server, binding)


def bound(settings: Settings) -> Any:
    """Load a model in the binding's own class."""
    return peers.llama(
        str(settings.model),
        n_ctx=settings.context_tokens,
        n_batch=settings.batch_tokens,
        n_ubatch=settings.batch_tokens,
        n_threads=1,
        n_threads_batch=1,
        flash_attn=settings.flash_attention,
        type_k=CACHE_TYPES[settings.cache_type],
        type_v=CACHE_TYPES[settings.cache_type],
        verbose=False,
    )
