"""llama.cpp as others use it, on a build that must keep weights as the file has them.

Our engine finds out by itself that a build's code for matrix tiles is spoiled (``weights``). Who is
held against it, compiled by the same compiler, would end there, and is told.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llama_cpp import llama_cpp as lib

from llmdispatcher.vendors.llamacpp.weights import Packing, packing

ALONE = (
    "import runpy\n"
    "from llama_cpp import llama_cpp as lib\n"
    "made = lib.llama_model_default_params\n"
    "def plain():\n    params = made()\n    params.use_extra_bufts = False\n    return params\n"
    "lib.llama_model_default_params = plain\n"
    "runpy.run_module('llama_cpp.server', run_name='__main__')\n"
)
"""Runs the binding's server so."""

_MADE = lib.llama_model_default_params


@cache
def are_plain() -> bool:
    """Whether weights must be kept as the file has them."""
    return packing() is Packing.PLAIN


def server_flags() -> tuple[str, ...]:
    """Return what llama-server is told."""
    return ("--no-repack",) if are_plain() else ()


def binding_server() -> tuple[str, ...]:
    """Return the arguments of Python that run the binding's server."""
    return ("-c", ALONE) if are_plain() else ("-m", "llama_cpp.server")


def model_params() -> Any:
    """Return the parameters of a model with which this build loads it safely."""
    params = _MADE()
    params.use_extra_bufts = not are_plain()
    return params


def llama(*arguments: Any, **options: Any) -> Any:
    """Make one of the binding's own class."""
    import llama_cpp  # noqa: PLC0415 - the class, which is heavy

    lib.llama_model_default_params = model_params
    try:
        return llama_cpp.Llama(*arguments, **options)
    finally:
        lib.llama_model_default_params = _MADE
