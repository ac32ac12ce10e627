"""A position in a file that is not to be believed: every step is compared with the file's size.

Knows the integers and texts of GGUF, and nothing of their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import repeat
from operator import length_hint
from typing import BinaryIO, NoReturn

from llmdispatcher.models.errors import CorruptModel

MAX_HEADER_BYTES = 128 * 2**20
"""The largest headers known, with 262 thousand tokens and their merges, take 20 MiB."""

FIRST_READ_BYTES = 256 * 2**10
"""Enough for all that small models have; more is read as it is needed, doubling."""

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Cursor:
    """A position in a file, with all bytes up to it; reads ahead as needed."""

    def __init__(self, path: str, file: BinaryIO, size_bytes: int) -> None:
        self.path, self.size_bytes, self.at = path, size_bytes, 0
        self._file, self.data = file, b""

    def damaged(self, message: str) -> NoReturn:
        """Raise the error for a header that makes no sense."""
        raise CorruptModel(
            f"{self.path} is damaged: {message}; download it again, or get it from another place",
            path=self.path,
        )

    def need(self, count: int, what: str) -> None:
        """Have the next ``count`` bytes in ``data``, or raise."""
        end = self.at + count
        if end <= len(self.data):
            return
        if end > self.size_bytes:
            self._cut_short(what, end)
        if end > MAX_HEADER_BYTES:
            self.damaged(
                f"{what} at byte {self.at} would end at byte {end}, and a header has at most"
                f" {MAX_HEADER_BYTES} bytes"
            )
        aim = min(max(end, 2 * len(self.data), FIRST_READ_BYTES), self.size_bytes)
        while len(self.data) < aim and (more := self._file.read(aim - len(self.data))):
            self.data += more
        if len(self.data) < end:  # someone cut the file short since we asked for its size
            self.size_bytes = len(self.data)
            self._cut_short(what, end)

    def skip(self, count: int, what: str) -> None:
        """Pass over bytes that are in the file."""
        self.need(count, what)
        self.at += count

    def u32(self, what: str) -> int:
        """Read an integer of 4 bytes."""
        self.skip(4, what)
        return int(_U32.unpack_from(self.data, self.at - 4)[0])

    def u64(self, what: str) -> int:
        """Read an integer of 8 bytes."""
        self.skip(8, what)
        return int(_U64.unpack_from(self.data, self.at - 8)[0])

    def text(self, what: str, most: int) -> bytes:
        """Read a length and so many bytes."""
        length = self.u64(f"the length of {what}")
        if length > most and length <= self.size_bytes:
            self.damaged(f"{what} has {length} bytes, and the most allowed is {most}")
        self.skip(length, what)
        return self.data[self.at - length : self.at]

    def skip_texts(self, count: int, what: str) -> None:
        """Pass over texts. This is the hot loop: tokenizers have hundreds of thousands."""
        length_at, left = _U64.unpack_from, count
        while left:
            data, at, ahead = self.data, self.at, repeat(None, left)
            try:
                for _ in ahead:
                    at += 8 + length_at(data, at)[0]
                left = 0
            except (struct.error, OverflowError):  # past what was read: read more, or complain
                left = length_hint(ahead) + 1
            if at > self.size_bytes:
                self._cut_short(what, at)
            self.at = at
            if left:
                self.need(8, what)

    def _cut_short(self, what: str, end: int) -> NoReturn:
        raise CorruptModel(
            f"{self.path} is cut short or damaged: {what} would end at byte {end}, and the file"
            f" has {self.size_bytes} bytes; download it again",
            path=self.path,
        )

    def among(self, texts: Iterable[str], start: int) -> list[str]:
        """Return those texts that are among the ones from ``start`` to here."""
        self.need(0, "texts")
        written = {text: _U64.pack(len(data := text.encode())) + data for text in texts}
        return [t for t, data in written.items() if self.data.find(data, start, self.at) >= 0]

    def are_distinct(self, count: int, start: int) -> bool:
        """Say whether the texts from ``start`` to here differ; empty ones always do."""
        self.need(0, "texts")
        data, at, length_at = self.data, start, _U64.unpack_from
        texts = [
            data[at + 8 : (at := at + 8 + length_at(data, at)[0])] for _ in repeat(None, count)
        ]
        return len(set(texts)) + max(texts.count(b"") - 1, 0) == count
