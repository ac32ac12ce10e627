"""LoRA adapters of one loaded model: read once, applied by name to the decodes that want them.

Owns the loaded files and what must be true of one before llama.cpp sees it: llama.cpp asserts on
some of it while it loads, and on some only when it first decodes. An adapter changes keys and
values too, so what was decoded with one set is of no use to another. Refuses activated LoRA, which
would have to be switched on inside of a prompt.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from llmdispatcher.models.errors import (
    EngineCrashed,
    OutOfMemory,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.binding import log
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import reason
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.files.header import TENSOR_TYPES, Header, Kind, Tensor
from llmdispatcher.vendors.llamacpp.files.keytypes import FLOAT32, types_of

Wanted = tuple[tuple[str, float], ...]
"""Names of adapters and their scales, as ``Request.adapters``."""

_STORED = ("F32", "F16", "BF16", "Q8_0")
"""How llama.cpp's convert_lora_to_gguf.py stores adapters."""
_WITH_SCALES = "NVFP4"
"""Weights of this type have scales beside them, which llama.cpp asserts that no LoRA changes."""
_TURNED = "token_embd.weight"
"""The one whose halves lie the other way round (build_inp_embd in llama-graph.cpp)."""
_NORM = "_norm.weight"


class Adapters:
    """Loaded adapters by name. Used by one thread at a time; closed before the model is freed."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a C pointer
        base: Header,
        files: Mapping[str, str | os.PathLike[str]],
    ) -> None:
        """Load all of them for the model whose header is ``base``.

        Raises ModelFileMissing, CorruptModel, UnsupportedArchitecture (not a LoRA, or one of
        another model) or OutOfMemory, which name the adapter.
        """
        self._loaded: dict[str, Any] = {}
        self._applied: Wanted = ()
        with ExitStack() as undo:
            undo.callback(self.close)
            for name, path in files.items():
                self._loaded[name] = _load(model, name, read_adapter(name, path, base).path)
            undo.pop_all()

    def check(self, wanted: Wanted) -> None:
        """Raise Unsupported for an adapter that is not loaded."""
        unknown = sorted({name for name, _ in wanted} - set(self._loaded))
        if unknown:
            known = ", ".join(sorted(self._loaded)) or "none is"
            raise Unsupported(
                "adapters",
                f"this model has no adapter {', '.join(map(repr, unknown))}; loaded: {known}",
            )

    def use(self, context: Any, wanted: Wanted) -> None:  # noqa: ANN401 - a C pointer
        """Have all decodes from now on apply these; what is applied already costs nothing.

        Raises Unsupported as ``check`` does.
        """
        if wanted == self._applied:
            return
        self.check(wanted)
        count = len(wanted)
        pointers = (lib.llama_adapter_lora_p_ctypes * count)(*[self._loaded[n] for n, _ in wanted])
        scales = (ctypes.c_float * count)(*[scale for _, scale in wanted])
        self._applied = ()
        if lib.llama_set_adapters_lora(context, pointers, count, scales):
            raise EngineCrashed(f"llama.cpp cannot apply the adapters {wanted}")
        self._applied = wanted

    def close(self) -> None:
        """Give all memory back; nothing must be decoded afterwards. Idempotent."""
        for adapter in self._loaded.values():
            lib.llama_adapter_lora_free(adapter)
        self._loaded = {}
        self._applied = ()


def _load(model: Any, name: str, path: str) -> Any:  # noqa: ANN401 - C pointers
    with log.listening() as lines:
        adapter = lib.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        told = f"llama.cpp cannot load the adapter {name!r} of {path}: {reason(list(lines))}"
        raise OutOfMemory(told) if "allocate" in told else UnsupportedArchitecture(told)
    return adapter


def size_bytes(path: str | os.PathLike[str]) -> int:
    """Return the memory that an adapter takes while it is loaded, for planning.

    Applying it takes a few rows of numbers more, for each token of a batch: nothing beside what a
    decode takes. Raises as ``gguf.read_header``.
    """
    return read_header(path).weight_bytes


def read_adapter(name: str, path: str | os.PathLike[str], base: Header) -> Header:
    """Read the header of an adapter, and hold it against the model that it is for.

    Raises ModelFileMissing, CorruptModel or UnsupportedArchitecture, which name the adapter.
    """
    try:
        header = read_header(path)
        _check(header, base)
    except VendorError as error:
        message, *rest = error.args
        error.args = (f"adapter {name!r}: {message}", *rest)
        raise
    return header


def _check(header: Header, base: Header) -> None:
    kind = header.text("adapter.type")
    if header.kind is not Kind.ADAPTER or kind != "lora":
        raise _foreign(header, f"is no LoRA adapter but a file of kind {kind or header.kind}")
    if header.architecture != base.architecture:
        told = f"is for {header.architecture} models, and this one is {base.architecture}"
        raise _foreign(header, told)
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise _foreign(header, "is an activated LoRA (aLoRA), which is not supported")
    alpha = header.metadata.get("adapter.lora.alpha", 0.0)
    stored = types_of(header).get("adapter.lora.alpha", FLOAT32)
    if stored != FLOAT32 or not isinstance(alpha, float) or not math.isfinite(alpha):
        raise header.wrong("adapter.lora.alpha", alpha, "a number, stored as F32")
    pairs = _pairs(header)
    weights = {tensor.name: tensor for tensor in base.tensors}
    for target, halves in pairs.items():
        weight = weights.get(target)
        if weight is None:
            raise _foreign(header, f"changes {target}, which this model does not have")
        _check_pair(header, weight, halves)
    if _TURNED in pairs and "output.weight" not in weights:
        # llama.cpp would multiply the halves that lie the other way round
        raise _foreign(header, f"changes {_TURNED}, which this model also uses as its output")


def _pairs(header: Header) -> dict[str, dict[str, Tensor]]:
    """Sort the tensors by what they change."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in header.tensors:
        target, _, half = tensor.name.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            if tensor.name.endswith(_NORM):
                told = f"also replaces {tensor.name}, which llama.cpp would leave out"
                raise _foreign(header, told)
            raise header.wrong(
                "tensor", tensor.name, "named after a weight, and .lora_a or .lora_b"
            )
        stored = TENSOR_TYPES[tensor.type_id].name
        if stored not in _STORED:
            raise header.wrong(tensor.name, f"stored as {stored}", f"one of {', '.join(_STORED)}")
        pairs.setdefault(target, {})[half] = tensor
    if not pairs:
        raise header.wrong("number of tensors", 0, "at least one pair of .lora_a and .lora_b")
    return pairs


def _check_pair(header: Header, weight: Tensor, halves: Mapping[str, Tensor]) -> None:
    """Require shapes that llama.cpp can multiply: weight + b a."""
    if len(halves) != len(("lora_a", "lora_b")):
        raise header.wrong(
            weight.name, f"changed by {', '.join(halves)} alone", "changed by a pair"
        )
    if TENSOR_TYPES[weight.type_id].name == _WITH_SCALES:
        raise _foreign(header, f"changes {weight.name}, and llama.cpp cannot change NVFP4 weights")
    first, second = _four(halves["lora_a"]), _four(halves["lora_b"])
    shape = _four(weight)
    if weight.name == _TURNED:
        fits = (second[1], first[1]) == shape[:2] and first[0] == second[0]
    else:
        fits = (first[0], second[1]) == shape[:2] and first[1] == second[0]
    if not fits or not first[2:] == second[2:] == shape[2:]:
        told = f"changes {weight.name} with matrices of {first} and {second}, and it is {shape}"
        raise _foreign(header, told)


def _four(tensor: Tensor) -> tuple[int, int, int, int]:
    """Write a shape with four sizes, as ggml does."""
    first, second, third, fourth = (*tensor.shape, 1, 1, 1, 1)[:4]
    return first, second, third, fourth


def _foreign(header: Header, told: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{header.path} {told}: give a LoRA that was trained on this very model, converted with"
        " llama.cpp's convert_lora_to_gguf.py",
        architecture=header.architecture,
    )
