"""What a request becomes on its way to a server, and what is refused before it goes out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from llmdispatcher import EmbedRequest, Image, Message, Request, RerankRequest, ToolCall, ToolSpec
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import assistant, system, tool, user
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.server.wire import Abilities, asked
from llmdispatcher.vendors.wire.exchange import Ask

ABLE = Abilities(slots=4, context_tokens=100, tools=True, vision=True, adapters=("a", "b"))

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})
SUB = ToolSpec("sub")


def ask(request: Request, able: Abilities = ABLE) -> Ask:
    """Return what is asked."""
    (exchange,) = asked(request, able, "m").exchanges
    return exchange.ask


def bodies(sent: Ask) -> dict[str, Any]:
    """Return what is sent with it."""
    assert sent.body is not None
    return dict(sent.body)


def body(request: Request, able: Abilities = ABLE) -> dict[str, Any]:
    """Return what would be sent."""
    return bodies(ask(request, able))


def test_every_sampling_field_is_sent() -> None:
    """All fields of Sampling go out under their own names; those that are not set do not."""
    given: dict[str, Any] = {
        field.name: 1 for field in attrs.fields(Sampling) if field.name != "seed"
    }
    sent = body(Request(messages="x", sampling=Sampling(**given, seed=2**32 - 2)))
    assert {name: sent[name] for name in given} == given
    assert sent["seed"] == 2**32 - 2
    plain = body(Request.of("x"))
    assert not {*given, "seed", "max_tokens", "n", "stop", "logprobs", "n_probs"} & {*plain}
    assert plain["stream"]
    assert plain["return_progress"]
    assert plain["cache_prompt"]
    assert plain["stream_options"] == {"include_usage": True}


def test_prompts_and_conversations_go_apart() -> None:
    """A raw prompt goes without a template; a conversation goes as the OpenAI API writes it."""
    request = Request(prompt="Once", max_tokens=5, stop=["x"], logprobs=0, n=2)
    assert ask(request).path == "/completions"
    raw = body(request)
    assert (raw["prompt"], raw["max_tokens"], raw["stop"]) == ("Once", 5, ["x"])
    assert raw["n_probs"] == 1
    assert raw["n"] == asked(request, ABLE, "m").slots == 2
    call = ToolCall("c1", "add", '{"x": 1}')
    talk = [
        system("S"),
        user(["A", "B"]),
        Message("assistant", "", [call], None, "I think."),
        tool(call, "2"),
        user([Image(b"PNG"), "What?"]),
    ]
    assert ask(Request.of(talk)).path == "/chat/completions"
    sent = body(Request.of(talk, prefill="It is"))
    messages = sent["messages"]
    assert messages[0] == {"role": "system", "content": "S"}
    assert messages[1]["content"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert messages[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 1}'}
    assert messages[2]["reasoning_content"] == "I think."
    assert messages[2]["content"] == ""
    assert messages[3] == {"role": "tool", "content": "2", "tool_call_id": "c1"}
    assert messages[4]["content"][0]["image_url"]["url"] == "data:image/png;base64,UE5H"
    assert messages[5] == {"role": "assistant", "content": "It is"}
    assert sent["continue_final_message"] is True
    assert sent["add_generation_prompt"] is False
    assert "continue_final_message" not in body(Request.of([user("A"), assistant("B")]))


def test_tools_are_sent_and_chosen() -> None:
    """A tool that is named is the only one to choose from; forbidden ones are not sent."""
    sent = body(Request.of("x", tools=[ADD, SUB], parallel_tools=False))
    assert [each["function"]["name"] for each in sent["tools"]] == ["add", "sub"]
    assert sent.get("tool_choice", "auto") == "auto"
    assert sent["parallel_tool_calls"] is False
    sent = body(Request.of("x", tools=[ADD, SUB], tool_choice="sub"))
    assert [each["function"]["name"] for each in sent["tools"]] == ["sub"]
    assert sent["tool_choice"] == "required"
    assert "tools" not in body(Request.of("x", tools=[ADD], tool_choice="none"))


def test_forms_are_sent() -> None:
    """JSON, schemas and grammars go where the server looks for them."""
    schema = {"type": "object"}
    chat = body(Request.of("x", schema=schema))
    assert chat["response_format"]["json_schema"]["schema"] == schema
    loose = body(Request.of("x", response_format=ResponseFormat("json")))["response_format"]
    assert loose["json_schema"]["schema"] == {"type": ["object", "array"]}
    grammar = ResponseFormat("grammar", grammar="root ::= x")
    assert body(Request.of("x", response_format=grammar))["grammar"] == "root ::= x"
    assert body(Request(prompt="x", response_format=grammar))["grammar"] == "root ::= x"
    raw = ResponseFormat("schema", schema)
    assert body(Request(prompt="x", response_format=raw))["json_schema"] == schema
    loose = body(Request(prompt="x", response_format=ResponseFormat("json")))
    assert loose["json_schema"] == {"type": ["object", "array"]}


def test_reasoning_and_adapters_are_sent() -> None:
    """Switches go by both names that templates use; every adapter gets a scale, also nought.

    What is known of a name does not matter: the file of that name may be any model.
    """
    sent = body(Request.of("x", reasoning=False, adapters={"b": 0.5}))
    assert sent["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert sent["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.5}]
    assert "lora" not in body(Request.of("x"), Abilities())
    (exchange,) = asked(Request.of("x", reasoning=False), ABLE, "gpt-oss-20b").exchanges
    assert bodies(exchange.ask)["chat_template_kwargs"]["enable_thinking"] is False
    assert body(Request.of("x", effort="high"))["reasoning_effort"] == "high"


def test_logprobs_beside_tools_come_in_one() -> None:
    """llama-server streams no log-probabilities beside tools, so they are asked for whole."""
    sent = ask(Request.of("x", tools=[ADD], logprobs=1))
    assert not sent.streams
    assert bodies(sent)["stream"] is False
    assert ask(Request.of("x", tools=[ADD], tool_choice="none", logprobs=1)).streams


def test_filling_in_begins_as_texts_do() -> None:
    """Prefix and suffix stand between the model's tokens, behind the one that begins a text."""
    able = attrs.evolve(ABLE, fill_in=(7, 8, 9))
    assert body(Request(prompt="pre", suffix="suf"), able)["prompt"] == ["", 7, "pre", 8, "suf", 9]
    assert body(Request(prompt="", suffix="suf"), able)["prompt"] == ["", 7, 8, "suf", 9]
    with pytest.raises(Unsupported, match="FIM"):
        body(Request(prompt="pre", suffix="suf"))


REFUSED = {
    "too many choices": (Request.of("x", n=5), Unsupported, "at most 4 choices"),
    "unknown adapter": (Request.of("x", adapters=["c"]), BadRequest, "'c'"),
    "address": (
        Request.of([Message("user", [Image(url="http://example.org/a.png")])]),
        Unsupported,
        "fetches nothing",
    ),
    "grammar and tools": (
        Request.of(
            "x", tools=[ADD], response_format=ResponseFormat("grammar", grammar="root ::= x")
        ),
        Unsupported,
        "no room for calls",
    ),
    "form and demanded call": (
        Request.of("x", tools=[ADD], tool_choice="required", schema={"type": "object"}),
        Unsupported,
        "own form",
    ),
}


@pytest.mark.parametrize(("request_", "kind", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(
    request_: Request, kind: type[Exception], match: str
) -> None:
    """What the server would leave out, or do otherwise, does not go out."""
    with pytest.raises(kind, match=match):
        ask(request_)


def test_what_the_server_lacks_is_refused() -> None:
    """A template without tools, and a model without a projector, are told of."""
    less = attrs.evolve(ABLE, tools=False, vision=False)
    with pytest.raises(Unsupported, match="no place for tools"):
        ask(Request.of("x", tools=[ADD]), less)
    with pytest.raises(Unsupported, match="projector_path"):
        ask(Request.of([Message("user", [Image(b"x")])]), less)
    assert "tools" not in body(Request.of("x", tools=[ADD], tool_choice="none"), less)


def test_what_a_request_may_take_is_bounded() -> None:
    """Never less than the prompt's bytes and the reply, never more than a context for each."""
    assert asked(Request.of("x"), ABLE, "m").tokens == 100
    assert asked(Request.of("x", n=3), ABLE, "m").tokens == 300
    large = Abilities(slots=4, context_tokens=10_000)
    few = asked(Request.of("x" * 50, max_tokens=10, n=2), large, "m").tokens
    assert 70 <= few <= 70 + 1000
    seen = Request.of([Message("user", [Image(b"x")])], max_tokens=1)
    assert asked(seen, large, "m").tokens == 10_000


def test_texts_go_in_parts() -> None:
    """All texts go out once, in order; an empty one is refused by its place, before any is sent."""
    work = EmbedRequest.of([str(number) for number in range(70)], normalize=False)
    parts = [bodies(each.ask) for each in asked(work, ABLE, "m").exchanges]
    assert [len(part["input"]) for part in parts] == [32, 32, 6]
    assert [text for part in parts for text in part["input"]] == [*work.texts]
    assert parts[0]["embd_normalize"] == -1
    with pytest.raises(BadRequest, match=r"texts\[33\]"):
        asked(EmbedRequest.of(["a"] * 33 + [""]), ABLE, "m")
    (rerank,) = asked(RerankRequest.of("q", ["a", "b"], top=1), ABLE, "m").exchanges
    assert rerank.ask.path == "/rerank"
    assert bodies(rerank.ask)["top_n"] == 2
