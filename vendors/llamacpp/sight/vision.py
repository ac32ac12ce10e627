"""Images beside a text model: llama.cpp's mtmd, whose projector turns pictures into cells.

Owns a loaded projector file, what pictures take in a prompt, and what was computed of the last
ones. Files of strangers are decoded by ``pixels``, and projectors looked at by ``projector``,
before C sees either. Runs in the engine's thread; any thread may call ``interrupt``.
"""

from __future__ import annotations

import ctypes
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from llmdispatcher.models.errors import (
    BadRequest,
    EngineCrashed,
    OutOfMemory,
    Unsupported,
    UnsupportedArchitecture,
)
from llmdispatcher.vendors.llamacpp.binding import log
from llmdispatcher.vendors.llamacpp.binding.library import lib, mtmd_lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary, reason
from llmdispatcher.vendors.llamacpp.engine.backend import Interrupted, NoRoom
from llmdispatcher.vendors.llamacpp.sight import projector
from llmdispatcher.vendors.llamacpp.sight.pictures import MARKER, Picture, Piece, Tokens, append
from llmdispatcher.vendors.llamacpp.sight.pixels import Pixels, pixels_of

MAX_LAYOUTS = 256
"""Images whose place in a prompt is remembered: some hundred bytes each."""
CACHE_BYTES = 128 * 2**20
"""Of embeddings that are kept: some dozens of images of a model of 4,096 numbers a cell."""

_TEXT, _IMAGE = 0, 1
"""mtmd_input_chunk_type (mtmd.h)."""
_NODES = 64
"""So many nodes of the projector's graph are computed between looks at whether to stop: real ones
have 600 to 2,000, so that an encoding of ten seconds ends in about one."""

Floats = npt.NDArray[np.float32]


class Projector:
    """A loaded projector file beside a text model. Must be closed before the model is."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Any,  # noqa: ANN401 - a C pointer
        *,
        threads: int,
        gpu: bool,
        image_tokens: int | None = None,
    ) -> None:
        """Load.

        Args:
            path: the projector file.
            model: the text model, as llama.cpp holds it.
            threads: for encoding, for good: mtmd has no way to change them.
            gpu: put it on a GPU, where there is one.
            image_tokens: the most cells that one image takes, with models that take images of any
                size; None is the model's own bound, up to 4,096.

        Raises a VendorError that says why loading failed:
        ModelFileMissing and CorruptModel are about the file; UnsupportedArchitecture says that it
        is no projector for images, or that it belongs to another model.
        """
        self._context: Any = None
        self._seen: OrderedDict[bytes, tuple[Piece, ...]] = OrderedDict()
        self._embeddings = _Embeddings(CACHE_BYTES)
        self._width = int(lib.llama_model_n_embd_inp(model))
        self._vocabulary = Vocabulary(model)
        header = projector.read_projector(path, self._width)
        self._path = header.path
        self._pause = _Pause()
        mtmd = mtmd_lib()
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.print_timings = gpu, threads, False
        params.cb_eval = self._pause.callback
        params.image_max_tokens = image_tokens or -1
        with log.listening() as lines:
            self._context = mtmd.mtmd_init_from_file(os.fsencode(self._path), model, params)
        if not self._context:
            raise _load_error(self._path, reason(list(lines)))
        self.causal = not mtmd.mtmd_decode_use_non_causal(self._context, None)
        """Whether the cells of an image may be decoded in several batches."""
        self._axes = 4 if mtmd.mtmd_decode_use_mrope(self._context) else 1

    def read(
        self, text: str, images: Sequence[bytes], *, context_tokens: int | None = None
    ) -> list[Piece]:
        """Turn a prompt, with MARKER where each image is, into text and pictures in order.

        The model's own start token is put in front where it wants one. Images are files of the
        formats that ``pixels`` reads. Raises BadRequest, ContextOverflow or Unsupported.
        """
        texts = text.split(MARKER)
        if len(texts) != len(images) + 1:
            told = f"{len(images)}, and the prompt has places for {len(texts) - 1}"
            allowed = "as many as the model's chat template shows; it may not know images"
            raise BadRequest("number of images", told, allowed)
        pieces: list[Piece] = []
        for index, part in enumerate(texts):
            if index:
                append(pieces, *self._layout(images[index - 1]))
            if part or not index:
                tokens = self._vocabulary.tokenize(
                    part, add_special=not index, context_tokens=context_tokens
                )
                append(pieces, Tokens(tokens))
        return pieces

    def _layout(self, data: bytes) -> tuple[Piece, ...]:
        """Return what stands for one image: the pictures, and the tokens around them."""
        digest = sha256(data).digest()
        if digest not in self._seen:
            # a damaged file is refused here, before anybody makes room for it
            blank = attrs.evolve(pixels_of(data), rgb=b"")
            with self._chunks(blank) as chunks:
                self._seen[digest] = tuple(_pieces(chunks, digest))
            if len(self._seen) > MAX_LAYOUTS:
                self._seen.popitem(last=False)
        self._seen.move_to_end(digest)
        return tuple(
            attrs.evolve(piece, data=data) if isinstance(piece, Picture) else piece
            for piece in self._seen[digest]
        )

    @contextmanager
    def _chunks(self, pixels: Pixels) -> Iterator[list[Any]]:
        """Have mtmd cut an image up; without colours, only to learn into what."""
        mtmd, colours = mtmd_lib(), None
        if pixels.rgb:
            address = ctypes.c_char_p(pixels.rgb)
            colours = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))  # mtmd copies them
        bitmap = mtmd.mtmd_bitmap_init(pixels.width, pixels.height, colours)
        chunks = mtmd.mtmd_input_chunks_init()
        part = mtmd.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        try:
            with log.listening() as lines:
                code = mtmd.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False)  # noqa: FBT003 - C call: no start token
            if code:
                shown = f"{pixels.width} x {pixels.height} pixels"
                raise BadRequest("image", shown, f"one that mtmd takes: {reason(list(lines))}")
            count = mtmd.mtmd_input_chunks_size(chunks)
            yield [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def check(self, picture: Picture, batch_tokens: int) -> None:
        """Raise Unsupported for a picture that must be decoded at once and does not fit a batch."""
        if not self.causal and picture.count > batch_tokens:
            raise Unsupported(
                "images",
                f"this model decodes the {picture.count} cells of an image at once, and a batch"
                f" has room for {batch_tokens} tokens; load it with a larger context_tokens",
            )

    def decode(
        self,
        context: Any,  # noqa: ANN401 - a C pointer
        picture: Picture,
        *,
        position: int,
        slot: int,
        batch_tokens: int,
    ) -> int:
        """Append a picture to a slot of the text model's context; returns the next position.

        What was computed of an image is kept for a while, so that only its decoding is done
        again. Raises Interrupted, NoRoom or EngineCrashed, with nothing left in the slot of what
        was begun (or, with a recurrent model, of anything: see ``backend.Interrupted``).
        """
        self.check(picture, batch_tokens)
        rows = self._encoded(picture)
        axes = picture.grid[: self._axes] + np.int32(position)
        if self._axes > 1:
            axes[3] = 0  # mtmd leaves the fourth axis unused (mtmd_image_tokens_get_decoder_pos)
        lib.llama_set_causal_attn(context, self.causal)
        try:
            for start in range(0, picture.count, batch_tokens):
                end = min(start + batch_tokens, picture.count)
                code = _decode(context, rows[start:end], axes[:, start:end], slot)
                if code:
                    memory = lib.llama_get_memory(context)
                    lib.llama_memory_seq_rm(memory, slot, position, -1)
                    raise _failure(code, picture)
        finally:
            lib.llama_set_causal_attn(context, True)  # noqa: FBT003 - C call: as text is decoded
        return position + picture.advance

    def _encoded(self, picture: Picture) -> Floats:
        """Return the rows that the text model takes for a picture: one for each cell."""
        key = (picture.digest, picture.count)
        rows = self._embeddings.get(key)
        if rows is None:
            with self._chunks(pixels_of(picture.data)) as chunks:
                images = [chunk for chunk in chunks if _kind(chunk) == _IMAGE]
                rows = self._encode(images[picture.tile], picture)
            self._embeddings.put(key, rows)
        return rows

    def _encode(self, chunk: Any, picture: Picture) -> Floats:  # noqa: ANN401 - a C pointer
        mtmd = mtmd_lib()
        count = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        if count != picture.count:
            raise EngineCrashed(f"mtmd makes {count} cells of an image of {picture.count}")
        self._pause.nodes = 0
        with log.listening() as lines:
            code = mtmd.mtmd_encode_chunk(self._context, chunk)
        if self._pause.on:  # what was computed is not all of it
            raise Interrupted
        if code:
            raise EngineCrashed(f"mtmd cannot encode an image: {reason(list(lines))}")
        address = mtmd.mtmd_get_output_embd(self._context)
        rows: Floats = np.ctypeslib.as_array(address, (count, self._width)).copy()
        return rows

    def interrupt(self, *, on: bool) -> None:
        """Stop the encoding that is running and all to come, until it is switched off again.

        Any thread may call it. The decoding that follows is stopped by the text model's own abort
        callback.
        """
        self._pause.on = on

    def close(self) -> None:
        """Give all memory back. Idempotent."""
        if self._context:
            mtmd_lib().mtmd_free(self._context)
        self._context = None
        self._embeddings = _Embeddings(CACHE_BYTES)
        self._seen.clear()


class _Pause:
    """Whether to stop, and the callback through which a projector's graph asks."""

    def __init__(self) -> None:
        self.on = False
        self.nodes = 0

    @cached_property
    def callback(self) -> Any:  # noqa: ANN401 - a C function
        """A ggml_backend_sched_eval_callback; it must live as long as the projector."""
        return lib.ggml_backend_sched_eval_callback(self._look)

    def _look(self, _: object, asks: bool, __: object) -> bool:  # noqa: FBT001 - called by C
        """Say whether to compute up to this node and look again, or, after that, to go on."""
        if not asks:
            return not self.on
        self.nodes += 1
        return self.on or self.nodes % _NODES == 0


class _Embeddings:
    """The last images' rows, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[tuple[bytes, int], Floats] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[bytes, int]) -> Floats | None:
        if key in self._rows:
            self._rows.move_to_end(key)
        return self._rows.get(key)

    def put(self, key: tuple[bytes, int], rows: Floats) -> None:
        self._rows[key] = rows
        self._bytes += rows.nbytes
        while self._bytes > self._most_bytes and self._rows:
            self._bytes -= self._rows.popitem(last=False)[1].nbytes


def _kind(chunk: Any) -> int:  # noqa: ANN401 - a C pointer
    return int(mtmd_lib().mtmd_input_chunk_get_type(chunk))


def _pieces(chunks: Sequence[Any], digest: bytes) -> Iterator[Piece]:
    """Read what mtmd made of an image, whose file is not kept for it."""
    mtmd, tile = mtmd_lib(), 0
    for chunk in chunks:
        if _kind(chunk) == _TEXT:
            size = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
            yield Tokens(tokens[: size.value])
            continue
        count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        places = (mtmd.mtmd_decoder_pos * count)()
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        mtmd.mtmd_helper_image_get_decoder_pos(image, 0, places)
        # mtmd counts t, x, y, z, and llama.cpp's axes are t, y, x, z (mtmd-helper-common.h)
        grid = np.frombuffer(places, np.int32).reshape(count, 4).T[[0, 2, 1, 3]].copy()
        of_tile = sha256(digest + tile.to_bytes(4, "big")).digest()
        advance = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
        yield Picture(count, advance, of_tile, tile, b"", grid)
        tile += 1


def _decode(context: Any, rows: Floats, axes: npt.NDArray[np.int32], slot: int) -> int:  # noqa: ANN401 - a C pointer
    """Decode rows as one batch, with their positions on each axis; returns llama_decode's code."""
    count = len(rows)
    rows, places = np.ascontiguousarray(rows), np.ascontiguousarray(axes)
    number = lib.llama_seq_id(slot)
    batch = lib.llama_batch()
    batch.n_tokens = count
    batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    batch.pos = places.ctypes.data_as(ctypes.POINTER(lib.llama_pos))
    batch.n_seq_id = (ctypes.c_int32 * count)(*[1] * count)
    batch.seq_id = (ctypes.POINTER(lib.llama_seq_id) * count)(*[ctypes.pointer(number)] * count)
    batch.logits = (ctypes.c_int8 * count)()
    code = int(lib.llama_decode(context, batch))
    lib.llama_synchronize(context)
    return code


def _failure(code: int, picture: Picture) -> Exception:
    """Return what a code of llama_decode means; the same as in ``native``."""
    if code == 1:
        return NoRoom()
    if code == 2:  # noqa: PLR2004 - as documented in llama.h
        return Interrupted()
    return EngineCrashed(f"llama_decode failed with code {code} for an image of {picture.count}")


def _load_error(path: str, told: str) -> Exception:
    """Turn mtmd's reason for a failed load into an error."""
    if "bad_alloc" in told or "allocate" in told:
        return OutOfMemory(f"llama.cpp ran out of memory while loading {path}: {told}")
    return UnsupportedArchitecture(
        f"llama.cpp cannot use {path} with this model: {told}; take the projector (mmproj) that was"
        " made from the same model, and a newer llama-cpp-python for newer ones"
    )
