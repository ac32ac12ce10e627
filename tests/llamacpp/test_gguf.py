"""The header reader on good files: the same facts as llama.cpp's, for every kind of model."""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import gguf
import pytest
from tiny_gguf import CHAT_TEMPLATE, Shape, tiny_model

import llmdispatcher.models
from llmdispatcher.models.errors import (
    CorruptModel,
    ModelFileMissing,
    UnsupportedArchitecture,
)
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.files.header import TENSOR_TYPES, ArrayInfo, Header, Kind

Ask = Callable[..., list[dict[str, Any]]]


@contextmanager
def calls() -> Iterator[list[object]]:
    """Note what is called in a block, in C and in Python."""
    seen: list[object] = []

    def note(_: FrameType, event: str, what: object) -> None:
        if event in {"call", "c_call"}:
            seen.append(what)

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def test_a_header_has_the_facts_of_the_model(tmp_path: Path) -> None:
    """Everything that the engine plans with is read."""
    path = tiny_model(tmp_path / "m.gguf", vocab=320, context=512, width=64, layers=3)
    header = read_header(path)
    assert (header.version, header.alignment, header.path) == (3, 32, str(path))
    assert (header.architecture, header.name, header.kind) == ("llama", "tiny", Kind.MODEL)
    assert (header.vocab_size, header.context_length, header.block_count) == (320, 512, 3)
    assert (header.embedding_length, header.feed_forward_lengths) == (64, (64,) * 3)
    assert (header.head_counts, header.head_counts_kv) == ((4,) * 3, (2,) * 3)
    assert (header.key_length, header.value_length, header.sliding_window) == (16, 16, 0)
    assert (header.bos_token_id, header.eos_token_id) == (1, 2)
    assert (header.file_type, header.quantisation) == (0, "F32")
    assert header.chat_template == CHAT_TEMPLATE
    assert header.file_size == path.stat().st_size
    header.check_generates()


@pytest.mark.parametrize("storage", ["F32", "F16", "Q8_0"])
def test_llama_cpp_loads_what_is_accepted(storage: str, tmp_path: Path, real_llama: Ask) -> None:
    """llama.cpp loads the file, writes with it, and counts the same weights."""
    path = tiny_model(tmp_path / "m.gguf", storage=storage)
    header = read_header(path)
    (real,) = real_llama({"path": path})
    assert real["loaded"], real["log"]
    assert len(real["tokens"]) == 8
    assert (header.weight_bytes, header.parameter_count) == (real["weights"], real["parameters"])
    assert header.quantisation == storage


def test_seeds_make_different_models(tmp_path: Path, real_llama: Ask) -> None:
    """The builder's models are reproducible, and differ by seed."""
    paths = [tiny_model(tmp_path / f"{i}.gguf", seed=seed) for i, seed in enumerate((1, 1, 2))]
    first, second, third = (
        result["tokens"] for result in real_llama(*({"path": p} for p in paths))
    )
    assert first == second != third


def test_the_embedded_model_is_read(real_llama: Ask) -> None:
    """The model that ships with the package passes its own reader."""
    path = Path(llmdispatcher.models.__file__ or "").parent / "demo.gguf"
    header = read_header(path)
    (real,) = real_llama({"path": path})
    assert header.kind is Kind.MODEL
    assert (header.weight_bytes, header.parameter_count) == (real["weights"], real["parameters"])


def test_the_same_as_the_reference_reader(tmp_path: Path) -> None:
    """Names, shapes, types, offsets and sizes agree with the package gguf."""
    path = tiny_model(tmp_path / "m.gguf", storage="Q8_0")
    reference = gguf.GGUFReader(path)
    expected = [
        (t.name, tuple(t.shape), int(t.tensor_type), t.data_offset, t.n_bytes)
        for t in reference.tensors
    ]
    found = read_header(path).tensors
    assert expected == [(t.name, t.shape, t.type_id, t.offset, t.size_bytes) for t in found]


def test_storage_types_are_those_of_the_reference() -> None:
    """Block sizes are those of the package gguf, Q8_1 aside, which it has wrong."""
    for kind, (block, block_bytes) in gguf.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":
            found = TENSOR_TYPES[int(kind)]
            assert (kind.name, block, block_bytes) == (found.name, found.block, found.block_bytes)


def test_every_type_of_value_is_read(tmp_path: Path) -> None:
    """All thirteen types of the format become Python values."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in {"uint8": 1, "int8": -1, "uint16": 2, "int16": -2, "uint32": 3}.items():
        getattr(writer, f"add_{name}")(f"x.{name}", value)
    for name, value in {"int32": -3, "uint64": 2**63, "int64": -(2**62)}.items():
        getattr(writer, f"add_{name}")(f"x.{name}", value)
    writer.add_float32("x.float32", 0.5)
    writer.add_float64("x.float64", 0.1)
    writer.add_bool("x.bool", True)  # noqa: FBT003 - the package's signature
    writer.add_string("x.string", "grüß dich")
    writer.add_array("x.list", [True, False])
    writer.add_array("x.texts", ["a", "b"])
    writer.add_array("x.long", list(range(5000)))
    writer.add_array("x.long_texts", ["t"] * 5000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = read_header(path).metadata
    numbers = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
    assert [metadata[f"x.{name}"] for name in numbers] == [1, -1, 2, -2, 3, -3, 2**63, -(2**62)]
    assert (metadata["x.float32"], metadata["x.float64"], metadata["x.bool"]) == (0.5, 0.1, True)
    assert metadata["x.string"] == "grüß dich"
    assert (metadata["x.list"], metadata["x.texts"]) == ((True, False), ("a", "b"))
    assert (metadata["x.long"], metadata["x.long_texts"]) == (
        ArrayInfo("int32", 5000),
        ArrayInfo("string", 5000),
    )


def test_a_model_without_a_template_has_none(tmp_path: Path) -> None:
    """A base model is told apart from one that chats."""
    assert read_header(tiny_model(tmp_path / "m.gguf", chat_template=None)).chat_template is None


def test_an_unknown_architecture_is_read(tmp_path: Path, real_llama: Ask) -> None:
    """What llama.cpp does not know yet is a well-formed file; the engine refuses it by its name."""
    path = tiny_model(tmp_path / "m.gguf", architecture="frobnicate")
    assert read_header(path).architecture == "frobnicate"
    assert "unknown model architecture" in real_llama({"path": path})[0]["log"]


def test_version_2_is_read(tmp_path: Path, real_llama: Ask) -> None:
    """Files of 2023 have the same layout under another number."""
    path = tiny_model(tmp_path / "m.gguf")
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<I", 2) + data[8:])
    assert read_header(path).version == 2
    assert real_llama({"path": path})[0]["loaded"]


def test_head_counts_may_differ_by_layer(tmp_path: Path) -> None:
    """One number goes for all layers, a list has one for each."""
    path = tiny_model(
        tmp_path / "m.gguf",
        architecture="deci",
        metadata={"deci.attention.head_count_kv_": 0, "deci.attention.key_length": 8},
    )
    header = read_header(path)
    facts = {**header.metadata, "deci.attention.head_count_kv": (2, 0)}
    assert attrs.evolve(header, metadata=facts).head_counts_kv == (2, 0)


def test_quantisation_is_told_from_the_weights(tmp_path: Path) -> None:
    """Where the file does not say how it is stored, its largest tensors do."""
    header = read_header(tiny_model(tmp_path / "m.gguf", storage="Q8_0"))
    facts = {key: value for key, value in header.metadata.items() if key != "general.file_type"}
    assert attrs.evolve(header, metadata=facts).quantisation == "Q8_0"


@pytest.mark.parametrize(
    ("facts", "kind", "advice"),
    [
        ({"general.type": "adapter"}, Kind.ADAPTER, "the model that it was made for"),
        ({"general.type": "mmproj"}, Kind.MMPROJ, "mmproj"),
        ({"general.architecture": "clip"}, Kind.MMPROJ, "mmproj"),
        ({"general.architecture": "bert"}, Kind.EMBEDDING, "chat or instruct"),
        ({"llama.pooling_type": 3}, Kind.EMBEDDING, "chat or instruct"),
        ({"llama.attention.causal": False}, Kind.EMBEDDING, "chat or instruct"),
        ({"general.type": "imatrix"}, Kind.OTHER, "not a model"),
        ({"general.type": "dataset"}, Kind.OTHER, "not a model"),
    ],
)
def test_files_that_cannot_write_are_told_apart(
    facts: dict[str, Any], kind: Kind, advice: str, tmp_path: Path
) -> None:
    """Each kind of file that is not a chat model has its own advice."""
    header = read_header(tiny_model(tmp_path / "m.gguf"))
    header = attrs.evolve(header, metadata={**header.metadata, **facts})
    assert header.kind is kind
    with pytest.raises(UnsupportedArchitecture, match=advice):
        header.check_generates()


def test_a_tokenizer_alone_is_told_apart(tmp_path: Path) -> None:
    """A file without weights is read, and refused as a model."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    header = read_header(path)
    assert (header.kind, header.context_length) == (Kind.VOCAB, None)
    with pytest.raises(UnsupportedArchitecture, match="no weights"):
        header.check_generates()


def test_headers_are_values(tmp_path: Path) -> None:
    """Reading twice gives equal values, and they survive pickling."""
    path = tiny_model(tmp_path / "m.gguf")
    header = read_header(path)
    assert header == read_header(str(path)) == pickle.loads(pickle.dumps(header))  # noqa: S301 - ours
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        header.version = 4  # type: ignore[misc]


def test_large_vocabularies_are_quick(tmp_path: Path) -> None:
    """A tokenizer of 128 thousand tokens and 280 thousand merges is skipped, a step for each."""
    path = tmp_path / "m.gguf"
    tokens, merges = 128_256, 280_147

    def texts(name: bytes, count: int) -> bytes:
        head = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", 9, 8, count)
        return head + b"".join(struct.pack("<Q7s", 7, b"%07d" % i) for i in range(count))

    architecture = struct.pack("<Q20sIQ5s", 20, b"general.architecture", 8, 5, b"llama")
    path.write_bytes(
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 3)
        + architecture
        + texts(b"tokenizer.ggml.tokens", tokens)
        + texts(b"tokenizer.ggml.merges", merges)
    )
    with calls() as count:
        header = read_header(path)
    assert header.vocab_size == tokens
    assert header.metadata["tokenizer.ggml.merges"] == ArrayInfo("string", merges)
    assert len(count) < 2 * (tokens + merges)  # how long that takes is a bench's


# -- models in several files -------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Write a model in three files and return them in order."""
    tiny_model(tmp_path / "m.gguf", part_tensors=8)
    return sorted(tmp_path.glob("m-*.gguf"))


def _whole(tmp_path: Path) -> Header:
    return read_header(tiny_model(tmp_path / "whole.gguf"))


def test_all_parts_are_read_as_one(parts: list[Path], tmp_path: Path, real_llama: Ask) -> None:
    """A model in three files has all tensors, and llama.cpp loads it from the first."""
    header = read_header(parts[0])
    whole = _whole(tmp_path)
    assert header.paths == tuple(str(part) for part in parts)
    assert {t.name for t in header.tensors} == {t.name for t in whole.tensors}
    assert {t.part for t in header.tensors} == {0, 1, 2}
    assert header.weight_bytes == whole.weight_bytes
    assert header.file_size == sum(part.stat().st_size for part in parts)
    assert real_llama({"path": parts[0]})[0]["loaded"]


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    """The error says which file is missing."""
    parts[1].unlink()
    with pytest.raises(ModelFileMissing, match="1 of the 3 parts") as caught:
        read_header(parts[0])
    assert caught.value.path == str(parts[1])


def test_a_later_part_leads_to_the_first(parts: list[Path]) -> None:
    """Someone who names the second file is told to name the first."""
    with pytest.raises(CorruptModel, match=f"give {parts[0]}"):
        read_header(parts[1])


def test_renamed_parts_are_explained(parts: list[Path], tmp_path: Path) -> None:
    """llama.cpp finds parts by their names, so a renamed first part is refused."""
    renamed = parts[0].rename(tmp_path / "model.gguf")
    with pytest.raises(CorruptModel, match="NAME-00001-of-00003"):
        read_header(renamed)


def test_a_cut_part_is_noticed(parts: list[Path]) -> None:
    """Every part is checked, not only the first."""
    parts[2].write_bytes(parts[2].read_bytes()[:-40])
    with pytest.raises(CorruptModel, match="cut short") as caught:
        read_header(parts[0])
    assert caught.value.path == str(parts[2])


def test_swapped_parts_are_noticed(parts: list[Path]) -> None:
    """A part under the name of another is refused."""
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(CorruptModel, match="not part 3 of 3"):
        read_header(parts[0])


def test_the_builder_has_room_for_every_byte() -> None:
    """The smallest vocabulary of the builder covers all text."""
    assert Shape().vocab >= 259
