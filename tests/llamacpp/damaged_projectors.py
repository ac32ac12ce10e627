"""Damage projectors in many ways, and show an image to those that load: run in a child process.

Takes a folder, a seed, and how many of each kind; prints each damage before it is tried, so that
the last line tells what ended the process, and at the end how many were refused and served.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

from bare_llama import Bare
from vision_gguf import KINDS, Eye, metadata_of, picture, seeing_model, tensors_of, tiny_projector

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.llamacpp.sight.pictures import MARKER, Picture
from llmdispatcher.vendors.llamacpp.sight.vision import Projector

NUMBERS = (0, 1, 2, 3, 5, 7, 8, 16, 31, 33, 64, 100, 1000, 65_536, 2**31 - 1, 2**32 - 1)
VALUES: tuple[Any, ...] = (None, True, 1.5, -1.0, float("nan"), "x", [1.0], [-3, 64], [1, 2, 3])
_RARE = (
    "attention.head_count_kv attention.head_dim feature_layer image_grid_pinpoints image_min_pixels"
    " n_wa_pattern projector.scale_factor spatial_merge_size window_size"
)
RARE = _RARE.split()


def damaged(random: Random, path: Path, kind: str) -> str:
    """Write a projector with something wrong; says what."""
    metadata, tensors = metadata_of(Eye(kind=kind)), tensors_of(Eye(kind=kind))
    part = random.random()
    if part < 0.5:
        keys = [*metadata, *(f"clip.vision.{name}" for name in RARE)]
        key, value = random.choice(keys), random.choice((*NUMBERS, *VALUES))
        tiny_projector(path, kind=kind, metadata={key: value})
        return f"{key} = {value}"
    name = random.choice(list(tensors))
    if part < 0.6:
        tiny_projector(path, kind=kind, tensors={name: None})
        return f"no {name}"
    shape = _bent(random, list(tensors[name] or ()))
    tiny_projector(path, kind=kind, tensors={name: tuple(shape[:4])})
    if part > 0.9:
        data = bytearray(path.read_bytes())
        data[random.randrange(4000)] = random.randrange(256)
        path.write_bytes(data)
    return f"{name} of {shape}, and perhaps a byte"


def _bent(random: Random, shape: list[int]) -> list[int]:
    how, at = random.randrange(4), random.randrange(len(shape))
    if how == 0:
        return shape[::-1]
    if how == 1:
        return [*shape, 2]
    shape[at] = max(1, random.choice([shape[at] * 2, shape[at] // 2, shape[at] + 1, 1]))
    return shape


def serves(path: Path, bare: Bare) -> bool:
    """Load a projector and show it an image; False if it is refused."""
    try:
        found = Projector(path, bare.model, threads=1, gpu=False)
    except DispatcherError:
        return False
    try:
        for piece in found.read(MARKER, [picture(1)]):
            if isinstance(piece, Picture) and piece.count <= bare.batch:
                bare.empty()
                found.decode(bare.context, piece, position=0, slot=0, batch_tokens=bare.batch)
    except DispatcherError:
        return False
    finally:
        found.close()
    return True


def main(folder: Path, seed: int, count: int) -> None:
    """Try them all."""
    random, told = Random(seed), [0, 0]  # noqa: S311 - repeatable damage, no secret
    for kind in KINDS:
        with Bare(seeing_model(folder / "model.gguf", kind)) as bare:
            for _ in range(count):
                print(kind, damaged(random, folder / "x.gguf", kind), flush=True)  # noqa: T201 - see above
                told[serves(folder / "x.gguf", bare)] += 1
    print(*told)  # noqa: T201 - see above


main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
