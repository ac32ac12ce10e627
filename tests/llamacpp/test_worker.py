"""A model in a child process: whatever happens there, this program lives and is told the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tiny_gguf import tiny_model
from waits import WAIT_S, until

from llmdispatcher import Dispatcher, LlamaCpp, Request, Scripted
from llmdispatcher.models.errors import (
    BadReply,
    DispatcherError,
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Refused,
    StreamInterrupted,
    TimedOut,
    VendorError,
)
from llmdispatcher.models.event import EngineDied, Event
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.contract import Call, State
from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine
from llmdispatcher.vendors.llamacpp.worker import host

SCRIPT = Path(__file__).parent.parent / "misbehaving_worker.py"

NOTICED_S = 60.0
"""Twelve times the five seconds within which a worker that hangs is to be noticed."""

LONG = Request(prompt="Once", max_tokens=3000)


def misbehaving(path: Path, way: str, **fields: object) -> LlamaCpp:
    """Return a model whose worker goes wrong in this way."""
    command = (sys.executable, str(SCRIPT), way)
    return LlamaCpp(path, max_threads=1, worker_command=command, **fields)  # type: ignore[arg-type]


@pytest.fixture
def start() -> Iterator[Callable[[LlamaCpp], LlamaCppEngine]]:
    """Return what starts and loads an engine, which is closed in the end."""
    engines = []

    def started(spec: LlamaCpp) -> LlamaCppEngine:
        engine = spec.start(lambda _: None)
        engines.append(engine)
        engine.load(engine.cards()[0].model).result(WAIT_S)
        return engine

    yield started
    for engine in engines:
        engine.close()


def begin(engine: LlamaCppEngine, request: Request = LONG) -> Call:
    """Submit a request."""
    return engine.submit(request, engine.cards()[0].model)


def ending(call: Call) -> DispatcherError | None:
    """Read a call to its end; returns the error that ended it, if one did."""
    try:
        while not isinstance(call.receive(WAIT_S)[-1], Finish):
            pass
    except DispatcherError as error:
        return error
    return None


def pid_of(engine: LlamaCppEngine) -> int:
    """Return the worker's pid."""
    pid = engine._there(engine.cards()[0].model).vitals().pid
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("way", "kind", "told"),
    [
        ("abort", EngineCrashed, "n_tokens < n_batch"),
        ("fault", EngineCrashed, "SIGSEGV"),
        ("illegal", EngineCrashed, "processor"),
        ("leave", EngineCrashed, "3"),
        ("throw", OutOfMemory, "memory"),
        ("garbage", BadReply, "no message"),
        ("flood", BadReply, "no message"),
        ("strange", BadReply, "no message"),
        pytest.param("half", TimedOut, "hung for 4 s", marks=pytest.mark.soak),
        ("endless", BadReply, "more of a reply"),
        ("faceless", BadReply, "not the facts"),
        ("deaf", EngineCrashed, "TypeError"),
        ("sleep", TimedOut, "hung for 4 s"),
        pytest.param("stop", TimedOut, "hung for 4 s", marks=pytest.mark.soak),
    ],
)
def test_a_worker_that_goes_wrong_is_a_typed_error(
    way: str,
    kind: type[VendorError],
    told: str,
    slow_model: Path,
    start: Callable[[LlamaCpp], LlamaCppEngine],
) -> None:
    """All calls in flight get the cause, soon, and the next load starts another worker."""
    engine = start(misbehaving(slow_model, way))
    pid = pid_of(engine)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)  # or it may be dead before all have asked
    calls = [begin(engine) for _ in range(4)]
    os.kill(pid, signal.SIGCONT)

    errors = [ending(call) for call in calls]

    assert time.monotonic() - began < NOTICED_S
    assert {type(error) for error in errors} == {kind}
    assert told in str(errors[0])
    assert not is_alive(pid)
    assert engine.status().state is State.FAILED
    engine.load("slow").result(WAIT_S)
    assert pid_of(engine) != pid


def test_an_abort_says_what_ggml_said(
    slow_model: Path, start: Callable[[LlamaCpp], LlamaCppEngine]
) -> None:
    """The signal and the last words are facts of the error."""
    error = ending(begin(start(misbehaving(slow_model, "abort"))))

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGABRT
    assert "n_tokens < n_batch" in error.tail


def test_a_worker_that_allocates_without_end_is_out_of_memory(
    slow_model: Path, start: Callable[[LlamaCpp], LlamaCppEngine]
) -> None:
    """The system stops it at its limit; the program that asked has a typed error."""
    engine = start(misbehaving(slow_model, "allocate", max_memory_mb=300))

    error = ending(begin(engine))

    assert isinstance(error, OutOfMemory)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the way to grow is Linux's own")
def test_what_no_limit_counts_is_watched(
    slow_model: Path, start: Callable[[LlamaCpp], LlamaCppEngine]
) -> None:
    """Memory that the system's limit does not count is seen from outside, and ends the worker."""
    engine = start(misbehaving(slow_model, "grow", max_memory_mb=300))

    error = ending(begin(engine))

    assert isinstance(error, OutOfMemory)
    assert "of at most 300 MiB" in str(error)


def test_a_worker_that_spins_is_ended_when_nobody_wants_it(
    slow_model: Path, start: Callable[[LlamaCpp], LlamaCppEngine]
) -> None:
    """A deadline cancels the call; a worker that goes on all the same is killed."""
    engine = start(misbehaving(slow_model, "spin"))
    pid = pid_of(engine)
    worker = psutil.Process(pid)
    before_s = sum(worker.cpu_times()[:2])
    call = begin(engine)
    # what comes before its third decode takes next to nothing, and may be waited for all the same
    until(lambda: sum(worker.cpu_times()[:2]) > before_s + 2)
    with pytest.raises(TimeoutError):
        while True:
            call.receive(2.0)

    call.cancel()

    until(lambda: not is_alive(pid))
    engine.load("slow").result(WAIT_S)


def test_a_worker_of_another_release_is_refused(slow_model: Path) -> None:
    """Both ends must mean the same by a message."""
    with (
        Dispatcher(misbehaving(slow_model, "old")) as d,
        pytest.raises(ExecutableNotFound, match="not this one"),
    ):
        d.send("x")


def test_a_command_that_runs_no_worker_is_told_with_its_last_words(slow_model: Path) -> None:
    """What it printed is the best there is to say."""
    with (
        Dispatcher(misbehaving(slow_model, "unable")) as d,
        pytest.raises(EngineCrashed, match="no such thing as a worker here"),
    ):
        d.send("x")


def test_a_worker_that_never_says_hello_is_a_timeout(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, and the load fails with its phase."""
    monkeypatch.setattr(host, "HELLO_S", 1.0)
    with Dispatcher(misbehaving(slow_model, "mute")) as d, pytest.raises(TimedOut, match="loading"):
        d.send("x")


def kill_in_the_middle(d: Dispatcher, engine: LlamaCppEngine, pool: ThreadPoolExecutor) -> None:
    """Kill the worker while eight streams flow, and see that the next request works."""
    flowing = threading.Barrier(9)

    def read(number: int) -> DispatcherError | None:
        stream = d.stream(Request(prompt=f"Once {number}"), max_tokens=3000)
        try:
            next(stream)
            flowing.wait(WAIT_S)
            for _ in stream:
                pass
        except DispatcherError as error:
            return error
        return None

    reading = [pool.submit(read, number) for number in range(8)]
    flowing.wait(WAIT_S)
    os.kill(pid_of(engine), signal.SIGKILL)
    errors = [each.result(WAIT_S) for each in reading]

    assert {type(error) for error in errors} == {StreamInterrupted}
    cause = errors[0].__cause__ if errors[0] else None
    assert isinstance(cause, EngineCrashed)
    assert cause.signal == signal.SIGKILL
    assert d.send("x", max_tokens=2, temperature=0).usage.completion_tokens == 2


def only_engine(d: Dispatcher) -> LlamaCppEngine:
    """Return the one engine of a dispatcher."""
    (engine,) = d._desk._engines.values()
    assert isinstance(engine, LlamaCppEngine)
    return engine


def left_over() -> tuple[int, int]:
    """Count this process's descriptors and children."""
    this = psutil.Process()
    return this.num_fds(), len(this.children())


def no_more_than(before: tuple[int, int]) -> bool:
    """Tell whether nothing was added; what an earlier test left may well have ended since."""
    return all(now <= then for now, then in zip(left_over(), before, strict=True))


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
def test_kills_in_a_row_leave_nothing_behind(kills: int, slow_model: Path) -> None:
    """Eight streams end in their typed error each time, and no process, socket or file stays."""
    events: list[Event] = []
    spec = LlamaCpp(slow_model, max_threads=1)
    before = left_over()
    with ThreadPoolExecutor(8) as pool, Dispatcher(spec, on_event=events.append) as d:
        d.send("x", max_tokens=1)
        loaded = left_over()
        for _ in range(kills):
            kill_in_the_middle(d, only_engine(d), pool)

        until(lambda: no_more_than(loaded))
        until(lambda: sum(isinstance(event, EngineDied) for event in events) >= kills)
        died = [event for event in events if isinstance(event, EngineDied)]
        assert len(died) == kills
        assert "SIGKILL" in died[0].reason
        assert Path(died[-1].report).is_file()
        assert len(list(Path(died[-1].report).parent.iterdir())) <= 10
    until(lambda: no_more_than(before))


def test_a_request_that_was_not_shown_yet_goes_elsewhere(slow_model: Path) -> None:
    """A caller who asked for a whole reply gets one, from the next vendor."""
    spec = misbehaving(slow_model, "abort")
    with Dispatcher(spec, Scripted("from elsewhere")) as d:
        reply = d.send("x", max_tokens=50, temperature=0)

    assert reply.text == "from elsewhere"
    assert [attempt.error.split(":")[0] for attempt in reply.decision.attempts] == [
        "EngineCrashed",
        "",
    ]


def test_a_model_that_dies_at_every_load_is_left_alone(slow_model: Path) -> None:
    """After five crashes with nothing served between, loads are refused for a while."""
    with Dispatcher(misbehaving(slow_model, "unable")) as d:
        engine = only_engine(d)
        for _ in range(5):
            assert isinstance(engine.load("slow").exception(WAIT_S), EngineCrashed)

        refusal = engine.load("slow").exception(WAIT_S)

        assert isinstance(refusal, Refused)
        assert "5 times in a row" in str(refusal)
        assert engine.status().state is State.BROKEN


@pytest.mark.sampled(2)
@pytest.mark.parametrize("engine", ["worker", pytest.param("server", marks=pytest.mark.upstream)])
@pytest.mark.parametrize("how", ["killed", "crashed", "interrupted", "left"])
def test_a_child_ends_with_its_parent(how: str, engine: str, slow_model: Path) -> None:
    """However the parent ends: by SIGKILL, in a crash, by Ctrl-C, or in the ordinary way."""
    path = os.environ["LLMDISPATCHER_LLAMA_SERVER"] if engine == "server" else None
    program = (
        "import os, signal, sys\n"
        "from llmdispatcher import Dispatcher, LlamaCpp\n"
        f"d = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1, executable={path!r}))\n"
        "stream = iter(d.stream('x', max_tokens=3000, temperature=0))\n"
        "next(stream)\n"
        "print(next(iter(d._desk._engines.values()))._host.vitals().pid, flush=True)\n"
    )
    program += {
        "killed": "os.kill(os.getpid(), signal.SIGKILL)",
        "crashed": "os.abort()",
        "interrupted": "os.kill(os.getpid(), signal.SIGINT); [*stream]",
        "left": "",
    }[how]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=4 * WAIT_S,
        check=False,
    )
    pid = int(done.stdout)

    until(lambda: not is_alive(pid))


def test_a_forked_sibling_does_not_keep_a_worker_alive(slow_model: Path) -> None:
    """A process that was forked from the parent holds the line open, and it ends all the same."""
    program = (
        "import os, signal, sys, time\n"
        "from llmdispatcher import Dispatcher, LlamaCpp\n"
        f"d = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1))\n"
        "d.send('x', max_tokens=1)\n"
        "if os.fork() == 0:\n"
        "    time.sleep(120)\n"
        "    os._exit(0)\n"
        "print(next(iter(d._desk._engines.values()))._host.vitals().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.wait(WAIT_S)

    until(lambda: not is_alive(pid))
    parent.stdout.close()


def test_a_forked_child_is_told(slow_model: Path) -> None:
    """The line to the worker is the parent's; a child that asks gets an error, not silence."""
    with Dispatcher(LlamaCpp(slow_model, max_threads=1)) as d:
        d.send("x", max_tokens=1)
        child = os.fork()
        if child == 0:
            try:
                d.send("x", max_tokens=1)
            except EngineCrashed as error:
                os._exit(7 if "forked" in str(error) else 8)
            os._exit(9)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 7
        assert d.send("x", max_tokens=1, temperature=0).usage.completion_tokens == 1


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """The numbers of the plan are in the error, also where a worker made it."""
    path = tiny_model(tmp_path / "m.gguf", vocab=2000, width=512, layers=8, context=4096)

    with Dispatcher(LlamaCpp(path, max_memory_mb=90)) as d, pytest.raises(VendorError) as caught:
        d.send("x")

    assert type(caught.value).__name__ == "ModelTooLarge"
    assert caught.value.parts["process"] > 0  # type: ignore[attr-defined]
