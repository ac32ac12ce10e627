"""The law of batching: a request gets the reply that it gets alone, whatever is beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from exact_gguf import EMBEDDED, exact_model
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from llama_cpp import llama_cpp as lib
from stepped import Stepped, pieces_of, text_of
from tiny_gguf import tiny_model

from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.message import user
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.models.sampling import Sampling

ROUNDING = 1e-4
"""How far log-probabilities may differ in F32: ten times what was seen."""

NEAR = 4.0
"""Another token as near as this, in logits, may be drawn where a cache is rounded: more than was
seen."""

GREEDY = Sampling(temperature=0)
ALONE = Sampling(temperature=0, seed=0)
"""With a seed, a request that is alone is served as by an engine that has served nothing."""

STORY = "Once upon a time there was a small model that lived in a file. "
QUESTIONS = [
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is 12 plus 7?",
    "Who are you?",
    "How do I use my own model?",
    "Tell me about the weather on Mars",
    "naïve café — 日本語 😀",
]
FOREIGN = [
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "SELECT name, price FROM vendors WHERE price <",
    "Что умеет эта программа?",
    "0123456789" * 20,
    "((((((((((((((((((((",
    "It was a dark and stormy night, and the rain fell in torrents,",
    "The quick brown fox jumps over the lazy dog. " * 4,
]
"""Nothing that the model was taught: its next tokens are guesses, and near each other."""

REQUESTS = [
    *(Request(messages=(user(question),), sampling=GREEDY) for question in QUESTIONS),
    *(Request(prompt=STORY * count, sampling=GREEDY) for count in (1, 3, 6, 12)),
    Request(prompt=STORY * 6 + "It knew", sampling=GREEDY),
    Request(messages=(user(STORY * 8 + QUESTIONS[0]),), sampling=GREEDY),
    Request(messages=(user(QUESTIONS[0]),), prefill="The capital", sampling=GREEDY),
]


@attrs.frozen
class Job:
    """When a request comes and goes."""

    request: int
    """Which of REQUESTS."""
    max_tokens: int
    arrives: int
    """Before which step."""
    cancelled: int | None
    """Before which step, if it is."""
    priority: int
    n: int
    deadline_s: float | None


JOBS = st.lists(
    st.builds(
        Job,
        request=st.integers(0, len(REQUESTS) - 1),
        max_tokens=st.integers(1, 60),
        arrives=st.integers(0, 60),
        cancelled=st.none() | st.none() | st.integers(0, 90),
        priority=st.sampled_from([0, 0, 0, 5, -5]),
        n=st.sampled_from([1, 1, 1, 3]),
        deadline_s=st.none() | st.floats(100, 1000),
    ),
    min_size=1,
    max_size=14,
)

ENGINES = st.fixed_dictionaries(
    {
        "parallel": st.integers(1, 6),
        "cells": st.sampled_from([512, 768, 1536]),
        "batch_tokens": st.sampled_from([16, 64, 256]),
        "slots": st.sampled_from([7, 12]),
        "keep_cells": st.sampled_from([0, 300, 2**31]),
    }
)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in F32."""
    return exact_model(tmp_path_factory.mktemp("models") / "exact.gguf")


Told = list[tuple[bytes, float]]
"""The tokens that were drawn, with the logarithms of their probabilities."""

Alone = Callable[[int, int], tuple[str, Told]]


@pytest.fixture(scope="module")
def alone(exact: Path) -> Iterator[Alone]:
    """Serve a request by itself, each once."""
    engine = Stepped(exact, parallel=1)
    known: dict[tuple[int, int], tuple[str, Told]] = {}

    def ask(index: int, max_tokens: int) -> tuple[str, Told]:
        if (index, max_tokens) not in known:
            request = attrs.evolve(REQUESTS[index], max_tokens=max_tokens, sampling=ALONE)
            call = engine.submit(attrs.evolve(request, logprobs=0))
            engine.run()
            pieces = pieces_of(call)
            known[index, max_tokens] = text_of(pieces), told_of(pieces)
        return known[index, max_tokens]

    yield ask
    engine.close()


def serve(engine: Stepped, jobs: list[Job]) -> list[Any]:
    """Run all jobs to their ends, and look at the books of the cells after every step."""
    calls: list[Any] = [None] * len(jobs)
    for number in range(100_000):
        for index, job in enumerate(jobs):
            if job.arrives == number:
                calls[index] = engine.submit(request_of(job))
            if job.cancelled == number and calls[index] is not None:
                calls[index].cancel()
        busy = engine.loop.step()
        check_cells(engine)
        if not busy and number > 90:
            return calls
    raise AssertionError("the engine does not come to an end")


def request_of(job: Job) -> Request:
    """Make the request of a job."""
    request = attrs.evolve(
        REQUESTS[job.request],
        max_tokens=job.max_tokens,
        priority=job.priority,
        n=job.n,
        logprobs=0,
    )
    if job.deadline_s is None:
        return request
    return Request.of(request, deadlines=Deadlines(total_s=job.deadline_s))


def check_cells(engine: Stepped) -> None:
    """No cell is owned twice, none is lost, and llama.cpp holds what the books say."""
    cells = engine.loop._scheduler._cells
    held = list(cells.slots())
    assert cells.free + sum(slot.owned for slot in held) == engine.backend.cells
    assert all(0 <= slot.shared <= slot.count for slot in held)
    memory = engine.backend._memory
    for number in range(engine.backend.slots):
        count = next((slot.count for slot in held if slot.number == number), 0)
        assert lib.llama_memory_seq_pos_max(memory, number) == count - 1


@settings(
    max_examples=settings().max_examples * 3 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(jobs=JOBS, fields=ENGINES)
def test_batched_is_one_at_a_time(
    exact: Path, alone: Alone, jobs: list[Job], fields: dict[str, Any]
) -> None:
    """For any arrivals, lengths, cancels, priorities and sizes: greedy replies are equal.

    Token for token, with weights and cache in F32, and probabilities to a few millionths; every
    request ends, and no cell is owned twice.
    """
    engine = Stepped(exact, **fields)
    try:
        calls = serve(engine, jobs)
        assert not engine.loop._scheduler.running
        assert not len(engine.loop._scheduler.waiting)
        for job, call in zip(jobs, calls, strict=True):
            check_reply(job, call, alone(job.request, job.max_tokens))
    finally:
        engine.close()


def check_reply(job: Job, call: Any, expected: tuple[str, Told]) -> None:
    """A call ended as it should, with what it would have been told alone."""
    pieces: list[Piece] = []
    try:
        pieces = pieces_of(call)
    except Cancelled:
        assert job.cancelled is not None
        return
    note(f"{job}: {pieces}")
    finish = pieces[-1]
    assert isinstance(finish, Finish)
    assert 1 + len(finish.others) == job.n
    text, told = expected
    for index in range(job.n):
        assert text_of(pieces, index) == text
        mine = told_of(pieces, index)
        assert [token for token, _ in mine] == [token for token, _ in told]
        assert [logprob for _, logprob in mine] == pytest.approx(
            [logprob for _, logprob in told], abs=ROUNDING
        )


def told_of(pieces: list[Piece], index: int = 0) -> Told:
    """List the tokens of one reply with their log-probabilities."""
    deltas = [piece for piece in pieces if isinstance(piece, Delta) and piece.index == index]
    return [(told.data, told.logprob) for delta in deltas for told in delta.logprobs]


def test_more_conversations_than_cells_all_end(tmp_path: Path) -> None:
    """Replies that outgrow what was reserved for them are preempted and go on, none fails."""
    path = tiny_model(tmp_path / "long.gguf", vocab=600, context=512)
    requests = [
        Request(prompt=f"{index} and so on", max_tokens=400, sampling=GREEDY) for index in range(6)
    ]
    engine = Stepped(path, parallel=6, cells=768, batch_tokens=64)
    preempted: list[int] = []
    preempt = engine.loop._scheduler.preempt

    def counted() -> None:
        preempted.append(1)
        preempt()

    engine.loop._scheduler.preempt = counted  # type: ignore[method-assign]
    try:
        calls = [engine.submit(request) for request in requests]
        engine.run()
        together = [text_of(pieces_of(call)) for call in calls]
        alone = [engine.ask(request) for request in requests]
    finally:
        engine.close()

    assert preempted
    assert together == alone


@pytest.mark.parametrize("cache_type", ["q8_0", "f16"])
def test_answers_that_were_taught_are_the_same_with_a_cache_that_is_rounded(
    cache_type: str,
) -> None:
    """With the quantised file, whatever is beside them; and every request ends.

    Such caches are summed in the order in which cells lie, or rounded to a step, and the last bit
    of what is rounded decides which: that depends on who shares a step, and so on how many of the
    requests were read before it (``PREPARE_S``). For a prompt that is foreign to a small model it
    moved logits by 3.6. Where the model was taught what to say no other token is near; where one is
    near after all, the reply is the same until there. The law in F32 has no such exceptions.
    """
    prompts = [*REQUESTS, *(Request(prompt=text, sampling=GREEDY) for text in FOREIGN)]
    requests = [attrs.evolve(request, max_tokens=60, logprobs=2) for request in prompts]
    engine = Stepped(EMBEDDED, parallel=6, cells=1536, cache_type=cache_type)
    try:
        lonely = []
        for request in requests:
            call = engine.submit(attrs.evolve(request, sampling=ALONE))
            engine.run()
            lonely.append(pieces_of(call))
        calls = [engine.submit(request) for request in [*requests, *requests[::-1]]]
        engine.run()
        batched = [drawn(pieces_of(call)) for call in calls]
    finally:
        engine.close()

    changed = whole = 0
    twice = zip([*requests, *requests[::-1]], batched, [*lonely, *lonely[::-1]], strict=True)
    for request, told, pieces in twice:
        expected, count = drawn(pieces), sure(pieces)
        changed += told != expected
        if any(message.text in QUESTIONS for message in request.messages):
            whole += count == len(expected)
            assert told == expected if count == len(expected) else told[:count] == expected[:count]
    assert whole >= len(QUESTIONS), "few replies are sure: most of the law was not looked at"
    print(f"{cache_type}: {changed} of {len(batched)} changed")  # noqa: T201 - to be seen


def drawn(pieces: list[Piece]) -> list[bytes]:
    """List the tokens that were drawn."""
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    return [told.data for delta in deltas for told in delta.logprobs]


def sure(pieces: list[Piece]) -> int:
    """Count the tokens before the first that another one was near to."""
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    first_two = [told.top[:2] for delta in deltas for told in delta.logprobs]
    near = (place for place, (a, b) in enumerate(first_two) if a.logprob - b.logprob < NEAR)
    return next(near, len(first_two))
