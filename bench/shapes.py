"""Writes GGUF files with random weights and the shape of a real model, for speed benches.

Speed depends on shapes and types and not on values, so nothing has to be downloaded. The tokenizer
is synthetic: the printable characters of ASCII one by one, which prompts are read with, and words
that are all different, so that equal text means equal tokens. The end token's embedding is zero:
its logit is 0, below the highest of thousands of random ones, so greedy replies never end early.

    python bench/shapes.py FILE.gguf      writes the 15M shape
"""

from __future__ import annotations

import sys
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


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a Llama with tied embeddings."""

    name: str
    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    context: int


SHAPE_15M = Shape(
    name="15M", width=288, layers=6, heads=6, hidden=768, vocabulary=32_000, context=2_048
)
"""That of the 15M model trained on TinyStories (karpathy/llama2.c)."""


def write(path: Path, shape: Shape) -> None:
    """Write a model with random F16 weights."""
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
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
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

    def matrix(rows: int, columns: int, deviation: float) -> npt.NDArray[np.float16]:
        return (random.standard_normal((rows, columns)) * deviation).astype(np.float16)

    def norm() -> npt.NDArray[np.float32]:
        return np.ones(shape.width, dtype=np.float32)

    embeddings = matrix(shape.vocabulary, shape.width, EMBEDDING)
    embeddings[: len(CONTROL)] = 0
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output_norm.weight", norm())
    width, hidden = shape.width, shape.hidden
    sizes = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, width)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (hidden, width)),
        "ffn_down": (width, hidden),
    }
    for layer in range(shape.layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", norm())
        for name, (rows, columns) in sizes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(rows, columns, columns**-0.5))


if __name__ == "__main__":
    write(Path(sys.argv[1]), SHAPE_15M)
