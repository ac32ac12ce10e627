"""Requests that would end the process, or everybody's engine, if llama.cpp got them as they are."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_gguf import tiny_model
from waits import SOON_S, HeldLoad, until

from llmdispatcher import (
    BadRequest,
    ContextOverflow,
    Dispatcher,
    Event,
    LlamaCpp,
    LoadProgress,
    Message,
    Refused,
    Request,
    Sampling,
    Scripted,
    ToolCall,
    Unsupported,
    user,
)
from llmdispatcher.models.message import Role
from llmdispatcher.vendors.llamacpp.binding import library
from llmdispatcher.vendors.llamacpp.binding.vocabulary import MAX_RUN


@pytest.fixture(scope="module")
def recursive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vocabulary llama.cpp splits with a recursive regular expression."""
    bytes_in_order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in bytes_in_order]
    letters += [chr(256 + n) for n in range(256 - len(bytes_in_order))]
    return tiny_model(
        tmp_path_factory.mktemp("m") / "recursive.gguf",
        vocab=300,
        context=4096,
        metadata={
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "deepseek-llm",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *letters, *map(str, range(100, 141))],
            "tokenizer.ggml.token_type": [3, 3, 3, *[1] * 297],
            "tokenizer.ggml.merges": ["a a", "b b"],
        },
    )


@pytest.fixture
def d(slow_model: Path) -> Iterator[Dispatcher]:
    """A dispatcher of one model."""
    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread")) as made:
        yield made


def test_a_long_run_of_one_character_does_not_overflow_the_stack(recursive: Path) -> None:
    """Where llama.cpp would recur for each character, long runs are read, and longer ones refused.

    In a process of its own, since the failure is its end.
    """
    code = f"""
from llmdispatcher import BadRequest, ContextOverflow, Dispatcher, LlamaCpp, Request
with Dispatcher(LlamaCpp({str(recursive)!r})) as d:
    for count, kind in [({MAX_RUN}, ContextOverflow), ({MAX_RUN} + 1, BadRequest)]:
        for text in ("a" * count, " " * count, "7" * count):
            try:
                d.send(Request(prompt=text), max_tokens=1)
            except (ContextOverflow, BadRequest) as error:
                assert isinstance(error, (kind, ContextOverflow)), error
    assert d.send(Request(prompt="aa"), max_tokens=2, temperature=0).usage.completion_tokens
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )

    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_prompt_of_ten_megabytes_is_refused_without_being_read(
    d: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot fit, were every token the longest, is refused at once with a lower bound."""
    d.send("x", max_tokens=1)
    read: list[int] = []
    real = library.lib.llama_tokenize

    def tokenize(vocabulary: object, text: bytes, size: int, *rest: object) -> object:
        read.append(size)
        return real(vocabulary, text, size, *rest)

    monkeypatch.setattr(library.lib, "llama_tokenize", tokenize)

    with pytest.raises(ContextOverflow) as caught:
        d.send("word " * 2_000_000)

    assert (caught.value.needed_tokens or 0) > (caught.value.limit_tokens or 0) == 4096
    assert max(read, default=0) < 100_000
    d.send("x", max_tokens=1)
    assert read


def test_a_run_without_a_space_is_refused_with_the_way_out(d: Dispatcher) -> None:
    """The error says how long the run is and how long it may be."""
    spaced = ("a" * MAX_RUN + " ") * 2
    with pytest.raises((BadRequest, ContextOverflow)):
        d.send(Request(prompt="a" * (MAX_RUN + 1)))
    with pytest.raises(ContextOverflow):
        d.send(Request(prompt=spaced))


def test_the_window_of_penalties_is_no_longer_than_the_context(d: Dispatcher) -> None:
    """llama.cpp allocates the window as it is asked for, and ends the process if it cannot."""
    sampling = Sampling(repeat_penalty=1.1, repeat_last_n=2**31 - 1, temperature=0, seed=0)
    most = Sampling(repeat_penalty=1.1, repeat_last_n=4096, temperature=0, seed=0)

    texts = [
        d.send(Request(prompt="a b a b", max_tokens=20, sampling=s)).text for s in (sampling, most)
    ]

    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        (None, json.dumps({"x": "\ud800"})),
        ("{{ messages[0].content }}{{ '\\ud800' }}", "{}"),
        ("{{ raise_exception('no') }}", "{}"),
    ],
)
def test_what_one_request_runs_into_is_its_own_error(
    slow_model: Path, template: str | None, arguments: str
) -> None:
    """A request whose text has no UTF-8 form fails alone: others are served, without a reload."""
    events: list[Event] = []
    template = template or "{{ messages[0].tool_calls[0].function.arguments.x }}"
    spec = LlamaCpp(slow_model, max_threads=1, chat_template=template, isolation="thread")
    bad = [Message(Role.ASSISTANT, "", [ToolCall("1", "f", arguments)])]
    with Dispatcher(spec, on_event=events.append) as d:
        for _ in range(3):
            with pytest.raises(Unsupported):
                d.send(bad)
        assert d.send(Request(prompt="x"), max_tokens=2, temperature=0).usage.completion_tokens == 2

    assert sum(isinstance(e, LoadProgress) and e.fraction == 1 for e in events) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{% set n = messages|length + 8 %}{{ n ** (n ** n) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'x' * 6000000000 }}",
        "{{ [0] * 900000000 }}",
        "{{ 10000000000 * 10000000000 }}",
        "{{ cycler('a') }}",
    ],
)
def test_a_template_cannot_freeze_the_program(slow_model: Path, template: str) -> None:
    """One operation that would hold the interpreter for seconds is refused before it begins."""
    began = time.monotonic()

    spec = LlamaCpp(slow_model, chat_template=template, isolation="thread")
    with Dispatcher(spec) as d, pytest.raises(Unsupported):
        d.send("x")

    assert time.monotonic() - began < SOON_S


def test_templates_still_count_and_repeat(slow_model: Path) -> None:
    """What templates really do with these operators works."""
    template = "{{ '-' * 40 }}{{ 7 % 2 }}{{ 3 * messages|length }}"
    with Dispatcher(LlamaCpp(slow_model, chat_template=template, isolation="thread")) as d:
        assert d.send("x", max_tokens=1, temperature=0).usage.prompt_tokens >= 3


def test_requests_that_gave_up_while_loading_are_forgotten() -> None:
    """A load that goes on keeps nothing of those who do not wait for it any more."""
    with Dispatcher(HeldLoad(Scripted("ok"))) as d:
        gone = []
        for _ in range(10):
            request = Request.of([user("x" * 1000)])
            gone.append(weakref.ref(request.messages[0].content[0]))
            stream = d.stream(request)
            closing = threading.Timer(0.02, stream.close)
            closing.start()
            assert list(stream) == []
            closing.join()  # until then it holds the stream
            del request, stream, closing
        gc.collect()

        assert [ref() for ref in gone] == [None] * 10


def test_a_listener_that_knows_the_dispatcher_does_not_keep_it(slow_model: Path) -> None:
    """A program whose listener refers to its dispatcher can drop both."""

    class Program:
        def __init__(self) -> None:
            self.d = Dispatcher(
                LlamaCpp(slow_model, max_threads=1, isolation="thread"), on_event=self.hear
            )

        def hear(self, event: Event) -> None:
            """Listen."""

    before = threading.active_count()
    program = Program()
    program.d.send("x", max_tokens=1)
    assert threading.active_count() > before

    del program
    until(lambda: gc.collect() >= 0 and threading.active_count() <= before)


def test_asking_the_model_that_reports_is_refused(slow_model: Path) -> None:
    """on_event of a load runs in the engine's thread, which cannot wait for itself."""
    errors: list[Exception] = []
    made: list[Dispatcher] = []

    def ask(event: Event) -> None:
        if isinstance(event, LoadProgress) and not errors:
            try:
                made[0].send("x", max_tokens=1)
            except Refused as error:
                errors.append(error)

    with Dispatcher(LlamaCpp(slow_model, max_threads=1, isolation="thread"), on_event=ask) as d:
        made.append(d)
        assert d.send("x", max_tokens=1, temperature=0).usage.completion_tokens == 1

    assert "must not ask the model that reports to it" in str(errors[0])


@pytest.mark.parametrize("after_s", [0.03, 0.001, 0.01, 0.06, 0.1, 0.2, 0.4])
@pytest.mark.sampled(3)
def test_closing_in_a_signal_handler_ends_a_load(slow_model: Path, after_s: float) -> None:
    """A handler that closes the dispatcher, at whatever moment of the first request, returns."""
    code = f"""
import os, signal, sys
from llmdispatcher import Dispatcher, DispatcherError, LlamaCpp
d = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1))
def handler(*_):
    d.close()
    print("closed", flush=True)
    os._exit(0)  # an exception may be lost in an import that was interrupted
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
try:
    while True:
        d.send("x", max_tokens=50)
except DispatcherError:
    signal.pause()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(after_s)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_forked_while_loading_is_refused(slow_model: Path) -> None:
    """A child that inherits a load which nobody carries on is told so, and does not wait for it."""
    code = f"""
import os, sys, threading
from llmdispatcher import Dispatcher, EngineCrashed, LlamaCpp, LoadProgress
loading, forked = threading.Event(), threading.Event()
def hear(event):
    if isinstance(event, LoadProgress):
        loading.set()
        forked.wait(90)
d = Dispatcher(LlamaCpp({str(slow_model)!r}, max_threads=1), on_event=hear)
engine = next(iter(d._desk._engines.values()))
future = engine.load("slow")
loading.wait(90)
child = os.fork()
if child == 0:
    try:
        d.send("y", max_tokens=1)
    except EngineCrashed as error:
        print(error, flush=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
forked.set()
future.result(90)
d.close()
print(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "make a new Dispatcher in the child" in done.stdout
    assert done.stdout.endswith("\n0\n")
