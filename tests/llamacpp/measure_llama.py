"""Load a model with llama.cpp's own API as a plan says, use it, and tell how memory grew.

Reads a plan as JSON, with ``path``; writes the bytes by which this process grew at its largest,
files that are mapped included. A process measures once: what was freed would be used again.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as lib

from llmdispatcher.vendors.llamacpp.weights import Packing, packing

# a name keeps the callback alive: the library calls it for as long as it is loaded
QUIET = lib.llama_log_callback(lambda *_: None)
TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
FIRST_TOKEN = 5


def status_bytes(name: str) -> int:
    """Return a line of what Linux says of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        word, _, value = line.partition(":")
        if word == name:
            return int(value.split()[0]) * 1024
    raise LookupError(name)


def load(plan: dict[str, Any]) -> Any:
    """Load the model and make a context; return the context."""
    params = lib.llama_model_default_params()
    params.use_extra_bufts = packing() is not Packing.PLAIN
    if not plan["mapped"]:
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    model = lib.llama_model_load_from_file(plan["path"].encode(), params)
    params = lib.llama_context_default_params()
    params.n_ctx = plan["cells"]
    params.n_batch = params.n_ubatch = plan["batch_tokens"]
    params.n_seq_max = params.n_outputs_max = plan["slots"]
    params.kv_unified = True
    params.type_k = params.type_v = TYPES[plan["cache_type"]]
    params.swa_full = plan["full_window"]
    params.n_threads = params.n_threads_batch = plan["threads"]
    if plan["cache_type"] == "f32":
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = lib.llama_init_from_model(model, params)
    assert context
    return context


def decode(context: Any, tokens: list[tuple[int, int, bool]]) -> None:
    """Decode tokens: of each the sequence, the position, and whether it gets scores."""
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, (sequence, position, scored) in enumerate(tokens):
        batch.token[index], batch.pos[index] = FIRST_TOKEN, position
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        batch.logits[index] = scored
    assert lib.llama_decode(context, batch) == 0
    lib.llama_batch_free(batch)


def use(context: Any, plan: dict[str, Any]) -> None:
    """Read batches until the cells are full, then take one step of all conversations."""
    size = min(plan["batch_tokens"], plan["context_tokens"])
    for start in range(0, plan["cells"] - size + 1, size):
        sequence, position = divmod(start, plan["context_tokens"])
        decode(context, [(sequence, position + at, at == size - 1) for at in range(size)])
    lib.llama_memory_clear(lib.llama_get_memory(context), False)  # noqa: FBT003 - C call
    decode(context, [(sequence, 0, True) for sequence in range(plan["parallel"])])


if __name__ == "__main__":
    lib.llama_log_set(QUIET, ctypes.c_void_p(0))
    lib.llama_backend_init()
    asked = json.load(sys.stdin)
    packing()  # where a trial must find it out, what that takes is none of the model's
    before = status_bytes("VmRSS")
    use(load(asked), asked)
    sys.stdout.write(str(status_bytes("VmHWM") - before))
