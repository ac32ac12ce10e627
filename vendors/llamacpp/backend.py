"""What the engine needs of a loaded model. ``native`` implements it over llama.cpp.

Every method is called from the engine's own thread, except ``interrupt``, which any thread may
call. Conditions under which llama.cpp would abort the process are checked by the implementation,
which raises ``EngineCrashed`` or a narrower error instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llmdispatcher.models.request import Sampling


class Interrupted(Exception):
    """``interrupt`` stopped a decode; the sequence that was being decoded is lost."""


class Sampler(Protocol):
    """Draws tokens for one sequence, and remembers the ones it drew."""

    def sample(self) -> int:
        """Draw the next token from the output of the last decode."""

    def close(self) -> None:
        """Give its memory back. Idempotent."""


class Backend(Protocol):
    """A loaded model with one sequence of tokens decoded so far."""

    context_tokens: int
    batch_tokens: int
    """The most tokens that one decode takes."""
    bos: str
    eos: str

    def tokenize(self, text: str) -> list[int]:
        """Turn text into tokens; the model's own start token is put in front where it wants one."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""

    def ends(self, token: int) -> bool:
        """Whether the token ends the reply."""

    def sampler(self, sampling: Sampling, seed: int, recent: Sequence[int]) -> Sampler:
        """Make a sampler; what ``sampling`` leaves open takes llama.cpp's defaults.

        ``recent`` are the last tokens of the prompt, which penalties for repetition count in.
        """

    def decode(self, tokens: Sequence[int], position: int) -> None:
        """Append tokens to the sequence, which holds ``position`` tokens now.

        Raises Interrupted, OutOfMemory or EngineCrashed.
        """

    def keep(self, count: int) -> bool:
        """Cut the sequence to its first tokens; False if the model cannot: then it is empty."""

    def set_threads(self, threads: int) -> None:
        """Decode with so many threads from now on."""

    def interrupt(self, *, on: bool) -> None:
        """Stop the decode that is running and all to come, until it is switched off again."""

    def close(self) -> None:
        """Give all memory back. Idempotent."""
