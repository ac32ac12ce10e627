"""HTTP vendors against real servers: what holds for all of them, whatever they are.

llama-server by its OpenAI and its Anthropic surface, the proxy of LiteLLM in front of it, and
llama_cpp.server, all with the embedded model. What each does in a way of its own is a field of its
row, and has tests of its own in the modules beside this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs
import pytest
from embedding_gguf import encoder
from llama_cpp import Llama
from real_servers import ALIAS, KEY, MODEL, RealServer, litellm, llama_cpp_server, llama_server

from llmdispatcher import (
    Anthropic,
    AsyncDispatcher,
    AuthRejected,
    BadReply,
    Capability,
    ContextOverflow,
    Dispatcher,
    FinishReason,
    HttpVendor,
    LiteLLM,
    LlamaServer,
    ModelCard,
    NoCandidate,
    OpenAICompatible,
    Reply,
    Scripted,
    StreamInterrupted,
    Unreachable,
    Usage,
    VendorError,
    assistant,
    system,
    user,
)
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.contract import State
from llmdispatcher.vendors.http.preset import Preset

pytestmark = pytest.mark.upstream

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
PROMPT = f"<|begin|><|user|>{QUESTION}<|end|><|assistant|>"
"""What the template of the embedded model makes of the question."""

CONTEXT_TOKENS = 512
TOO_LONG = "word " * 2000
MANY = 32


@cache
def prompt_tokens() -> int:
    """Count the tokens of the question as the binding does."""
    words = Llama(str(MODEL), vocab_only=True, verbose=False)
    return len(words.tokenize(PROMPT.encode(), add_bos=False, special=True))


@attrs.frozen(kw_only=True)
class Surface:
    """A server, asked in one of its ways."""

    server: str
    """Name of its fixture."""
    preset: Preset
    model: str
    counts: bool = False
    """It tells how many tokens a prompt has."""
    counts_streams: bool = True
    """It tells the usage of a stream."""
    counts_end: bool = True
    """The token that ends a reply is one of the reply's."""
    tells_context: bool = True
    """Its list says how long the context is."""
    refuses_in_streams: bool = True
    """A stream that cannot be is refused with words; else it is empty."""
    needs_name: bool = False
    """Its models are not used unless they are named, as those of the vendor's own cloud."""
    checks_keys: bool = True
    """A key that lacks is told as that; else as a failure of the server's own."""
    local: bool = False

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.server}-{self.preset.name}"

    def vendor(self, server: RealServer, **options: Any) -> HttpVendor:
        """Make the vendor."""
        given = {"models": [self.model]} if self.needs_name else {}
        return self.preset(**{"base_url": server.url, "api_key": KEY, **given, **options})


SURFACES = (
    Surface(server="llama", preset=LlamaServer, model=str(MODEL), counts=True, local=True),
    Surface(server="llama", preset=OpenAICompatible, model=str(MODEL)),
    Surface(server="llama", preset=Anthropic, model=str(MODEL), counts=True, needs_name=True),
    Surface(server="proxy", preset=LiteLLM, model=ALIAS, tells_context=False, checks_keys=False),
    Surface(
        server="binding",
        preset=OpenAICompatible,
        model=ALIAS,
        counts_streams=False,
        counts_end=False,
        tells_context=False,
        refuses_in_streams=False,
    ),
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """llama-server."""
    with llama_server(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, llama: RealServer) -> Iterator[RealServer]:
    """The proxy of LiteLLM in front of it."""
    with litellm(tmp_path_factory.mktemp("proxy"), llama) as server:
        yield server


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """llama_cpp.server."""
    with llama_cpp_server(tmp_path_factory.mktemp("binding")) as server:
        yield server


@pytest.fixture(params=SURFACES, ids=lambda surface: surface.name)
def surface(request: pytest.FixtureRequest) -> Surface:
    """Each of them in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(request: pytest.FixtureRequest, surface: Surface) -> RealServer:
    """Its server."""
    return request.getfixturevalue(surface.server)  # type: ignore[no-any-return]


def counted(usage: Usage) -> tuple[int, int]:
    """Return what every server counts; what it remembers is its own affair."""
    return usage.prompt_tokens, usage.completion_tokens


def streamed(d: Dispatcher, **options: Any) -> tuple[list[str], Reply]:
    """Return the pieces of a stream, and its reply."""
    stream = d.stream(QUESTION, temperature=0, **options)
    return [delta.text for delta in stream], stream.reply


def test_a_reply_is_the_same_in_every_way(surface: Surface, server: RealServer) -> None:
    """Whole and in pieces, to threads and to tasks: one text, one reason, one account."""

    async def tasks() -> tuple[Reply, str]:
        async with AsyncDispatcher(surface.vendor(server)) as d:
            stream = d.stream(QUESTION, temperature=0)
            return await d.send(QUESTION, temperature=0), "".join([x.text async for x in stream])

    with Dispatcher(surface.vendor(server)) as d:
        whole = d.send(QUESTION, temperature=0)
        pieces, reply = streamed(d)
    other, joined = asyncio.run(tasks())

    assert len(pieces) > 5
    assert whole.text == "".join(pieces) == reply.text == other.text == joined == ANSWER
    reasons = {each.finish_reason for each in (whole, reply, other)}
    assert reasons == {FinishReason.STOP}
    assert counted(whole.usage) == counted(other.usage)
    assert counted(whole.usage) == (prompt_tokens(), len(pieces) + surface.counts_end)
    if surface.counts_streams:
        assert counted(whole.usage) == counted(reply.usage)
    assert reply.usage.estimated is not surface.counts_streams
    assert (whole.vendor, whole.model) == (surface.preset.name, surface.model)
    assert (whole.cost_microusd == 0) is surface.local


def test_models_are_found(surface: Surface, server: RealServer) -> None:
    """A vendor that was given no models asks which there are, and what is told of them."""
    with Dispatcher(surface.vendor(server, models=())) as d:
        d.send(QUESTION, max_tokens=1, model=surface.model if surface.needs_name else None)
        (vendor,) = d.vendors()

    (card,) = vendor.cards
    assert card.model == surface.model
    assert card.local is surface.local
    assert card.context_tokens == (CONTEXT_TOKENS if surface.tells_context else None)
    assert vendor.status.state in {State.READY, State.BUSY}


def test_a_prompt_is_counted(surface: Surface, server: RealServer) -> None:
    """By the server where it tells, as its replies do; else by an estimate that is marked."""
    with Dispatcher(surface.vendor(server)) as d:
        count = d.count_tokens(QUESTION)
        reply = d.send(QUESTION, max_tokens=1)

    assert count.estimated is not surface.counts
    if surface.counts:
        assert count.tokens == reply.usage.prompt_tokens == prompt_tokens()
    else:
        assert 0 < count.tokens < 3 * prompt_tokens()


def test_a_conversation_is_sent_whole(surface: Surface, server: RealServer) -> None:
    """The system's words and the turns before reach the model: the prompt is longer for each."""
    talk = [user("Hello!"), assistant("Hi."), user(QUESTION)]
    with Dispatcher(surface.vendor(server)) as d:
        sizes = [
            d.send(prompt, max_tokens=1).usage.prompt_tokens
            for prompt in (QUESTION, talk, [system("Be brief."), *talk])
        ]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_reply_ends_where_it_is_told_to(
    surface: Surface, server: RealServer, *, streams: bool
) -> None:
    """At a stop string, which is not part of it, and at its greatest length."""
    with Dispatcher(surface.vendor(server, streaming=streams)) as d:
        stopped = d.send(QUESTION, temperature=0, stop=["is", "France"])
        cut = d.send(QUESTION, temperature=0, max_tokens=3)

    assert (stopped.text, stopped.finish_reason) == ("The capital of ", FinishReason.STOP)
    assert cut.finish_reason is FinishReason.LENGTH
    assert cut.text
    assert ANSWER.startswith(cut.text)
    assert cut.text != ANSWER
    if surface.counts_streams or not streams:
        assert cut.usage.completion_tokens == 3


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_what_does_not_fit_is_refused_with_numbers(
    surface: Surface, server: RealServer, *, streams: bool
) -> None:
    """How much is needed and how much there is, as the server says it: it alone knows here."""
    vendor = surface.vendor(server, streaming=streams, models=[surface.model])
    kind = ContextOverflow if surface.refuses_in_streams or not streams else BadReply
    with Dispatcher(vendor) as d, pytest.raises(kind) as caught:
        d.send(TOO_LONG, max_tokens=1)

    if isinstance(caught.value, ContextOverflow):
        assert caught.value.limit_tokens == CONTEXT_TOKENS
        assert (caught.value.needed_tokens or 0) > 2000


@pytest.mark.parametrize("key", ["sk-wrong", None])
def test_a_key_that_is_wrong_is_told(
    surface: Surface, server: RealServer, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that, when the model is named, and when the list of models was to be read with it."""
    for name in ("ANTHROPIC_API_KEY", "LLAMA_API_KEY", "LITELLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    kind: type[VendorError] = AuthRejected
    words = "key"
    if key is None and not surface.checks_keys:
        kind, words = VendorError, "failed"
    named = surface.vendor(server, api_key=key, models=[surface.model])
    with Dispatcher(named) as d:
        for ask in (d.send, lambda prompt: list(d.stream(prompt))):
            with pytest.raises(kind, match=words):
                ask(QUESTION)
    unnamed = surface.vendor(server, api_key=key, models=())
    with Dispatcher(unnamed) as d, pytest.raises(NoCandidate, match=words):
        d.send(QUESTION, model=surface.model)


def test_many_are_served_at_once(surface: Surface, server: RealServer) -> None:
    """More than the server has slots for: each gets its own reply, in the order of asking."""
    prompts = [QUESTION if place % 2 else "Hello!" for place in range(MANY)]
    with Dispatcher(surface.vendor(server)) as d:
        replies = d.send_many(prompts, concurrency=MANY, temperature=0)

    texts = [reply.text for reply in replies if isinstance(reply, Reply)]
    assert len(texts) == MANY
    assert set(texts[1::2]) == {ANSWER}
    assert ANSWER not in texts[::2]


def test_a_stream_that_is_left_harms_nobody(surface: Surface, server: RealServer) -> None:
    """Whoever stops reading is free at once, and so is the server."""
    with Dispatcher(surface.vendor(server)) as d:
        for _ in range(5):
            with d.stream("Tell me about llmdispatcher.", max_tokens=300) as stream:
                next(stream)
        assert d.send(QUESTION, temperature=0).text == ANSWER


def test_a_path_that_is_wrong_is_told(surface: Surface, server: RealServer) -> None:
    """With a hint at the address, and the next vendor is asked."""
    lost = surface.vendor(server, models=[surface.model], base_url=f"{server.url}/elsewhere")
    with Dispatcher(lost) as d, pytest.raises(DispatcherError, match="base address"):
        d.send(QUESTION)
    with Dispatcher(lost, Scripted("From elsewhere.", price=None)) as d:
        assert d.send(QUESTION).text == "From elsewhere."


# -- LiteLLM -----------------------------------------------------------------------------------


@pytest.fixture
def priced(proxy: RealServer) -> HttpVendor:
    """A vendor at the proxy."""
    return LiteLLM(base_url=proxy.url, api_key=KEY)


def test_the_proxy_names_requests_and_their_price(priced: HttpVendor) -> None:
    """The name is that of its own books, and the price the one that it was told."""
    with Dispatcher(priced) as d:
        whole = d.send(QUESTION, temperature=0)
        _, reply = streamed(d)

    for each in (whole, reply):
        assert each.decision.attempts[-1].request_id.count("-") == 4
        assert each.decision.attempts[-1].served_model == ALIAS
    assert reply.cost_microusd == prompt_tokens() + 2 * reply.usage.completion_tokens


def test_the_proxy_does_not_know_a_model(priced: HttpVendor, proxy: RealServer) -> None:
    """Not on its list, it is told as missing; asked for all the same, as the request's fault."""
    with Dispatcher(priced) as d, pytest.raises(NoCandidate, match="nothing"):
        d.send(QUESTION, model="nothing")
    with (
        Dispatcher(LiteLLM(base_url=proxy.url, api_key=KEY, models=["nothing"])) as d,
        pytest.raises(DispatcherError, match="nothing") as caught,
    ):
        d.send(QUESTION)
    assert not isinstance(caught.value, Unreachable)


def test_the_proxy_mixes_choices_up_in_streams(priced: HttpVendor) -> None:
    """It gives pieces of one choice out as another's: several are asked for whole."""
    with Dispatcher(priced) as d:
        pieces, reply = streamed(d, n=3)

    assert len(pieces) == 3
    assert [choice.text for choice in reply.choices] == [ANSWER] * 3


def test_a_server_behind_the_proxy_that_is_away(
    tmp_path_factory: pytest.TempPathFactory, llama: RealServer, proxy: RealServer
) -> None:
    """The proxy serves on, with errors that another vendor can make good."""
    llama.kill()
    try:
        vendor = LiteLLM(base_url=proxy.url, api_key=KEY)
        with Dispatcher(vendor) as d, pytest.raises(VendorError):
            d.send(QUESTION)
        with Dispatcher(vendor, Scripted("From elsewhere.", price=None)) as d:
            assert d.send(QUESTION).text == "From elsewhere."
    finally:
        llama.start()
        llama.ready()


# -- llama_cpp.server --------------------------------------------------------------------------


@pytest.fixture
def bound(binding: RealServer) -> HttpVendor:
    """A vendor at llama_cpp.server."""
    return OpenAICompatible(base_url=binding.url, api_key=KEY)


def test_the_binding_takes_no_schema(bound: HttpVendor) -> None:
    """It knows JSON mode, and a schema only in a field of its own: its refusal is told."""
    with Dispatcher(bound) as d, pytest.raises(DispatcherError, match="json_object"):
        d.send(QUESTION, schema={"type": "object"}, max_tokens=20)


def test_the_binding_draws_one_choice(bound: HttpVendor) -> None:
    """It leaves out the others without a word, which is no whole reply."""
    for streams in (False, True):
        vendor = attrs.evolve(bound, streaming=streams)
        with Dispatcher(vendor) as d, pytest.raises((BadReply, StreamInterrupted)):
            d.send(QUESTION, n=2, max_tokens=20)


def test_the_binding_takes_any_name(bound: HttpVendor) -> None:
    """A model that it does not have is served by the one that it has."""
    with Dispatcher(attrs.evolve(bound, models=("other",))) as d:
        assert d.send(QUESTION, temperature=0).text == ANSWER


def test_the_binding_embeds(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a switch of its own, a model of any name: its card has to say that it does."""
    folder = tmp_path_factory.mktemp("embedding")
    card = ModelCard(vendor="own", model=ALIAS, local=True, capabilities={Capability.EMBED})
    with llama_cpp_server(folder, encoder(folder / "m.gguf"), "--embedding", "true") as server:
        vendor = OpenAICompatible(base_url=server.url, api_key=KEY, models=[card])
        with Dispatcher(vendor) as d:
            made = d.embed(["one text", "another"])

    assert len(made.vectors) == 2
    assert made.vectors[0] != made.vectors[1]
    assert made.usage.prompt_tokens > 0
