"""What a prompt with images is made of: text, and pictures that take cells beside it.

A picture is cells like those of tokens, which no token stands for. ``Picture.tokens`` are negative
numbers made of its content, so that equal images at equal places share a prefix. Pure.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b

import attrs
import numpy as np
import numpy.typing as npt

MARKER = f"<__media_{secrets.token_hex(8)}__>"
"""What stands for each image in the text of a prompt, for ``Projector.read`` to find. It differs
from process to process, so that nobody can write it into a message to move an image."""


@attrs.frozen
class Tokens:
    """Text between images."""

    tokens: list[int]


@attrs.frozen
class Picture:
    """An image in a prompt, or a tile of one, where a model looks at it in tiles."""

    count: int
    """Cells that it takes."""
    advance: int
    """Positions that it takes: fewer than cells where a model places them on a grid (M-RoPE)."""
    digest: bytes = attrs.field(repr=False)
    """Of the file, and of which tile it is."""
    tile: int = attrs.field(repr=False)
    data: bytes = attrs.field(repr=False, eq=False)
    """The file that it is from."""
    grid: npt.NDArray[np.int32] = attrs.field(repr=False, eq=False)
    """Where each cell lies beside the first, for each of llama.cpp's four axes: 4 x count."""

    @property
    def tokens(self) -> list[int]:
        """What stands for its cells in a list of tokens."""
        return pseudo_tokens(self.digest, self.count)


Piece = Tokens | Picture


def pseudo_tokens(digest: bytes, count: int) -> list[int]:
    """Return ``count`` negative numbers that stand for an image: the same for the same digest.

    They count down one by one from a number of 62 bits, so two different images begin alike with
    a probability of 2^-62, and ``whole`` can tell where one goes on.
    """
    start = blake2b(digest + count.to_bytes(4, "big"), digest_size=8).digest()
    first = -1 - (int.from_bytes(start, "big") >> 2)
    return list(range(first, first - count, -1))


def whole(tokens: Sequence[int], count: int) -> int:
    """Return the largest number of first tokens up to ``count`` that cuts no image in two."""
    while 0 < count < len(tokens) and tokens[count] < 0 and tokens[count - 1] == tokens[count] + 1:
        count -= 1
    return count


def append(pieces: list[Piece], *more: Piece) -> None:
    """Append pieces to others; texts that meet become one."""
    for piece in more:
        last = pieces[-1] if pieces else None
        if isinstance(last, Tokens) and isinstance(piece, Tokens):
            pieces[-1] = Tokens([*last.tokens, *piece.tokens])
        else:
            pieces.append(piece)
