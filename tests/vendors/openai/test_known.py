"""What the names of models tell."""

from __future__ import annotations

import pytest

from llmdispatcher import Request
from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.vendors.openai import known
from llmdispatcher.vendors.openai.known import Known, of

NAMES = (
    "gpt-6-astra gpt-6-sol gpt-6.1-terra gpt-5.6 gpt-5.6-sol gpt-5.5 gpt-5.5-pro gpt-5.4"
    " gpt-5.4-mini gpt-5.4-pro gpt-5.2 gpt-5.2-pro gpt-5.1 gpt-5.1-codex gpt-5.1-codex-max"
    " gpt-5.3-codex gpt-5 gpt-5-mini gpt-5-pro gpt-5-codex o1 o3 o3-mini o4-mini o1-pro o3-pro"
    " gpt-4.1 gpt-4.1-mini gpt-4o gpt-4o-mini gpt-4 gpt-4-turbo gpt-3.5-turbo gpt-oss-120b"
    " deepseek-v4-pro deepseek-flash mistral-large-4 mistral-medium-latest codestral-latest"
    " text-embedding-3-small"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_rows_agree_with_themselves(name: str) -> None:
    """What a row says of efforts, of thinking and of sampling fits together."""
    row = of(name)
    assert row.is_known
    assert row.context_tokens
    assert row.context_tokens >= (row.max_output_tokens or 0)
    assert list(row.efforts) == sorted(row.efforts, key=EFFORTS.index)
    assert row.thinks >= bool(row.efforts)
    assert row.default_effort in {None, known.NONE, *row.efforts}
    assert row.can_rest or row.default_effort != known.NONE
    assert (Capability.EFFORT in row.capabilities) == bool(row.efforts)
    assert not row.capabilities & row.lacks
    if row.wants_developer_role:
        can = Capability.LOGPROBS in row.capabilities
        assert can == (row.takes_logprobs(None) or row.takes_logprobs(known.NONE))


def test_names_are_read_as_hosts_write_them() -> None:
    """A provider in front, a date or a variant behind, and tuning change nothing; others do."""
    row = of("gpt-5-mini")
    assert of("openai/gpt-5-mini") == row
    assert of("lightning/openai/GPT-5-mini-2025-08-07") == row
    assert of("openai/gpt-5-mini:free") == row
    assert of("ft:gpt-4o-mini-2024-07-18:us::abc") == of("gpt-4o-mini")
    assert of("lightning-ai/gpt-oss-120b") == of("gpt-oss:20b")
    assert of("gpt-5") != of("gpt-5.1") != of("gpt-5.2")
    assert of("deepseek-ai/DeepSeek-V4.1-Flash") == of("deepseek-flash")
    for stranger in ("gpt-50", "gpt-4oo", "my-gpt-5", "", "/", ":", "llama-3.3-70b", "gpt-7"):
        assert of(stranger) is known.UNKNOWN, stranger


def test_an_unknown_model_is_asked_as_the_caller_says() -> None:
    """Of a name that nobody knows nothing is assumed, and nothing refused."""
    row = of("my-deployment")
    assert row == Known(is_known=False)
    assert row.takes_sampling(None)
    assert row.takes_stop
    assert not row.needs_responses(has_tools=True, effort=None)
    assert row.effort(Request.of("x")) is None
    assert row.effort(Request.of("x", effort="xhigh")) == "xhigh"
    assert row.effort(Request.of("x", reasoning=False)) == "none"
    assert row.effort(Request.of("x", reasoning=True)) == "medium"
    assert row.refused(Request.of("x", temperature=0, frequency_penalty=1), None) == ()


@pytest.mark.parametrize(
    ("name", "wanted", "word"),
    [
        ("gpt-5", "minimal", "minimal"),
        ("gpt-5", "max", "high"),
        ("gpt-5.1", "minimal", "low"),
        ("gpt-5.2", "max", "xhigh"),
        ("gpt-5.6-sol", "max", "max"),
        ("gpt-5-pro", "low", "high"),
        ("gpt-5.5-pro", "low", "medium"),
        ("o3", "xhigh", "high"),
        ("mistral-medium-latest", "low", "high"),
    ],
)
def test_the_nearest_word_stands(name: str, wanted: str, word: str) -> None:
    """Of the words for an effort the nearest that a model takes is said."""
    assert of(name).effort(Request.of("x", effort=wanted)) == word


def test_thinking_is_switched_where_it_can_be() -> None:
    """A switch becomes a word, or nothing where the model does so anyway, or an error."""
    on, off = Request.of("x", reasoning=True), Request.of("x", reasoning=False)
    assert of("gpt-5.1").effort(on) == "medium"
    assert of("gpt-5.1").effort(off) == "none"
    assert of("gpt-5").effort(on) is None
    assert of("gpt-4o").effort(off) is None
    assert of("mistral-small-latest").effort(on) == "high"
    for name, request, told in (
        ("gpt-5", off, "always thinks: effort='minimal'"),
        ("gpt-6-astra", off, "always thinks: effort='low'"),
        ("gpt-5.2-chat-latest", off, "always thinks$"),
        ("gpt-4o", on, "does not think"),
        ("gpt-4o", Request.of("x", effort="low"), "takes no effort"),
    ):
        with pytest.raises(Unsupported, match=told):
            of(name).effort(request)


def test_sampling_goes_with_rest() -> None:
    """Models that can rest are sampled only then, and one that rests by default is told to."""
    cold = Request.of("x", temperature=0)
    assert of("gpt-5.1").effort(cold) == "none"
    assert of("gpt-5.1").effort(Request.of("x", logprobs=2)) == "none"
    assert of("gpt-5.1").effort(Request.of("x", temperature=0, effort="low")) == "low"
    assert of("gpt-5.1").refused(cold, "none") == ()
    assert of("gpt-5.1").refused(cold, "low") == ("temperature",)
    assert of("gpt-5.6").effort(cold) is None
    assert of("gpt-5.6").refused(cold, None) == ("temperature",)
    assert of("gpt-5.6").takes_logprobs("none")
    assert not of("o3").takes_logprobs("none")
    assert of("gpt-4o").takes_logprobs(None)
    both = Request.of("x", temperature=1, top_p=0.5, presence_penalty=1, frequency_penalty=0)
    assert of("o3").refused(both, None) == ("top_p", "presence_penalty")
    assert of("gpt-4o").refused(both, None) == ()


def test_which_models_chat_completions_do_not_serve() -> None:
    """Some are served at the responses endpoint alone, some with tools unless told to rest."""
    assert of("gpt-5-pro").needs_responses(has_tools=False, effort="high")
    assert of("gpt-5-codex").needs_responses(has_tools=False, effort=None)
    for name in ("gpt-5.4", "gpt-5.6-luna", "gpt-6-sol"):
        assert of(name).needs_responses(has_tools=True, effort=None)
        assert not of(name).needs_responses(has_tools=True, effort="none")
        assert not of(name).needs_responses(has_tools=False, effort="high")
    assert of("gpt-6.1-sol").needs_responses(has_tools=False, effort="max")
    assert not of("gpt-5.2").needs_responses(has_tools=True, effort="high")
    assert not of("gpt-4o").needs_responses(has_tools=True, effort=None)


def test_cards_say_what_a_model_does_more_or_less() -> None:
    """What a host's models can do is corrected by what is known of one."""
    usual = frozenset({Capability.CHAT, Capability.TOOLS, Capability.LOGPROBS})
    assert of("gpt-4o").capable(usual) == usual | {Capability.VISION}
    assert Capability.LOGPROBS not in of("o3").capable(usual)
    assert Capability.VISION not in of("o3-mini").capable(usual)
    assert of("text-embedding-3-large").capable(usual) == {Capability.EMBED}
    assert not of("gpt-image-2").capable(usual)
    assert not of("gpt-4o-mini-tts").capable(usual)
    assert of("nobody").capable(usual) == usual
