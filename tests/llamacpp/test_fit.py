"""Memory estimates, against what llama.cpp itself allocates, and the choice of a context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import sparse_model, tiny_model

from llmdispatcher.models.errors import ModelTooLarge, UnsupportedArchitecture
from llmdispatcher.vendors.llamacpp.fit import (
    CONTEXT_STEP_TOKENS,
    DEFAULT_CONTEXT_TOKENS,
    LEAST_CONTEXT_TOKENS,
    Plan,
    Use,
    estimate,
    plan,
)
from llmdispatcher.vendors.llamacpp.gguf import read_header
from llmdispatcher.vendors.llamacpp.header import Header, Tensor

MIB = 2**20
SLACK_MIB = 2.0
"""Absolute slack for models of a few MiB, of which ten percent is nothing."""
GIB = 2**30

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

Ask = Callable[..., list[dict[str, Any]]]


def _total_mib(real: dict[str, Any]) -> float:
    parts = real["kv_cache"] + real["recurrent"] + real["compute"] + real["output"]
    return float(real["weights"]) / MIB + float(parts)


def _estimated_mib(header: Header, context: int, use: Use | None = None) -> float:
    """Leave out the tokenizer, which llama.cpp's log does not mention."""
    need = estimate(header, context, use)
    return (need.total_bytes - need.tokenizer) / MIB


@pytest.mark.parametrize("name", SHAPES)
def test_the_estimate_is_within_ten_percent(name: str, tmp_path: Path, real_llama: Ask) -> None:
    """The total is at most ten percent off llama.cpp's own sizes, and never too small."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES[name])
    header = read_header(path)
    contexts = (256, 2048, 16_384)
    for context, real in zip(
        contexts,
        real_llama(*({"path": path, "context": context, "dry": True} for context in contexts)),
        strict=True,
    ):
        expected, found = _total_mib(real), _estimated_mib(header, context)
        assert real["loaded"], real["log"]
        assert expected - 0.1 <= found <= 1.1 * expected + SLACK_MIB


@pytest.mark.parametrize("name", ["15m", "8b"])
@pytest.mark.parametrize("batch", [32, 256])
def test_batch_and_sequences_count(name: str, batch: int, tmp_path: Path, real_llama: Ask) -> None:
    """Smaller batches take less work space, and every sequence its scores."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES[name])
    job = {"path": path, "context": 4096, "batch": batch, "parallel": 4, "dry": True}
    (real,) = real_llama(job)
    need = estimate(read_header(path), 4096, Use(batch_tokens=batch, parallel=4))
    assert real["compute"] <= need.compute / MIB <= 1.5 * real["compute"] + SLACK_MIB
    assert abs(real["output"] - need.output / MIB) < 0.1


@pytest.mark.parametrize(("name", "type_id"), [("F16", 1), ("Q8_0", 8), ("Q4_0", 2)])
def test_the_cache_is_exact_for_each_type(
    name: str, type_id: int, tmp_path: Path, real_llama: Ask
) -> None:
    """Keys and values cost what their storage type costs."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES["15m"] | {"heads_kv": 2, "width": 384})
    (real,) = real_llama({"path": path, "context": 5000, "keys": type_id, "dry": True})
    need = estimate(read_header(path), 5000, Use(key_type=name, value_type=name))
    assert abs(need.kv_cache / MIB - real["kv_cache"]) < 0.01


@pytest.mark.parametrize("swa_full", [True, False])
def test_sliding_windows_make_the_cache_smaller(
    swa_full: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    real_llama: Ask,
) -> None:
    """Layers with a window keep only the window, where that is asked for."""
    norms = ("post_attention_norm", "post_ffw_norm")
    extra = {f"blk.{i}.{name}.weight": (256,) for i in range(6) for name in norms}
    path = sparse_model(
        tmp_path / "m.gguf",
        architecture="gemma2",
        width=256,
        layers=6,
        metadata={"gemma2.attention.sliding_window": 1024},
        extra={**extra, "output.weight": None},
    )
    header = read_header(path)
    (real,) = real_llama({"path": path, "context": 8192, "dry": True, "swa_full": swa_full})
    need = estimate(header, 8192, Use(full_window=swa_full))
    assert real["loaded"], real["log"]
    assert abs(need.kv_cache / MIB - real["kv_cache"]) < 0.01


def test_experts_need_more_work_space(tmp_path: Path, real_llama: Ask) -> None:
    """A mixture of experts is planned with all experts that one token uses."""
    width, inner, experts = 512, 1024, 8
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(4):
        block = f"blk.{layer}.ffn"
        extra |= {f"{block}_{name}.weight": None for name in ("gate", "up", "down")}
        extra |= {
            f"{block}_gate_inp.weight": (experts, width),
            f"{block}_gate_exps.weight": (experts, inner, width),
            f"{block}_up_exps.weight": (experts, inner, width),
            f"{block}_down_exps.weight": (experts, width, inner),
        }
    path = sparse_model(
        tmp_path / "m.gguf",
        vocab=1000,
        width=width,
        layers=4,
        feed_forward=inner,
        extra=extra,
        metadata={"llama.expert_count": experts, "llama.expert_used_count": 4},
    )
    (real,) = real_llama({"path": path, "context": 2048, "dry": True})
    assert real["loaded"], real["log"]
    found = _estimated_mib(read_header(path), 2048)
    assert _total_mib(real) <= found <= 1.1 * _total_mib(real) + SLACK_MIB


def test_recurrent_states_are_exact(tmp_path: Path, real_llama: Ask) -> None:
    """A Mamba has no cache, and a state for each sequence."""
    width, inner, state, rank, kernel = 64, 128, 16, 4, 4
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(2):
        block = f"blk.{layer}."
        gone = ["attn_q", "attn_k", "attn_v", "attn_output"]
        gone += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
        extra |= {f"{block}{name}.weight": None for name in gone}
        extra |= {
            f"{block}ssm_in.weight": (2 * inner, width),
            f"{block}ssm_conv1d.weight": (inner, kernel),
            f"{block}ssm_conv1d.bias": (inner,),
            f"{block}ssm_x.weight": (rank + 2 * state, inner),
            f"{block}ssm_dt.weight": (inner, rank),
            f"{block}ssm_dt.bias": (inner,),
            f"{block}ssm_a": (inner, state),
            f"{block}ssm_d": (inner,),
            f"{block}ssm_out.weight": (width, inner),
        }
    sizes = {"conv_kernel": kernel, "inner_size": inner, "state_size": state}
    path = sparse_model(
        tmp_path / "m.gguf",
        architecture="mamba",
        width=width,
        heads=0,
        heads_kv=0,
        feed_forward=0,
        extra=extra,
        metadata={
            **{f"mamba.ssm.{key}": value for key, value in sizes.items()},
            "mamba.ssm.time_step_rank": rank,
        },
    )
    # the state is allocated for real even in a dry run
    (real,) = real_llama({"path": path, "context": 512, "parallel": 64, "dry": True})
    assert real["loaded"], real["log"]
    need = estimate(read_header(path), 512, Use(parallel=64))
    assert need.kv_cache == 0
    assert abs(need.recurrent / MIB - real["recurrent"]) < 0.01


def _header(**changes: Any) -> Header:
    """Make the header of an 8B model without a file."""
    facts = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 131_072,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14_336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        **changes,
    }
    weights = (Tensor("weights", (32, 2**27), 2, 0, 4_500 * MIB),)
    return Header(("big.gguf",), 3, 32, facts, weights, 4_500 * MIB)


def _plan(
    context: int | None = None,
    limit: int | None = None,
    free: int = 64 * GIB,
    **facts: Any,
) -> Plan:
    """Plan the 8B model, changed."""
    return plan(_header(**facts), context_tokens=context, limit_bytes=limit, available_bytes=free)


def test_a_plan_takes_a_modest_context() -> None:
    """Without a wish, the context is the trained one, at most 8,192 tokens."""
    assert _plan().context_tokens == DEFAULT_CONTEXT_TOKENS
    assert _plan(**{"llama.context_length": 2048}).context_tokens == 2048
    assert _plan(**{"llama.context_length": 100}).context_tokens == 100


def test_a_plan_shrinks_the_context_to_fit() -> None:
    """Where memory is short the context is the longest that fits, in steps of 256."""
    need = estimate(_header(), 3000).total_bytes
    found = _plan(limit=need)
    assert found.context_tokens % CONTEXT_STEP_TOKENS == 0
    assert found.need.total_bytes <= need
    assert estimate(_header(), found.context_tokens + CONTEXT_STEP_TOKENS).total_bytes > need


def test_an_asked_context_is_never_changed() -> None:
    """A context that was asked for is taken as it is, or refused."""
    assert _plan(context=20_000).context_tokens == 20_000
    with pytest.raises(ModelTooLarge, match="20000 tokens"):
        _plan(context=20_000, limit=estimate(_header(), 8192).total_bytes)


def test_a_refusal_has_the_numbers_and_a_way_out() -> None:
    """The error carries what is needed, what is allowed, and the parts, and says what to do."""
    with pytest.raises(ModelTooLarge, match=r"allow [0-9]+ MiB") as caught:
        _plan(limit=GIB)
    error = caught.value
    assert (error.limit_bytes, error.parts["weights"]) == (GIB, 4_500 * MIB)
    assert error.needed_bytes == sum(error.parts.values())
    assert "weights 4500 MiB" in str(error)
    assert f"{LEAST_CONTEXT_TOKENS} tokens" in str(error)


def test_allowing_what_is_printed_is_enough() -> None:
    """The number in the advice is one with which the model fits."""
    with pytest.raises(ModelTooLarge, match=r"allow [0-9]+ MiB") as caught:
        _plan(context=4096, limit=GIB)
    advised = str(caught.value).split("allow ")[1].split(" MiB")[0]
    assert _plan(context=4096, limit=int(advised) * MIB).context_tokens == 4096


def test_free_memory_limits_too() -> None:
    """Without a limit of the user's, what is free decides, and the advice is another."""
    with pytest.raises(ModelTooLarge, match="close other programs"):
        _plan(free=GIB)
    with pytest.raises(ModelTooLarge, match="close other programs"):
        _plan(limit=2 * GIB, free=GIB)


def test_mapped_weights_count(tmp_path: Path) -> None:
    """The limit covers all weights, though they are mapped from the file."""
    header = read_header(tiny_model(tmp_path / "m.gguf"))
    assert (
        estimate(header, 256).weights
        == header.weight_bytes
        == sum(t.size_bytes for t in header.tensors)
    )


def test_only_models_that_write_are_planned() -> None:
    """A plan for an embedding model is refused with the reason."""
    with pytest.raises(UnsupportedArchitecture, match="vectors"):
        _plan(**{"llama.pooling_type": 1})


@given(
    st.integers(1, 2**20),
    st.sampled_from([1, 7, 64, 512, 2048]),
    st.lists(st.integers(0, 64), min_size=32, max_size=32),
)
def test_more_context_never_takes_less(context: int, batch: int, heads: list[int]) -> None:
    """The estimate grows with the context, which is what shrinking relies on."""
    header = _header(**{"llama.attention.head_count_kv": tuple(heads)})
    use = Use(batch_tokens=batch)
    small, large = estimate(header, context, use), estimate(header, context + 256, use)
    assert 0 < small.total_bytes <= large.total_bytes


def test_windows_and_shared_layers_of_gemma_are_known() -> None:
    """A pattern in the file, head sizes of window layers, and layers that share a cache count."""
    facts = {
        "llama.block_count": 4,
        "llama.attention.head_count_kv": (2, 2, 2, 2),
        "llama.attention.key_length": 64,
        "llama.attention.value_length": 64,
        "llama.attention.key_length_swa": 32,
        "llama.attention.value_length_swa": 32,
        "llama.attention.sliding_window": 256,
        "llama.attention.sliding_window_pattern": (True, False, True, False),
        "llama.attention.shared_kv_layers": 1,
    }
    need = estimate(_header(**facts), 4096, Use(batch_tokens=256, full_window=False))
    full, window = 4096 * 2 * 2 * 64 * 2, 512 * 2 * 2 * 32 * 2
    assert need.kv_cache == full + 2 * window


def test_layers_without_attention_have_states() -> None:
    """In a hybrid, layers without key heads, or all but every n-th, keep a state instead."""
    states = {
        "llama.ssm.conv_kernel": 4,
        "llama.ssm.inner_size": 128,
        "llama.ssm.state_size": 16,
        "llama.ssm.group_count": 1,
    }
    one = 4 * (3 * (128 + 2 * 16) + 128 * 16)
    heads = (0, 8) * 16
    by_heads = estimate(_header(**states, **{"llama.attention.head_count_kv": heads}), 256)
    by_interval = estimate(_header(**states, **{"llama.full_attention_interval": 4}), 256)
    assert by_heads.recurrent == 16 * one
    assert by_interval.recurrent == 24 * one
    assert by_interval.kv_cache == estimate(_header(), 256).kv_cache // 4


@pytest.mark.parametrize(
    ("facts", "numbers"),
    [
        ({"llama.wkv.head_size": 64, "llama.token_shift_count": 2}, 4096 * 66),
        ({"llama.shortconv.l_cache": 3}, 4096 * 2),
        ({"llama.kda.head_dim": 128, "llama.ssm.conv_kernel": 4}, 32 * 128 * (9 + 128)),
    ],
)
def test_other_states_are_known(facts: dict[str, Any], numbers: int) -> None:
    """RWKV, short convolutions and delta attention have states of their own sizes."""
    header = _header(**facts, **{"llama.attention.head_count_kv": (0,) * 32})
    assert estimate(header, 256).recurrent == 32 * numbers * 4
