"""Specs of HTTP vendors: what is taken, what is refused, and where keys go."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Iterator
from typing import Any

import attrs
import httpx2
import pytest
from loopback import Answer, Got, Loopback
from speaking_openai import SHORTEST
from talkative import shown

from llmdispatcher import (
    VLLM,
    Anthropic,
    AsyncDispatcher,
    BadRequest,
    ConfigError,
    Deadlines,
    DeepSeek,
    Dispatcher,
    Gemini,
    Groq,
    HttpVendor,
    LiteLLM,
    LlamaServer,
    Mistral,
    NoCandidate,
    Ollama,
    OpenAI,
    OpenAICompatible,
    OpenRouter,
    Secret,
    TimedOut,
    Together,
    Unreachable,
)
from llmdispatcher.models.errors import AuthRejected, DispatcherError
from llmdispatcher.vendors.contract import State
from llmdispatcher.vendors.http.engine import HttpEngine

KEY = "zq-geheim-0123456789"
ENV = "sk-environment-0123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without keys and proxies."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """An OpenAI server."""

    def handle(got: Got) -> Answer:
        if got.path.endswith("/models"):
            return Answer.json({"data": [{"id": "m"}]})
        return Answer.json(SHORTEST)

    with Loopback(handle) as made:
        yield made


def started(vendor: HttpVendor) -> HttpEngine:
    """Start a vendor, and close it at once: nothing was opened."""
    made = vendor.start(lambda _: None)
    made.close()
    return made


def headers_of(vendor: HttpVendor) -> dict[str, str]:
    """Return what every request would carry."""
    return dict(started(vendor)._outfit.place.headers)


# -- what is taken -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"x": "a\r\nb: c"}},
        {"headers": {"x": "ü"}},
        {"headers": {"x": " a"}},
        {"headers": {"x": 5}},
        {"headers": {"x\n": "a"}},
        {"headers": {"": "a"}},
        {"headers": {5: "a"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"Host": "other.test"}},
        {"headers": [("x", "y")]},
        {"headers": "x"},
        {"extra": 5},
        {"models": [5]},
        {"models": ["", "m"]},
        {"models": ""},
        {"models": 5},
        {"models": ["m"] * 1001},
        {"keep_alive_s": -1},
        {"streaming": "yes"},
        {"name": ""},
        {"api_key": ""},
        {"api_key": f"{KEY}\nx"},
        {"api_key": 5},
    ],
)
def test_what_cannot_be_is_refused_when_the_spec_is_made(options: dict[str, Any]) -> None:
    """As BadRequest, and no value that may be a key is shown, not even with its frames."""
    with pytest.raises(BadRequest) as caught:
        OpenAI(**options)
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "https://user:geheim@x"}, "base_url"),
        ({"base_url": "http://api.test", "api_key": KEY}, "https://"),
        ({"base_url": "http://api.test", "headers": {"Authorization": f"Bearer {KEY}"}}, "https:"),
        ({"ca_file": "/nowhere"}, "ca_file"),
        ({"proxy": "nonsense"}, "proxy"),
        ({"proxy": "ftp://u:geheim@p"}, "proxy"),
        ({"client": "mine"}, "client"),
        ({"client": httpx2.AsyncClient}, "client"),
    ],
)
def test_what_can_never_work_is_refused_when_it_is_registered(
    options: dict[str, Any], words: str
) -> None:
    """As ConfigError with the vendor's name, and without keys and passwords."""
    with pytest.raises(ConfigError, match=words) as caught:
        Dispatcher(OpenAI(name="mine", models=["m"], **options))
    assert "'mine'" in str(caught.value)
    for secret in (KEY, "geheim@"):
        assert secret not in shown(caught.value)
    assert "geheim" not in repr(OpenAI(**options))


def test_a_spec_shows_no_key_and_can_be_copied() -> None:
    """Its repr, its parts and its copies."""
    spec = OpenAI(
        api_key=KEY,
        headers={"authorization": f"Bearer {KEY}"},
        proxy=f"http://u:{KEY}@p:1",
        base_url=f"https://u:{KEY}@x",
        models=["m"],
    )
    assert KEY not in repr(spec)
    assert KEY not in str(attrs.asdict(attrs.evolve(spec, headers={}, proxy=None, base_url=None)))
    assert copy.deepcopy(spec) == copy.copy(spec) == attrs.evolve(spec) == spec
    assert spec != attrs.evolve(spec, api_key=Secret("other"))


def test_an_engine_and_its_parts_show_no_key() -> None:
    """Whatever is printed while debugging."""
    made = started(OpenAI(api_key=KEY, models=["m"], proxy=f"http://u:{KEY}@p:1"))
    parts = (made, made._outfit, made._outfit.place, made._connections, made._lookout, made.cards())
    for part in parts:
        assert KEY not in repr(part)


# -- where keys come from, and go --------------------------------------------------------------

OWN = [
    (OpenAI, "OPENAI_API_KEY", "https://api.openai.com/v1", "https://eu.api.openai.com/v1"),
    (Anthropic, "ANTHROPIC_API_KEY", "https://api.anthropic.com", "https://x.anthropic.com"),
    (Groq, "GROQ_API_KEY", "https://api.groq.com/openai/v1", "https://x.groq.com"),
    (Together, "TOGETHER_API_KEY", "https://api.together.ai/v1", "https://x.together.ai"),
    (Mistral, "MISTRAL_API_KEY", "https://api.mistral.ai/v1", "https://eu.mistral.ai"),
    (DeepSeek, "DEEPSEEK_API_KEY", "https://api.deepseek.com", "https://x.deepseek.com"),
    (OpenRouter, "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", "https://x.openrouter.ai"),
    (
        Gemini,
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta",
        "https://x.generativelanguage.googleapis.com",
    ),
]


@pytest.mark.parametrize(("preset", "name", "own", "below"), OWN, ids=[row[1] for row in OWN])
def test_a_key_of_the_environment_goes_to_the_presets_own_domain_only(
    preset: Any, name: str, own: str, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to anybody else, whatever their address begins or ends with, or runs on this machine."""
    monkeypatch.setenv(name, ENV)
    for url in (None, own, below):
        headers = headers_of(preset(models=["m"], base_url=url))
        assert any(ENV in value for value in headers.values()), url
    host = own.split("/")[2]
    for url in (
        f"https://{host}.evil.test",
        f"https://evil-{host.removeprefix('api.')}",
        f"https://evil.test/{host}",
        "https://evil.test",
        "http://127.0.0.1:9",
        "http://gpu.lan",
    ):
        vendor = preset(models=["m"], base_url=url)
        assert not any(ENV in value for value in headers_of(vendor).values()), url
        status = vendor.start(lambda _: None)
        assert "not sent to" in status.status().detail
        assert name in status.status().detail
        status.close()
    plain = own.replace("https", "http")
    with pytest.raises(ConfigError, match="https://"):
        started(preset(models=["m"], base_url=plain))


def test_a_local_presets_key_goes_to_hosts_of_this_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of one's own may be on another machine, and nowhere public."""
    monkeypatch.setenv("VLLM_API_KEY", ENV)
    for url in (None, "http://gpu.lan:8000", "http://10.0.0.5:8000"):
        assert headers_of(VLLM(models=["m"], base_url=url))["authorization"] == f"Bearer {ENV}"
    for url in ("https://vllm.evil.test", "http://8.8.8.8:8000", "http://[::ffff:8.8.8.8]"):
        assert "authorization" not in headers_of(VLLM(models=["m"], base_url=url))


def test_the_key_of_ollamas_cloud_goes_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine, or on this network, has no business with it."""
    monkeypatch.setenv("OLLAMA_API_KEY", ENV)
    there = headers_of(Ollama(models=["m"], base_url="https://ollama.com"))
    assert there["authorization"] == f"Bearer {ENV}"
    for url in (None, "http://gpu.lan:11434", "http://10.0.0.5:11434", "https://ollama.evil.test"):
        assert "authorization" not in headers_of(Ollama(models=["m"], base_url=url))


def test_a_key_that_was_given_goes_where_it_was_given_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By value or by the variable's name, to any address, but unencrypted to no public one."""
    monkeypatch.setenv("OPENAI_API_KEY", ENV)
    monkeypatch.setenv("MY_KEY", KEY)
    ways: list[dict[str, Any]] = [{"api_key": KEY}, {"api_key": Secret(KEY)}]
    for given in [*ways, {"api_key_env": "MY_KEY"}]:
        for url in (None, "https://other.test", "http://127.0.0.1:9", "http://gpu.lan"):
            headers = headers_of(OpenAI(models=["m"], base_url=url, **given))
            assert headers["authorization"] == f"Bearer {KEY}"
        for url in ("http://other.test", "http://8.8.8.8", "http://[::ffff:8.8.8.8]:1"):
            with pytest.raises(ConfigError, match="could be read"):
                started(OpenAI(models=["m"], base_url=url, **given))
    assert "authorization" not in headers_of(OpenAI(models=["m"], api_key_env="NOT_SET"))


def test_hosts_that_need_no_key_get_none_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OPENAI_API_KEY is OpenAI's, though many speak its API."""
    monkeypatch.setenv("OPENAI_API_KEY", ENV)
    for preset in (OpenAICompatible, LiteLLM, LlamaServer):
        for url in ("https://other.test", "http://127.0.0.1:9"):
            vendor = preset(models=["m"], base_url=url)
            assert ENV not in str(headers_of(vendor))
            assert started(vendor)._outfit.problem == ""


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_a_variable_that_is_empty_is_not_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next of several is looked at."""
    monkeypatch.setenv("OPENAI_API_KEY", text)
    made = OpenAI(models=["m"]).start(lambda _: None)
    assert made.status().state is State.FAILED
    assert "OPENAI_API_KEY is not set" in made.status().detail
    made.close()
    monkeypatch.setenv("GOOGLE_API_KEY", text)
    monkeypatch.setenv("GEMINI_API_KEY", ENV)
    assert ENV in str(headers_of(Gemini(models=["m"])))


def test_a_variable_that_holds_no_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not shown, not even with the frames of the error."""
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nsecond line")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        Dispatcher(OpenAI(models=["m"]))
    assert KEY not in shown(caught.value)


def test_headers_of_the_user_go_before_the_key(server: Loopback) -> None:
    """Whatever their case: of each name one is sent, and a key among them is a key."""
    given = {"AUTHORIZATION": "Basic abc123", "X-Team": "red", "user-agent": "mine"}
    ways: list[dict[str, Any]] = [{"api_key": KEY}, {}]
    for options in ways:
        with Dispatcher(OpenAI(models=["m"], base_url=server.url, headers=given, **options)) as d:
            assert d.send("Hello.").text == "a"
        got = server.got[-1]
        assert got.headers["authorization"] == "Basic abc123"
        assert got.headers["x-team"] == "red"
        assert got.headers["user-agent"] == "mine"
        assert KEY not in str(got.headers)


def test_a_missing_key_is_told_by_whoever_asks() -> None:
    """The vendor is there, without being asked; the request says what to set."""
    with Dispatcher(OpenAI(models=["m"])) as d, pytest.raises(AuthRejected, match="OPENAI_API_KEY"):
        d.send("Hello.")
    with Dispatcher(OpenAI()) as d, pytest.raises(NoCandidate, match="OPENAI_API_KEY"):
        d.send("Hello.", model="m")


# -- clients of the caller's -------------------------------------------------------------------


def test_a_client_of_ones_own_is_used_in_its_world(server: Loopback) -> None:
    """With what it adds, and it is not closed; the other world is refused with the way out."""
    with httpx2.Client(headers={"x-mine": "1"}, auth=("u", "p")) as client:
        options: dict[str, Any] = {"models": ["m"], "base_url": server.url, "client": client}
        with Dispatcher(OpenAI(**options)) as d:
            assert d.send("Hello.").text == "a"
            assert "".join(delta.text for delta in d.stream("Hello.")) == "a"
        assert not client.is_closed
        assert server.got[-1].headers["x-mine"] == "1"
        assert server.got[-1].headers["authorization"].startswith("Basic ")
        assert server.got[-1].headers["accept-encoding"] == "identity"

        async def other() -> None:
            async with AsyncDispatcher(OpenAI(**options)) as d:
                await d.send("Hello.")

        with pytest.raises(DispatcherError, match="async_client"):
            asyncio.run(other())


def test_an_async_client_of_ones_own_is_used_in_its_world(server: Loopback) -> None:
    """The same the other way round; its models are not looked for in a thread."""

    async def main() -> None:
        async with httpx2.AsyncClient(headers={"x-mine": "1"}) as client:
            options: dict[str, Any] = {"base_url": server.url, "async_client": client}
            async with AsyncDispatcher(OpenAI(models=["m"], **options)) as d:
                assert (await d.send("Hello.")).text == "a"
                assert d.vendors()[0].status.state is State.READY
            assert not client.is_closed
            assert server.got[-1].headers["x-mine"] == "1"
            async with AsyncDispatcher(OpenAICompatible(**options)) as d:
                with pytest.raises(NoCandidate, match="models"):
                    await d.send("Hello.", model="m")
        async with AsyncDispatcher(OpenAI(models=["m"], **options)) as d:
            with pytest.raises(Unreachable, match="closed"):
                await d.send("Hello.")
        with (
            Dispatcher(OpenAI(models=["m"], **options)) as threads,
            pytest.raises(DispatcherError, match="client must be given too"),
        ):
            threads.send("Hello.")

    asyncio.run(main())


def test_a_client_that_was_closed_is_unreachable(server: Loopback) -> None:
    """It is the caller's, and so is closing it."""
    client = httpx2.Client()
    client.close()
    with (
        Dispatcher(OpenAI(models=["m"], base_url=server.url, client=client)) as d,
        pytest.raises(Unreachable, match="closed"),
    ):
        d.send("Hello.")


def test_a_client_of_ones_own_never_follows() -> None:
    """Whatever it was told: redirects would carry the key on."""
    with Loopback(lambda _: Answer.json(SHORTEST)) as other:
        moved = Answer(status=307, headers={"location": f"{other.url}/v1/chat/completions"})
        with Loopback(lambda _: moved) as server, httpx2.Client(follow_redirects=True) as client:
            vendor = OpenAI(models=["m"], base_url=server.url, client=client, api_key=KEY)
            with Dispatcher(vendor) as d, pytest.raises(Unreachable, match="moved"):
                d.send("Hello.")
        assert not other.got


def test_a_client_of_ones_own_is_stopped_while_it_reads() -> None:
    """From another thread, in the middle of a reply, at once."""
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    with Loopback(lambda _: Answer.sse([chunk, 60.0])) as server, httpx2.Client() as client:
        vendor = OpenAI(models=["m"], base_url=server.url, client=client, api_key=KEY)
        with Dispatcher(vendor) as d, d.stream("Hello.") as stream:
            assert next(stream).text == "a"
            timer = threading.Timer(0.05, stream.close)
            timer.start()
            began_s = time.monotonic()
            assert list(stream) == []
            assert time.monotonic() - began_s < 20
            timer.join()


def test_a_client_of_ones_own_that_is_busy_is_late() -> None:
    """One that has no connection left is waited for no longer than for an answer."""
    limits = httpx2.Limits(max_connections=1)
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    with (
        Loopback(lambda _: Answer.sse([chunk, 60.0])) as server,
        httpx2.Client(limits=limits) as client,
        Dispatcher(OpenAI(models=["m"], base_url=server.url, client=client, api_key=KEY)) as d,
        d.stream("Hello.") as stream,
    ):
        next(stream)
        with pytest.raises(TimedOut):
            d.send("Hello.", deadlines=Deadlines(first_token_s=0.1, whole_s=0.1))
