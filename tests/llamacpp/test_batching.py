"""What a request can ask of the batching engine, through the public API and on real models."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from decodes import Decodes
from exact_gguf import exact_model
from leaks import growth_bytes
from stepped import Stepped, ending, pieces_of, text_of
from waits import WAIT_S, until

from llmdispatcher import Deadlines, Dispatcher, LlamaCpp, Request, Sampling, user
from llmdispatcher.models.reply import Delta, Finish
from llmdispatcher.vendors.llamacpp.engine import pace
from llmdispatcher.vendors.llamacpp.vendor import embedded

GREEDY = Sampling(temperature=0)

MIB = 2**20
GROWTH_MIB = 4
"""Resident memory may grow by this much: allocator's noise. One leaked kilobyte a request would be
ten times as much in the long run."""

STORY = "Once upon a time there was a small model that lived in a file. "


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in F32."""
    return exact_model(tmp_path_factory.mktemp("models") / "exact.gguf")


@pytest.fixture
def engine(exact: Path) -> Iterator[Stepped]:
    """An engine that is stepped by hand."""
    made = Stepped(exact, parallel=8, cells=2048, slots=16)
    yield made
    made.close()


def test_each_of_several_replies_has_its_own_seed(engine: Stepped) -> None:
    """Reply number i is the one that a request with the seed plus i gets."""
    # between two tokens almost by a coin, or replies of a model that is sure would all be the same
    sampling = Sampling(temperature=100, top_k=2, top_p=1, min_p=0, seed=41)
    request = Request(prompt=STORY * 4, max_tokens=20, n=4, sampling=sampling)

    call = engine.submit(request)
    engine.run()
    pieces = pieces_of(call)

    for index in range(4):
        one = Request.of(request, n=1, seed=41 + index)
        assert text_of(pieces, index) == engine.ask(one)
    assert len({text_of(pieces, index) for index in range(4)}) > 1


def test_several_replies_read_their_prompt_once(engine: Stepped) -> None:
    """The prompt is counted, and decoded, once; every reply ends with its own reason."""
    request = Request(prompt=STORY * 12, max_tokens=3, n=8, sampling=GREEDY)
    read: list[int] = []
    decode = engine.backend.decode

    def counted(chunks: list) -> None:  # type: ignore[type-arg]
        read.append(sum(len(chunk.tokens) for chunk in chunks))
        decode(chunks)

    engine.backend.decode = counted  # type: ignore[method-assign, assignment]
    call = engine.submit(request)
    engine.run()
    read_tokens, finish = sum(read), pieces_of(call)[-1]
    one = engine.submit(Request.of(request, n=1))
    engine.run()
    alone = pieces_of(one)[-1]

    assert isinstance(finish, Finish)
    assert isinstance(alone, Finish)
    assert (finish.reason, finish.others) == (alone.reason, (alone.reason,) * 7)
    assert finish.usage.completion_tokens == 8 * alone.usage.completion_tokens
    assert read_tokens <= finish.usage.prompt_tokens + 8 * 3


def test_cancelling_one_request_cancels_all_its_replies(engine: Stepped) -> None:
    """None of them runs on, and the others' cells are there again."""
    call = engine.submit(Request(prompt=STORY, max_tokens=300, n=8))
    other = engine.submit(Request(prompt="The", max_tokens=5, sampling=GREEDY))
    for _ in range(5):
        engine.loop.step()

    call.cancel()
    engine.run()

    assert not engine.loop._scheduler.running
    assert isinstance(ending(other), Finish)
    assert engine.inbox.counts() == (0, 0)


def test_log_probabilities_are_those_of_the_model(engine: Stepped) -> None:
    """They are logarithms of a distribution, the likeliest first, whatever sampling does to it."""
    request = Request(prompt=STORY, max_tokens=20, logprobs=5)
    greedy = engine.submit(Request.of(request, temperature=0))
    drawn = engine.submit(Request.of(request, temperature=2.0, top_k=0, seed=3))
    engine.run()

    for call in (greedy, drawn):
        told = [t for p in pieces_of(call) if isinstance(p, Delta) for t in p.logprobs]
        assert len(told) == call.usage().completion_tokens or told[-1].data == b""
        for token in told:
            ranks = [other.logprob for other in token.top]
            assert len(ranks) == 5
            assert ranks == sorted(ranks, reverse=True)
            assert sum(map(math.exp, ranks)) <= 1 + 1e-6
            assert token.logprob <= ranks[0]
            assert (token.logprob == ranks[0]) or call is drawn


def test_log_probabilities_spell_the_reply() -> None:
    """The bytes of the tokens, put together, are the text."""
    with Dispatcher(embedded()) as d:
        reply = d.send("What is the capital of France?", logprobs=0, temperature=0)

    assert b"".join(told.data for told in reply.logprobs).decode() == reply.text
    assert all(told.top == () for told in reply.logprobs)


def test_all_tokens_together_are_certain(engine: Stepped) -> None:
    """Over the whole vocabulary the probabilities sum to one."""
    call = engine.submit(Request(prompt=STORY, max_tokens=1, sampling=GREEDY))
    engine.run()
    assert ending(call)
    size = engine.backend.vocabulary.size

    _, likeliest = engine.backend.logprobs(0, 5, size)

    assert len(likeliest) == size
    assert sum(math.exp(logprob) for _, logprob in likeliest) == pytest.approx(1)


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "Who are you?", "What is 12 plus 7?"]
)
def test_a_partial_answer_is_continued_exactly(engine: Stepped, question: str) -> None:
    """From wherever it is cut between tokens, the rest is the rest of the whole answer."""
    request = Request(messages=(user(question),), max_tokens=120, sampling=GREEDY)
    call = engine.submit(Request.of(request, logprobs=0))
    engine.run()
    deltas = [piece for piece in pieces_of(call) if isinstance(piece, Delta)]
    whole = "".join(delta.text for delta in deltas)
    cuts = [len("".join(d.text for d in deltas[:count])) for count in range(len(deltas))]

    for cut in cuts:
        rest = engine.ask(Request.of(request, prefill=whole[:cut]))
        assert whole[:cut] + rest == whole


def test_a_beginning_is_kept_to_the_last_space(engine: Stepped) -> None:
    """Nothing is stripped from a given beginning, and nothing of it is repeated."""
    request = Request(messages=(user("Who are you?"),), max_tokens=1, sampling=GREEDY)
    sizes = []
    for prefill in ("I am", "I am ", "I am  ", "I am\n\n"):
        call = engine.submit(Request.of(request, prefill=prefill))
        engine.run()
        sizes.append(call.usage().prompt_tokens)
        text = engine.backend.vocabulary.piece
        prompt = engine.loop._prompts.read(Request.of(request, prefill=prefill))
        tail = b"".join(map(text, prompt.tokens))
        assert tail.endswith(prefill.encode())

    assert len(set(sizes)) > 1


@pytest.fixture
def _read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have prompts read in one step, however long the steps before it were held up."""
    monkeypatch.setattr(pace, "TARGET_S", 1e9)


def served(path: Path, decodes: Decodes, asked: Sequence[dict[str, Any]]) -> list[int]:
    """Ask a model that is busy, one request after the other; returns the order they are read in."""
    with (
        Dispatcher(LlamaCpp(path, max_threads=1, max_parallel=1, isolation="thread")) as d,
        ThreadPoolExecutor(len(asked)) as pool,
    ):
        blocker = d.stream(Request(prompt="Once", max_tokens=3000))
        next(blocker)
        decodes.hold()  # or it might be over before all have come
        replies = []
        try:
            for number, options in enumerate(asked):
                prompt = "abcdef"[number] * (10 + 10 * number)  # each is known by its length
                replies.append(pool.submit(d.send, Request(prompt=prompt), max_tokens=2, **options))
                until(lambda: d.vendors()[0].status.waiting == len(replies))
            for _ in range(len(asked) + 2):  # each step reads at least one
                decodes.step()
        finally:  # or the pool waits for them for ever
            blocker.close()
            decodes.go_on()
        sizes = [reply.result(WAIT_S).usage.prompt_tokens for reply in replies]
    assert len({*sizes}) == len(asked)
    read = [part.end for step in decodes.begun for part in step if part.reads]
    return [sizes.index(end) for end in read if end in sizes]


@pytest.mark.usefixtures("_read_whole")
def test_the_more_important_is_served_first(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that wait for a model, priority decides, and then who comes first."""
    asked = [{"priority": priority} for priority in (-1, 0, 0, 9)]

    assert served(slow_model, Decodes(monkeypatch), asked) == [3, 1, 2, 0]


@pytest.mark.usefixtures("_read_whole")
def test_who_has_less_time_is_served_first(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among equals, the nearer deadline goes first."""
    asked = [{"deadlines": Deadlines(total_s=total_s)} for total_s in (None, 5000.0, 600.0)]

    assert served(slow_model, Decodes(monkeypatch), asked) == [2, 1, 0]


def test_a_cancel_beside_others_stops_at_the_end_of_the_step(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long prompt that is given up beside running streams is read no further."""
    decodes = Decodes(monkeypatch)
    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
        streams = [d.stream(Request(prompt=f"{i}", max_tokens=3000)) for i in range(3)]
        for stream in streams:
            next(stream)
        decodes.hold()
        count = len(decodes.begun)
        until(lambda: len(decodes.begun) > count)  # one that was under way is not held up
        long = d.stream(Request(prompt="word " * 700, max_tokens=5))
        with ThreadPoolExecutor(1) as pool, closing(long):  # the pool waits for it
            reading = pool.submit(list, long)
            until(lambda: d.vendors()[0].status.waiting)
            # until its prompt is being read, not only until it is let in: a step that is already
            # planned when it is given up would still read it
            while not any(begun.reads for begun in decodes.begun[-1]):
                decodes.step()
            assert d.vendors()[0].status.running == 4
            long.close()
            assert reading.result(WAIT_S) == []
        decodes.step()
        assert d.vendors()[0].status.running == 3
        assert not any(begun.reads for begun in decodes.begun[-1])
        decodes.go_on()
        for stream in streams:
            next(stream)
            stream.close()


def test_a_long_prompt_does_not_silence_running_streams(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one request reads thousands of tokens, the others go on, with every part of it."""
    decodes = Decodes(monkeypatch)
    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
        stream = d.stream(Request(prompt="Once", max_tokens=3000))
        next(stream)
        long = threading.Thread(
            target=d.send, args=(Request(prompt="word " * 700, max_tokens=1),), daemon=True
        )
        decodes.begun.clear()
        long.start()
        while long.is_alive():
            next(stream)
        stream.close()

    parts = [step for step in decodes.begun if any(begun.reads for begun in step)]
    assert len(parts) > 1
    assert {len(part) for part in parts} == {2}


@pytest.mark.parametrize(
    "count", [pytest.param(400), pytest.param(10_000, marks=pytest.mark.soak)], ids=str
)
def test_many_short_requests_leave_memory_flat(small_model: Path, count: int) -> None:
    """Thousands of requests, many at a time, with log-probabilities, stops and cancels."""
    limit = GROWTH_MIB * MIB
    with Dispatcher(LlamaCpp(small_model, max_threads=1, isolation="thread")) as d:

        def ask(index: int) -> None:
            request = Request(
                prompt=f"{index} " * (1 + index % 40),
                max_tokens=1 + index % 5,
                stop=("zz",),
                logprobs=2 if index % 7 == 0 else None,
                n=1 + (index % 11 == 0),
            )
            if index % 13 == 0:
                with d.stream(request):
                    pass
            else:
                d.send(request)

        with ThreadPoolExecutor(16) as pool:

            def ask_many(turn: int) -> None:
                list(pool.map(ask, range(200 * turn, 200 * turn + 200)))

            for turn in range(3):
                ask_many(turn)
            grown = growth_bytes(ask_many, count // 200, limit)

        assert d.stats().in_flight == 0
    assert grown < limit
