"""From a plan to llama.cpp's own objects: a loaded model, and the context it decodes in."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import attrs

from llmdispatcher.models.errors import OutOfMemory, UnsupportedArchitecture
from llmdispatcher.vendors.llamacpp.binding import log
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import load, reason
from llmdispatcher.vendors.llamacpp.weights import Packing, packing

CACHE_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
"""How keys and values may be stored, as ggml numbers its types (ggml.h)."""

MAX_SLOTS = 256
"""llama.cpp's own bound (LLAMA_MAX_SEQ in src/llama-cparams.h)."""

_LIBC = ctypes.CDLL("msvcrt" if os.name == "nt" else None)


@attrs.frozen(kw_only=True)
class Setup:
    """How to load a model."""

    path: str
    context_tokens: int
    """The longest conversation."""
    cells: int
    """Tokens that all conversations can hold together; at least ``context_tokens``."""
    slots: int
    """Conversations and kept prefixes; at most MAX_SLOTS."""
    batch_tokens: int
    """The most tokens that one decode takes."""
    threads: int
    gpu_layers: int
    """The most layers to put on a GPU; -1 is all. Means nothing where there is none."""
    cache_type: str = "f16"
    """A key of CACHE_TYPES."""
    mapped: bool = True
    """The file is mapped into memory, not read."""
    more_rows: int = 0
    """Rows of scores in one decode beyond one for each slot."""
    full_window: bool = True
    """Layers with a sliding window keep everything, so that prefixes can be shared."""


def open_model(setup: Setup, on_progress: Callable[[float], bool]) -> Any:  # noqa: ANN401 - a C pointer
    """Load a model; ``on_progress`` gets the fraction done and returns False to give up.

    Raises a VendorError that says why loading failed.
    """
    params = lib.llama_model_default_params()
    params.n_gpu_layers = setup.gpu_layers
    params.use_extra_bufts = packing() is not Packing.PLAIN
    if not setup.mapped:
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    callback = lib.llama_progress_callback(lambda fraction, _: on_progress(fraction))
    params.progress_callback = callback
    model = load(setup.path, params)
    if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
        told = "the model does not generate text token by token"
    elif lib.llama_model_is_diffusion(model):
        told = "diffusion language models are not supported"
    else:
        return model
    lib.llama_model_free(model)
    raise UnsupportedArchitecture(told)


def open_context(model: Any, setup: Setup, flag: Any) -> Any:  # noqa: ANN401 - C pointers
    """Make a context. It decodes as long as the text in ``flag``, which must outlive it, is empty.

    Raises OutOfMemory.
    """
    params = lib.llama_context_default_params()
    params.n_ctx = setup.cells
    params.n_batch = params.n_ubatch = min(setup.batch_tokens, setup.cells)
    params.n_seq_max = setup.slots
    params.n_outputs_max = setup.slots + setup.more_rows
    params.kv_unified = True
    params.swa_full = setup.full_window
    params.type_k = params.type_v = CACHE_TYPES[setup.cache_type]
    params.n_threads = params.n_threads_batch = setup.threads
    # flash attention turns F32 caches into F16 (build_attn_mha in src/llama-graph.cpp)
    exact = setup.cache_type == "f32"
    params.flash_attn_type = (
        lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if exact else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    )
    # The abort callback runs at every node of the graph, hundreds of times a token, so it must not
    # be Python. strlen is C, takes the pointer that llama.cpp hands back, and returns 0 for an
    # empty text.
    params.abort_callback = ctypes.cast(_LIBC.strlen, lib.ggml_abort_callback)
    params.abort_callback_data = ctypes.cast(flag, ctypes.c_void_p)
    with log.listening() as lines:
        context = lib.llama_init_from_model(model, params)
    if not context:
        raise OutOfMemory(
            f"llama.cpp could not make a context of {setup.cells} tokens:"
            f" {reason(list(lines))}; use a smaller context_tokens"
        )
    return context
