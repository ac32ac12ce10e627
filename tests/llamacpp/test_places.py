"""Where what a slot holds lies for llama.cpp."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.sight.places import Places

PARTS = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 9), st.none()),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ),
    max_size=8,
)
"""Tokens (how many), and pictures (how many cells and how many positions they take)."""


def filled(parts: list[tuple[int, int | None]]) -> tuple[Places, list[int | None]]:
    """Fill a slot; returns the position after each count of tokens, None inside a picture."""
    places, positions, at = Places(2), list[int | None]([0]), 0
    for count, advance in parts:
        if advance is None:
            places.lengths[0] += count
            positions += range(at + 1, at + count + 1)
            at += count
        else:
            places.show(0, count, advance)
            at += advance
            positions += [*[None] * (count - 1), at]
    return places, positions


@given(PARTS)
def test_every_token_has_its_place(parts: list[tuple[int, int | None]]) -> None:
    """After a picture, tokens lie where that picture's positions end."""
    places, positions = filled(parts)

    assert [places.position(0, count) for count in range(len(positions))] == positions
    assert places.lengths[0] + places.shifts[0] == positions[-1]


@given(PARTS, st.data())
def test_a_copy_is_what_was_copied(
    parts: list[tuple[int, int | None]], data: st.DataObject
) -> None:
    """A slot with the first tokens of another has them at the same places, and nothing more."""
    places, positions = filled(parts)
    borders = [count for count, at in enumerate(positions) if at is not None]
    count = data.draw(st.sampled_from(borders))

    places.copy(0, 1, count)

    assert [places.position(1, n) for n in range(count + 1)] == positions[: count + 1]
    assert places.lengths[1] + places.shifts[1] == positions[count]
    places.copy(1, 1, 0)
    assert (places.lengths[1], places.shifts[1], places.position(1, 0)) == (0, 0, 0)
