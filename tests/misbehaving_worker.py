"""A real worker that goes wrong in one way, at its third decode unless the way says otherwise.

    python misbehaving_worker.py WAY DESCRIPTOR PARENT

What it does then is what native code can do: abort inside ggml, allocate without end, sleep, spin,
write where it should not, stop, or just end.
"""

from __future__ import annotations

import ctypes
import json
import logging
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmdispatcher.vendors.llamacpp.binding import library
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.worker import main

STEP_BYTES = 16 * 2**20

WROTE = "what the user wrote"

AT = 3
"""The decode that goes wrong."""


def abort(_: int) -> None:
    """Fail one of ggml's assertions, as any bad call does."""
    folder = Path(str(library.lib.__file__)).parent / "lib"
    ggml = ctypes.CDLL(str(folder / "libggml-base.so"))
    ggml.ggml_abort(b"some/file.cpp", 7, b"GGML_ASSERT(%s) failed", b"n_tokens < n_batch")


def throw(_: int) -> None:
    """Run out of memory inside C++, which nobody catches there."""
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.kill(os.getpid(), signal.SIGABRT)


def allocate(_: int) -> None:
    """Take memory and use it, for ever."""
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1) * STEP_BYTES))


def grow(_: int) -> None:
    """Take memory that no limit of the process counts: shared pages, mapped and touched."""
    kept = []
    while True:
        number = os.memfd_create("grown")
        os.truncate(number, STEP_BYTES)
        kept.append(mmap.mmap(number, STEP_BYTES))
        for place in range(0, STEP_BYTES, mmap.PAGESIZE):
            kept[-1][place] = 1
        time.sleep(0.1)  # who watches may have its turn late, and nothing else stops it


def sleep(_: int) -> None:
    """Wait for something that never comes."""
    time.sleep(3600)


def spin(_: int) -> None:
    """Go round in circles, deaf to interrupts."""
    while True:
        sum(range(100_000))


def stop(_: int) -> None:
    """Stand still as a whole."""
    os.kill(os.getpid(), signal.SIGSTOP)


def garbage(descriptor: int) -> None:
    """Write what is no message, in a frame of its own."""
    text = b"\x00\xff not a message \xfe"
    os.write(descriptor, struct.pack("!i", len(text)) + text)
    time.sleep(3600)


def flood(descriptor: int) -> None:
    """Announce a message that no memory could hold."""
    os.write(descriptor, struct.pack("!i", -1) + struct.pack("!Q", 2**62))
    time.sleep(3600)


def strange(descriptor: int) -> None:
    """Write a whole message whose values are of the wrong kind."""
    text = b'["pieces",0,1,[[1,[["Finish",{"reason":"whim"}]],null,null]]]'
    os.write(descriptor, struct.pack("!i", len(text)) + text)
    time.sleep(3600)


def half(descriptor: int) -> None:
    """Begin a message and stand still in the middle of it."""
    os.write(descriptor, struct.pack("!i", 5000) + b'["pieces"')
    time.sleep(3600)


def endless(descriptor: int) -> None:
    """Write a reply that never ends, every message of it well formed.

    Each is small enough for the socket to take whole: other threads write in between.
    """
    text = json.dumps(["pieces", 0, 1, [[1, [["x" * 100]] * 10, None, None]]]).encode()
    while True:
        os.write(descriptor, struct.pack("!i", len(text)) + text)


def faceless(descriptor: int) -> None:
    """Fail a call with an error that lacks what such errors have."""
    text = b'["pieces",0,1,[[1,[],null,["OutOfMemory",["x"],{}]]]]'
    os.write(descriptor, struct.pack("!i", len(text)) + text)
    time.sleep(3600)


def deaf(_: int) -> None:
    """Let the thread that follows orders die of a bug at its next order."""
    main.Worker._follow = None  # type: ignore[method-assign, assignment]
    time.sleep(3600)


def confess(_: int) -> None:
    """Log a bug whose message is of a prompt, and abort."""
    try:
        os.environ[WROTE]
    except KeyError:
        logging.getLogger("llmdispatcher.llamacpp").exception("a bug in the engine")
    os.abort()


def leave(_: int) -> None:
    """End, as if somebody had called exit deep inside."""
    os._exit(3)


def illegal(_: int) -> None:
    """Use an instruction that the processor does not know."""
    os.kill(os.getpid(), signal.SIGILL)


def fault(_: int) -> None:
    """Touch memory that is not there."""
    ctypes.string_at(0)


WAYS: dict[str, Callable[[int], None]] = {
    each.__name__: each
    for each in (
        abort,
        throw,
        allocate,
        grow,
        sleep,
        spin,
        stop,
        garbage,
        flood,
        strange,
        half,
        endless,
        faceless,
        deaf,
        confess,
        leave,
        illegal,
        fault,
    )
}


def go_wrong(way: str, descriptor: int) -> None:
    """Let the worker go wrong at its third decode."""
    decode = NativeBackend.decode
    count = 0

    def wrong(self: NativeBackend, *given: Any) -> Any:
        nonlocal count
        count += 1
        if count == AT:
            WAYS[way](descriptor)
        return decode(self, *given)

    NativeBackend.decode = wrong  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    way, descriptor = sys.argv[1], int(sys.argv[2])
    if way == "mute":
        time.sleep(3600)
    elif way == "old":
        main.PROTOCOL = 0  # type: ignore[attr-defined]
    elif way == "unable":
        sys.exit("no such thing as a worker here")
    elif way != "well":
        go_wrong(way, descriptor)
    main.main(sys.argv[2:4])
