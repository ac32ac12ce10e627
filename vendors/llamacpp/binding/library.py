"""llama.cpp itself: the only module that imports llama_cpp, and what is set once for the process.

Everybody else takes ``lib`` from here, so that llama.cpp's log and its last words go where they
should before anything else is called.
"""

from __future__ import annotations

import atexit
import ctypes
from functools import cache
from typing import Any

import llama_cpp
from llama_cpp import _utils
from llama_cpp import llama_cpp as lib

from llmdispatcher.vendors.llamacpp.binding import log

__all__ = ["build", "lib", "mtmd_lib", "scores_at"]

# Every call through ctypes lets other threads have the interpreter, and a thread that waits for it
# takes it: with many consumers, the engine would lose it several times a token. This one returns at
# once after llama_synchronize, so it keeps it.
scores_at = ctypes.PyDLL(lib._lib._name).llama_get_logits_ith  # noqa: SLF001 - the loaded library
"""llama_get_logits_ith: context and index of a row to the address of its scores, or None."""
scores_at.argtypes, scores_at.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p

# llama.cpp keeps one log callback for the process, and the binding has set one that prints. The
# callback objects must live as long as the library may call them: for ever.
_LOG_CALLBACK = lib.llama_log_callback(lambda level, text, _: log.take(level, text))
_ABORT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(log.last_words)


def build() -> str:
    """Name this build of llama.cpp: what it writes, only the same reads back."""
    system = lib.llama_print_system_info().decode(errors="replace")
    return f"llama-cpp-python {llama_cpp.__version__}: {system}"


@cache
def mtmd_lib() -> Any:  # noqa: ANN401 - the binding has no types
    """Return llama.cpp's library for images, loaded on first use, which logs where it does."""
    from llama_cpp import mtmd_cpp  # noqa: PLC0415 - few models see

    mtmd_cpp.mtmd_log_set(_LOG_CALLBACK, None)
    return mtmd_cpp


def _catch_last_words() -> None:
    """Have the message of an assertion that fails handed to ``log`` before the process ends.

    It is not in the binding: ggml_set_abort_callback of libggml-base, which libllama depends on
    and so resolves. Windows resolves a library's own names only; there ggml prints it by itself.
    """
    try:
        set_callback = lib._lib.ggml_set_abort_callback  # noqa: SLF001 - the loaded library
    except AttributeError:
        return
    set_callback.argtypes, set_callback.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_callback(ctypes.cast(_ABORT_CALLBACK, ctypes.c_void_p))


# the binding opens two files when it is imported and leaves them to the end, which warns of them
for _file in (_utils.outnull_file, _utils.errnull_file):
    atexit.register(_file.close)

lib.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
_catch_last_words()
lib.llama_backend_init()
