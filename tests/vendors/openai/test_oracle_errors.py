"""The vendors' own SDKs as the oracle of errors: of every status, and inside a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import groq
import mistralai.client
import openai
import pytest
import together
from loopback import Answer, Loopback
from openai_sdks import SDKS, exchange, wire
from oracle import ours
from speaking_openai import failed

from llmdispatcher import Request
from llmdispatcher.models import errors

pytestmark = pytest.mark.soak
"""Some minutes together: each client is imported, and asked in every way."""

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]

THEIRS = (openai.APIError, groq.APIError, together.APIError)

KINDS: dict[str, tuple[str, type[errors.DispatcherError]]] = {
    "auth": ("AuthenticationError", errors.AuthRejected),
    "rate": ("RateLimitError", errors.RateLimited),
    "quota": ("RateLimitError", errors.QuotaExhausted),
    "overflow": ("BadRequestError", errors.ContextOverflow),
    "overloaded": ("InternalServerError", errors.Overloaded),
    "missing": ("NotFoundError", errors.ModelNotFound),
    "filter": ("BadRequestError", errors.ContentRefused),
    "bad": ("BadRequestError", errors.BadRequest),
}
"""What vendors say: the SDKs' class, which is that of a status, and ours, of the cause."""

OWN_KINDS: dict[tuple[str, str], tuple[str, type[errors.DispatcherError]]] = {
    ("together", "overflow"): ("PermissionDeniedError", errors.ContextOverflow),
    ("groq", "overflow"): ("APIStatusError", errors.ContextOverflow),
}

STATUSES: dict[int, tuple[str, tuple[type[errors.DispatcherError], ...]]] = {
    400: ("BadRequestError", (errors.BadRequest,)),
    401: ("AuthenticationError", (errors.AuthRejected,)),
    402: ("APIStatusError", (errors.QuotaExhausted,)),
    403: ("PermissionDeniedError", (errors.AuthRejected, errors.ContextOverflow)),
    404: ("NotFoundError", (errors.ModelNotFound,)),
    408: ("APIStatusError", (errors.Overloaded,)),
    409: ("ConflictError", (errors.Overloaded,)),
    422: ("UnprocessableEntityError", (errors.BadRequest,)),
    429: ("RateLimitError", (errors.RateLimited,)),
    500: ("InternalServerError", (errors.BadReply, errors.Overloaded)),
    502: ("InternalServerError", (errors.Overloaded, errors.Unreachable)),
    503: ("InternalServerError", (errors.Overloaded,)),
    504: ("InternalServerError", (errors.Overloaded, errors.TimedOut)),
}
"""Of a body that tells nothing: the SDKs' class, and what it may be here."""


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server; what it answers is the test's to say."""
    with Loopback(lambda _: Answer.json({})) as loopback:
        yield loopback


def theirs(preset: str, server: Loopback) -> Any:
    """Ask with the SDK; return its error."""
    sdk = SDKS[preset]
    with sdk.make(server.url) as client:
        if preset == "mistral":
            with pytest.raises(mistralai.client.errors.SDKError) as caught:
                client.chat.complete(model=sdk.model, messages=HI)
            return caught.value
        with pytest.raises(THEIRS) as any_caught:
            client.chat.completions.create(model=sdk.model, messages=HI)
        return any_caught.value


def our_error(preset: str, server: Loopback) -> Any:
    """Ask with our dialect; return its error."""
    with pytest.raises(errors.DispatcherError) as caught:
        ours(server.url + SDKS[preset].base, exchange(preset, Request.of("Hi")), wire(preset).fault)
    return caught.value


@pytest.mark.parametrize("preset", SDKS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_vendor_says_is_heard_alike(server: Loopback, preset: str, kind: str) -> None:
    """Where the SDK tells the status, we tell the cause; status, words and time are the same."""
    server.handler = lambda _: failed(preset, kind)
    name, ours_is = OWN_KINDS.get((preset, kind)) or KINDS[kind]
    their, our = theirs(preset, server), our_error(preset, server)
    assert our.status == their.status_code
    if preset != "mistral":
        assert type(their).__name__ == name
        if kind == "rate":
            assert our.retry_after_s == float(their.response.headers["retry-after"])
    assert type(our) is ours_is


@pytest.mark.parametrize("preset", [name for name in SDKS if name != "mistral"])
@pytest.mark.parametrize("status", STATUSES)
def test_statuses_are_heard_alike(server: Loopback, preset: str, status: int) -> None:
    """Of an error that says nothing the status tells what it is, and the id is the answer's."""
    headers = {"x-request-id": "req_7"}
    body = {"error": {"message": "No."}}
    server.handler = lambda _: Answer.json(body, status, headers)
    name, kinds = STATUSES[status]
    their, our = theirs(preset, server), our_error(preset, server)
    assert type(their).__name__ == name
    assert our.status == their.status_code == status
    assert our.request_id == "req_7"
    if isinstance(their, openai.APIStatusError):
        assert their.request_id == "req_7"
    assert isinstance(our, kinds)


@pytest.mark.parametrize("preset", [name for name in SDKS if name != "mistral"])
def test_an_error_inside_a_stream_is_one(server: Loopback, preset: str) -> None:
    """What an SDK raises in the middle of a stream is raised here too."""
    server.handler = lambda _: failed(preset, "inside")
    sdk = SDKS[preset]
    with (
        sdk.make(server.url) as client,
        client.chat.completions.create(model=sdk.model, messages=HI, stream=True) as stream,
        pytest.raises(THEIRS, match="The server had an error"),
    ):
        list(stream)
    assert "The server had an error" in str(our_error(preset, server))
