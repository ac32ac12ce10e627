"""Whoever goes on with a reply that broke has what is left of ``max_tokens``, counted apart."""

from __future__ import annotations

from typing import Any

import pytest
from loopback import Answer, Got, Loopback, events
from worlds import WORLDS, World

from llmdispatcher import VLLM, Capability, Dispatcher, Request, RetryPolicy, Scripted
from llmdispatcher.models.request import Options
from llmdispatcher.vendors.scripted import CUT

ONCE = RetryPolicy(same_target=0)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads and asyncio."""
    return WORLDS[request.param]


def vendor(name: str, seen: list[int | None], *said: Any, **options: Any) -> Scripted:
    """Return a vendor that says so much, and keeps what it may write."""

    def reply(request: Request) -> Any:
        seen.append(request.max_tokens)
        return list(said)

    return Scripted(reply, name=name, **options)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(10, [10, 8, 7]), (3, [3, 1, 1]), (1, [1, 1, 1]), (None, [None, None, None])],
)
def test_what_was_written_is_taken_from_what_may_be(
    world: World, asked: int | None, expected: list[int | None]
) -> None:
    """Of a vendor that does not count, as many as its pieces; one is left, to end with."""
    seen: list[int | None] = []
    vendors = (
        vendor("first", seen, "one ", "two ", CUT),
        vendor("second", seen, "three ", CUT),
        vendor("third", seen, "four"),
    )

    heard = world(vendors, "stream", "hi", retry=ONCE, resume="continue", max_tokens=asked)

    assert heard.reply is not None, heard.error
    assert heard.text == heard.reply.text == "one two three four"
    assert seen == expected
    used = [each.usage.completion_tokens for each in heard.reply.decision.attempts]
    assert used == [2, 1, 1]
    assert heard.reply.usage.completion_tokens == 1


def test_who_begins_anew_may_write_all_of_it(world: World) -> None:
    """Nothing of what was shown counts any more."""
    seen: list[int | None] = []
    blunt = vendor("second", seen, "all", capabilities=[Capability.CHAT])
    vendors = vendor("first", seen, "one ", "two ", CUT), blunt

    heard = world(vendors, "stream", "hi", retry=ONCE, resume="restart", max_tokens=10)

    assert heard.reply is not None, heard.error
    assert seen == [10, 10]


def test_a_count_that_was_told_goes_before_pieces() -> None:
    """A piece may hold several tokens."""

    def handle(got: Got) -> Answer:
        if got.body is None:
            return Answer.json({})  # it is well
        if got.body["model"] == "a":
            piece = {"index": 0, "delta": {"content": "one two "}}
            told = {"prompt_tokens": 3, "completion_tokens": 7}
            return Answer.sse(events({"id": "a", "choices": [piece], "usage": told}, done=False))
        last = {"index": 0, "delta": {"content": "three"}, "finish_reason": "stop"}
        return Answer.sse(events({"id": "b", "choices": [last]}))

    with Loopback(handle) as server:
        vendors = [VLLM(name=name, base_url=server.url, models=[name]) for name in ("a", "b")]
        options: Options = {"resume": "continue", "max_tokens": 10}
        with Dispatcher(*vendors, retry=ONCE) as d, d.stream("hi", **options) as stream:
            text = "".join(delta.text for delta in stream)

    assert text == "one two three"
    assert [got.body["max_tokens"] for got in server.got if got.body] == [10, 3]
