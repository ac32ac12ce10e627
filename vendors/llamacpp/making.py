"""Makes a loaded model of a header, as planned: reports how far it is, and governs its threads.

Imports all that is heavy (llama.cpp, numpy, jinja2, psutil), and so is imported by ``loading`` once
that is known to be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from llmdispatcher.models.card import ModelCard
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.binding.opening import Setup
from llmdispatcher.vendors.llamacpp.embedding.embedder import LoadedPooled
from llmdispatcher.vendors.llamacpp.embedding.pooled import Pooled, PooledSetup
from llmdispatcher.vendors.llamacpp.embedding.pooling import Pooling
from llmdispatcher.vendors.llamacpp.engine.backend import Backend, Sharing
from llmdispatcher.vendors.llamacpp.engine.engine import Loaded
from llmdispatcher.vendors.llamacpp.engine.guessing import MORE_ROWS
from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.host import progress
from llmdispatcher.vendors.llamacpp.limits import probe
from llmdispatcher.vendors.llamacpp.limits.governor import Governor, Times
from llmdispatcher.vendors.llamacpp.plan import planning
from llmdispatcher.vendors.llamacpp.plan.fit import Plan, guesses
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.loading import Terms
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp


class Making:
    """One load."""

    def __init__(
        self,
        spec: LlamaCpp,
        card: ModelCard,
        report: Report,
        go_on: Callable[[], bool],
        terms: Terms,
    ) -> None:
        self._spec, self._card, self._report, self._go_on = spec, card, report, go_on
        self._terms = terms
        self._started = time.monotonic()
        self._before = _times(probe.busy_s())
        self._tell(0.0)

    def writer(self, header: Header) -> Loaded:
        """Load a model that writes. Raises a DispatcherError."""
        spec, own = self._spec, self._spec.chat_template
        chat = ChatTemplate(own or header.chat_template, None if own else header.tool_template)
        plan = planning.make_plan(spec, header, rung=self._terms.rung)
        self._terms.planned(plan, header)
        guessing = guesses(header, spec.speculate)
        backend = NativeBackend(_setup(spec, plan, guessing=guessing), self._progress)
        with ExitStack() as undo:
            undo.callback(backend.close)
            if spec.projector_path is not None:
                backend.see(spec.projector_path, threads=plan.threads)
            if spec.adapters:
                backend.take_adapters(header, spec.adapters)
            govern = self._governed(backend, plan)
            undo.pop_all()
        return Loaded(
            backend=backend,
            template=chat,
            parallel=plan.parallel,
            projector=backend.projector,
            guesses=guessing and backend.sharing is Sharing.PREFIX,
            keep_cells=_keep_cells(header),
            scan_s=_scan_s(header),
            guard=self._terms.room or planning.require_room,
            govern=govern,
        )

    def pooled(self, header: Header, kind: Pooling) -> LoadedPooled:
        """Load a model for vectors or scores. Raises a DispatcherError."""
        plan = planning.make_plan(self._spec, header, kind, self._terms.rung)
        self._terms.planned(plan, header)
        setup = PooledSetup.of(self._spec.model_path, kind, plan)
        backend = Pooled(setup, self._progress)
        with ExitStack() as undo:
            undo.callback(backend.close)
            govern = self._governed(backend, plan)
            undo.pop_all()
        return LoadedPooled(backend, guard=self._terms.room or planning.require_room, govern=govern)

    def _progress(self, fraction: float) -> bool:
        if fraction < 1:
            self._tell(fraction)
        return self._go_on()

    def _governed(self, backend: Backend | Pooled, plan: Plan) -> Callable[[int, float], None]:
        """Return what follows the processors that are free, and say that all is loaded."""
        governor = Governor(ceiling=plan.threads, processors=probe.threads(), times=self._before)
        govern = _governed(backend, governor)
        self._tell(1.0)
        return govern

    def _tell(self, fraction: float) -> None:
        self._report(progress(self._card, fraction, self._started))


def _setup(spec: LlamaCpp, plan: Plan, *, guessing: bool) -> Setup:
    """Say how llama.cpp is to load a model, as planned; the governor sets the threads later."""
    return Setup(
        path=str(spec.model_path),
        context_tokens=plan.context_tokens,
        cells=plan.cells,
        slots=plan.slots,
        batch_tokens=plan.batch_tokens,
        threads=1,
        gpu_layers=plan.gpu_layers,
        cache_type=plan.cache_type,
        mapped=plan.mapped,
        more_rows=MORE_ROWS if guessing else 0,
        full_window=plan.full_window,
    )


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
