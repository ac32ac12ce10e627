"""Real models under load: many threads, many cancels, nothing left behind, nothing on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from decodes import Decodes
from leaks import growth_bytes
from tiny_gguf import tiny_model
from waits import SOON_S, WAIT_S, auntil, until
from worlds import WORLDS, World

from llmdispatcher import (
    AsyncDispatcher,
    ContextOverflow,
    CorruptModel,
    Deadlines,
    Dispatcher,
    EngineCrashed,
    LlamaCpp,
    ModelFileMissing,
    ModelTooLarge,
    Request,
    Sampling,
    Scripted,
    Stream,
    Unsupported,
    UnsupportedArchitecture,
    assistant,
    system,
    user,
)
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.event import Event, LoadProgress
from llmdispatcher.models.reply import Outcome
from llmdispatcher.vendors.contract import Call
from llmdispatcher.vendors.llamacpp import loading as loader
from llmdispatcher.vendors.llamacpp.engine import relay
from llmdispatcher.vendors.llamacpp.engine.engine import Loaded
from llmdispatcher.vendors.llamacpp.templates.template import PLAIN_WARNING, ChatTemplate
from llmdispatcher.vendors.llamacpp.vendor import embedded

MIB = 2**20
GROWTH_MIB = 8
"""Resident memory may grow by this much over the cycles of a leak test: allocator's noise."""

LIVE_S = 4 * WAIT_S
"""A bound on a program that starts a worker, which is two starts of Python and one of llama.cpp."""

GREEDY = Sampling(temperature=0)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each test runs with threads and with asyncio."""
    made: World = WORLDS[request.param]
    return made


@pytest.fixture
def slow(slow_model: Path) -> Iterator[Dispatcher]:
    """A dispatcher whose replies take seconds, loaded, in this process."""
    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
        d.send("x", max_tokens=1)
        yield d


def test_the_first_question() -> None:
    """What the README shows first."""
    with Dispatcher("embedded") as d:
        reply = d.send("What is the capital of France?", temperature=0)

    assert "Paris" in reply.text
    assert (reply.vendor, reply.model, reply.cost_microusd) == ("embedded", "demo", 0)
    assert "last resort" in reply.decision.candidates[0].note


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3))])
def test_all_four_ways_give_the_same_text(seed: int) -> None:
    """Sync and async, streamed or not: the same seed gives the same text and usage."""
    request = Request(prompt="The", max_tokens=60, sampling=Sampling(seed=seed, temperature=1.5))

    heard = [
        world((embedded(),), verb, request)
        for world in WORLDS.values()
        for verb in ("send", "stream")
    ]

    assert len({h.reply.text for h in heard if h.reply}) == 1
    assert len({h.reply.usage for h in heard if h.reply}) == 1
    assert all(h.text == h.reply.text for h in heard if h.reply and h.pieces)
    assert all(h.reply for h in heard)


def test_a_hundred_threads_get_their_own_answers(slow_model: Path) -> None:
    """100 threads with 100 prompts get what each gets alone, while 20 more are being cancelled."""
    prompts = [f"{i} {chr(97 + i % 26)} question" for i in range(100)]

    def ask(d: Dispatcher, prompt: str) -> str:
        return d.send(Request(prompt=prompt, max_tokens=12, sampling=GREEDY)).text

    def give_up(d: Dispatcher, index: int) -> None:
        stream = d.stream(Request(prompt=f"cancel {index}", max_tokens=2000, sampling=GREEDY))
        if index % 2:
            next(stream)
        stream.close()

    # with F32 throughout no sum depends on how steps are cut, which the clock decides
    spec = LlamaCpp(slow_model, max_threads=1, isolation="thread", cache_type="f32")
    with Dispatcher(spec) as d:
        alone = [ask(d, prompt) for prompt in prompts]
        with ThreadPoolExecutor(120) as pool:
            cancels = [pool.submit(give_up, d, index) for index in range(20)]
            together = list(pool.map(lambda prompt: ask(d, prompt), prompts))
            for cancel in cancels:
                cancel.result()
        stats = d.stats()

    assert len(set(alone)) == 100
    assert together == alone
    assert (stats.in_flight, stats.total.served, stats.total.failed) == (0, 200, 0)
    assert stats.total.cancelled == 10


@pytest.mark.parametrize(
    "cycles", [pytest.param(40), pytest.param(200, marks=pytest.mark.soak)], ids=str
)
def test_cancelled_streams_leave_nothing(slow: Dispatcher, cycles: int) -> None:
    """Stream, cancel in the middle, again and again: no thread, no child, no memory remains."""
    limit = GROWTH_MIB * MIB

    def cycle(index: int) -> None:
        request = Request(prompt="Once " * (1 + index % 50), max_tokens=2000, sampling=GREEDY)
        with slow.stream(request) as stream:
            for _ in range(index % 4):
                next(stream)

    for index in range(20):
        cycle(index)
    threads = threading.active_count()

    assert growth_bytes(cycle, cycles, limit) < limit
    until(lambda: threading.active_count() <= threads and not psutil.Process().children())
    assert slow.stats().in_flight == 0


@pytest.mark.parametrize(
    "cycles", [pytest.param(10), pytest.param(200, marks=pytest.mark.soak)], ids=str
)
def test_loading_and_closing_gives_the_memory_back(slow_model: Path, cycles: int) -> None:
    """Load, answer, close, again and again: memory and threads stay where they were.

    glibc gives every new thread an arena and returns them late, so that memory wavers by about
    10 MiB; a model that stayed would take 20 MiB at each cycle.
    """
    limit = 2 * slow_model.stat().st_size

    def cycle(_: int) -> None:
        with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
            d.send("x", max_tokens=2)

    for index in range(5):
        cycle(index)
    threads = threading.active_count()

    assert growth_bytes(cycle, cycles, limit) < limit
    until(lambda: threading.active_count() <= threads)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_dropped_dispatcher_ends_its_threads(isolation: str, slow_model: Path) -> None:
    """Forgetting to close costs nothing: threads and workers end with the last reference."""
    before = threading.active_count()
    spec = LlamaCpp(slow_model, max_threads=1, isolation=isolation)
    d = Dispatcher(spec, on_event=lambda _: None)
    d.send("x", max_tokens=1)
    assert threading.active_count() > before

    del d
    gc.collect()

    until(lambda: threading.active_count() <= before and not psutil.Process().children())


def closed_in_decode(stream: Stream, decodes: Decodes, number: int) -> None:
    """Read a stream that is closed while the decode of that number, from 0, is under way."""
    decodes.begun.clear()
    decodes.hold(number)

    def close() -> None:
        until(lambda: len(decodes.begun) == number + 1)
        stream.close()
        decodes.go_on()

    button = threading.Thread(target=close)
    button.start()
    assert list(stream) == []
    button.join()


def test_cancel_stops_in_the_middle_of_a_prompt(
    slow: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long prompt is abandoned within the decode that reads it, and the next one is served."""
    decodes = Decodes(monkeypatch)
    closed_in_decode(slow.stream(Request(prompt="word " * 700, max_tokens=5)), decodes, 1)

    reply = slow.send("x", max_tokens=1)

    assert decodes.interrupted == 1
    assert sum(begun.count for step in decodes.begun[2:] for begun in step) < 100
    assert reply.text or reply.usage.completion_tokens


def test_a_conversation_is_read_only_once(slow: Dispatcher) -> None:
    """The next turn reads only what is new; with a seed, from the last whole batch."""
    first = Request(prompt="long ago " * 300, max_tokens=8, sampling=GREEDY)
    one = slow.send(first)
    assert one.usage.cached_tokens == 0
    assert one.usage.prompt_tokens > 1024

    same = slow.send(first)
    two = slow.send(Request(prompt=f"{first.prompt}{one.text}and", max_tokens=8, sampling=GREEDY))
    other = slow.send(Request(prompt="not long ago " * 250, max_tokens=8, sampling=GREEDY))
    exact = [slow.send(first, seed=1) for _ in range(2)]

    assert same.usage.cached_tokens == one.usage.prompt_tokens - 1
    assert two.usage.cached_tokens >= one.usage.prompt_tokens - 1
    assert other.usage.cached_tokens == 0
    assert exact[0].usage.cached_tokens in {0, one.usage.prompt_tokens // 512 * 512}
    assert exact[1].usage.cached_tokens == one.usage.prompt_tokens // 512 * 512


@pytest.mark.parametrize("storage", ["F32", "Q8_0"])
def test_what_was_asked_before_never_changes_an_answer(tmp_path: Path, storage: str) -> None:
    """The same prompt and seed give the same text cold, warm, and after anything else."""
    path = tiny_model(tmp_path / "m.gguf", vocab=600, context=2048, width=64, storage=storage)
    prompts = [f"{i} is a number, and so on " * (3 + 9 * i) for i in range(5)]
    requests = [
        Request(prompt=prompt + end, max_tokens=24, sampling=sampling)
        for prompt in prompts
        for end in ("", "but not always")
        for sampling in (Sampling(temperature=0, seed=0), Sampling(seed=5, temperature=1.5))
    ]

    cold = []
    for request in requests:
        with Dispatcher(LlamaCpp(path, isolation="thread")) as fresh:
            cold.append(fresh.send(request).text)
    with Dispatcher(LlamaCpp(path, isolation="thread")) as d:
        warm = [[d.send(request) for request in requests] for _ in range(2)]

    assert [reply.text for reply in warm[0]] == cold
    assert [reply.text for reply in warm[1]] == cold
    assert any(reply.usage.cached_tokens for reply in warm[1])


def test_what_was_read_before_a_cancel_is_kept(
    slow: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that was abandoned half-way goes on from there, not from the start."""
    decodes = Decodes(monkeypatch)
    kept = []
    for number in range(3):
        prompt = f"{number} is long ago " * 140
        request = Request(prompt=prompt, max_tokens=2, sampling=Sampling(seed=0))
        closed_in_decode(slow.stream(request), decodes, number)
        kept.append(slow.send(request).usage.cached_tokens)

    assert kept == [0, 512, 1024]


def test_an_event_loop_stays_responsive(slow_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model decodes for ten tasks, however long that takes, the loop goes on."""
    decodes = Decodes(monkeypatch)

    async def go() -> None:
        async with AsyncDispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
            await d.load("slow")
            decodes.hold()
            request = Request.of(Request(prompt="Once"), max_tokens=20, temperature=0)
            tasks = [asyncio.create_task(d.send(request)) for _ in range(10)]
            await auntil(lambda: decodes.begun)
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert not any(task.done() for task in tasks)
            decodes.go_on()
            assert all(reply.usage.completion_tokens for reply in await asyncio.gather(*tasks))

    asyncio.run(go())
    assert not decodes.late


def test_waiting_behind_others_is_not_silence(
    slow: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for its turn is told that the engine lives, and does not time out."""
    monkeypatch.setattr(relay, "HEARTBEAT_S", 0.1)
    engine = next(iter(slow._desk._engines.values()))
    ahead = [engine.submit(Request(prompt="Once", max_tokens=4000), "slow") for _ in range(20)]
    silence_s = 3.5

    def clear() -> None:
        until(lambda: slow.stats().in_flight)
        time.sleep(silence_s + 0.5)
        for call in ahead:
            call.cancel()

    stop = threading.Thread(target=clear)
    stop.start()
    began = time.monotonic()

    deadlines = Deadlines(first_token_s=silence_s)
    reply = slow.send("x", max_tokens=1, temperature=0, deadlines=deadlines)

    assert time.monotonic() - began > silence_s, "it waited longer than it would have in silence"
    assert reply.usage.completion_tokens == 1
    stop.join()


def test_progress_of_loading_is_reported(slow_model: Path) -> None:
    """Load progress rises to 1, names the model and comes before the attempt ends."""
    events: list[Event] = []
    with Dispatcher(
        LlamaCpp(slow_model, max_threads=1, isolation="thread"), on_event=events.append
    ) as d:
        d.send("x", max_tokens=1)

    loads = [e for e in events if isinstance(e, LoadProgress)]
    assert loads[-1].fraction == 1
    assert len(loads) > 2
    assert {e.model for e in loads} == {"slow"}


def test_nothing_is_written_to_the_standard_streams(slow_model: Path) -> None:
    """Loading, answering and failing leave file descriptors 1 and 2 untouched."""
    code = f"""
import logging
from llmdispatcher import Dispatcher, LlamaCpp, DispatcherError
with Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1)) as d:
    d.send("x", max_tokens=2)
    stream = d.stream("y " * 500, temperature=0); next(stream); stream.close()
try:
    Dispatcher(LlamaCpp(__import__("llmdispatcher").__file__)).send("x")
except DispatcherError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=LIVE_S
    )

    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_the_log_of_llama_cpp_goes_to_logging(
    isolation: str, slow_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What llama.cpp says while loading can be read through ``logging``, wherever it runs."""
    caplog.set_level("DEBUG", "llmdispatcher.llamacpp")

    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation=isolation)) as d:
        d.send("x", max_tokens=1)

    until(lambda: "llama_context" in caplog.text)  # a thread reads what a worker prints


def test_a_process_ends_cleanly_in_the_middle_of_a_stream(slow_model: Path) -> None:
    """A program that exits while the engine works ends at once and without a crash."""
    code = f"""
from llmdispatcher import Dispatcher, LlamaCpp, Request
said = Request.of(Request(prompt="Once"), temperature=0)
stream = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1)).stream(said)
print(len(next(stream).text) >= 0)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=LIVE_S
    )

    assert (done.stdout, done.stderr) == (b"True\n", b"")
    assert time.monotonic() - began < LIVE_S


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_gets_an_error_not_a_deadlock(slow_model: Path) -> None:
    """Using a loaded model after fork is refused in the child with the way out."""
    code = f"""
import os, sys
from llmdispatcher import Dispatcher, LlamaCpp, EngineCrashed
d = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1))
d.send("x", max_tokens=1)
if os.fork() == 0:
    try:
        d.send("y", max_tokens=1)
    except EngineCrashed as error:
        print(error, flush=True)
    d.close()
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        check=True,
        timeout=LIVE_S,
    )

    assert b"forked" in done.stdout
    assert b"make a new Dispatcher in the child" in done.stdout
    assert done.stdout.endswith(b"\n0\n")


def test_errors_of_files_are_typed_and_fall_over(tmp_path: Path, world: World) -> None:
    """Each bad file has an error of its own, and the next vendor serves."""
    text = tmp_path / "notes.gguf"
    text.write_text("these are my notes", encoding="utf-8")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model(tmp_path / "whole.gguf").read_bytes()[:-100])
    new = tiny_model(tmp_path / "new.gguf", architecture="llama99")
    kinds: dict[Path, type[Exception]] = {
        tmp_path / "missing.gguf": ModelFileMissing,
        tmp_path: ModelFileMissing,
        text: CorruptModel,
        cut: CorruptModel,
        new: UnsupportedArchitecture,
    }
    for path, kind in kinds.items():
        heard = world((LlamaCpp(path, isolation="thread"),), "send", "hi")
        assert type(heard.error) is kind
        assert str(path) in str(heard.error) or "llama99" in str(heard.error)

        saved = world((LlamaCpp(path, isolation="thread"), Scripted("saved")), "send", "hi")
        assert saved.reply is not None
        assert saved.reply.text == "saved"
        assert saved.reply.decision.attempts[0].outcome is Outcome.FAILED


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(slow_model: Path) -> None:
    """max_memory_mb is checked before loading, and the error holds needed, limit and parts."""
    with (
        Dispatcher(LlamaCpp(slow_model, max_memory_mb=8, isolation="thread")) as d,
        pytest.raises(ModelTooLarge) as e,
    ):
        d.send("x")

    assert e.value.limit_bytes == 8 * MIB
    assert e.value.needed_bytes > 8 * MIB
    assert sum(e.value.parts.values()) == e.value.needed_bytes


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(slow_model: Path) -> None:
    """The error says how many tokens there were and how many fit; the engine goes on."""
    with Dispatcher(
        LlamaCpp(slow_model, context_tokens=256, max_threads=1, isolation="thread")
    ) as d:
        with pytest.raises(ContextOverflow) as caught:
            d.send(Request(prompt="x" * 1000))
        assert caught.value.limit_tokens == 256
        assert (caught.value.needed_tokens or 0) > 256
        assert d.send("x", max_tokens=1, temperature=0).usage.completion_tokens == 1


def test_a_model_without_a_template_chats_and_says_so(tmp_path: Path) -> None:
    """A plain format is used and named in the warnings; a template that is given wins."""
    path = tiny_model(tmp_path / "base.gguf", chat_template=None)
    turns = [system("Be brief."), user("Hi"), assistant("Hello"), user("Bye")]

    with Dispatcher(LlamaCpp(path, isolation="thread")) as d:
        plain = d.send(turns, max_tokens=3)
        raw = d.send(Request(prompt="Hi"), max_tokens=3)
    with Dispatcher(
        LlamaCpp(path, chat_template="{{ messages[0].content }}", isolation="thread")
    ) as d:
        given = d.send(turns, max_tokens=3)

    assert plain.warnings == (PLAIN_WARNING,)
    assert (raw.warnings, given.warnings) == ((), ())
    assert given.usage.prompt_tokens < plain.usage.prompt_tokens


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no system role here') }}", "no system role here"),
        ("{% for", "does not compile"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{{ 1 / 0 }}", "refuses"),
    ],
)
def test_a_template_that_refuses_is_an_error_of_its_own(
    slow_model: Path, template: str, told: str
) -> None:
    """What a template objects to reaches the caller as Unsupported, in the template's words."""
    spec = LlamaCpp(slow_model, chat_template=template, isolation="thread")

    with Dispatcher(spec) as d, pytest.raises(Unsupported, match=told):
        d.send("x")


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "😀" * 50, "\u202e", "\x1b[31m", " \n\t "])
def test_odd_prompts_are_prompts(slow_model: Path, text: str) -> None:
    """Empty text, NUL bytes, emoji and control characters are answered like any other."""
    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as d:
        assert d.send(text, max_tokens=3, temperature=0).usage.completion_tokens == 3
        assert (
            d.send(Request(prompt=text), max_tokens=3, temperature=0).usage.completion_tokens == 3
        )


def test_a_bug_in_the_engine_fails_its_calls(slow: Dispatcher) -> None:
    """If the engine's thread dies, whoever waits is told, and the next request loads anew."""
    engine = next(iter(slow._desk._engines.values()))
    calls = [engine.submit(Request(prompt="Once", max_tokens=4000), "slow") for _ in range(8)]
    engine._host._life.inbox.cancelled = None  # type: ignore[attr-defined]

    for call in calls[-2:]:
        with pytest.raises(EngineCrashed, match="a bug in the engine"):
            while True:
                call.receive(WAIT_S)

    assert slow.send("x", max_tokens=1, temperature=0).usage.completion_tokens == 1


def test_a_request_that_meets_a_failing_load_gets_its_error(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has submitted while another thread loads is told when that load fails."""
    engine = LlamaCpp(slow_model, max_threads=1, isolation="thread").start(lambda _: None)
    (card,) = engine.cards()
    failing = threading.Event()

    def load(*_: object) -> Loaded:
        failing.wait(WAIT_S)
        raise ValueError("a bug while loading")

    monkeypatch.setattr(loader, "load", load)
    loading = engine.load(card.model)
    call = engine.submit(Request(prompt="x"), card.model)
    failing.set()

    with pytest.raises(EngineCrashed, match="a bug while loading"):
        call.receive(WAIT_S)
    with pytest.raises(EngineCrashed, match="a bug while loading"):
        loading.result(WAIT_S)
    engine.close()


def test_a_template_that_loops_for_ever_is_refused(slow_model: Path) -> None:
    """Its loops are counted, so that nobody else waits for it; the count begins anew each time."""
    hostile = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"
    turns = [user("hello")] * 3
    kind = "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}"
    with Dispatcher(
        LlamaCpp(slow_model, chat_template=hostile, max_threads=1, isolation="thread")
    ) as d:
        began = time.monotonic()
        with pytest.raises(Unsupported, match="rounds"):
            d.send("x")
        assert time.monotonic() - began < 30
        assert d.send(Request(prompt="x"), max_tokens=1, temperature=0).usage.completion_tokens == 1

    template = ChatTemplate(kind)
    assert template.render(turns) == "1/3False 2/3False 3/3True "


def test_a_cancel_releases_a_consumer_that_was_about_to_be_told(slow: Dispatcher) -> None:
    """Also while what it was to be told is held back for a moment, to wake many together."""
    engine = next(iter(slow._desk._engines.values()))
    others = [engine.submit(Request(prompt=f"{i}", max_tokens=3000), "slow") for i in range(8)]
    took = []
    for index in range(40):
        call = engine.submit(Request(prompt="Once", max_tokens=3000), "slow")
        ended: list[float] = []

        def listen(call: Call = call, ended: list[float] = ended) -> None:
            with contextlib.suppress(Cancelled):
                while True:
                    call.receive(None)
            ended.append(time.monotonic())

        thread = threading.Thread(target=listen)
        thread.start()
        time.sleep(0.002 * (index % 10))
        began = time.monotonic()
        call.cancel()
        thread.join(WAIT_S)
        took.append(ended[0] - began)
    for other in others:
        other.cancel()

    assert max(took) < SOON_S
