"""The official SDKs see the same answers, and their errors agree with ours by a table."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import attrs
import groq
import mistralai.client
import ollama
import openai
import pytest
import together
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from loopback import Answer, Loopback, events
from mistralai.client.errors import MistralError

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    InvalidGrammar,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Unreachable,
    Unsupported,
    VendorError,
)
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.faults import of_answer, of_message

pytestmark = pytest.mark.soak
"""Some minutes together: each client is imported, and asked in every way."""

KEY = "sk-loopback-0123456789"
HI: Any = [{"role": "user", "content": "Hi"}]

Kinds = set[type[DispatcherError]]

OURS: dict[str, Kinds] = {
    "BadRequestError": {
        BadRequest,
        Unsupported,
        InvalidGrammar,
        ContextOverflow,
        ContentRefused,
        ModelNotFound,
        QuotaExhausted,
        AuthRejected,
        BadReply,
    },
    "AuthenticationError": {AuthRejected},
    "PaymentRequiredError": {QuotaExhausted},
    "PermissionDeniedError": {AuthRejected, ModelNotFound, ContentRefused, Unreachable},
    "NotFoundError": {ModelNotFound, Unsupported},
    "RequestTimeoutError": {Overloaded},
    "ConflictError": {Overloaded},
    "ContentTooLargeError": {ContextOverflow},
    "UnprocessableEntityError": {BadRequest, Unsupported, InvalidGrammar, ContextOverflow},
    "RateLimitError": {RateLimited, QuotaExhausted, Overloaded, ContextOverflow},
    "ClientClosedRequestError": {Unreachable},
    "InternalServerError": {BadReply, Overloaded, Unreachable, ContextOverflow, Unsupported},
    "EnforcedSpendLimitReachedError": {QuotaExhausted},
    "RampLimitExceededError": {RateLimited},
    "HTTPNotImplementedError": {Unsupported},
    "ServiceUnavailableError": {Overloaded},
    "GatewayTimeoutError": {Overloaded},
    "OverloadedError": {Overloaded},
}
"""What an SDK's class may be of ours: theirs follow the status alone, ours what is said too."""

BY_CODE: dict[str, type[DispatcherError]] = {
    "insufficient_quota": QuotaExhausted,
    "credit_balance_exhausted": QuotaExhausted,
    "rate_limit_exceeded": RateLimited,
    "context_length_exceeded": ContextOverflow,
    "model_not_found": ModelNotFound,
    "invalid_api_key": AuthRejected,
    "content_filter": ContentRefused,
    "unsupported_parameter": Unsupported,
    "server_is_overloaded": Overloaded,
    "tool_use_failed": BadReply,
    "billing_error": QuotaExhausted,
    "authentication_error": AuthRejected,
    "permission_error": AuthRejected,
    "not_found_error": ModelNotFound,
    "request_too_large": ContextOverflow,
    "overloaded_error": Overloaded,
    "timeout_error": Overloaded,
    "api_error": BadReply,
    "enforced_spend_limit_reached": QuotaExhausted,
    "ramp_limit_exceeded": RateLimited,
}
"""What a code that an SDK reads out of a body is of ours."""


def said(code: str | None, kind: str = "invalid_request_error", param: str | None = None) -> Any:
    """Return an error in the shape of OpenAI."""
    return {"error": {"message": "It is so.", "type": kind, "param": param, "code": code}}


def claude(kind: str, code: str | None = None) -> Any:
    """Return an error in the shape of Anthropic."""
    error: dict[str, Any] = {"type": kind, "message": "It is so."}
    if code:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": "req_2"}


WAITS: list[dict[str, str]] = [
    {},
    {"retry-after": "7"},
    {"retry-after": "0.5"},
    {"retry-after-ms": "1500", "retry-after": "9"},
    {"retry-after-ms": "soon", "retry-after": "9"},
    {"retry-after": "soon"},
]

ANSWERS: list[Answer] = [
    Answer.json(said("insufficient_quota", "insufficient_quota"), 429),
    Answer.json(said("credit_balance_exhausted", "insufficient_quota"), 429),
    Answer.json(said("context_length_exceeded"), 400),
    Answer.json(said("model_not_found"), 404, {"x-request-id": "req_1"}),
    Answer.json(said("model_not_found"), 403),
    Answer.json(said("invalid_api_key"), 401),
    Answer.json(said("content_filter"), 400),
    Answer.json(said("unsupported_parameter", param="max_tokens"), 400),
    Answer.json(said("server_is_overloaded", "service_unavailable_error"), 503),
    Answer.json(said("tool_use_failed"), 400),
    Answer.json(said(None), 400),
    Answer.json(said(None), 422),
    Answer.json(said(None), 409),
    Answer.json(said(None, "server_error"), 500),
    Answer.json(said(None), 501),
    Answer.json({"detail": "Unauthorized"}, 401),
    Answer.json({"error": "a text"}, 500),
    Answer.json([1, 2], 500),
    Answer(status=502, headers={"content-type": "text/html"}, chunks=(b"<html>no</html>",)),
    Answer(status=403, headers={"content-type": "text/html"}, chunks=(b"<html>no</html>",)),
    Answer(status=504, chunks=(b"late",)),
    Answer(status=529),
    Answer(status=404),
    *[Answer.json(said("rate_limit_exceeded", "requests"), 429, headers) for headers in WAITS],
    Answer.json(said(None), 503, {"retry-after": "3"}),
]

CLAUDE: list[Answer] = [
    Answer.json(claude("invalid_request_error"), 400, {"request-id": "req_1"}),
    Answer.json(claude("authentication_error"), 401),
    Answer.json(claude("billing_error"), 402),
    Answer.json(claude("permission_error"), 403),
    Answer.json(claude("not_found_error"), 404),
    Answer.json(claude("timeout_error"), 408),
    Answer.json(claude("conflict_error"), 409),
    Answer.json(claude("request_too_large"), 413),
    Answer.json(claude("rate_limit_error", "enforced_spend_limit_reached"), 429),
    Answer.json(claude("rate_limit_error", "ramp_limit_exceeded"), 429, {"retry-after": "12"}),
    *[Answer.json(claude("rate_limit_error"), 429, headers) for headers in WAITS],
    Answer(status=499),
    Answer.json(claude("api_error"), 500),
    Answer(status=501),
    Answer(status=503),
    Answer.json(claude("timeout_error"), 504),
    Answer.json(claude("overloaded_error"), 529),
]


@attrs.frozen
class Told:
    """An SDK's error, and what its client reads as the wait."""

    error: Any
    wait_s: float | None


def chat(client: Any) -> object:
    """Ask as OpenAI's SDK does, and those that are made like it."""
    return client.chat.completions.create(model="m", messages=HI)


def messages(client: Any) -> object:
    """Ask as Anthropic's SDK does."""
    return client.messages.create(model="m", messages=HI, max_tokens=9)


@attrs.frozen
class Sdk:
    """How an SDK is made, asked, and how it fails."""

    make: Any
    error: type[Exception]
    call: Callable[[Any], object] = chat


SDKS = {
    "openai": Sdk(openai.OpenAI, openai.APIStatusError),
    "groq": Sdk(groq.Groq, groq.APIStatusError),
    "together": Sdk(together.Together, together.APIStatusError),
    "anthropic": Sdk(anthropic.Anthropic, anthropic.APIStatusError, messages),
}


def raised(client: Any, sdk: Sdk) -> Told:
    """Have an SDK raise."""
    with pytest.raises(sdk.error) as caught:
        sdk.call(client)
    headers = caught.value.response.headers  # type: ignore[attr-defined]
    return Told(caught.value, client._parse_retry_after_header(headers))


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    """A server that answers what a test puts into its handler."""
    with Loopback(lambda _: Answer()) as server:
        yield server


@pytest.fixture(scope="module")
def clients(server: Loopback) -> Iterator[dict[str, Any]]:
    """One client of each SDK, at this server."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(sdk.make(api_key=KEY, base_url=server.url, max_retries=0))
            for name, sdk in SDKS.items()
        }


CASES = [
    *[(name, answer) for answer in ANSWERS for name in ("openai", "groq", "together")],
    *[("anthropic", answer) for answer in CLAUDE],
]


def agreed(error: DispatcherError, theirs: Any) -> None:
    """Check that our class is one of those that an SDK's class and its codes may be."""
    assert type(error) in OURS[type(theirs).__name__], (error, theirs)
    codes = {getattr(theirs, name, None) for name in ("code", "type", "error_code")}
    body = getattr(theirs, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        codes |= {inner.get("code"), inner.get("type")} if isinstance(inner, dict) else set()
    named = {BY_CODE[code] for code in codes if isinstance(code, str) and code in BY_CODE}
    assert not named or type(error) in named


@pytest.mark.parametrize(
    ("name", "answer"),
    CASES,
    ids=[f"{name}-{answer.status}-{i}" for i, (name, answer) in enumerate(CASES)],
)
def test_ours_is_theirs(
    name: str, answer: Answer, server: Loopback, clients: dict[str, Any]
) -> None:
    """Class, code, status, request id and wait agree with those of the SDK."""
    server.handler = lambda _: answer
    told = raised(clients[name], SDKS[name])
    response = told.error.response

    error = of_answer(Head(response.status_code, dict(response.headers)), response.content)

    agreed(error, told.error)
    assert error.status == told.error.status_code  # type: ignore[attr-defined]
    if theirs := getattr(told.error, "request_id", None):
        assert error.request_id == theirs  # type: ignore[attr-defined]
    if isinstance(error, VendorError):
        assert error.retry_after_s == told.wait_s


@pytest.mark.parametrize(
    ("sent", "wait_s"),
    [("Fri, 20 Nov 2026 10:01:00 GMT", 60.0), ("Sat, 21 Nov 2026 10:00:00 GMT", 86400.0)],
)
def test_a_date_is_counted_from_the_answers_own(
    sent: str, wait_s: float, server: Loopback, clients: dict[str, Any]
) -> None:
    """The SDK counts from this machine's clock, and we from the vendor's: the clocks may differ."""
    headers = {"retry-after": sent, "date": "Fri, 20 Nov 2026 10:00:00 GMT"}
    server.handler = lambda _: Answer.json(said("rate_limit_exceeded"), 429, headers)
    response = raised(clients["openai"], SDKS["openai"]).error.response

    error = of_answer(Head(response.status_code, dict(response.headers)), response.content)

    assert isinstance(error, RateLimited)
    assert error.retry_after_s == wait_s


def test_an_error_inside_a_stream_of_openai(server: Loopback, clients: dict[str, Any]) -> None:
    """The SDK raises in the middle of a stream, and what it was told stands for the same."""
    message = said("rate_limit_exceeded", "requests")
    server.handler = lambda _: Answer.sse(events(message))
    with pytest.raises(openai.APIError) as caught:
        list(clients["openai"].chat.completions.create(model="m", messages=HI, stream=True))

    assert type(of_message(message)) is BY_CODE[str(caught.value.code)]


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "authentication_error"])
def test_an_error_inside_a_stream_of_anthropic(
    kind: str, server: Loopback, clients: dict[str, Any]
) -> None:
    """An event named error is what its type says, though the status was 200."""
    message = claude(kind)
    event = f"event: error\ndata: {json.dumps(message)}\n\n".encode()
    server.handler = lambda _: Answer.sse([event])
    asked: Any = clients["anthropic"].messages
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(asked.create(model="m", messages=HI, max_tokens=9, stream=True))

    error = of_message(message)

    assert type(error) is BY_CODE[str(caught.value.type)]
    assert error.status is None  # type: ignore[attr-defined]


GOOGLE: list[tuple[int, str, type[DispatcherError]]] = [
    (400, "INVALID_ARGUMENT", BadRequest),
    (400, "FAILED_PRECONDITION", BadRequest),
    (401, "UNAUTHENTICATED", AuthRejected),
    (403, "PERMISSION_DENIED", AuthRejected),
    (404, "NOT_FOUND", ModelNotFound),
    (429, "RESOURCE_EXHAUSTED", RateLimited),
    (500, "INTERNAL", BadReply),
    (501, "UNIMPLEMENTED", Unsupported),
    (503, "UNAVAILABLE", Overloaded),
    (504, "DEADLINE_EXCEEDED", Overloaded),
]


@pytest.mark.parametrize("form", ["object", "list"])
@pytest.mark.parametrize(("code", "status", "expected"), GOOGLE, ids=[row[1] for row in GOOGLE])
def test_google(
    code: int, status: str, expected: type[DispatcherError], form: str, server: Loopback
) -> None:
    """Each status of Google's is one class of ours, and who is at fault agrees with the SDK."""
    error_object = {"error": {"code": code, "message": "It is so.", "status": status}}
    body: Any = [error_object] if form == "list" else error_object
    server.handler = lambda _: Answer.json(body, code)
    options = genai_types.HttpOptions(base_url=server.url)
    with (
        genai.Client(api_key=KEY, http_options=options) as client,
        pytest.raises(genai_errors.APIError) as caught,
    ):
        client.models.generate_content(model="m", contents="Hi")

    error = of_answer(Head(code, {}), json.dumps(body).encode())

    assert type(error) is expected
    assert error.status == caught.value.code  # type: ignore[attr-defined]
    assert isinstance(caught.value, genai_errors.ClientError) is (code < 500)
    assert "It is so." in str(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"detail": "Unauthorized"}, AuthRejected),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "no", "type": "missing"}]}, BadRequest),
        (429, {"object": "error", "message": "no", "type": "rate_limited"}, RateLimited),
        (500, {"object": "error", "message": "no", "type": "internal_server_error"}, BadReply),
        (503, {"object": "error", "message": "no"}, Overloaded),
    ],
)
def test_mistral(status: int, body: Any, expected: type[DispatcherError], server: Loopback) -> None:
    """The SDK has one class and shows the status and the body: both are what we read."""
    server.handler = lambda _: Answer.json(body, status)
    with (
        mistralai.client.Mistral(api_key=KEY, server_url=server.url) as client,
        pytest.raises(MistralError) as caught,
    ):
        client.chat.complete(model="m", messages=HI)

    error = of_answer(Head(status, {}), caught.value.body.encode())

    assert type(error) is expected
    assert error.status == caught.value.status_code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "registry.ollama.ai/library/x does not support tools", Unsupported),
        (404, "model 'x' not found", ModelNotFound),
        (503, "server busy, please try again.", Overloaded),
        (500, "boom", BadReply),
    ],
)
def test_ollama(
    status: int, message: str, expected: type[DispatcherError], server: Loopback
) -> None:
    """The SDK shows the status and the words: both are in our error."""
    server.handler = lambda _: Answer.json({"error": message}, status)
    client = ollama.Client(host=server.url)
    try:
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat(model="x", messages=HI)
    finally:
        client._client.close()

    error = of_answer(Head(status, {}), json.dumps({"error": message}).encode())

    assert type(error) is expected
    assert error.status == caught.value.status_code  # type: ignore[attr-defined]
    assert caught.value.error in str(error)
