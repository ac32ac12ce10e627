"""What is told of a worker that died: to its callers, to whoever listens, and in a crash report."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from llmdispatcher.models.event import EngineDied

if TYPE_CHECKING:
    from llmdispatcher.models.errors import VendorError
    from llmdispatcher.vendors.llamacpp.hosting import Life


def tell(life: Life, error: VendorError, status: int | None) -> None:
    """Write a crash report, and report the death. Prompts and replies are in neither."""
    from llmdispatcher.vendors.llamacpp.child import reports  # noqa: PLC0415 - rare

    spec, card = life.spec, life.card
    facts = {
        "vendor": card.vendor,
        "model": card.model,
        "file": spec.model_path.name,
        "exit status": str(status),
        "less than usual": str(life.rung),
        "max_memory_mb": str(spec.max_memory_mb),
        "max_gpu_layers": str(spec.max_gpu_layers),
        "context_tokens": str(spec.context_tokens),
        "system": platform.platform(),
    }
    path = reports.write(facts, error)
    reason = f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    told = EngineDied(
        vendor=card.vendor,
        model=card.model,
        reason=reason,
        report="" if path is None else str(path),
    )
    life.report(told)
