"""The backend over llama.cpp's own API: the only module that imports llama_cpp.

The binding's high-level class is not used: it aborts the process when two threads meet in it, hides
the reason of a failed load and rewrites the process's file descriptors. Every condition that
llama.cpp asserts is checked here first.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from llama_cpp import llama_cpp as lib

from llmdispatcher.models.errors import (
    BadRequest,
    ContextOverflow,
    CorruptModel,
    EngineCrashed,
    OutOfMemory,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.models.request import Sampling
from llmdispatcher.vendors.llamacpp import log
from llmdispatcher.vendors.llamacpp.backend import Interrupted
from llmdispatcher.vendors.llamacpp.sampling import Link, chain

_ABORTED = 2
_NO_ROOM = 1
"""Return codes of llama_decode (llama.h)."""

_DRY_LAST_N = 64
"""llama.cpp's default for how far DRY looks back (common/common.h)."""

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""llama.cpp's default sequence breakers of the DRY sampler (common/common.h)."""

_USUAL_TOKEN_BYTES = 16
"""Text of more bytes for each token of the context is looked at more closely."""

MAX_RUN = 150_000
"""For many vocabularies llama.cpp splits text with std::regex, which recurs: about 320 bytes of
stack for each character of a run of one kind, and a stack that overflows ends the process. The
thread of the engine has STACK_BYTES of it, see ``engine``."""

_LIBC = ctypes.CDLL("msvcrt" if os.name == "nt" else None)

# llama.cpp keeps one log callback for the process, and the binding has set one that prints. The
# callback object must live as long as the library may call it: for ever.
_LOG_CALLBACK = lib.llama_log_callback(lambda level, text, _: log.take(level, text))
lib.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
lib.llama_backend_init()


@attrs.frozen(kw_only=True)
class Setup:
    """How to load a model."""

    path: str
    context_tokens: int
    batch_tokens: int
    """Tokens of a prompt that one decode takes."""
    threads: int
    gpu_layers: int
    """The most layers to put on a GPU; -1 is all. Means nothing where there is none."""


class NativeBackend:
    """A loaded model and one context with one sequence. See ``backend.Backend``."""

    def __init__(self, setup: Setup, on_progress: Callable[[float], bool]) -> None:
        """Load; ``on_progress`` gets the fraction done and returns False to give up.

        Raises a VendorError that says why loading failed.
        """
        self._setup = setup
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        # The abort callback runs at every node of the graph, hundreds of times a token, so it must
        # not be Python. strlen is C, takes the pointer that llama.cpp hands back and returns 0 for
        # an empty string: the flag is a string that ``interrupt`` makes one byte long.
        self._flag = ctypes.create_string_buffer(2)
        self._piece_buffer = ctypes.create_string_buffer(64)
        try:
            self._load(on_progress)
            self._open()
        except VendorError:
            self.close()
            raise
        self.context_tokens = min(setup.context_tokens, int(lib.llama_n_ctx(self._context)))
        self.batch_tokens = int(lib.llama_n_batch(self._context))
        self.bos = self._token_text(lib.llama_vocab_bos(self._vocab))
        self.eos = self._token_text(lib.llama_vocab_eos(self._vocab))
        self._adds_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))

    def _load(self, on_progress: Callable[[float], bool]) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = self._setup.gpu_layers
        callback = lib.llama_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = callback
        with log.listening() as lines:
            self._model = lib.llama_model_load_from_file(os.fsencode(self._setup.path), params)
        if not self._model:
            raise _load_error(self._setup.path, list(lines))
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._vocab_tokens = int(lib.llama_vocab_n_tokens(self._vocab))
        if lib.llama_model_has_encoder(self._model) or not lib.llama_model_has_decoder(self._model):
            raise UnsupportedArchitecture("the model does not generate text token by token")
        if lib.llama_model_is_diffusion(self._model):
            raise UnsupportedArchitecture("diffusion language models are not supported")

    def _open(self) -> None:
        """Make the context and the batch that every decode reuses."""
        setup = self._setup
        params = lib.llama_context_default_params()
        params.n_ctx = setup.context_tokens
        params.n_batch = params.n_ubatch = min(setup.batch_tokens, setup.context_tokens)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = setup.threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.abort_callback = ctypes.cast(_LIBC.strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        with log.listening() as lines:
            self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise OutOfMemory(
                f"llama.cpp could not make a context of {setup.context_tokens} tokens:"
                f" {_reason(list(lines))}; use a smaller context_tokens"
            )
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(params.n_batch, 0, 1)
        for index in range(params.n_batch):
            self._batch.n_seq_id[index] = 1
            self._batch.seq_id[index][0] = 0
            self._batch.logits[index] = 0

    def tokenize(self, text: str) -> list[int]:
        """See ``Backend.tokenize``. A template that wrote the start token is not given a second."""
        if self._adds_bos and self.bos and text.startswith(self.bos):
            text = text[len(self.bos) :]
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            told = f"the prompt has no UTF-8 form at character {error.start}: a template, or the"
            raise Unsupported(
                "text", f"{told} arguments of a tool call, wrote half of a pair"
            ) from None
        self._check_text(text, len(data))
        room = len(data) + 8  # a token is at least a byte; a few special ones may be added
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocab, data, len(data), tokens, room, True, True)  # noqa: FBT003 - C call
        if count < 0:
            room = -count
            tokens = (lib.llama_token * room)()
            count = lib.llama_tokenize(self._vocab, data, len(data), tokens, room, True, True)  # noqa: FBT003 - C call
        return list(tokens[:count])

    def _check_text(self, text: str, size_bytes: int) -> None:
        """Refuse what llama.cpp would read for long in vain, or not survive reading."""
        if size_bytes > self.context_tokens * _USUAL_TOKEN_BYTES:
            longest = max(len(self._piece(t, special=True)) for t in range(self._vocab_tokens))
            least = -(-size_bytes // max(1, longest))
            if least >= self.context_tokens:
                raise ContextOverflow(least + 1, self.context_tokens)
        if len(text) > MAX_RUN:
            run = max(map(len, re.findall(r"\s+|\S+", text)))
            if run > MAX_RUN:
                told = f"{run} characters without a change between space and text"
                allowed = f"text that has spaces or line ends at least every {MAX_RUN} characters"
                raise BadRequest("prompt", told, allowed)

    def piece(self, token: int) -> bytes:
        """See ``Backend.piece``."""
        return self._piece(token, special=False)

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = self._piece_buffer
        size = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if size < 0:  # longer than any token before it
            buffer = self._piece_buffer = ctypes.create_string_buffer(-size)
            size = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def _token_text(self, token: int) -> str:
        """Return how a special token is written; empty where the model has none."""
        return "" if token < 0 else self._piece(token, special=True).decode(errors="replace")

    def ends(self, token: int) -> bool:
        """See ``Backend.ends``."""
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def sampler(self, sampling: Sampling, seed: int, recent: Sequence[int]) -> NativeSampler:
        """See ``Backend.sampler``."""
        return NativeSampler(self, chain(sampling, seed), recent)

    def decode(self, tokens: Sequence[int], position: int) -> None:
        """See ``Backend.decode``."""
        self._check(tokens, position)
        batch = self._batch
        batch.n_tokens = count = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position + index
        batch.logits[count - 1] = 1
        code = lib.llama_decode(self._context, batch)
        batch.logits[count - 1] = 0
        if code == 0:
            return
        if code == _ABORTED:
            raise Interrupted
        if code == _NO_ROOM:
            raise OutOfMemory(f"no room for {count} tokens at {position} in the context")
        raise EngineCrashed(f"llama_decode failed with code {code} for {count} tokens")

    def _check(self, tokens: Sequence[int], position: int) -> None:
        """Refuse what llama.cpp would answer with abort()."""
        count = len(tokens)
        if not 0 < count <= self.batch_tokens or position + count > self.context_tokens:
            raise EngineCrashed(
                f"{count} tokens at {position} fit neither the batch of {self.batch_tokens} nor"
                f" the context of {self.context_tokens}"
            )
        if min(tokens) < 0 or max(tokens) >= self._vocab_tokens:
            raise EngineCrashed(f"a token is outside the vocabulary of {self._vocab_tokens}")

    def keep(self, count: int) -> bool:
        """See ``Backend.keep``. Recurrent models cannot go back, and windows do not reach."""
        if count and lib.llama_memory_seq_rm(self._memory, 0, count, -1):
            return True
        lib.llama_memory_clear(self._memory, False)  # noqa: FBT003 - C call: keep the buffers
        return False

    def set_threads(self, threads: int) -> None:
        """See ``Backend.set_threads``."""
        lib.llama_set_n_threads(self._context, threads, threads)

    def interrupt(self, *, on: bool) -> None:
        """See ``Backend.interrupt``."""
        self._flag[0] = b"\x01" if on else b"\x00"

    def close(self) -> None:
        """See ``Backend.close``."""
        if self._batch is not None:
            lib.llama_batch_free(self._batch)
        if self._context:
            lib.llama_free(self._context)
        if self._model:
            lib.llama_model_free(self._model)
        self._batch = self._context = self._model = None


class NativeSampler:
    """A chain of llama.cpp samplers. See ``backend.Sampler``."""

    def __init__(self, owner: NativeBackend, links: Sequence[Link], recent: Sequence[int]) -> None:
        """Build the chain; samplers that look back are shown ``recent``, the prompt's end."""
        self._context = owner._context  # noqa: SLF001 - two halves of one backend
        self._vocab = owner._vocab  # noqa: SLF001 - as above
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        self._suppress()
        for link in links:
            lib.llama_sampler_chain_add(self._chain, self._made(link))
        if any(link.name in {"penalties", "dry"} for link in links):
            for token in recent:
                lib.llama_sampler_accept(self._chain, token)

    def _suppress(self) -> None:
        """Ban the tokens that the model file says must never be drawn."""
        count = ctypes.c_int32(0)
        tokens = lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        if not count.value:
            return
        biases = (lib.llama_logit_bias * count.value)()
        for index in range(count.value):
            biases[index].token, biases[index].bias = tokens[index], float("-inf")
        vocab_tokens = lib.llama_vocab_n_tokens(self._vocab)
        banned = lib.llama_sampler_init_logit_bias(vocab_tokens, count.value, biases)
        lib.llama_sampler_chain_add(self._chain, banned)

    def _made(self, link: Link) -> Any:  # noqa: ANN401 - a C pointer
        match link.name:
            case "penalties":
                return lib.llama_sampler_init_penalties(
                    lib.llama_vocab_n_tokens(self._vocab), *link.args
                )
            case "dry":
                breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
                multiplier, base, allowed = link.args
                return lib.llama_sampler_init_dry(
                    self._vocab, multiplier, base, allowed, _DRY_LAST_N, breakers, len(breakers)
                )
            case "top_p" | "min_p" | "typical":
                make = getattr(lib, f"llama_sampler_init_{link.name}")
                return make(*link.args, 1)
            case "xtc":
                probability, threshold, seed = link.args
                return lib.llama_sampler_init_xtc(probability, threshold, 1, seed)
        return getattr(lib, f"llama_sampler_init_{link.name}")(*link.args)

    def sample(self) -> int:
        """See ``Sampler.sample``."""
        return int(lib.llama_sampler_sample(self._chain, self._context, -1))

    def close(self) -> None:
        """See ``Sampler.close``."""
        if self._chain is not None:
            lib.llama_sampler_free(self._chain)
        self._chain = None


def has_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(lib.llama_supports_gpu_offload())


def _reason(lines: Sequence[tuple[bool, str]]) -> str:
    """Pick the line that says why: the first error, or else the last word."""
    errors = [line for is_error, line in lines if is_error]
    told = errors or [line for _, line in lines[-1:]] or ["llama.cpp gave no reason"]
    return told[0].strip()


def _load_error(path: str, lines: Sequence[tuple[bool, str]]) -> VendorError:
    """Turn the log of a failed load into the error that says why it failed."""
    text = "\n".join(line for _, line in lines)
    if found := re.search(r"unknown model architecture: '([^']*)'", text):
        name = found[1]
        return UnsupportedArchitecture(
            f"llama.cpp does not know the architecture {name!r} of {path}; a newer"
            " llama-cpp-python may",
            architecture=name,
        )
    if re.search(
        r"cannot allocate|failed to allocate|bad_alloc|out of memory", text, re.IGNORECASE
    ):
        return OutOfMemory(f"llama.cpp ran out of memory while loading {path}: {_reason(lines)}")
    return CorruptModel(f"llama.cpp cannot load {path}: {_reason(lines)}", path=path)
