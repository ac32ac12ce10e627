"""The batch of tokens that one decode takes, in memory of its own that every decode reuses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk


class Batch:
    """A llama_batch over arrays of our own: ctypes fills slices of these, not of pointers."""

    def __init__(self, size: int) -> None:
        """Make room for so many tokens."""
        self._token = (lib.llama_token * size)()
        self._position = (lib.llama_pos * size)()
        self._slot = (lib.llama_seq_id * size)()
        self._rows = (ctypes.c_int8 * size)()
        counts = (ctypes.c_int32 * size)(*[1] * size)
        pointers = (ctypes.POINTER(lib.llama_seq_id) * size)()
        for index in range(size):
            at = ctypes.byref(self._slot, index * ctypes.sizeof(lib.llama_seq_id))
            pointers[index] = ctypes.cast(at, ctypes.POINTER(lib.llama_seq_id))
        self.native: Any = lib.llama_batch()
        """What llama_decode takes."""
        self.native.token = self._token
        self.native.pos = self._position
        self.native.n_seq_id = counts
        self.native.seq_id = pointers
        self.native.logits = self._rows

    def fill(self, chunks: Sequence[Chunk], shifts: Sequence[int]) -> list[int]:
        """Write chunks down; returns where the rows are that tokens can be drawn from.

        ``shifts`` tell, for each slot, how far llama.cpp's positions are from the count of tokens.
        """
        rows: list[int] = []
        start = 0
        for slot, position, tokens, wanted, _ in chunks:
            end, first = start + len(tokens), position + shifts[slot]
            if end - start == 1:
                self._token[start], self._position[start] = tokens[0], first
                self._slot[start], self._rows[start] = slot, wanted
            else:
                self._token[start:end] = tokens
                self._position[start:end] = range(first, first + end - start)
                self._slot[start:end] = [slot] * (end - start)
                ctypes.memset(ctypes.byref(self._rows, start), 0, end - start)
                if wanted:
                    self._rows[end - wanted : end] = [1] * wanted
            if wanted:
                rows.extend(range(end - wanted, end))
            start = end
        self.native.n_tokens = start
        return rows
