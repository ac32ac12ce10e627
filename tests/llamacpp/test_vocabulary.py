"""The vocabulary of a file: text into tokens and back, without the model's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import sparse_model, tiny_model

from llmdispatcher import (
    BadRequest,
    ContextOverflow,
    CorruptModel,
    Unsupported,
    UnsupportedArchitecture,
)
from llmdispatcher.vendors.llamacpp.binding.vocabulary import MAX_RUN, vocabulary_of
from llmdispatcher.vendors.llamacpp.vendor import embedded


def test_a_vocabulary_is_opened_without_weights(tmp_path: Path) -> None:
    """A file of a hundred GB, which few memories hold, opens for its vocabulary."""
    path = sparse_model(tmp_path / "huge.gguf", width=2**15, feed_forward=2**17)
    assert path.stat().st_size > 100 * 10**9

    with vocabulary_of(path) as vocabulary:
        assert vocabulary.size == 300
        assert (vocabulary.bos, vocabulary.eos) == ("<s>", "</s>")


@pytest.mark.parametrize(
    "text", ["What is the capital of France?", "naïve 日本語 😀", " a\n\tb ", ""]
)
def test_pieces_are_the_text_again(text: str) -> None:
    """The bytes of a text's tokens, joined, are the text."""
    with vocabulary_of(embedded().model_path) as vocabulary:
        tokens = vocabulary.tokenize(text, add_special=False)

        assert b"".join(map(vocabulary.piece, tokens)) == text.encode()
        assert all(0 <= token < vocabulary.size for token in tokens)


def test_a_start_token_is_not_doubled(small_model: Path) -> None:
    """The start token goes in front once, whether or not a template wrote it already."""
    with vocabulary_of(small_model) as vocabulary:
        plain = vocabulary.tokenize("ab", add_special=False)

        assert vocabulary.tokenize("ab") == vocabulary.tokenize("<s>ab")
        assert vocabulary.tokenize("ab") == [1, *plain]


def test_special_tokens_are_text_where_they_are_not_to_be_read(small_model: Path) -> None:
    """What a user writes can be kept from ending a turn: it is read as the characters it is."""
    with vocabulary_of(small_model) as vocabulary:
        (end,) = vocabulary.tokenize("</s>", add_special=False)
        spelled = vocabulary.tokenize("</s>", add_special=False, parse_special=False)

        assert vocabulary.ends(end)
        assert not any(map(vocabulary.ends, spelled))
        assert (vocabulary.piece(end), vocabulary.piece(end, special=True)) == (b"", b"</s>")


def test_text_that_cannot_fit_is_not_read(small_model: Path) -> None:
    """Text too long for the context that is given is refused by its size; else all is read."""
    text = "ab " * 20_000
    with vocabulary_of(small_model) as vocabulary:
        with pytest.raises(ContextOverflow) as caught:
            vocabulary.tokenize(text, context_tokens=256)

        assert caught.value.limit_tokens == 256
        assert len(vocabulary.tokenize(text)) >= (caught.value.needed_tokens or 0)


def test_text_that_llama_cpp_does_not_survive_is_refused(small_model: Path) -> None:
    """A run that would overflow the stack, and text that has no UTF-8 form, are errors."""
    with vocabulary_of(small_model) as vocabulary:
        with pytest.raises(BadRequest, match="without a change"):
            vocabulary.tokenize("a" * (MAX_RUN + 1))
        with pytest.raises(Unsupported, match="no UTF-8 form at character 2"):
            vocabulary.tokenize("ab\ud83d")


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """No file, no GGUF and an unknown architecture are told apart, and the file is named."""
    path = tmp_path / "model.gguf"
    with pytest.raises(CorruptModel, match=r"model\.gguf.*No such file"), vocabulary_of(path):
        pass
    path.write_bytes(b"no GGUF at all")
    with pytest.raises(CorruptModel, match=r"model\.gguf.*magic"), vocabulary_of(path):
        pass
    tiny_model(path, architecture="nothing")
    with pytest.raises(UnsupportedArchitecture, match="'nothing'"), vocabulary_of(path):
        pass
