"""What crosses between a program and its worker comes out as it went in, or is refused."""

from __future__ import annotations

import json
import os
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import (
    Deadlines,
    EmbedRequest,
    Image,
    LlamaCpp,
    Message,
    Request,
    RerankRequest,
    ResponseFormat,
    Sampling,
    Text,
    ToolCall,
    ToolSpec,
)
from llmdispatcher.models import errors
from llmdispatcher.models.embedding import Score, Vector, Work
from llmdispatcher.models.errors import BadRequest, DispatcherError
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    Saved,
    TokenLogprob,
    Usage,
)
from llmdispatcher.vendors.llamacpp.worker import codec, ends
from llmdispatcher.vendors.llamacpp.worker.link import Gone, Link

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(0, 2**31 - 1)
usages = st.builds(
    Usage,
    prompt_tokens=numbers,
    completion_tokens=numbers,
    cached_tokens=st.just(0),
    reasoning_tokens=st.just(0),
)
logprobs = st.builds(
    TokenLogprob, words, st.binary(max_size=9), st.floats(max_value=0, allow_nan=False)
)
pieces = st.one_of(
    st.builds(Delta, words),
    st.builds(
        Delta,
        words,
        st.integers(0, 63),
        st.tuples(logprobs),
        words,
        st.tuples(st.builds(CallDelta, st.integers(0, 9), words, words, words)),
    ),
    st.builds(Progress, st.sampled_from(["prompt", "queued"]), numbers, numbers),
    st.builds(
        Finish,
        st.sampled_from(FinishReason),
        usages,
        st.tuples(words),
        st.tuples(st.sampled_from(FinishReason)),
    ),
    st.builds(Score, st.integers(0, 99), st.floats(allow_nan=False)),
    st.builds(
        lambda index, values: Vector(index, array("f", values)),
        st.integers(0, 99),
        st.lists(st.floats(width=32, allow_nan=False), max_size=8),
    ),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.tuples(st.builds(Text, words), st.builds(Image, st.binary(min_size=1, max_size=40))),
    st.tuples(st.builds(ToolCall, words, words, words)),
    st.none() | words,
    words,
)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 100),
    top_k=st.none() | st.integers(0, 100),
    seed=st.none() | st.integers(0, 2**31),
)
requests = st.builds(
    Request,
    messages=st.lists(messages, min_size=1, max_size=3),
    max_tokens=st.none() | st.integers(1, 99),
    stop=st.lists(words.filter(bool), max_size=3),
    sampling=samplings,
    tools=st.sampled_from([(), (ToolSpec("add", "Adds.", {"type": "object"}),)]),
    response_format=st.sampled_from(
        [None, ResponseFormat("json"), ResponseFormat.of({"type": "array", "items": {}})]
    ),
    deadlines=st.none() | st.builds(Deadlines, total_s=st.none() | st.floats(0, 1e9)),
    logprobs=st.none() | st.integers(0, 20),
    prefill=words,
    reasoning=st.none() | st.booleans(),
    adapters=st.dictionaries(words, st.floats(-100, 100), max_size=3),
    priority=st.integers(-100, 100),
)
works = st.one_of(
    requests,
    st.builds(Request, prompt=words, suffix=words),
    st.builds(EmbedRequest, texts=st.lists(words, min_size=1), normalize=st.booleans()),
    st.builds(RerankRequest, query=words, documents=st.lists(words, min_size=1)),
)


def through(message: list[Any]) -> list[Any]:
    """Send a message through bytes."""
    return codec.decode(codec.encode(message))


@given(works)
def test_requests_come_out_as_they_went_in(work: Work) -> None:
    """Whatever a caller may ask for."""
    _, kind, values = through(["work", *codec.work_out(work)])

    assert codec.work_in(kind, values) == work


@given(pieces)
def test_pieces_come_out_as_they_went_in(piece: Piece) -> None:
    """Text, thoughts, calls, log-probabilities, vectors and scores, to the last bit."""
    _, values = through(["piece", codec.piece_out(piece)])

    assert codec.piece_in(values) == piece


ERRORS = [
    errors.BadRequest("field", object(), "something else"),
    errors.ContextOverflow(9, 5, vendor="v", model="m"),
    errors.Unsupported("images", "no images here"),
    errors.InvalidGrammar("no"),
    errors.LimitReached("full", retry_after_s=2.5),
    errors.NoCandidate({"a/b": "why not"}),
    errors.TimedOut("load", 3.0),
    errors.EngineCrashed("dead", signal=6, tail="last words"),
    errors.ModelTooLarge("big", needed_bytes=9, limit_bytes=5, parts={"weights": 7}),
    errors.StreamInterrupted("cut", partial="half"),
    errors.StateUnusable("no", path="p", part="size"),
    errors.CorruptModel("broken", path="p"),
    errors.Cancelled(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_come_out_as_they_went_in(error: DispatcherError) -> None:
    """Class, words and facts; a value that JSON cannot hold is told as it shows itself."""
    _, values = through(["error", codec.error_out(error)])

    made = codec.error_in(values)

    assert type(made) is type(error)
    assert str(made) == str(error)
    facts = {k: repr(v) if k == "value" else v for k, v in vars(error).items()}
    assert vars(made) == facts


def test_what_is_loaded_comes_out_as_it_went_in() -> None:
    """All that a load looks at; what a token costs is the parent's alone to know."""
    spec = LlamaCpp("m.gguf", max_memory_mb=9, adapters={"a": "b.gguf"}, worker_command=["x"])

    _, values = through(["spec", codec.spec_out(spec)])

    assert codec.spec_in(values) == spec


def test_the_account_of_a_state_comes_out_as_it_went_in() -> None:
    """Who saved how much."""
    saved = Saved(vendor="v", model="m", tokens=3, size_bytes=4)

    assert codec.saved_in(through(["s", codec.saved_out(saved)])[1]) == saved


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(json_values)
def test_whatever_a_worker_says_is_a_value_or_garbled(values: Any) -> None:
    """A worker that went wild ends in one error, wherever its message goes."""
    for read in (codec.piece_in, codec.error_in, codec.usage_in, codec.saved_in, codec.spec_in):
        try:
            read(values)
        except codec.Garbled:
            continue


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_garbled(data: bytes) -> None:
    """Nothing else than Garbled is raised for them."""
    try:
        message = codec.decode(data)
    except codec.Garbled:
        return
    assert isinstance(message[0], str)


@pytest.mark.parametrize("depth", [100_000])
def test_depth_is_garbled(depth: int) -> None:
    """Brackets without end do not end this process."""
    with pytest.raises(codec.Garbled):
        codec.decode(b"[" * depth)


def test_a_worker_sets_no_other_attributes() -> None:
    """An error from outside carries the facts that errors have, and nothing else."""
    with pytest.raises(codec.Garbled):
        codec.error_in(["EngineCrashed", ["x"], {"__class__": "y"}])
    with pytest.raises(codec.Garbled):
        codec.error_in(["SystemExit", ["x"], {}])


def test_what_json_cannot_hold_is_refused_by_name() -> None:
    """A schema with a value of Python's own is the caller's mistake."""
    work = Request.of("x", schema={"type": "object", "default": {1, 2}})

    with pytest.raises(BadRequest, match="JSON"):
        codec.encode(["work", *codec.work_out(work)])


def test_a_peer_that_is_gone_is_told_from_one_that_talks_nonsense() -> None:
    """Both ends of the line end without hanging."""
    ours, theirs = ends.pair()
    one, end = Link(ours), ends.inherited(os.dup(theirs.fileno()))
    theirs.close()
    other = Link(end)
    other.send(["a", 1])
    assert one.receive() == ["a", 1]
    end.send(json.dumps({"not": "a list"}).encode())
    with pytest.raises(codec.Garbled):
        one.receive()

    other.close()

    with pytest.raises(Gone):
        one.receive()
    with pytest.raises(Gone):
        one.send(["x"])
    one.close()
