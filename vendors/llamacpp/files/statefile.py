"""The file that a conversation's decoded state is kept in, so that it need not be read again.

Such a file holds the conversation: its tokens as they are, and what the model made of them. It is
written for its owner alone, and is as private as the conversation is. It is believed as a model
file is: the checksum finds damage, not malice, so files of others are not to be read back.

Owns the layout, and the refusal of files that belong to another model, another llama.cpp or other
settings. What ``data`` means is llama.cpp's to know. Pure: bytes and paths in, values out.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import stat
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn

import attrs

from llmdispatcher.models.errors import BadRequest, StateUnusable
from llmdispatcher.vendors.llamacpp.files.lookalike import open_model

VERSION = 1
"""Of the layout below; a file of another is refused."""

MAX_LABEL_BYTES = 65_536
"""Of the JSON that says where a state is from; real ones have some hundreds."""

HEAD_BYTES = 16 * 2**20
"""The header of a model, its tensor table included, is within these: the longest known has 13 MB,
most of it vocabulary."""
SAMPLES = 64
SAMPLE_BYTES = 65_536
"""Read of the tensors, at places that are evenly spread: about one in each layer, and no more than
an old disk finds in a second."""

_MAGIC = b"LLMDSTAT"
_START = struct.Struct("<8sIIQQ")
"""Magic, version, bytes of the label, tokens, bytes of data; all little-endian. A checksum of this
and the label follows the label, then the tokens as 32-bit integers, the data, and a checksum of all
before it."""
_SUM = struct.Struct("<I")
"""CRC-32: four times as fast as BLAKE2 where both were measured, and damage is all it is for."""
_TOKEN_BYTES = 4
_SHOWN_CHARS = 80


@attrs.frozen
class Origin:
    """Who may read a state back: the same model, the same llama.cpp, the same kind of cache."""

    fingerprint: str
    """Of the model's files; see ``fingerprint``."""
    build: str
    """Which llama.cpp it is: states have no format that outlives a release."""
    settings: str
    """What of the context's settings a state depends on, such as the type of its cache."""


@attrs.frozen
class State:
    """A conversation as far as it is decoded."""

    origin: Origin
    tokens: tuple[int, ...]
    data: bytes | memoryview
    """What llama.cpp wrote for these tokens."""
    model: str
    """The model's name, for people: it is told where the file is refused."""


def fingerprint(path: Path, *more: Path) -> str:
    """Return what tells a model's file apart, all its parts where it has several.

    The size, and a hash of the header and of samples of the tensors: some 25 ms for any size of
    file, if it lies in the system's cache. Files that differ only between the samples look alike.
    Raises ModelFileMissing.
    """
    summed = hashlib.blake2b(digest_size=16)
    total = 0
    for part in (path, *more):
        with open_model(str(part)) as file:
            size = os.fstat(file.fileno()).st_size
            summed.update(b"%d " % size)
            for start, count in _places(size):
                file.seek(start)
                summed.update(_up_to(file, count))
        total += size
    return f"{total}-{summed.hexdigest()}"


def _places(size: int) -> list[tuple[int, int]]:
    """List where to read in a model's file, and how much: all of it if it is small."""
    room = size - HEAD_BYTES
    if room <= SAMPLES * SAMPLE_BYTES:
        return [(0, size)]
    last = size - SAMPLE_BYTES
    spread = [HEAD_BYTES + (last - HEAD_BYTES) * index // (SAMPLES - 1) for index in range(SAMPLES)]
    return [(0, HEAD_BYTES), *((start, SAMPLE_BYTES) for start in spread)]


def _up_to(file: BinaryIO, count: int) -> bytes:
    """Read so many bytes, or what there is; a raw file may give fewer at a time."""
    pieces = []
    while count > 0 and (piece := file.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def write(path: Path, state: State) -> int:
    """Save a state, whole or not at all, and return how many bytes the file has.

    It is written beside its place, forced to the disk, and moved there; only its owner may read
    it. Raises StateUnusable if that fails, and BadRequest for a state that has no place in the
    layout.
    """
    path = Path(os.path.realpath(path))  # a link stays, and what it points to is written
    if not os.path.isfile(path) and os.path.lexists(path):  # noqa: PTH113 - never raise
        raise StateUnusable(
            f"{path} is no ordinary file, and would be replaced: choose another name",
            path=str(path),
            part="file",
        )
    data = memoryview(state.data).cast("B")
    label = json.dumps({"model": state.model, **attrs.asdict(state.origin)}).encode()
    if len(label) > MAX_LABEL_BYTES:
        raise BadRequest("origin", len(label), f"at most {MAX_LABEL_BYTES} bytes of text")
    start = _START.pack(_MAGIC, VERSION, len(label), len(state.tokens), data.nbytes) + label
    parts: list[bytes | memoryview] = [
        start,
        _SUM.pack(zlib.crc32(start)),
        _packed(state.tokens),
        data,
    ]
    whole = 0
    for part in parts:
        whole = zlib.crc32(part, whole)
    try:
        return _replace(path, [*parts, _SUM.pack(whole)])
    except OSError as error:
        raise StateUnusable(
            f"the conversation cannot be saved to {path}: {error.strerror or error}; choose a"
            " folder that exists, can be written to and has room",
            path=str(path),
            part="file",
        ) from None


def _packed(tokens: tuple[int, ...]) -> bytes:
    if tokens and (min(tokens) < 0 or max(tokens) >= 2**31):
        raise BadRequest("tokens", (min(tokens), max(tokens)), "from 0 to 2147483647")
    numbers = array.array("i", tokens)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _replace(path: Path, parts: list[bytes | memoryview]) -> int:
    """Write a new file of the owner's beside ``path``, and give it that name."""
    number, made = tempfile.mkstemp(prefix=".state-", suffix=".tmp", dir=path.parent)
    with contextlib.ExitStack() as undo:
        undo.callback(Path(made).unlink, missing_ok=True)
        with os.fdopen(number, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        Path(made).replace(path)
        undo.pop_all()
    if sys.platform != "win32":
        _sync_folder(path.parent)
    return size


def _sync_folder(folder: Path) -> None:
    """Make the new name outlive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read(path: Path, origin: Origin, *, most_bytes: int) -> State:
    """Read a state back that ``write`` saved, if it is from ``origin``.

    Nothing is read of a file that has more than ``most_bytes``, and only its label of one that is
    from elsewhere. Raises StateUnusable that says which part differs and the way out.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            _refuse(path, "size", f"has {size} bytes, and {most_bytes} is most")
        start = _exactly(file, path, _START.size)
        label, token_count, data_bytes = _checked_start(file, path, start, size)
        saved, model = _origin(path, label)
        _require(path, saved, origin, model)
        packed = _exactly(file, path, token_count * _TOKEN_BYTES)
        data = _exactly(file, path, data_bytes)
        whole = zlib.crc32(start + label + _SUM.pack(zlib.crc32(start + label)))
        whole = zlib.crc32(data, zlib.crc32(packed, whole))
        if _exactly(file, path, _SUM.size) != _SUM.pack(whole):
            _refuse(path, "damage", "is damaged: its checksum is wrong")
    return State(saved, _unpacked(path, packed), data, model)


def _opened(path: Path) -> BinaryIO:
    """Open a regular file, without ever waiting for another end of it."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        file = os.fdopen(number, "rb") if stat.S_ISREG(os.fstat(number).st_mode) else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _refuse(path, "file", f"cannot be opened: {reason}")
    if file is None:
        os.close(number)
        _refuse(path, "file", "is no regular file, and so no saved conversation")
    return file


def _checked_start(file: BinaryIO, path: Path, start: bytes, size: int) -> tuple[bytes, int, int]:
    """Return the label, how many tokens there are and how many bytes of data.

    All lengths are compared with the size of the file before anything is read by them.
    """
    magic, version, label_bytes, token_count, data_bytes = _START.unpack(start)
    if magic != _MAGIC:
        _refuse(path, "format", "is no saved conversation")
    if version != VERSION:
        _refuse(path, "format", f"has format {version}, and {VERSION} is read here")
    promised = _START.size + label_bytes + 2 * _SUM.size + token_count * _TOKEN_BYTES + data_bytes
    if label_bytes > MAX_LABEL_BYTES or promised != size:
        _refuse(path, "damage", f"has {size} bytes where {promised} are promised: it was cut")
    label = _exactly(file, path, label_bytes)
    if _exactly(file, path, _SUM.size) != _SUM.pack(zlib.crc32(start + label)):
        _refuse(path, "damage", "is damaged: the checksum of its beginning is wrong")
    return label, token_count, data_bytes


def _origin(path: Path, label: bytes) -> tuple[Origin, str]:
    """Read where a state is from; the checksum was right, so anything odd is somebody's work."""
    try:
        told = json.loads(label)
        model, build = told["model"], told["build"]
        saved = Origin(told["fingerprint"], build, told["settings"])
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse(path, "damage", "does not say where it is from")
    if not all(isinstance(text, str) for text in (model, *attrs.astuple(saved))):
        _refuse(path, "damage", "does not say where it is from")
    return saved, model


def _require(path: Path, saved: Origin, origin: Origin, model: str) -> None:
    """Refuse a state that is from elsewhere."""
    if saved.fingerprint != origin.fingerprint:
        named = f"another model file, {model[:_SHOWN_CHARS]!r}, which can read it if it is loaded"
        _refuse(path, "fingerprint", f"was saved with {named}")
    for part, what in (("build", "by another llama.cpp"), ("settings", "with other settings")):
        theirs, ours = getattr(saved, part), getattr(origin, part)
        if theirs != ours:
            both = f"{theirs[:_SHOWN_CHARS]!r}, and here is {ours[:_SHOWN_CHARS]!r}"
            _refuse(path, part, f"was saved {what} ({both})")


def _unpacked(path: Path, packed: bytes) -> tuple[int, ...]:
    numbers = array.array("i", packed)
    if sys.byteorder == "big":
        numbers.byteswap()
    tokens = tuple(numbers)
    if tokens and min(tokens) < 0:
        _refuse(path, "damage", f"holds the token {min(tokens)}, which no model has")
    return tokens


def _exactly(file: BinaryIO, path: Path, count: int) -> bytes:
    try:
        found = file.read(count)
    except OSError as error:
        _refuse(path, "file", f"cannot be read: {error.strerror or error}")
    if len(found) != count:
        _refuse(path, "damage", "is cut short")
    return found


def _refuse(path: Path, part: str, told: str) -> NoReturn:
    message = f"{path} {told}; send the whole conversation again, and it is read anew"
    raise StateUnusable(message, path=str(path), part=part)
