"""Whether models fit on this machine, one after the other: the machine is read once."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from llmdispatcher.models.errors import DispatcherError, ModelTooLarge
from llmdispatcher.vendors.llamacpp.embedding import pooling
from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.plan import fit, planning
from llmdispatcher.vendors.llamacpp.plan.fit import Plan


@attrs.frozen(kw_only=True)
class Fit:
    """Whether a model fits, and where."""

    fits: bool
    gpu_layers: int = 0
    """Layers that a GPU would compute."""
    layers: int = 0
    """All of its layers."""
    needed_bytes: int | None = None
    """Main memory that it takes."""
    limit_bytes: int | None = None
    """Main memory that it may take."""
    problem: str = ""
    """Why it cannot run here, where memory is not the reason."""


def weigher() -> Callable[[Header], Fit]:
    """Read this machine, and return what says of a header whether its model fits, as things are.

    Raises ExecutableNotFound where psutil is missing.
    """
    there = planning.machine(natively=False)
    asked = fit.Asked(process_bytes=planning.WORKER_BYTES)

    def weigh(header: Header) -> Fit:
        def make() -> Plan:
            kind = pooling.pooling_or_none(header, None)
            if kind is not None:
                return pooling.choose(header, kind, asked, there)
            return fit.choose(header, asked, there)

        return of_plan(make, header)

    return weigh


def of_plan(make: Callable[[], Plan], header: Header) -> Fit:
    """Return whether the model of a header fits, by the plan that is made of it."""
    try:
        made = make()
    except ModelTooLarge as error:
        return Fit(fits=False, needed_bytes=error.needed_bytes, limit_bytes=error.limit_bytes)
    except DispatcherError as error:
        return Fit(fits=False, problem=str(error))
    return Fit(
        fits=True,
        gpu_layers=made.gpu_layers,
        layers=header.block_count + 1,
        needed_bytes=made.need.total_bytes,
        limit_bytes=made.limit_bytes,
    )
