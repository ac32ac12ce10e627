"""Google's own SDK is the oracle: it and we talk to one server, ask alike and read alike."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import httpx2
import pytest
from asking_gemini import NEW, OLD, WIRE
from google import genai
from google.genai import errors, types
from loopback import Answer, Got, Loopback
from replies_of import Read, streamed, whole
from speaking_gemini import failed, models, spoken, vectors

from llmdispatcher import EmbedRequest, Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models import errors as our
from llmdispatcher.models.embedding import Vector
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import assistant, system, tool, user
from llmdispatcher.vendors.gemini import keepsakes
from llmdispatcher.vendors.gemini.wire import GeminiWire
from llmdispatcher.vendors.wire.exchange import Ask, Head, Site

KEY = "AIza-not-a-key"
WHOLE = GeminiWire(Site(vendor="gemini", streaming=False))

CASES: dict[str, dict[str, Any]] = {
    "text": {"text": "Hello, Wörld! 😀", "usage": (5, 7, 2)},
    "thoughts": {"text": "So.", "reasoning": "Let me think…", "usage": (5, 8, 0)},
    "calls": {"calls": [("a", "add", '{"x":1}'), ("b", "sub", "{}")], "finish": "tool_calls"},
    "length": {"text": "Cut", "finish": "length", "usage": (1, 1, 0)},
    "filter": {"finish": "content_filter", "usage": (1, 0, 0)},
}

REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def _json(body: bytes) -> Answer:
    return Answer(headers={"content-type": "application/json"}, chunks=(body,))


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that says "Hi" until told otherwise."""

    def hi(got: Got) -> Answer:
        streams = "stream" in got.path
        told = spoken(text="Hi", streams=streams)
        return Answer.sse(told) if streams else _json(told[0])

    with Loopback(hi) as server:
        yield server


@pytest.fixture
def client(server: Loopback) -> Iterator[genai.Client]:
    """The SDK, at this server."""
    options = types.HttpOptions(base_url=server.url, api_version="v1beta")
    with genai.Client(api_key=KEY, http_options=options) as client:
        yield client


def sent(server: Loopback, ask: Ask) -> httpx2.Response:
    """Send an ask as the transport would. Raises what an error answer stands for."""
    url = f"{server.url}/v1beta{ask.path}"
    with httpx2.Client(headers={"x-goog-api-key": KEY}, trust_env=False) as http:
        got = http.get(url) if ask.body is None else http.post(url, json=ask.body)
    if got.status_code >= 300:
        raise WIRE.fault(Head(got.status_code, dict(got.headers)), got.content)
    return got


def ours(server: Loopback, request: Request, wire: GeminiWire, model: str = OLD) -> Read:
    """Ask, and read the reply."""
    (exchange,) = wire.exchanges(request, wire.card(model))
    got = sent(server, exchange.ask)
    if got.headers["content-type"] == "text/event-stream":
        return streamed(exchange.replies, [got.content], n=request.n)
    return whole(exchange.replies, got.content, n=request.n)


@attrs.frozen
class Theirs:
    """What the SDK made of a reply: of its last message the figures, of all the parts."""

    text: str
    thoughts: str
    calls: tuple[tuple[str, str, dict[str, Any]], ...]
    finish: str
    usage: tuple[int, int, int, int]


def theirs(messages: Sequence[types.GenerateContentResponse]) -> Theirs:
    """Add up what the SDK says."""
    candidates = [(message.candidates or [])[0] for message in messages]
    parts = [part for c in candidates if c.content for part in c.content.parts or []]
    usage = messages[-1].usage_metadata
    assert usage is not None
    reason = candidates[-1].finish_reason
    return Theirs(
        "".join(part.text or "" for part in parts if not part.thought),
        "".join(part.text or "" for part in parts if part.thought),
        tuple(
            (
                part.function_call.id or "",
                part.function_call.name or "",
                part.function_call.args or {},
            )
            for part in parts
            if part.function_call
        ),
        reason.value if reason else "",
        (
            usage.prompt_token_count or 0,
            (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
            usage.cached_content_token_count or 0,
            usage.thoughts_token_count or 0,
        ),
    )


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_sdk_reads_the_same(
    server: Loopback,
    client: genai.Client,
    case: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Text, thoughts, calls, end and figures agree, whole and streamed."""
    told = spoken(**CASES[case], streams=streams)
    server.handler = lambda _: Answer.sse(told) if streams else _json(told[0])
    if streams:
        stream = client.models.generate_content_stream(model=OLD, contents="x")
        expected = theirs([*stream])
    else:
        expected = theirs([client.models.generate_content(model=OLD, contents="x")])
    read = ours(server, Request.of("x"), WIRE if streams else WHOLE)
    choice, finish = read.choices[0], read.finish
    assert finish is not None
    usage = finish.usage
    counted = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )
    if usage.estimated:  # the SDK does not estimate
        counted = expected.usage
    assert expected == Theirs(
        choice.text,
        choice.reasoning,
        tuple((call.id, call.name, json.loads(call.arguments)) for call in choice.tool_calls),
        REASONS[finish.reason],
        counted,
    )


# -- requests ----------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ADD = ToolSpec("add", "Adds.", SCHEMA)
DECLARED = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="add", description="Adds.", parameters_json_schema=SCHEMA)
    ]
)
PIXEL = b"\x89PNG"
CALL = ToolCall("c1", "add", '{"x": 1}')
MANUAL = types.AutomaticFunctionCallingConfig(disable=True)
CONFIG = types.GenerateContentConfig

ALIKE: dict[str, tuple[str, Request, Any, types.GenerateContentConfig | None]] = {
    "text": (OLD, Request.of("x"), "x", None),
    "turns": (
        OLD,
        Request.of([system("S"), user("A"), assistant("B"), user("C")]),
        [
            types.UserContent("A"),
            types.ModelContent("B"),
            types.UserContent("C"),
        ],
        CONFIG(system_instruction="S"),
    ),
    "sampling": (
        OLD,
        Request.of(
            "x",
            temperature=0.5,
            top_p=0.25,
            top_k=4,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            max_tokens=9,
            stop=["a", "b"],
            n=2,
            logprobs=3,
        ),
        "x",
        CONFIG(
            temperature=0.5,
            top_p=0.25,
            top_k=4,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            max_output_tokens=9,
            stop_sequences=["a", "b"],
            candidate_count=2,
            response_logprobs=True,
            logprobs=3,
        ),
    ),
    "picture": (
        OLD,
        Request.of(user(["What?", Image(PIXEL), Image(url="https://x.test/a.png")])),
        [
            types.Content(
                role="user",
                parts=[
                    types.Part.from_text(text="What?"),
                    types.Part.from_bytes(data=PIXEL, mime_type="image/png"),
                    types.Part.from_uri(file_uri="https://x.test/a.png"),
                ],
            )
        ],
        None,
    ),
    "json": (
        OLD,
        Request.of("x", response_format=ResponseFormat("json")),
        "x",
        CONFIG(response_mime_type="application/json"),
    ),
    "schema": (
        OLD,
        Request.of("x", schema=SCHEMA),
        "x",
        CONFIG(response_mime_type="application/json", response_json_schema=SCHEMA),
    ),
    "tools": (
        NEW,
        Request.of("x", tools=[ADD], tool_choice="add"),
        "x",
        CONFIG(
            tools=[DECLARED],
            tool_config=types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(
                    mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["add"]
                )
            ),
            automatic_function_calling=MANUAL,
        ),
    ),
    "result": (
        NEW,
        Request.of(
            [
                user("A"),
                Message("assistant", "", [CALL], keepsakes=[keepsakes.of_call("c1", "c2ln")]),
                tool(CALL, '{"sum": 2}'),
            ],
            tools=[ADD],
        ),
        [
            types.UserContent("A"),
            types.Content(
                role="model",
                parts=[
                    types.Part(
                        function_call=types.FunctionCall(id="c1", name="add", args={"x": 1}),
                        thought_signature=b"sig",
                    )
                ],
            ),
            types.Content(
                role="user",
                parts=[
                    types.Part(
                        function_response=types.FunctionResponse(
                            id="c1", name="add", response={"sum": 2}
                        )
                    )
                ],
            ),
        ],
        CONFIG(tools=[DECLARED], automatic_function_calling=MANUAL),
    ),
    "budget": (
        OLD,
        Request.of("x", effort="low"),
        "x",
        CONFIG(thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)),
    ),
    "level": (
        NEW,
        Request.of("x", effort="high"),
        "x",
        CONFIG(
            thinking_config=types.ThinkingConfig(
                include_thoughts=True, thinking_level=types.ThinkingLevel.HIGH
            )
        ),
    ),
}


def _plain_base64(value: Any) -> Any:
    """Write bytes in one alphabet."""
    if isinstance(value, list):
        return [_plain_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.urlsafe_b64decode(each.replace("+", "-").replace("/", "_")).hex()
        if name in {"data", "thoughtSignature"}
        else _plain_base64(each)
        for name, each in value.items()
    }


def _camel_case(value: Any) -> Any:
    """Write names as Google's reference does; but not those of the caller's own JSON."""
    if isinstance(value, list):
        return [_camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, each in value.items():
        first, *rest = name.split("_")
        camel = first + "".join(map(str.capitalize, rest))
        is_callers = camel in {"args", "response", "responseJsonSchema", "parametersJsonSchema"}
        made[camel] = each if is_callers else _camel_case(each)
    return made


def _without_role(value: Any) -> Any:
    """Leave out who the system is."""
    if "systemInstruction" in value:
        value["systemInstruction"].pop("role", None)
    return value


def _without_nothing(value: Any) -> Any:
    """Leave out settings where none are set."""
    return {name: each for name, each in value.items() if name != "generationConfig" or each}


ALLOWED: dict[str, Callable[[Any], Any]] = {
    # Some names the SDK leaves in snake case; Google's JSON (protobuf's) reads both.
    "names": _camel_case,
    # The SDK gives the system a role, which Google ignores.
    "the system's role": _without_role,
    # The SDK sends empty settings where only others than these were given.
    "no settings": _without_nothing,
    # The SDK writes base64 for URLs; Google reads both.
    "base64": _plain_base64,
}
"""How the SDK's requests may differ from ours: what is done to both before they are compared."""


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", ALIKE)
def test_the_sdk_sends_the_same(
    server: Loopback,
    client: genai.Client,
    case: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """An equal request is sent to the same place with the same JSON, but for what is allowed."""
    model, request, contents, config = ALIKE[case]
    if streams and request.n > 1:
        return  # we stream one candidate only
    send = client.models.generate_content_stream if streams else client.models.generate_content
    answer: Any = send(model=model, contents=contents, config=config)
    _ = [*answer] if streams else None
    (exchange,) = (WIRE if streams else WHOLE).exchanges(request, WIRE.card(model))
    sent(server, exchange.ask)
    them, us = server.got
    assert (them.method, them.path, them.query) == (us.method, us.path, us.query)
    assert them.headers["x-goog-api-key"] == us.headers["x-goog-api-key"]
    bodies = [them.body, us.body]
    for made_alike in ALLOWED.values():
        bodies = [made_alike(body) for body in bodies]
    assert bodies[0] == bodies[1]


# -- errors ------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[type[our.DispatcherError], type[errors.APIError], int]] = {
    "auth": (our.AuthRejected, errors.ClientError, 400),
    "rate": (our.RateLimited, errors.ClientError, 429),
    "quota": (our.QuotaExhausted, errors.ClientError, 429),
    "overflow": (our.ContextOverflow, errors.ClientError, 400),
    "overloaded": (our.Overloaded, errors.ServerError, 503),
    "missing": (our.ModelNotFound, errors.ClientError, 404),
    "bad": (our.BadRequest, errors.ClientError, 400),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", FAILURES)
def test_errors_agree(
    server: Loopback,
    client: genai.Client,
    kind: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Where the SDK raises, so do we; and we say which of its few errors it is."""
    server.handler = lambda _: failed(kind)
    mine, class_, code = FAILURES[kind]
    with pytest.raises(class_) as caught:
        if streams:
            _ = [*client.models.generate_content_stream(model=OLD, contents="x")]
        else:
            client.models.generate_content(model=OLD, contents="x")
    assert caught.value.code == code
    with pytest.raises(mine) as raised:
        ours(server, Request.of("x"), WIRE if streams else WHOLE)
    assert getattr(raised.value, "status", code) == code
    if kind == "rate":
        assert isinstance(raised.value, our.RateLimited)
        assert raised.value.retry_after_s == 7


def test_an_error_inside_a_stream(server: Loopback, client: genai.Client) -> None:
    """Both raise behind the text that came."""
    server.handler = lambda _: failed("inside")
    texts = []
    with pytest.raises(errors.APIError) as caught:
        for message in client.models.generate_content_stream(model=OLD, contents="x"):
            texts.append(message.text)  # noqa: PERF401 - the loop raises
    assert texts == ["Hel"]
    assert caught.value.code == 503
    with pytest.raises(our.Overloaded):
        ours(server, Request.of("x"), WIRE)


def test_a_blocked_prompt(server: Loopback, client: genai.Client) -> None:
    """The SDK returns a reply without candidates and says why there; we raise."""
    server.handler = lambda _: failed("filter")
    reply = client.models.generate_content(model=OLD, contents="x")
    assert not reply.candidates
    assert reply.prompt_feedback is not None
    assert reply.prompt_feedback.block_reason == types.BlockedReason.SAFETY
    with pytest.raises(our.ContentRefused):
        ours(server, Request.of("x"), WHOLE)


# -- the rest ----------------------------------------------------------------------------------


def test_vectors_agree(server: Loopback, client: genai.Client) -> None:
    """The same batch asks alike and gives the same vectors."""
    server.handler = lambda _: _json(vectors(2))
    model = "gemini-embedding-001"
    reply = client.models.embed_content(model=model, contents=["a", "b"])
    request = EmbedRequest(texts=["a", "b"], normalize=False)
    (exchange,) = WIRE.exchanges(request, WIRE.card(model))
    got = sent(server, exchange.ask)
    pieces = [*exchange.replies.whole(got.json())]
    found = [[*piece.values] for piece in pieces if isinstance(piece, Vector)]
    assert found == [each.values for each in reply.embeddings or []]
    them, us = server.got
    assert them.path == us.path
    body = them.body
    for each in body["requests"]:
        assert each["content"].pop("role") == "user"  # the SDK says who speaks, to nobody
    assert body == us.body
    finish = exchange.replies.finish()
    assert finish is not None
    assert reply.usage_metadata is not None
    assert finish.usage.prompt_tokens == reply.usage_metadata.prompt_token_count


def test_counts_agree(server: Loopback, client: genai.Client) -> None:
    """The SDK counts turns alone; we count the whole request, at the same place."""
    server.handler = lambda _: Answer.json({"totalTokens": 31})
    reply = client.models.count_tokens(model=OLD, contents="x")
    ask = WIRE.counting(Request.of("x"), WIRE.card(OLD))
    assert ask is not None
    assert WIRE.counted(sent(server, ask).json()) == reply.total_tokens == 31
    them, us = server.got
    assert (them.method, them.path) == (us.method, us.path)
    assert them.body["contents"] == us.body["generateContentRequest"]["contents"]


def test_lists_agree(server: Loopback, client: genai.Client) -> None:
    """Page by page, the same models with the same limits."""
    pages = [{"models": [each]} for each in json.loads(models())["models"]]
    pages[0]["nextPageToken"] = "p 2"

    def page(got: Got) -> Answer:
        return Answer.json(pages["pageToken=p" in got.query])

    server.handler = page
    listed = [*client.models.list(config={"query_base": True})]
    cards, ask = [], WIRE.listing()
    while ask is not None:
        found = WIRE.listed(sent(server, ask).json())
        cards += found.cards
        ask = found.more
    assert [(f"models/{c.model}", c.context_tokens, c.max_output_tokens) for c in cards] == [
        (model.name, model.input_token_limit, model.output_token_limit) for model in listed
    ]
    queries = [got.query for got in server.got if got.path == "/v1beta/models"]
    assert len(queries) == 4
    health = WIRE.probed(Head(200, {}), sent(server, WIRE.probe()).content)
    assert health.is_ready
