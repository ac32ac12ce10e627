"""Images through mtmd: what they take, that they are seen, shared and forgotten as text is."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from bare_llama import SLOTS, Bare
from leaks import growth_bytes
from vision_gguf import KINDS, picture, seeing_model, tiny_projector

from llmdispatcher.models.errors import BadRequest, ContextOverflow, Unsupported
from llmdispatcher.vendors.llamacpp.binding.library import lib, mtmd_lib
from llmdispatcher.vendors.llamacpp.engine.backend import Interrupted, NoRoom
from llmdispatcher.vendors.llamacpp.sight import vision
from llmdispatcher.vendors.llamacpp.sight.pictures import (
    MARKER,
    Picture,
    Piece,
    Tokens,
    pseudo_tokens,
    whole,
)
from llmdispatcher.vendors.llamacpp.sight.pixels import pixels_of
from llmdispatcher.vendors.llamacpp.sight.vision import Projector

Scores = npt.NDArray[np.float32]

PROMPT = f"ba da {MARKER} ga"
CELLS = {"mlp": (64, 64), "qwen2vl_merger": (9, 3), "qwen2.5vl_merger": (9, 3), "gemma3": (16, 16)}
"""Cells and positions of a picture of 24 x 20 pixels: all 8 x 8 patches; a grid of 3 x 3 of 8
pixels, as far as its longer side; 8 x 8 patches pooled two by two."""

TOLERANCE = 2e-5
"""Of scores near 1 whose sums were formed in another order."""
GROWTH_BYTES = 8 * 2**20
"""What 900 more images may leave behind: below 10 kB each, and each takes 100 kB on its way."""


@attrs.frozen
class Seeing:
    """A model of one kind with its projector."""

    kind: str
    bare: Bare
    projector: Projector
    path: Path
    """Of the projector."""

    def read(self, *images: bytes, text: str = PROMPT) -> list[Piece]:
        """Read a prompt."""
        return self.projector.read(text, images)

    def show(self, pieces: Sequence[Piece], slot: int = 0, batch: int | None = None) -> Scores:
        """Decode a prompt from its start; returns the scores after its last token."""
        self.bare.empty()
        return self.go_on(pieces, 0, slot, batch)

    def go_on(
        self, pieces: Sequence[Piece], position: int, slot: int = 0, batch: int | None = None
    ) -> Scores:
        """Decode pieces from a position on."""
        scores = np.zeros(0, np.float32)
        for piece in pieces:
            if isinstance(piece, Tokens):
                scores = self.bare.decode(piece.tokens, position, slot)
                position += len(piece.tokens)
            else:
                most = batch or self.bare.batch
                position = self.projector.decode(
                    self.bare.context, piece, position=position, slot=slot, batch_tokens=most
                )
        return scores


def picture_of(pieces: Sequence[Piece]) -> Picture:
    """Return the only picture of a prompt."""
    (found,) = [piece for piece in pieces if isinstance(piece, Picture)]
    return found


@pytest.fixture(scope="module", params=KINDS)
def seeing(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeing]:
    """Each kind of projector, beside a model that it fits."""
    folder = tmp_path_factory.mktemp(request.param)
    path = tiny_projector(folder / "mmproj.gguf", kind=request.param)
    with Bare(seeing_model(folder / "model.gguf", request.param)) as bare:
        projector = Projector(path, bare.model, threads=1, gpu=False)
        yield Seeing(request.param, bare, projector, path)
        projector.close()


@pytest.fixture
def llava(tmp_path: Path) -> Iterator[Seeing]:
    """The simplest kind, for one test alone."""
    path = tiny_projector(tmp_path / "mmproj.gguf")
    with Bare(seeing_model(tmp_path / "model.gguf", "mlp")) as bare:
        projector = Projector(path, bare.model, threads=1, gpu=False)
        yield Seeing("mlp", bare, projector, path)
        projector.close()


def test_a_picture_takes_its_cells_and_positions(seeing: Seeing) -> None:
    """Text, picture and text come in order, and the picture knows what it takes."""
    before, found, after = seeing.read(picture())

    assert isinstance(before, Tokens)
    assert isinstance(found, Picture)
    assert isinstance(after, Tokens)
    assert (found.count, found.advance) == CELLS[seeing.kind]
    assert before.tokens[0] == 1
    assert 1 not in after.tokens
    assert seeing.show([before, found, after]).shape == (seeing.bare.vocab,)


def test_an_image_is_seen_and_the_same_image_is_seen_the_same(seeing: Seeing) -> None:
    """Equal images give equal scores to the last bit, in any slot; another gives others."""
    first = seeing.show(seeing.read(picture(1)))
    other = seeing.show(seeing.read(picture(2)))
    again = seeing.show(seeing.read(picture(1)), slot=SLOTS - 1)

    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_it_is_what_mtmd_does_by_itself(seeing: Seeing) -> None:
    """Prompt and scores are those of mtmd's own helper, which llama.cpp's programs use."""
    ours = seeing.show(seeing.read(picture(1)))
    seeing.bare.empty()
    theirs = by_helper(seeing, pixels_of(picture(1)).rgb, (24, 20))

    assert np.abs(ours - theirs).max() < TOLERANCE


def by_helper(seeing: Seeing, rgb: bytes, size: tuple[int, int]) -> Scores:
    """Have mtmd tokenize, encode and decode the prompt with one image."""
    mtmd, context = mtmd_lib(), seeing.projector._context
    text = PROMPT.replace(MARKER, "<__media__>").encode()
    address = ctypes.cast(ctypes.c_char_p(rgb), ctypes.POINTER(ctypes.c_uint8))
    bitmap, chunks = mtmd.mtmd_bitmap_init(*size, address), mtmd.mtmd_input_chunks_init()
    given = mtmd.mtmd_input_text(text, len(text), add_special=True, parse_special=True)
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(given), bitmaps, 1) == 0
    end = lib.llama_pos()
    wants_scores = True
    done = mtmd.mtmd_helper_eval_chunks(
        context,
        seeing.bare.context,
        chunks,
        0,
        0,
        seeing.bare.batch,
        wants_scores,
        ctypes.byref(end),
    )
    assert done == 0
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    scores = lib.llama_get_logits_ith(seeing.bare.context, -1)
    return np.ctypeslib.as_array(scores, (seeing.bare.vocab,)).copy()


def test_text_alone_is_as_without_a_projector(seeing: Seeing, tmp_path: Path) -> None:
    """A loaded projector, and images seen before, change nothing for text."""
    seeing.show(seeing.read(picture(1)))
    (words,) = seeing.read(text="ba da ga")
    assert isinstance(words, Tokens)
    with Bare(seeing_model(tmp_path / "model.gguf", seeing.kind)) as alone:
        assert np.array_equal(seeing.show([words]), alone.decode(words.tokens))


def test_several_images_are_each_at_their_place(seeing: Seeing) -> None:
    """Images keep their order, which matters, and one may begin or end the prompt."""
    text = f"{MARKER}{MARKER} ba {MARKER}"
    given = [picture(1), picture(2), picture(1)]

    pieces = seeing.read(*given, text=text)
    turned = seeing.read(*given[1:], given[1], text=text)

    assert [p.data for p in pieces if isinstance(p, Picture)] == given
    last = Tokens([300])
    assert np.abs(seeing.show([*pieces, last]) - seeing.show([*turned, last])).max() > 0.01


def test_an_image_may_go_in_several_batches(seeing: Seeing) -> None:
    """Cells that look only back go in batches of any size; those that look around go at once."""
    pieces = seeing.read(picture(1))
    if seeing.projector.causal:
        assert np.abs(seeing.show(pieces, batch=4) - seeing.show(pieces)).max() < TOLERANCE
        return
    with pytest.raises(Unsupported, match="16 cells of an image at once"):
        seeing.show(pieces, batch=15)
    assert seeing.show(pieces, batch=16).any()


def test_a_prefix_with_an_image_can_be_shared(seeing: Seeing) -> None:
    """What follows a copied prefix is as if the prefix had been decoded: cut after the image."""
    before, found, after = seeing.read(picture(1))
    full = seeing.show([before, found, after])
    seeing.show([before, found, Tokens([300, 301])])
    assert isinstance(before, Tokens)
    assert isinstance(found, Picture)
    end = len(before.tokens) + found.advance
    memory = lib.llama_get_memory(seeing.bare.context)

    lib.llama_memory_seq_cp(memory, 0, 1, 0, end)
    shared = seeing.go_on([after], end, slot=1)

    assert np.abs(shared - full).max() < TOLERANCE


def test_what_was_computed_of_an_image_is_kept(seeing: Seeing) -> None:
    """A known image is not encoded again, so that nothing is left to interrupt."""
    seeing.show(seeing.read(picture(1)))
    seeing.projector.interrupt(on=True)
    try:
        assert seeing.show(seeing.read(picture(1))).any()
        with pytest.raises(Interrupted):
            seeing.show(seeing.read(picture(99)))
    finally:
        seeing.projector.interrupt(on=False)
    assert seeing.show(seeing.read(picture(99))).any()


def test_what_is_kept_is_bounded(llava: Seeing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings are forgotten, the oldest first, beyond a number of bytes."""
    size = 64 * 32 * 4
    kept = vision._Embeddings(3 * size)
    for name in b"abcd":
        kept.put((bytes([name]), 64), np.zeros((64, 32), np.float32))
        assert kept.get((b"a", 64)) is not None or name == ord("d")

    assert kept.get((b"b", 64)) is None
    assert kept._bytes == 3 * size

    monkeypatch.setattr(vision, "MAX_LAYOUTS", 2)
    for seed in range(4):
        llava.read(picture(seed))
    assert len(llava.projector._seen) == 2


def test_no_room_leaves_the_slot_as_it_was(llava: Seeing) -> None:
    """An image that finds no cells, even in its second batch, leaves nothing behind."""
    before, found, after = llava.read(picture(1))
    full = llava.show([before, found, after])
    llava.bare.empty()
    for slot, size in ((1, 512), (2, 460)):
        llava.bare.decode([300] * size, 0, slot)

    with pytest.raises(NoRoom):
        llava.go_on([before, found], 0, batch=32)
    memory = lib.llama_get_memory(llava.bare.context)
    assert isinstance(before, Tokens)
    assert lib.llama_memory_seq_pos_max(memory, 0) + 1 == len(before.tokens)

    lib.llama_memory_seq_rm(memory, 1, -1, -1)
    assert np.abs(llava.go_on([found, after], len(before.tokens)) - full).max() < TOLERANCE


@pytest.mark.parametrize("places", [0, 2])
def test_images_and_places_must_be_as_many(places: int, llava: Seeing) -> None:
    """A prompt that shows another number of images than there are is refused."""
    with pytest.raises(BadRequest, match="the prompt has places for"):
        llava.read(picture(), text="ba".join([MARKER] * places))


def test_a_marker_cannot_be_written_by_a_user(llava: Seeing) -> None:
    """What mtmd takes for a place by default is text like any other."""
    assert MARKER != "<__media__>"
    before, *rest = llava.read(picture(), text=f"<__media__> {MARKER}")
    assert len(rest) == 1
    assert isinstance(before, Tokens)
    assert len(before.tokens) > 5


def test_text_beside_images_has_the_usual_bounds(llava: Seeing) -> None:
    """Text that cannot fit the context is refused before it is read."""
    with pytest.raises(ContextOverflow):
        llava.projector.read(MARKER + "a" * 9000, [picture()], context_tokens=16)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 2), (640, 360)])
def test_images_of_any_size_are_seen(size: tuple[int, int], seeing: Seeing) -> None:
    """The smallest, the longest and larger ones than the projector's take what was announced."""
    pieces = seeing.read(picture(3, size))
    assert 0 < picture_of(pieces).advance <= picture_of(pieces).count
    if picture_of(pieces).count < seeing.bare.batch:
        assert np.isfinite(seeing.show(pieces)).all()


def test_cells_of_an_image_can_be_limited(tmp_path: Path) -> None:
    """A model that takes images of any size can be told how many cells one may take."""
    path = tiny_projector(tmp_path / "mmproj.gguf", kind="qwen2vl_merger")
    with Bare(seeing_model(tmp_path / "model.gguf", "qwen2vl_merger")) as bare:
        projector = Projector(path, bare.model, threads=1, gpu=False, image_tokens=40)
        found = picture_of(projector.read(MARKER, [picture(0, (640, 360))]))
        projector.close()
    assert 20 < found.count <= 40


def test_numbers_that_stand_for_images_are_their_own() -> None:
    """They are negative, the same for the same digest, and differ from the first on."""
    ours, again, other = (pseudo_tokens(digest, 5) for digest in (b"a", b"a", b"b"))

    assert ours == again
    assert ours[0] != other[0]
    assert ours[0] != pseudo_tokens(b"a", 4)[0]
    assert len(set(ours)) == 5
    assert max(ours) < 0
    assert min(ours) >= -(2**63)


def test_a_prefix_is_never_cut_inside_an_image() -> None:
    """A cut moves back to where an image begins; images that meet are cut between."""
    first, second = pseudo_tokens(b"a", 3), pseudo_tokens(b"b", 2)
    tokens = [5, 6, *first, *second, 7]

    cuts = [whole(tokens, count) for count in range(len(tokens) + 1)]

    assert cuts == [0, 1, 2, 2, 2, 5, 5, 7, 8]


def soak(seeing: Seeing, images: int) -> int:
    """Show different images; returns how much memory of its own the process has grown."""
    return growth_bytes(
        lambda index: seeing.show(seeing.read(picture(1000 + index))), images, GROWTH_BYTES
    )


def test_images_leave_no_memory_behind(seeing: Seeing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred images one after the other, beyond what is kept of them, do not add up."""
    monkeypatch.setattr(seeing.projector, "_embeddings", vision._Embeddings(2**16))
    assert soak(seeing, 100) < GROWTH_BYTES


@pytest.mark.soak
def test_thousands_of_images_leave_no_memory_behind(
    seeing: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, a thousand of them, and projectors that are opened and closed."""
    monkeypatch.setattr(seeing.projector, "_embeddings", vision._Embeddings(2**16))
    assert soak(seeing, 1000) < GROWTH_BYTES


def test_projectors_can_be_opened_and_closed(llava: Seeing) -> None:
    """Closing gives the memory back, twice is once, and other projectors are untouched."""

    def turn(_: int) -> None:
        projector = Projector(llava.path, llava.bare.model, threads=1, gpu=False)
        projector.close()
        projector.close()

    assert growth_bytes(turn, 50, GROWTH_BYTES) < GROWTH_BYTES
    assert llava.show(llava.read(picture())).any()
