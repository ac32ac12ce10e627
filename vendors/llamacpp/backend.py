"""What the engine needs of a loaded model. ``native`` implements it over llama.cpp.

A *slot* is a sequence id of llama.cpp: it holds the first tokens of one conversation, decoded. All
slots share one pool of *cells*, one cell for each token, and slots that begin alike can share
cells. Which slot holds what is ``cells``'s to know; here it is only carried out.

Every method is called from the engine's own thread, except ``interrupt``, which any thread may
call. Conditions under which llama.cpp would abort the process are checked by the implementation,
which raises ``EngineCrashed`` or a narrower error instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from llmdispatcher.models.request import Sampling


class Interrupted(Exception):
    """``interrupt`` stopped a decode; what it was to append is in no slot.

    With ``Sharing.WHOLE``, all slots are empty.
    """


class NoRoom(Exception):
    """The pool has no cells for a decode; nothing has changed."""


class Sharing(StrEnum):
    """What a slot can take over from another."""

    PREFIX = "prefix"
    """Any number of first tokens."""
    WHOLE = "whole"
    """All of it or nothing: recurrent models keep a state, which cannot go back."""
    NONE = "none"
    """Nothing: layers with a sliding window have forgotten the rest."""


class Chunk(NamedTuple):
    """Tokens that one decode appends to one slot."""

    slot: int
    position: int
    """How many tokens the slot holds already."""
    tokens: Sequence[int]
    draws: bool
    """Whether a token will be drawn after the last of them."""


class Sampler(Protocol):
    """Draws tokens for one sequence, and remembers the ones it drew."""

    def sample(self, row: int) -> int:
        """Draw a token from a row of the last decode: its chunks that draw, counted from 0."""

    def close(self) -> None:
        """Give its memory back. Idempotent."""


class Backend(Protocol):
    """A loaded model and its slots."""

    context_tokens: int
    """The longest conversation."""
    cells: int
    """Tokens that all slots can hold together; at least ``context_tokens``."""
    slots: int
    batch_tokens: int
    """The most tokens that one decode takes."""
    sharing: Sharing
    bos: str
    eos: str

    def tokenize(self, text: str) -> list[int]:
        """Turn text into tokens; the model's own start token is put in front where it wants one."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token; control tokens have none unless ``special``."""

    def ends(self, token: int) -> bool:
        """Whether the token ends the reply."""

    def sampler(self, sampling: Sampling, seed: int, recent: Sequence[int]) -> Sampler:
        """Make a sampler; what ``sampling`` leaves open takes llama.cpp's defaults.

        ``recent`` are the last tokens of the prompt, which penalties for repetition count in.
        """

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Append each chunk to its slot, all in one step.

        Raises NoRoom, Interrupted or EngineCrashed.
        """

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the natural logarithm of a token's probability, and the likeliest with theirs."""

    def share(self, source: int, target: int, count: int) -> bool:
        """Let an empty slot hold the first ``count`` tokens of another; False if it cannot."""

    def drop(self, slot: int) -> None:
        """Empty a slot."""

    def set_threads(self, threads: int) -> None:
        """Decode with so many threads from now on."""

    def interrupt(self, *, on: bool) -> None:
        """Stop the decode that is running and all to come, until it is switched off again."""

    def close(self) -> None:
        """Give all memory back. Idempotent."""
