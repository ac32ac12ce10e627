"""Filling in what is between two texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import tiny_model

from llmdispatcher import BadRequest, Capability, Dispatcher, LlamaCpp, NoCandidate, Request
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import vocabulary_of
from llmdispatcher.vendors.llamacpp.files import gguf

FIM = {
    f"tokenizer.ggml.fim_{name}_token_id": 290 + at for at, name in enumerate(("pre", "suf", "mid"))
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose file names its tokens for filling in."""
    return tiny_model(tmp_path / "fim.gguf", metadata=FIM)


def test_prefix_and_suffix_lie_around_their_marks(model: Path) -> None:
    """The order is that of the models' training: before, after, and then what is between."""
    with vocabulary_of(model) as vocabulary:
        tokens = vocabulary.infill("ab", "c<s>")

        text = b"".join(vocabulary.piece(token) for token in tokens if token not in FIM.values())
        assert [token for token in tokens if token in FIM.values()] == [290, 291, 292]
        assert (tokens[1], tokens[-1]) == (290, 292)
        assert tokens[0] == lib.llama_vocab_bos(vocabulary.pointer)
        assert text.strip() == b"ab c<s>", "a mark in the text is text"


def test_a_model_fills_in(model: Path) -> None:
    """A prompt with a suffix is served by a model that can."""
    with Dispatcher(LlamaCpp(model, max_threads=1, isolation="thread")) as d:
        reply = d.send(Request(prompt="def f(", suffix="):\n", max_tokens=4), temperature=0)

    assert reply.usage.completion_tokens == 4


def test_a_model_that_cannot_fill_in_is_not_asked(tmp_path: Path) -> None:
    """The card is made from the header, so that nothing is loaded in vain."""
    plain = tiny_model(tmp_path / "plain.gguf")

    assert not gguf.read_header(plain).fills_in
    with (
        Dispatcher(LlamaCpp(plain, isolation="thread")) as d,
        pytest.raises(NoCandidate, match="cannot do infill"),
    ):
        d.send(Request(prompt="a", suffix="b"))


def test_the_tokens_are_found_by_their_usual_names(tmp_path: Path) -> None:
    """A file need not name them: llama.cpp finds them by their text, and so does the card."""
    path = tiny_model(
        tmp_path / "named.gguf",
        control={290: "<|fim_prefix|>", 291: "<|fim_suffix|>", 292: "<|fim_middle|>"},
    )

    assert gguf.read_header(path).fills_in
    assert (
        Capability.INFILL
        in LlamaCpp(path, isolation="thread").start(lambda _: None).cards()[0].capabilities
    )
    with vocabulary_of(path) as vocabulary:
        assert vocabulary.infill("", "")[1:] == [290, 291, 292]


def test_messages_have_no_suffix() -> None:
    """A suffix belongs to a prompt."""
    with pytest.raises(BadRequest, match="suffix"):
        Request.of("hi", suffix="x")
