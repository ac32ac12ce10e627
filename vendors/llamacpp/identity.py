"""What tells a ``LlamaCpp`` from one that would say something else, where replies are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp


def identity(spec: LlamaCpp) -> str:
    """Return its files with their sizes and times, and what it is told to do; see ``Identified``.

    A file that was written anew is another model. Empty where one is not there.
    """
    projector = () if spec.projector_path is None else (spec.projector_path,)
    adapters = sorted(spec.adapters.items())
    try:
        seen = [
            (str(path.absolute()), found.st_size, found.st_mtime_ns)
            for path in (spec.model_path, *projector, *(path for _, path in adapters))
            for found in (path.stat(),)
        ]
    except OSError:
        return ""
    told = (spec.engine, spec.context_tokens, spec.cache_type, spec.chat_template)
    return repr((seen, [name for name, _ in adapters], told))
