"""Makes hosts: chooses where a model runs, and reads from its plan what it will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import ExecutableNotFound
from llmdispatcher.vendors.contract import Footprint
from llmdispatcher.vendors.llamacpp import choice, loading
from llmdispatcher.vendors.llamacpp.choice import Kind
from llmdispatcher.vendors.llamacpp.embedding import pooling
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.host import Reporting

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.keeping import Subject
    from llmdispatcher.vendors.llamacpp.host import Host
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp


@attrs.frozen(kw_only=True)
class Life:
    """What a host is made from."""

    spec: LlamaCpp
    card: ModelCard
    report: Reporting
    rung: int = 0
    """How much less than usual to take; see ``plan.squeeze``."""
    wait_s: float = 0.0
    """How long to wait before it begins."""
    before: Host | None = None
    """The life before, which has ended and whose memory is given back first."""

    def subject(self) -> Subject:
        """Return what keeping a state needs to know of the model."""
        from llmdispatcher.vendors.llamacpp.engine.keeping import (  # noqa: PLC0415 - first use
            Subject,
        )

        return Subject(
            vendor=self.spec.name,
            model=self.card.model,
            path=self.spec.model_path,
            cache_type=self.spec.cache_type,
        )


def begin(life: Life) -> Host:
    """Begin a life, with the engine that ``choice`` takes.

    Raises OutOfMemory where no thread can be started, ExecutableNotFound where nothing is installed
    that could run the model, and BadRequest for an executable that no engine would run.
    """
    chosen = _chosen(life.spec)
    match chosen.kind:
        case Kind.THREAD:
            return _thread(life)
        case Kind.WORKER:
            return _worker(life)
        case Kind.PREBUILT | Kind.SERVER:
            return _server(life, chosen)


def _chosen(spec: LlamaCpp) -> choice.Choice:
    there = choice.look(has_worker_command=spec.worker_command is not None)
    return choice.choose(spec.engine, spec.executable, spec.isolation, there)


def _thread(life: Life) -> Host:
    from llmdispatcher.vendors.llamacpp.engine.thread import EngineThread  # noqa: PLC0415 - first use

    terms = loading.Terms(rung=life.rung)
    return EngineThread(
        lambda go_on: loading.load(life.spec, life.card, life.report, go_on, terms),
        life.subject(),
        life.report,
        life.before,
    )


def _worker(life: Life) -> Host:
    try:
        from llmdispatcher.vendors.llamacpp.worker.host import (  # noqa: PLC0415 - first use
            WorkerHost,
        )
    except ModuleNotFoundError as error:
        raise loading.missing(f"no {error.name}") from error
    return WorkerHost(life)


def _server(life: Life, chosen: choice.Choice) -> Host:
    try:
        from llmdispatcher.vendors.llamacpp.server import (  # noqa: PLC0415 - first use
            find,
            host,
            program,
        )
    except ModuleNotFoundError as error:
        told = f"a supervised server needs {error.name}: pip install {error.name}"
        raise ExecutableNotFound(told) from error
    if chosen.kind is Kind.PREBUILT:
        return host.ServerHost(life, program.Prebuilt())
    return host.ServerHost(life, program.LlamaServer(find.executable(chosen.executable)))


def footprint(spec: LlamaCpp, rung: int) -> Footprint:
    """Return what a model will take, by its plan. Raises the error that a load would."""
    from llmdispatcher.vendors.llamacpp.plan import planning  # noqa: PLC0415 - loads psutil

    header = gguf.read_header(spec.model_path)
    if _chosen(spec).kind in {Kind.SERVER, Kind.PREBUILT}:
        from llmdispatcher.vendors.llamacpp.server import planned  # noqa: PLC0415 - first use

        # of main memory; what a server's program can put on GPUs is known when it is started
        plan = planned.plan(spec, header, planned.pooling_of(spec, header), rung, ())
    else:
        kind = pooling.pooling_or_none(header, spec.pooling)
        plan = planning.make_plan(spec, header, kind, rung)
    return Footprint(
        memory_bytes=plan.need.total_bytes,
        gpu_bytes=0 if plan.gpu_need is None else plan.gpu_need.total_bytes,
        pinned=spec.pinned,
        keep_alive_s=spec.keep_alive_s,
    )
