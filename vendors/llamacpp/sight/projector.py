"""What mtmd demands of a projector file (mmproj), checked before it is asked to load.

mtmd believes its files: a number of another type, a tensor that is missing or has another shape
ends the process, where a text model's loader would refuse. The numbers are checked for every kind
of projector, the shapes for those in CHECKED; of the others llama.cpp's own checks must do. The
names are those of llama.cpp's tools/mtmd/clip-impl.h, the rules those of clip.cpp and its graphs.
"""

from __future__ import annotations

import math
import os

import attrs

from llmdispatcher.models.errors import CorruptModel, UnsupportedArchitecture
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.files.header import MAX_LAYERS, Header, Kind, Value
from llmdispatcher.vendors.llamacpp.files.keytypes import FLOAT32, INT32, UINT32, types_of

MAX_IMAGE = 8192
"""Of a side in pixels, from clip.cpp."""
MAX_PATCH = 56
"""Of a side in pixels; Qwen2.5-VL's windows of 112 hold two (clip.cpp), and real ones have 14."""
MAX_PATCHES = 65_536
"""Of an image of fixed size; real ones have up to 12 thousand. Each takes kilobytes."""

MERGER_AXES = 4
"""Sections of the vision encoder's rotary positions (clip_graph_qwen2vl)."""

CHECKED = ("mlp", "qwen2vl_merger", "qwen2.5vl_merger", "gemma3")
REFUSED = {
    "hunyuanvl": "places an image by how many came before it",
    "deepseek4v": "pads an image by where in the prompt it is",
}
"""Kinds for which an image is not the same at every place, as our caches take it to be."""

_SIGNED = ("clip.minicpmv_version",)
_COUNTS = (
    "attention.head_count attention.head_count_kv attention.head_dim block_count embedding_length"
    " expert_used_count feed_forward_length image_max_pixels image_min_pixels image_size"
    " n_wa_pattern patch_size preproc_image_size preproc_max_tiles preproc_min_tiles"
    " projection_dim projector.query_side projector.scale_factor projector.window_side"
    " sam.block_count sam.embedding_length sam.head_count spatial_merge_size window_size"
)
_WHOLE = tuple(f"clip.vision.{name}" for name in _COUNTS.split())
"""Keys that are read as whole numbers, whatever they are."""
_NO_MATRIX = (9, 15, 24, 25, 26, 27, 28)
"""Types that ggml does not multiply with: whole numbers, and those of intermediate results."""
_F32, _F16 = 0, 1

Shape = tuple[int, ...]


@attrs.frozen
class _Eye:
    """The numbers of a vision encoder."""

    kind: str
    wide: int
    heads: int
    layers: int
    image: int
    patch: int

    @property
    def patches(self) -> int:
        """Of an image of the size that the encoder was made for."""
        return (self.image // self.patch) ** 2


def read_projector(path: str | os.PathLike[str], width: int) -> Header:
    """Read the header of a projector for a text model of this width.

    Raises ModelFileMissing, CorruptModel where the file is damaged, and UnsupportedArchitecture
    where it is something else than a projector for images, or one for another model.
    """
    header = read_header(path)
    if header.kind is not Kind.MMPROJ or header.architecture != "clip":
        raise UnsupportedArchitecture(
            f"{header.path} is no projector (mmproj) but a file of kind {header.kind},"
            f" architecture {header.architecture}: give the mmproj file that lies beside the model",
            architecture=header.architecture,
        )
    _check_types(header)
    eye = _eye(header)
    if eye.kind in CHECKED:
        _Shapes(header, eye).check(width)
    return header


def size_bytes(path: str | os.PathLike[str]) -> int:
    """Return the memory that a projector's weights take, for planning. Raises as read_header."""
    return read_header(path).weight_bytes


def _check_types(header: Header) -> None:
    """Require that numbers have the types that clip.cpp reads: it asserts on others."""
    for key, found in types_of(header).items():
        value = header.metadata[key]
        allowed = _type_read(key, value)
        if allowed is not None and found != allowed:
            raise header.wrong(key, f"{value} of type {found}", f"of GGUF type {allowed}")


def _type_read(key: str, value: Value) -> int | None:
    """Return the type as which clip.cpp reads a key; None where it does not, or looks first."""
    if key in _SIGNED:
        return INT32
    if key in _WHOLE:
        return UINT32
    if not key.startswith("clip.") or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return UINT32
    return FLOAT32 if isinstance(value, float) else None


def _eye(header: Header) -> _Eye:
    """Read the numbers that every encoder has."""
    for key in ("general.name", "general.description"):
        header.text(key)
    for key in (
        "has_vision_encoder",
        "has_audio_encoder",
        "has_gen_audio_encoder",
        "use_gelu",
        "use_silu",
    ):
        value = header.metadata.get(f"clip.{key}", False)
        if not isinstance(value, bool):
            raise header.wrong(f"clip.{key}", value, "true or false")
    kind = header.text("clip.projector_type") or header.text("clip.vision.projector_type")
    if not header.metadata.get("clip.has_vision_encoder") or not kind or kind in REFUSED:
        why = REFUSED.get(kind) or "does not see: it may hear"
        raise UnsupportedArchitecture(
            f"{header.path} is a projector of kind {kind!r}, which {why}; images are not supported"
            " with it",
            architecture=kind,
        )
    eye = _Eye(
        kind,
        _count(header, "embedding_length", 2**16),
        _count(header, "attention.head_count", 2**16),
        _count(header, "block_count", MAX_LAYERS),
        _count(header, "image_size", MAX_IMAGE, least=0),
        _count(header, "patch_size", MAX_PATCH if kind in CHECKED else 2**15),
    )
    epsilon = header.metadata.get("clip.vision.attention.layer_norm_epsilon")
    if not isinstance(epsilon, float) or not 0 <= epsilon < math.inf:
        raise header.wrong("layer_norm_epsilon", epsilon, "a small fraction above 0")
    for key in ("feed_forward_length", "projection_dim"):
        _count(header, key, 2**24, least=0)
    return eye


def _count(header: Header, key: str, most: int, *, least: int = 1) -> int:
    value = header.number(f"vision.{key}")
    if value is None or not least <= value <= most:
        raise header.wrong(f"clip.vision.{key}", value, f"a number from {least} to {most}")
    return value


class _Shapes:
    """The tensors of a projector, held against what its graph multiplies."""

    def __init__(self, header: Header, eye: _Eye) -> None:
        self._header, self._eye = header, eye
        self._tensors = {tensor.name: tensor for tensor in header.tensors}

    def check(self, width: int) -> None:
        """Raise CorruptModel for what would end the process."""
        eye = self._eye
        if eye.wide % eye.heads:
            raise self._wrong("attention.head_count", eye.heads, f"a divisor of {eye.wide}")
        for key, usual in (("head_dim", eye.wide // eye.heads), ("head_count_kv", eye.heads)):
            found = self._header.number(f"vision.attention.{key}")
            if found not in (None, usual):
                raise self._wrong(f"attention.{key}", found, f"{usual}, or left out")
        for layer in range(eye.layers):
            self._check_block(f"v.blk.{layer}.")
        for name in ("v.pre_ln", "v.post_ln"):
            self._optional(f"{name}.weight", (eye.wide,))
            self._optional(f"{name}.bias", (eye.wide,))
        patch = (eye.patch, eye.patch, 3, eye.wide)
        self._need("v.patch_embd.weight", patch, floats=True)
        if eye.kind in ("mlp", "gemma3"):
            self._check_fixed()
        if eye.kind == "mlp":
            makes = self._check_llava()
        elif eye.kind == "gemma3":
            makes = self._check_gemma()
        else:
            self._need("v.patch_embd.weight.1", patch, floats=True)
            makes = self._check_merger()
        if makes != width:
            raise UnsupportedArchitecture(
                f"{self._header.path} makes cells of {makes} numbers and the model takes {width}:"
                " it belongs to another model; take the mmproj file that lies beside this one",
                architecture=eye.kind,
            )

    def _check_block(self, prefix: str) -> None:
        eye = self._eye
        wide, merges = eye.wide, eye.kind.endswith("merger")
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            self._linear(prefix + name, wide, wide, bias=merges and name != "attn_out")
        for name in ("ln1", "ln2"):
            self._optional(f"{prefix}{name}.weight", (wide,))
            self._optional(f"{prefix}{name}.bias", (wide,))
        up, down = "ffn_up", "ffn_down"
        if self._shape(f"{prefix}{down}.weight")[0] == wide:  # as older files have them
            up, down = down, up
        hidden = self._shape(f"{prefix}{up}.weight")[-1]
        self._linear(prefix + up, wide, hidden)
        self._linear(prefix + down, hidden, wide)
        if f"{prefix}ffn_gate.weight" in self._tensors:
            self._linear(f"{prefix}ffn_gate", wide, hidden)
        for name in ("ls1", "ls2", "attn_post_norm", "ffn_post_norm", "out_scale"):
            self._optional(f"{prefix}{name}.weight", (wide,))
        for name in ("attn_qkv", "attn_q_norm", "attn_k_norm", "ffn_gate_exps"):
            if f"{prefix}{name}.weight" in self._tensors:
                raise self._wrong(prefix + name, "there", f"absent from a {eye.kind} projector")

    def _check_fixed(self) -> None:
        """Check an encoder whose images all have one size."""
        eye = self._eye
        if not eye.patch <= eye.image or not 0 < eye.patches <= MAX_PATCHES:
            raise self._wrong(
                "image_size", eye.image, f"{MAX_PATCHES} patches of {eye.patch} at most"
            )
        classes = eye.kind == "mlp" and "v.class_embd" in self._tensors
        if eye.kind == "gemma3" and eye.image % eye.patch:
            raise self._wrong("image_size", eye.image, f"a multiple of patch_size, {eye.patch}")
        self._need("v.position_embd.weight", (eye.wide, eye.patches + classes), floats=True)
        self._optional("v.class_embd", (eye.wide,))
        self._optional("v.patch_embd.bias", (eye.wide,))

    def _check_llava(self) -> int:
        points = self._header.metadata.get("clip.vision.image_grid_pinpoints", ())
        layers = self._header.metadata.get("clip.vision.feature_layer", ())
        if not isinstance(points, tuple) or not isinstance(layers, tuple):
            raise self._wrong("image_grid_pinpoints", points, "a short list of numbers")
        if any(not isinstance(at, int) or not 0 < at <= MAX_IMAGE for at in points):
            raise self._wrong("image_grid_pinpoints", points, f"sides of 1 to {MAX_IMAGE}")
        if any(not isinstance(at, int) or not 0 <= at < self._eye.layers for at in layers):
            raise self._wrong("feature_layer", layers, f"layers of the {self._eye.layers}")
        if len(set(layers)) != len(layers):
            raise self._wrong("feature_layer", layers, "all different")
        self._optional("v.image_newline", (self._shape("v.image_newline", (0,))[0],))
        hidden = self._linear("mm.0", self._eye.wide * max(1, len(layers)), None, bias=True)
        if "mm.3.weight" not in self._tensors:
            return self._linear("mm.2", hidden, None, bias=True)
        width = self._linear("mm.3", hidden, None, bias=True)
        for name, size in (("mm.1", hidden), ("mm.4", width)):
            self._need(f"{name}.weight", (size,))
            self._need(f"{name}.bias", (size,))
        return width

    def _check_gemma(self) -> int:
        eye = self._eye
        side, scale = eye.image // eye.patch, self._header.number("vision.projector.scale_factor")
        if side % (4 if scale is None else scale or side + 1):
            raise self._wrong("projector.scale_factor", scale, f"a divisor of {side}")
        self._need("mm.soft_emb_norm.weight", (eye.wide,))
        width = self._shape("mm.input_projection.weight")[0]
        self._need("mm.input_projection.weight", (width, eye.wide), floats=True)
        return width

    def _check_merger(self) -> int:
        eye = self._eye
        if eye.wide // eye.heads % MERGER_AXES:
            raise self._wrong("attention.head_count", eye.heads, "heads of a multiple of 4 numbers")
        if self._header.number("vision.spatial_merge_size") not in (None, 2):
            raise self._wrong("spatial_merge_size", "another", "2")
        windows = self._header.number("vision.n_wa_pattern")
        has_windows = eye.kind == "qwen2.5vl_merger"
        # in every n-th layer each patch sees all, so that n = 1 would leave no windows to compute
        if (has_windows and windows in (None, 1)) or (windows and not has_windows):
            raise self._wrong("n_wa_pattern", windows, f"as in other {eye.kind} projectors")
        for name in ("v.patch_embd.bias", "v.class_embd"):
            if name in self._tensors:
                raise self._wrong(name, "there", f"absent from a {eye.kind} projector")
        hidden = self._linear("mm.0", 4 * eye.wide, None, bias=True)
        width = self._linear("mm.2", hidden, None, bias=True)
        if windows and self._header.number("vision.projection_dim") != width:
            raise self._wrong("projection_dim", "another", f"{width}, as the projection makes")
        return width

    def _linear(self, name: str, source: int, target: int | None, *, bias: bool = False) -> int:
        """Check a matrix and its bias; returns how many numbers come out."""
        found = self._shape(f"{name}.weight")[-1]
        self._need(f"{name}.weight", (source, found if target is None else target))
        if bias or f"{name}.bias" in self._tensors:
            self._need(f"{name}.bias", (found,))
        return found

    def _shape(self, name: str, default: Shape | None = None) -> Shape:
        tensor = self._tensors.get(name)
        if tensor is None and default is None:
            raise self._wrong(name, "missing", "there")
        return default or () if tensor is None else tensor.shape or (1,)

    def _optional(self, name: str, shape: Shape) -> None:
        if name in self._tensors:
            self._need(name, shape)

    def _need(self, name: str, shape: Shape, *, floats: bool = False) -> None:
        """Require a tensor of a shape; vectors are F32, and ``floats`` F32 or F16."""
        found = self._shape(name)
        if _trimmed(found) != _trimmed(shape):
            raise self._wrong(name, f"of shape {found}", f"of shape {shape}")
        tensor = self._tensors[name]
        allowed = (_F32,) if len(_trimmed(shape)) <= 1 else (_F32, _F16)
        is_matrix = len(shape) > 1 and not floats
        if tensor.type_id in _NO_MATRIX if is_matrix else tensor.type_id not in allowed:
            raise self._wrong(name, f"stored as type {tensor.type_id}", f"one of types {allowed}")

    def _wrong(self, key: str, value: object, allowed: str) -> CorruptModel:
        return self._header.wrong(key, value, allowed)


def _trimmed(shape: Shape) -> Shape:
    """Leave out trailing dimensions of one, which files may or may not have."""
    size = len(shape)
    while size > 1 and shape[size - 1] == 1:
        size -= 1
    return shape[:size]
