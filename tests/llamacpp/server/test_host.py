"""What a supervised server must do, with a fake one that behaves and with the real one.

The real one runs under the marker ``upstream``, with the path of its program in
LLMDISPATCHER_LLAMA_SERVER.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from llamacpp.server.conftest import real_server
from llamacpp.server.served import SILENT, WAIT_S, Fake, Served, drain, is_alive, text, until

from llmdispatcher.models.errors import Cancelled, EngineCrashed, LimitReached, Refused, TimedOut
from llmdispatcher.models.message import user
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Progress
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.server.program import LlamaServer
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp, embedded

REAL = pytest.param("real", marks=pytest.mark.upstream)

WORDS = "one two three four five six seven eight nine ten"

Spec = Callable[..., LlamaCpp]


@pytest.fixture(params=["fake", REAL])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Spec:
    """Make a spec of the small model that comes with the package."""
    if request.param == "fake":
        return Fake.made(tmp_path / "fake").spec
    program = real_server()
    return lambda **fields: attrs.evolve(embedded(), executable=program, **fields)


@pytest.fixture
def served(spec: Spec, small_model: Path) -> Iterator[Served]:
    """A server that has loaded a model whose replies go on, whatever it is asked: see ``some``."""
    with Served(spec(model_path=small_model)) as made:
        yield made.ready()


@pytest.fixture
def long(spec: Spec, slow_model: Path) -> Iterator[Served]:
    """A server whose replies take seconds."""
    with Served(spec(model_path=slow_model, max_threads=1, max_parallel=4)) as made:
        yield made.ready()


def endless(tokens: int = 3000) -> Request:
    """Make a request that takes seconds."""
    return Request(prompt="w " * 400, max_tokens=tokens, deadlines=None)


def some(tokens: int, prompt: str = WORDS, **fields: Any) -> Request:
    """Make a request for so many tokens, none of which is drawn: it might be the end."""
    return Request.of(prompt, max_tokens=tokens, temperature=0, **fields)


def test_a_load_is_reported_in_order(served: Served) -> None:
    """How far a load is only grows, and its end is told once."""
    fractions = served.fractions()
    assert fractions[0] == 0.0
    assert fractions == sorted(fractions)
    assert fractions.count(1.0) == 1


def test_a_conversation_gets_a_reply(spec: Spec) -> None:
    """Pieces come in order and end with one finish, whose usage is the call's."""
    with Served(spec()) as served:
        call = served.ready().host.submit(
            Request.of("What is the capital of France?", temperature=0)
        )
        pieces = drain(call)
        assert served.host.has_served()
    assert "France" in text(pieces)
    assert isinstance(pieces[-1], Finish)
    assert pieces[-1].reason is FinishReason.STOP
    assert call.usage() == pieces[-1].usage
    assert call.usage().prompt_tokens > 0
    assert call.usage().completion_tokens > 0


def test_a_raw_prompt_gets_a_reply(served: Served) -> None:
    """A prompt without a conversation is continued, up to max_tokens."""
    pieces = served.ask(Request.of(Request(prompt=WORDS), max_tokens=3, temperature=0))
    assert text(pieces)
    assert isinstance(pieces[-1], Finish)
    assert pieces[-1].usage.completion_tokens == 3


def test_it_reads_prompts_and_says_so(served: Served) -> None:
    """A request that is read shows progress before its first word."""
    pieces = served.ask(some(3))
    kinds = [type(piece) for piece in pieces]
    assert kinds.index(Progress) < kinds.index(Delta)


def test_choices_come_apart(served: Served) -> None:
    """Several choices of one prompt are told apart, and one finish ends all."""
    pieces = served.ask(some(3, n=2))
    assert text(pieces, 0)
    assert text(pieces, 1)
    assert isinstance(pieces[-1], Finish)
    assert len(pieces[-1].others) == 1


def test_many_at_once_are_all_served(served: Served) -> None:
    """Forty requests from eight threads are all answered, each in its own stream."""
    replies: list[str] = []

    def work() -> None:
        replies.extend(text(served.ask(some(5, f"{number} {WORDS}"))) for number in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 40
    assert all(replies)
    until(lambda: served.host.counts() == (0, 0))


def test_it_works_in_an_event_loop(served: Served) -> None:
    """A consumer may wait in an event loop, many in one."""

    async def one(number: int) -> int:
        call, pieces = served.host.submit(some(4, f"{number} {WORDS}")), 0
        while True:
            for piece in await call.areceive(30):
                pieces += isinstance(piece, Delta)
                if isinstance(piece, Finish):
                    return pieces

    async def main() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(10)))

    assert all(asyncio.run(main()))


def test_cancel_stops_the_server(long: Served) -> None:
    """A cancelled call releases its consumer at once, and its place goes to the next."""
    calls = [long.host.submit(endless()) for _ in range(4)]
    for call in calls:
        while not any(isinstance(piece, Delta) for piece in call.receive(30)):
            pass
    assert long.host.counts() == (0, 4)
    began_s = time.monotonic()
    for call in calls:
        call.cancel()
        with pytest.raises(Cancelled):
            drain(call)
    assert time.monotonic() - began_s < WAIT_S
    until(lambda: long.host.counts() == (0, 0))
    pid = long.pid()
    assert pid is not None
    assert text(long.ask(Request.of(Request(prompt="a b"), max_tokens=2, temperature=0)))


def test_cancelling_is_quiet(long: Served, caplog: pytest.LogCaptureFixture) -> None:
    """However many calls are cancelled while they are being written, nothing is printed."""
    for _ in range(20):
        calls = [long.host.submit(endless(200)) for _ in range(4)]
        for call in calls:
            call.receive(30)
        for call in calls:
            call.cancel()
        until(lambda: long.host.counts() == (0, 0))
    assert not caplog.records


def test_those_that_wait_are_counted(spec: Spec, slow_model: Path) -> None:
    """No more are served at once than were planned for; the others wait, and hear how many do."""
    with Served(spec(model_path=slow_model, max_threads=1, max_parallel=1)) as served:
        served.ready()
        first = served.host.submit(endless())
        first.receive(30)
        others = [served.host.submit(endless(5)) for _ in range(3)]
        assert served.host.counts() == (3, 1)
        queued = others[2].receive(30)[0]
        assert queued == Progress("queued", 0, 2)
        first.cancel()
        for call in others:
            assert text(drain(call))


def test_the_higher_priority_is_next(spec: Spec, slow_model: Path) -> None:
    """Of those that wait, the one of higher priority is served first."""
    with Served(spec(model_path=slow_model, max_threads=1, max_parallel=1)) as served:
        served.ready()
        first = served.host.submit(endless())
        first.receive(30)
        low = served.host.submit(attrs.evolve(endless(), priority=-5))
        high = served.host.submit(attrs.evolve(endless(), priority=5))  # not over when looked at
        first.cancel()
        until(lambda: high.runs)
        assert not low.runs
        low.cancel()
        high.cancel()


def test_stopping_ends_calls_in_flight(long: Served) -> None:
    """When the host is stopped, calls fail with Refused, and so do those that come later."""
    calls = [long.host.submit(endless()) for _ in range(6)]
    calls[0].receive(30)
    long.host.stop()
    for call in calls:
        with pytest.raises(Refused):
            drain(call)
    long.host.join()
    with pytest.raises(Refused):
        long.host.submit(endless())
    assert isinstance(long.host.ended(), Refused)


def test_a_death_ends_all_streams(long: Served) -> None:
    """When the server is killed in the middle of its streams, each ends in what killed it."""
    calls = [long.host.submit(endless()) for _ in range(8)]
    calls[0].receive(30)
    pid = long.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(EngineCrashed) as raised:
            drain(call)
        assert raised.value.signal == signal.SIGKILL
    assert isinstance(long.host.ended(), EngineCrashed)


def test_one_that_does_not_answer_is_ended(spec: Spec, slow_model: Path) -> None:
    """A server that the system stopped does nothing, and is given up after some seconds."""
    with Served(spec(model_path=slow_model, max_threads=1, max_parallel=2), SILENT) as served:
        pid = served.ready().pid()
        assert pid is not None
        call = served.host.submit(endless())
        call.receive(30)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimedOut):
            drain(call)


def test_it_tells_how_it_is(served: Served) -> None:
    """Vitals name the process and its memory."""
    served.ask(some(5))
    vitals = served.host.vitals()
    assert vitals.pid is not None
    assert is_alive(vitals.pid)
    until(lambda: (served.host.vitals().memory_bytes or 0) > 2**20)
    assert (served.host.vitals().peak_bytes or 0) >= 2**20
    assert served.host.measures


def test_a_crowd_is_bounded(long: Served) -> None:
    """More than a thousand that wait are refused, not kept."""
    calls = [long.host.submit(endless()) for _ in range(1024)]
    with pytest.raises(LimitReached):
        while True:
            calls.append(long.host.submit(endless()))
            assert len(calls) < 1100
    for call in calls:
        call.cancel()
    until(lambda: long.host.counts() == (0, 0))


def test_a_fork_may_not_use_it(served: Served) -> None:
    """A forked child has the parent's server, and is told so."""
    served.host._pid = os.getpid() + 1
    try:
        assert "forked" in str(served.host.misused())
        served.host.stop()  # does nothing
        served.host.join()
    finally:
        served.host._pid = os.getpid()
    assert text(served.ask(some(2)))


@pytest.mark.upstream
def test_the_real_one_does_as_it_is_told(tmp_path: Path) -> None:
    """Prefills are continued, stops are kept out, seeds repeat, log-probabilities are whole."""
    spec = attrs.evolve(embedded(), executable=real_server(), max_parallel=4)
    question = "What is the capital of France?"
    with Served(spec) as served:
        served.ready()
        plain = text(served.ask(Request.of(question, temperature=0)))
        begin = "The capital"
        begun = served.ask(Request.of(question, temperature=0, prefill=begin))
        assert begin + text(begun) == plain
        stopped = served.ask(Request.of(question, temperature=0, stop=["France"]))
        assert text(stopped) == plain.partition("France")[0]
        drawn = [
            text(served.ask(Request.of("Hello", seed=7, temperature=2.0, max_tokens=20)))
            for _ in range(3)
        ]
        # the first is read whole, the others are remembered but for the last token: that rounds
        assert drawn[1] == drawn[2]
        told = served.ask(Request.of(question, temperature=0, logprobs=2, max_tokens=4))
        tokens = [t for piece in told if isinstance(piece, Delta) for t in piece.logprobs]
        assert b"".join(token.data for token in tokens).decode() == text(told)
        assert all(len(token.top) == 2 for token in tokens)
        alone = served.ask(Request.of(question, temperature=0, logprobs=0, max_tokens=4))
        tokens = [t for piece in alone if isinstance(piece, Delta) for t in piece.logprobs]
        assert len(tokens) == 4
        assert not any(token.top for token in tokens)


@pytest.mark.upstream
def test_the_real_one_keeps_to_forms(tmp_path: Path) -> None:
    """A schema and a grammar are enforced; what does not compile is refused."""
    from llmdispatcher.models.errors import InvalidGrammar, Unsupported  # noqa: PLC0415
    from llmdispatcher.models.form import ResponseFormat, ToolSpec  # noqa: PLC0415

    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    with Served(attrs.evolve(embedded(), executable=real_server())) as served:
        served.ready()
        reply = text(served.ask(Request.of([user("Go")], schema=schema, max_tokens=300)))
        assert json.loads(reply) == {"a": 1}
        form = ResponseFormat("grammar", grammar='root ::= "yes" | "no"')
        assert text(served.ask(Request.of("Go", response_format=form))) in {"yes", "no"}
        assert text(served.ask(Request(prompt="Go", response_format=form))) in {"yes", "no"}
        broken = ResponseFormat("grammar", grammar="root := x")
        with pytest.raises(InvalidGrammar):
            served.ask(Request.of("Go", response_format=broken))
        with pytest.raises(Unsupported, match="no place for tools"):
            served.ask(Request.of("Go", tools=[ToolSpec("add")]))


@pytest.mark.upstream
def test_the_real_one_says_what_it_cannot_load(tmp_path: Path) -> None:
    """A file that llama.cpp refuses fails the load with its own words."""
    from tiny_gguf import tiny_model  # noqa: PLC0415

    from llmdispatcher.models.errors import CorruptModel, UnsupportedArchitecture  # noqa: PLC0415

    path = tiny_model(tmp_path / "odd.gguf", extra={"blk.0.attn_q.weight": (32, 32, 2)})
    with Served(LlamaCpp(path, executable=real_server())) as served:
        error = served.failed()
    assert isinstance(error, CorruptModel | UnsupportedArchitecture)


@attrs.frozen
class OnPort(LlamaServer):
    """A llama-server that is made to listen on a port."""

    def has_sockets(self) -> bool:
        """Pretend to be an older one."""
        return False


@pytest.mark.upstream
def test_the_real_one_listens_on_a_port() -> None:
    """Where there are no sockets, it listens on loopback, and answers nobody without the key."""
    with Served(embedded(), program=OnPort(real_server())) as served:
        served.ready()
        assert text(served.ask(some(3, "Hello")))
        pid = served.pid()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        port = int(command[command.index(b"--port") + 1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/v1/completions", "{}")
        assert connection.getresponse().status == http.HTTPStatus.UNAUTHORIZED
        connection.close()
