"""Tiny LoRA adapters with random weights for models of ``tiny_gguf``, and their merged models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
import numpy.typing as npt

ALPHA = 16.0
TARGETS = ("attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down")

Matrix = npt.NDArray[np.float32]


@attrs.frozen(kw_only=True)
class Lora:
    """What an adapter looks like."""

    seed: int = 1
    targets: tuple[str, ...] = TARGETS
    """Which matrices of each layer it changes."""
    more: tuple[str, ...] = ()
    """Others that it changes, by their whole names."""
    storage: str = "F32"
    size: float = 0.3
    """Spread of its weights: large enough that it decides what is written."""
    rank: int = 4
    architecture: str = "llama"
    kind: str = "adapter"
    adapter: str = "lora"
    alpha: Any = ALPHA
    tokens: tuple[int, ...] = ()
    """Those that would invoke it, if it were an activated LoRA."""


def lora(path: Path, base: Path, **fields: Any) -> Path:
    """Write an adapter for a model; ``fields`` are those of a ``Lora``."""
    made = Lora(**fields)
    writer = gguf.GGUFWriter(str(path), made.architecture)
    writer.add_type(made.kind)
    writer.add_string("adapter.type", made.adapter)
    if isinstance(made.alpha, float):
        writer.add_float32("adapter.lora.alpha", made.alpha)
    else:
        writer.add_string("adapter.lora.alpha", made.alpha)
    if made.tokens:
        writer.add_array("adapter.alora.invocation_tokens", list(made.tokens))
    for name, (first, second) in halves(base, made).items():
        for half, values in (("lora_a", first), ("lora_b", second)):
            stored = gguf.quants.quantize(values, gguf.GGMLQuantizationType[made.storage])
            kind = gguf.GGMLQuantizationType[made.storage]
            writer.add_tensor(f"{name}.{half}", stored, raw_dtype=kind)
    return _written(writer, path)


def merged(path: Path, base: Path, *adapters: tuple[float, Lora]) -> Path:
    """Write a model with adapters of some scales added to its weights."""
    reader = gguf.GGUFReader(base)
    writer = gguf.GGUFWriter(str(path), reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, *element = field.types
        writer.add_key_value(key, field.contents(), kind, sub_type=element[0] if element else None)
    added = [(scale * made.alpha / made.rank, halves(base, made)) for scale, made in adapters]
    for tensor in reader.tensors:
        values = np.array(tensor.data, np.float64)
        for scale, pairs in added:
            if tensor.name in pairs:
                first, second = (half.astype(np.float64) for half in pairs[tensor.name])
                turned = tensor.name == "token_embd.weight"
                values += scale * (first @ second.T if turned else second @ first)
        writer.add_tensor(tensor.name, values.astype(np.float32))
    return _written(writer, path)


def halves(base: Path, made: Lora) -> dict[str, tuple[Matrix, Matrix]]:
    """Draw the matrices of an adapter: those of the embedding lie the other way round."""
    random = np.random.default_rng(made.seed)
    found: dict[str, tuple[Matrix, Matrix]] = {}
    for tensor in gguf.GGUFReader(base).tensors:
        if not tensor.name.endswith(tuple(f"{t}.weight" for t in made.targets) + made.more):
            continue
        source, target = (int(size) for size in tensor.shape)
        first = random.standard_normal((made.rank, source)) * made.size / np.sqrt(source)
        second = random.standard_normal((target, made.rank)) * made.size
        if tensor.name == "token_embd.weight":
            first, second = second, first.T
        found[tensor.name] = first.astype(np.float32), second.astype(np.float32)
    return found


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
