"""A configuration is reloaded whole or not at all, and nobody who is being served notices."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from loopback import Answer, Got, Loopback
from tiny_gguf import tiny_model
from waits import WAIT_S, until

from llmdispatcher import (
    BudgetExceeded,
    ConfigError,
    ConfigRefused,
    ConfigReloaded,
    Dispatcher,
    Event,
    LimitReached,
    LoadProgress,
    Overloaded,
    Scripted,
)
from llmdispatcher.config.source import Source
from llmdispatcher.config.watcher import Watcher
from llmdispatcher.desk import Desk
from llmdispatcher.models.errors import Problem
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.contract import Engine, Report, State
from llmdispatcher.vendors.scripted import ScriptedEngine


class Stage:
    """Scripted vendors of a test, which a file names by a word that changes what they are."""

    def __init__(self) -> None:
        self.engines: list[tuple[str, ScriptedEngine]] = []
        self.go_on = threading.Event()
        self.loads = 0

    def vendor(self, *, name: str = "stage", word: str = "", fails: bool = False) -> Part:
        """Make a spec; two of the same arguments are equal."""
        return Part(name, word, fails, self)

    def engine(self, word: str) -> ScriptedEngine:
        """Return the engine that was started for a word, the last one."""
        return next(engine for said, engine in reversed(self.engines) if said == word)


@attrs.frozen
class Part:
    """A vendor that says its word, or holds its reply until the test says so."""

    name: str
    word: str
    fails: bool
    stage: Stage = attrs.field(eq=False)

    def start(self, report: Report) -> ScriptedEngine:
        """Make the engine, and let the test find it."""
        engine = ScriptedEngine(Scripted(self._reply, name=self.name), report)
        self.stage.engines.append((self.word, engine))
        return engine

    def _reply(self, request: Any) -> Any:
        if self.fails:
            return Overloaded("full")
        return self._slowly() if "slowly" in request.messages[0].text else self.word

    def _slowly(self) -> Iterator[str | float]:
        yield f"{self.word} "
        while not self.stage.go_on.is_set():
            yield 0.005
        yield "whole"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Offer the vendor as an installed package would."""
    made = Stage()
    find = discovery.find

    def found(name: str) -> Callable[..., Any]:
        return made.vendor if name == "stage" else find(name)

    from llmdispatcher.config import specs  # noqa: PLC0415 - to be changed for this test alone

    specs._installed.cache_clear()
    names = (*discovery.names(), "stage")
    monkeypatch.setattr(specs, "_names", lambda: names)
    monkeypatch.setattr(discovery, "find", found)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a file."""
    return tmp_path / "llmdispatcher.yaml"


def one(word: str, name: str = "a", more: str = "") -> str:
    """Write a file that has one vendor, which says a word."""
    return f"vendors:\n  {name}: {{type: stage, word: {word}}}\n{more}"


def is_closed(engine: Engine) -> bool:
    """Whether an engine has ended."""
    return engine.status().state is State.CLOSED


def test_what_is_sent_from_now_on_goes_by_the_new_file(stage: Stage, file: Path) -> None:
    """Vendors that are gone close, those that changed are started anew, equal ones stay."""
    text = "vendors:\n  a: {{type: stage, word: {}}}\n  b: {{type: stage, word: b}}\n"
    file.write_text(text.format("one") + "  c: {type: stage, word: c}\n")
    events: list[Event] = []
    with Dispatcher.from_config(file, on_event=events.append) as d:
        assert d.send("Hi", vendor="a").text == "one"
        old, kept, gone = (stage.engine(word) for word in ("one", "b", "c"))
        file.write_text(text.format("two") + "  d: {type: stage, word: d}\n")

        event = d.reload()

        assert event == ConfigReloaded(
            file=str(file), started=("a", "d"), kept=("b",), closed=("a", "c")
        )
        assert events[-1] == event
        assert [vendor.name for vendor in d.vendors()] == ["a", "b", "d"]
        assert d.send("Hi", vendor="a").text == "two"
        until(lambda: is_closed(old) and is_closed(gone))
        assert not is_closed(kept)
        assert stage.engine("b") is kept


def test_a_request_under_way_ends_as_it_began(stage: Stage, file: Path) -> None:
    """It is served by the vendor it began with, which closes only then."""
    file.write_text(one("old"))
    with Dispatcher.from_config(file) as d:
        with d.stream("slowly") as stream:
            assert next(stream).text == "old "
            old = stage.engine("old")
            file.write_text(one("new"))
            d.reload()
            assert d.send("Hi").text == "new"
            assert not is_closed(old)
            stage.go_on.set()
            assert "".join(delta.text for delta in stream) == "whole"
        until(lambda: is_closed(old))


def test_a_request_falls_back_to_those_it_began_with(stage: Stage, file: Path) -> None:
    """Also to one that is gone from the file by the time that it is needed."""
    vendors = """
vendors:
  a: {{type: stage, word: {word}, fails: true}}
  b: {{type: stage, word: {word}}}
strategy: priority
"""
    file.write_text(vendors.format(word="old"))
    gate, seen = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        if type(event).__name__ == "Fallback":
            seen.set()
            gate.wait(WAIT_S)

    with Dispatcher.from_config(file, on_event=hold) as d:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(d.send("Hi").text))
        thread.start()
        assert seen.wait(WAIT_S)
        file.write_text(one("new", name="c"))
        d.reload()
        gate.set()
        thread.join(WAIT_S)

        assert said == ["old"]
        assert [vendor.name for vendor in d.vendors()] == ["c"]
        until(lambda: all(is_closed(engine) for word, engine in stage.engines if word == "old"))


def test_a_stream_that_was_not_begun_goes_by_the_new_file(stage: Stage, file: Path) -> None:
    """It has asked nobody yet, so that nobody needs to stay for it."""
    file.write_text(one("old"))
    with Dispatcher.from_config(file) as d:
        stream = d.stream("Hi")
        file.write_text(one("new"))
        d.reload()
        until(lambda: is_closed(stage.engine("old")))

        assert "".join(delta.text for delta in stream) == "new"


@pytest.mark.parametrize(
    "broken",
    [
        "vendors: {a: {type: stage, wrod: two}}",
        "vendors: {a: {type: stage, word: two}}\nretry: {attempts: 0}",
        "vendors: {a: {type: stage, word: two}, b: {type: openai-compatible}}",
        "vendors: {a: {type: stage, word: two}}\noffline: true",
        "",
        "\t",
        None,
    ],
)
def test_a_file_that_is_wrong_changes_nothing(stage: Stage, file: Path, broken: str | None) -> None:
    """The old configuration holds, all of it; the listener and the caller get every problem."""
    file.write_text(one("one", more="retry: {attempts: 3}"))
    events: list[Event] = []
    with Dispatcher.from_config(file, on_event=events.append) as d:
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        with pytest.raises(ConfigError) as raised:
            d.reload()

        refused = events[-1]
        assert isinstance(refused, ConfigRefused)
        assert refused == ConfigRefused(file=str(file), problems=raised.value.problems)
        assert d.send("Hi").text == "one"
        assert not is_closed(stage.engine("one"))
        file.write_text(one("two"))
        d.reload()
        assert d.send("Hi").text == "two"


def test_a_vendor_that_cannot_start_leaves_no_other_started(
    stage: Stage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was started for a reload that failed is closed again."""
    file.write_text(one("one"))
    with Dispatcher.from_config(file) as d:
        file.write_text("vendors: {a: {type: stage, word: two}, b: {type: stage, word: bad}}")
        start = Desk.start

        def starts(desk: Desk, spec: Any) -> Engine:
            if spec.name == "b":
                raise ConfigError([Problem("cannot be", "vendor 'b'")])
            return start(desk, spec)

        monkeypatch.setattr(Desk, "start", starts)
        with pytest.raises(ConfigError, match=r"yaml:1:40: vendors.b: cannot be"):
            d.reload()

        assert is_closed(stage.engine("two"))
        assert d.send("Hi").text == "one"


def test_policies_change_with_the_file(stage: Stage, file: Path) -> None:
    """Deadlines, limits and prices of the new file hold for the next request."""
    file.write_text(one("one"))
    with Dispatcher.from_config(file) as d:
        assert d.send("Hi").cost_microusd == 0
        file.write_text(
            one(
                "one",
                more="deadlines: {total_s: 99}\n"
                "limits: {a: {requests_per_day: 1, burst: 1, waits: false}}\n"
                "catalog: {models: {a/*: {price: {input: 1, output: 2}}}}\n",
            )
        )
        assert d.reload().kept == ("a",)

        reply = d.send("one two three")

        assert reply.cost_microusd
        assert stage.engine("one").requests[-1].deadlines.total_s == pytest.approx(99, abs=20)  # type: ignore[union-attr]
        with pytest.raises(LimitReached):
            d.send("Hi")


def test_limits_that_stay_remember(stage: Stage, file: Path) -> None:
    """Reloading is no way around a limit that did not change."""
    limits = "limits: {a: {requests_per_day: 2, waits: false}}\n"
    file.write_text(one("one", more=limits))
    with Dispatcher.from_config(file) as d:
        d.send("Hi")
        d.send("Hi")
        file.write_text(one("two", more=limits + "strategy: latency\n"))
        d.reload()

        with pytest.raises(LimitReached):
            d.send("Hi")


def test_budgets_are_spent_across_reloads(stage: Stage, file: Path) -> None:
    """What was spent stays spent, also where the budget changes."""
    more = (
        "catalog: {{models: {{a/*: {{price: {{input: 0, output: 1000000}}}}}}}}\n"
        "ledger: books.db\nbudgets: [{{usd: {usd}, period: ever}}]\n"
    )
    file.write_text(one("one", more=more.format(usd=100)))
    with Dispatcher.from_config(file) as d:
        assert d.send("Hi", max_tokens=1).cost_microusd == 1_000_000
        file.write_text(one("two", more=more.format(usd="1.5")))
        d.reload()

        with pytest.raises(BudgetExceeded):
            d.send("Hi", max_tokens=1)


def test_a_cache_comes_and_goes_with_the_file(
    stage: Stage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one is said, the same question is answered from it; it outlives other changes."""
    monkeypatch.setattr("llmdispatcher.cached.LOOK_S", WAIT_S)  # a disk may be slow
    file.write_text(one("one"))
    with Dispatcher.from_config(file) as d:
        d.send("Hi", temperature=0)
        engine = stage.engine("one")

        def is_asked() -> bool:
            """Whether the vendor is asked for what it was asked before."""
            count = len(engine.requests)
            assert d.send("Hi", temperature=0).text == "one"
            return len(engine.requests) > count

        assert is_asked()
        file.write_text(one("one", more="cache: replies.db\n"))
        d.reload()
        until(lambda: not is_asked())
        file.write_text(one("one", more="cache: replies.db\ndeadlines: {idle_s: 5}\n"))
        d.reload()
        assert not is_asked()
        file.write_text(one("one"))
        d.reload()
        assert is_asked()


def test_vendors_that_the_program_registered_stay(stage: Stage, file: Path) -> None:
    """They are the program's; a file that wants one of their names is refused."""
    file.write_text(one("one"))
    with Dispatcher.from_config(file) as d:
        d.register_vendor(Scripted("mine", name="mine"))
        file.write_text(one("two"))
        d.reload()
        assert d.send("Hi", vendor="mine").text == "mine"
        file.write_text(one("three", name="mine"))
        with pytest.raises(ConfigError, match="the program has registered"):
            d.reload()
        assert d.send("Hi", vendor="a").text == "two"


def test_a_dispatcher_without_a_file_has_nothing_to_reload() -> None:
    """It says how to get one that has."""
    with Dispatcher(Scripted("x")) as d, pytest.raises(ConfigError, match="from_config"):
        d.reload()


def test_closing_ends_what_was_replaced_too(stage: Stage, file: Path) -> None:
    """A request that hangs keeps an old vendor only as long as the dispatcher is open."""
    file.write_text(one("old"))
    d = Dispatcher.from_config(file)
    stream = d.stream("slowly")
    next(stream)
    file.write_text(one("new"))
    d.reload()
    assert not is_closed(stage.engine("old"))

    d.close()

    assert is_closed(stage.engine("old"))
    assert is_closed(stage.engine("new"))
    stream.close()


def test_under_traffic_no_request_fails(stage: Stage, file: Path) -> None:
    """Many threads ask while the file changes again and again; each is served by one era."""
    file.write_text(one("0"))
    with Dispatcher.from_config(file) as d:
        failures: list[BaseException] = []
        texts: set[str] = set()
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                try:
                    texts.add(d.send("Hi").text)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it must not be
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(1, 20):
                file.write_text(one(str(number), more=f"retry: {{attempts: {number}}}\n"))
                d.reload()
            until(lambda: "19" in texts or failures)
        finally:  # or they would ask for ever
            over.set()
            for thread in threads:
                thread.join()

        assert not failures
        assert texts <= {str(number) for number in range(20)}
        last = stage.engine("19")
        until(lambda: all(is_closed(each) for _, each in stage.engines if each is not last))


def test_a_model_that_is_loaded_is_not_loaded_again(file: Path, tmp_path: Path) -> None:
    """Of real models: one whose table is as before stays in memory, one that changed does not."""
    tiny_model(tmp_path / "m.gguf", vocab=600, context=512)
    text = "vendors: {{m: {{type: llamacpp, model_path: m.gguf, isolation: thread{}}}}}\n"
    file.write_text(text.format(""))
    loads: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, LoadProgress) and event.fraction == 1:
            loads.append(event.model)

    with Dispatcher.from_config(file, on_event=hear) as d:
        first = d.send("Hi", max_tokens=4, temperature=0).text
        file.write_text(text.format("") + "strategy: latency\nmax_memory_mb: 4096\n")
        assert d.reload().kept == ("m",)
        assert d.send("Hi", max_tokens=4, temperature=0).text == first
        assert loads == ["m"]

        file.write_text(text.format(", max_threads: 1") + "max_memory_mb: 4096\n")
        assert d.reload().started == ("m",)
        assert d.send("Hi", max_tokens=4, temperature=0).text == first
        assert loads == ["m", "m"]


def test_a_vendor_over_http_moves_with_its_address(file: Path) -> None:
    """The next request goes to the new server, on a connection of its own."""

    def saying(word: str) -> Callable[[Got], Answer]:
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": word}}
        return lambda _: Answer.json({"choices": [choice], "usage": {}})

    text = "vendors: {{s: {{type: openai-compatible, base_url: '{}', models: [m]}}}}"
    with Loopback(saying("one")) as one_, Loopback(saying("two")) as two_:
        file.write_text(text.format(one_.url))
        with Dispatcher.from_config(file) as d:
            assert d.send("Hi").text == "one"
            file.write_text(text.format(two_.url))
            d.reload()
            assert d.send("Hi").text == "two"


# -- watching ----------------------------------------------------------------------------------


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than once a second."""
    begin = Watcher.__init__

    def quick(self: Watcher, source: Source) -> None:
        begin(self, source, poll_s=0.1)

    monkeypatch.setattr(Watcher, "__init__", quick)


def write_over(file: Path, text: str) -> None:
    """Write longer text over a file in one go, so that nobody finds it half written.

    Nor unchanged: the clock of a file system may not tell two moments apart, but sizes differ.
    """
    with file.open("r+b", buffering=0) as opened:
        opened.write(text.ljust(file.stat().st_size + 1).encode())


@pytest.mark.usefixtures("_quick")
def test_a_file_that_is_watched_is_reloaded_when_it_changes(stage: Stage, file: Path) -> None:
    """Written over, or replaced as editors do; a broken one is told once, and a good one heals."""
    file.write_text(one("one"))
    events: list[Event] = []

    def told(kind: type) -> list[Event]:
        return [event for event in events if isinstance(event, kind)]

    with Dispatcher.from_config(file, watch=True, on_event=events.append) as d:
        write_over(file, one("two"))
        until(lambda: len(told(ConfigReloaded)) == 1)
        assert d.send("Hi").text == "two"
        write_over(file, "vendors: [")
        until(lambda: len(told(ConfigRefused)) == 1)
        assert d.send("Hi").text == "two"
        other = file.with_suffix(".new")
        other.write_text(one("three"))
        other.replace(file)
        until(lambda: len(told(ConfigReloaded)) == 2)
        assert d.send("Hi").text == "three"
        assert len(told(ConfigRefused)) == 1


@pytest.mark.usefixtures("_quick")
def test_a_watcher_ends_with_its_dispatcher(stage: Stage, file: Path) -> None:
    """Closed or forgotten, it leaves no thread; the tests' own fixture looks for them."""
    file.write_text(one("one"))
    with Dispatcher.from_config(file, watch=True) as d:
        assert d.send("Hi").text == "one"
    forgotten = Dispatcher.from_config(file, watch=True)
    forgotten.send("Hi")
    del forgotten
    gc.collect()


def test_asking_reads_the_file_again_though_it_did_not_change(stage: Stage, file: Path) -> None:
    """As a signal does; whoever asks does not wait."""
    file.write_text(one("one"))
    events: list[Event] = []
    with Dispatcher.from_config(file, watch=True, on_event=events.append) as d:
        assert d._source is not None
        d._source.watch().ask()
        until(lambda: any(isinstance(event, ConfigReloaded) for event in events))
        assert d.send("Hi").text == "one"
