"""Names of requests: the same for each attempt at one, and only where a vendor reads them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from loopback import Answer, Got, Loopback, events
from speaking_openai import SHORTEST

from llmdispatcher import (
    AsyncDispatcher,
    BadReply,
    BadRequest,
    Dispatcher,
    HttpVendor,
    OpenAICompatible,
    Request,
    RetryPolicy,
)
from llmdispatcher.vendors.http.preset import _OWN, row
from llmdispatcher.vendors.openai.rows import ROWS

HEADER = "Idempotency-Key"
SOON = RetryPolicy(backoff_s=0.01, backoff_cap_s=0.02)
CUT = Answer(raw=True, chunks=(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",))
"""An answer whose outcome nobody knows."""


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries are as a user has them."""


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that cuts its first answer, and serves the next."""

    def handle(got: Got) -> Answer:
        if got.path.endswith("/embeddings"):
            vectors = [{"index": i, "embedding": [1.0]} for i, _ in enumerate(got.body["input"])]
            return Answer.json({"data": vectors})
        return CUT if len(made.got) % 2 else Answer.json(SHORTEST)

    with Loopback(handle) as made:
        yield made


def vendor(server: Loopback, **options: Any) -> HttpVendor:
    """Make a vendor at the server."""
    given = {"base_url": server.url, "models": ["m"], "idempotency_header": HEADER, **options}
    return OpenAICompatible(**given)


def named(server: Loopback) -> list[str | None]:
    """Return how each request was named."""
    return [got.headers.get(HEADER.lower()) for got in server.got]


def test_each_attempt_at_a_request_bears_the_same_name(server: Loopback) -> None:
    """And the next request another; a name is a random UUID."""
    with Dispatcher(vendor(server), retry=SOON) as d:
        d.send("hi")
        d.send("hi")

    one, again, two, _ = named(server)
    assert named(server) == [one, one, two, two]
    assert one == again != two
    assert [UUID(name or "").version for name in (one, two)] == [4, 4]


def test_a_reply_that_is_not_fit_is_asked_for_under_another_name(server: Loopback) -> None:
    """A gateway that knows the first would give the same reply again."""
    server.handler = lambda _: Answer.json(SHORTEST)
    schema = {"type": "object", "properties": {}}
    with Dispatcher(vendor(server), retry=SOON) as d, pytest.raises(BadReply):
        d.send("hi", schema=schema)

    names = named(server)
    assert len(names) == len({*names}) > 1


def test_it_is_the_same_in_an_event_loop_and_for_streams(server: Loopback) -> None:
    """Both worlds and both forms name their requests."""

    async def main() -> None:
        async with AsyncDispatcher(vendor(server), retry=SOON) as d:
            await d.send("hi")
            server.handler = lambda _: Answer.sse(events(CHUNK))
            async with d.stream("hi") as stream:
                assert [delta.text async for delta in stream] == ["a"]

    asyncio.run(main())

    one, again, two = named(server)
    assert one == again
    assert two not in {None, one}


CHUNK = {"id": "r1", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}


def test_another_model_is_not_asked_the_same(server: Loopback) -> None:
    """The body differs, and so does the name: a gateway would take it for a mistake."""
    server.handler = lambda _: Answer.json({"error": {"message": "no"}}, 400)
    asked = Dispatcher(vendor(server, models=["m", "n"]), retry=SOON)
    with asked as d, pytest.raises(ExceptionGroup):
        d.send("hi")

    one, two = named(server)
    assert None not in {one, two}
    assert one != two


def test_where_no_vendor_reads_one_none_is_sent(server: Loopback) -> None:
    """A preset names its requests only if its row says in which header."""
    with Dispatcher(vendor(server, idempotency_header=None), retry=SOON) as d:
        d.send("hi")
    with Dispatcher(vendor(server, idempotency_header=""), retry=SOON) as d:
        d.send("hi")

    assert named(server) == [None] * 4


@pytest.mark.parametrize("preset", [*_OWN, *ROWS])
def test_no_known_vendor_documents_one(preset: str) -> None:
    """Whoever finds that one does changes its row, and this list of none."""
    assert row(preset).idempotency_header == ""


def test_several_asks_of_one_request_have_names_of_their_own(server: Loopback) -> None:
    """A gateway that knows the first would else answer the second with the first's vectors."""
    server.handler = lambda got: Answer.json(
        {"data": [{"index": i, "embedding": [1.0]} for i, _ in enumerate(got.body["input"])]}
    )
    with Dispatcher(vendor(server, models=["text-embedding-3-small"])) as d:
        d.embed(["a"] * 200)

    one, two = named(server)
    assert two == f"{one}-1"


def test_a_header_of_the_users_own_stays(server: Loopback) -> None:
    """What the user sends with every request is not sent twice."""
    server.handler = lambda _: Answer.json(SHORTEST)
    with Dispatcher(vendor(server, headers={"idempotency-key": "mine"})) as d:
        d.send("hi")

    assert named(server) == ["mine"]


def test_the_callers_own_client_sends_it_too(server: Loopback) -> None:
    """With its other headers."""
    server.handler = lambda _: Answer.json(SHORTEST)
    with httpx2.Client() as client, Dispatcher(vendor(server, client=client)) as d:
        d.send("hi")

    assert UUID(named(server)[0] or "").version == 4


def test_it_is_in_no_log_and_no_error(server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever knows it could be given the reply."""
    caplog.set_level(logging.DEBUG)
    server.handler = lambda _: Answer.json({"error": {"message": "no"}}, 400)
    with Dispatcher(vendor(server)) as d, pytest.raises(BadRequest) as caught:
        d.send("hi")

    name = named(server)[0]
    assert name is not None
    assert name not in f"{caught.value!r} {caught.value} {vars(caught.value)}"
    assert name not in caplog.text
    assert name not in repr(Request(messages="hi", once=name))


@pytest.mark.parametrize("header", ["a b", "content-length", "x" * 200, 7])
def test_what_is_no_header_is_refused(server: Loopback, header: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest, match="idempotency_header"):
        vendor(server, idempotency_header=header)
