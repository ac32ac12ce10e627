"""What runs in a throw-away child: use a native library, or be limited, and say how that went.

Every step is told before it is taken, so that whoever started the child knows where it died. The
words come behind a mark, on lines of their own, since native code may print whatever it likes.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from importlib import import_module
from typing import Any

from llmdispatcher.models.errors import DispatcherError, OutOfMemory, VendorError

BEGIN = "[llmdispatcher-trial] "
"""Before what is ours: an object of JSON, on one line."""

LIMITS = "limits"
"""What to try instead of a library."""

IMPORTING, DECODING, LISTING = "importing it", "computing with it", "looking for its devices"

_CELLS = 64
"""Tokens that the context holds: enough for those that are decoded."""
_TOGETHER = 32
"""A whole tile of rows, for every kind of processor that has such."""

_KINDS = {0: "processor", 1: "gpu", 2: "integrated gpu", 3: "accelerator"}
"""ggml_backend_dev_type in ggml-backend.h."""

MOST_CHARS = 1000
"""Of an error's text: the loader's messages name a path and a symbol, and are shorter."""

MOST_DEVICES = 32
"""llama.cpp takes 16 (llama_max_devices); whatever claims to have more is not believed."""


def tell(**facts: Any) -> None:  # noqa: ANN401 - anything that is JSON
    """Write one line of ours to stdout, past Python's buffer, which a crash would take along.

    The reader keeps 4,096 bytes of a line, which bounds what one may hold.
    """
    line = f"\n{BEGIN}{json.dumps(facts)}\n"
    os.write(1, line.encode())


def main() -> None:
    """Try what the first argument names, tell, and end at once: destructors are not tried."""
    package, *tested = sys.argv[1:]
    try:
        tell(**_TRIALS[package](tested))
    except ModuleNotFoundError as error:
        tell(missing=error.name or str(error))
    except OutOfMemory as error:
        tell(memory=f"{error}"[:MOST_CHARS])
    except (DispatcherError, ImportError, OSError, RuntimeError, AttributeError) as error:
        tell(broken=f"{error}"[:MOST_CHARS])
    os._exit(0)


def _version(package: str) -> str:
    tell(stage=IMPORTING)
    version = getattr(import_module(package), "__version__", None)
    if not isinstance(version, str):
        raise ImportError("it has no version")  # noqa: TRY004 - what it was given is no package
    return version


def _try_binding(tested: list[str]) -> dict[str, Any]:
    """Import llama-cpp-python, decode some tokens with the embedded model, and list the devices."""
    version = _version("llama_cpp")
    if tested and version not in tested:
        return {"untested": version}  # its structs may be others: not even called
    from llmdispatcher.vendors.llamacpp.binding import library  # noqa: PLC0415 - may end us

    tell(stage=DECODING, version=version)
    _decode()
    tell(stage=LISTING, version=version)
    _tell_devices(library.lib._lib)  # noqa: SLF001 - the loaded library
    info = library.lib.llama_print_system_info().decode(errors="replace")
    return {"version": version, "system_info": info[:MOST_CHARS]}


def _decode() -> None:
    """Decode tokens on the processor: only then are the build's own instructions met.

    One alone, and many together: matrices are multiplied with one vector in another way than with
    several.

    Without the embedded model, which a frozen application may leave out, this is left out too.
    """
    from llmdispatcher.vendors.llamacpp.binding.library import lib  # noqa: PLC0415 - may end us
    from llmdispatcher.vendors.llamacpp.binding.opening import (  # noqa: PLC0415 - as above
        Setup,
        open_context,
        open_model,
    )
    from llmdispatcher.vendors.llamacpp.files import gguf  # noqa: PLC0415 - as above
    from llmdispatcher.vendors.llamacpp.vendor import embedded  # noqa: PLC0415 - as above

    path = embedded().model_path
    try:
        gguf.read_header(path)
    except VendorError:
        return
    setup = Setup(
        path=str(path),
        context_tokens=_CELLS,
        cells=_CELLS,
        slots=1,
        batch_tokens=_CELLS,
        threads=1,
        gpu_layers=0,
    )
    model = open_model(setup, lambda _: True)
    flag = ctypes.create_string_buffer(2)
    context = open_context(model, setup, flag)
    for count in (1, _TOGETHER):
        tokens = (lib.llama_token * count)()
        code = lib.llama_decode(context, lib.llama_batch_get_one(tokens, count))
        if code:
            raise RuntimeError(f"llama_decode returns {code} for a model that is known to work")


def _tell_devices(ggml: Any) -> None:  # noqa: ANN401 - ctypes has no types
    """Ask ggml for its devices, as a load would; this wakes the GPUs' drivers.

    Never run with a device that is no processor. Where the library does not hand on its
    dependencies' names, which is so on Windows, none are told.
    """
    try:
        count, get, name, description, kind, memory = (
            getattr(ggml, f"ggml_backend_dev_{word}")
            for word in ("count", "get", "name", "description", "type", "memory")
        )
    except AttributeError:
        return
    size = ctypes.POINTER(ctypes.c_size_t)
    count.restype, get.argtypes, get.restype = ctypes.c_size_t, [ctypes.c_size_t], ctypes.c_void_p
    for words in (name, description):
        words.argtypes, words.restype = [ctypes.c_void_p], ctypes.c_char_p
    kind.argtypes = [ctypes.c_void_p]
    memory.argtypes, memory.restype = [ctypes.c_void_p, size, size], None
    for index in range(min(count(), MOST_DEVICES)):
        device, free, total = get(index), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        names = (
            name(device).decode(errors="replace"),
            description(device).decode(errors="replace"),
        )
        _tell_device(names, kind(device), free.value, total.value)


def _tell_device(names: tuple[str, str], kind: int, free_bytes: int, total_bytes: int) -> None:
    tell(
        device={
            "name": names[0][:MOST_CHARS],
            "description": names[1][:MOST_CHARS],
            "kind": _KINDS.get(kind, "other"),
            "free_bytes": free_bytes,
            "total_bytes": total_bytes,
        }
    )


def _try_prebuilt(_: list[str]) -> dict[str, Any]:
    """Import xllamacpp, and ask it what it is."""
    version = _version("xllamacpp")
    module: Any = import_module("xllamacpp")
    tell(stage=LISTING, version=version)
    for device in module.get_device_info()[:MOST_DEVICES]:
        names = (str(device["name"]), str(device["description"]))
        sizes = (int(device["memory_free"]), int(device["memory_total"]))
        _tell_device(names, int(device["type"]), *sizes)
    return {"version": version, "system_info": str(module.get_system_info())[:MOST_CHARS]}


def _try_limits(arguments: list[str]) -> dict[str, Any]:
    """Be held to limits as a worker is, and tell which of them the system keeps."""
    from llmdispatcher.vendors.llamacpp.limits import caps  # noqa: PLC0415 - for this trial alone

    memory_bytes, uses_gpu = int(arguments[0]), arguments[1] == "gpu"
    for measure in caps.hold(caps.Caps(memory_bytes=memory_bytes, uses_gpu=uses_gpu)):
        tell(measure=[measure.what, measure.enforced, measure.how])
    return {"held": True}


_TRIALS = {"llama_cpp": _try_binding, "xllamacpp": _try_prebuilt, LIMITS: _try_limits}
