"""What goes to a GPU: the arithmetic alone, since no GPU was at hand to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_shapes import SHAPES, large_header
from tiny_gguf import sparse_model

from llmdispatcher.models.errors import ModelTooLarge
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.plan.estimate import Use, estimate
from llmdispatcher.vendors.llamacpp.plan.fit import (
    BATCH_TOKENS,
    SMALL_BATCH_TOKENS,
    Asked,
    Machine,
    choose,
)
from llmdispatcher.vendors.llamacpp.plan.offload import MARGIN_BYTES, divide, most_layers

MIB, GIB = 2**20, 2**30
CELLS = 8192
USE = Use(slots=8, outputs=8)
WHOLE = 33
"""The layers of the large model, and its output."""


def layers(*gpus: int, asked: int | None = None) -> int:
    """Return how many layers of the large model go to GPUs with so many free bytes."""
    return most_layers(large_header(), CELLS, USE, gpus, asked)


def test_without_room_nothing_moves() -> None:
    """No GPU, one that is full, and one that has little more than the margin, get nothing."""
    assert layers() == layers(0) == layers(MARGIN_BYTES + 100 * MIB) == 0


def test_all_layers_move_where_there_is_room() -> None:
    """The output counts as one more layer."""
    assert layers(16 * GIB) == WHOLE
    assert layers(16 * GIB, asked=1000) == WHOLE
    assert layers(16 * GIB, asked=5) == 5
    assert layers(16 * GIB, asked=0) == 0


@given(st.lists(st.integers(0, 12 * GIB), min_size=1, max_size=3), st.integers(0, GIB))
def test_more_free_memory_never_gives_fewer_layers(gpus: list[int], more: int) -> None:
    """Whichever GPU it is on."""
    before = layers(*gpus)
    for index, free in enumerate(gpus):
        if free:  # llama.cpp gives nothing to a GPU that is full
            assert layers(*gpus[:index], free + more, *gpus[index + 1 :]) >= before


@given(st.lists(st.integers(1, 12 * GIB), min_size=1, max_size=4))
def test_what_moves_fits_with_a_margin(gpus: list[int]) -> None:
    """Divided in proportion to what is free, which is how llama.cpp does it, it fits on each."""
    count = layers(*gpus)
    if not count:
        return
    need = divide(large_header(), CELLS, USE, count).gpu
    assert need is not None
    for free in gpus:
        share = (need.total_bytes - need.compute) * free // sum(gpus)
        assert share + need.compute + MARGIN_BYTES <= free


@given(st.integers(0, WHOLE))
def test_sums_add_up(count: int) -> None:
    """What is on one side is not on the other, except for the work space."""
    whole = estimate(large_header(), CELLS, USE)
    split = divide(large_header(), CELLS, USE, count)
    assert split.layers == count
    moved = {} if split.gpu is None else split.gpu.parts
    for part, size in whole.parts.items():
        if part != "compute":
            assert split.host.parts[part] + moved.get(part, 0) == size
    assert split.host.compute <= whole.compute


def test_layers_move_from_the_back() -> None:
    """First the output, then the last layer, each with its cache; lookups stay."""
    model = large_header()
    one, two = (divide(model, CELLS, USE, count).gpu for count in (1, 2))
    everything = divide(model, CELLS, USE, WHOLE)
    assert one is not None
    assert two is not None
    assert (one.kv_cache, one.weights) == (0, model.tensors[-1].size_bytes)
    assert two.kv_cache == estimate(model, CELLS, USE).kv_cache // 32
    assert everything.host.weights == model.tensors[0].size_bytes
    assert everything.host.kv_cache == 0
    assert everything.host.compute < everything.host.output + 32 * MIB


def test_embeddings_that_also_score_are_on_both_sides(tmp_path: Path) -> None:
    """One tensor that serves twice is on the GPU as well."""
    shape = SHAPES["15m"] | {"extra": {"output.weight": None}}
    model = read_header(sparse_model(tmp_path / "m.gguf", **shape))
    split = divide(model, 512, USE, 1)
    assert split.gpu is not None
    norm_bytes = 288 * 4
    assert split.host.weights == model.weight_bytes - norm_bytes
    assert split.gpu.weights == model.tensors[0].size_bytes + norm_bytes


def test_a_plan_uses_the_gpu() -> None:
    """What moves does not count against main memory, and prompts are read in whole batches."""
    free = 3 * GIB
    with pytest.raises(ModelTooLarge):
        choose(large_header(), Asked(), Machine(available_bytes=free))
    plan = choose(large_header(), Asked(), Machine(available_bytes=free, gpus=(8 * GIB,)))
    assert plan.gpu_layers == WHOLE
    assert plan.batch_tokens == BATCH_TOKENS
    assert plan.gpu_need is not None
    assert "GPU layers: all" in plan.notes
    assert "GPU MiB" in plan.table()


def test_a_gpu_may_be_forbidden() -> None:
    """With max_gpu_layers=0 everything is as without a GPU, and the note says why."""
    machine = Machine(available_bytes=16 * GIB, gpus=(80 * GIB,))
    plan = choose(large_header(), Asked(max_gpu_layers=0), machine)
    assert (plan.gpu_layers, plan.gpu_need) == (0, None)
    assert plan.batch_tokens == SMALL_BATCH_TOKENS
    assert "GPU layers: none, as asked" in plan.notes


def test_a_gpu_that_is_too_small_is_told_of() -> None:
    """A plan without it says that nothing fits there."""
    machine = Machine(available_bytes=16 * GIB, gpus=(GIB,))
    plan = choose(large_header(), Asked(), machine)
    assert plan.gpu_layers == 0
    assert "GPU layers: none; not one of 33 fits there with a margin" in plan.notes


def test_a_gpu_that_shares_main_memory_saves_none() -> None:
    """Where the GPU's memory is main memory, the limit is for both together."""
    asked = Asked(limit_bytes=4 * GIB)
    own = Machine(available_bytes=16 * GIB, gpus=(12 * GIB,))
    assert choose(large_header(), asked, own).gpu_layers == WHOLE
    shared = Machine(available_bytes=16 * GIB, gpus=(12 * GIB,), gpus_share_memory=True)
    with pytest.raises(ModelTooLarge, match="allow") as caught:
        choose(large_header(), asked, shared)
    assert caught.value.parts["weights"] == large_header().weight_bytes
