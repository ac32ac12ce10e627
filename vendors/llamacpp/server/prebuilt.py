"""Runs the server of the wheel ``xllamacpp``: a script for a child process of its own.

Reads its settings from the file that it is given, serves on loopback, and says so in one line of
JSON. It imports nothing of this package, so that any Python that has the wheel can run it.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""enum llama_pooling_type in llama.h."""


def main() -> None:
    """Serve until the end."""
    told: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if told["sys_path"] is not None:
        sys.path[:] = told["sys_path"]
    xllamacpp: Any = import_module("xllamacpp")
    server = xllamacpp.Server(parameters(xllamacpp, told))
    print(json.dumps({"address": server.listening_address}), flush=True)  # noqa: T201 - a program's word
    # its threads serve; the handler lets the object go in order
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    while True:
        signal.pause() if hasattr(signal, "pause") else sys.stdin.read()


def parameters(xllamacpp: Any, told: dict[str, Any]) -> Any:  # noqa: ANN401 - the wheel has no types
    """Fill in what the wheel is told: as ``flags`` tells llama-server."""
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = told["model"], {told["alias"]}
    params.n_ctx, params.n_parallel = told["cells"], told["slots"]
    params.n_batch = params.n_ubatch = told["batch_tokens"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told["threads"]
    params.n_gpu_layers = told["gpu_layers"]
    params.cache_ram_mib = told["cache_mib"]
    params.n_ctx_checkpoints = told["checkpoints"]
    params.cache_type_k = params.cache_type_v = _cache_type(xllamacpp, told["cache_type"])
    params.flash_attn_type = _flash(xllamacpp, told["cache_type"])
    params.kv_unified = told["slots"] > 1
    if told["cells"] > told["context_tokens"]:
        params.kv_unified_per_slot = told["context_tokens"]
    params.swa_full = told["full_window"]
    params.fit_params = params.ctx_shift = params.ui = False
    params.use_jinja = params.offline = params.endpoint_metrics = params.endpoint_slots = True
    params.load_mode = _load_mode(xllamacpp, mapped=told["mapped"])
    params.hostnames, params.port, params.api_keys = [told["host"]], told["port"], [told["key"]]
    if told["template"] is not None:
        params.chat_template = told["template"]
    if told["projector"] is not None:
        params.mmproj.path = told["projector"]
    if told["pooling"] is not None:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type(_POOLINGS[told["pooling"]])
    if told["adapters"]:
        params.lora_adapters = [_adapter(xllamacpp, path) for path in told["adapters"]]
        params.lora_init_without_apply = True
    return params


def _cache_type(xllamacpp: Any, name: str) -> Any:  # noqa: ANN401 - the wheel has no types
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def _flash(xllamacpp: Any, cache_type: str) -> Any:  # noqa: ANN401 - the wheel has no types
    word = {"f32": "DISABLED", "f16": "AUTO"}.get(cache_type, "ENABLED")
    return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{word}")


def _load_mode(xllamacpp: Any, *, mapped: bool) -> Any:  # noqa: ANN401 - the wheel has no types
    return getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{'MMAP' if mapped else 'NONE'}")


def _adapter(xllamacpp: Any, path: str) -> Any:  # noqa: ANN401 - the wheel has no types
    made = xllamacpp.CommonAdapterLoraInfo()
    made.path, made.scale = path, 1.0
    return made


if __name__ == "__main__":
    main()
