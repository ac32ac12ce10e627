"""Read the header of a GGUF file: fast, with bounded work, believing nothing.

Every length, count and offset is compared with the real size of the file, or with a named bound,
before it is used. Long arrays, such as tokenizer tables, are skipped and not built. The format is
described in ggml's docs/gguf.md; what is refused here is what ggml's gguf.cpp refuses, and more.
Files are read, never mapped: a mapped file that is cut short by someone else kills the process.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, NoReturn

import attrs

from llmdispatcher.models.errors import CorruptModel, ModelFileMissing
from llmdispatcher.vendors.llamacpp.files import loadable
from llmdispatcher.vendors.llamacpp.files.cursor import FIRST_READ_BYTES, Cursor
from llmdispatcher.vendors.llamacpp.files.header import (
    FIM_TOKENS,
    TENSOR_TYPES,
    ArrayInfo,
    Header,
    Tensor,
    Value,
)
from llmdispatcher.vendors.llamacpp.files.lookalike import explain_foreign, open_model

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEYS = 16_384
"""Real files have 20 to 80."""
MAX_TENSORS = 65_536
"""The largest models known have some thousands."""
MAX_KEY_BYTES = 65_535
"""From the format's description."""
MAX_TEXT_BYTES = 16 * 2**20
"""Longest metadata text that is kept; the longest known is a whole tokenizer in one text."""
MAX_KEPT = 1024
"""Arrays of up to so many numbers are kept: enough for one for each layer."""
MAX_KEPT_TEXTS = 64
MAX_TOKENS = 2**21
"""The largest vocabularies known have 2^18; their tokens are compared, which takes memory."""
MAX_NAME_BYTES = 63
"""GGML_MAX_NAME in ggml.h, less the zero at the end."""
MAX_DIMENSIONS = 4
MAX_PARTS = 999
MAX_SIZE_BYTES = 2**63 - 1

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

_NUMBERS = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_TEXT, _ARRAY = 8, 9
_TOKENS = "tokenizer.ggml.tokens"


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a model, of all its parts where it has several files.

    Raises ModelFileMissing where a file is missing or cannot be read, and CorruptModel where it
    is not a whole GGUF file.
    """
    name = os.path.expanduser(os.fspath(path))  # noqa: PTH111 - pathlib fails on odd paths
    first = _read_file(name)
    count = first.metadata.get("split.count", 1)
    headers = [first]
    if isinstance(count, int) and count > 1:
        headers += [_read_file(part) for part in _other_parts(first, count)]
    header = first if len(headers) == 1 else _join(headers)
    loadable.check(header)
    return header


def _other_parts(first: Header, count: int) -> list[str]:
    """Name the files of parts 2 and on; they lie beside the first."""
    found = _PART_NAME.fullmatch(first.path)
    if found is None or count > MAX_PARTS or int(found["count"]) != count:
        raise CorruptModel(
            f"{first.path} is one of {count} parts of a model, and llama.cpp finds the others by"
            f" their names: rename them all to the pattern NAME-00001-of-{count:05}.gguf",
            path=first.path,
        )
    names = [f"{found['stem']}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    if first.metadata.get("split.no") != 0 or names[0] != first.path:
        raise CorruptModel(
            f"{first.path} is not the first of the {count} parts of a model: give {names[0]}",
            path=first.path,
        )
    missing = [name for name in names if not os.path.isfile(name)]  # noqa: PTH113 - as above
    if missing:
        raise ModelFileMissing(
            f"{len(missing)} of the {count} parts of this model are missing, the first is"
            f" {missing[0]}: download all parts into one folder",
            path=missing[0],
        )
    return names[1:]


def _join(headers: list[Header]) -> Header:
    """Make one header of those of all parts; metadata is that of the first."""
    first = headers[0]
    for index, header in enumerate(headers):
        if header.metadata.get("split.no") != index:
            raise CorruptModel(
                f"{header.path} says that it is not part {index + 1} of {len(headers)}:"
                " parts of different models are mixed; download them again",
                path=header.path,
            )
    tensors = tuple(
        attrs.evolve(tensor, part=index)
        for index, header in enumerate(headers)
        for tensor in header.tensors
    )
    promised = first.metadata.get("split.tensors.count", len(tensors))
    if promised != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise CorruptModel(
            f"the parts of {first.path} hold {len(tensors)} tensors and the first part promises"
            f" {promised}, all different: download them again",
            path=first.path,
        )
    return attrs.evolve(
        first,
        paths=tuple(header.path for header in headers),
        tensors=tensors,
        file_size=sum(header.file_size for header in headers),
    )


def _read_file(path: str) -> Header:
    with open_model(path) as file:
        cursor = Cursor(path, file, os.fstat(file.fileno()).st_size)
        version, tensor_count, key_count = read_start(cursor)
        metadata = _read_metadata(cursor, key_count)
        alignment = _alignment(cursor, metadata)
        tensors = _read_tensors(cursor, tensor_count, alignment)
    return Header((path,), version, alignment, metadata, tensors, cursor.size_bytes)


def read_start(cursor: Cursor) -> tuple[int, int, int]:
    """Read magic, version and the two counts."""
    cursor.need(min(cursor.size_bytes, FIRST_READ_BYTES), "the start")
    if cursor.data[:4] != _MAGIC:
        raise explain_foreign(cursor.path, cursor.data[:512], cursor.size_bytes)
    cursor.skip(4, "the magic number")
    version = cursor.u32("the version")
    if version not in _VERSIONS:
        _refuse_version(cursor, version)
    tensor_count, key_count = cursor.u64("the tensor count"), cursor.u64("the key count")
    for count, most, what in (
        (tensor_count, MAX_TENSORS, "tensors"),
        (key_count, MAX_KEYS, "metadata keys"),
    ):
        if count > most:
            cursor.damaged(f"it claims to have {count} {what}, and the most allowed is {most}")
    return version, tensor_count, key_count


def _refuse_version(cursor: Cursor, version: int) -> NoReturn:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if swapped in (1, *_VERSIONS):
        why = "is a big-endian GGUF file, for other processors: get the usual little-endian one"
    elif version == 1:
        why = "is GGUF version 1, which llama.cpp no longer reads: get a newer file of this model"
    elif _VERSIONS[-1] < version < 256:  # noqa: PLR2004 - a version number that could come to be
        why = f"is GGUF version {version}, newer than the 2 and 3 known here: update llmdispatcher"
    else:
        cursor.damaged(f"it claims to be GGUF version {version}")
    raise CorruptModel(f"{cursor.path} {why}", path=cursor.path)


def _read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for index in range(count):
        key = read_utf8(cursor, f"metadata key {index}", MAX_KEY_BYTES)
        if not key or key in metadata:
            cursor.damaged(f"metadata key {index} is {key!r}, which is empty or there already")
        metadata[key] = read_value(cursor, key)
    return metadata


def read_utf8(cursor: Cursor, what: str, most: int) -> str:
    """Read a text of at most so many bytes; ``what`` it is, for the error."""
    raw = cursor.text(what, most)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        cursor.damaged(f"{what} is {raw[:40]!r}, which is not UTF-8")


def read_value(cursor: Cursor, key: str) -> Value:
    """Read the type and the value of a metadata key."""
    type_id = cursor.u32(f"the type of {key}")
    if type_id in _NUMBERS:
        return _read_numbers(cursor, key, type_id, 1)[0]
    if type_id == _TEXT:
        # llama.cpp takes any bytes here; a damaged letter in a licence must not lock a model out
        return cursor.text(key, MAX_TEXT_BYTES).decode(errors="replace")
    if type_id != _ARRAY:
        cursor.damaged(f"{key} has type {type_id}, and the types are 0 to 12")
    return _read_array(cursor, key)


def _read_array(cursor: Cursor, key: str) -> Value:
    """Read a short array, skip a long one."""
    type_id, count = cursor.u32(f"the type of {key}"), cursor.u64(f"the count of {key}")
    if type_id in _NUMBERS:
        if count <= MAX_KEPT:
            return _read_numbers(cursor, key, type_id, count)
        name, code = _NUMBERS[type_id]
        cursor.skip(count * struct.calcsize(code), key)
        return ArrayInfo(name, count)
    if type_id != _TEXT:
        cursor.damaged(f"{key} is an array of type {type_id}; arrays hold numbers or texts")
    return _read_texts(cursor, key, count)


def _read_texts(cursor: Cursor, key: str, count: int) -> Value:
    """Read few texts, skip many; llama.cpp asserts that no two tokens are the same."""
    cursor.need(8 * count, key)
    if key == _TOKENS and count > MAX_TOKENS:
        cursor.damaged(f"it claims to have {count} tokens, and the most allowed is {MAX_TOKENS}")
    start = cursor.at
    cursor.skip_texts(count, key)
    if key == _TOKENS and not cursor.are_distinct(count, start):
        cursor.damaged("two tokens of its vocabulary are the same")
    if count > MAX_KEPT_TEXTS:
        marks = cursor.among(FIM_TOKENS, start) if key == _TOKENS else ()
        return ArrayInfo("string", count, frozenset(marks))
    cursor.at = start
    return tuple(cursor.text(key, MAX_TEXT_BYTES).decode(errors="replace") for _ in range(count))


def _read_numbers(
    cursor: Cursor, key: str, type_id: int, count: int
) -> tuple[int | float | bool, ...]:
    layout = struct.Struct(f"<{count}{_NUMBERS[type_id][1]}")
    cursor.skip(layout.size, key)
    return layout.unpack_from(cursor.data, cursor.at - layout.size)


def _alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    # type() and not isinstance, since True is no alignment
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        cursor.damaged(f"general.alignment is {alignment!r}, and must be a power of two")
    return alignment


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """Read the tensor table; data must lie in the same order without gaps, as llama.cpp asks."""
    found: dict[str, Tensor] = {}
    expected = 0
    for index in range(count):
        name = read_utf8(cursor, f"the name of tensor {index}", MAX_NAME_BYTES)
        if name in found:
            cursor.damaged(f"tensor {name!r} is there twice")
        tensor = _read_tensor(cursor, name)
        if tensor.offset != expected:
            cursor.damaged(f"tensor {name} lies at {tensor.offset}, and {expected} was expected")
        expected += _padded(tensor.size_bytes, alignment)
        if expected > MAX_SIZE_BYTES:
            cursor.damaged(f"tensor {name} would end beyond {MAX_SIZE_BYTES} bytes")
        found[name] = tensor
    start = _padded(cursor.at, alignment)
    tensors = tuple(attrs.evolve(item, offset=start + item.offset) for item in found.values())
    if tensors and (end := tensors[-1].offset + tensors[-1].size_bytes) > cursor.size_bytes:
        raise CorruptModel(
            f"{cursor.path} is cut short: it has {cursor.size_bytes} bytes and its header promises"
            f" {end}; download it again",
            path=cursor.path,
        )
    return tensors


def _read_tensor(cursor: Cursor, name: str) -> Tensor:
    """Read one entry; its offset still counts from the start of the data."""
    what = f"the entry of tensor {name}"
    dimensions = cursor.u32(what)
    if dimensions > MAX_DIMENSIONS:
        cursor.damaged(f"tensor {name} has {dimensions} dimensions, and {MAX_DIMENSIONS} is most")
    shape = tuple(cursor.u64(what) for _ in range(dimensions))
    type_id, offset = cursor.u32(what), cursor.u64(what)
    elements = 1
    for size in shape:
        elements *= size
        if not 0 < elements <= MAX_SIZE_BYTES:
            cursor.damaged(f"tensor {name} has the impossible shape {shape}")
    stored = TENSOR_TYPES.get(type_id)
    if stored is None:
        cursor.damaged(
            f"tensor {name} is stored as type {type_id}, which llama.cpp gave up or does not know"
            " yet (then updating llmdispatcher helps)"
        )
    row = shape[0] if shape else 1
    if row % stored.block:
        cursor.damaged(f"rows of tensor {name} have {row} numbers, not whole {stored.name} blocks")
    return Tensor(name, shape, type_id, offset, elements // stored.block * stored.block_bytes)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
