"""Tiny models with random weights, made in milliseconds, that llama.cpp really loads and runs.

``tiny_model`` writes one; its arguments are a ``Shape``'s fields. ``sparse_model`` writes one of
any size whose weights are a hole in the file: for planning and dry runs, which read no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Short, and like those of real models."""

_BYTES_FIRST = 3
"""Ids 0 to 2 are <unk>, <s>, </s>; the 256 single bytes follow: any text can be written."""
FEWEST_TOKENS = _BYTES_FIRST + 256
_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]


@attrs.frozen(kw_only=True)
class Shape:
    """What a model looks like; the defaults are about the least that llama.cpp runs."""

    vocab: int = 300
    context: int = 256
    width: int = 32
    layers: int = 2
    heads: int = 4
    heads_kv: int = 2
    feed_forward: int = 64
    storage: str = "F32"
    """How matrices are stored: F32, F16 or Q8_0 (then widths must be multiples of 32)."""
    architecture: str = "llama"
    """Anything but llama writes the same tensors under a name that llama.cpp may not know."""
    chat_template: str | None = CHAT_TEMPLATE
    control: Mapping[int, str] = attrs.field(factory=dict)
    """Tokens that are marks and not text, with how they are written."""
    seed: int = 0
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    """Further keys, written last: integers, texts or lists."""
    extra: Mapping[str, tuple[int, ...] | None] = attrs.field(factory=dict)
    """Further tensors and their sizes; None leaves out one that would be there."""
    constant: Mapping[str, float] = attrs.field(factory=dict)
    """Tensors whose names end so hold one number instead of random ones."""
    part_tensors: int = 0
    """So many tensors go into one file, NAME-00001-of-0000N.gguf and so on; 0 makes one file."""


def tiny_model(path: Path | str, **fields: Any) -> Path:
    """Write a model with random weights; return the path that was given, of parts the first's."""
    shape = Shape(**fields)
    random = np.random.default_rng(shape.seed)
    writer = _writer(path, shape)
    for name, size in tensors(shape).items():
        values, none, kind = _weights(random, size, shape.storage)
        for end, number in shape.constant.items():
            if name.endswith(end):
                values = np.full(size, number, np.float32)
        writer.add_tensor(name, values, none, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if shape.part_tensors:
        return min(Path(path).parent.glob(f"{Path(path).stem}-00001-of-*.gguf"))
    return Path(path)


def sparse_model(path: Path | str, **fields: Any) -> Path:
    """Write a model without weights: the file has its full size and takes almost no disk."""
    shape = Shape(**fields)
    writer = _writer(path, shape)
    ends_at = 0
    for name, size in tensors(shape).items():
        kind = _stored_as(size, shape.storage)
        numbers, size_bytes = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(size)) // numbers * size_bytes
        writer.add_tensor_info(name, size, np.dtype(np.float32), count, kind)
        ends_at += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with Path(path).open("r+b") as file:
        start = -(-file.seek(0, 2) // 32) * 32
        file.truncate(start + ends_at)
    return Path(path)


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """List the tensors of a llama, with rows last, as numpy counts."""
    head = shape.width // max(shape.heads, 1)
    found: dict[str, tuple[int, ...] | None] = {
        "token_embd.weight": (shape.vocab, shape.width),
        "output_norm.weight": (shape.width,),
        "output.weight": (shape.vocab, shape.width),
    }
    for layer in range(shape.layers):
        found |= {
            f"blk.{layer}.attn_norm.weight": (shape.width,),
            f"blk.{layer}.attn_q.weight": (shape.width, shape.width),
            f"blk.{layer}.attn_k.weight": (head * shape.heads_kv, shape.width),
            f"blk.{layer}.attn_v.weight": (head * shape.heads_kv, shape.width),
            f"blk.{layer}.attn_output.weight": (shape.width, shape.width),
            f"blk.{layer}.ffn_norm.weight": (shape.width,),
            f"blk.{layer}.ffn_gate.weight": (shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_up.weight": (shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_down.weight": (shape.width, shape.feed_forward),
        }
    found |= shape.extra
    return {name: size for name, size in found.items() if size is not None}


def _stored_as(size: tuple[int, ...], storage: str) -> gguf.GGMLQuantizationType:
    """Vectors are always F32, as in real models."""
    return gguf.GGMLQuantizationType["F32" if len(size) == 1 else storage]


def _weights(
    random: np.random.Generator, size: tuple[int, ...], storage: str
) -> tuple[np.ndarray[Any, Any], None, gguf.GGMLQuantizationType]:
    kind = _stored_as(size, storage)
    if len(size) == 1:
        return np.ones(size, np.float32), None, kind
    # this spread keeps the numbers between layers near 1, so that every token has a chance
    values = random.standard_normal(size, np.float32) / np.sqrt(size[-1], dtype=np.float32)
    return gguf.quants.quantize(values, kind), None, kind


def _writer(path: Path | str, shape: Shape) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(str(path), shape.architecture, split_max_tensors=shape.part_tensors)
    writer.add_name("tiny")
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    if f"{shape.architecture}.attention.head_count_kv" not in shape.metadata:
        writer.add_head_count_kv(shape.heads_kv)
    if shape.heads:
        writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[shape.storage]])
    _add_tokenizer(writer, shape)
    for key, value in shape.metadata.items():
        _add(writer, key, value)
    return writer


_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0"}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tokenizer(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """A SentencePiece vocabulary: every byte, then syllables, alone and after a space."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    for index in range(shape.vocab - len(tokens)):
        tokens.append(_piece(index).encode())
        kinds.append(gguf.TokenType.NORMAL)
    for token, written in shape.control.items():
        tokens[token], kinds[token] = written.encode(), gguf.TokenType.CONTROL
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if shape.chat_template is not None:
        writer.add_chat_template(shape.chat_template)


def _piece(index: int) -> str:
    """Name piece number ``index``: letters first, so that words fall into them."""
    letters = "▁abcdefghijklmnopqrstuvwxyz.,"
    if index < len(letters):
        return letters[index]
    index, after_space = divmod(index - len(letters), 2)
    text = ""
    while not text or index:
        index, syllable = divmod(index, len(_SYLLABLES))
        text += _SYLLABLES[syllable]
    return ("▁" if after_space else "") + text
