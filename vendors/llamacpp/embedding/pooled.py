"""A loaded model that turns texts into vectors or scores, over llama.cpp's own API.

The counterpart of ``native`` for models that write nothing: no sampler, nothing kept from one text
to the next, and one vector or score for each. Every condition that llama.cpp asserts is checked
here first. Called from the engine's thread, but for ``interrupt``.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from llmdispatcher.models.errors import (
    CorruptModel,
    EngineCrashed,
    OutOfMemory,
    UnsupportedArchitecture,
)
from llmdispatcher.vendors.llamacpp.binding import log
from llmdispatcher.vendors.llamacpp.binding.batch import Batch
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary, load, reason
from llmdispatcher.vendors.llamacpp.embedding.pooling import POOLING_IDS, Pooling, Span
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk, Interrupted
from llmdispatcher.vendors.llamacpp.weights import Packing, packing

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan

_ABORTED = 2
"""Return code of llama_decode and llama_encode (llama.h)."""

_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
"""How keys and values may be stored, as ggml numbers its types (ggml.h)."""

_WORD_PIECES = 3
_EXACT_KINDS = (1, 2)
"""Kinds of vocabularies in llama.h. Those of SentencePiece and of byte pairs have tokens for every
byte of a text; the others may make one token of a whole word, or none of spaces."""

_LIBC = ctypes.CDLL("msvcrt" if os.name == "nt" else None)

Floats = npt.NDArray[np.float32]


@attrs.frozen(kw_only=True)
class PooledSetup:
    """How to load a model for vectors or scores; the numbers are those of ``pooling.choose``."""

    path: str
    pooling: Pooling
    text_tokens: int
    """The longest text."""
    cells: int
    batch_tokens: int
    """The most tokens that one decode takes."""
    slots: int
    """The most texts that one decode takes."""
    threads: int
    gpu_layers: int = 0
    cache_type: str = "f16"
    mapped: bool = True

    @classmethod
    def of(cls, path: Path, pooling: Pooling, plan: Plan) -> PooledSetup:
        """Take what ``pooling.choose`` planned; one thread, until somebody sets more."""
        return cls(
            path=str(path),
            pooling=pooling,
            text_tokens=plan.context_tokens,
            cells=plan.cells,
            batch_tokens=plan.batch_tokens,
            slots=plan.slots,
            threads=1,
            gpu_layers=plan.gpu_layers,
            cache_type=plan.cache_type,
            mapped=plan.mapped,
        )


class Pooled:
    """A loaded model and one context."""

    def __init__(self, setup: PooledSetup, on_progress: Callable[[float], bool]) -> None:
        """Load; ``on_progress`` gets the fraction done and returns False to give up.

        Raises a VendorError that says why loading failed.
        """
        self._setup = setup
        self.pooling = setup.pooling
        self._model: Any = None
        self._context: Any = None
        # see NativeBackend: the abort callback is strlen, and the flag a string of no or one byte
        self._flag = ctypes.create_string_buffer(2)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._load(on_progress)
            self._open()
            undo.pop_all()
        self.slots = setup.slots
        self.batch_tokens = int(lib.llama_n_ubatch(self._context))
        self.text_tokens = self._longest()
        kind = int(lib.llama_vocab_type(self.vocabulary.pointer))
        self._bounded_tokens = self.text_tokens if kind in _EXACT_KINDS else None
        """The longest text, where one of many bytes cannot have few tokens."""
        self._lengths = [0] * self.slots
        self._zeros = [0] * self.slots
        self._batch = Batch(self.batch_tokens)

    def _load(self, on_progress: Callable[[float], bool]) -> None:
        params = lib.llama_model_default_params()
        params.use_extra_bufts = packing() is not Packing.PLAIN
        params.n_gpu_layers = self._setup.gpu_layers
        if not self._setup.mapped:
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE
        callback = lib.llama_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = callback
        self._model = load(self._setup.path, params)
        self.vocabulary = Vocabulary(self._model)
        self._check_vocabulary()
        encodes = lib.llama_model_has_encoder(self._model)
        if lib.llama_model_is_diffusion(self._model) or (
            encodes and lib.llama_model_has_decoder(self._model)
        ):
            raise UnsupportedArchitecture("the model makes no vectors of texts")
        self._run = lib.llama_encode if encodes else lib.llama_decode
        self.dimensions = int(lib.llama_model_n_embd_out(self._model))
        """Numbers in a vector."""
        template = lib.llama_model_chat_template(self._model, b"rerank")
        self._template = template.decode(errors="replace") if template else ""

    def _check_vocabulary(self) -> None:
        """Refuse a vocabulary of words without the tokens that llama.cpp asserts it has."""
        pointer, size = self.vocabulary.pointer, self.vocabulary.size
        ends = lib.llama_vocab_bos(pointer), lib.llama_vocab_sep(pointer)
        if lib.llama_vocab_type(pointer) == _WORD_PIECES and not (
            min(ends) >= 0 and max(ends) < size
        ):
            path = self._setup.path
            told = f"the first and the last token of a text are {ends}, and there are {size} tokens"
            raise CorruptModel(f"{path} is damaged: {told}", path=path)

    def _open(self) -> None:
        setup = self._setup
        params = lib.llama_context_default_params()
        if setup.batch_tokens % setup.slots:
            told = f"a batch of {setup.batch_tokens} does not divide by {setup.slots} slots"
            raise EngineCrashed(f"{told}, which llama.cpp would abort on")
        params.n_ctx = max(setup.cells, setup.batch_tokens)
        # all of a decode is one physical batch: pooling never sees the parts of one together
        params.n_batch = params.n_ubatch = setup.batch_tokens
        params.n_seq_max = setup.slots
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = POOLING_IDS[setup.pooling.kind]
        params.type_k = params.type_v = _TYPES[setup.cache_type]
        params.n_threads = params.n_threads_batch = setup.threads
        exact = setup.cache_type == "f32"  # as in ``native``
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if exact else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        )
        params.abort_callback = ctypes.cast(_LIBC.strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        with log.listening() as lines:
            self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise OutOfMemory(
                f"llama.cpp could not make a context of {setup.cells} tokens:"
                f" {reason(list(lines))}; use a smaller context_tokens"
            )
        self._memory = lib.llama_get_memory(self._context)

    def _longest(self) -> int:
        """Return the longest text: there may be no vector for a position beyond the trained."""
        longest = min(self._setup.text_tokens, int(lib.llama_model_n_ctx_train(self._model)))
        if not self.pooling.splits:
            return min(longest, self.batch_tokens)
        return min(longest, int(lib.llama_n_ctx(self._context)) - self.batch_tokens)

    def tokenize(self, text: str) -> list[int]:
        """Turn a text into tokens, with those that the model wants around it.

        A text that begins with the start token is given a second, as llama-server does: it was not
        written by a template.
        """
        vocabulary = self.vocabulary
        if text.startswith(vocabulary.bos) and lib.llama_vocab_get_add_bos(vocabulary.pointer):
            text = vocabulary.bos + text  # of which ``Vocabulary.tokenize`` leaves one
        return vocabulary.tokenize(text, context_tokens=self._bounded_tokens)

    def pair(self, query: str, document: str) -> list[int]:
        """Turn a query and a document into what a reranker reads.

        As format_prompt_rerank in llama.cpp's tools/server/server-common.cpp: the file's own
        template, or both with the model's special tokens between and around them.
        """
        if self._template:
            text = self._template.replace("{query}", query).replace("{document}", document)
            return self._plain(text, parse_special=True)
        pointer = self.vocabulary.pointer
        end, separator = lib.llama_vocab_eos(pointer), lib.llama_vocab_sep(pointer)
        end = separator if end < 0 else end
        ends = [end] * bool(lib.llama_vocab_get_add_eos(pointer))
        begin = [lib.llama_vocab_bos(pointer)] * bool(lib.llama_vocab_get_add_bos(pointer))
        between = [separator] * bool(lib.llama_vocab_get_add_sep(pointer))
        read = self._plain(query), self._plain(document)
        return [*begin, *read[0], *ends, *between, *read[1], *ends]

    def _plain(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self.vocabulary.tokenize(
            text,
            add_special=False,
            parse_special=parse_special,
            context_tokens=self._bounded_tokens,
        )

    def whole(self) -> Whole:
        """Return what the parts of one text are put together with."""
        return Whole(self.pooling.kind)

    def decode(self, spans: Sequence[Span]) -> list[Floats]:
        """Read spans, all in one step; returns what each made: a vector, or a single score.

        Slots keep what was read until ``drop``. Raises Interrupted, after which all slots are
        empty, or EngineCrashed.
        """
        self._check(spans)
        chunks = [Chunk(slot, at, tokens, len(tokens)) for slot, at, tokens in spans]
        self._batch.fill(chunks, self._zeros)
        code = self._run(self._context, self._batch.native)
        if code:
            self.clear()
            if code == _ABORTED:
                raise Interrupted
            count = sum(len(span.tokens) for span in spans)
            raise EngineCrashed(f"llama_decode failed with code {code} for {count} tokens")
        lib.llama_synchronize(self._context)
        for slot, position, tokens in spans:
            self._lengths[slot] = position + len(tokens)
        return [self._made(span.slot) for span in spans]

    def _check(self, spans: Sequence[Span]) -> None:
        """Refuse what llama.cpp would answer with abort()."""
        count = sum(len(span.tokens) for span in spans)
        if not 0 < count <= self.batch_tokens:
            raise EngineCrashed(f"{count} tokens do not fit the batch of {self.batch_tokens}")
        if len({span.slot for span in spans}) < len(spans):
            raise EngineCrashed("a slot is twice in one step")
        for slot, position, tokens in spans:
            if not 0 <= slot < self.slots or self._lengths[slot] != position:
                raise EngineCrashed(f"slot {slot} of {self.slots} does not end at {position}")
            if position and not self.pooling.splits:
                raise EngineCrashed(f"a text for {self.pooling.kind} pooling is read in parts")
            if not tokens or position + len(tokens) > self.text_tokens:
                raise EngineCrashed(f"{len(tokens)} tokens at {position} fit no context")
            if min(tokens) < 0 or max(tokens) >= self.vocabulary.size:
                raise EngineCrashed(f"a token is outside the vocabulary of {self.vocabulary.size}")

    def _made(self, slot: int) -> Floats:
        """Copy what the last decode made of a slot."""
        values = lib.llama_get_embeddings_seq(self._context, slot)
        if not values:
            raise EngineCrashed(f"llama.cpp made nothing of slot {slot}")
        count = 1 if self.pooling.kind == "rank" else self.dimensions
        return np.ctypeslib.as_array(values, (count,)).copy()

    def drop(self, slots: Sequence[int]) -> None:
        """Empty slots."""
        if self.pooling.has_cache:
            for slot in slots:
                lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        for slot in slots:
            self._lengths[slot] = 0

    def clear(self) -> None:
        """Empty all slots."""
        if self.pooling.has_cache:
            lib.llama_memory_clear(self._memory, True)  # noqa: FBT003 - C call: the data as well
        self._lengths = [0] * self.slots

    def set_threads(self, threads: int) -> None:
        """Decode with so many threads from now on."""
        lib.llama_set_n_threads(self._context, threads, threads)

    def interrupt(self, *, on: bool) -> None:
        """Stop the decode that is running and all to come, until it is switched off again."""
        self._flag[0] = b"\x01" if on else b"\x00"

    def close(self) -> None:
        """Give all memory back. Idempotent."""
        if self._context:
            lib.llama_free(self._context)
        if self._model:
            lib.llama_model_free(self._model)
        self._context = self._model = None


class Whole:
    """The vector or score of a text, put together from those of its parts.

    The average of all tokens is that of the parts, weighted by their lengths; otherwise the last
    part, which saw all others, stands for the whole.
    """

    def __init__(self, kind: str) -> None:
        self._averages = kind == "mean"
        self._made: npt.NDArray[np.float32 | np.float64] = np.zeros(0, np.float32)
        self._tokens = 0

    def add(self, made: Floats, tokens: int) -> None:
        """Add what a decode made of the next tokens."""
        before, self._tokens = self._tokens, self._tokens + tokens
        if before and self._averages:
            part = made.astype(np.float64) - self._made
            self._made = self._made + part * (tokens / self._tokens)
        else:
            self._made = made

    def score(self) -> float:
        """Return the score of the whole text."""
        return float(self._made[0])

    def vector(self, *, normalize: bool) -> array[float]:
        """Return the vector of the whole text; one of zeros has no direction, and stays."""
        whole = self._made
        if normalize:
            length = float(np.sqrt(np.square(whole, dtype=np.float64).sum()))
            whole = whole * (1 / length if length else 0)
        return array("f", whole.astype(np.float32).tobytes())
