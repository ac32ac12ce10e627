"""Opening what a user named as a model, and saying what it is when it is not one.

Most files that fail to load are not damaged models: they are folders, half downloads, pages of an
error message, or models in another format. Each gets a sentence that says what to do.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from llmdispatcher.models.errors import CorruptModel, ModelFileMissing

_SHOWN_FILES = 5
_LISTED_FILES = 1000
"""How many names in a folder are looked at to help someone find a model."""

_CONVERT = "convert it with llama.cpp's convert_hf_to_gguf.py, or download a GGUF of this model"
_AGAIN = "what was downloaded is not the model: check the address, and sign in where it asks to"
_UNPACK = "unpack it first"
_OLD = "llama.cpp no longer reads it: download a GGUF of this model"

_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the real file with: git lfs pull"),
    (b"tjgg", "a model in the old GGJT format", _OLD),
    (b"ggjt", "a model in the old GGJT format", _OLD),
    (b"fmgg", "a model in the old GGMF format", _OLD),
    (b"ggmf", "a model in the old GGMF format", _OLD),
    (b"lmgg", "a model in the old GGML format", _OLD),
    (b"ggml", "a model in the old GGML format", _OLD),
    (b"algg", "an adapter in the old GGLA format", _OLD),
    (b"ggla", "an adapter in the old GGLA format", _OLD),
    (b"FUGG", "a GGUF file whose bytes are in reverse order", "get the little-endian file"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x80\x02", "a Python pickle, as PyTorch writes it", _CONVERT),
    (b"\x80\x04", "a Python pickle", _CONVERT),
    (b"\x80\x05", "a Python pickle", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"MZ", "a program (a llamafile holds a GGUF)", "download the GGUF itself"),
    (b"\x7fELF", "a program", "give the path of a GGUF file"),
)


def open_model(path: str) -> BinaryIO:
    """Open a regular file for reading, without ever blocking; else raise ModelFileMissing."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 - takes odd paths as they are
        if stat.S_ISREG(kind):
            # it may have become a pipe since: then an open without this flag could wait forever
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            file = os.fdopen(number, "rb", buffering=0)
            if stat.S_ISREG(os.fstat(number).st_mode):
                return file
            file.close()
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from None
    if stat.S_ISDIR(kind):
        message = f"{path} is a folder; {_offer(path) or 'there is no GGUF file in it'}"
    else:
        message = f"{path} is not a regular file but a pipe, socket or device: give a GGUF file"
    raise ModelFileMissing(message, path=path)


def _cannot_open(path: str, error: OSError | ValueError) -> ModelFileMissing:
    """Say why a path does not lead to a file that can be read."""
    if not path:
        return ModelFileMissing("the path of the model is empty: give a GGUF file", path=path)
    if isinstance(error, FileNotFoundError):
        near = _offer(os.path.dirname(path) or ".")  # noqa: PTH120 - as above
        return ModelFileMissing(
            f"there is no file {path}; {near or 'check the path, or download the model'}", path=path
        )
    if isinstance(error, PermissionError):
        why = "you may not read it: change its permissions, or those of the folders above it"
    elif isinstance(error, OSError):
        why = f"{error.strerror or error}: check the path"
    else:
        why = f"{error}: a path cannot hold this character"
    return ModelFileMissing(f"{path!r} cannot be read: {why}", path=path)


def _offer(folder: str) -> str:
    """Name the GGUF files in a folder, in words; empty where there are none."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(_LISTED_FILES), entries, strict=False):
                if entry.name.lower().endswith(".gguf") and entry.is_file():
                    names.append(entry.name)
    except OSError:
        return ""
    if not names:
        return ""
    names.sort()
    more = ", …" if len(names) > _SHOWN_FILES else ""
    return f"the GGUF files there are: {', '.join(names[:_SHOWN_FILES])}{more}"


def explain_foreign(path: str, start: bytes, size_bytes: int) -> CorruptModel:
    """Make the error for a file without GGUF's magic number, of which ``start`` is known."""
    if not start:
        return CorruptModel(f"{path} is empty (0 bytes): download it again", path=path)
    what, advice = _recognise(start)
    return CorruptModel(
        f"{path} ({size_bytes} bytes) is {what}, not a GGUF file: {advice}", path=path
    )


def _recognise(start: bytes) -> tuple[str, str]:
    """Say what a file is, and what to do."""
    if start.startswith(b"PK\x03\x04"):
        return (
            ("a PyTorch checkpoint", _CONVERT) if b".pkl" in start else ("a ZIP archive", _UNPACK)
        )
    if start[8:10] == b'{"' and not any(start[5:8]):
        return "a safetensors file", _CONVERT
    if not any(start):
        return "filled with zeros", "its download has not finished: download it again"
    known = (found[1:] for found in _STARTS if start.startswith(found[0]))
    return next(known, None) or _recognise_text(start)


def _recognise_text(start: bytes) -> tuple[str, str]:
    opening = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if opening.startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        return "a web page", _AGAIN
    words = start.decode(errors="ignore")  # a letter may have been cut in two at the end
    if len(words.encode()) > len(start) - 4 and words.replace("\n", "").isprintable():
        return f"a text that begins with {words[:60]!r}", _AGAIN
    return f"of an unknown kind (it begins with {start[:8].hex(' ')})", "download it again"
