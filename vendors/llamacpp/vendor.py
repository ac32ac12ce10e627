"""``LlamaCpp``: a GGUF file as a vendor. A value that says what to run and within which limits."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import llmdispatcher.models
from llmdispatcher.models.card import FREE, Capability, ModelCard, Price
from llmdispatcher.models.check import flag, instance, integer, one_of, title, words
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    BadRequest,
    DispatcherError,
    ModelNotFound,
    OutOfMemory,
    Refused,
    VendorError,
)
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.contract import Call, Report, State, Status
from llmdispatcher.vendors.llamacpp import loading
from llmdispatcher.vendors.llamacpp.embedding import pooling
from llmdispatcher.vendors.llamacpp.files import gguf

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.keeping import Home
    from llmdispatcher.vendors.llamacpp.engine.thread import EngineThread
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan

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


def _path(path: str | Path) -> Path:
    return Path(path).expanduser()


def _files(paths: Mapping[str, str | Path]) -> Mapping[str, Path]:
    if not isinstance(paths, Mapping):
        raise BadRequest("adapters", paths, "a mapping of names to files")
    if "" in paths:
        raise BadRequest("adapters", dict(paths), "names, none of them empty, and their files")
    return {name: _path(path) for name, path in paths.items()}


@attrs.frozen
class LlamaCpp:
    """A GGUF file, run by llama.cpp in this process.

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

    Nothing is read until it is registered, and nothing loaded until the first request.
    """

    model_path: Path = attrs.field(converter=_path)
    name: str = attrs.field(default="llamacpp", validator=title)
    context_tokens: int | None = integer("context_tokens", 8, 2**31 - 1)
    max_memory_mb: int | None = integer("max_memory_mb", 1, 2**40)
    max_threads: int | None = integer("max_threads", 1, 4096)
    max_gpu_layers: int | None = integer("max_gpu_layers", 0, 2**31 - 1)
    max_parallel: int | None = integer("max_parallel", 1, 128)
    cache_type: str = attrs.field(default="f16", validator=one_of(*CACHE_TYPES))
    pooling: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(one_of(*pooling.POOLINGS))
    )
    chat_template: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(words)
    )
    projector_path: Path | None = attrs.field(
        default=None, converter=attrs.converters.optional(_path)
    )
    adapters: Mapping[str, Path] = attrs.field(factory=dict, converter=_files, hash=False)
    speculate: bool | None = attrs.field(default=None, validator=instance(bool, "False"))
    price: Price | None = attrs.field(
        default=FREE, validator=instance(Price, "Price.per_million(input=0.1, output=0.4)")
    )
    quality: int | None = integer("quality", 1, 5)
    last_resort: bool = flag(default=False)

    def plan(self) -> Plan:
        """Say how it would be loaded on this machine now: ``print(spec.plan().table())``.

        Raises ModelTooLarge if it does not fit, and another VendorError for a file that cannot be
        loaded. Nothing is loaded.
        """
        from llmdispatcher.vendors.llamacpp.plan import planning  # noqa: PLC0415 - loads psutil

        header = gguf.read_header(self.model_path)
        return planning.make_plan(self, header, pooling.pooling_or_none(header, self.pooling))

    def start(self, report: Report) -> LlamaCppEngine:
        """Make the engine; the file's header is read, the model is not."""
        return LlamaCppEngine(self, report)


def embedded() -> LlamaCpp:
    """Make the vendor of the small model that comes with the package."""
    folder = Path(llmdispatcher.models.__file__ or "").parent
    return LlamaCpp(folder / "demo.gguf", name="embedded", quality=1, last_resort=True)


class LlamaCppEngine:
    """Loads the model on demand and serves it in a thread. See ``contract.Engine``."""

    def __init__(self, spec: LlamaCpp, report: Report) -> None:
        self._spec = spec
        self._report = report
        self._lock = threading.RLock()  # a signal handler may close while this thread loads
        self._closed = False
        self._thread: EngineThread | None = None
        self._forget: weakref.finalize[..., LlamaCppEngine] | None = None
        self._card = _card(spec)

    def cards(self) -> Sequence[ModelCard]:
        """Return the one card, made from the file's header."""
        return (self._card,)

    def status(self) -> Status:
        """Return the state now."""
        with self._lock:
            thread = self._thread
            if self._closed:
                return Status(State.CLOSED)
        if thread is None:
            return Status(State.COLD)
        if not thread.loaded.done():
            return Status(State.LOADING)
        error = thread.loaded.exception() or (thread.inbox.error if thread.has_ended() else None)
        if error:
            return Status(State.FAILED, str(error))
        waiting, running = thread.inbox.counts()
        return Status(State.READY, "", waiting, running)

    def load(self, model: str) -> Future[None]:
        """See ``contract.Engine.load``. A failed load is tried again."""
        from llmdispatcher.vendors.llamacpp.engine.thread import EngineThread  # noqa: PLC0415 - first use

        if model != self._card.model:
            return _failed(ModelNotFound(f"there is only {self._card.model!r} here"))
        with self._lock:
            if self._closed:
                return _failed(Refused("the dispatcher was closed"))
            thread = self._thread
            if thread is None or thread.has_ended():
                spec, report, card = self._spec, self._report, self._card
                try:
                    thread = EngineThread(
                        lambda go_on: loading.load(spec, card, report, go_on),
                        f"llama-{card.model}",
                        before=thread,
                    )
                except OutOfMemory as no_room:
                    return _failed(no_room)
                self._adopt(thread)
        if error := thread.misused():
            return _failed(error)
        return thread.loaded

    def _adopt(self, thread: EngineThread) -> None:
        """Take a thread on, and see that it ends.

        An engine that is dropped without close, or is alive when the interpreter ends, must not
        leave a thread inside llama.cpp.
        """
        if self._forget is not None:
            self._forget.detach()
        self._thread = thread
        self._forget = weakref.finalize(self, _end, thread)
        if self._closed:  # by a signal handler, just now
            thread.stop()

    def submit(self, work: Work, model: str) -> Call:
        """See ``contract.Engine.submit``."""
        with self._lock:
            thread = self._thread
        if thread is None or model != self._card.model:
            raise ModelNotFound(f"the model {model!r} is not loaded")
        return thread.submit(work)

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.save``."""
        from llmdispatcher.vendors.llamacpp.engine import keeping  # noqa: PLC0415 - rare

        return keeping.save(self._home(), request, path)

    def restore(self, path: Path) -> Future[Saved]:
        """See ``contract.Keeper.restore``."""
        from llmdispatcher.vendors.llamacpp.engine import keeping  # noqa: PLC0415 - rare

        return keeping.restore(self._home(), path)

    def _home(self) -> Home:
        from llmdispatcher.vendors.llamacpp.engine import keeping  # noqa: PLC0415 - rare

        with self._lock:
            thread = self._thread
        if thread is None:
            raise ModelNotFound(f"the model {self._card.model!r} is not loaded")
        spec = self._spec
        return keeping.Home(
            thread=thread,
            paths=gguf.read_header(spec.model_path).paths,
            vendor=spec.name,
            model=self._card.model,
            cache_type=spec.cache_type,
        )

    def close(self) -> None:
        """See ``contract.Engine.close``."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.stop()
            thread.join()


def _failed(error: DispatcherError) -> Future[None]:
    failed: Future[None] = Future()
    failed.set_exception(error)
    return failed


def _end(thread: EngineThread) -> None:
    thread.stop()
    thread.join()


def _card(spec: LlamaCpp) -> ModelCard:
    """Make the card from the file's header; of a file that cannot be read, from its name."""
    known: dict[str, int | None] = {}
    able = {*ABLE, *({Capability.VISION} if spec.projector_path else ())}
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
        if pooling.is_embedder(header, spec.pooling):
            able = {pooling.capability_of(header, spec.pooling)}
        elif header.fills_in:
            able.add(Capability.INFILL)
    return ModelCard(
        vendor=spec.name,
        model=_PART.sub("", spec.model_path.stem),
        local=True,
        capabilities=able,
        price=spec.price,
        quality=spec.quality,
        last_resort=spec.last_resort,
        **known,
    )
