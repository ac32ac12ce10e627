"""Reads what a llama-server prints: its buffers, how far a load is, and why it failed. Pure.

Its log is for people and changes between releases, so nothing is concluded from a line that is
missing: an unknown log means unknown buffers and a progress that is told by memory alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from llmdispatcher.models.errors import (
    CorruptModel,
    ExecutableNotFound,
    OutOfMemory,
    UnsupportedArchitecture,
    VendorError,
)

MIB = 2**20

MAX_BUFFERS = 256
"""Kinds of buffers on all devices; a load makes a handful on each."""

_BUFFER = re.compile(
    r"(\S+)\s+(model|KV|compute|output|RS|LoRA)\s+buffer size\s*=\s*([\d.]+)\s*MiB", re.IGNORECASE
)
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_STAGES = (
    ("loading model '", 0.02),
    ("loaded meta data", 0.05),
    ("loading model tensors", 0.1),
    ("constructing llama_context", 0.8),
    ("warming up", 0.9),
    ("model loaded", 0.95),
)
"""What it prints as it loads, and how much of the time has passed then, about. Before the context
is made, weights are read, which memory tells of."""

_WEIGHTS_PART = (0.1, 0.8)

_PORT_TAKEN = re.compile(
    r"couldn't bind|address already in use|bind.*(failed|error)|failed to bind", re.IGNORECASE
)
_ARCHITECTURE = re.compile(r"unknown model architecture: '([^']*)'")
_NO_MEMORY = re.compile(
    r"cannot allocate memory|failed to allocate|insufficient memory|bad_alloc|out of memory",
    re.IGNORECASE,
)
_BAD_FILE = re.compile(
    r"error loading model|failed to load model|bad GGUF|corrupted or incomplete"
    r"|failed to read (header|magic)|invalid magic",
    re.IGNORECASE,
)
_BAD_FLAG = re.compile(r"(?:invalid argument|unknown argument|error while handling argument)[^\n]*")
_PREFIX = re.compile(r"^[\d.]+ [IWED] ")
"""Time and level, as it begins its lines."""

_LINE_CHARS = 300
"""How much of a line a message quotes."""


@attrs.frozen(kw_only=True)
class Buffers:
    """What a server said that it allocated."""

    bytes_of: tuple[tuple[str, str, int], ...] = ()
    """Device, kind and bytes: ("CPU", "KV", 1310720)."""
    offloaded: tuple[int, int] | None = None
    """Layers on GPUs, of how many."""

    @property
    def total_bytes(self) -> int:
        """All of them, on all devices."""
        return sum(size for _, _, size in self.bytes_of)


class Log:
    """Takes the lines of one load as they come."""

    def __init__(self) -> None:
        self.lines = 0
        """How many there were, as a sign of life."""
        self._stage = 0.0
        self._sizes: dict[tuple[str, str], int] = {}
        self._offloaded: tuple[int, int] | None = None

    def take(self, line: str) -> None:
        """Read a line."""
        self.lines += 1
        for text, fraction in _STAGES:
            if text in line:
                self._stage = max(self._stage, fraction)
        if (found := _BUFFER.search(line)) and len(self._sizes) < MAX_BUFFERS:
            key = (found[1], found[2])
            self._sizes[key] = self._sizes.get(key, 0) + int(float(found[3]) * MIB)
        if found := _OFFLOADED.search(line):
            self._offloaded = (int(found[1]), int(found[2]))

    def buffers(self) -> Buffers:
        """Return what was allocated, as far as it was told."""
        sizes = tuple((device, kind, size) for (device, kind), size in self._sizes.items())
        return Buffers(bytes_of=sizes, offloaded=self._offloaded)

    def fraction(self, resident_part: float) -> float:
        """Say how far a load is; ``resident_part`` is what is in memory, of what will be.

        Below 1, which only an answer of the server is.
        """
        low, high = _WEIGHTS_PART
        weights = min(high, low + (high - low) * max(0.0, resident_part)) if self._stage else 0.0
        return max(self._stage, weights)


def is_port_taken(text: str) -> bool:
    """Whether it ended because somebody else listens where it was to."""
    return _PORT_TAKEN.search(text) is not None


def failure(text: str, path: str) -> VendorError | None:
    """Return why a server that ended by itself could not load; None where its log does not say."""
    if found := _ARCHITECTURE.search(text):
        return UnsupportedArchitecture(
            f"this llama-server does not know the architecture {found[1]!r} of {path}; a newer one"
            " may",
            architecture=found[1],
        )
    lines = text.splitlines()
    if told := _first(lines, _NO_MEMORY):
        return OutOfMemory(
            f"the server ran out of memory: {told}; use a smaller context, fewer layers on the GPU"
            " or a smaller model"
        )
    if told := _first(lines, _BAD_FILE):
        return CorruptModel(f"llama-server cannot load {path}: {told}", path=path)
    if found := _BAD_FLAG.search(text):
        return ExecutableNotFound(
            f"this llama-server does not take what it is told ({found[0].strip()}): install a newer"
            " llama.cpp"
        )
    return None


def _first(lines: Iterable[str], pattern: re.Pattern[str]) -> str:
    for line in lines:
        if pattern.search(line):
            return _PREFIX.sub("", line).strip()[:_LINE_CHARS]
    return ""
