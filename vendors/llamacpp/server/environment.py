"""The environment that a server gets: this process's, without what would change what it does.

llama-server reads every setting from a variable too, which would set whatever is left out of its
arguments: a prompt cache of 8 GiB, a port, a model to fetch. Keys and tokens of others are no
business of a server that fetches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

_PREFIXES = ("LLAMA_ARG_", "LLAMA_LOG_", "LLAMA_SERVER_", "LLAMA_OFFLINE")
"""Settings (common/arg.cpp), settings of its log, and its private protocol between servers."""

_NAMES = ("LLAMA_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MTMD_BACKEND_DEVICE")
"""Keys that would be accepted beside ours, tokens for fetching models, and the projector's GPU."""

_GIVEN = {"GGML_NO_BACKTRACE": "1"}
"""ggml would start a debugger to print where it aborts, which takes seconds."""


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a server, from this process's own."""
    kept = {
        name: value
        for name, value in own.items()
        if not name.upper().startswith(_PREFIXES) and name.upper() not in _NAMES
    }
    return {**kept, **_GIVEN}
