"""Serves one request: asks the server, and hands on what comes, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest
from llmdispatcher.models.reply import Finish, FinishReason, Progress, Usage
from llmdispatcher.vendors.llamacpp.server import faults, pools
from llmdispatcher.vendors.llamacpp.server.call import ServerCall
from llmdispatcher.vendors.llamacpp.server.client import Answer, Broken, Client
from llmdispatcher.vendors.llamacpp.server.stream import Lines, Replies
from llmdispatcher.vendors.llamacpp.server.wire import Ask
from llmdispatcher.vendors.mailbox import fire

Prompted = Callable[[int], None]
"""Told how many tokens a prompt has."""


async def write(client: Client, call: ServerCall, ask: Ask, prompted: Prompted) -> None:
    """Have replies written. Raises a DispatcherError, and Broken where the stream is cut."""
    async with client.post(ask.path, ask.body) as answer:
        if answer.status != HTTPStatus.OK:
            raise faults.of_answer(answer.status, await answer.body(), ask)
        finish = await _relay(answer, call, ask, prompted)
    fire([call.put(finish)])


async def _relay(answer: Answer, call: ServerCall, ask: Ask, prompted: Prompted) -> Finish:
    """Hand on the pieces; returns the end."""
    lines, replies = Lines(), Replies(ask)
    async for chunk in answer.chunks():
        pieces = [piece for data in lines.feed(chunk) for piece in replies.take(data)]
        for piece in pieces:
            if isinstance(piece, Progress):
                prompted(piece.total)
        call.used, call.partial = replies.usage(), replies.partial
        fire([call.put(piece) for piece in pieces])
        if replies.is_done:
            break
    finish = replies.finish()
    if finish is None:
        raise Broken("the server ended the stream without saying why the reply ends")
    return finish


async def pool(client: Client, call: ServerCall, work: EmbedRequest | RerankRequest) -> None:
    """Have texts turned into vectors or scores. Raises as ``write``."""
    tokens = 0
    for first, ask in pools.asks(work):
        async with client.post(ask.path, ask.body) as answer:
            body = await answer.body()
        if answer.status != HTTPStatus.OK:
            raise faults.of_answer(answer.status, body, ask)
        read, used = pools.results(ask, first, body)
        tokens += used
        call.used = Usage(prompt_tokens=tokens)
        fire([call.put(piece) for piece in read])
    fire([call.put(Finish(FinishReason.STOP, Usage(prompt_tokens=tokens)))])
