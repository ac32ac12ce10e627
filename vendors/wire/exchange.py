"""What an HTTP dialect is: pure code between values of ``models`` and JSON on a wire.

A ``Wire`` turns work into *exchanges*: an ``Ask``, which says what to send, and ``Replies``, which
reads what comes back. It opens nothing: ``vendors.http`` sends, cuts streams into messages, parses
their JSON and watches bounds and deadlines. Keys are not known here; they go into headers there.

Rules for a dialect:
- What a request asks for is sent or refused (``Unsupported``), never dropped.
- What comes back is a stranger's: whatever it is, ``Replies`` gives pieces or raises an error of
  ``models.errors`` (``BadReply`` for what cannot be read). Unknown fields and kinds are ignored.
- A reply is whole only when every choice said why it ended. ``Replies.finish`` is None until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Finish, Piece, Usage
from llmdispatcher.models.request import Request


@attrs.frozen(kw_only=True)
class Ask:
    """One HTTP request, without address and keys."""

    path: str
    """Behind the vendor's base address, with its query: ``"/chat/completions"``."""
    body: Mapping[str, Any] | None = None
    """Sent as JSON with POST; None sends a GET without a body."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    own_header: tuple[str, str] | None = None
    """One that no other request has, beside those that many share."""
    at_root: bool = False
    """The path is behind the server's own root instead: ``"/health"`` beside ``"/v1"``."""
    streams: bool = False
    """The answer was asked for in pieces."""


@attrs.frozen
class Head:
    """The beginning of an answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def media_type(self) -> str:
        """The kind of content, in lower case and without parameters; empty where not told."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Replies(Protocol):
    """Reads the answer to one ask. Made afresh for each."""

    is_done: bool
    """The last message said that nothing follows: the stream need not be read on."""

    def take(self, event: str, message: Any) -> Iterable[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read one message of a stream; ``event`` is its name where the stream names them.

        Raises what the message stands for, where it is an error.
        """

    def whole(self, message: Any) -> Iterable[Piece]:  # noqa: ANN401 - a stranger's JSON
        """Read an answer that came in one, also where a stream was asked for."""

    def finish(self) -> Finish | None:
        """Return the end, once every choice said why it ended; None before that."""

    def usage(self) -> Usage:
        """Return the tokens until now, as far as they are known; else estimated."""


class Repeating(Protocol):
    """Replies whose stream says one frame over and over, with another piece of text in it."""

    def plain(self, message: Any) -> str | None:  # noqa: ANN401 - a stranger's JSON
        """Return the text of a message that says nothing else; None of any other.

        It changes nothing, and what it says of a message holds until the stream ends, whatever the
        text in it is.
        """

    def again(self, text: str) -> Piece:
        """Read a message that is plain, by its text."""


def repeating(replies: Replies) -> Repeating | None:
    """Return the same replies, if their stream is one of frames."""
    # asking for a Protocol takes longer than looking it up
    return replies if hasattr(replies, "plain") else None  # type: ignore[return-value]


class Proving(Protocol):
    """Replies whose end can prove that a message which could not be read held nothing of them."""

    def doubt(self) -> bool:
        """Take note of such a message; whether the end could still prove that it is not missed."""

    def is_proved(self) -> bool:
        """Whether the end has proved that nothing is missing. Asked once there is one."""


def proving(replies: Replies) -> Proving | None:
    """Return the same replies, if they can prove that."""
    return replies if hasattr(replies, "is_proved") else None  # type: ignore[return-value]


@attrs.frozen
class Exchange:
    """An ask, and who reads its answer."""

    ask: Ask
    replies: Replies


@attrs.frozen
class Listed:
    """A page of a vendor's list of models."""

    cards: tuple[ModelCard, ...]
    more: Ask | None = None
    """What asks for the next page, if there is one."""


@attrs.frozen
class Health:
    """What a probe found."""

    is_ready: bool
    is_loading: bool = False
    """Not ready yet, and will be: a server that reads its model."""
    detail: str = ""
    """Why not, in words."""
    loaded: tuple[str, ...] | None = None
    """The models that a local server has in memory; None where it does not tell."""


@attrs.frozen(kw_only=True)
class Site:
    """What a dialect knows of the place where it is spoken."""

    vendor: str
    """The name that cards and errors bear."""
    local: bool = False
    """It runs on this machine, and so do its models."""
    streaming: bool = True
    """Ask for replies in pieces."""
    keep_alive_s: float | None = None
    """How long a local server keeps a model loaded after the request; None is its own default."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of the vendor's own that go into every request for a reply, as they are."""
    registry: str = ""
    """As which vendor ``models.registry`` knows the models here; empty at any other address."""


class Wire(Protocol):
    """One dialect at one site."""

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Return what to ask, in order, at least one; several where a vendor takes no more at once.

        Each has its own Finish; their usage is added up. Raises a RequestError for what this vendor
        cannot do, before anything is sent.
        """

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer with a status of 300 or more stands for."""

    def card(self, model: str) -> ModelCard:
        """Return what is known of a model by its name alone."""

    def listing(self) -> Ask | None:
        """Return what asks for the list of models; None where there is no such list."""

    def listed(self, message: Any) -> Listed:  # noqa: ANN401 - a stranger's JSON
        """Read a page of that list. Raises BadReply."""

    def probe(self) -> Ask:
        """Return the cheapest question that tells whether the vendor would serve now."""

    def probed(self, head: Head, body: bytes) -> Health:
        """Read its answer, whatever the status."""

    def loading(self, model: str) -> Ask | None:
        """Return what has a local server load a model and answers when it is loaded.

        None where there is nothing to load, or no way to say so.
        """

    def holding(self) -> Ask | None:
        """Return what asks a local server which models it has in memory; None elsewhere."""

    def held(self, message: Any) -> tuple[str, ...]:  # noqa: ANN401 - a stranger's JSON
        """Read its answer: their names. Raises BadReply."""

    def counting(self, request: Request, card: ModelCard) -> Ask | None:
        """Return what asks how many tokens the request's prompt has; None where nobody tells."""

    def counted(self, message: Any) -> int:  # noqa: ANN401 - a stranger's JSON
        """Read its answer. Raises BadReply."""
