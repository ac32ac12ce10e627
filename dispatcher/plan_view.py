"""What ``llmdispatcher plan`` shows: which model a file holds, and how it would be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llmdispatcher.terminal import one_line
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.plan import planning

if TYPE_CHECKING:
    from llmdispatcher.vendors.contract import VendorSpec
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

_UNITS = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"))


def text(vendor: VendorSpec) -> str:
    """Describe the model of a vendor that runs GGUF files, and its plan.

    Raises ModelTooLarge, with the numbers, if it does not fit, and another VendorError for a file
    that cannot be loaded.
    """
    spec = cast("LlamaCpp", vendor)
    header = gguf.read_header(spec.model_path)
    facts = [spec.model_name or spec.model_path.name, header.name, header.architecture]
    facts += [f"{_rounded(header.parameter_count)} parameters", header.quantisation]
    table = planning.make_plan(spec, header).table()
    return f"{', '.join(one_line(fact) for fact in facts if fact)}\n\n{table}"


def _rounded(count: int) -> str:
    for size, name in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {name}"
    return str(count)
