"""What a role of ``FaultServer`` does about a request: serve it well, or fail in one exact way.

A healthy reply is always the same sixty words, a word for each piece, so that a part of it is never
taken for the whole. A request that ends with the beginning of it gets the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import attrs
from faults.server import Behave, Exchange

ANSWER = (
    "Ships that sail alone carry two compasses, because one will fail on the night when it is "
    "needed most. A captain who trusts a single needle learns its error from the rocks. So ask "
    "both, believe neither at once, and write down what each of them said. At dawn the shore "
    "decides, and the log tells which compass was wrong."
)
WORDS = 60

CUT_AT, STALL_AT, SPOIL_AT = 40, 20, 10
"""Words after which a stream is cut, falls silent or has a spoilt event."""

FOREVER_S = 3600.0
DRIP_S = 0.02
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
FLOOD = b"x" * 2**16
"""A piece of a body without end."""
FLOOD_MB = 48
"""Where even that ends, so that a client without a bound survives to be judged."""


@attrs.frozen(kw_only=True)
class Manner:
    """How a reply is sent, and where it goes wrong."""

    word_s: float = 0.0
    """Between two words."""
    late_s: float = 0.0
    """Between the head and the first piece."""
    greets: bool = False
    """Send the empty piece that names the role before that."""
    cut_at: int | None = None
    stall_at: int | None = None
    stall_s: float = 0.0
    spoil_at: int | None = None
    """Before this word comes an event that is no JSON. It replaces nothing."""
    loses: bool = False
    """... but it does: the word itself is in it."""
    fail_at: int | None = None
    """Before this word comes an event that is an error, and it is the last."""
    finish: bool = True
    """Say why the reply ended."""
    usage: bool = True
    done: bool = True
    """Send ``[DONE]``."""
    stop_at: int | None = None
    """Leave out all words from here on, and end in good order."""
    crawl_at: int | None = None
    crawl_s: float = 0.0
    """Between two words from there on."""


def saying(manner: Manner | None = None) -> Behave:
    """Answer, in this manner."""
    how = manner or Manner()

    async def behave(x: Exchange) -> None:
        x.seen.told = x.seen.told or "answered"
        await (_streamed(x, how) if x.seen.is_streamed else _whole(x, how))

    return behave


def rest(x: Exchange) -> list[str]:
    """Return the words that are still to be said, each with the space before it."""
    prefix = x.seen.prefix
    left = ANSWER[len(prefix) :] if prefix and ANSWER.startswith(prefix) else ANSWER
    words = left.split(" ")
    return [words[0], *(" " + word for word in words[1:])]


def usage(x: Exchange, words: int) -> dict[str, int]:
    """Count a word as a token."""
    prompt = sum(len(str(m.get("content") or "").split()) + 4 for m in x.seen.messages)
    return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


def _common(x: Exchange, kind: str) -> dict[str, Any]:
    name = f"chatcmpl-{x.role.name}-{x.seen.number}"
    return {"id": name, "object": kind, "created": 1, "model": x.role.name}


def event(x: Exchange, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
    """Return an event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return sse({**_common(x, "chat.completion.chunk"), "choices": [choice]})


def sse(message: object) -> bytes:
    """Return an event with any message."""
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def failure(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error as the OpenAI API writes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


_BUSY = failure("The server is overloaded. Please try again later.", "server_error", "overloaded")

STREAM = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}


async def _streamed(x: Exchange, how: Manner) -> None:
    await x.head(200, STREAM)
    greeting = event(x, {"role": "assistant", "content": ""})
    if how.greets:
        await x.chunk(greeting)
    if how.late_s:
        await x.silence(how.late_s)
    if not how.greets:
        await x.chunk(greeting)
    words = rest(x)
    for number, word in enumerate(words[: how.stop_at]):
        if await _goes_wrong(x, how, number, word):
            continue
        await x.chunk(event(x, {"content": word}))
        slow = how.crawl_at is not None and number >= how.crawl_at
        await asyncio.sleep(how.crawl_s if slow else how.word_s)
    await _ending(x, how, len(words[: how.stop_at]))


async def _goes_wrong(x: Exchange, how: Manner, number: int, word: str) -> bool:
    """Do what is to be done before a word; whether the word is gone."""
    if number == how.cut_at:
        x.hang_up()
    elif number == how.stall_at:
        await x.silence(how.stall_s)
        x.hang_up()
    elif number == how.spoil_at:
        begin = f'data: {{"id": "chatcmpl-{x.role.name}", "choices": [{{"delta": {{"content": '
        told = json.dumps(word)[:-1] if how.loses else ""
        await x.chunk(f"{begin}{told}\n\n".encode())
        return how.loses
    elif number == how.fail_at:
        await x.chunk(sse(_BUSY))
        await x.end()
        x.hang_up()
    return False


async def _ending(x: Exchange, how: Manner, words: int) -> None:
    if how.finish:
        await x.chunk(event(x, {}, "stop"))
    if how.usage and x.seen.wants_usage:
        last = {**_common(x, "chat.completion.chunk"), "choices": [], "usage": usage(x, words)}
        await x.chunk(sse(last))
    if how.done:
        await x.chunk(b"data: [DONE]\n\n")
    await x.end()


def reply(x: Exchange, how: Manner) -> dict[str, Any]:
    """Return a reply in one."""
    words = rest(x)[: how.stop_at]
    reason = "stop" if how.finish else None
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    told = {**_common(x, "chat.completion"), "choices": [choice]}
    return {**told, "usage": usage(x, len(words))} if how.usage else told


async def _whole(x: Exchange, how: Manner) -> None:
    """Send the reply in one; what would go wrong in a stream goes wrong in its body."""
    data = json.dumps(_BUSY if how.fail_at is not None else reply(x, how)).encode()
    if how.late_s:
        await x.silence(how.late_s)
    if how.spoil_at is not None:
        data = data[: len(data) // 2] + b'"oops'
    await x.head(200, JSON, size=len(data))
    if how.cut_at is not None:
        await x.send(data[: len(data) * 3 // 5])
        x.hang_up()
    if how.stall_at is not None:
        await x.silence(how.stall_s)
        x.hang_up()
    if how.crawl_at is not None:
        await x.send(data[: len(data) // 2])
        await _dripped(x, data[len(data) // 2 :])
        return
    await x.send(data + x.behind)


# -- when --------------------------------------------------------------------------------------


def first(count: int, bad: Behave, then: Behave) -> Behave:
    """Do one thing about so many requests, and another about the rest."""

    async def behave(x: Exchange) -> None:
        await (bad if x.seen.number <= count else then)(x)

    return behave


def until(seconds: float, bad: Behave, then: Behave) -> Behave:
    """Do one thing for so long, and another after that."""

    async def behave(x: Exchange) -> None:
        await (bad if x.seen.at_s < seconds else then)(x)

    return behave


# -- refusals ----------------------------------------------------------------------------------


def refusing(
    status: int,
    kind: str,
    code: str | None,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Behave:
    """Answer with an error."""

    async def behave(x: Exchange) -> None:
        x.seen.told = f"refused with {status} {code or ''}".strip()
        told = {**(headers or {})}
        if (after := told.pop("retry-after-date", None)) is not None:
            now = time.time()
            told |= {"date": formatdate(now, usegmt=True)}
            told["retry-after"] = formatdate(now + float(after), usegmt=True)
        await x.json(failure(message, kind, code), status, told)

    return behave


def limiting(**headers: str) -> Behave:
    """Answer 429; an underscore in the name of a header stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = "Rate limit reached for this model."
    return refusing(429, "rate_limit_error", "rate_limit_exceeded", told, named)


def limiting_in_words(wait: str) -> Behave:
    """Answer 429, and tell the wait only in a sentence."""
    told = f"Rate limit reached for this model. Please try again in {wait}."
    return refusing(429, "rate_limit_error", "rate_limit_exceeded", told)


broken = refusing(500, "server_error", None, "The server had an error.")
busy = refusing(503, "server_error", "overloaded", "The server is overloaded. Try again later.")
too_long = refusing(
    400,
    "invalid_request_error",
    "context_length_exceeded",
    "This model's maximum context length is 8192 tokens, and your messages have 9631.",
)
filtered = refusing(
    400,
    "invalid_request_error",
    "content_policy_violation",
    "The request was rejected by the safety system.",
)
locked = refusing(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")
unpaid = refusing(429, "insufficient_quota", "insufficient_quota", "You exceeded your quota.")
missing = refusing(404, "invalid_request_error", "model_not_found", "There is no such model.")


def without_prefill(then: Behave) -> Behave:
    """Refuse to continue an assistant's turn."""
    refuse = refusing(
        400,
        "invalid_request_error",
        "invalid_prefill",
        "This model does not continue an assistant message; end with a user message.",
    )

    async def behave(x: Exchange) -> None:
        last = x.seen.messages[-1] if x.seen.messages else {}
        await (refuse if last.get("role") == "assistant" else then)(x)

    return behave


# -- below HTTP --------------------------------------------------------------------------------


async def resetting(x: Exchange) -> None:
    """Reset the connection before the answer begins."""
    x.seen.told = "reset"
    x.reset()


async def resetting_in_head(x: Exchange) -> None:
    """Reset the connection in the middle of the head."""
    x.seen.told = "reset in the head"
    await x.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await asyncio.sleep(0.01)  # else the reset overtakes what was sent
    x.reset()


async def silent(x: Exchange) -> None:
    """Take the request and say nothing."""
    x.seen.told = "silence"
    await x.silence(FOREVER_S)


# -- bodies ------------------------------------------------------------------------------------


async def failing_in_200(x: Exchange) -> None:
    """Answer 200, and put the error into the body, or into the first event."""
    x.seen.told = "an error within 200"
    if not x.seen.is_streamed:
        await x.json(_BUSY)
        return
    await x.head(200, STREAM)
    await x.chunk(sse(_BUSY))
    await x.end()


def page(status: int) -> Behave:
    """Answer with a page of HTML, as something in between does."""

    async def behave(x: Exchange) -> None:
        x.seen.told = f"a page with {status}"
        await x.head(status, {"content-type": "text/html"}, size=len(PAGE))
        await x.send(PAGE)

    return behave


async def answering_twice(x: Exchange) -> None:
    """Send a second answer, of other words, right behind the first on the same connection."""
    x.seen.told = "answered twice"
    lie = reply(x, Manner())
    lie["choices"][0]["message"]["content"] = "This belongs to nobody."
    data = json.dumps(lie).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    x.behind = head.encode() + b"\r\n\r\n" + data
    await (_streamed if x.seen.is_streamed else _whole)(x, Manner())


async def going_on_behind_done(x: Exchange) -> None:
    """Send a second reply in the same body, behind the end of the first."""
    x.seen.told = "two bodies"
    if not x.seen.is_streamed:
        data = json.dumps(reply(x, Manner())).encode() * 2
        await x.head(200, JSON, size=len(data))
        await x.send(data)
        return
    await x.head(200, STREAM)
    for word in rest(x):
        await x.chunk(event(x, {"content": word}))
    await x.chunk(event(x, {}, "stop") + b"data: [DONE]\n\n")
    await x.chunk(event(x, {"content": " This belongs to nobody."}))
    await x.end()


async def dripping(x: Exchange) -> None:
    """Send the answer one byte at a time, so that a piece takes seconds."""
    x.seen.told = "dripped"
    if x.seen.is_streamed:
        await x.head(200, STREAM)
        await _dripped(x, b"".join(event(x, {"content": word}) for word in rest(x)), framed=True)
        return
    data = json.dumps(reply(x, Manner())).encode()
    await x.head(200, JSON, size=len(data))
    await _dripped(x, data)


async def _dripped(x: Exchange, data: bytes, *, framed: bool = False) -> None:
    for index in range(len(data)):
        byte = data[index : index + 1]
        await (x.chunk(byte) if framed else x.send(byte))
        await x.silence(DRIP_S)


async def flooding(x: Exchange) -> None:
    """Send a body that does not end, and never is a reply."""
    x.seen.told = "a body without end"
    await x.head(200, STREAM if x.seen.is_streamed else JSON)
    await x.chunk(
        b'data: {"choices": [{"delta": {"content": "' if x.seen.is_streamed else b'{"a":"'
    )
    for _ in range(FLOOD_MB * 2**20 // len(FLOOD)):
        await x.chunk(FLOOD)
    x.hang_up()
