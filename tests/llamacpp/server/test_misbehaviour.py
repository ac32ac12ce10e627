"""A server that goes wrong in any way ends in the error that says so, soon, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from llamacpp.server.served import SHORT, SILENT, Fake, Served, drain, is_alive, text, until

from llmdispatcher.models.errors import (
    BadReply,
    Cancelled,
    ContextOverflow,
    CorruptModel,
    DispatcherError,
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Overloaded,
    Refused,
    StreamInterrupted,
    TimedOut,
    Unreachable,
    UnsupportedArchitecture,
)
from llmdispatcher.models.event import EngineDied
from llmdispatcher.models.reply import Piece
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.child import pidfiles
from llmdispatcher.vendors.llamacpp.server import life
from llmdispatcher.vendors.llamacpp.server.signs import Patience

Make = Callable[[str], Fake]

SOON_S = 60.0
"""Twelve times the 5 s within which each of these is to be noticed."""

PATIENT = Patience(stop_s=0.5)
"""With one that does something, however late it has its turn."""

ASLEEP = attrs.evolve(SHORT, stall_s=SOON_S, silent_s=SOON_S)
"""With one that answers, and does nothing."""

LOADS = [
    ("stalls", TimedOut, "loading the model took longer than 1.5 s"),
    ("never_ready", TimedOut, "loading the model"),
    ("dies", EngineCrashed, "illegal instruction|processor"),
    ("unknown", UnsupportedArchitecture, "zebra"),
    ("corrupt", CorruptModel, "corrupted or incomplete"),
    ("out_of_memory", OutOfMemory, "failed to allocate CPU buffer"),
    ("strange", BadReply, "HTTP"),
    ("garbage_props", BadReply, "/props"),
    ("clashes,no_sockets", Unreachable, "another program"),
]

REPLIES = [
    ("crashes", EngineCrashed, "GGML_ASSERT"),
    ("runs_out", OutOfMemory, "bad_alloc|insufficient"),
    ("exits", EngineCrashed, "status 3"),
    ("hangs", TimedOut, "waiting for the next token took longer than 3 s"),
    ("dozes", TimedOut, "waiting for the next token took longer than 2 s"),
    ("garbage", BadReply, "no JSON"),
    ("no_event", BadReply, "no JSON"),
    ("error", Overloaded, "max_tokens"),
    ("cut", StreamInterrupted, "in the middle"),
    ("ends", StreamInterrupted, "before the reply was whole"),
    ("endless_line", BadReply, "a line of more than"),
]

RUBBISH = {"garbage", "no_event"}
DEADLY = {"crashes", "runs_out", "exits", "hangs", "dozes"}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("how", "kind", "told"), LOADS, ids=[row[0] for row in LOADS])
def test_a_load_that_goes_wrong_says_why(
    fake: Make, how: str, kind: type[DispatcherError], told: str
) -> None:
    """Whatever a server does instead of loading, the load fails with its own error."""
    began_s = time.monotonic()
    with Served(fake(how).spec(), SHORT if kind is TimedOut else PATIENT) as served:
        with pytest.raises(kind, match=told):
            raise served.failed()
        assert time.monotonic() - began_s < SOON_S
        assert isinstance(served.host.ended(), kind)
        assert 1.0 not in served.fractions()
        with pytest.raises(kind):
            served.host.submit(Request(prompt="a b c"))


@pytest.mark.parametrize("has_tiles", [True, False])
def test_a_build_that_spoils_tiles_runs_without(
    fake: Make, monkeypatch: pytest.MonkeyPatch, *, has_tiles: bool
) -> None:
    """Where the processor has them, a server that dies of its order of weights gets the file's."""
    monkeypatch.setattr(life, "has_tiles", lambda: has_tiles)
    spoiled = fake("spoiled")
    with Served(spoiled.spec(), PATIENT) as served:
        if not has_tiles:
            assert isinstance(served.failed(), EngineCrashed)
            return
        served.ready()
        assert text(drain(served.host.submit(Request(prompt="one two")))) == "one two"
    assert spoiled.noted().count("died packed") == 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("how", "kind", "told"), REPLIES, ids=[row[0] for row in REPLIES])
def test_a_reply_that_goes_wrong_says_why(
    fake: Make, how: str, kind: type[DispatcherError], told: str
) -> None:
    """What came before is told; then the call fails, and so does the host if the server died."""
    patience = {"hangs": SILENT, "dozes": ASLEEP}.get(how, PATIENT)
    with Served(fake(how).spec(), patience) as served:
        served.ready()
        began_s = time.monotonic()
        words = "one two three four"  # of a raw prompt, rubbish between the words is left out
        asked = Request.of(words) if how in RUBBISH else Request(prompt=words)
        call = served.host.submit(asked)
        pieces: list[Piece] = []

        with pytest.raises(kind, match=told):
            drain(call, pieces)

        assert time.monotonic() - began_s < SOON_S
        if kind is StreamInterrupted:
            assert text(pieces) == "one two"
            assert call.usage().prompt_tokens == 4
            assert call.usage().completion_tokens == 2
        if how in DEADLY:
            until(lambda: served.host.ended() is not None)
            assert isinstance(served.host.ended(), kind)
            assert [event for event in served.events if isinstance(event, EngineDied)]
            with pytest.raises(kind):
                served.host.submit(Request(prompt="a"))
        else:
            assert served.host.ended() is None
            assert text(served.ask(Request(prompt="a b"))) == "a b"
        until(lambda: served.host.counts() == (0, 0))


@pytest.mark.parametrize("how", sorted(RUBBISH))
def test_rubbish_is_left_out_where_nothing_is_missing(fake: Make, how: str) -> None:
    """As many pieces as tokens came for a raw prompt: the reply is whole, and warns."""
    with Served(fake(how).spec(), PATIENT) as served:
        served.ready()
        pieces = drain(served.host.submit(Request(prompt="one two three four")))
        (warning,) = pieces[-1].warnings  # type: ignore[union-attr]  # it is the Finish
        assert text(pieces) == "one two three four"
        assert "left out" in warning


def test_all_calls_in_flight_get_the_cause(fake: Make) -> None:
    """When a server dies, every call that it served or was to serve fails with what it died of."""
    with Served(fake("crashes").spec(max_parallel=2), PATIENT) as served:
        pid = served.ready().pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # or it may be dead before all have asked
        calls = [served.host.submit(Request(prompt="a b c d", max_tokens=9)) for _ in range(6)]
        os.kill(pid, signal.SIGCONT)
        for call in calls:
            with pytest.raises(EngineCrashed, match="GGML_ASSERT"):
                drain(call)
        assert len({id(call) for call in calls}) == 6


def test_a_port_that_is_taken_once_is_no_matter(fake: Make) -> None:
    """Where another program takes the port first, another port is tried."""
    made = fake("clashes_once,no_sockets")
    with Served(made.spec()) as served:
        served.ready()
        assert text(served.ask(Request(prompt="a b"))) == "a b"
        assert served.fractions().count(1.0) == 1
    assert sum(note.startswith("started") for note in made.noted()) == 2


def test_one_that_hangs_on_sigterm_is_killed(fake: Make) -> None:
    """A server that does not end when it is told to is killed, and stopping stays bounded."""
    with Served(fake("deaf").spec(), PATIENT) as served:
        pid = served.ready().pid()
        assert pid is not None
        began_s = time.monotonic()
        served.host.stop()
        served.host.join()
        assert time.monotonic() - began_s < SOON_S
        assert not is_alive(pid)


def test_a_stop_while_it_loads_ends_it(fake: Make) -> None:
    """Stopping does not wait for a load, which fails with Refused."""
    with Served(fake("never_ready").spec()) as served:
        until(lambda: served.pid() is not None)
        served.host.stop()
        assert isinstance(served.failed(), Refused)


def test_a_prompt_too_long_is_told_with_its_numbers(fake: Make) -> None:
    """A prompt that does not fit is the request's fault, and no other's."""
    with Served(fake("well").spec(context_tokens=8, max_parallel=1)) as served:
        call = served.ready().host.submit(Request(prompt="a " * 200))
        with pytest.raises(ContextOverflow) as raised:
            drain(call)
        assert raised.value.needed_tokens == 201


def test_a_server_that_is_stopped_from_outside_is_noticed(fake: Make) -> None:
    """One that the system stopped (SIGSTOP) does not answer, and is ended as one that hangs."""
    with Served(fake("well").spec(), SILENT) as served:
        pid = served.ready().pid()
        assert pid is not None
        call = served.host.submit(Request(prompt="a " * 400))
        call.receive(SOON_S)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimedOut, match="next token"):
            drain(call)


def test_killed_ones_leave_nothing(fake: Make, tmp_path: Path) -> None:
    """SIGKILL in the middle of eight streams ends each in its error; nothing is left, ever."""
    made = fake("well")
    for _ in range(3):
        with Served(made.spec(max_parallel=8)) as served:
            pid = served.ready().pid()
            assert pid is not None
            calls = [served.host.submit(Request(prompt="a b " * 200)) for _ in range(8)]
            calls[0].receive(SOON_S)
            os.kill(pid, signal.SIGKILL)
            for call in calls:
                with pytest.raises(EngineCrashed) as raised:
                    drain(call)
                assert raised.value.signal == signal.SIGKILL


def test_what_is_no_llama_server_is_refused(tmp_path: Path) -> None:
    """A program whose help lists no flags of a server is refused by name."""
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho 'usage: something else'\n", encoding="utf-8")
    program.chmod(0o755)
    with Served(Fake(program, tmp_path / "notes").spec()) as served:
        error = served.failed()
    assert isinstance(error, ExecutableNotFound)
    assert "is not a llama-server" in str(error)


def test_there_is_no_state_to_keep(fake: Make, tmp_path: Path) -> None:
    """Saving fails with the way out, and cancelling a call that waits releases it."""
    with Served(fake("well").spec(max_parallel=1)) as served:
        served.ready()
        with pytest.raises(DispatcherError, match="keeps no states"):
            served.host.save(Request(prompt="a"), tmp_path / "x").result(1)
        with pytest.raises(DispatcherError, match="keeps no states"):
            served.host.restore(tmp_path / "x").result(1)
        first = served.host.submit(Request(prompt="a " * 400))
        first.receive(SOON_S)
        second = served.host.submit(Request(prompt="b"))
        assert served.host.counts() == (1, 1)
        second.cancel()
        with pytest.raises(Cancelled):
            drain(second)
        until(lambda: served.host.counts() == (0, 1))
        first.cancel()
        until(lambda: served.host.counts() == (0, 0))


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from llamacpp.server.served import Fake, Served
served = Served(Fake(Path({program!r}), Path({notes!r})).spec())
served.ready()
print(served.pid(), flush=True)
time.sleep(600)
"""


def test_the_server_ends_with_its_parent(fake: Make) -> None:
    """When the process that supervises is killed, its server is gone within a second."""
    made = fake("well")
    tests = str(Path(__file__).parents[2])
    code = PARENT.format(tests=tests, program=str(made.executable), notes=str(made.notes))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
        finally:
            parent.kill()  # else whoever leaves this block waits for it
        began_s = time.monotonic()
        until(lambda: not is_alive(pid))
        assert time.monotonic() - began_s < SOON_S
    # its files are removed by the next program that starts one
    pidfiles.reap()
    with Served(made.spec()) as served:
        served.ready()


def test_patience_is_a_value() -> None:
    """The limits are told by name, and longer for one that answers than for one that does not."""
    assert Patience().silent_s < Patience().asleep_s < Patience().stall_s
