"""From a spec to a model that is loaded: read the header, plan, load, govern.

Runs in the engine's thread. What is heavy (llama.cpp, numpy, jinja2, psutil) is imported here, on
first use, and refused with the command that installs it where it is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import ExecutableNotFound
from llmdispatcher.models.event import LoadProgress
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.llamacpp import gguf, pooling
from llmdispatcher.vendors.llamacpp.backend import Sharing
from llmdispatcher.vendors.llamacpp.governor import Governor, Times
from llmdispatcher.vendors.llamacpp.header import Header

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.backend import Backend
    from llmdispatcher.vendors.llamacpp.embedder import LoadedPooled
    from llmdispatcher.vendors.llamacpp.engine import Loaded
    from llmdispatcher.vendors.llamacpp.fit import Plan
    from llmdispatcher.vendors.llamacpp.opening import Setup
    from llmdispatcher.vendors.llamacpp.pooled import Pooled
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

TESTED_VERSIONS = ("0.3.36",)
"""Releases of llama-cpp-python whose structs ``native`` fills in; layouts change between them."""


def load(
    spec: LlamaCpp, card: ModelCard, report: Report, go_on: Callable[[], bool]
) -> Loaded | LoadedPooled:
    """Load. Runs in the engine's thread; raises a DispatcherError, also when ``go_on`` says no."""
    header = gguf.read_header(spec.model_path)
    kind = pooling.pooling_or_none(header, spec.pooling)
    if kind is not None:
        return _load_pooled(spec, kind, card, report, go_on)
    header.check_generates()
    _require_llama_cpp()
    from llmdispatcher.vendors.llamacpp import (  # noqa: PLC0415 - heavy
        engine,
        native,
        planning,
        probe,
        template,
    )

    started = time.monotonic()
    _tell(report, card, 0.0, started)
    own = spec.chat_template
    chat = template.ChatTemplate(own or header.chat_template, None if own else header.tool_template)
    plan = planning.make_plan(spec, header)

    def progress(fraction: float) -> bool:
        if fraction < 1:
            _tell(report, card, fraction, started)
        return go_on()

    before = _times(probe.busy_s())
    backend = native.NativeBackend(_setup(spec, plan), progress)
    with ExitStack() as undo:
        undo.callback(backend.close)
        if spec.projector_path is not None:
            backend.see(spec.projector_path)
        if spec.adapters:
            backend.take_adapters(header, spec.adapters)
        governor = Governor(ceiling=plan.threads, processors=probe.threads(), times=before)
        govern = _governed(backend, governor)
        _tell(report, card, 1.0, started)
        undo.pop_all()
    return engine.Loaded(
        backend=backend,
        template=chat,
        parallel=plan.parallel,
        projector=backend.projector,
        guesses=spec.speculate is not False and backend.sharing is Sharing.PREFIX,
        keep_cells=_keep_cells(header),
        scan_s=_scan_s(header),
        guard=planning.require_room,
        govern=govern,
    )


def _setup(spec: LlamaCpp, plan: Plan) -> Setup:
    """Say how llama.cpp is to load a model, as planned; the governor sets the threads later."""
    from llmdispatcher.vendors.llamacpp import guessing, opening  # noqa: PLC0415 - heavy

    return opening.Setup(
        path=str(spec.model_path),
        context_tokens=plan.context_tokens,
        cells=plan.cells,
        slots=plan.slots,
        batch_tokens=plan.batch_tokens,
        threads=1,
        gpu_layers=plan.gpu_layers,
        cache_type=plan.cache_type,
        mapped=plan.mapped,
        more_rows=guessing.MORE_ROWS if spec.speculate is not False else 0,
        full_window=plan.full_window,
    )


def _load_pooled(
    spec: LlamaCpp,
    kind: pooling.Pooling,
    card: ModelCard,
    report: Report,
    go_on: Callable[[], bool],
) -> LoadedPooled:
    """Load a model for vectors or scores."""
    _require_llama_cpp()
    from llmdispatcher.vendors.llamacpp import (  # noqa: PLC0415 - heavy
        embedder,
        planning,
        pooled,
        probe,
    )

    started = time.monotonic()
    _tell(report, card, 0.0, started)
    plan = planning.make_plan(spec, gguf.read_header(spec.model_path), kind)

    def progress(fraction: float) -> bool:
        if fraction < 1:
            _tell(report, card, fraction, started)
        return go_on()

    before = _times(probe.busy_s())
    backend = pooled.Pooled(pooled.PooledSetup.of(spec.model_path, kind, plan), progress)
    with ExitStack() as undo:
        undo.callback(backend.close)
        governor = Governor(ceiling=plan.threads, processors=probe.threads(), times=before)
        govern = _governed(backend, governor)
        _tell(report, card, 1.0, started)
        undo.pop_all()
    return embedder.LoadedPooled(backend, guard=planning.require_room, govern=govern)


SCAN_S = 1e-9
"""What it takes to pass over a cell of another conversation, for each layer and head: attention
looks at every cell in use, though it counts only its own. About the difference between the two
layouts of llama-batched-bench, which ``bench/engine.py`` prints."""
READ_BYTES_PER_S = 20e9
"""How fast weights are read, which most of a step's time goes into."""
SCAN_PART = 0.01
"""Kept prefixes may slow a reply down by so much, and several at once by a few times that."""


def _keep_cells(header: Header) -> int:
    """Return how many cells finished conversations may keep, of which every step costs time."""
    step_s = header.weight_bytes / READ_BYTES_PER_S
    return int(SCAN_PART * step_s / _scan_s(header))


def _scan_s(header: Header) -> float:
    """Return what it takes to pass over a kept cell, for each token that is drawn."""
    heads = max((1, *header.head_counts))  # a model without attention has none
    return SCAN_S * max(1, header.block_count) * heads


def _times(busy_s: float) -> Times:
    return Times(now_s=time.monotonic(), busy_s=busy_s, own_s=time.thread_time())


IDLE_S = 0.05
"""So long without a step, the engine had nothing to do; steps follow each other in microseconds."""


def _governed(backend: Backend | Pooled, governor: Governor) -> Callable[[int, float], None]:
    """Return what to call after each decode: it moves the number of threads when that is due."""
    from llmdispatcher.vendors.llamacpp import probe  # noqa: PLC0415 - loads psutil

    ended_s = time.monotonic()

    def govern(tokens: int, began_s: float) -> None:
        nonlocal ended_s
        now_s, idle_s = time.monotonic(), began_s - ended_s
        ended_s = now_s
        if idle_s > IDLE_S:
            governor.resume(_times(probe.busy_s()))
        elif governor.is_due(now_s, tokens, now_s - began_s):
            before = governor.threads
            if governor.look(_times(probe.busy_s())) != before:
                backend.set_threads(governor.threads)

    backend.set_threads(governor.look(_times(probe.busy_s())))
    return govern


def _require_llama_cpp() -> None:
    """Refuse a missing or broken llama-cpp-python, or one whose structs were not tested with."""
    try:
        for name in ("jinja2", "psutil"):
            import_module(name)
        found = str(import_module("llama_cpp").__version__)
    except ModuleNotFoundError as error:
        found = f"no {error.name}"
    except (ImportError, OSError, RuntimeError) as error:  # its shared library does not load
        found = f"a broken one ({error})"
    if found not in TESTED_VERSIONS:
        raise ExecutableNotFound(
            f"running GGUF files needs llama-cpp-python {TESTED_VERSIONS[-1]}, jinja2 and psutil,"
            f" and there is {found}:"
            f" pip install 'llama-cpp-python=={TESTED_VERSIONS[-1]}' jinja2 psutil"
        )


def _tell(report: Report, card: ModelCard, fraction: float, started: float) -> None:
    report(
        LoadProgress(
            vendor=card.vendor,
            model=card.model,
            fraction=fraction,
            elapsed_s=time.monotonic() - started,
        )
    )
