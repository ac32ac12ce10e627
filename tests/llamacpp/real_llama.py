"""Load models with llama.cpp's own API, apart from our code, and report what it says.

Reads a list of jobs as JSON, each with ``path`` and perhaps ``context``, ``batch``, ``slots``,
``outputs``, ``cache`` (the number of a type; F32 is used without flash attention), ``swa_full`` and
``dry`` (no weights, no cache: only sizes); writes a list of results.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from functools import cache
from typing import Any

from llama_cpp import llama_cpp as lib

from llmdispatcher.vendors.llamacpp.weights import Packing, packing

LINES: list[str] = []
# a name keeps the callback alive: the library calls it for as long as it is loaded
CALLBACK = lib.llama_log_callback(lambda _, text, __: LINES.append(text.decode(errors="replace")))

_CACHE_MIB = re.compile(r"kv_cache: size = +([\d.]+) MiB")
_STATE_MIB = re.compile(r"memory_recurrent: size = +([\d.]+) MiB")
_BUFFER_MIB = re.compile(r"(compute|output) buffer size = +([\d.]+) MiB")
_SHOWN_TOKENS = 8


def serve(job: dict[str, Any]) -> dict[str, Any]:
    """Load one model; where it is not a dry run, also write some tokens."""
    LINES.clear()
    model = _dry_model(job["path"]) if job.get("dry") else _load(job["path"])
    if not model:
        return {"loaded": False, "log": "".join(LINES)[-2000:]}
    context = lib.llama_init_from_model(model, _context_params(job))
    log = "".join(LINES)
    found: dict[str, Any] = {"loaded": bool(context), "log": log[-2000:], **_sizes(log)}
    found["parameters"] = lib.llama_model_n_params(model)
    found["weights"] = lib.llama_model_size(model)
    if context and not job.get("dry"):
        found["tokens"] = _write(model, context)
    if context:
        lib.llama_free(context)
    if not job.get("dry"):
        lib.llama_model_free(model)
    return found


def _load(path: str) -> Any:
    params = lib.llama_model_default_params()
    params.use_extra_bufts = packing() is not Packing.PLAIN
    return lib.llama_model_load_from_file(path.encode(), params)


@cache
def _dry_model(path: str) -> Any:
    """Load a model without its weights, once for all jobs; it ends with the process."""
    params = lib.llama_model_default_params()
    params.use_extra_bufts = packing() is not Packing.PLAIN
    params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
    return lib.llama_model_load_from_file(path.encode(), params)


def _context_params(job: dict[str, Any]) -> Any:
    params = lib.llama_context_default_params()
    params.n_ctx = job.get("context", 256)
    params.n_batch = params.n_ubatch = job.get("batch", 512)
    params.n_seq_max = job.get("slots", 1)
    params.n_outputs_max = job.get("outputs", 0)
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = 1
    params.swa_full = job.get("swa_full", True)
    if "cache" in job:
        params.type_k = params.type_v = job["cache"]
        if job["cache"] == lib.GGML_TYPE_F32:
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


def _sizes(log: str) -> dict[str, float]:
    """Read sizes in MiB from the log; there are several caches where windows slide."""
    buffers = dict(_BUFFER_MIB.findall(log))
    return {
        "kv_cache": sum(float(size) for size in _CACHE_MIB.findall(log)),
        "recurrent": sum(float(size) for size in _STATE_MIB.findall(log)),
        "compute": float(buffers.get("compute", 0)),
        "output": float(buffers.get("output", 0)),
    }


def _write(model: Any, context: Any) -> list[int]:
    """Write the likeliest tokens after the begin token."""
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    tokens = [1]
    for _ in range(_SHOWN_TOKENS):
        batch = lib.llama_batch_get_one((lib.llama_token * 1)(tokens[-1]), 1)
        if lib.llama_decode(context, batch) != 0:
            break
        logits = lib.llama_get_logits_ith(context, -1)[:size]
        tokens.append(max(range(size), key=logits.__getitem__))
    return tokens[1:]


if __name__ == "__main__":
    lib.llama_log_set(CALLBACK, ctypes.c_void_p(0))
    lib.llama_backend_init()
    sys.stdout.write(json.dumps([serve(job) for job in json.load(sys.stdin)]))
