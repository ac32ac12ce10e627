"""One way to run a GGUF file, in a process of its own. Started by ``single_stream.py``.

    python bench/contender.py {bare,llama,sync,async} MODEL CONTEXT THREADS

Each line on standard input is a job in JSON, each line on standard output its result. A process
each, because the OpenMP threads of several engines in one process disturb each other: libgomp
shortens the time they spin once there are more of them than processors.

``bare`` is the limit: nothing but llama.cpp's own functions in a loop, with everything allocated
beforehand. It also makes the prompts, since it has the tokenizer at hand.
"""

from __future__ import annotations

import asyncio
import bisect
import ctypes
import json
import logging
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

SAME = ("n_batch", "n_ubatch", "flash_attn")
"""Settings that must be the same for all."""

SETTINGS = (*SAME, "n_ctx", "kv_unified", "n_seq_max")
"""What is read from what llama.cpp logs when it makes a context. An engine that serves several at
once has more room than the others, which costs a single stream nothing until it is used."""

_RESOLVED = re.compile(r"Flash Attention (enabled|disabled)")
"""What became of flash attention where the choice was left to llama.cpp."""

WORDS = ["small", "river", "stone", "bridge", "people", "walk", "bread", "paper", "rain", "work"]
WORDS += ["time", "long", "talk", "the", "for", "old", "under", "home", "what", "day", "to", "or"]

PROMPTS_TRIED = 300
"""How many prompts to try for one whose reply does not end early."""


@dataclass(frozen=True)
class Sample:
    """One reply, seen by its caller."""

    text: str
    first_s: float
    """From the call to the first text."""
    rest_s: float
    """From the first text to the end of the stream."""
    cpu_s: float
    """Processor time of the whole process meanwhile."""
    pieces: int
    prompt_tokens: int | None = None
    """Where the contender counts tokens."""
    completion_tokens: int | None = None


class Watch:
    """Takes the times of one reply."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._cpu_s = time.process_time()
        self._started = time.perf_counter()
        self._first = 0.0

    def take(self, text: str) -> None:
        """Take a piece."""
        if text:
            if not self._texts:
                self._first = time.perf_counter()
            self._texts.append(text)

    def sample(self, prompt_tokens: int | None, completion_tokens: int | None) -> Sample:
        """Stop."""
        ended = time.perf_counter()
        return Sample(
            text="".join(self._texts),
            first_s=self._first - self._started,
            rest_s=ended - self._first,
            cpu_s=time.process_time() - self._cpu_s,
            pieces=len(self._texts),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )


class Contender(Protocol):
    """A loaded model."""

    def run(self, prompt: str, tokens: int) -> Sample:
        """Complete a raw prompt greedily."""

    def close(self) -> None:
        """Give the memory back, where leaving that to the end of the process makes noise."""


class Bare:
    """llama.cpp's functions in a loop, with room for so many sequences."""

    def __init__(self, model: str, context: int, threads: int, sequences: int = 1) -> None:
        from llama_cpp import llama_cpp as lib  # noqa: PLC0415 - only where it is measured

        self.lib: Any = lib
        self._model = lib.llama_model_load_from_file(
            model.encode(), lib.llama_model_default_params()
        )
        self.vocab = lib.llama_model_get_vocab(self._model)
        params = lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = min(512, context)
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = sequences
        params.kv_unified = sequences > 1
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = lib.llama_init_from_model(self._model, params)
        self._memory = lib.llama_get_memory(self.context)
        self._chunk = params.n_batch
        self.batch = lib.llama_batch_init(params.n_batch, 0, 1)
        for index in range(params.n_batch):
            self.batch.n_seq_id[index] = 1
            self.batch.seq_id[index][0] = 0
            self.batch.logits[index] = 0
        self.chain = self.greedy()

    def greedy(self) -> object:
        """Make a sampler that draws the likeliest token."""
        lib = self.lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
        return chain

    def run(self, prompt: str, tokens: int) -> Sample:
        """See ``Contender``. The loop of the measurement: nothing in it can be left out."""
        lib, context, batch, vocab = self.lib, self.context, self.batch, self.vocab
        decode, draw, ends = lib.llama_decode, lib.llama_sampler_sample, lib.llama_vocab_is_eog
        to_piece, chain = lib.llama_token_to_piece, self.chain
        buffer = ctypes.create_string_buffer(256)
        watch = Watch()
        read = self.tokenize(prompt)
        self._read(read)
        position, drawn = len(read), 0
        batch.n_tokens = 1
        batch.logits[0] = 1
        while drawn < tokens:
            token = draw(chain, context, -1)
            if ends(vocab, token):
                break
            drawn += 1
            size = to_piece(vocab, token, buffer, 256, 0, False)  # noqa: FBT003 - C call
            watch.take(buffer.raw[:size].decode())
            if drawn < tokens:
                batch.token[0] = token
                batch.pos[0] = position
                position += 1
                decode(context, batch)
        batch.logits[0] = 0
        return watch.sample(len(read), drawn)

    def close(self) -> None:
        """See ``Contender``."""

    def _read(self, tokens: list[int]) -> None:
        """Decode a prompt, of which the last token gets logits."""
        self.lib.llama_memory_clear(self._memory, False)  # noqa: FBT003 - C call
        batch = self.batch
        for start in range(0, len(tokens), self._chunk):
            chunk = tokens[start : start + self._chunk]
            batch.n_tokens = len(chunk)
            for index, token in enumerate(chunk):
                batch.token[index] = token
                batch.pos[index] = start + index
            is_last = start + len(chunk) == len(tokens)
            batch.logits[len(chunk) - 1] = int(is_last)
            self.lib.llama_decode(self.context, batch)
            batch.logits[len(chunk) - 1] = 0

    def tokenize(self, text: str) -> list[int]:
        """Turn text into tokens."""
        data = text.encode()
        tokens = (self.lib.llama_token * (len(data) + 8))()
        count = self.lib.llama_tokenize(
            self.vocab,
            data,
            len(data),
            tokens,
            len(tokens),
            True,  # noqa: FBT003 - C call
            True,  # noqa: FBT003 - C call
        )
        return list(tokens[:count])

    def prompt(self, length: int, tokens: int, seed: int) -> str:
        """Make a prompt of ``length`` tokens whose reply has ``tokens`` tokens, or nearly.

        Two words over and over: what even a model that likes to end goes on with now and then.
        """
        source = random.Random(seed)  # noqa: S311 - not a secret
        found: list[tuple[int, str]] = []
        for _ in range(PROMPTS_TRIED):
            text = self._repeated(" ".join(source.sample(WORDS, 2)), length)
            made = self.run(text, tokens).completion_tokens or 0
            found.append((made, text))
            if made == tokens:
                break
        return max(found)[1]

    def _repeated(self, phrase: str, length: int) -> str:
        """Return the phrase again and again, cut where it is ``length`` tokens, or just above."""
        text = f" {phrase}" * length
        cut = bisect.bisect_left(range(len(text)), length, key=lambda at: self._count(text[:at]))
        return text[:cut]

    def _count(self, text: str) -> int:
        return len(self.tokenize(text))


class HighLevel:
    """``llama_cpp.Llama``."""

    def __init__(self, model: str, context: int, threads: int) -> None:
        from llama_cpp import Llama  # noqa: PLC0415 - only where it is measured

        self._llama: Any = Llama(
            model,
            n_ctx=context,
            n_batch=min(512, context),
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )

    def run(self, prompt: str, tokens: int) -> Sample:
        """See ``Contender``."""
        self._llama.reset()  # what it keeps of the last prompt would spare it a part of this one
        watch = Watch()
        for chunk in self._llama.create_completion(
            prompt, max_tokens=tokens, temperature=0.0, stream=True
        ):
            watch.take(chunk["choices"][0]["text"])
        return watch.sample(None, None)

    def close(self) -> None:
        """See ``Contender``."""
        self._llama.close()


def in_process(model: str, context: int, threads: int) -> Any:  # noqa: ANN401 - as above
    """Return the model in this process, as its rivals here run it; see ``isolation.py``."""
    from llmdispatcher import LlamaCpp  # noqa: PLC0415 - as above

    return LlamaCpp(model, context_tokens=context, max_threads=threads, isolation="thread")


class Sync:
    """``llmdispatcher.Dispatcher``."""

    def __init__(self, model: str, context: int, threads: int) -> None:
        from llmdispatcher import Dispatcher, Request  # noqa: PLC0415 - as above

        self._dispatcher = Dispatcher(in_process(model, context, threads))
        self._request = Request

    def run(self, prompt: str, tokens: int) -> Sample:
        """See ``Contender``."""
        watch = Watch()
        request = self._request(prompt=prompt)
        stream = self._dispatcher.stream(request, max_tokens=tokens, temperature=0.0)
        for delta in stream:
            watch.take(delta.text)
        usage = stream.reply.usage
        return watch.sample(usage.prompt_tokens, usage.completion_tokens)

    def close(self) -> None:
        """See ``Contender``."""
        self._dispatcher.close()


class Async:
    """``llmdispatcher.AsyncDispatcher``, in one event loop that lives as long as it."""

    def __init__(self, model: str, context: int, threads: int) -> None:
        from llmdispatcher import AsyncDispatcher, Request  # noqa: PLC0415 - as above

        self._dispatcher = AsyncDispatcher(in_process(model, context, threads))
        self._request = Request
        self._runner = asyncio.Runner()

    def run(self, prompt: str, tokens: int) -> Sample:
        """See ``Contender``."""
        return self._runner.run(self._run(prompt, tokens))

    def close(self) -> None:
        """See ``Contender``."""
        self._runner.run(self._dispatcher.close())
        self._runner.close()

    async def _run(self, prompt: str, tokens: int) -> Sample:
        watch = Watch()
        request = self._request(prompt=prompt)
        stream = self._dispatcher.stream(request, max_tokens=tokens, temperature=0.0)
        async for delta in stream:
            watch.take(delta.text)
        usage = stream.reply.usage
        return watch.sample(usage.prompt_tokens, usage.completion_tokens)


KINDS: dict[str, Callable[[str, int, int], Contender]] = {
    "bare": Bare,
    "llama": HighLevel,
    "sync": Sync,
    "async": Async,
}


class Log(logging.Handler):
    """Keeps what llama.cpp says about the settings of the context."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.settings: dict[str, str] = {}
        self._pattern = re.compile(rf"llama_context: ({'|'.join(SETTINGS)}) += (.+?)\s*$")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line from llmdispatcher's log."""
        self.take(record.getMessage())

    def take(self, line: str) -> None:
        """Take a line."""
        if found := self._pattern.search(line):
            self.settings[found[1]] = found[2]
        elif found := _RESOLVED.search(line):
            self.settings["flash_attn"] = found[1]


def listen(log: Log, kind: str) -> object:
    """Send llama.cpp's log to ``log``; what is returned must stay alive."""
    if kind in {"sync", "async"}:
        logger = logging.getLogger("llmdispatcher.llamacpp")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(log)
        return logger
    import llama_cpp  # noqa: PLC0415 - only where it is measured

    callback = llama_cpp.llama_log_callback(lambda _level, text, _data: log.take(text.decode()))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


def main() -> None:
    """Serve jobs until standard input ends."""
    kind, model, context, threads = sys.argv[1:]
    log = Log()
    kept = listen(log, kind)
    contender = KINDS[kind](model, int(context), int(threads))
    contender.run("warm", 2)
    logging.getLogger("llmdispatcher.llamacpp").removeHandler(log)
    print(json.dumps(log.settings), flush=True)
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        if "length" in job and isinstance(contender, Bare):
            print(json.dumps(contender.prompt(**job)), flush=True)
        else:
            print(json.dumps(asdict(contender.run(**job))), flush=True)
    contender.close()
    del kept


if __name__ == "__main__":
    main()
