"""Tiny projectors (mmproj) with random weights, and text models that they fit.

Kinds that differ in what an engine must do: ``mlp`` (LLaVA: a cell is a position),
``qwen2vl_merger`` and ``qwen2.5vl_merger`` (an image of any size, whose cells lie on a grid of
fewer positions) and ``gemma3`` (all cells of an image look at each other).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
from PIL import Image
from tiny_gguf import tiny_model

KINDS = ("mlp", "qwen2vl_merger", "qwen2.5vl_merger", "gemma3")
CONTEXT = 512


@attrs.frozen(kw_only=True)
class Eye:
    """What a projector looks like."""

    kind: str = "mlp"
    width: int = 32
    """Of the text model."""
    embedding: int = 32
    heads: int = 4
    layers: int = 2
    feed_forward: int = 48
    image: int = 32
    patch: int = 4
    seed: int = 7
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    """Keys that are written instead of, or beside, the usual; None leaves one out."""
    tensors: Mapping[str, tuple[int, ...] | None] = attrs.field(factory=dict)
    """Tensors that are written instead of, or beside, the usual, rows last; None as above."""


def tiny_projector(path: Path | str, **fields: Any) -> Path:
    """Write a projector whose weights are random; ``fields`` are those of an ``Eye``."""
    eye = Eye(**fields)
    random = np.random.default_rng(eye.seed)
    writer = gguf.GGUFWriter(str(path), "clip")
    for key, value in (metadata_of(eye) | dict(eye.metadata)).items():
        _add(writer, key, value)
    for name, size in (tensors_of(eye) | dict(eye.tensors)).items():
        if size is not None:
            writer.add_tensor(name, _weights(random, name, size))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def seeing_model(path: Path, kind: str, **fields: Any) -> Path:
    """Write a text model that a projector of this kind fits."""
    layers = fields.get("layers", 2)
    more: dict[str, Any] = {"context": CONTEXT, "vocab": 600, **fields}
    if kind.endswith("vl_merger"):
        more["architecture"] = "qwen2vl"
        more["metadata"] = {"qwen2vl.rope.dimension_sections": [2, 1, 1, 0]}
    if kind == "gemma3":
        more["architecture"] = "gemma3"
        norms = {"post_attention_norm": 32, "post_ffw_norm": 32, "attn_q_norm": 8, "attn_k_norm": 8}
        more["extra"] = {
            f"blk.{layer}.{name}.weight": (size,)
            for layer in range(layers)
            for name, size in norms.items()
        }
    return tiny_model(path, **more)


def picture(seed: int = 0, size: tuple[int, int] = (24, 20), form: str = "PNG") -> bytes:
    """Draw coarse random colours: pictures of different seeds differ everywhere."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(file, form)
    return file.getvalue()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Write a PNG by hand, whose header may promise more than its rows hold."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def metadata_of(eye: Eye) -> dict[str, Any]:
    """List the usual keys of a projector."""
    return {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": eye.kind,
        "clip.use_gelu": True,
        "clip.vision.image_size": eye.image,
        "clip.vision.patch_size": eye.patch,
        "clip.vision.embedding_length": eye.embedding,
        "clip.vision.feed_forward_length": eye.feed_forward,
        "clip.vision.projection_dim": eye.width,
        "clip.vision.block_count": eye.layers,
        "clip.vision.attention.head_count": eye.heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
        **({"clip.vision.projector.scale_factor": 2} if eye.kind == "gemma3" else {}),
        **({"clip.vision.n_wa_pattern": 2} if eye.kind == "qwen2.5vl_merger" else {}),
    }


def tensors_of(eye: Eye) -> dict[str, tuple[int, ...] | None]:
    """List the usual tensors of a projector, with rows last, as numpy counts."""
    wide, patches = eye.embedding, (eye.image // eye.patch) ** 2
    found: dict[str, tuple[int, ...] | None] = {
        "v.patch_embd.weight": (wide, 3, eye.patch, eye.patch),
        "v.post_ln.weight": (wide,),
        "v.post_ln.bias": (wide,),
    }
    for layer in range(eye.layers):
        sizes = {"ln1": (wide,), "ln2": (wide,), "ffn_up": (eye.feed_forward, wide)}
        sizes |= {f"attn_{name}": (wide, wide) for name in ("q", "k", "v", "out")}
        sizes["ffn_down"] = (wide, eye.feed_forward)
        if eye.kind == "qwen2.5vl_merger":
            sizes["ffn_gate"] = (eye.feed_forward, wide)
        for name, size in sizes.items():
            found[f"v.blk.{layer}.{name}.weight"] = size
            found[f"v.blk.{layer}.{name}.bias"] = size[:1]
    if eye.kind.endswith("vl_merger"):
        found["v.patch_embd.weight.1"] = (wide, 3, eye.patch, eye.patch)
        found |= _linear("mm.0", 4 * wide, 4 * wide) | _linear("mm.2", 4 * wide, eye.width)
    else:
        found["v.position_embd.weight"] = (patches + (eye.kind == "mlp"), wide)
    if eye.kind == "mlp":
        found["v.class_embd"] = (wide,)
        found |= _linear("mm.0", wide, wide) | _linear("mm.2", wide, eye.width)
    if eye.kind == "gemma3":
        found["mm.input_projection.weight"] = (wide, eye.width)
        found["mm.soft_emb_norm.weight"] = (wide,)
    return found


def _linear(name: str, source: int, target: int) -> dict[str, tuple[int, ...] | None]:
    return {f"{name}.weight": (target, source), f"{name}.bias": (target,)}


def _weights(
    random: np.random.Generator, name: str, size: tuple[int, ...]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = random.standard_normal(size, np.float32)
    if name.endswith(".bias"):
        return values * np.float32(0.1)
    if len(size) == 1 and name != "v.class_embd":
        return np.ones(size, np.float32)
    if name == "v.position_embd.weight":
        return values * np.float32(0.1)  # what the image shows must count for more
    scale = np.float32(1 / np.sqrt(np.prod(size[1:] or size)))
    return values * scale


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)
