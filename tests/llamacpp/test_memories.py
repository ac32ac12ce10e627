"""Models that do not keep a cell for every token: windows that slide, states, and both together.

All are generated with random weights in F32. Whatever their memory can share, replies are those
that a request gets alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stepped import Stepped, pieces_of, text_of
from tiny_gguf import tiny_model

from llmdispatcher import Dispatcher, LlamaCpp
from llmdispatcher.models.reply import Delta
from llmdispatcher.models.request import Request
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.engine.backend import Sharing

GREEDY = Sampling(temperature=0)
WINDOW = 48

CLOSE = 3e-3
"""How far log-probabilities may be apart that differ only in how steps were cut: ggml looks the
GELU of models with windows up in a table of 16-bit floats, whose last bit moved some by 3e-4."""


def windowed(path: Path) -> Path:
    """Every second layer sees a window."""
    norms = ("post_attention_norm", "post_ffw_norm")
    extra = {f"blk.{i}.{name}.weight": (64,) for i in range(4) for name in norms}
    return tiny_model(
        path,
        architecture="gemma2",
        width=64,
        layers=4,
        vocab=600,
        context=2048,
        metadata={"gemma2.attention.sliding_window": WINDOW},
        extra={**extra, "output.weight": None},
    )


def recurrent(path: Path) -> Path:
    """A Mamba: every layer keeps a state."""
    inner, state, kernel, rank = 128, 8, 4, 4
    extra: dict[str, tuple[int, ...] | None] = {}
    for layer in range(2):
        unused = ["attn_q", "attn_k", "attn_v", "attn_output"]
        unused += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
        extra |= dict.fromkeys((f"blk.{layer}.{name}.weight" for name in unused), None)
        extra |= {
            f"blk.{layer}.ssm_in.weight": (2 * inner, 64),
            f"blk.{layer}.ssm_conv1d.weight": (inner, kernel),
            f"blk.{layer}.ssm_conv1d.bias": (inner,),
            f"blk.{layer}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt.weight": (inner, rank),
            f"blk.{layer}.ssm_dt.bias": (inner,),
            f"blk.{layer}.ssm_a": (inner, state),
            f"blk.{layer}.ssm_d": (inner,),
            f"blk.{layer}.ssm_out.weight": (64, inner),
        }
    sizes = {"conv_kernel": kernel, "inner_size": inner, "state_size": state}
    return tiny_model(
        path,
        architecture="mamba",
        width=64,
        heads=0,
        heads_kv=0,
        vocab=600,
        context=2048,
        metadata={
            **{f"mamba.ssm.{key}": value for key, value in sizes.items()},
            "mamba.ssm.time_step_rank": rank,
        },
        extra=extra,
        constant={"ssm_a": -0.1},
    )


def hybrid(path: Path) -> Path:
    """An LFM2: one layer keeps a state, the other attends."""
    attention = ("attn_q", "attn_k", "attn_v", "attn_output")
    extra: dict[str, tuple[int, ...] | None] = {
        **{f"blk.0.{name}.weight": None for name in attention},
        "blk.0.shortconv.conv.weight": (64, 3),
        "blk.0.shortconv.in_proj.weight": (3 * 64, 64),
        "blk.0.shortconv.out_proj.weight": (64, 64),
        "blk.1.attn_q_norm.weight": (16,),
        "blk.1.attn_k_norm.weight": (16,),
        "token_embd_norm.weight": (64,),
        "output_norm.weight": None,
    }
    return tiny_model(
        path,
        architecture="lfm2",
        width=64,
        vocab=600,
        context=2048,
        metadata={"lfm2.shortconv.l_cache": 3, "lfm2.attention.head_count_kv": [0, 2]},
        extra=extra,
    )


KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, object], Sharing]] = {
    "window, kept whole": (windowed, {}, Sharing.PREFIX),
    "window, slides": (windowed, {"full_window": False}, Sharing.NONE),
    "recurrent": (recurrent, {}, Sharing.WHOLE),
    "hybrid": (hybrid, {}, Sharing.WHOLE),
}

BEGINNING = "a long story that many requests begin with, longer than any window, and on it goes "
PROMPTS = [
    *(BEGINNING * 3 + f"number {i}" for i in range(4)),
    *(BEGINNING[: 20 * i] + "other" for i in range(4)),
    BEGINNING * 6,
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, object], Sharing]:
    """A model of each kind, how to open it, and what it can share."""
    make, fields, sharing = KINDS[request.param]
    return make(tmp_path / "m.gguf"), fields, sharing


def ask(index: int, limit: int = 30) -> Request:
    """Make a request."""
    return Request(prompt=PROMPTS[index], max_tokens=limit, sampling=GREEDY)


def opened(path: Path, fields: dict[str, object], *, parallel: int) -> Stepped:
    """Open a model for so many sequences at once."""
    slots = parallel if fields else parallel + 4
    settings: dict[str, Any] = {"context_tokens": 2048, "cells": 2048, "batch_tokens": 64}
    settings |= fields
    return Stepped(path, parallel=parallel, slots=slots, **settings)


def alone(path: Path, fields: dict[str, object], index: int) -> str:
    """Serve one request in an engine that has served nothing."""
    engine = opened(path, fields, parallel=1)
    try:
        return engine.ask(ask(index))
    finally:
        engine.close()


@pytest.mark.sampled(2)
def test_batched_is_one_at_a_time(kind: tuple[Path, dict[str, object], Sharing]) -> None:
    """Many at once and one after the other, warm and cold, give what each gives alone."""
    path, fields, sharing = kind
    expected = [alone(path, fields, index) for index in range(len(PROMPTS))]
    engine = opened(path, fields, parallel=5)
    assert engine.backend.sharing is sharing
    try:
        for _ in range(2):
            calls = [engine.submit(ask(index)) for index in range(len(PROMPTS))]
            engine.run()
            assert [text_of(pieces_of(call)) for call in calls] == expected
            assert [engine.ask(ask(index)) for index in range(len(PROMPTS))] == expected
    finally:
        engine.close()

    assert len(set(expected)) > len(expected) // 2, "replies differ, or this would show nothing"


def test_a_conversation_that_goes_on_is_read_once(
    kind: tuple[Path, dict[str, object], Sharing],
) -> None:
    """The next turn takes over all that there is, where anything can be taken over."""
    path, fields, sharing = kind
    engine = opened(path, fields, parallel=2)
    vocabulary = engine.backend.vocabulary
    try:
        first = engine.submit(Request(prompt=BEGINNING, max_tokens=1, sampling=GREEDY))
        engine.run()
        tokens = len(vocabulary.tokenize(BEGINNING))
        second = engine.submit(
            Request(prompt=BEGINNING + BEGINNING, max_tokens=20, sampling=GREEDY)
        )
        engine.run()
        text = text_of(pieces_of(second))
    finally:
        engine.close()
    fresh = opened(path, fields, parallel=1)
    cold = fresh.ask(Request(prompt=BEGINNING + BEGINNING, max_tokens=20, sampling=GREEDY))
    fresh.close()

    assert first.cached_tokens == 0
    assert second.cached_tokens == (0 if sharing is Sharing.NONE else tokens)
    assert text == cold


def test_a_cancelled_prompt_leaves_a_state_that_is_right(
    kind: tuple[Path, dict[str, object], Sharing],
) -> None:
    """What is asked after a cancel in the middle of a prompt gets its own reply."""
    path, fields, _ = kind
    expected = [alone(path, fields, index) for index in (8, 0)]
    engine = opened(path, fields, parallel=3)
    try:
        for steps in (1, 2, 3):
            calls = [engine.submit(ask(8)), engine.submit(ask(1))]
            for _ in range(steps):
                engine.loop.step()
            calls[0].cancel()
            engine.loop.step()
            calls[1].cancel()
            engine.run()
            assert [engine.ask(ask(8)), engine.ask(ask(0))] == expected
    finally:
        engine.close()


def logprobs_of(engine: Stepped, request: Request) -> list[float]:
    """Serve a request and list how likely its tokens were."""
    call = engine.submit(Request.of(request, logprobs=0))
    while call in engine.inbox.calls():
        engine.loop.step()
    deltas = [piece for piece in pieces_of(call) if isinstance(piece, Delta)]
    return [told.logprob for delta in deltas for told in delta.logprobs]


def test_an_interrupt_harms_nothing_that_is_kept(
    kind: tuple[Path, dict[str, object], Sharing],
) -> None:
    """A step that is interrupted leaves no trace in what others ask next, but for rounding."""
    path, fields, _ = kind
    asked = [ask(index, 12) for index in (0, 4, 8)]
    cold = []
    for request in asked:
        fresh = opened(path, fields, parallel=1)
        cold.append(logprobs_of(fresh, request))
        fresh.close()
    engine = opened(path, fields, parallel=4)
    decode = engine.backend.decode
    try:
        running = engine.submit(Request(prompt="Once", max_tokens=1500, sampling=GREEDY))
        engine.loop.step()
        for request in asked:
            logprobs_of(engine, Request.of(request, max_tokens=1))
        other = engine.submit(Request(prompt="another " * 30, max_tokens=5, sampling=GREEDY))

        def cancelled_at_once(chunks: Any) -> None:
            if len(chunks) == 2:
                running.cancel()
                other.cancel()
            decode(chunks)

        engine.backend.decode = cancelled_at_once  # type: ignore[method-assign]
        engine.run()
        del engine.backend.decode
        warm = [logprobs_of(engine, request) for request in asked]
    finally:
        engine.close()

    for found, expected in zip(warm, cold, strict=True):
        assert found == pytest.approx(expected, abs=CLOSE)


def test_each_kind_is_served_as_a_user_would_ask(
    kind: tuple[Path, dict[str, object], Sharing],
) -> None:
    """The whole way, plan included: a model without heads or cells answers like any other."""
    path, _, _ = kind
    with Dispatcher(LlamaCpp(path, context_tokens=512, max_threads=1, isolation="thread")) as d:
        first, again = (d.send(Request(prompt=BEGINNING), max_tokens=5, seed=1) for _ in range(2))

    assert first.usage.completion_tokens == again.usage.completion_tokens == 5
