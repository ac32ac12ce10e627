"""From a spec to a model that is loaded. Runs in the engine's thread.

What is heavy is imported here, on first use, and refused with the command that installs it where
it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import ExecutableNotFound
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.llamacpp.embedding import pooling
from llmdispatcher.vendors.llamacpp.files import gguf

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.embedding.embedder import LoadedPooled
    from llmdispatcher.vendors.llamacpp.engine.engine import Loaded
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

TESTED_VERSIONS = ("0.3.36",)
"""Releases of llama-cpp-python whose structs ``native`` fills in; layouts change between them."""


@attrs.frozen(kw_only=True)
class Terms:
    """On what terms to load."""

    rung: int = 0
    """How much less than usual to take; see ``plan.squeeze``."""
    room: Callable[[], None] | None = None
    """Called before a request is let in; raises if serving it could end the process. None asks the
    system for the usual margin."""
    planned: Callable[[Plan, Header], None] = attrs.field(default=lambda _plan, _header: None)
    """Told of the plan before anything of it is done."""


def load(
    spec: LlamaCpp,
    card: ModelCard,
    report: Report,
    go_on: Callable[[], bool],
    terms: Terms | None = None,
) -> Loaded | LoadedPooled:
    """Load. Raises a DispatcherError, also when ``go_on`` says no."""
    header = gguf.read_header(spec.model_path)
    kind = pooling.pooling_or_none(header, spec.pooling)
    if kind is None:
        header.check_generates()
    _require_llama_cpp(go_on)
    from llmdispatcher.vendors.llamacpp.making import Making  # noqa: PLC0415 - heavy

    making = Making(spec, card, report, go_on, terms or Terms())
    return making.writer(header) if kind is None else making.pooled(header, kind)


def _require_llama_cpp(go_on: Callable[[], bool]) -> None:
    """Refuse a missing or broken llama-cpp-python, or one whose structs were not tested with.

    One that would end this process is found out in another one; see ``trial``.
    """
    from llmdispatcher.vendors.llamacpp import trial  # noqa: PLC0415 - a cycle

    trial.require(go_on)
    try:
        for name in ("jinja2", "psutil"):
            import_module(name)
        found = str(import_module("llama_cpp").__version__)
    except ModuleNotFoundError as error:
        found = f"no {error.name}"
    except (ImportError, OSError, RuntimeError) as error:  # its shared library does not load
        found = f"a broken one ({error})"
    if found not in TESTED_VERSIONS:
        raise missing(found)


def missing(found: str) -> ExecutableNotFound:
    """Return the error that says what is there instead, and how to install what is needed."""
    return ExecutableNotFound(
        f"running GGUF files needs llama-cpp-python {TESTED_VERSIONS[-1]}, jinja2 and psutil,"
        f" and there is {found}:"
        f" pip install 'llama-cpp-python=={TESTED_VERSIONS[-1]}' jinja2 psutil"
    )
