"""The smallest dialect that there can be, and calls of it in both worlds, for tests of transport.

A stream is ``{"t": "text"}`` as often as needed and ``{"end": n}`` with the tokens of the reply; an
answer in one is ``{"text": …, "end": n}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs

from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Piece, Usage
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.vendors.contract import Call
from llmdispatcher.vendors.http.answer import Reading
from llmdispatcher.vendors.http.clients import Place
from llmdispatcher.vendors.http.engine import HttpEngine, Outfit
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Health, Listed
from llmdispatcher.vendors.wire.reading import fields, items, tally, words

LIVE_S = 20.0
"""A bound on what must happen at once, on a machine that is slow, and busy with something else."""


def told(*texts: str, tokens: int = 3) -> list[bytes]:
    """Return a reply as server-sent events."""
    messages: list[dict[str, Any]] = [{"t": text} for text in texts]
    return [b"data: " + json.dumps(m).encode() + b"\n\n" for m in [*messages, {"end": tokens}]]


class PlainReplies:
    """Reads one answer."""

    def __init__(self) -> None:
        self.is_done = False
        self.tokens: int | None = None

    def take(self, event: str, message: Any) -> Iterable[Piece]:
        """Read one message."""
        said = fields(message)
        if "error" in said:
            raise faults.of_message(message)
        if "end" in said:
            self.tokens = tally(said["end"])
        if text := words(said.get("t")):
            yield Delta(text)

    def whole(self, message: Any) -> Iterable[Piece]:
        """Read all of it."""
        yield from self.take("", message)
        if text := words(fields(message).get("text")):
            yield Delta(text)

    def finish(self) -> Finish | None:
        """Return the end, once it was told."""
        return None if self.tokens is None else Finish(FinishReason.STOP, self.usage())

    def usage(self) -> Usage:
        """Return what was told."""
        return Usage(prompt_tokens=1, completion_tokens=self.tokens or 0)


@attrs.frozen
class PlainWire:
    """The dialect; ``asks`` are the paths of the exchanges of a request."""

    asks: tuple[str, ...] = ("/chat",)
    headers: dict[str, str] = attrs.field(factory=dict)
    vendor: str = "plain"

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Ask each path."""
        text = work.messages[-1].text if isinstance(work, Request) else ""
        body = {"model": card.model, "text": text}
        return [
            Exchange(Ask(path=path, body=body, headers=self.headers, streams=True), PlainReplies())
            for path in self.asks
        ]

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """As everybody."""
        return faults.of_answer(head, body)

    def card(self, model: str) -> ModelCard:
        """Chat, for nothing."""
        return ModelCard(
            vendor=self.vendor,
            model=model,
            context_tokens=None,
            capabilities=frozenset({Capability.CHAT}),
            local=True,
            price=FREE,
        )

    def listing(self) -> Ask | None:
        """Ask for the first page."""
        return Ask(path="/models")

    def listed(self, message: Any) -> Listed:
        """Read a page; ``more`` is the path of the next."""
        said = fields(message)
        more = words(said.get("more"))
        cards = tuple(self.card(words(name)) for name in items(said.get("models")))
        return Listed(cards, Ask(path=more) if more else None)

    def probe(self) -> Ask:
        """Ask whether it is well."""
        return Ask(path="/health", at_root=True)

    def probed(self, head: Head, body: bytes) -> Health:
        """Read that."""
        is_ready = head.status == 200
        detail = "" if is_ready else body.decode(errors="replace")
        return Health(is_ready=is_ready, is_loading=b"loading" in body, detail=detail)

    def loading(self, model: str) -> Ask | None:
        """Load by asking."""
        return Ask(path="/load", body={"model": model})

    def holding(self) -> Ask | None:
        """Nobody tells."""
        return None

    def held(self, message: Any) -> tuple[str, ...]:
        """See above."""
        return tuple(map(words, items(message)))

    def counting(self, request: Request, card: ModelCard) -> Ask | None:
        """Nobody counts."""
        return None

    def counted(self, message: Any) -> int:
        """See above."""
        return tally(message)


def place(url: str, **options: Any) -> Place:
    """Return where a server is."""
    return Place(root=url, base=url, **options)


def engine(url: str, wire: Any = None, **options: Any) -> HttpEngine:
    """Make an engine with one model."""
    made = PlainWire() if wire is None else wire
    where = options.pop("place", None) or place(url, **options.pop("reached", {}))
    cards = options.pop("cards", (made.card("m"),))
    return HttpEngine(Outfit(wire=made, whole=made, place=where, cards=cards, **options))


@contextlib.contextmanager
def closing(made: HttpEngine) -> Iterator[HttpEngine]:
    """Close an engine behind a test, and let what was left open complain."""
    try:
        yield made
    finally:
        made.close()
        gc.collect()


def ask(text: str = "Hello.", **deadlines: Any) -> Request:
    """Return a request."""
    return Request.of(text, deadlines=Deadlines(**deadlines))


Receive = Callable[[HttpEngine, Request, float | None], list[Piece]]


def read_answer(made: Reading, beginning: Head, chunks: Iterable[bytes]) -> list[Piece]:
    """Read one answer as a call does. Raises what comes behind its pieces."""
    made.begin(beginning)
    pieces: list[Piece] = []
    for chunk in chunks:
        pieces += made.feed(chunk)
        made.check()
        if made.is_answered:
            break
    pieces += made.end()
    made.check()
    return pieces


def in_thread(made: HttpEngine, request: Request, timeout_s: float | None = LIVE_S) -> list[Piece]:
    """Read a reply to its end."""
    return read(made.submit(request, "m"), timeout_s)


def read(call: Call, timeout_s: float | None = LIVE_S) -> list[Piece]:
    """Read a reply to its end."""
    pieces: list[Piece] = []
    while not (pieces and isinstance(pieces[-1], Finish)):
        pieces += call.receive(timeout_s)
    return pieces


async def aread(call: Call, timeout_s: float | None = LIVE_S) -> list[Piece]:
    """Read a reply to its end, in an event loop."""
    pieces: list[Piece] = []
    while not (pieces and isinstance(pieces[-1], Finish)):
        pieces += await call.areceive(timeout_s)
    return pieces


def in_loop(made: HttpEngine, request: Request, timeout_s: float | None = LIVE_S) -> list[Piece]:
    """Do the same in an event loop of its own."""

    async def main() -> list[Piece]:
        return await aread(made.submit(request, "m"), timeout_s)

    return asyncio.run(main())


WORLDS: dict[str, Receive] = {"threads": in_thread, "asyncio": in_loop}


def text_of(pieces: Iterable[Piece]) -> str:
    """Join the text."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta))
