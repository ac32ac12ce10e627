"""Why a child ended: processes that die in each way, and the error that says so."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmdispatcher.models.errors import (
    BadReply,
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Refused,
    TimedOut,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.child import causes
from llmdispatcher.vendors.llamacpp.child.causes import End, cause
from llmdispatcher.vendors.llamacpp.child.spawn import Order, start
from llmdispatcher.vendors.llamacpp.loading import TESTED_VERSIONS

LONG_S = 100.0
"""What should take a moment is given up on after this."""

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own for what is remembered of children."""
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(tmp_path / "runtime"))


def end_of(*command: str, **environment: str) -> End:
    """Run a program and return how it ended."""
    whole = {**os.environ, "GGML_NO_BACKTRACE": "1", **environment}
    order = Order(command=command, environment=whole, kind="server", dies_itself=True)
    child = start(order)
    try:
        status = child.wait(LONG_S)
        assert status is not None
        return End(status=status, tail=child.tail.text())
    finally:
        child.forget()


def python(code: str) -> End:
    """Run Python code and return how it ended."""
    return end_of(sys.executable, "-c", code)


# -- signals -------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("SIGILL", "an instruction that this processor does not have (SIGILL); "),
        ("SIGSEGV", "touched memory that is not its own (SIGSEGV); "),
        ("SIGBUS", "could not read a file that it has mapped (SIGBUS); "),
        ("SIGABRT", "aborted itself (SIGABRT); "),
        ("SIGKILL", "was killed by somebody else (SIGKILL); "),
        ("SIGTERM", "was ended by somebody else (SIGTERM); "),
        ("SIGINT", "was ended by somebody else (SIGINT); "),
        ("SIGHUP", "was ended by somebody else (SIGHUP); "),
        ("SIGSYS", "what a sandbox forbids (SIGSYS); "),
        ("SIGXCPU", "the processor time that it is allowed (SIGXCPU); "),
        ("SIGFPE", "was ended (SIGFPE); "),
    ],
)
def test_each_signal_is_named_with_what_to_do(name: str, told: str) -> None:
    """Whoever reads the error learns what happened, and what may help."""
    number = signal.Signals[name]
    end = python(
        f"import os, signal; signal.signal({number}, signal.SIG_DFL) if {number} != 9 else 0;"
        f" print('loaded', flush=True); os.kill(os.getpid(), {number})"
    )
    error = cause(end)

    assert isinstance(error, EngineCrashed)
    assert error.signal == number
    assert error.tail == "loaded"
    assert told in str(error)


@POSIX
def test_a_build_for_another_processor_is_told_how_to_be_replaced() -> None:
    """The remedy is a command to be copied."""
    told = str(cause(End(status=-signal.SIGILL, tail="")))

    assert (
        "pip install --force-reinstall --no-binary llama-cpp-python"
        f" llama-cpp-python=={TESTED_VERSIONS[-1]}"
    ) in told
    assert "executable=" in told


TORN = """
import mmap, os, sys
with open(sys.argv[1], "wb") as file: file.write(b"x" * 2**20)
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(sys.argv[1], 0)
    print(mapped[2**19])
"""


@POSIX
def test_a_model_that_shrinks_while_it_is_mapped(tmp_path: Path) -> None:
    """The file is named as the likely cause."""
    error = cause(end_of(sys.executable, "-c", TORN, str(tmp_path / "model.gguf")))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGBUS
    assert "cut short while in use" in str(error)


@POSIX
def test_a_bad_pointer() -> None:
    """A bug in native code is a crash like another."""
    error = cause(python("import ctypes; ctypes.string_at(8)"))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGSEGV


@POSIX
def test_a_signal_that_has_no_name_is_told_by_number() -> None:
    """Real-time signals end processes too."""
    error = cause(End(status=-(signal.SIGRTMIN + 5), tail=""))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGRTMIN + 5
    assert f"(signal {signal.SIGRTMIN + 5})" in str(error)


@POSIX
def test_a_script_passes_its_programs_signal_on() -> None:
    """A shell says 128 more than the signal that ended what it ran."""
    abort = f"{sys.executable} -c 'import os; os.abort()'"
    error = cause(end_of("/bin/sh", "-c", f"{abort}; exit $?"))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGABRT


# -- aborts --------------------------------------------------------------------------------------

LAST_WORDS = """
import os
from llmdispatcher.vendors.llamacpp.binding import log
log.last_words(b"/src/ggml.c:12: GGML_ASSERT(n_tokens > 0) failed")
os.abort()
"""


@POSIX
def test_what_llama_cpp_says_before_it_aborts_is_told() -> None:
    """Its assertion is the heart of the message."""
    error = cause(python(LAST_WORDS))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGABRT
    assert str(error).startswith(
        "the process that runs the model aborted itself (SIGABRT):"
        " /src/ggml.c:12: GGML_ASSERT(n_tokens > 0) failed; it is a bug"
    )


@POSIX
def test_an_abort_of_ggml_itself() -> None:
    """Where nobody listens, ggml prints its words, and a stack trace may follow."""
    found = find_spec("llama_cpp")
    assert found is not None
    assert found.origin is not None
    library = min((Path(found.origin).parent / "lib").glob("libggml-base.*"))
    error = cause(
        python(
            f"import ctypes; ggml = ctypes.CDLL({str(library)!r});"
            " ggml.ggml_abort(b'/src/ggml-cpu.c', 7, b'GGML_ASSERT(%s) failed', b'a == b')"
        )
    )

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGABRT
    assert "GGML_ASSERT(a == b) failed; it is a bug" in str(error)


TAILS = {
    "ggml_abort": ("/a/b.cpp:99: cannot do that\n#1 0x0 in main", "/a/b.cpp:99: cannot do that;"),
    "an exception of C++": (
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no luck",
        "): no luck;",
    ),
    "an exception without words": ("terminate called without an active exception", "without an"),
    "Python's own": ("Fatal Python error: Segmentation fault\n\nThread 0x1:", "Segmentation fault"),
    "the last of several": ("GGML_ASSERT(a) failed\nGGML_ASSERT(b) failed", "GGML_ASSERT(b)"),
}


@POSIX
@pytest.mark.parametrize("case", TAILS)
def test_other_last_words(case: str) -> None:
    """Whatever aborts says why in its own way."""
    tail, told = TAILS[case]

    assert told in str(cause(End(status=-signal.SIGABRT, tail=tail)))


# -- memory --------------------------------------------------------------------------------------

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28));"

DEATHS = {
    "C++": f"{LIMITED} import ctypes; new = ctypes.CDLL('libstdc++.so.6')._Znwm;"
    " new.argtypes = [ctypes.c_size_t]; new(2**30)",
    "numpy": f"import numpy; {LIMITED} numpy.ones(2**27)",
    "Python": f"{LIMITED} bytearray(2**30)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
@pytest.mark.parametrize("who", DEATHS)
def test_a_limit_of_memory_that_is_reached(who: str) -> None:
    """C++ aborts, Python raises; both are told as what they are, with a way out."""
    error = cause(python(DEATHS[who]))

    assert isinstance(error, OutOfMemory)
    assert str(error).startswith("the process that runs the model ran out of memory: ")
    assert "raise max_memory_mb" in str(error)


MEMORY = (
    "ggml_cuda: allocating 812.00 MiB on device 0: cudaMalloc failed: out of memory",
    "CUDA error: out of memory",
    "alloc_tensor_range: failed to allocate CUDA0 buffer of size 851443712",
    "ggml_vulkan: allocation failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
    "llama_model_load: error loading model: unable to allocate CPU buffer",
    "ggml_aligned_malloc: insufficient memory (attempted to allocate 812.00 MB)",
    "error: command buffer 0 failed: (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "libgomp: Thread creation failed: Resource temporarily unavailable",
    "RuntimeError: can't start new thread",
    "OSError: [Errno 12] Cannot allocate memory",
)


@pytest.mark.parametrize("line", MEMORY)
@pytest.mark.parametrize("status", [1, -6, -11, -9, 134])
def test_each_wording_of_no_memory(line: str, status: int) -> None:
    """Backends and libraries have their own words for it, whichever way the process ends then."""
    error = cause(End(status=status, tail=f"loading\n{line}\nexiting due to model loading error"))

    assert isinstance(error, OutOfMemory)
    assert line in str(error)


@pytest.mark.parametrize(
    "line",
    [
        "ggml_cuda_host_malloc: failed to allocate 64.00 MiB of pinned memory: out of memory",
        "failed to allocate 100 bytes for reorder temp buffer, skipping reorder",
        "failed to allocate host buffer for async uploads for device CUDA0",
        "failed to allocate compute buffers" + "\nall is well" * causes.LATE_LINES,
    ],
)
def test_memory_that_was_done_without_is_not_the_cause(line: str) -> None:
    """A failure that was survived is not what ended the process."""
    assert isinstance(cause(End(status=-6, tail=line)), EngineCrashed)


@POSIX
def test_the_systems_killer_is_believed_where_it_is_known() -> None:
    """SIGKILL says nothing of who and why; the cgroup counts what its killer did."""
    end = python("import os; os.kill(os.getpid(), 9)")
    killed = End(status=end.status, tail=end.tail, oom_kills=1)

    assert isinstance(cause(end), EngineCrashed)
    assert isinstance(cause(killed), OutOfMemory)
    assert "out-of-memory killer" in str(cause(killed))
    assert isinstance(cause(End(status=-6, tail="", oom_kills=1)), EngineCrashed)


# -- exit statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 3, 100])
def test_an_exit_status_without_a_word(status: int) -> None:
    """All that is known is told."""
    error = cause(python(f"import sys; sys.exit({status})"))

    assert isinstance(error, EngineCrashed)
    assert error.signal is None
    assert str(error).startswith(
        f"the process that runs the model ended by itself (exit status {status}); "
    )


RAISES = """
import sys
print("Traceback (most recent call last):", file=sys.stderr)
print('  File "x", line 1', file=sys.stderr)
print("KeyError: 'an earlier one, which was dealt with'", file=sys.stderr)
def fail():
    raise ValueError("the slot is taken")
fail()
"""


def test_a_traceback_is_told_by_its_last_line() -> None:
    """What Python raised, rather than where."""
    error = cause(python(RAISES))

    assert isinstance(error, EngineCrashed)
    assert "(exit status 1): ValueError: the slot is taken; " in str(error)
    assert "in fail" in error.tail


def test_a_program_that_says_error_is_quoted() -> None:
    """Servers print why they give up, among much else."""
    tail = "build 1\nmain: error: invalid argument: --ctx\nusage: llama-server"

    assert "main: error: invalid argument: --ctx;" in str(cause(End(status=1, tail=tail)))


@pytest.mark.skipif(sys.platform != "linux", reason="the loader's words are glibc's")
def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    """A broken installation is no crash: trying again does not help, installing does."""
    (tmp_path / "libc.so.6").write_bytes(b"")
    error = cause(end_of("/bin/true", LD_LIBRARY_PATH=str(tmp_path)))

    assert isinstance(error, ExecutableNotFound)
    assert "error while loading shared libraries" in str(error)
    assert "pip install" in str(error)


@pytest.mark.parametrize(
    ("status", "tail"),
    [
        (1, "llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)"),
        (127, "llama-server: symbol lookup error: llama-server: undefined symbol: ggml_x"),
        (-6, "dyld[1]: Library not loaded: @rpath/libllama.dylib"),
        (1, "Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'"),
        (0xC0000135, ""),
        (0xC000007B, ""),
    ],
)
def test_other_broken_installations(status: int, tail: str) -> None:
    """Each loader has its own words."""
    error = cause(End(status=status, tail=tail))

    assert isinstance(error, ExecutableNotFound)
    assert tail.splitlines()[-1:] == [] or tail.splitlines()[-1] in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (0xC000001D, EngineCrashed, "does not have (0xC000001D)"),
        (0xC0000005, EngineCrashed, "not its own (0xC0000005)"),
        (0xC0000006, EngineCrashed, "mapped (0xC0000006)"),
        (0xC0000409, EngineCrashed, "aborted itself (0xC0000409)"),
        (0xC000013A, EngineCrashed, "somebody else (0xC000013A)"),
        (0xC0000374, EngineCrashed, "ended by itself (0xC0000374)"),
        (0xC0000017, OutOfMemory, "no memory is left"),
        (0xC000012D, OutOfMemory, "no memory is left"),
    ],
)
def test_exit_statuses_of_windows(status: int, kind: type[VendorError], told: str) -> None:
    """There the same ends have other numbers, and no signal."""
    error = cause(End(status=status, tail=""))

    assert type(error) is kind
    assert told in str(error)
    assert getattr(error, "signal", None) is None


# -- our own doing -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [-9, -15, 0, 1])
@pytest.mark.parametrize(
    "reason",
    [TimedOut("idle", 5), OutOfMemory("it grew past its limit"), BadReply("garbage")],
)
def test_what_we_end_a_child_for_is_the_cause(status: int, reason: VendorError) -> None:
    """It did not die of the signal that we sent."""
    assert cause(End(status=status, tail="failed to allocate", killed_for=reason)) is reason


def test_what_a_child_dies_of_before_we_end_it_is_the_cause() -> None:
    """A process that seems to hang may be about to abort."""
    end = End(status=-6, tail="GGML_ASSERT(a) failed", killed_for=TimedOut("idle", 5))

    assert "GGML_ASSERT(a) failed" in str(cause(end))


def test_an_end_that_is_no_vendors_fault_is_still_a_vendors_error() -> None:
    """Whoever asks gets an error that the flow can act on."""
    error = cause(End(status=-9, tail="", killed_for=Refused("the engine was closed")))

    assert isinstance(error, EngineCrashed)
    assert str(error).endswith("was ended: the engine was closed")


# -- bounds --------------------------------------------------------------------------------------


def test_errors_are_bounded_and_cross_processes() -> None:
    """However long the log and its lines are, and whatever is in it."""
    tail = "\n".join(f"{number} {'x' * 5000}" for number in range(200))
    for last in ("", "error: " + "y" * 10_000, "\ufffd\x00"):
        error = cause(End(status=-6, tail=f"{tail}\n{last}"))
        assert isinstance(error, EngineCrashed)
        assert len(str(error)) <= 1000
        assert len(error.tail) <= causes.TAIL_CHARS
        assert error.tail.endswith(last[-100:])
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
