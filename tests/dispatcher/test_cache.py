"""Kept replies: the same request is answered at once and for nothing, and nothing else ever is."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from books import read
from waits import WAIT_S, until
from worlds import WORLDS, World

from llmdispatcher import (
    FREE,
    AsyncDispatcher,
    BadReply,
    BadRequest,
    Cache,
    CacheTrouble,
    CallDelta,
    Capability,
    Delta,
    Dispatcher,
    Event,
    FinishReason,
    Ledger,
    LlamaCpp,
    Ollama,
    OpenAICompatible,
    Overloaded,
    Price,
    Reply,
    Request,
    RetryPolicy,
    Scripted,
    StreamInterrupted,
    TokenLogprob,
    Usage,
)
from llmdispatcher.cache_file import ROW_BYTES, CacheFile
from llmdispatcher.models.message import Keepsake
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.contract import Identified
from llmdispatcher.vendors.scripted import ABLE, CUT

DEAR = Price.per_million(1_000_000, 1_000_000)
NATIVE = frozenset({*ABLE, Capability.JSON, Capability.SCHEMA, Capability.TOOLS})
SURE: dict[str, Any] = {"temperature": 0}

Make = Callable[..., Cache]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where replies are kept."""
    return tmp_path / "cache" / "replies.sqlite3"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Make caches that are closed at the end."""
    made: list[Cache] = []

    def one(**options: Any) -> Cache:
        made.append(Cache(path, **options))
        return made[-1]

    yield one
    for cache in made:
        cache.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the look-up as long as a slow machine takes, and whoever writes beside a reader."""
    monkeypatch.setattr("llmdispatcher.cached.LOOK_S", WAIT_S)
    monkeypatch.setattr("llmdispatcher.cache_file.LOCK_WAIT_S", WAIT_S)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads and asyncio."""
    return WORLDS[request.param]


def rows(path: Path) -> int:
    """Count the replies in the file."""
    return int(read(path, "SELECT count(*) FROM replies")[0][0])


def stored(path: Path, count: int) -> None:
    """Wait until so many replies are kept."""
    until(lambda: path.exists() and _has_table(path) and rows(path) == count)


def _has_table(path: Path) -> bool:
    return bool(read(path, "SELECT count(*) FROM sqlite_master WHERE name = 'replies'")[0][0])


# -- hits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["send", "stream"])
def test_the_same_request_is_answered_once(verb: str, world: World, make: Make, path: Path) -> None:
    """The second is as the first was, costs nothing, says how old it is, and asks nobody."""
    script = Scripted(["On", "ce."], ["Twice."], price=DEAR)
    cache = make(wall=lambda: 1_700_000_000.0)
    first = world((script,), "send", "Hello?", cache=cache, **SURE)
    stored(path, 1)
    second = world((script,), verb, "Hello?", cache=cache, **SURE)

    assert first.reply is not None
    assert second.reply is not None
    assert not first.reply.is_cached
    assert second.reply.is_cached
    assert second.reply.text == "Once."
    assert (second.reply.vendor, second.reply.model) == ("scripted", "script")
    assert (first.reply.cost_microusd, second.reply.cost_microusd) != (0, None)
    assert second.reply.cost_microusd == 0
    assert second.reply.usage == first.reply.usage
    assert second.reply.finish_reason is FinishReason.STOP
    assert second.reply.decision.cached_s == 1_700_000_000.0
    assert "from the cache, where it has been since 2023-11-14" in str(second.reply.decision)
    assert second.reply.decision.attempts == ()
    assert second.reply.decision.candidates[0].vendor == "scripted"
    assert second.text == ("Once." if verb == "stream" else "")
    assert (second.stats.requests, second.stats.cached) == (1, 1)
    assert second.stats.total.served == 0


def test_a_request_may_go_past_it(make: Make, path: Path) -> None:
    """Its reply is made anew, and is the one that is found from then on."""
    with Dispatcher(Scripted("a", "b", "c"), cache=make()) as d:
        assert d.send("Hello?", **SURE).text == "a"
        stored(path, 1)
        before = read(path, "SELECT body FROM replies")
        assert d.send("Hello?", cached=False, **SURE).text == "b"
        until(lambda: read(path, "SELECT body FROM replies") != before)
        assert d.send("Hello?", **SURE).text == "b"
        assert d.stats().cached == 1


def test_it_is_off_unless_it_is_asked_for(path: Path) -> None:
    """Without a cache the same request is asked again."""
    with Dispatcher(Scripted("a", "b")) as d:
        assert [d.send("Hello?", **SURE).text for _ in range(2)] == ["a", "b"]
    assert not path.exists()


def test_money_is_counted_once(make: Make, path: Path, tmp_path: Path) -> None:
    """A hit is no row of the ledger, and adds nothing to what is spent."""
    ledger = Ledger(tmp_path / "ledger.db")
    with Dispatcher(Scripted("a", price=DEAR), cache=make(), ledger=ledger) as d:
        paid = d.send("Hello?", **SURE).cost_microusd
        stored(path, 1)
        assert d.send("Hello?", **SURE).is_cached
        assert d.stats().total.cost_microusd == paid
    ledger.close()
    assert read(ledger.path, "SELECT count(*), sum(cost_microusd) FROM attempts") == [(1, paid)]


def test_programs_share_what_is_kept(make: Make, path: Path) -> None:
    """A reply that one program kept another finds; closing stores what waits."""
    one, other = make(), make()
    with Dispatcher(Scripted("a"), cache=one) as d:
        d.send("Hello?", **SURE)
    one.close()
    assert rows(path) == 1
    with Dispatcher(Scripted("a"), cache=other) as d:
        assert d.send("Hello?", **SURE).is_cached


def rich(_: Request) -> Any:
    """Reply with all that a reply may hold."""
    told = TokenLogprob("é", "é".encode(), -0.5, (TokenLogprob("\ufffd", b"\xff", -1.0),))
    return [
        Delta("Hé", 0, (told,), reasoning="Hm."),
        Delta("", 0, tool_calls=(CallDelta(0, "id", "f", '{"a": 1}'), CallDelta(1, "", "g", "{}"))),
        Delta("other", 1, keepsakes=(Keepsake("dialect", "{}"),)),
        Finish(FinishReason.TOOL_CALLS, Usage(prompt_tokens=3), ("odd",), (FinishReason.LENGTH,)),
    ]


def test_all_of_a_reply_comes_back(make: Make, path: Path) -> None:
    """Choices, log-probabilities, thoughts, calls, keepsakes, warnings, and how each ended."""
    # one script plays once for each choice; a Finish ends all
    with Dispatcher(Scripted(rich, capabilities=NATIVE), cache=make()) as d:
        first = d.send("Hello?", n=2, logprobs=1, **SURE)
        stored(path, 1)
        second = d.send("Hello?", n=2, logprobs=1, **SURE)

    assert second.is_cached
    assert (second.choices, second.warnings) == (first.choices, first.warnings)
    assert second.message == first.message
    assert second.choices[1].keepsakes


@attrs.frozen
class Person:
    """Somebody."""

    name: str


def test_what_is_made_of_json_is_made_anew(make: Make, path: Path) -> None:
    """The class of the second request is what it gets, from the text that was kept."""
    script = Scripted('{"name": "Ada"}', "no", capabilities=NATIVE)
    with Dispatcher(script, cache=make()) as d:
        assert d.send("Who?", schema=Person, **SURE).parsed == Person("Ada")
        stored(path, 1)
        again = d.send("Who?", schema=Person, **SURE)

    assert again.is_cached
    assert again.parsed == Person("Ada")


# -- who made it -------------------------------------------------------------------------------


def test_another_who_would_serve_is_asked(make: Make, path: Path) -> None:
    """A kept reply is that of the model that would be asked first, and of no other."""
    dear = Scripted("dear", name="dear", price=DEAR)
    with Dispatcher(dear, cache=make()) as d:
        assert d.send("Hello?", **SURE).text == "dear"
        stored(path, 1)
        d.register_vendor(Scripted("cheap", name="cheap"))
        assert d.send("Hello?", **SURE).text == "cheap"
        assert d.send("Hello?", vendor="dear", **SURE).is_cached


def test_a_cloud_s_reply_is_not_given_where_no_cloud_is_allowed(make: Make, path: Path) -> None:
    """The local model would serve then, and what a cloud said is not its reply."""
    cloud = Scripted("cloud", name="cloud", local=False, price=FREE)
    with Dispatcher(cloud, Scripted("here", name="here", price=DEAR), cache=make()) as d:
        assert d.send("Hello?", **SURE).text == "cloud"
        stored(path, 1)
        assert d.send("Hello?", allow_cloud=False, **SURE).text == "here"
        assert d.send("Hello?", **SURE).is_cached


def test_a_fallback_is_kept_under_who_served(make: Make, path: Path) -> None:
    """The first is asked again the next time: it may be well by then."""
    first = Scripted(Overloaded("busy", status=503), "well", name="first")
    second = Scripted("second", name="second", price=DEAR)
    with Dispatcher(first, second, cache=make(), retry=RetryPolicy(attempts=2, same_target=0)) as d:
        assert d.send("Hello?", **SURE).text == "second"
        stored(path, 1)
        assert d.send("Hello?", **SURE).text == "well"
        assert d.send("Hello?", vendor="second", **SURE).is_cached


def test_a_model_of_another_identity_is_another(tmp_path: Path) -> None:
    """Files that were written anew, other addresses, settings and headers; a name is not enough."""
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")

    def of(spec: Any, model: str = "m") -> str:
        engine = spec.start(lambda _: None)
        try:
            assert isinstance(engine, Identified)
            return engine.identity(model)
        finally:
            engine.close()

    before = of(LlamaCpp(file))
    assert before == of(LlamaCpp(file))
    assert before != of(LlamaCpp(file, cache_type="q8_0"))
    os.utime(file, ns=(1, 1))
    assert before != of(LlamaCpp(file))
    assert not of(LlamaCpp(tmp_path / "missing.gguf"), "missing")
    here = Ollama(models=["m"])
    told = {
        of(here),
        of(attrs.evolve(here, base_url="http://127.0.0.1:9")),
        of(attrs.evolve(here, extra={"a": 1})),
        of(attrs.evolve(here, headers={"x-model": "b"})),
        of(OpenAICompatible(base_url="http://127.0.0.1:11434", models=["m"])),
    }
    assert len(told) == 5


def test_nothing_is_kept_of_a_model_that_cannot_be_told(make: Make, path: Path) -> None:
    """Of an engine without an identity another program might have another model."""
    script = Scripted("a", "b")
    cache = make()
    with Dispatcher(cache=cache) as d:
        engine: Any = d.register_vendor(script)
        engine.identity = lambda _: ""
        assert [d.send("x", vendor="scripted", **SURE).text for _ in range(2)] == ["a", "b"]
    cache.close()
    assert not path.exists()


# -- what is not kept --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, False),
        ({"temperature": 0.7}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.7, "seed": 5}, True),
        ({"seed": 0}, True),
    ],
)
def test_what_is_drawn_at_random_is_kept_only_where_that_is_asked_for(
    options: Any,
    make: Make,
    path: Path,
    *,
    kept: bool,
) -> None:
    """Without a seed, and at a temperature that is not 0, every reply is to be another."""
    for store_sampled in (False, True):
        cache = make(store_sampled=store_sampled)
        with Dispatcher(Scripted("a", "b"), cache=cache) as d:
            d.send(f"Hello {store_sampled}?", **options)
        cache.close()
        assert (path.exists() and rows(path) > 0) is (kept or store_sampled)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (["half", CUT], {}),
        (["he", Finish(FinishReason.UNKNOWN, Usage())], {}),
        (["he", Finish(FinishReason.CONTENT_FILTER, Usage())], {}),
        (Overloaded("busy"), {}),
        ("no JSON", {"schema": {"type": "object"}}),
    ],
    ids=["cut", "unknown", "filtered", "error", "misfit"],
)
def test_what_is_not_whole_is_not_kept(script: Any, options: Any, make: Make, path: Path) -> None:
    """A reply that was cut, filtered, refused or of another form is asked for again."""
    cache = make()
    with Dispatcher(Scripted(script, capabilities=NATIVE), cache=cache) as d:
        for verb in (d.send, lambda *given, **more: list(d.stream(*given, **more))):
            try:
                verb("Hello?", **SURE, **options)
            except (StreamInterrupted, Overloaded, BadReply):
                continue
    cache.close()
    assert not path.exists() or rows(path) == 0


def test_a_reply_of_two_models_is_not_kept(make: Make, path: Path) -> None:
    """Where another went on with what broke off, nobody made all of it."""
    broken = Scripted(["One, ", CUT], name="one")
    going = Scripted("two.", name="two", price=DEAR)
    cache = make()
    with Dispatcher(broken, going, cache=cache, retry=RetryPolicy(same_target=0)) as d:
        assert "".join(p.text for p in d.stream("x", resume="continue", **SURE)) == "One, two."
    cache.close()
    assert rows(path) == 0


def test_one_that_was_left_in_the_middle_is_not_kept(make: Make, path: Path) -> None:
    """Neither by who stops reading, nor where a task is cancelled."""
    cache = make()
    with Dispatcher(Scripted(["a", 0.01, "b"]), cache=cache) as d, d.stream("x", **SURE) as stream:
        next(stream)

    async def main() -> None:
        async with AsyncDispatcher(Scripted(["a", WAIT_S, "b"]), cache=cache) as d:
            task = asyncio.ensure_future(d.send("x", **SURE))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    cache.close()
    assert rows(path) == 0


# -- how long, and how much --------------------------------------------------------------------


def test_what_is_too_old_is_asked_for_again(make: Make, path: Path) -> None:
    """After ttl_s a reply counts no more, and the new one takes its place."""
    now_s = [1000.0]
    with Dispatcher(Scripted("a", "b"), cache=make(ttl_s=60, wall=lambda: now_s[0])) as d:
        d.send("Hello?", **SURE)
        stored(path, 1)
        now_s[0] += 59
        assert d.send("Hello?", **SURE).text == "a"
        now_s[0] += 2
        assert d.send("Hello?", **SURE).text == "b"
        until(lambda: read(path, "SELECT stored_s FROM replies") == [(1061.0,)])


def test_it_is_bounded_by_bytes_and_the_oldest_used_goes_first(path: Path) -> None:
    """However much is put in, the sum holds; what was used lately stays."""
    now_s = [0.0]
    body, most = b"x" * 10_000, 200_000
    file = CacheFile(path, most, None, lambda: now_s[0])
    for number in range(300):
        now_s[0] += 1
        file.put(b"%d" % number, body)
        if number:
            now_s[0] += 0.5
            file.touch(b"0")
        assert read(path, "SELECT bytes FROM sums")[0][0] <= most
    assert file.get(b"0") is not None
    assert file.get(b"299") is not None
    assert file.get(b"100") is None
    sums = read(path, "SELECT sum(size), (SELECT bytes FROM sums) FROM replies")[0]
    assert sums[0] == sums[1] == rows(path) * (len(body) + ROW_BYTES)
    file.put(b"large", b"x" * most)
    assert file.get(b"large") is None
    file.close()
    assert path.stat().st_size < 2 * most


@pytest.mark.parametrize(
    "options", [{"max_mb": 0}, {"max_mb": "1"}, {"ttl_s": -1}, {"ttl_s": True}]
)
def test_bounds_that_cannot_be_are_refused(options: Any) -> None:
    """The error names the argument and what was given."""
    (name,) = options
    with pytest.raises(BadRequest, match=f"{name} is"):
        Cache(**options)
    with pytest.raises(BadRequest, match="cache is 'yes'"):
        Dispatcher(Scripted("x"), cache="yes")  # type: ignore[arg-type]


# -- trouble -----------------------------------------------------------------------------------


def served(cache: Cache, *, times: int = 3) -> tuple[list[Reply], list[CacheTrouble]]:
    """Send the same request some times, and return the replies and what was told."""
    events: list[Event] = []
    with Dispatcher(Scripted("a"), cache=cache, on_event=events.append) as d:
        replies = [d.send("Hello?", **SURE) for _ in range(times)]
    cache.close()
    return replies, [each for each in events if isinstance(each, CacheTrouble)]


def _rubbish(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, and long enough to be read as one" * 100)


def test_a_corrupt_file_is_moved_aside_and_said_once(make: Make, path: Path) -> None:
    """Requests are served, the old file stays under another name, and replies are kept again."""
    _rubbish(path)
    replies, troubles = served(make())

    assert [reply.text for reply in replies] == ["a"] * 3
    assert [trouble.kind for trouble in troubles] == ["corrupt"]
    assert "moved to" in troubles[0].detail
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1
    assert rows(path) == 1


def _folder_in_the_way(path: Path) -> None:
    path.parent.write_text("in the way")


def _theirs(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def _newer(path: Path) -> None:
    CacheFile(path, 10**6, None, lambda: 0.0).put(b"k", b"v")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(_folder_in_the_way, "read-only"), (_theirs, "unusable"), (_newer, "newer")],
)
def test_a_file_that_cannot_be_used_is_left_alone(
    spoil: Callable[[Path], None], kind: str, make: Make, path: Path
) -> None:
    """Requests are served as without a cache, and one event says why."""
    spoil(path)
    replies, troubles = served(make())

    assert [reply.text for reply in replies] == ["a"] * 3
    assert [trouble.kind for trouble in troubles] == [kind]
    if spoil is _theirs:
        assert read(path, "SELECT name FROM sqlite_master") == [("theirs",)]


def test_one_that_another_holds_is_not_waited_for_long(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that cannot be stored in time is not kept; the request is served."""
    monkeypatch.setattr("llmdispatcher.cache_file.LOCK_WAIT_S", 0.5)
    CacheFile(path, 10**6, None, lambda: 0.0).put(b"k", b"v")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        replies, troubles = served(make(), times=1)
    finally:
        holder.close()

    assert replies[0].text == "a"
    assert [trouble.kind for trouble in troubles] == ["locked"]


LEFT_OPEN = """
    import sys
    import llmdispatcher.cached
    from llmdispatcher import Cache, Dispatcher, Scripted

    llmdispatcher.cached.LOOK_S = 60
    d = Dispatcher(Scripted("made"), cache=Cache(sys.argv[1]))
    print(d.send("hi", temperature=0).is_cached)
"""


def test_a_program_that_closes_nothing_ends_in_silence(path: Path) -> None:
    """What was to be kept is kept for its next life, and nothing is said at the end."""
    ends = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(LEFT_OPEN), str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(2)
    ]

    assert [end.stdout.strip() for end in ends] == ["False", "True"]
    assert [end.stderr for end in ends] == ["", ""]
    assert not path.with_name(f"{path.name}-wal").exists()


FULL = """
    import resource, sys
    from llmdispatcher import Cache, Dispatcher, Scripted

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    events = []
    cache = Cache(sys.argv[1])
    with Dispatcher(Scripted("x" * 100_000), cache=cache, on_event=events.append) as d:
        d.send("first", temperature=0)
        while not d.send("first", temperature=0).is_cached:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        texts = {len(d.send(f"{n}", temperature=0).text) for n in range(10)}
        cache.close()
    kinds = [type(e).__name__ + " " + e.kind for e in events if hasattr(e, "kind")]
    print(texts, kinds)
"""


def test_a_full_disk_is_an_event_and_no_failure(path: Path) -> None:
    """Where no file may grow, every request is served, and the trouble is told once."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FULL), str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert done.stdout.strip() == "{100000} ['CacheTrouble full']", done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_row_that_somebody_changed_is_not_believed(make: Make, path: Path) -> None:
    """What is no reply, or not of the form asked for, is asked for anew."""
    script = Scripted('{"name": "Ada"}', '{"name": "Bob"}', '{"name": "Cid"}', capabilities=NATIVE)
    with Dispatcher(script, cache=make()) as d:
        d.send("Who?", schema=Person, **SURE)
        stored(path, 1)
        body = json.loads(read(path, "SELECT body FROM replies")[0][0])
        for spoilt in (b"{}", b"\xff", b"[" * 10_000, json.dumps(body).replace("name", "nome")):
            connection = sqlite3.connect(path)
            connection.execute("UPDATE replies SET body = ?", (spoilt,))
            connection.commit()
            connection.close()
            reply = d.send("Who?", schema=Person, **SURE)
            assert not reply.is_cached
            until(partial(_is_kept, path, reply))


def _is_kept(path: Path, reply: Reply) -> bool:
    told = read(path, "SELECT body FROM replies")[0][0]
    name = json.loads(reply.text)["name"]
    return name.encode() in (told if isinstance(told, bytes) else told.encode())


# -- beside others -----------------------------------------------------------------------------

WRITER = """
    import sys
    from llmdispatcher import Cache, Dispatcher, Scripted

    cache = Cache(sys.argv[1], max_mb=0.2)
    script = Scripted(lambda request: request.messages[-1].text * 50)
    with Dispatcher(script, cache=cache) as d:
        for n in range(int(sys.argv[2])):
            text = f"question {n % 17} "
            assert d.send(text, temperature=0).text == text * 50
    cache.close()
"""


@pytest.mark.parametrize(
    ("rounds", "others"), [(20, 1), pytest.param(400, 4, marks=pytest.mark.soak)]
)
def test_processes_and_threads_use_one_file(path: Path, rounds: int, others: int) -> None:
    """Nobody ever gets another's reply, the bound holds, and the file is sound."""
    words = [sys.executable, "-W", "error", "-c", textwrap.dedent(WRITER), str(path), str(rounds)]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(others)]
    wrong: list[str] = []
    cache = Cache(path, max_mb=0.2)

    def ask(d: Dispatcher, mine: int) -> None:
        for n in range(rounds):
            text = f"{mine} {n % 7} "
            reply = d.send(text, **SURE).text
            if reply != text * 50:
                wrong.append(reply)

    with Dispatcher(Scripted(lambda r: r.messages[-1].text * 50), cache=cache) as d:
        threads = [threading.Thread(target=ask, args=(d, mine)) for mine in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert d.stats().cached
    cache.close()
    assert [process.communicate()[1] for process in running] == [""] * others
    assert not wrong
    assert read(path, "PRAGMA integrity_check") == [("ok",)]
    told, summed = read(path, "SELECT (SELECT bytes FROM sums), sum(size) FROM replies")[0]
    assert told == summed <= 0.2 * 2**20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_has_a_thread_and_a_connection_of_its_own(make: Make, path: Path) -> None:
    """The parent's are left alone, and both find what is kept."""
    cache = make()
    with Dispatcher(Scripted("a"), cache=cache) as d:
        d.send("Hello?", **SURE)
        stored(path, 1)
    child = os.fork()
    if not child:
        found = False
        try:
            with Dispatcher(Scripted("a"), cache=cache) as d:
                found = d.send("Hello?", **SURE).is_cached
        finally:  # whatever is raised: the child goes on with no tests
            os._exit(0 if found else 1)
    assert os.waitpid(child, 0)[1] == 0
    with Dispatcher(Scripted("a"), cache=cache) as d:
        assert d.send("Hello?", **SURE).is_cached


def test_a_cache_that_was_closed_finds_and_keeps_nothing(make: Make) -> None:
    """Requests go on as without one."""
    cache = make()
    cache.close()
    with Dispatcher(Scripted("a", "b"), cache=cache) as d:
        assert [d.send("x", **SURE).text for _ in range(2)] == ["a", "b"]
    cache.close()


def test_the_file_is_its_owners_alone(make: Make, path: Path) -> None:
    """It holds what models said."""
    cache = make()
    with Dispatcher(Scripted("a"), cache=cache) as d:
        d.send("Hello?", **SURE)
    cache.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert b"Hello?" not in path.read_bytes()
