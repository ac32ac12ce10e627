"""Projector files: those of another kind, of another model, or damaged, end in a typed error."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_llama import Bare
from lora_gguf import lora
from vision_gguf import KINDS, picture, seeing_model, tiny_projector

from llmdispatcher.models.errors import (
    CorruptModel,
    ModelFileMissing,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.sight import projector
from llmdispatcher.vendors.llamacpp.sight.vision import Projector

DAMAGED = 60
MANY = 2000
CHILD = Path(__file__).with_name("damaged_projectors.py")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """A model of 32 numbers a token."""
    with Bare(seeing_model(tmp_path_factory.mktemp("m") / "model.gguf", "mlp")) as found:
        yield found


def load(path: Path, bare: Bare) -> None:
    """Load a projector, and close it again."""
    Projector(path, bare.model, threads=1, gpu=False).close()


def test_other_files_are_no_projectors(bare: Bare, tmp_path: Path) -> None:
    """A text model and an adapter are named as what they are, and folders and nothing too."""
    model = seeing_model(tmp_path / "model.gguf", "mlp")
    with pytest.raises(UnsupportedArchitecture, match="file of kind model, architecture llama"):
        load(model, bare)
    with pytest.raises(UnsupportedArchitecture, match="file of kind adapter"):
        load(lora(tmp_path / "lora.gguf", model), bare)
    with pytest.raises(ModelFileMissing, match="there is no file"):
        load(tmp_path / "nothing.gguf", bare)
    with pytest.raises(ModelFileMissing, match="is a folder"):
        load(tmp_path, bare)
    for data in (b"", b"garbage" * 99, picture()):
        (tmp_path / "x.gguf").write_bytes(data)
        with pytest.raises(CorruptModel):
            load(tmp_path / "x.gguf", bare)


@pytest.mark.parametrize("kind", KINDS)
def test_a_projector_of_another_model_is_refused(kind: str, bare: Bare, tmp_path: Path) -> None:
    """Where cells and tokens have different widths, both are told, with the way out."""
    path = tiny_projector(tmp_path / "mmproj.gguf", kind=kind, width=48)
    with pytest.raises(UnsupportedArchitecture, match="cells of 48 numbers and the model takes 32"):
        load(path, bare)


@pytest.mark.parametrize("kind", KINDS)
def test_a_projector_that_is_cut_short_is_refused(kind: str, bare: Bare, tmp_path: Path) -> None:
    """Wherever a download ended."""
    data = tiny_projector(tmp_path / "mmproj.gguf", kind=kind).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptModel):
            load(path, bare)


def test_what_does_not_see_is_refused(bare: Bare, tmp_path: Path) -> None:
    """Projectors for sound, unknown ones, and those we cannot serve are told apart."""
    path = tmp_path / "mmproj.gguf"
    deaf: dict[str, Any] = {"clip.has_vision_encoder": False, "clip.has_audio_encoder": True}
    with pytest.raises(UnsupportedArchitecture, match="does not see"):
        load(tiny_projector(path, metadata=deaf), bare)
    with pytest.raises(UnsupportedArchitecture, match="unknown projector type: newest"):
        load(tiny_projector(path, metadata={"clip.projector_type": "newest"}), bare)
    for kind, reason in projector.REFUSED.items():
        with pytest.raises(UnsupportedArchitecture, match=reason) as caught:
            load(tiny_projector(path, metadata={"clip.projector_type": kind}), bare)
        assert caught.value.architecture == kind


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "a number of another type": ("mlp", {"metadata": {"clip.vision.block_count": 2.5}}),
    "a flag that is none": ("mlp", {"metadata": {"clip.has_vision_encoder": 1}}),
    "a flag for a number": ("gemma3", {"metadata": {"clip.vision.patch_size": True}}),
    "no heads": ("mlp", {"metadata": {"clip.vision.attention.head_count": 0}}),
    "heads that do not divide": ("mlp", {"metadata": {"clip.vision.attention.head_count": 5}}),
    "endless layers": ("mlp", {"metadata": {"clip.vision.block_count": 2**31 - 1}}),
    "layers that are not there": ("mlp", {"metadata": {"clip.vision.block_count": 3}}),
    "no patch": ("mlp", {"metadata": {"clip.vision.patch_size": 0}}),
    "a huge image": ("mlp", {"metadata": {"clip.vision.image_size": 8193}}),
    "a patch larger than the image": ("gemma3", {"metadata": {"clip.vision.patch_size": 33}}),
    "a wrong scale": ("gemma3", {"metadata": {"clip.vision.projector.scale_factor": 3}}),
    "no scale": ("gemma3", {"metadata": {"clip.vision.projector.scale_factor": 0}}),
    "no epsilon": ("mlp", {"metadata": {"clip.vision.attention.layer_norm_epsilon": None}}),
    "no mean": ("mlp", {"metadata": {"clip.vision.image_mean": None}}),
    "odd pinpoints": ("mlp", {"metadata": {"clip.vision.image_grid_pinpoints": [-1, 5]}}),
    "a layer out of range": ("mlp", {"metadata": {"clip.vision.feature_layer": [9]}}),
    "another merge": ("qwen2vl_merger", {"metadata": {"clip.vision.spatial_merge_size": 3}}),
    "no second patch": ("qwen2vl_merger", {"tensors": {"v.patch_embd.weight.1": None}}),
    "no bias": ("qwen2vl_merger", {"tensors": {"v.blk.0.attn_q.bias": None}}),
    "no projection": ("mlp", {"tensors": {"mm.2.weight": None}}),
    "no positions": ("mlp", {"tensors": {"v.position_embd.weight": None}}),
    "too few positions": ("gemma3", {"tensors": {"v.position_embd.weight": (63, 32)}}),
    "a wide query": ("mlp", {"tensors": {"v.blk.1.attn_q.weight": (64, 32)}}),
    "a short bias": ("gemma3", {"tensors": {"v.blk.1.ffn_up.bias": (47,)}}),
    "a patch of two colours": ("mlp", {"tensors": {"v.patch_embd.weight": (32, 2, 4, 4)}}),
    "a norm too long": ("gemma3", {"tensors": {"mm.soft_emb_norm.weight": (33,)}}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_mtmd_would_not_survive_is_refused(name: str, bare: Bare, tmp_path: Path) -> None:
    """Each is a typed error that names the file, where llama.cpp would end the process."""
    kind, fields = WRONG[name]
    path = tiny_projector(tmp_path / "mmproj.gguf", kind=kind, **fields)
    with pytest.raises(VendorError) as caught:
        load(path, bare)
    assert isinstance(caught.value, CorruptModel | UnsupportedArchitecture)
    assert str(path) in str(caught.value)


def test_a_number_of_another_width_is_refused(bare: Bare, tmp_path: Path) -> None:
    """A type that Python does not show, such as a signed integer, is one that clip asserts on."""
    path = tiny_projector(tmp_path / "mmproj.gguf")
    data = path.read_bytes()
    at = data.index(b"clip.vision.patch_size") + len(b"clip.vision.patch_size")
    path.write_bytes(data[:at] + struct.pack("<I", 5) + data[at + 4 :])
    with pytest.raises(CorruptModel, match="of type 5' and must be of GGUF type 4"):
        load(path, bare)


@pytest.mark.timeout(1200)  # the many take a minute where nobody else is at work
@pytest.mark.parametrize(
    ("seed", "count"), [(0, DAMAGED), pytest.param(1, MANY, marks=pytest.mark.soak)]
)
def test_no_damaged_projector_ends_the_process(seed: int, count: int, tmp_path: Path) -> None:
    """A child loads many damaged files of each kind, shows them an image, and is still there."""
    path = os.pathsep.join([str(CHILD.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), str(seed), str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, (done.stdout[-300:], done.stderr[-2000:])
    refused, served = map(int, done.stdout.split()[-2:])
    assert refused + served == count * len(KINDS)
    assert refused > served > 0


def test_memory_for_planning_is_that_of_the_weights(tmp_path: Path) -> None:
    """It is known from the header alone."""
    path = tiny_projector(tmp_path / "mmproj.gguf")
    size = projector.size_bytes(path)
    assert 0.8 * path.stat().st_size < size < path.stat().st_size
