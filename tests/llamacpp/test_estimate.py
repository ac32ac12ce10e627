"""Memory estimates, against what llama.cpp itself would allocate."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_shapes import SHAPES, experts, hybrid, large_header, recurrent, sliding
from tiny_gguf import sparse_model, tiny_model

from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.files.header import Tensor
from llmdispatcher.vendors.llamacpp.plan.estimate import CELLS_STEP, Need, Use, estimate

MIB = 2**20
SLACK_MIB = 2.0
"""Absolute slack for models of a few MiB, of which ten percent is nothing."""
PRINTED_MIB = 0.01
"""llama.cpp prints sizes with two digits."""

TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
"""Numbers of ggml's types (ggml.h)."""

Ask = Callable[..., list[dict[str, Any]]]


def job(path: Path, cells: int, use: Use) -> dict[str, Any]:
    """Describe a dry run of a use, for real_llama.py."""
    return {
        "path": path,
        "dry": True,
        "context": cells,
        "batch": use.batch_tokens,
        "slots": use.slots,
        "outputs": use.outputs or 0,
        "cache": TYPES[use.cache_type],
        "swa_full": use.full_window,
    }


def check(need: Need, real: dict[str, Any]) -> None:
    """Compare an estimate with a dry run; what a dry run does not print is left out.

    Sums are exact; the work space may be too large by a tenth of all, and too small by a hundredth.
    """
    assert real["loaded"], real["log"]
    for part in ("kv_cache", "recurrent", "output"):
        assert abs(getattr(need, part) / MIB - real[part]) <= 2 * PRINTED_MIB, part
    assert need.weights == real["weights"]
    shown = ("weights", "kv_cache", "recurrent", "compute", "output")
    found = sum(getattr(need, part) for part in shown) / MIB
    expected = real["weights"] / MIB + sum(real[part] for part in shown[1:])
    assert 0.99 * expected - PRINTED_MIB <= found <= 1.1 * expected + SLACK_MIB


def check_all(path: Path, cases: list[tuple[int, Use]], real_llama: Ask) -> None:
    """Compare the estimates of many uses of one model with dry runs."""
    header = read_header(path)
    found = real_llama(*(job(path, cells, use) for cells, use in cases))
    for (cells, use), real in zip(cases, found, strict=True):
        check(estimate(header, cells, use), real)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.soak) if name in {"1b", "8b"} else name
        for name in SHAPES
    ],
)
def test_the_estimate_is_within_ten_percent(name: str, tmp_path: Path, real_llama: Ask) -> None:
    """Whatever the context, the batch, the slots and the cache, the total is as in llama.cpp."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES[name])
    uses = [
        (cells, Use(batch_tokens=batch, slots=slots, outputs=slots, cache_type=cache_type))
        for cells, batch, slots, cache_type in product(
            (512, 4096, 16_384), (128, 512), (1, 2, 8, 32), TYPES
        )
        if cache_type[0] == "f" or read_header(path).key_length % 32 == 0
    ]
    check_all(path, uses, real_llama)


def test_small_and_odd_contexts(tmp_path: Path, real_llama: Ask) -> None:
    """Contexts that are no multiple of 256, smaller than a batch or than its slots, are right."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES["15m"])
    check_all(
        path,
        [
            (cells, Use(slots=slots, outputs=slots))
            for cells, slots in ((8, 1), (100, 1), (100, 32), (300, 8), (5000, 20))
        ],
        real_llama,
    )


def test_scores_of_all_tokens_take_much_more(tmp_path: Path, real_llama: Ask) -> None:
    """Where every token of a batch gets scores, they make up most of the work space."""
    path = sparse_model(tmp_path / "m.gguf", **SHAPES["135m"])
    check_all(path, [(2048, Use()), (2048, Use(outputs=512))], real_llama)
    header = read_header(path)
    few, all_of_them = estimate(header, 2048, Use(outputs=1)), estimate(header, 2048, Use())
    assert all_of_them.compute > 4 * few.compute


@pytest.mark.parametrize("full_window", [True, False])
def test_sliding_windows_make_the_cache_smaller(
    full_window: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    real_llama: Ask,
) -> None:
    """Layers with a window keep only the windows of all slots, where that is asked for."""
    path = sparse_model(tmp_path / "m.gguf", **sliding())
    check_all(
        path,
        [
            (
                cells,
                Use(slots=slots, outputs=slots, full_window=full_window, cache_type=cache_type),
            )
            for cells, slots, cache_type in product((512, 8192), (1, 4, 16), ("f32", "f16"))
        ],
        real_llama,
    )


@pytest.mark.parametrize("shape", [recurrent, hybrid])
def test_states_are_exact(
    shape: Callable[..., dict[str, Any]], tmp_path: Path, real_llama: Ask
) -> None:
    """Layers without attention have no cache, and a state for each slot."""
    path = sparse_model(tmp_path / "m.gguf", **shape(width=512, layers=4))
    check_all(
        path,
        [
            (cells, Use(batch_tokens=batch, slots=slots, outputs=slots, cache_type=cache_type))
            for cells, batch, slots, cache_type in product(
                (512, 8192), (128, 512), (1, 8, 32), ("f32", "f16")
            )
        ],
        real_llama,
    )
    need = estimate(read_header(path), 512, Use(slots=8))
    assert need.recurrent > 0
    assert (need.kv_cache == 0) == (shape is recurrent)


@pytest.mark.parametrize("sizes", [{}, {"inner": 256, "count": 64, "used": 8}])
def test_experts_need_more_work_space(
    sizes: dict[str, int], tmp_path: Path, real_llama: Ask
) -> None:
    """A mixture of experts is planned with all experts that one token uses."""
    path = sparse_model(tmp_path / "m.gguf", **experts(**sizes))
    check_all(path, [(2048, Use(slots=4, outputs=4))], real_llama)


@given(
    st.integers(1, 2**20),
    st.sampled_from([1, 7, 64, 512, 2048]),
    st.sampled_from([1, 4, 32]),
    st.sampled_from([*TYPES]),
    st.lists(st.integers(0, 64), min_size=32, max_size=32),
)
def test_more_cells_never_take_less(
    cells: int, batch: int, slots: int, cache_type: str, heads: list[int]
) -> None:
    """The estimate grows with the cells, which is what the choice of their number relies on."""
    model = large_header(**{"llama.attention.head_count_kv": tuple(heads)})
    use = Use(batch_tokens=batch, slots=slots, outputs=slots, cache_type=cache_type)
    small, large = (estimate(model, count, use) for count in (cells, cells + CELLS_STEP))
    assert 0 < small.total_bytes <= large.total_bytes


def test_parts_make_up_the_total() -> None:
    """Nothing is counted that is not shown."""
    need = estimate(large_header(), 8192)
    assert need.total_bytes == sum(need.parts.values())
    assert [*need.parts] == [field.name for field in attrs.fields(Need)]


def test_mapped_weights_count(tmp_path: Path) -> None:
    """All weights count, though they are mapped from the file."""
    header = read_header(tiny_model(tmp_path / "m.gguf"))
    stored = sum(tensor.size_bytes for tensor in header.tensors)
    assert estimate(header, 256).weights == header.weight_bytes == stored


def test_repacked_weights_of_a_mapped_file_count_twice() -> None:
    """What the processor wants in another order is copied, and a file that is read is not kept."""
    model = large_header()
    size, embeddings = model.weight_bytes, model.tensors[0].size_bytes
    assert estimate(model, 256, Use(repacked=("Q8_0",))).weights == size
    assert estimate(model, 256, Use(repacked=("Q4_0",))).weights == 2 * size - embeddings
    assert estimate(model, 256, Use(repacked=("Q4_0",), mapped=False)).weights == size


def test_embeddings_that_also_score_are_copied() -> None:
    """Tokens are looked up in the order of the file, and scored in the processor's."""
    tied = Tensor("token_embd.weight", (32, 2**20), 2, 0, 100 * MIB)
    model = attrs.evolve(large_header(), tensors=(tied,))
    for mapped in (True, False):
        use = Use(repacked=("Q4_0",), mapped=mapped)
        assert estimate(model, 256, use).weights == 200 * MIB


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
    need = estimate(large_header(**facts), 4096, Use(batch_tokens=256, full_window=False))
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
    by_heads = estimate(large_header(**states, **{"llama.attention.head_count_kv": heads}), 256)
    by_interval = estimate(large_header(**states, **{"llama.full_attention_interval": 4}), 256)
    assert by_heads.recurrent == 16 * one
    assert by_interval.recurrent == 24 * one
    assert by_interval.kv_cache == estimate(large_header(), 256).kv_cache // 4


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
    model = large_header(**facts, **{"llama.attention.head_count_kv": (0,) * 32})
    assert estimate(model, 256).recurrent == 32 * numbers * 4
