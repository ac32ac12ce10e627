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
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from llmdispatcher.models.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmdispatcher.vendors.llamacpp.rules.rules import Rule


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


class Picture(Protocol):
    """An image that a prompt shows, ready to be decoded."""

    @property
    def count(self) -> int:
        """Cells that it takes."""


class Chunk(NamedTuple):
    """Tokens that one decode appends to one slot."""

    slot: int
    position: int
    """How many tokens the slot holds already."""
    tokens: Sequence[int]
    rows: int
    """After so many of its last tokens one may be drawn: 0, 1, or more where it ends in guesses."""
    picture: Picture | None = None
    """What to decode instead of the tokens, which then only stand for it. Alone in its decode."""


class Constraint(Protocol):
    """What the tokens of one reply must match, and how far they have come.

    All but ``close`` raise BadReply where the rule takes too much to follow.
    """

    @property
    def ending(self) -> int | None:
        """A token that ends the reply, where nothing else may follow."""

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return for each token whether it may come next."""

    def accept(self, token: int) -> None:
        """Go on by a token that may come next."""

    def copy(self) -> Constraint:
        """Return one of its own, as far as this one is."""

    def close(self) -> None:
        """Give its memory back. Idempotent."""


class Sampler(Protocol):
    """Draws tokens for one sequence, and remembers the ones it drew."""

    def sample(self, row: int) -> int:
        """Draw a token from a row of the last decode, counted over all of its chunks from 0."""

    def close(self) -> None:
        """Give its memory back. Idempotent."""


Adapting = tuple[tuple[str, float], ...]
"""LoRA adapters and their scales, as ``Request.adapters``."""


@attrs.frozen
class Drawn:
    """How one reply is drawn."""

    sampling: Sampling
    """What it leaves open takes llama.cpp's defaults."""
    seed: int
    recent: Sequence[int] = ()
    """The last tokens of the prompt, which penalties for repetition count in."""
    constraint: Constraint | None = None
    """Given to the sampler, which closes it."""


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

    def infill(self, prefix: str, suffix: str) -> list[int]:
        """Return the prompt for what belongs between two texts. Raises Unsupported."""

    def token(self, text: str) -> int | None:
        """Return the one token that is written so; None if there is none."""

    def mark(self, text: str) -> int | None:
        """Return the token that is a mark, and never text, written so; None if there is none."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token; control tokens have none unless ``special``."""

    def ends(self, token: int) -> bool:
        """Whether the token ends the reply."""

    def constraint(self, rule: Rule) -> Constraint:
        """Compile a rule. Raises InvalidGrammar."""

    def sampler(self, drawn: Drawn) -> Sampler:
        """Make a sampler."""

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """Append each chunk to its slot, all in one step.

        Raises NoRoom, Interrupted or EngineCrashed.
        """

    def trim(self, slot: int, count: int) -> None:
        """Take back all of a slot but its first ``count`` tokens. Only with ``Sharing.PREFIX``."""

    def check_adapters(self, adapters: Adapting) -> None:
        """Raise Unsupported for an adapter that is not there."""

    def adapt(self, adapters: Adapting) -> None:
        """Decode with these adapters from now on; they must be there."""

    def save(self, slot: int) -> bytes:
        """Return what a slot holds, as only the same model in the same build reads it."""

    def restore(self, slot: int, data: bytes, count: int) -> bool:
        """Fill an empty slot with ``count`` tokens that ``save`` wrote; False if it cannot."""

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
