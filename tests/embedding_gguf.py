"""Tiny models with random weights that turn text into vectors or scores.

Encoders (``encoder``: bert, nomic-bert, t5encoder), and ``tiny_gguf`` models that write, with what
says that they embed (``pooled_llama``) or score (``qwen3_reranker``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
from tiny_gguf import tiny_model

MEAN, CLS, LAST, RANK = 1, 2, 3, 4
"""enum llama_pooling_type."""

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?éüß日本"
RERANK_TEMPLATE = "<s>Query: {query}\nDocument: {document}\nRelevant:</s>"


@attrs.frozen(kw_only=True)
class Encoder:
    """What an encoder is like; the defaults are about the least that llama.cpp runs."""

    architecture: str = "bert"
    context: int = 128
    width: int = 32
    layers: int = 2
    heads: int = 4
    feed_forward: int = 64
    pooling: int | None = MEAN
    head: tuple[str, ...] = ()
    """Parts of a classifier: "cls", "cls.output"."""
    words: int = 200
    """Tokens for whole words, beside letters."""
    storage: str = "F32"
    seed: int = 0
    metadata: dict[str, Any] = attrs.field(factory=dict)
    """Further keys, or others instead; None leaves one out."""
    without: tuple[str, ...] = ()
    """Tensors that are left out."""
    types_as: str = "F32"
    """How token_types is stored; converters leave it in F32."""


def encoder(path: Path | str, **fields: Any) -> Path:
    """Write an encoder; return the path that was given."""
    shape = Encoder(**fields)
    random = np.random.default_rng(shape.seed)
    writer = gguf.GGUFWriter(str(path), shape.architecture)
    tokens = _tokens(shape)
    _add_keys(writer, shape)
    _add_tokenizer(writer, tokens)
    for name, size in _TENSORS[shape.architecture](shape, len(tokens)).items():
        if name not in shape.without:
            storage = shape.types_as if name == "token_types.weight" else shape.storage
            values, kind = _weights(random, name, size, storage)
            writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def pooled_llama(path: Path | str, pooling: int | None, **fields: Any) -> Path:
    """Write a llama that embeds; without a pooling, one that writes."""
    metadata = {} if pooling is None else {"llama.pooling_type": pooling}
    return tiny_model(path, metadata={**metadata, **fields.pop("metadata", {})}, **fields)


def qwen3_reranker(path: Path | str, **fields: Any) -> Path:
    """Write a qwen3 that scores: one number for yes, one for no, and a template of its own."""
    width, layers, head = 32, 2, 8
    norms: dict[str, tuple[int, ...] | None] = {
        f"blk.{layer}.attn_{kind}_norm.weight": (head,) for layer in range(layers) for kind in "qk"
    }
    return tiny_model(
        path,
        architecture="qwen3",
        width=width,
        layers=layers,
        extra={**norms, "cls.output.weight": (2, width)},
        metadata={
            "qwen3.pooling_type": RANK,
            "qwen3.classifier.output_labels": ["yes", "no"],
            "tokenizer.chat_template.rerank": RERANK_TEMPLATE,
        },
        **fields,
    )


def _tokens(shape: Encoder) -> list[str]:
    """Letters, at the start of a word and inside one, and some words."""
    found = [*SPECIAL, *(f"▁{letter}" for letter in _LETTERS), *_LETTERS]
    random = np.random.default_rng(1)
    while len(found) < len(SPECIAL) + 2 * len(_LETTERS) + shape.words:
        word = "".join(random.choice(list(_LETTERS[:26]), size=int(random.integers(2, 7))))
        found.extend(each for each in (f"▁{word}", word) if each not in found)
    return found


def _add_keys(writer: gguf.GGUFWriter, shape: Encoder) -> None:
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    if shape.architecture == "t5encoder":
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_relative_attn_buckets_count(32)
        writer.add_key_length(shape.width // shape.heads)
        writer.add_value_length(shape.width // shape.heads)
    else:
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(value=False)
        writer.add_token_type_count(2)
    if shape.pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(shape.pooling))
    if "cls.output" in shape.head:
        writer.add_array(f"{shape.architecture}.classifier.output_labels", ["score"])
    for key, value in shape.metadata.items():
        if isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL)
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_pad_token_id(SPECIAL.index("[PAD]"))
    writer.add_unk_token_id(SPECIAL.index("[UNK]"))
    writer.add_bos_token_id(SPECIAL.index("[CLS]"))
    writer.add_sep_token_id(SPECIAL.index("[SEP]"))
    writer.add_mask_token_id(SPECIAL.index("[MASK]"))


Sizes = dict[str, tuple[int, ...]]


def _bert(shape: Encoder, vocab: int) -> Sizes:
    width, inner = shape.width, shape.feed_forward
    found: Sizes = {
        "token_embd.weight": (vocab, width),
        "token_types.weight": (2, width),
        "position_embd.weight": (shape.context, width),
        "token_embd_norm.weight": (width,),
        "token_embd_norm.bias": (width,),
    }
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found |= {f"{block}{name}.weight": (width, width), f"{block}{name}.bias": (width,)}
        for name in ("attn_output_norm", "layer_output_norm"):
            found |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
        found |= {
            f"{block}ffn_up.weight": (inner, width),
            f"{block}ffn_up.bias": (inner,),
            f"{block}ffn_down.weight": (width, inner),
            f"{block}ffn_down.bias": (width,),
        }
    if "cls" in shape.head:
        found |= {"cls.weight": (width, width), "cls.bias": (width,)}
    if "cls.output" in shape.head:
        found |= {"cls.output.weight": (1, width), "cls.output.bias": (1,)}
    return found


def _nomic_bert(shape: Encoder, vocab: int) -> Sizes:
    found = {
        name: size
        for name, size in _bert(shape, vocab).items()
        if name != "position_embd.weight" and not name.startswith("cls")
    }
    for layer in range(shape.layers):
        found[f"blk.{layer}.ffn_gate.weight"] = (shape.feed_forward, shape.width)
    return found


def _t5encoder(shape: Encoder, vocab: int) -> Sizes:
    width, inner = shape.width, shape.feed_forward
    found: Sizes = {
        "token_embd.weight": (vocab, width),
        "enc.output_norm.weight": (width,),
        "enc.blk.0.attn_rel_b.weight": (32, shape.heads),
    }
    for layer in range(shape.layers):
        block = f"enc.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_o"):
            found[f"{block}{name}.weight"] = (width, width)
        found |= {
            f"{block}attn_norm.weight": (width,),
            f"{block}ffn_norm.weight": (width,),
            f"{block}ffn_gate.weight": (inner, width),
            f"{block}ffn_up.weight": (inner, width),
            f"{block}ffn_down.weight": (width, inner),
        }
    return found


_TENSORS = {"bert": _bert, "nomic-bert": _nomic_bert, "t5encoder": _t5encoder}


def _weights(
    random: np.random.Generator, name: str, size: tuple[int, ...], storage: str
) -> tuple[np.ndarray[Any, Any], gguf.GGMLQuantizationType]:
    if len(size) == 1:
        values = np.ones(size, np.float32) if name.endswith("norm.weight") else np.zeros(size)
        noise = 0.1 * random.standard_normal(size, np.float32)
        return (values + noise).astype(np.float32), gguf.GGMLQuantizationType.F32
    plain = size[0] == 1 or "rel_b" in name
    kind = gguf.GGMLQuantizationType["F32" if plain else storage]
    values = random.standard_normal(size, np.float32) / np.sqrt(size[-1], dtype=np.float32)
    if "embd" in name or "types" in name:
        values = random.standard_normal(size, np.float32)
    return gguf.quants.quantize(values, kind), kind
