"""Why a child process ended: from its exit status and its last words to an error that says so.

Pure. What we ended it for counts most. What it printed counts more than the signal that ended it,
since running out of memory looks like any other abort.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from llmdispatcher.models.errors import (
    DispatcherError,
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.loading import TESTED_VERSIONS

TAIL_LINES = 40
TAIL_CHARS = 4000
"""How much of the log an error carries: about a screen."""

LINE_CHARS = 300
"""How much of a line a message quotes."""

LATE_LINES = 60
"""Lines in which the cause is looked for. A native stack trace may follow it; a failure further
back was survived."""

_WHO = "the process that runs the model"
_REINSTALL = (
    "pip install --force-reinstall --no-binary llama-cpp-python"
    f" llama-cpp-python=={TESTED_VERSIONS[-1]}"
)
_SMALLER = (
    "close other programs, raise max_memory_mb if it is set, or use a smaller model, a smaller"
    " context_tokens or max_parallel, or fewer max_gpu_layers"
)
_ANEW = f"build it anew for this machine: {_REINSTALL}; or give executable= a llama-server"


@attrs.frozen(kw_only=True)
class End:
    """How a child ended."""

    status: int
    """As ``subprocess`` gives it: negative for a signal."""
    tail: str
    """The last of its log."""
    killed_for: DispatcherError | None = None
    """Why we ended it, if we did."""
    oom_kills: int = 0
    """How often the system's out-of-memory killer struck where it ran."""


def cause(end: End) -> VendorError:
    """Return the error that says what happened and what to do about it."""
    name = _ending(end.status)
    if end.killed_for is not None and name in _OURS:
        return _as_vendor_error(end.killed_for, end)
    lines = end.tail.splitlines()[-LATE_LINES:]
    if name not in _NOT_FOR_MEMORY and (line := _line(lines, _NO_MEMORY, but_not=_SURVIVED)):
        return OutOfMemory(f"{_WHO} ran out of memory: {line}; {_SMALLER}")
    if name == _NO_ROOM or (name == "SIGKILL" and end.oom_kills):
        by = "the system's out-of-memory killer ended" if end.oom_kills else "no memory is left for"
        return OutOfMemory(f"{by} {_WHO}; {_SMALLER}")
    if name == _UNLOADED or (name in _UNLOADED_BY and _line(lines, _UNLOADABLE)):
        told = _line(lines, _UNLOADABLE) or "one of its libraries is missing or does not fit"
        return ExecutableNotFound(
            f"the program that runs the model does not start: {told}; {_ANEW}"
        )
    return _crash(end, name, lines)


def _as_vendor_error(reason: DispatcherError, end: End) -> VendorError:
    if isinstance(reason, VendorError):
        return reason
    return EngineCrashed(f"{_WHO} was ended: {reason}", tail=_bounded(end.tail))


def _crash(end: End, name: str | None, lines: Sequence[str]) -> EngineCrashed:
    """Return what to say of an end that is not about memory or the installation."""
    number = _signal(end.status)
    code = f"exit status {end.status}" if end.status < _UNSIGNED else f"0x{end.status:X}"
    what, advice = _WHAT.get(name or "", ("was ended" if number else "ended by itself", _SEE_TAIL))
    words = _last_words(lines) if name not in _WORDLESS else ""
    if number is None and not words and lines:  # who ends by itself mostly says why
        words = lines[-1]
    return EngineCrashed(
        f"{_WHO} {what} ({name if number else code}){f': {words}' if words else ''}; {advice}",
        signal=number,
        tail=_bounded(end.tail),
    )


# -- exit statuses -------------------------------------------------------------------------------

_SHELL = 128
"""A shell that ran the program adds this to the signal's number."""

_UNSIGNED = 2**31
"""From here on an exit status is one of Windows' NTSTATUS codes, whose first bit says error."""

_NO_ROOM = "no room"
_UNLOADED = "unloaded"
_NTSTATUS: Mapping[int, str] = MappingProxyType(
    {
        0xC0000005: "SIGSEGV",  # STATUS_ACCESS_VIOLATION
        0xC0000006: "SIGBUS",  # STATUS_IN_PAGE_ERROR
        0xC0000017: _NO_ROOM,  # STATUS_NO_MEMORY
        0xC000001D: "SIGILL",  # STATUS_ILLEGAL_INSTRUCTION
        0xC000007B: _UNLOADED,  # STATUS_INVALID_IMAGE_FORMAT
        0xC00000FD: "SIGSEGV",  # STATUS_STACK_OVERFLOW
        0xC000012D: _NO_ROOM,  # STATUS_COMMITMENT_LIMIT
        0xC0000135: _UNLOADED,  # STATUS_DLL_NOT_FOUND
        0xC0000139: _UNLOADED,  # STATUS_ENTRYPOINT_NOT_FOUND
        0xC000013A: "SIGINT",  # STATUS_CONTROL_C_EXIT
        0xC0000409: "SIGABRT",  # STATUS_STACK_BUFFER_OVERRUN: how abort() ends a process
    }
)
"""The same ends under Windows' names; from ntstatus.h."""


def _signal(status: int) -> int | None:
    """Return the number of the signal that ended the child, or the program in a shell."""
    number = -status if status < 0 else status - _SHELL
    try:
        return int(signal.Signals(number))
    except ValueError:
        return -status if status < 0 else None


def _ending(status: int) -> str | None:
    """Return a name for the end; None for an exit status that has none."""
    number = _signal(status)
    if number is None:
        return _NTSTATUS.get(status)
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_OURS = (None, "SIGKILL", "SIGTERM")
"""How a child ends that we end: killed, or leaving as it was told. Others it did to itself."""

_NOT_FOR_MEMORY = ("SIGILL", "SIGTERM", "SIGINT", "SIGHUP")
_UNLOADED_BY = (None, "SIGABRT", "SIGKILL")
"""How a system's loader ends a program; on macOS it aborts, or kills."""

_WORDLESS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""Ends that come from outside: what the child had said before is not why."""

_SEE_TAIL = "what it wrote last is in the error's tail"
_OUTSIDE = (
    "was ended by somebody else",
    "a person or a service manager did it, or the terminal it was started from was closed",
)
_KILLERS = (
    "a person or a service manager did it, or the system's out-of-memory killer, which says so in"
    " the system's log (journalctl -k)"
)
_FILE = (
    "if the model file was changed or cut short while in use, load it again from a whole copy that"
    " nobody writes to"
)
_WHAT: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "SIGILL": (
            "met an instruction that this processor does not have",
            f"llama.cpp was built for another processor: {_ANEW} that fits",
        ),
        "SIGSEGV": (
            "touched memory that is not its own",
            f"{_FILE}; if it was not, it is a bug in llama.cpp, and {_SEE_TAIL}",
        ),
        "SIGBUS": (
            "could not read a file that it has mapped",
            f"{_FILE}; if it was not, its disk fails",
        ),
        "SIGABRT": ("aborted itself", f"it is a bug or a limit of llama.cpp, and {_SEE_TAIL}"),
        "SIGKILL": (
            "was killed by somebody else",
            _KILLERS,
        ),
        "SIGTERM": _OUTSIDE,
        "SIGINT": _OUTSIDE,
        "SIGHUP": _OUTSIDE,
        "SIGSYS": (
            "asked the system for what a sandbox forbids",
            f"allow it in the sandbox's rules (seccomp); {_SEE_TAIL}",
        ),
        "SIGXCPU": ("used up the processor time that it is allowed", "raise the limit (ulimit -t)"),
    }
)
"""What happened, and the way out."""


# -- last words ----------------------------------------------------------------------------------

_NO_MEMORY = re.compile(
    r"std::bad_alloc|out of memory|(?:failed|unable) to allocate|insufficient memory"
    r"|OutOf(?:Device|Host)?Memory|cannot allocate memory|^MemoryError\b"
    r"|can't start new thread|libgomp: Thread creation failed",
    re.IGNORECASE,
)
"""From ggml-alloc.c, ggml.c, ggml-cuda.cu, ggml-vulkan.cpp, ggml-metal, llama-model.cpp; from
libstdc++, CUDA, Vulkan, Metal, libgomp, glibc and Python."""

_SURVIVED = re.compile(
    r"pinned memory|skipping|falling back|async uploads|, reserving", re.IGNORECASE
)
"""Memory that ggml could not get, and does without."""

_UNLOADABLE = re.compile(
    r"error while loading shared libraries|symbol lookup error|version `\S+' not found"
    r"|Library not loaded|Symbol not found|^ModuleNotFoundError"
)
"""From the loaders of glibc and macOS, and from Python."""

_ABORTS = "llama.cpp aborts the process: "
"""What ``binding.log.last_words`` writes."""

_WORDS = (
    re.compile(rf"(?<={_ABORTS}).*"),
    re.compile(r"GGML_ASSERT\(.*"),
    # begins at a word: a long line without a space must not be tried from each letter
    re.compile(r"(?<!\S)\S+\.(?:c|h|cpp|cc|hpp|cu|cuh|m|mm):\d+: .*"),  # ggml_abort
    re.compile(r"(?<=what\(\): ).*"),  # libstdc++, of an exception that nobody caught
    re.compile(r"terminate called .*|libc\+\+abi: .*|Fatal Python error: .*"),
)
_TRACEBACK = "Traceback (most recent call last):"
_ERROR = re.compile(r"\berror\b|\bfailed\b", re.IGNORECASE)


def _last_words(lines: Sequence[str]) -> str:
    """Return the line that says most about why it ended; empty where none does."""
    for pattern in _WORDS:
        if found := [match[0] for line in lines if (match := pattern.search(line))]:
            return _quoted(found[-1])
    if _TRACEBACK in lines:
        start = len(lines) - 1 - lines[::-1].index(_TRACEBACK)
        if raised := [line for line in lines[start + 1 :] if line and not line[0].isspace()]:
            return _quoted(raised[0])
    return _line(lines, _ERROR)


def _line(
    lines: Sequence[str], pattern: re.Pattern[str], but_not: re.Pattern[str] | None = None
) -> str:
    """Return the last line that matches; empty where none does."""
    for line in reversed(lines):
        if pattern.search(line) and not (but_not and but_not.search(line)):
            return _quoted(line.removeprefix(_ABORTS))
    return ""


def _quoted(line: str) -> str:
    line = line.strip()
    return line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}…"


def _bounded(tail: str) -> str:
    """Return the last of the log, in whole lines where they are not too long."""
    return "\n".join(tail.splitlines()[-TAIL_LINES:])[-TAIL_CHARS:]
