"""The choice of context, conversations, threads and layers, so that a model fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_shapes import large_header

from llmdispatcher.models.errors import BadRequest, ModelTooLarge, UnsupportedArchitecture
from llmdispatcher.vendors.llamacpp.files.header import Tensor
from llmdispatcher.vendors.llamacpp.plan.estimate import CELLS_STEP
from llmdispatcher.vendors.llamacpp.plan.fit import (
    BATCH_TOKENS,
    CACHE_TYPES,
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_PARALLEL,
    LEAST_CONTEXT_TOKENS,
    MAX_SLOTS,
    MORE_CELLS_PART,
    ONE_THREAD_BYTES,
    SMALL_BATCH_TOKENS,
    Asked,
    Machine,
    Plan,
    choose,
)

MIB, GIB = 2**20, 2**30
SMALL = 400 * MIB
"""Bytes of weights for which processors are quick."""

WINDOWS: dict[str, Any] = {
    "llama.attention.sliding_window": 512,
    "llama.attention.sliding_window_pattern": 6,
}
STATES: dict[str, Any] = {
    "llama.ssm.conv_kernel": 4,
    "llama.ssm.inner_size": 8192,
    "llama.ssm.state_size": 128,
    "llama.attention.head_count_kv": (0, 0, 0, 8) * 8,
}


def planned(asked: Asked | None = None, /, free: int = 64 * GIB, **facts: Any) -> Plan:
    """Plan the large model, changed."""
    machine = Machine(available_bytes=free, processors=8)
    return choose(large_header(**facts), asked or Asked(), machine)


def rank(plan: Plan) -> tuple[int, ...]:
    """Put plans in order: what is given up last comes first."""
    return (plan.context_tokens, plan.full_window, plan.parallel, plan.slots, plan.cells)


def told(plan: Plan, about: str) -> str:
    """Return the note about a choice; empty where there is none."""
    notes = [note for note in plan.notes if note.startswith(f"{about}: ")]
    assert len(notes) < 2
    return notes[0] if notes else ""


# -- the context -------------------------------------------------------------------------------


def test_a_plan_takes_a_modest_context() -> None:
    """Without a wish, the context is the trained one, at most 8,192 tokens."""
    assert planned().context_tokens == DEFAULT_CONTEXT_TOKENS
    assert "131,072" in told(planned(), "context")
    assert planned(**{"llama.context_length": 2048}).context_tokens == 2048
    assert planned(**{"llama.context_length": 100}).context_tokens == 100
    unknown = planned(**{"llama.context_length": 0})
    assert unknown.context_tokens == DEFAULT_CONTEXT_TOKENS
    assert "does not say" in told(unknown, "context")


def test_a_plan_shrinks_the_context_to_fit() -> None:
    """Where memory is short the context is the longest that fits, in steps of 256."""
    limit = planned(Asked(context_tokens=3000, max_parallel=1)).need.total_bytes
    found = planned(Asked(limit_bytes=limit))
    assert found.context_tokens % CELLS_STEP == 0
    assert 3000 <= found.context_tokens < DEFAULT_CONTEXT_TOKENS
    assert "memory is short" in told(found, "context")
    longer = Asked(context_tokens=found.context_tokens + CELLS_STEP, limit_bytes=limit)
    with pytest.raises(ModelTooLarge):
        planned(longer)


def test_an_asked_context_is_never_changed() -> None:
    """A context that was asked for is taken as it is, or refused."""
    assert planned(Asked(context_tokens=20_000)).context_tokens == 20_000
    limit = planned(Asked(context_tokens=8192)).need.total_bytes
    with pytest.raises(ModelTooLarge, match="20000 tokens"):
        planned(Asked(context_tokens=20_000, limit_bytes=limit))


def test_a_context_beyond_the_trained_one_is_warned_of() -> None:
    """Who asks for more than the model was trained for gets it, and is told."""
    plan = planned(Asked(context_tokens=4096), **{"llama.context_length": 2048})
    assert plan.context_tokens == 4096
    assert "trained for 2,048" in told(plan, "context")


# -- refusals ----------------------------------------------------------------------------------


def test_a_refusal_has_the_numbers_and_a_way_out() -> None:
    """The error carries what is needed, what is allowed, and the parts, and says what to do."""
    with pytest.raises(ModelTooLarge, match=r"allow [0-9]+ MiB") as caught:
        planned(Asked(limit_bytes=GIB))
    error = caught.value
    assert (error.limit_bytes, error.parts["weights"]) == (GIB, large_header().weight_bytes)
    assert error.needed_bytes == sum(error.parts.values())
    assert "weights 4500 MiB" in str(error)
    assert f"{LEAST_CONTEXT_TOKENS} tokens" in str(error)


def test_allowing_what_is_printed_is_enough() -> None:
    """The number in the advice is one with which the model fits."""
    with pytest.raises(ModelTooLarge, match=r"allow [0-9]+ MiB") as caught:
        planned(Asked(context_tokens=4096, limit_bytes=GIB))
    advised = int(str(caught.value).split("allow ")[1].split(" MiB")[0])
    plan = planned(Asked(context_tokens=4096, limit_bytes=advised * MIB))
    assert (plan.context_tokens, plan.parallel) == (4096, 1)


def test_free_memory_limits_too() -> None:
    """Without a limit of the user's, what is free decides, and the advice is another."""
    with pytest.raises(ModelTooLarge, match="close other programs"):
        planned(free=GIB)
    with pytest.raises(ModelTooLarge, match="close other programs"):
        planned(Asked(limit_bytes=2 * GIB), free=GIB)
    assert "less a reserve" in told(planned(), "limit")
    assert told(planned(Asked(limit_bytes=32 * GIB)), "limit") == "limit: as asked"


def test_only_models_that_write_are_planned() -> None:
    """A plan for an embedding model is refused with the reason."""
    with pytest.raises(UnsupportedArchitecture, match="vectors"):
        planned(**{"llama.pooling_type": 1})


def test_a_cache_type_is_one_that_the_model_can_have() -> None:
    """Unknown types are refused, and types whose blocks no head is a multiple of."""
    for cache_type in CACHE_TYPES:
        assert planned(Asked(cache_type=cache_type)).cache_type == cache_type
    with pytest.raises(BadRequest, match="one of f32, f16, q8_0, q4_0"):
        planned(Asked(cache_type="q5_1"))
    odd: dict[str, Any] = {"llama.attention.key_length": 72, "llama.attention.value_length": 72}
    assert planned(Asked(cache_type="f32"), **odd).cache_type == "f32"
    with pytest.raises(UnsupportedArchitecture, match="take f16"):
        planned(Asked(cache_type="q8_0"), **odd)


def test_smaller_cache_types_take_less() -> None:
    """From F32 to Q4_0 the same context takes less and less memory."""
    asked = [Asked(cache_type=name, context_tokens=8192, max_parallel=1) for name in CACHE_TYPES]
    sizes = [planned(each).need.total_bytes for each in asked]
    assert sizes == sorted(sizes, reverse=True)


# -- conversations -----------------------------------------------------------------------------


def test_many_conversations_are_answered_at_once() -> None:
    """Sixteen run, and as many finished ones are remembered, unless fewer are asked for."""
    assert (planned().parallel, planned().slots) == (DEFAULT_PARALLEL, 32)
    few = planned(Asked(max_parallel=3))
    assert (few.parallel, few.slots) == (3, 19)
    assert told(few, "parallel") == "parallel: as asked"


def test_each_state_costs_so_fewer_are_kept() -> None:
    """Models with a state for each conversation run four, and say what one costs."""
    plan = planned(**STATES)
    assert (plan.parallel, plan.slots) == (4, 8)
    assert f"{plan.need.recurrent / 8 / MIB:,.1f} MiB" in told(plan, "parallel")
    asked = planned(Asked(max_parallel=10), **STATES)
    assert (asked.parallel, asked.slots) == (10, 14)


def test_llama_cpp_has_so_many_slots() -> None:
    """More than llama.cpp can number, or than one step can hold, are never planned."""
    small = planned(Asked(max_parallel=100_000), weight_bytes=SMALL)
    assert small.slots == MAX_SLOTS
    assert "fewer than asked" in told(small, "parallel")
    large = planned(Asked(max_parallel=100_000))
    assert large.parallel == large.batch_tokens == SMALL_BATCH_TOKENS


def test_several_conversations_fit_at_once() -> None:
    """There are more cells than one context takes, as long as they cost little beside the model."""
    plan = planned()
    assert plan.cells > plan.context_tokens
    assert plan.cells % CELLS_STEP == 0
    alone = planned(Asked(max_parallel=1))
    assert alone.cells == alone.context_tokens
    grown = plan.need.kv_cache - alone.need.kv_cache
    assert 0 < grown <= large_header().weight_bytes // MORE_CELLS_PART
    assert "conversations of full length" in told(plan, "cells")


def test_there_are_no_cells_for_more_than_can_run() -> None:
    """Room for as many whole contexts as run at once is enough."""
    facts: dict[str, Any] = {"llama.context_length": 256, "llama.attention.head_count_kv": 1}
    assert planned(Asked(max_parallel=5), **facts).cells == 5 * 256


@pytest.mark.parametrize("how", ["tensor", "scaling"])
def test_cells_that_would_change_the_model_are_not_added(how: str) -> None:
    """Where llama.cpp chooses factors by the number of cells, there are as many as asked for."""
    facts = {"llama.rope.scaling.type": "longrope"} if how == "scaling" else {}
    model = large_header(**facts)
    if how == "tensor":
        factors = Tensor("rope_factors_long.weight", (64,), 0, 0, 256)
        object.__setattr__(model, "tensors", (*model.tensors, factors))
    plan = choose(model, Asked(), Machine(available_bytes=64 * GIB))
    assert plan.cells == plan.context_tokens
    assert "computes otherwise" in told(plan, "cells")


# -- memory is short ---------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [{}, WINDOWS, STATES])
def test_comforts_are_given_up_in_order(facts: dict[str, Any]) -> None:
    """First room, then conversations, then the windows' cache, and the context at last."""
    plans = []
    low, high = planned(**facts).need.weights, planned(**facts).need.total_bytes
    for limit in range(high, low, -8 * MIB):
        try:
            plans.append(planned(Asked(limit_bytes=limit), **facts))
        except ModelTooLarge:
            break
    ranks = [rank(plan) for plan in plans]
    assert ranks == sorted(ranks, reverse=True)
    first = plans[0]
    for plan in plans:
        if plan.parallel < first.parallel:
            assert plan.cells == plan.context_tokens
        if not plan.full_window or plan.context_tokens < first.context_tokens:
            assert (plan.parallel, plan.cells) == (1, plan.context_tokens)
        if plan.context_tokens < first.context_tokens:
            assert plan.full_window == (facts is not WINDOWS)
            assert plan.slots == 1
        assert bool(told(plan, "window")) == (not plan.full_window)
    assert plans[-1].context_tokens == LEAST_CONTEXT_TOKENS
    assert {first.parallel >> step for step in range(5)} >= {plan.parallel for plan in plans}
    assert any(not plan.full_window for plan in plans) == (facts is WINDOWS)


def test_what_memory_did_not_allow_is_told() -> None:
    """A plan with fewer conversations than usual says what it would have been, and why."""
    limit = planned(Asked(max_parallel=1)).need.total_bytes
    fewer = planned(Asked(limit_bytes=limit))
    assert 1 < fewer.parallel < DEFAULT_PARALLEL
    assert "not 16 at once and 32 slots" in told(fewer, "parallel")
    assert "memory is short" in told(fewer, "cells")


@given(
    free=st.integers(0, 12 * GIB),
    more=st.integers(0, 2 * GIB),
    asked=st.builds(
        Asked,
        context_tokens=st.none() | st.integers(8, 40_000),
        max_parallel=st.none() | st.integers(1, 300),
        cache_type=st.sampled_from(CACHE_TYPES),
    ),
    facts=st.sampled_from([{}, WINDOWS, STATES, {"weight_bytes": SMALL}]),
)
def test_a_plan_never_exceeds_the_limit(
    free: int, more: int, asked: Asked, facts: dict[str, Any]
) -> None:
    """A plan fits, keeps what was asked, and with more memory is never a worse one."""
    context, parallel = asked.context_tokens, asked.max_parallel
    try:
        plan = planned(asked, free=free, **facts)
    except ModelTooLarge as error:
        assert error.needed_bytes > error.limit_bytes == free  # noqa: PT017 - a law of both ways
        return
    assert sum(plan.need.parts.values()) == plan.need.total_bytes <= plan.limit_bytes == free
    assert context in (None, plan.context_tokens)
    assert 1 <= plan.parallel <= min(plan.slots, plan.batch_tokens, parallel or DEFAULT_PARALLEL)
    assert plan.slots <= MAX_SLOTS
    assert plan.batch_tokens <= plan.cells
    assert plan.cells >= plan.context_tokens
    assert plan.cells == plan.context_tokens or plan.cells % CELLS_STEP == 0
    assert rank(planned(asked, free=free + more, **facts)) >= rank(plan)


# -- the processor -----------------------------------------------------------------------------


def test_large_models_read_prompts_in_smaller_batches() -> None:
    """Over a GiB of weights, a batch is a quarter, and never more than there are cells."""
    assert planned(weight_bytes=SMALL).batch_tokens == BATCH_TOKENS
    assert planned().batch_tokens == SMALL_BATCH_TOKENS
    assert "seconds" in told(planned(), "batch")
    assert planned(Asked(context_tokens=40, max_parallel=1)).batch_tokens == 40


def test_threads_follow_the_processors() -> None:
    """All that can work at once, or as many as asked for, and one for the smallest models."""
    assert planned().threads == 8
    assert planned(Asked(max_threads=3)).threads == 3
    assert planned(Asked(max_threads=100)).threads == 8
    tiny = planned(Asked(max_threads=4), weight_bytes=ONE_THREAD_BYTES // 2)
    assert tiny.threads == 1
    assert "so small" in told(tiny, "threads")


def test_a_file_is_read_where_mapping_would_hold_it_twice() -> None:
    """Weights that the processor wants in another order are read, and others are mapped."""
    machine = Machine(available_bytes=64 * GIB, repacked=("Q4_0",))
    plan = choose(large_header(), Asked(), machine)
    assert not plan.mapped
    assert plan.need.weights == large_header().weight_bytes
    assert "twice" in told(plan, "file")
    assert planned().mapped


# -- what is shown -----------------------------------------------------------------------------


def test_the_table_holds_every_number_and_note() -> None:
    """Parts, total, limit, rest, choices and reasons are all there, in lines of some length."""
    plan = planned(Asked(limit_bytes=6 * GIB))
    lines = plan.table().splitlines()
    rows = {line.split()[0]: line for line in lines if line and line[0] not in " -"}
    for name, size in [*plan.need.parts.items(), ("total", plan.need.total_bytes)]:
        assert (name in rows) == (size > 0)
        assert not size or f"{size / MIB:,.1f}" in rows[name]
    assert "6,144.0" in rows["limit"]
    assert f"{(6 * GIB - plan.need.total_bytes) / MIB:,.1f}" in rows["free"]
    assert f"{plan.context_tokens:,}" in rows["context"]
    for note in plan.notes:
        assert f"- {note}" in lines
    assert max(map(len, lines)) <= 110
