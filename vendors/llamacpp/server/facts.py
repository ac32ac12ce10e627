"""What a server that runs can do: from what it says of itself, its settings and the file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmdispatcher.vendors.llamacpp.files.header import FIM_TOKENS, ArrayInfo
from llmdispatcher.vendors.llamacpp.server.wire import Abilities

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.server.settings import Settings

_KEYS = (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle"))
"""How a file names its tokens for filling in: today's names, and older ones."""

Fill = tuple[int | str, int | str, int | str]


def abilities(
    props: Mapping[str, Any], settings: Settings, header: Header, adapters: tuple[str, ...]
) -> Abilities:
    """Return what to ask of it; what it does not say of itself is not known."""
    slots = props.get("total_slots")
    return Abilities(
        slots=slots if isinstance(slots, int) and slots > 0 else settings.slots,
        context_tokens=settings.context_tokens,
        tools=_said(props.get("chat_template_caps"), "supports_tools"),
        vision=_said(props.get("modalities"), "vision"),
        adapters=adapters,
        fill_in=fill_in(header),
    )


def _said(group: object, name: str) -> bool | None:
    value = group.get(name) if isinstance(group, dict) else None
    return value if isinstance(value, bool) else None


def fill_in(header: Header) -> Fill | None:
    """Return the tokens between which a model fills in; None where it has none."""
    for names in _KEYS:
        tokens = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names]
        before, between, behind = (each if isinstance(each, int) else None for each in tokens)
        if before is not None and between is not None and behind is not None:
            return before, between, behind
    known = header.metadata.get("tokenizer.ggml.tokens", ())
    marks = known.marks if isinstance(known, ArrayInfo) else known
    for first in range(0, len(FIM_TOKENS), 3):
        before_, between_, behind_ = FIM_TOKENS[first : first + 3]
        if isinstance(marks, tuple | frozenset) and {before_, between_, behind_} <= {*marks}:
            return before_, between_, behind_
    return None
