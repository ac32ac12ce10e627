"""The rest of Anthropic's dialect: names of models, lists, health, counts and errors."""

from __future__ import annotations

import json

import pytest
from anthropic.types import ModelInfo
from speaking_anthropic import failed, models, page, row

from llmdispatcher.models.card import FREE, Capability
from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
)
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.vendors.anthropic.known import (
    BUDGETS,
    FAMILIES,
    NEWEST,
    OLD,
    OTHER,
    Thinking,
    family,
)
from llmdispatcher.vendors.anthropic.wire import VERSION, AnthropicWire
from llmdispatcher.vendors.wire.exchange import Head, Site

WIRE = AnthropicWire(Site(vendor="anthropic"))
LOCAL = AnthropicWire(Site(vendor="llama-server", local=True))


@pytest.mark.parametrize(
    ("model", "row_"),
    [
        ("claude-opus-4-8", FAMILIES["opus-4-8"]),
        ("claude-opus-4-5-20251101", FAMILIES["opus-4-5"]),
        ("claude-sonnet-5", FAMILIES["sonnet-5"]),
        ("claude-sonnet-5-20260501", FAMILIES["sonnet-5"]),
        ("claude-sonnet-5-5", NEWEST),
        ("anthropic/claude-haiku-4.5", FAMILIES["haiku-4-5"]),
        ("us.anthropic.claude-opus-4-6-v1:0", FAMILIES["opus-4-6"]),
        ("claude-haiku-4-5@20251001", FAMILIES["haiku-4-5"]),
        ("claude-mythos-preview", FAMILIES["mythos-preview"]),
        ("claude-3-5-sonnet-20241022", OLD),
        ("claude-sonnet-4-20250514", OLD),
        ("claude-opus-4-1-20250805", OLD),
        ("claude-2.1", OLD),
        ("claude-instant-1.2", OLD),
        ("claude-opus-6", NEWEST),
        ("claude-next", NEWEST),
        ("qwen3-8b", OTHER),
        ("", OTHER),
    ],
)
def test_names_of_models(model: str, row_: object) -> None:
    """A model is known by its line and version, whoever hosts it; a new one is the strictest."""
    assert family(model) is row_
    assert family(model, local=True) is OTHER


def test_the_rows_fit_together() -> None:
    """Words for effort are in order; who takes a prefill or sampling is not always thinking."""
    assert tuple(BUDGETS) == EFFORTS
    assert list(BUDGETS.values()) == sorted(BUDGETS.values())
    for told in (*FAMILIES.values(), NEWEST, OLD):
        assert [*told.efforts] == sorted(told.efforts, key=EFFORTS.index)
        assert told.efforts or told.thinking is Thinking.BUDGET
        assert not (told.takes_prefill and told.thinking is not Thinking.BUDGET)
        assert told.is_claude


def test_cards() -> None:
    """A card says what the name tells; prices are only known of what runs here."""
    card = WIRE.card("claude-haiku-4-5")
    assert (card.name, card.local, card.price) == ("anthropic/claude-haiku-4-5", False, None)
    assert (card.context_tokens, card.max_output_tokens) == (200_000, 64_000)
    assert {*card.capabilities} == {
        Capability.CHAT,
        Capability.TOOLS,
        Capability.VISION,
        Capability.SCHEMA,
        Capability.EFFORT,
        Capability.PREFILL,
    }
    here = LOCAL.card("qwen")
    assert (here.local, here.price, here.context_tokens) == (True, FREE, None)
    assert {*here.capabilities} == {Capability.CHAT, Capability.TOOLS}


def test_a_list_of_models() -> None:
    """Rows become cards with what the vendor tells of each; pages are followed by their cursor."""
    ask = WIRE.listing()
    assert ask is not None
    assert (ask.path, ask.body) == ("/v1/models?limit=1000", None)
    assert ask.headers == {"anthropic-version": VERSION}
    told = json.loads(models())
    for each in told["data"]:
        ModelInfo.construct(**each)
    listed = WIRE.listed(told)
    assert [card.model for card in listed.cards] == ["claude-opus-4-8", "claude-haiku-4-5"]
    assert listed.cards[1].context_tokens == 1_000_000
    assert Capability.PREFILL in listed.cards[1].capabilities
    assert listed.more is None

    more = WIRE.listed(page([row("a/b c")], has_more=True)).more
    assert more is not None
    assert more.path == "/v1/models?limit=1000&after_id=a%2Fb%20c"


def test_what_a_list_tells() -> None:
    """What a row denies is taken off the card; retired models and rows without names are none."""
    no = {"supported": False}
    rows = [
        row("claude-x", capabilities={"image_input": no, "structured_outputs": no}),
        row("gone", lifecycle="retired"),
        {"id": " "},
        {"id": 5},
        None,
        {"id": "bare", "max_tokens": True, "capabilities": [], "max_input_tokens": 1e400},
    ]
    told = {"data": rows, "has_more": True, "last_id": ""}
    listed = WIRE.listed(told)
    assert [card.model for card in listed.cards] == ["claude-x", "bare"]
    assert not {Capability.VISION, Capability.SCHEMA} & listed.cards[0].capabilities
    assert Capability.EFFORT in listed.cards[0].capabilities
    assert listed.cards[1].context_tokens is None
    assert listed.more is None
    (card,) = LOCAL.listed({"data": [{"id": "qwen", "meta": {"n_ctx": 512}}]}).cards
    assert card.context_tokens == 512


@pytest.mark.parametrize("wrong", [None, [], {}, {"data": {}}, "x"])
def test_what_is_no_list(wrong: object) -> None:
    """What cannot be read is a bad reply."""
    with pytest.raises(BadReply):
        WIRE.listed(wrong)


def test_health() -> None:
    """One row of the list is asked for; what answers it serves, and a local 503 means loading."""
    assert WIRE.probe().path == "/v1/models?limit=1"
    assert WIRE.probed(Head(200, {}), models()).is_ready
    loading = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'
    assert LOCAL.probed(Head(503, {}), loading).is_loading
    for head in (Head(503, {}), Head(401, {}), Head(302, {})):
        health = WIRE.probed(head, b"")
        assert not health.is_ready
        assert not health.is_loading
        assert health.detail
    assert WIRE.loading("x") is None


def test_counts() -> None:
    """The number of tokens, or no reply."""
    assert WIRE.counted({"input_tokens": 2095}) == 2095
    for wrong in (None, True, -1, "9", 2**63):
        with pytest.raises(BadReply):
            WIRE.counted({"input_tokens": wrong})
    for nothing in (dict[str, int](), None):
        with pytest.raises(BadReply):
            WIRE.counted(nothing)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("auth", AuthRejected),
        ("rate", RateLimited),
        ("quota", QuotaExhausted),
        ("overflow", ContextOverflow),
        ("overloaded", Overloaded),
        ("missing", ModelNotFound),
        ("filter", ContentRefused),
        ("bad", BadRequest),
    ],
)
def test_errors(kind: str, error: type[DispatcherError]) -> None:
    """Every error of the API stands for one of ours."""
    answer = failed(kind)
    (body,) = answer.chunks
    assert isinstance(body, bytes)
    assert isinstance(WIRE.fault(Head(answer.status, answer.headers), body), error)
