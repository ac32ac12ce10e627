"""Writes GGUF files with random weights and the shape of a real model, for speed benches.

Speed depends on shapes and types and not on values, so nothing has to be downloaded. The tokenizer
is synthetic: the printable characters of ASCII one by one, which prompts are read with, and words
that are all different, so that equal text means equal tokens. The end token's embedding is zero:
its logit is 0, below the highest of thousands of random ones, so greedy replies never end early.

    python bench/shapes.py FILE.gguf [15M|135M]      writes a shape; without a name, 15M
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

SEED = 20_260
EMBEDDING = 0.02
"""Standard deviation of the embeddings: small beside what the layers add, so that a token does not
predict itself and replies vary."""

CONTROL = ("<begin>", "<end>")
"""The first tokens."""

_FILE_TYPES = {"F16": gguf.LlamaFileType.MOSTLY_F16, "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a Llama with tied embeddings."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    context: int
    matrices: str = "F16"
    """How matrices are stored: F16 or Q8_0."""


SHAPE_15M = Shape(
    name="15M",
    width=288,
    layers=6,
    heads=6,
    kv_heads=6,
    hidden=768,
    vocabulary=32_000,
    context=2_048,
)
"""That of the 15M model trained on TinyStories (karpathy/llama2.c).

Its rows and heads (288 and 48 wide) are no multiples of the 64 values that AVX-512 builds of
llama.cpp multiply at once (GGML_F16_STEP in simd-mappings.h); the rest goes one by one, so that
builds for AVX2 write up to twice as fast with this shape, and with most others do not.
"""

SHAPE_135M = Shape(
    name="135M",
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    hidden=1_536,
    vocabulary=49_152,
    context=8_192,
    matrices="Q8_0",
)
"""That of SmolLM2-135M, quantised to eight bits; the smallest that people chat with."""

SHAPES = {shape.name: shape for shape in (SHAPE_15M, SHAPE_135M)}


def write(path: Path, shape: Shape) -> None:
    """Write a model with random weights."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_facts(writer, shape)
    _add_tokenizer(writer, shape.vocabulary)
    _add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_facts(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(f"random {shape.name}")
    writer.add_file_type(_FILE_TYPES[shape.matrices])
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    """Add a byte-level tokenizer without merges; "Ġ" and "Ċ" stand for space and newline."""
    characters = ["Ġ", "Ċ", *map(chr, range(ord("!"), ord("~") + 1))]
    words = vocabulary - len(CONTROL) - len(characters)
    tokens = [*CONTROL, *characters, *(f"Ġ{number:06}" for number in range(words))]
    kinds = [gguf.TokenType.CONTROL] * len(CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (vocabulary - len(kinds))])
    writer.add_token_merges(["Ċ Ġ"])  # llama.cpp wants one; this one is in no prompt
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)  # noqa: FBT003 - their API


def _add_tensors(writer: gguf.GGUFWriter, shape: Shape) -> None:
    random = np.random.default_rng(SEED)

    def matrix(name: str, rows: int, columns: int, deviation: float) -> npt.NDArray[np.float64]:
        values = random.standard_normal((rows, columns)) * deviation
        if name == "token_embd":
            values[: len(CONTROL)] = 0
        return values

    def add(name: str, values: npt.NDArray[np.float64]) -> None:
        kind = gguf.GGMLQuantizationType[shape.matrices]
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.width, dtype=np.float32))

    add("token_embd", matrix("token_embd", shape.vocabulary, shape.width, EMBEDDING))
    add_norm("output_norm")
    for layer in range(shape.layers):
        for name in ("attn_norm", "ffn_norm"):
            add_norm(f"blk.{layer}.{name}")
        for name, (rows, columns) in _sizes(shape).items():
            add(f"blk.{layer}.{name}", matrix(name, rows, columns, columns**-0.5))


def _sizes(shape: Shape) -> Mapping[str, tuple[int, int]]:
    """Return rows and columns of the matrices of a layer."""
    width, hidden, kv_width = shape.width, shape.hidden, shape.width // shape.heads * shape.kv_heads
    return {
        "attn_q": (width, width),
        **dict.fromkeys(("attn_k", "attn_v"), (kv_width, width)),
        "attn_output": (width, width),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (hidden, width)),
        "ffn_down": (width, hidden),
    }


def main() -> None:
    """Write the shape that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("shape", nargs="?", choices=SHAPES, default=SHAPE_15M.name)
    options = parser.parse_args()
    write(options.file, SHAPES[options.shape])


if __name__ == "__main__":
    main()
