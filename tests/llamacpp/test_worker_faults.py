"""A worker's line, start and end under what programs and hostile files really do to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from llamacpp.test_worker import NOTICED_S, begin, ending, misbehaving
from waits import WAIT_S

from llmdispatcher import Dispatcher, LlamaCpp, user
from llmdispatcher.models.errors import (
    DispatcherError,
    EngineCrashed,
    LimitReached,
    OutOfMemory,
)
from llmdispatcher.models.event import EngineDied, Event
from llmdispatcher.vendors.llamacpp.child import interpreter
from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine
from llmdispatcher.vendors.llamacpp.worker import codec, ends, link
from llmdispatcher.vendors.llamacpp.worker.link import Link, Outgoing


@pytest.fixture
def engine(slow_model: Path) -> Iterator[LlamaCppEngine]:
    """A model that is loaded in a worker."""
    made = LlamaCpp(slow_model, max_threads=1).start(lambda _: None)
    made.load("slow").result(WAIT_S)
    yield made
    made.close()


def pid_of(engine: LlamaCppEngine) -> int:
    """Return the worker's pid."""
    pid = engine._there("slow").vitals().pid
    assert pid is not None
    return pid


def asking(path: Path, first: str = "", last: str = "") -> str:
    """Return a program that asks a model, with lines before and after."""
    return (
        f"import os, sys\n{first}\n"
        "from llmdispatcher import Dispatcher, LlamaCpp\n"
        f"with Dispatcher(LlamaCpp({str(path)!r}, max_threads=1)) as d:\n"
        "    said = str(d.send('x', max_tokens=2, temperature=0).usage.completion_tokens)\n"
        f"{last or 'print(said)'}\n"
    )


def outcome(*command: str, cwd: Path | None = None, **more: str) -> str:
    """Run Python and return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,  # a test may run two of them
        check=False,
        cwd=cwd,
        env={**os.environ, **more},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder with modules that are called as Python's own are, and end who imports them."""
    folder = tmp_path / "traps"
    folder.mkdir()
    for name in ("json", "logging", "signal", "models", "platform", "sitecustomize"):
        (folder / f"{name}.py").write_text("raise SystemExit(77)\n")
    return folder


def test_modules_in_the_current_folder_are_not_imported(
    traps: Path, slow_model: Path, tmp_path: Path
) -> None:
    """A program that does not look there has no worker that does: it may be anybody's folder."""
    program = tmp_path / "program.py"
    program.write_text(asking(slow_model))

    assert outcome(str(program), cwd=traps) == "2"
    assert outcome("-P", "-c", asking(slow_model), cwd=traps) == "2"


def test_a_worker_ignores_what_its_parent_was_told_to_ignore(traps: Path, slow_model: Path) -> None:
    """-I: neither the environment nor the user's own folder says what is imported."""
    assert outcome("-I", "-c", asking(slow_model), PYTHONPATH=str(traps)) == "2"


def test_a_current_folder_that_was_removed_is_no_hindrance(slow_model: Path) -> None:
    """It is on the path of ``python -c``, and nothing can be found there any more."""
    first = "import tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())"

    assert outcome("-c", asking(slow_model, first)) == "2"


def test_a_program_without_standard_streams_has_workers(slow_model: Path) -> None:
    """A new line then gets the numbers of the streams, which a child overwrites with its own."""
    first = (
        "import fcntl; out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 50)\n"
        "for number in range(3): os.close(number)"
    )

    assert outcome("-c", asking(slow_model, first, "os.write(out, said.encode())")) == "2"


def test_what_is_no_text_is_left_out_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python passes over it too; the rest is made independent of the current folder."""
    monkeypatch.setattr(sys, "path", [Path("/a"), None, b"/b", "/c", ""])

    assert interpreter.path() == ["/c", str(Path.cwd())]


def test_a_death_is_seen_though_a_sibling_holds_the_line(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was forked while the worker was being started has its end of the line too."""
    siblings = []
    pair = ends.pair

    def forking() -> tuple[ends.End, ends.Theirs]:
        made = pair()
        sibling = os.fork()
        if sibling == 0:
            time.sleep(60)
            os._exit(0)
        siblings.append(sibling)
        return made

    monkeypatch.setattr(ends, "pair", forking)
    engine = LlamaCpp(slow_model, max_threads=1).start(lambda _: None)
    try:
        engine.load("slow").result(WAIT_S)
        call = begin(engine)
        call.receive(WAIT_S)
        os.kill(pid_of(engine), signal.SIGKILL)

        error = ending(call)
    finally:
        engine.close()
        for sibling in siblings:
            os.kill(sibling, signal.SIGKILL)
            os.waitpid(sibling, 0)

    assert isinstance(error, EngineCrashed)
    assert error.signal == signal.SIGKILL


def test_who_asks_while_a_worker_dies_learns_of_its_death(engine: LlamaCppEngine) -> None:
    """At no moment is it said that the model is not loaded, and nobody waits for ever."""
    errors: list[DispatcherError] = []
    os.kill(pid_of(engine), signal.SIGKILL)
    until = time.monotonic() + WAIT_S
    while engine._there("slow").ended() is None:
        assert time.monotonic() < until
        try:
            if error := ending(begin(engine)):
                errors.append(error)
        except DispatcherError as raised:
            errors.append(raised)

    assert {type(error) for error in errors} <= {EngineCrashed}


def test_states_that_are_asked_for_while_a_worker_dies_are_refused(
    engine: LlamaCppEngine, tmp_path: Path
) -> None:
    """Each future ends, whenever it was made."""
    futures: list[Future[object]] = []
    killed = threading.Event()

    def ask() -> None:
        while engine._there("slow").ended() is None:
            try:
                futures.append(engine.restore(tmp_path / "none"))  # type: ignore[arg-type]
            except DispatcherError:
                continue
            if killed.is_set():
                continue
            time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        time.sleep(0.1)
        os.kill(pid_of(engine), signal.SIGKILL)
        killed.set()
        for each in asking:
            each.result(WAIT_S)

    for future in futures:
        assert isinstance(future.exception(NOTICED_S), DispatcherError)


def test_a_listener_that_takes_its_time_holds_up_no_caller(slow_model: Path) -> None:
    """Callers learn of a death first; a listener may wait for one of them."""
    told, go_on = threading.Event(), threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, EngineDied):
            told.set()
            go_on.wait(WAIT_S)

    engine = misbehaving(slow_model, "abort").start(listen)
    try:
        engine.load("slow").result(WAIT_S)

        assert isinstance(ending(begin(engine)), EngineCrashed)

        assert told.wait(WAIT_S)
        assert not go_on.is_set()
    finally:
        go_on.set()
        engine.close()


def test_a_log_says_where_a_bug_was_and_not_what_it_said(slow_model: Path) -> None:
    """The end of the log goes into crash reports, which people send."""
    engine = misbehaving(slow_model, "confess").start(lambda _: None)
    try:
        engine.load("slow").result(WAIT_S)
        error = ending(begin(engine))
    finally:
        engine.close()

    assert isinstance(error, EngineCrashed)
    assert "a bug in the engine" in error.tail
    assert "KeyError" in error.tail
    assert "what the user wrote" not in error.tail


def test_a_life_that_was_put_aside_begins_no_other(engine: LlamaCppEngine) -> None:
    """A load that runs out of memory after the model was unloaded is nobody's any more."""
    before = engine._there("slow")
    engine.unload("slow").result(WAIT_S)
    engine.load("slow").result(WAIT_S)
    now = engine._there("slow")
    late: Future[None] = Future()

    engine.loaded(before, OutOfMemory("too late"), late)

    assert isinstance(late.exception(0), OutOfMemory)
    assert engine._there("slow") is now


def test_paths_mean_what_they_mean_here(
    engine: LlamaCppEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's current folder is the one that its parent had when it was started."""
    said = [user("ba da ga la ma na " * 10)]
    with Dispatcher(LlamaCpp(engine._spec.model_path, max_threads=1)) as d:
        d.send(said, max_tokens=1)
        monkeypatch.chdir(tmp_path)

        d.save_state("a.state", said)

        assert (tmp_path / "a.state").is_file()
        assert d.restore_state("a.state").tokens > 0


def test_cancels_at_any_moment_leave_the_next_answer_right(engine: LlamaCppEngine) -> None:
    """Whatever was being done for those that gave up."""
    calls = [begin(engine) for _ in range(60)]
    for number, call in enumerate(calls):
        time.sleep(0.002 * (number % 5))
        call.cancel()
        call.cancel()

    assert {str(ending(call)) for call in calls} == {"the request was stopped"}
    call = begin(engine)
    assert call.receive(WAIT_S)
    call.cancel()
    until = time.monotonic() + WAIT_S
    while engine.status().running + engine.status().waiting:
        assert time.monotonic() < until
        time.sleep(0.01)


class Stuck:
    """An end whose peer reads nothing."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def send(self, data: bytes) -> None:
        """Wait until it is shut."""
        self.released.wait(WAIT_S)
        raise BrokenPipeError

    def receive(self, wait_s: float | None, most_bytes: int) -> bytes | None:
        """Nothing comes."""
        return None

    def shut(self) -> None:
        """Release who sends."""
        self.released.set()

    def close(self) -> None:
        """Hold nothing."""


def test_more_than_can_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be queued is not dropped without a word."""
    monkeypatch.setattr(link, "MAX_OUTGOING", 3)
    stuck = Link(Stuck())
    outgoing = Outgoing(stuck)
    refused: list[DispatcherError] = []
    for _ in range(6):
        outgoing.put(lambda: ["x"], refused.append)

    outgoing.end()
    stuck.shut()
    outgoing.join()

    assert {type(error) for error in refused} == {LimitReached}
    assert len(refused) in {2, 3}  # one may be on its way


def test_what_waits_to_be_sent_is_released_when_the_line_is_shut() -> None:
    """Also where the peer is alive and reads nothing, as one that stands still."""
    ours, theirs = ends.pair()
    line = Link(ours)
    outgoing = Outgoing(line)
    outgoing.put(lambda: ["x" * 10_000_000])
    time.sleep(0.1)

    outgoing.end()
    line.shut()
    outgoing.join()

    line.close()
    theirs.close()


def test_messages_come_whole_or_not_yet() -> None:
    """Half a message holds nobody up, however it is cut."""
    ours, theirs = ends.pair()
    line = Link(ours)
    data = codec.encode(["a", "b" * 1000])
    frames = b"".join(len(each).to_bytes(4, "big") + each for each in (data, data))

    for at in range(0, len(frames), 400):
        os.write(theirs.fileno(), frames[at : at + 400])
    theirs.close()

    assert line.receive(1.0) == ["a", "b" * 1000]
    assert line.receive(1.0) == ["a", "b" * 1000]
    with pytest.raises(link.Gone):
        line.receive(1.0)
    line.close()


def test_half_a_message_is_none() -> None:
    """Waiting for the rest has an end."""
    ours, theirs = ends.pair()
    line = Link(ours)
    os.write(theirs.fileno(), (100).to_bytes(4, "big") + b"[")

    assert line.receive(0.05) is None

    line.close()
    theirs.close()


@pytest.mark.parametrize(
    "facts",
    [
        {"retry_after_s": "soon"},
        {"retry_after_s": float("nan")},
        {"retry_after_s": -1},
        {"status": True},
        {"vendor": 5},
        {"partial": "x"},
    ],
)
def test_facts_are_what_they_must_be(facts: dict[str, object]) -> None:
    """Whoever decides by an error's facts can rely on their kinds, whoever wrote them."""
    name, told, usual = codec.error_out(OutOfMemory("x"))

    with pytest.raises(codec.Garbled):
        codec.error_in([name, told, {**usual, **facts}])


def test_a_worker_writes_no_control_characters_into_errors() -> None:
    """A terminal or a log would obey them."""
    made = codec.error_in(codec.error_out(EngineCrashed("a\x1b[2Jb\r\x00", tail="c\x9bd\ne\tf")))

    assert isinstance(made, EngineCrashed)
    assert str(made) == "a\ufffd[2Jb\ufffd\ufffd"
    assert made.tail == "c\ufffdd\ne\tf"
