"""A child that holds itself to limits and then does what it was told; prints what became of it.

    held_child.py {"caps": {…}, "before": […], "after": […]}

Steps of ``before`` and ``after`` are names of the functions below. The answer is one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from llmdispatcher.models.errors import OutOfMemory
from llmdispatcher.vendors.llamacpp.limits.caps import Caps, hold

MIB = 2**20


def status(name: str) -> int:
    """Return one number of the process's own, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def library() -> dict[str, Any]:
    """Load llama.cpp and all that comes with it."""
    from llmdispatcher.vendors.llamacpp.binding import native  # noqa: F401, PLC0415 - the child's

    return {}


def serve() -> dict[str, Any]:
    """Answer with the model that comes with the package, by two threads."""
    from llmdispatcher import Dispatcher, LlamaCpp  # noqa: PLC0415 - the child's

    path = Path(str(resources.files("llmdispatcher.models") / "demo.gguf"))
    spec = LlamaCpp(path, isolation="thread", max_threads=2, context_tokens=512, max_parallel=1)
    with Dispatcher(spec) as dispatcher:
        reply = dispatcher.send("Hello", max_tokens=4, temperature=0)
    return {"tokens": reply.usage.completion_tokens}


def hoard() -> dict[str, Any]:
    """Take memory in Python and write to it, until there is no more."""
    kept = []
    try:
        while True:
            kept.append(bytearray(b"x") * MIB)
    except MemoryError:
        size = len(kept) * MIB
        kept.clear()  # what follows takes memory too
    return {"hoarded": size}


def hoard_in_c() -> dict[str, Any]:
    """Take memory as C does, in small pieces, which come from malloc's own heap."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size, piece = 0, 65_536
    while (found := libc.malloc(piece)) is not None:
        ctypes.memset(found, 1, piece)
        size += piece
    return {"hoarded": size}


def lower() -> dict[str, Any]:
    """Be limited already, more than the caps will ask for."""
    resource.setrlimit(resource.RLIMIT_DATA, (200 * MIB, 300 * MIB))
    return {}


def thread() -> dict[str, Any]:
    """Ask a new thread for its priority."""
    found = []
    asking = threading.Thread(
        target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    )
    asking.start()
    asking.join()
    return {"thread_nice": found[0]}


def main() -> None:
    """Do as told."""
    told = json.loads(sys.argv[1])
    answer: dict[str, Any] = {}
    steps = {each.__name__: each for each in (library, serve, hoard, hoard_in_c, lower, thread)}
    for name in told.get("before", ()):
        answer |= steps[name]()
    try:
        answer["measures"] = {m.what: (m.enforced, m.how) for m in hold(Caps(**told["caps"]))}
        for name in told.get("after", ()):
            answer |= steps[name]()
    except OutOfMemory as error:
        answer["refused"] = str(error)
    answer["peak"] = status("VmHWM")
    answer["data"] = resource.getrlimit(resource.RLIMIT_DATA)
    answer["core"] = resource.getrlimit(resource.RLIMIT_CORE)
    answer["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    answer["oom_score"] = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # hoarded memory may leave none for an orderly end


if __name__ == "__main__":
    main()
