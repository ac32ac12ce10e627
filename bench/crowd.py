"""One way to serve several requests at once, in a process of its own. Started by ``engine.py``.

    python bench/crowd.py {bare,async,sync,lock,xllamacpp} MODEL CONTEXT THREADS SEQUENCES

Each line on standard input is a job in JSON, each line on standard output its result.

    bare        llama.cpp's functions in a loop, all sequences in step: what Python allows at best
    async       ``llmdispatcher.AsyncDispatcher.stream``, a task for each request
    sync        ``llmdispatcher.Dispatcher.stream``, a thread for each request
    lock        ``llama_cpp.Llama`` behind a lock, a thread for each request
    xllamacpp   llama.cpp's server as a Python object, a thread for each request

Everything but the standard library is imported where it is measured: ``xllamacpp`` lives in an
environment that has nothing else.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from burst import Burst, Track
from contender import Bare, Log, listen

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Setup:
    """What to run, and how: the same for every contender."""

    model: str
    context: int
    threads: int
    sequences: int

    @property
    def batch(self) -> int:
        """Tokens of a decode."""
        return min(512, self.context)


class Contender(Protocol):
    """A loaded model."""

    def run(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """Complete raw prompts greedily, all at once; returns what ``Burst.end`` does."""

    def close(self) -> None:
        """Give the memory back, where leaving that to the end of the process makes noise."""


class Lockstep:
    """llama.cpp's functions in a loop; every step decodes one token of each sequence."""

    def __init__(self, setup: Setup) -> None:
        bare = Bare(setup.model, setup.context, setup.threads, setup.sequences)
        self._bare = bare
        self._lib, self._context, self._vocab = bare.lib, bare.context, bare.vocab
        self._batch, self._size = bare.batch, setup.batch
        self._buffer = ctypes.create_string_buffer(256)
        self._chains = [bare.chain, *(bare.greedy() for _ in range(setup.sequences - 1))]

    def run(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """See ``Contender``."""
        lib, context, batch, draw = self._lib, self._context, self._batch, self._draw
        decode = lib.llama_decode
        burst = Burst.of(len(prompts))
        read = [self._bare.tokenize(prompt) for prompt in prompts]
        latest = self._read(read, burst.tracks)
        positions = list(map(len, read))
        count = batch.n_tokens = len(prompts)
        for index in range(count):
            batch.logits[index] = 1
            batch.seq_id[index][0] = index
        for _ in range(tokens - 1):
            for index in range(count):
                batch.token[index] = latest[index]
                batch.pos[index] = positions[index]
                positions[index] += 1
            decode(context, batch)
            for index, track in enumerate(burst.tracks):
                latest[index] = draw(index, index, track)
        for track in burst.tracks:
            track.end(tokens)
        return burst.end()

    def close(self) -> None:
        """See ``Contender``."""

    def _draw(self, sequence: int, index: int, track: Track) -> int:
        """Draw the next token of a sequence from a row of the batch, and hand over its text."""
        lib = self._lib
        token: int = lib.llama_sampler_sample(self._chains[sequence], self._context, index)
        if lib.llama_vocab_is_eog(self._vocab, token):
            raise SystemExit("a reply ended early: is this a model of shapes.py?")
        size = lib.llama_token_to_piece(self._vocab, token, self._buffer, 256, 0, False)  # noqa: FBT003 - C call
        track.take(self._buffer.raw[:size].decode())
        return token

    def _read(self, read: list[list[int]], tracks: list[Track]) -> list[int]:
        """Decode all prompts, as many tokens at once as go into a batch; draw the first tokens."""
        lib, batch = self._lib, self._batch
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)  # noqa: FBT003 - C call
        rows = [
            (token, position, sequence, position == len(tokens) - 1)
            for sequence, tokens in enumerate(read)
            for position, token in enumerate(tokens)
        ]
        latest = [0] * len(read)
        for start in range(0, len(rows), self._size):
            chunk = rows[start : start + self._size]
            batch.n_tokens = len(chunk)
            for index, (token, position, sequence, is_last) in enumerate(chunk):
                batch.token[index] = token
                batch.pos[index] = position
                batch.seq_id[index][0] = sequence
                batch.logits[index] = is_last
            lib.llama_decode(self._context, batch)
            for index, (_, _, sequence, is_last) in enumerate(chunk):
                if is_last:
                    latest[sequence] = self._draw(sequence, index, tracks[sequence])
        return latest


class Async:
    """``llmdispatcher.AsyncDispatcher``, in one event loop that lives as long as it."""

    def __init__(self, setup: Setup) -> None:
        from llmdispatcher import AsyncDispatcher, Request  # noqa: PLC0415 - where it is measured

        self.dispatcher = AsyncDispatcher(vendor(setup))
        self._request = Request
        self.runner = asyncio.Runner()

    def run(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """See ``Contender``."""
        return self.runner.run(self._run(prompts, tokens))

    def close(self) -> None:
        """See ``Contender``."""
        self.runner.run(self.dispatcher.close())
        self.runner.close()

    async def _run(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        burst = Burst.of(len(prompts))
        replies = map(self.reply, burst.tracks, prompts, [tokens] * len(prompts))
        await asyncio.gather(*replies)
        return burst.end()

    async def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """Follow one reply."""
        request = self._request(prompt=prompt)
        async with self.dispatcher.stream(request, max_tokens=tokens, temperature=0.0) as stream:
            async for delta in stream:
                track.take(delta.text)
        track.end(stream.reply.usage.completion_tokens)


class Threads:
    """Contenders whose callers are threads."""

    def __init__(self, callers: int) -> None:
        self._pool = ThreadPoolExecutor(callers)

    def run(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """See ``Contender``."""
        burst = Burst.of(len(prompts))
        list(self._pool.map(self.reply, burst.tracks, prompts, [tokens] * len(prompts)))
        return burst.end()

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """Follow one reply in a thread."""
        raise NotImplementedError

    def close(self) -> None:
        """See ``Contender``."""
        self._pool.shutdown()


class Sync(Threads):
    """``llmdispatcher.Dispatcher``."""

    def __init__(self, setup: Setup) -> None:
        from llmdispatcher import Dispatcher, Request  # noqa: PLC0415 - where it is measured

        super().__init__(setup.sequences)
        self.dispatcher = Dispatcher(vendor(setup))
        self._request = Request

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """See ``Threads``."""
        request = self._request(prompt=prompt)
        with self.dispatcher.stream(request, max_tokens=tokens, temperature=0.0) as stream:
            for delta in stream:
                track.take(delta.text)
        track.end(stream.reply.usage.completion_tokens)

    def close(self) -> None:
        """See ``Contender``."""
        self.dispatcher.close()
        super().close()


class Lock(Threads):
    """``llama_cpp.Llama``, which two threads must never enter together."""

    def __init__(self, setup: Setup) -> None:
        from llama_cpp import Llama  # noqa: PLC0415 - only where it is measured

        super().__init__(setup.sequences)
        self._lock = threading.Lock()
        self._llama: Any = Llama(
            setup.model,
            n_ctx=setup.context,
            n_batch=setup.batch,
            n_threads=setup.threads,
            n_threads_batch=setup.threads,
            flash_attn=True,
            verbose=False,
        )

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """See ``Threads``."""
        with self._lock:
            for chunk in self._llama.create_completion(
                prompt, max_tokens=tokens, temperature=0.0, stream=True
            ):
                track.take(chunk["choices"][0]["text"])
        track.end(tokens)

    def close(self) -> None:
        """See ``Contender``."""
        self._llama.close()
        super().close()


class XLlamaCpp(Threads):
    """``xllamacpp.Server``, which also listens on a port, whether or not anybody calls there."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.sequences)
        xllamacpp: Any = import_module("xllamacpp")
        params: Any = xllamacpp.CommonParams()
        params.model.path = setup.model
        params.n_ctx, params.n_parallel = setup.context, setup.sequences
        params.n_batch = params.n_ubatch = setup.batch
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup.threads
        kinds = xllamacpp.llama_flash_attn_type
        params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = True
        params.api_keys = [secrets.token_hex()]
        params.port = free_port()
        self._server: Any = xllamacpp.Server(params)

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """See ``Threads``."""
        job = {"prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "stream": True}
        job |= {"ignore_eos": True, "cache_prompt": False}
        made = 0

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal made
            if "error" in chunk:
                raise SystemExit(str(chunk))
            track.take(chunk["choices"][0]["text"])
            made = chunk.get("usage", {}).get("completion_tokens", made)
            return False  # go on

        self._server.handle_completions(job, take)
        track.end(made)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def vendor(setup: Setup) -> Any:  # noqa: ANN401 - only imported where it is measured
    """Make our vendor."""
    from llmdispatcher import LlamaCpp  # noqa: PLC0415 - only where it is measured

    return LlamaCpp(
        setup.model,
        isolation="thread",
        context_tokens=setup.context,
        max_threads=setup.threads,
        max_parallel=setup.sequences,
    )


KINDS: dict[str, Callable[[Setup], Contender]] = {
    "bare": Lockstep,
    "async": Async,
    "sync": Sync,
    "lock": Lock,
    "xllamacpp": XLlamaCpp,
}


def serve(contender: Contender, hello: Mapping[str, str]) -> None:
    """Say that the contender is ready, and serve jobs until standard input ends."""
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        print(json.dumps(contender.run(**json.loads(line))), flush=True)
    contender.close()


def main() -> None:
    """Load the model and serve."""
    kind, model, *numbers = sys.argv[1:]
    setup = Setup(model, *map(int, numbers))
    log = Log()
    kept = None if kind == "xllamacpp" else listen(log, kind)
    contender = KINDS[kind](setup)
    contender.run(["warm"] * setup.sequences, 2)
    logging.getLogger("llmdispatcher.llamacpp").removeHandler(log)
    serve(contender, log.settings)
    del kept


if __name__ == "__main__":
    main()
