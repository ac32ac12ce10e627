"""The decodes of models in this process: what was decoded, and when the next one may be."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import attrs
import pytest
from waits import WAIT_S, until

from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk, Interrupted


@attrs.frozen
class Begun:
    """What one decode appends to one slot."""

    slot: int
    count: int
    """Tokens."""
    end: int
    """Tokens that the slot holds with them."""
    reads: bool
    """Whether tokens of a prompt are among them."""


class Decodes:
    """Watches all decodes from now on, and holds them up when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[tuple[Begun, ...]] = []
        """What each was to decode, held up or not."""
        self.interrupted = 0
        """Those that were stopped before their end."""
        self.late = 0
        """Those that were held up for longer than any test lasts."""
        self._is_held = False
        self._permits = threading.Semaphore(0)
        real = NativeBackend.decode

        def decode(backend: NativeBackend, chunks: Sequence[Chunk]) -> None:
            is_held = self._is_held
            self.begun.append(tuple(map(_begun, chunks)))
            if is_held:
                self.late += not self._permits.acquire(timeout=WAIT_S)
            try:
                real(backend, chunks)
            except Interrupted:
                self.interrupted += 1
                raise

        monkeypatch.setattr(NativeBackend, "decode", decode)

    def hold(self, after: int = 0) -> None:
        """Hold up the next decode, or the one after so many."""
        self._permits = threading.Semaphore(after)
        self._is_held = True

    def step(self) -> None:
        """Let the one that is held up go, and wait until the next is held up."""
        count = len(self.begun)
        self._permits.release()
        until(lambda: len(self.begun) > count)

    def go_on(self) -> None:
        """Hold up none any more."""
        self._is_held = False
        self._permits.release(1000)


def _begun(chunk: Chunk) -> Begun:
    count = len(chunk.tokens)
    return Begun(chunk.slot, count, chunk.position + count, chunk.rows < count)
