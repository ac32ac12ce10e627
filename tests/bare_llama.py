"""A model and one context of llama.cpp without our engine, for parts that take their pointers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmdispatcher.vendors.llamacpp.binding.library import lib

BATCH = 512
CELLS = 1024
SLOTS = 4


class Bare:
    """A loaded model; F32 caches and one thread, so that results are the same to the last bit."""

    def __init__(self, path: Path, *, batch: int = BATCH) -> None:
        """Load it."""
        model = lib.llama_model_default_params()
        model.use_extra_bufts = False  # weights as they are in the file, not repacked
        self.model: Any = lib.llama_model_load_from_file(str(path).encode(), model)
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CELLS, batch, batch
        params.n_seq_max, params.kv_unified, params.swa_full = SLOTS, True, True
        params.type_k = params.type_v = 0
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = 1
        self.context: Any = lib.llama_init_from_model(self.model, params)
        self.batch = batch
        self.vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model)))

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free it."""
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)

    def decode(
        self, tokens: Sequence[int], position: int = 0, slot: int = 0
    ) -> npt.NDArray[np.float32]:
        """Append tokens to a slot; returns the scores after the last."""
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, slot
            batch.logits[index] = index == len(tokens) - 1
        code = lib.llama_decode(self.context, batch)
        lib.llama_batch_free(batch)
        assert code == 0, code
        scores = lib.llama_get_logits_ith(self.context, -1)
        found: npt.NDArray[np.float32] = np.ctypeslib.as_array(scores, (self.vocab,)).copy()
        return found

    def empty(self) -> None:
        """Forget everything in all slots."""
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)  # noqa: FBT003 - C call
