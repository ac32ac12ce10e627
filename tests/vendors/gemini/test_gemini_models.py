"""What is known of Gemini's models, and what its list, its health and its vectors tell."""

from __future__ import annotations

import json
import math
from array import array
from typing import Any

import pytest
from asking_gemini import WIRE
from loopback import Answer
from speaking_gemini import failed, models, vectors

from llmdispatcher import Capability, EmbedRequest
from llmdispatcher.models.card import FREE
from llmdispatcher.models.embedding import Vector
from llmdispatcher.models.errors import AuthRejected, BadReply, Overloaded
from llmdispatcher.models.reply import Finish, FinishReason, Usage
from llmdispatcher.vendors.gemini.wire import GeminiWire
from llmdispatcher.vendors.wire.exchange import Head, Site
from llmdispatcher.vendors.wire.reading import parsed

C = Capability
THINKS = {C.CHAT, C.VISION, C.TOOLS, C.JSON, C.SCHEMA, C.EFFORT}

CARDS: list[tuple[str, set[Capability], int | None, int | None]] = [
    ("gemini-2.0-flash", THINKS - {C.EFFORT} | {C.CHOICES, C.LOGPROBS}, 2**20, 8192),
    ("gemini-2.5-pro", THINKS | {C.CHOICES}, 2**20, 65536),
    ("models/gemini-2.5-flash-lite", THINKS | {C.CHOICES}, 2**20, 65536),
    ("gemini-3.8-flash", THINKS, 2**20, 65536),
    ("gemini-4-argon", THINKS, 2**20, 65536),
    ("gemini-2.5-flash-image", {C.CHAT, C.VISION}, 65536, 32768),
    ("gemini-2.5-flash-preview-tts", set(), None, None),
    ("gemini-embedding-001", {C.EMBED}, 2048, None),
    ("gemini-embedding-2", {C.EMBED}, 8192, None),
    ("something-else", THINKS, None, None),
]


@pytest.mark.parametrize(("model", "abilities", "context", "output"), CARDS)
def test_cards_by_name(
    model: str, abilities: set[Capability], context: int | None, output: int | None
) -> None:
    """A name tells the family, and the family what it can do; prices are not known here."""
    card = WIRE.card(model)
    assert card.capabilities == abilities
    assert (card.context_tokens, card.max_output_tokens) == (context, output)
    assert (card.vendor, card.model, card.local) == ("gemini", model.removeprefix("models/"), False)
    assert card.price is None
    assert GeminiWire(Site(vendor="x", local=True)).card(model).price == FREE


def test_the_list_of_models() -> None:
    """What the list tells wins over what the name says."""
    listed = WIRE.listed(parsed(models()))
    chat, embed = listed.cards
    assert listed.more is None
    assert (chat.model, chat.context_tokens, chat.max_output_tokens) == (
        "gemini-2.5-flash",
        1048576,
        65536,
    )
    assert Capability.EFFORT in chat.capabilities
    assert embed.capabilities == {Capability.EMBED}
    told = {
        "name": "models/gemini-3.8-flash",
        "inputTokenLimit": 5,
        "thinking": False,
        "supportedGenerationMethods": ["generateContent", "batchEmbedContents"],
    }
    (card,) = WIRE.listed({"models": [told]}).cards
    assert card.capabilities == THINKS - {C.EFFORT} | {C.EMBED}
    assert (card.context_tokens, card.max_output_tokens) == (5, 65536)


def test_the_list_has_pages() -> None:
    """A page tells what asks for the next; what asks is quoted."""
    first = WIRE.listing()
    assert first is not None
    assert (first.path, first.body) == ("/models?pageSize=1000", None)
    more = WIRE.listed({"models": [], "nextPageToken": "a&b=c/\ud800"}).more
    assert more is not None
    assert more.path == "/models?pageSize=1000&pageToken=a%26b%3Dc%2F%3F"
    assert WIRE.listed({}).cards == ()


def test_entries_that_name_no_model_are_left_out() -> None:
    """One odd entry does not hide the others."""
    odd: list[Any] = [
        None,
        1,
        {},
        {"name": ""},
        {"name": " \u2028"},
        {"name": 1},
        {"name": "\ud800"},
        {"name": "models/"},
    ]
    usable = {"name": "models/m", "inputTokenLimit": 1e400, "supportedGenerationMethods": 3}
    assert [card.model for card in WIRE.listed({"models": [*odd, usable]}).cards] == ["m"]


@pytest.mark.parametrize("answer", [None, 1, "x", [], [{}], {"models": {}}, {"models": None}])
def test_what_is_no_list_is_bad(answer: Any) -> None:
    """Whatever comes in the wrong type is told as that."""
    with pytest.raises(BadReply):
        WIRE.listed(answer)


def test_an_error_in_place_of_a_list() -> None:
    """It is the error that it is, also inside an array."""
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    for answer in (error, [error]):
        with pytest.raises(Overloaded):
            WIRE.listed(answer)
    with pytest.raises(Overloaded):
        WIRE.counted(error)


def _body(answer: Answer) -> bytes:
    return b"".join(chunk for chunk in answer.chunks if isinstance(chunk, bytes))


def test_the_probe() -> None:
    """One model of the list says that Gemini would serve; what is refused says why not."""
    assert WIRE.probe().path == "/models?pageSize=1"
    head = Head(200, {"content-type": "application/json"})
    assert WIRE.probed(head, models()).is_ready
    refused = failed("auth")
    health = WIRE.probed(Head(refused.status, refused.headers), _body(refused))
    assert not health.is_ready
    assert "API key not valid" in health.detail
    assert isinstance(
        WIRE.fault(Head(refused.status, refused.headers), _body(refused)), AuthRejected
    )


# -- vectors -----------------------------------------------------------------------------------


def read(answer: Any, *, normalize: bool = True, count: int = 2) -> tuple[list[Vector], Finish]:
    """Read the vectors of the last of two batches."""
    texts = ["x"] * 100 + ["four"] * count
    request = EmbedRequest(texts=texts, normalize=normalize)
    _, exchange = WIRE.exchanges(request, WIRE.card("gemini-embedding-001"))
    assert exchange.replies.finish() is None
    pieces = [*exchange.replies.whole(answer)]
    finish = exchange.replies.finish()
    assert finish is not None
    assert all(isinstance(piece, Vector) for piece in pieces)
    return [piece for piece in pieces if isinstance(piece, Vector)], finish


def test_vectors_are_numbered_throughout() -> None:
    """The second batch goes on where the first ended, and has its own figures."""
    found, finish = read(parsed(vectors(2)), normalize=False)
    assert found == [Vector(100, array("f", [3, -4])), Vector(101, array("f", [3, 4]))]
    assert finish == Finish(FinishReason.STOP, Usage(prompt_tokens=4))
    untold = json.loads(vectors(2))
    del untold["usageMetadata"]
    assert read(untold)[1].usage == Usage(prompt_tokens=2, estimated=True)


def test_vectors_have_the_length_one_where_asked() -> None:
    """Vectors that were shortened have another length; one of noughts stays as it is."""
    found, _ = read({"embeddings": [{"values": [3, 4]}, {"values": [0, 0]}]})
    assert found[0].values == array("f", [0.6, 0.8])
    assert math.isclose(math.hypot(*found[0].values), 1, abs_tol=1e-6)
    assert found[1].values == array("f", [0, 0])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"embeddings": []},
        {"embeddings": [{"values": [1]}] * 3},
        {"embeddings": [{"values": [True]}] * 2},
        {"embeddings": [{"values": ["x"]}] * 2},
        {"embeddings": [{"values": [float("nan")]}] * 2},
        {"embeddings": [{"values": [1e300]}] * 2},
        {"embeddings": [{"values": [10**400]}] * 2},
    ],
)
def test_what_are_no_vectors_is_bad(answer: Any) -> None:
    """A vector for each text, of finite numbers; or it is no answer."""
    with pytest.raises(BadReply):
        read(answer)


def test_an_error_in_place_of_vectors() -> None:
    """It is the error that it is."""
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    for answer in (error, [error]):
        with pytest.raises(Overloaded):
            read(answer)
