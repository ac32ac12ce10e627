"""From a vendor's wishes and this machine to a plan. ``fit`` decides; this only reads the machine.

llama_cpp is not imported: a look at its folder says whether its build can use a GPU, and only then
is ggml asked what is free there. No build with a GPU was ever at hand, so that part follows ggml's
sources and was run over the devices of CPU builds alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from llmdispatcher.models.errors import OutOfMemory
from llmdispatcher.vendors.llamacpp.embedding.pooling import choose as choose_pooled
from llmdispatcher.vendors.llamacpp.engine.lookup import MAX_DRAFT
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.mark import MARK
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB
from llmdispatcher.vendors.llamacpp.plan.fit import Asked, Machine, Plan, choose, guesses
from llmdispatcher.vendors.llamacpp.plan.squeeze import squeezed
from llmdispatcher.vendors.llamacpp.weights import Packing, packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from llmdispatcher.vendors.llamacpp.embedding.pooling import Pooling
    from llmdispatcher.vendors.llamacpp.files.header import Header

LEAST_ROOM_BYTES = 64 * MIB
"""What decoding may allocate beside what is allocated at the start, with a good margin."""

WORKER_BYTES = 80 * MIB
"""What a worker takes before it loads a model (``bench/isolation.py`` prints it), and what requests
take while they are prepared."""
_PREPARING_BYTES = 20 * MIB
"""The latter of the two: a worker may take more than usual before it loads a model, as what a
site imports at the start of every Python is in it, too."""
WORKER_ROOM_BYTES = 8 * MIB
"""LEAST_ROOM_BYTES of a worker, whose end is not the end of the user's program."""

HEADROOM_BYTES = 512 * MIB
"""Left to the rest of the machine, or a twentieth of a small one: a model that fits to the last
byte makes everything else swap."""

_REPACKED_X86 = ("Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4")
_REPACKED_ANYWHERE = (*_REPACKED_X86, "Q5_K", "Q6_K", "Q8_0", "Q1_0")
_REPACKED = dict.fromkeys(("x86_64", "amd64"), _REPACKED_X86)
"""Types of weights that some processor of a kind wants in another order, though not every one
does: ggml_repack_get_optimal_repack_type in ggml-cpu/repack.cpp."""

_TILED = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
"""The same where there are matrix tiles: qtype_has_amx_kernels in ggml-cpu/amx/common.h."""

_LIBRARY = re.compile(r"(?:lib)?ggml(?:-([a-z]+))?\.(?:so|dylib|dll)", re.IGNORECASE)
_WITHOUT_GPU = {None, "base", "cpu", "blas", "rpc", "zdnn", "zendnn"}
"""Libraries of a build that are no backend, or one for processors; a plain ggml joins them."""

_GPU, _INTEGRATED = 1, 2
"""ggml_backend_dev_type in ggml-backend.h."""


class Wishes(Protocol):
    """What the user asked for; ``LlamaCpp`` is one."""

    @property
    def context_tokens(self) -> int | None:
        """The longest conversation."""

    @property
    def max_parallel(self) -> int | None:
        """The most conversations at once."""

    @property
    def max_memory_mb(self) -> int | None:
        """MiB of main memory."""

    @property
    def isolation(self) -> str:
        """Whether the model gets a process of its own: "process" or "thread"."""

    @property
    def max_vram_mb(self) -> int | None:
        """MiB on GPUs."""

    @property
    def max_threads(self) -> int | None:
        """The most threads."""

    @property
    def max_gpu_layers(self) -> int | None:
        """The most layers on GPUs."""

    @property
    def cache_type(self) -> str:
        """How keys and values are stored."""

    @property
    def speculate(self) -> bool | None:
        """Whether to guess tokens."""

    @property
    def projector_path(self) -> Path | None:
        """What lets the model see."""

    @property
    def adapters(self) -> Mapping[str, Path]:
        """LoRA files by name."""


def make_plan(
    wishes: Wishes,
    header: Header,
    pooling: Pooling | None = None,
    rung: int = 0,
    gpus: Sequence[int] | None = None,
) -> Plan:
    """Plan how to load a model on this machine, now: to write, or to pool texts.

    ``rung`` is how often it ran out of memory before; see ``squeeze``. ``gpus`` are the free bytes
    of those that can be used; None looks for those of the installed binding.

    Raises ModelTooLarge where it does not fit, UnsupportedArchitecture where it does not write
    text, ModelFileMissing or CorruptModel for a file beside it, and ExecutableNotFound where
    psutil is missing.
    """
    limit = wishes.max_memory_mb
    asked = Asked(
        context_tokens=wishes.context_tokens,
        max_parallel=wishes.max_parallel,
        limit_bytes=None if limit is None else limit * MIB,
        cache_type=wishes.cache_type,
        max_gpu_layers=wishes.max_gpu_layers,
        max_threads=wishes.max_threads,
        more_rows=MAX_DRAFT if guesses(header, wishes.speculate) else 0,
        beside_bytes=sum(read_header(path).weight_bytes for path in _beside(wishes)),
        process_bytes=_process_bytes() if wishes.isolation == "process" else 0,
    )
    asked = squeezed(asked, header, rung)
    is_ours = wishes.isolation == "thread" or MARK in os.environ
    wanted = wishes.max_gpu_layers != 0
    there = machine(gpus=wanted and gpus is None, natively=is_ours)
    if wanted and gpus is not None:
        there = attrs.evolve(there, gpus=tuple(gpus))
    if wishes.max_vram_mb is not None:
        there = attrs.evolve(there, gpus=_within(there.gpus, wishes.max_vram_mb * MIB))
    if pooling is not None:
        return choose_pooled(header, pooling, asked, there)
    return choose(header, asked, there)


def _process_bytes() -> int:
    """Return what a worker takes beside its model: as usual, or by a look where this is one."""
    if MARK not in os.environ:
        return WORKER_BYTES
    from llmdispatcher.vendors.llamacpp.limits import probe  # noqa: PLC0415 - loads psutil

    sample = probe.process(os.getpid())
    resident = 0 if sample is None else sample.resident_bytes
    return max(WORKER_BYTES, resident + _PREPARING_BYTES)


def _beside(wishes: Wishes) -> list[Path]:
    """List the files that are loaded with the model."""
    seeing = [] if wishes.projector_path is None else [wishes.projector_path]
    return [*seeing, *wishes.adapters.values()]


def machine(*, gpus: bool = True, natively: bool = True) -> Machine:
    """Read what this machine has to spare; ``gpus`` says whether to look for any.

    ``natively`` says whether to load ggml for that into this process, which it can take down; a
    program whose models run elsewhere has it asked there.
    """
    try:
        from llmdispatcher.vendors.llamacpp.limits import probe  # noqa: PLC0415 - loads psutil
    except ModuleNotFoundError as error:
        from llmdispatcher.vendors.llamacpp.loading import missing  # noqa: PLC0415 - rare

        raise missing(f"no {error.name}") from error
    memory = probe.memory()
    headroom = min(HEADROOM_BYTES, memory.total_bytes // 20)
    free, shares_memory = _gpus(natively=natively) if gpus else ((), False)
    return Machine(
        available_bytes=max(0, min(memory.available_bytes - headroom, _allowed(probe))),
        processors=probe.threads(),
        gpus=free,
        gpus_share_memory=shares_memory,
        repacked=_repacked(),
    )


def _repacked() -> tuple[str, ...]:
    """Return the types of weights that may be kept twice; none where that is switched off."""
    usual = _REPACKED.get(platform.machine().lower(), _REPACKED_ANYWHERE)
    match packing():
        case Packing.PLAIN:
            return ()
        case Packing.PACKED:
            return usual
        case Packing.TILED:
            return (*usual, *_TILED)


def _within(free: tuple[int, ...], limit_bytes: int) -> tuple[int, ...]:
    """Return what of each GPU may be taken, the first ones first."""
    allowed = []
    for there in free:
        allowed.append(min(there, limit_bytes))
        limit_bytes -= allowed[-1]
    return tuple(allowed)


def require_room(least_bytes: int = LEAST_ROOM_BYTES) -> None:
    """Raise OutOfMemory where this process is about to reach a limit of what it may allocate."""
    from llmdispatcher.vendors.llamacpp.limits import probe  # noqa: PLC0415 - loads psutil

    room = probe.data_room_bytes()
    if room is not None and room < least_bytes:
        raise OutOfMemory(
            f"this process may allocate {room // MIB} MiB more (its limit is RLIMIT_DATA or"
            f" RLIMIT_AS), and llama.cpp, which may need {least_bytes // MIB} MiB, would end"
            " it on reaching that: raise the limit, or free memory"
        )


def _allowed(probe: ModuleType) -> int:
    """Return what may be allocated by this process's own limit."""
    room = probe.data_room_bytes()
    return sys.maxsize if room is None else room - LEAST_ROOM_BYTES


def _gpus(*, natively: bool = True) -> tuple[tuple[int, ...], bool]:
    """Return the free bytes of each GPU that llama.cpp would use, and whether it is main memory.

    Integrated ones count where there is no other, as in llama.cpp's own choice.
    """
    folder = _library_folder()
    if folder is None or not _has_gpu_backend(folder):
        return (), False
    devices = [*(_devices(folder) if natively else _tried())]
    discrete = [free for kind, _, free in devices if kind == _GPU]
    if discrete:
        # Metal calls its devices MTL0 and so on, and discrete, though they use main memory
        return tuple(discrete), any(name.startswith("MTL") for _, name, _ in devices)
    integrated = tuple(free for kind, _, free in devices if kind == _INTEGRATED)
    return integrated, bool(integrated)


def _tried() -> Iterator[tuple[int, str, int]]:
    """Yield the same as ``_devices``, asked in a process of its own; from memory if need be."""
    from llmdispatcher.vendors.llamacpp import trial  # noqa: PLC0415 - few have a GPU's build

    kinds = {"gpu": _GPU, "integrated gpu": _INTEGRATED}
    for device in trial.try_library().devices:
        yield kinds.get(device.kind, 0), device.name, device.free_bytes


def _library_folder() -> Path | None:
    """Return where the binding's shared libraries lie, or None without a binding."""
    if override := os.environ.get("LLAMA_CPP_LIB_PATH"):  # the binding's own variable
        return Path(override)
    try:
        found = find_spec("llama_cpp")
    except (ImportError, ValueError):  # something stands in its way; whoever loads it will say so
        return None
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "lib"


def _has_gpu_backend(folder: Path) -> bool:
    """Say whether a library of a GPU's backend lies there."""
    names = [_LIBRARY.fullmatch(path.name) for path in folder.glob("*ggml*")]
    return any(name is not None and name[1] not in _WITHOUT_GPU for name in names)


def _devices(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Yield kind, name and free bytes of each of ggml's devices."""
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    prefix = "" if sys.platform == "win32" else "lib"
    base = ctypes.CDLL(str(folder / f"{prefix}ggml-base.{suffix}"))
    ggml = ctypes.CDLL(str(folder / f"{prefix}ggml.{suffix}"))
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    base.ggml_backend_dev_name.restype = ctypes.c_char_p
    base.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_memory.restype = None
    sizes = ctypes.POINTER(ctypes.c_size_t)
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, sizes, sizes]
    if not ggml.ggml_backend_dev_count():  # a build whose backends are loaded on demand
        ggml.ggml_backend_load_all()
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        name = base.ggml_backend_dev_name(device).decode(errors="replace")
        yield base.ggml_backend_dev_type(device), name, free.value
