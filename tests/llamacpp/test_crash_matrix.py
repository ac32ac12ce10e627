"""Calls that end the process when they reach llama.cpp: a typed error here, and life goes on.

Every row runs in a process of its own, which must print the error's class and then still answer.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BEGIN = """
import sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from stepped import backend_of
from llmdispatcher import Dispatcher, DispatcherError, LlamaCpp, Request, Sampling, ResponseFormat
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk, Drawn
model = Path({model!r})

def shown(what):
    try:
        what()
    except DispatcherError as error:
        print(type(error).__name__, flush=True)
    else:
        print("nothing", flush=True)

def alive():
    with Dispatcher(LlamaCpp(model, max_threads=1, isolation="thread")) as d:
        print(d.send("x", max_tokens=2, temperature=0).usage.completion_tokens)
"""

NATIVE = """
backend = backend_of(model, context_tokens=64, cells=64, slots=4, batch_tokens=32)
greedy = backend.sampler(Drawn(Sampling(temperature=0), 0))
drawn = backend.sampler(Drawn(Sampling(), 0))
def decode(*chunks):
    return lambda: backend.decode([Chunk(*chunk) for chunk in chunks])
"""

ROWS = {
    "a batch longer than the batch": ("decode((0, 0, [5] * 33, True))", "EngineCrashed"),
    "an empty batch": ("decode()", "EngineCrashed"),
    "a chunk without tokens": ("decode((0, 0, [], True), (1, 0, [5], True))", "EngineCrashed"),
    "a token that is not in the vocabulary": ("decode((0, 0, [10**6], True))", "EngineCrashed"),
    "a token below zero": ("decode((0, 0, [-1], True))", "EngineCrashed"),
    "a slot that there is not": ("decode((4, 0, [5], True))", "EngineCrashed"),
    "a slot below zero": ("decode((-1, 0, [5], True))", "EngineCrashed"),
    "a position with a hole before it": ("decode((0, 3, [5], True))", "EngineCrashed"),
    "a position that is taken": (
        "[decode((0, 0, [5], True))(), decode((0, 0, [5], True))][1]",
        "EngineCrashed",
    ),
    "the same slot twice": ("decode((0, 0, [5], True), (0, 0, [5], True))", "EngineCrashed"),
    "more rows than outputs": (
        "decode(*((i % 4, i // 4, [5], True) for i in range(5)))",
        "EngineCrashed",
    ),
    "drawing before anything was decoded": ("lambda: greedy.sample(0)", "EngineCrashed"),
    "drawing by a chain before that": ("lambda: drawn.sample(0)", "EngineCrashed"),
    "drawing where nothing was asked for": (
        "[decode((0, 0, [5], False))(), lambda: drawn.sample(0)][1]",
        "EngineCrashed",
    ),
    "probabilities of no row": ("lambda: backend.logprobs(1, 5, 3)", "EngineCrashed"),
    "sharing what is not there": ("lambda: backend.share(0, 1, 1)", "EngineCrashed"),
    "sharing with oneself": (
        "[decode((0, 0, [5], True))(), lambda: backend.share(0, 0, 1)][1]",
        "EngineCrashed",
    ),
    "sharing over what is there": (
        "[decode((0, 0, [5], True), (1, 0, [5], True))(), lambda: backend.share(0, 1, 1)][1]",
        "EngineCrashed",
    ),
}
"""Expressions that give what to call."""


def survives(code: str, model: Path) -> list[str]:
    """Run code in a new process and return what it printed; it must end by itself."""
    begin = BEGIN.format(tests=str(HERE.parent), model=str(model))
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_misuse_of_the_context_is_refused(small_model: Path) -> None:
    """Batches, rows, slots and positions that llama.cpp asserts are checked before it sees them."""
    code = NATIVE + "".join(
        f"shown({row})\nfor slot in range(4): backend.drop(slot)\n" for row, _ in ROWS.values()
    )

    printed = survives(code + "backend.close()\nalive()\n", small_model)

    assert dict(zip(ROWS, printed, strict=False)) == {
        what: error for what, (_, error) in ROWS.items()
    }
    assert printed[-1] == "2"


def test_two_threads_on_one_model_are_two_callers(small_model: Path) -> None:
    """What aborts the binding's class is the normal case here."""
    code = """
with Dispatcher(LlamaCpp(model, max_threads=1, isolation="thread")) as d:
    ask = lambda: d.send("x", max_tokens=50)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(d.stats().total.served)
alive()
"""
    assert survives(code, small_model) == ["8", "2"]


def test_a_bad_grammar_never_reaches_a_sampler(small_model: Path) -> None:
    """A grammar that refers to nothing, or is none, is refused before anything is asked."""
    code = """
with Dispatcher(LlamaCpp(model, max_threads=1, isolation="thread")) as d:
    for text in ("root := xx", "root ::= nothing", "(", "root ::= root"):
        shown(lambda: d.send("x", response_format=ResponseFormat("grammar", grammar=text)))
alive()
"""
    printed = survives(code, small_model)

    assert printed[-1] == "2"
    assert len(printed) == 5
    assert "nothing" not in printed, "none of them was taken"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
@pytest.mark.parametrize(
    ("loaded", "room_mib", "error"),
    [(False, 20, "ModelTooLarge"), (False, 90, "ModelTooLarge"), (True, 20, "OutOfMemory")],
)
def test_a_limit_of_memory_is_an_error_not_an_abort(
    small_model: Path,
    loaded: bool,  # noqa: FBT001 - a parameter of the test
    room_mib: int,
    error: str,
) -> None:
    """A process that may not allocate refuses to load, or to serve, and says why."""
    limit = f"""
import resource
from llmdispatcher.vendors.llamacpp.limits import probe
used = probe._statistic(probe._OWN_STATUS, "VmData:") * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + {room_mib} * 2**20, resource.RLIM_INFINITY))
"""
    load = 'd.send("x", max_tokens=1)\n' if loaded else ""
    code = f"""
d = Dispatcher(LlamaCpp(model, max_threads=1, isolation="thread"))
{load}
{limit}
shown(lambda: d.send("y " * 200, max_tokens=100))
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
d.close()
alive()
"""
    assert survives(code, small_model) == [error, "2"]


def test_the_last_words_of_llama_cpp_are_heard(tmp_path: Path) -> None:
    """Should an assertion fail all the same, its message is in the log and on standard error."""
    heard = tmp_path / "heard.log"
    code = f"""
import logging
logging.basicConfig(filename={str(heard)!r})
from llmdispatcher.vendors.llamacpp.binding.library import lib
lib._lib.ggml_abort(b"ggml.c", 12, b"GGML_ASSERT(%s) failed", b"it holds")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    told = "llama.cpp aborts the process: ggml.c:12: GGML_ASSERT(it holds) failed"
    assert done.returncode != 0
    assert told in heard.read_text(encoding="utf-8")
    assert done.stderr.splitlines() == [told]
