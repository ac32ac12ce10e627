"""How a GGUF file stores its metadata: the number of each key's type.

Parts of llama.cpp read a key as one type and assert that it is; what a value looks like in Python
does not tell whether it would be, so those who hand them files look here first.
"""

from __future__ import annotations

from llmdispatcher.vendors.llamacpp.files.cursor import Cursor
from llmdispatcher.vendors.llamacpp.files.gguf import (
    MAX_KEY_BYTES,
    read_start,
    read_utf8,
    read_value,
)
from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.files.lookalike import open_model

UINT32, INT32, FLOAT32 = 4, 5, 6
"""From ggml's docs/gguf.md."""


def types_of(header: Header) -> dict[str, int]:
    """Return the type of each key of a file whose header was read and found whole.

    Raises ModelFileMissing or CorruptModel where it has changed since.
    """
    types: dict[str, int] = {}
    with open_model(header.path) as file:
        cursor = Cursor(header.path, file, header.file_size)
        _, _, count = read_start(cursor)
        for _ in range(count):
            key = read_utf8(cursor, "a metadata key", MAX_KEY_BYTES)
            types[key] = cursor.u32(f"the type of {key}")
            cursor.at -= 4
            read_value(cursor, key)
    return types
