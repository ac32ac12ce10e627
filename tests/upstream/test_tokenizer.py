"""Our tokens against the vectors that llama.cpp tests its own tokenizers with."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdispatcher.vendors.llamacpp.binding.vocabulary import vocabulary_of

pytestmark = pytest.mark.upstream

NAMES = [
    "bert-bge",
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
]
"""The vocabularies that have vectors in the tested release of llama.cpp."""

LOSSY = {"bert-bge"}
"""Word pieces: letters lose their case and accents, and spaces their number."""

VECTORS = 46
"""Of each vocabulary, at least."""

SEPARATOR = "\n__ggml_vocab_test__\n"


def vectors(path: Path) -> list[tuple[str, list[int]]]:
    """Read the vectors of a vocabulary as llama.cpp does (tests/test-tokenizer-0.cpp)."""
    texts = Path(f"{path}.inp").read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
    lines = Path(f"{path}.out").read_text(encoding="utf-8").splitlines()
    return [
        (text, [int(token) for token in line.split()])
        for text, line in zip(texts, lines, strict=True)
    ]


def test_every_vocabulary_with_vectors_is_tested(llama_cpp_sources: Path) -> None:
    """The sources have vectors for these vocabularies and no others."""
    found = llama_cpp_sources.glob("models/ggml-vocab-*.gguf.inp")

    assert sorted(path.name.split(".")[0] for path in found) == [f"ggml-vocab-{n}" for n in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_vectors(llama_cpp_sources: Path, name: str) -> None:
    """Every text of a vocabulary's vectors becomes exactly the tokens given for it."""
    path = llama_cpp_sources / "models" / f"ggml-vocab-{name}.gguf"
    expected = vectors(path)
    assert len(expected) >= VECTORS

    with vocabulary_of(path) as vocabulary:
        for text, tokens in expected:
            found = vocabulary.tokenize(text, add_special=False, parse_special=False)
            assert found == tokens, f"{text!r} is read differently"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LOSSY])
def test_pieces_are_the_text_again(llama_cpp_sources: Path, name: str) -> None:
    """The bytes of a text's tokens, joined, are the text, perhaps behind a space."""
    path = llama_cpp_sources / "models" / f"ggml-vocab-{name}.gguf"
    with vocabulary_of(path) as vocabulary:
        for text, tokens in vectors(path):
            data = b"".join(map(vocabulary.piece, tokens))
            assert data in {text.encode(), b" " + text.encode()}


def test_a_long_piece_is_whole(llama_cpp_sources: Path) -> None:
    """A token of more bytes than any before it is not cut: llama-bpe has one of 128 spaces."""
    path = llama_cpp_sources / "models" / "ggml-vocab-llama-bpe.gguf"
    with vocabulary_of(path) as vocabulary:
        (token,) = vocabulary.tokenize(" " * 128, add_special=False)

        assert vocabulary.piece(token) == b" " * 128
