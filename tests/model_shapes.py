"""Shapes of models, for ``tiny_gguf``: of real ones, and of kinds that remember in other ways."""

from __future__ import annotations

from typing import Any

from llmdispatcher.vendors.llamacpp.files.header import ArrayInfo, Header, Tensor

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "15m": {
        "vocab": 32_000,
        "width": 288,
        "layers": 6,
        "heads": 6,
        "heads_kv": 6,
        "feed_forward": 768,
        "storage": "F16",
    },
    "135m": {
        "vocab": 49_152,
        "width": 576,
        "layers": 30,
        "heads": 9,
        "heads_kv": 3,
        "feed_forward": 1536,
        "storage": "Q8_0",
    },
    "1b": {
        "vocab": 128_256,
        "width": 2048,
        "layers": 16,
        "heads": 32,
        "heads_kv": 8,
        "feed_forward": 8192,
        "storage": "Q8_0",
    },
    "8b": {
        "vocab": 32_000,
        "width": 4096,
        "layers": 32,
        "heads": 32,
        "heads_kv": 8,
        "feed_forward": 14_336,
        "storage": "Q8_0",
    },
}
"""Llamas."""

ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
FEED_FORWARD = ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def sliding(*, width: int = 256, layers: int = 6, window: int = 1024) -> dict[str, Any]:
    """A gemma2: every other layer looks back over a window only."""
    norms = ("post_attention_norm", "post_ffw_norm")
    extra: dict[str, tuple[int, ...] | None] = {
        f"blk.{layer}.{name}.weight": (width,) for layer in range(layers) for name in norms
    }
    return {
        "architecture": "gemma2",
        "width": width,
        "layers": layers,
        "extra": {**extra, "output.weight": None},
        "metadata": {"gemma2.attention.sliding_window": window},
    }


def experts(
    *, width: int = 512, inner: int = 1024, count: int = 8, used: int = 4
) -> dict[str, Any]:
    """A mixture of experts."""
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(4):
        block = f"blk.{layer}.ffn"
        extra |= {f"{block}_{name}.weight": None for name in ("gate", "up", "down")}
        extra |= {
            f"{block}_gate_inp.weight": (count, width),
            f"{block}_gate_exps.weight": (count, inner, width),
            f"{block}_up_exps.weight": (count, inner, width),
            f"{block}_down_exps.weight": (count, width, inner),
        }
    return {
        "vocab": 1000,
        "width": width,
        "layers": 4,
        "feed_forward": inner,
        "extra": extra,
        "metadata": {"llama.expert_count": count, "llama.expert_used_count": used},
    }


def recurrent(*, width: int = 64, layers: int = 2, state: int = 16) -> dict[str, Any]:
    """A Mamba: no attention, and a state instead of a cache."""
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(layers):
        gone = (*ATTENTION, *FEED_FORWARD)
        extra |= {f"blk.{layer}.{name}.weight": None for name in gone}
        extra |= _mixer(f"blk.{layer}.", width, state)
    return {
        "architecture": "mamba",
        "width": width,
        "layers": layers,
        "heads": 0,
        "heads_kv": 0,
        "feed_forward": 0,
        "extra": extra,
        "metadata": _states("mamba", width, state),
    }


def hybrid(*, width: int = 256, layers: int = 8, state: int = 16) -> dict[str, Any]:
    """A Jamba: one layer in four has attention and a cache, the others have states."""
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(layers):
        if layer % 4 == 3:
            continue
        extra |= {f"blk.{layer}.{name}.weight": None for name in ATTENTION}
        extra |= _mixer(f"blk.{layer}.", width, state)
        extra |= {
            f"blk.{layer}.ssm_dt_norm.weight": (_RANK,),
            f"blk.{layer}.ssm_b_norm.weight": (state,),
            f"blk.{layer}.ssm_c_norm.weight": (state,),
        }
    return {
        "architecture": "jamba",
        "width": width,
        "layers": layers,
        "heads": 8,
        "heads_kv": 4,
        "feed_forward": 2 * width,
        "extra": extra,
        "metadata": {
            **_states("jamba", width, state),
            "jamba.attention.head_count_kv": [4 * (layer % 4 == 3) for layer in range(layers)],
        },
    }


_KERNEL, _RANK = 4, 4


def _mixer(block: str, width: int, state: int) -> dict[str, tuple[int, ...] | None]:
    inner = 2 * width
    return {
        f"{block}ssm_in.weight": (2 * inner, width),
        f"{block}ssm_conv1d.weight": (inner, _KERNEL),
        f"{block}ssm_conv1d.bias": (inner,),
        f"{block}ssm_x.weight": (_RANK + 2 * state, inner),
        f"{block}ssm_dt.weight": (inner, _RANK),
        f"{block}ssm_dt.bias": (inner,),
        f"{block}ssm_a": (inner, state),
        f"{block}ssm_d": (inner,),
        f"{block}ssm_out.weight": (width, inner),
    }


def _states(architecture: str, width: int, state: int) -> dict[str, int]:
    return {
        f"{architecture}.ssm.conv_kernel": _KERNEL,
        f"{architecture}.ssm.inner_size": 2 * width,
        f"{architecture}.ssm.state_size": state,
        f"{architecture}.ssm.time_step_rank": _RANK,
    }


def large_header(**changes: Any) -> Header:
    """Make the header of an 8B model without a file; changes are metadata, and ``weight_bytes``."""
    size = changes.pop("weight_bytes", 4_500 * 2**20)
    facts = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 131_072,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14_336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "tokenizer.ggml.tokens": ArrayInfo("string", 128_256),
        **changes,
    }
    # one tensor for each layer, one before them and one after, all of the same size
    names = ["token_embd", *(f"blk.{layer}.all" for layer in range(32)), "output"]
    rows = size // len(names) // 18 // 8 * 8  # a block of Q4_0 takes 18 bytes
    weights = tuple(Tensor(f"{name}.weight", (32, rows), 2, 0, 18 * rows) for name in names)
    return Header(("big.gguf",), 3, 32, facts, weights, size)
