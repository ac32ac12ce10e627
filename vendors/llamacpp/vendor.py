"""``LlamaCpp``: a GGUF file as a vendor. A value that says what to run and within which limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

import llmdispatcher.models
from llmdispatcher.models.card import FREE, Capability, ModelCard, Price
from llmdispatcher.models.check import (
    flag,
    instance,
    integer,
    number,
    one_of,
    path_of,
    title,
    words,
)
from llmdispatcher.models.errors import (
    BadRequest,
    VendorError,
)
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.llamacpp.embedding import pooling
from llmdispatcher.vendors.llamacpp.files import gguf

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan
    from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine

ISOLATIONS = ("process", "thread")
ENGINES = ("auto", "worker", "server")

CACHE_TYPES = ("f16", "q8_0", "q4_0", "f32")

ABLE = (
    Capability.CHAT,
    Capability.COMPLETION,
    Capability.TOOLS,
    Capability.JSON,
    Capability.SCHEMA,
    Capability.GRAMMAR,
    Capability.CHOICES,
    Capability.LOGPROBS,
    Capability.PREFILL,
)
"""What every model that generates text can do here."""

_PART = re.compile(r"-\d{5}-of-\d{5}$")
"""How llama.cpp names the files of a model that is split."""


def _model(path: str | Path) -> Path:
    return path_of("model_path", path)


def _projector(path: str | Path) -> Path:
    return path_of("projector_path", path)


def _program(path: str | Path) -> Path:
    return path_of("executable", path)


def _command(words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str) or not words or not all(isinstance(word, str) for word in words):
        raise BadRequest("worker_command", words, "a program and its arguments, each a text")
    return tuple(words)


def _files(paths: Mapping[str, str | Path]) -> Mapping[str, Path]:
    if not isinstance(paths, Mapping):
        raise BadRequest("adapters", paths, "a mapping of names to files")
    if "" in paths:
        raise BadRequest("adapters", dict(paths), "names, none of them empty, and their files")
    return {name: path_of("adapters", path) for name, path in paths.items()}


@attrs.frozen
class LlamaCpp:
    """A GGUF file, run by llama.cpp: in a child process, in this one, or by a llama-server.

    Args:
        model_path: the file; of a model in several files, the first.
        name: the vendor's name, which tells two models apart.
        context_tokens: the longest conversation; None takes what the model was trained for, at
            most 8,192, and less where memory is short.
        max_memory_mb: MiB of memory for weights, context and work space; a model that needs more
            is refused with ModelTooLarge before it is loaded. None takes what is available.
        max_threads: at most this many threads; None takes the physical processors. Fewer are
            used while others keep the processors busy.
        max_gpu_layers: at most this many layers on a GPU; None takes all, where there is one.
        max_vram_mb: MiB of memory on GPUs, where there are any; layers that do not fit stay on the
            processors. No system enforces this: it is planned, and watched.
        max_parallel: at most this many replies at once; None takes 16, and fewer where memory is
            short. All share the memory of the context, so more of them cost little.
        cache_type: how the context is stored: "f16"; "q8_0" or "q4_0", which take a half and a
            quarter of that; or "f32". Only "f16" and "q8_0" are as good as free of loss.
        pooling: "mean", "cls" or "last" loads the file for ``embed`` alone, "rank" for ``rerank``
            alone; None does so with files that were made for it. A file that is to write and to
            embed is registered twice, under two names.
        chat_template: jinja2 source instead of the file's own.
        projector_path: the file (mmproj) that lets this model see images.
        adapters: LoRA files by the names under which requests ask for them.
        speculate: guess the next tokens from what was said before, and check several at once:
            None and True do so where it measurably helps, None not with a model of a few megabytes
            (whose tokens are there before a guess is), False never. What is said stays the same.
        price: what to count for its tokens; free unless given.
        quality: tier from 1 (toy) to 5 (frontier); None is not known.
        last_resort: a candidate only when no other model can serve, or when it is named.
        isolation: "process" runs the model in a child process, which cannot take this one down and
            which the system holds to ``max_memory_mb``; "thread" runs it in this process, which
            begins sooner, and ends with it if llama.cpp aborts.
        engine: "worker" is llama.cpp through llama-cpp-python, "server" a llama-server program that
            is started and watched; "auto" takes what is installed, in this order.
        executable: a llama-server of your own, or the folder that holds it.
        worker_command: the command that runs a worker, for applications without a Python to start:
            it must call ``llmdispatcher.vendors.llamacpp.worker.main.main()``, which reads the two
            arguments that are appended.
        gives_way: a child process leaves the processors to other programs where they want them.
        pinned: never unloaded to make room for another model.
        keep_alive_s: unloaded when nobody has asked for it so many seconds; None keeps it.
        model_name: the model's name in requests and replies; None takes the file's.

    Nothing is read until it is registered, and nothing loaded until the first request.
    """

    model_path: Path = attrs.field(converter=_model)
    name: str = attrs.field(default="llamacpp", validator=title)
    context_tokens: int | None = integer("context_tokens", 8, 2**31 - 1)
    max_memory_mb: int | None = integer("max_memory_mb", 1, 2**40)
    max_threads: int | None = integer("max_threads", 1, 4096)
    max_gpu_layers: int | None = integer("max_gpu_layers", 0, 2**31 - 1)
    max_vram_mb: int | None = integer("max_vram_mb", 1, 2**40)
    max_parallel: int | None = integer("max_parallel", 1, 128)
    cache_type: str = attrs.field(default="f16", validator=one_of(*CACHE_TYPES))
    pooling: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(one_of(*pooling.POOLINGS))
    )
    chat_template: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(words)
    )
    projector_path: Path | None = attrs.field(
        default=None, converter=attrs.converters.optional(_projector)
    )
    adapters: Mapping[str, Path] = attrs.field(factory=dict, converter=_files, hash=False)
    speculate: bool | None = attrs.field(default=None, validator=instance(bool, "False"))
    price: Price | None = attrs.field(
        default=FREE, validator=instance(Price, "Price.per_million(input=0.1, output=0.4)")
    )
    quality: int | None = integer("quality", 1, 5)
    last_resort: bool = flag(default=False)
    isolation: str = attrs.field(default="process", validator=one_of(*ISOLATIONS))
    engine: str = attrs.field(default="auto", validator=one_of(*ENGINES))
    executable: Path | None = attrs.field(
        default=None, converter=attrs.converters.optional(_program)
    )
    worker_command: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_command)
    )
    gives_way: bool = flag(default=True)
    pinned: bool = flag(default=False)
    keep_alive_s: float | None = number("keep_alive_s", 0, math.inf)
    model_name: str | None = attrs.field(default=None, validator=attrs.validators.optional(title))

    def plan(self) -> Plan:
        """Say how it would be loaded on this machine now: ``print(spec.plan().table())``.

        Raises ModelTooLarge if it does not fit, and another VendorError for a file that cannot be
        loaded. Nothing is loaded.
        """
        from llmdispatcher.vendors.llamacpp.plan import planning  # noqa: PLC0415 - loads psutil

        header = gguf.read_header(self.model_path)
        return planning.make_plan(self, header, pooling.pooling_or_none(header, self.pooling))

    def confined(self) -> LlamaCpp:
        """See ``contract.Confinable``.

        Nothing here connects elsewhere: a worker is given no address, a server listens on a socket
        or on loopback, is given a file and no address, and is told --offline where it knows that.
        What an ``executable`` or ``worker_command`` of the caller's own does is the caller's.
        """
        return self

    def start(self, report: Report) -> LlamaCppEngine:
        """Make the engine; the file's header is read, the model is not."""
        from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine  # noqa: PLC0415 - a cycle

        return LlamaCppEngine(self, report)


def embedded() -> LlamaCpp:
    """Make the vendor of the small model that comes with the package."""
    folder = Path(llmdispatcher.models.__file__ or "").parent
    return LlamaCpp(folder / "demo.gguf", name="embedded", quality=1, last_resort=True)


def abilities(header: Header, asked: str | None = None) -> frozenset[Capability]:
    """Return what a model can do here by itself; ``asked`` is the user's wish for pooling."""
    if pooling.is_embedder(header, asked):
        return frozenset({pooling.capability_of(header, asked)})
    return frozenset({*ABLE, *({Capability.INFILL} if header.fills_in else ())})


def card_of(spec: LlamaCpp) -> ModelCard:
    """Make the card from the file's header; of a file that cannot be read, from its name."""
    known: dict[str, Any] = {}
    able = frozenset(ABLE) | ({Capability.VISION} if spec.projector_path else set())
    able |= {Capability.ADAPTERS} if spec.adapters else set()
    try:
        header = gguf.read_header(spec.model_path)
    except VendorError:
        pass  # the same error is raised by the load, where somebody sees it
    else:
        known = {
            "context_tokens": spec.context_tokens or header.context_length,
            "parameters": header.parameter_count,
            "size_bytes": header.file_size,
        }
        own = abilities(header, spec.pooling)
        able = own if pooling.is_embedder(header, spec.pooling) else able | own
    return ModelCard(
        vendor=spec.name,
        model=spec.model_name or _PART.sub("", spec.model_path.stem),
        local=True,
        capabilities=able,
        price=spec.price,
        quality=spec.quality,
        last_resort=spec.last_resort,
        **known,
    )
