"""What a request becomes on its way to a host of the OpenAI dialect."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import (
    Image,
    Keepsake,
    Message,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai.content import keeps_rules
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Ask, Site

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})
SUB = ToolSpec("sub")
PICTURE = Message("user", [Image(b"PNG"), "What?"])


def wire(preset: str, **site: Any) -> OpenAIWire:
    """Make the dialect at a host."""
    return OpenAIWire(Site(vendor="v", **site), ROWS[preset].ways)


def ask(preset: str, request: Request, model: str = "model-1", **site: Any) -> Ask:
    """Return what would be asked."""
    spoken = wire(preset, **site)
    (exchange,) = spoken.exchanges(request, spoken.card(model))
    json.dumps(exchange.ask.body, allow_nan=False)
    return exchange.ask


def body(preset: str, request: Request, model: str = "model-1", **site: Any) -> dict[str, Any]:
    """Return what would be sent."""
    return dict(ask(preset, request, model, **site).body or {})


@pytest.mark.parametrize("preset", ROWS)
def test_a_plain_request_holds_nothing_else(preset: str) -> None:
    """What is not asked for is not sent, but for what the host needs to be well understood."""
    sent = body(preset, Request.of("Hello."))
    assert sent.pop("model") == "model-1"
    assert sent.pop("messages") == [{"role": "user", "content": "Hello."}]
    assert sent.pop("stream") is True
    assert {*sent} <= {"stream_options", "return_progress"}
    assert body(preset, Request.of("Hello."), streaming=False)["stream"] is False


def test_a_conversation_is_written_as_everybody_reads_it() -> None:
    """Texts go as one string, pictures as parts, results with the id of their call."""
    call = ToolCall("c1", "add", "")
    talk = [
        system("S"),
        user(["A", "B"]),
        Message("assistant", "", [call], None, "I think."),
        tool(call, ["2", "3"]),
        user([Image(b"PNG"), "What?", Image(url="https://example.org/a.png")]),
    ]
    messages = body("openai-compatible", Request.of(talk))["messages"]
    assert messages[0] == {"role": "system", "content": "S"}
    assert messages[1]["content"] == "AB"
    assert messages[2] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        ],
    }
    assert messages[3] == {"role": "tool", "content": "23", "tool_call_id": "c1"}
    assert [part["type"] for part in messages[4]["content"]] == ["image_url", "text", "image_url"]
    assert messages[4]["content"][0]["image_url"]["url"] == "data:image/png;base64,UE5H"


def test_thoughts_go_back_where_they_are_wanted() -> None:
    """Each host has its own field for them, DeepSeek in every turn; others are sent none."""
    talk = [user("A"), Message("assistant", "B", reasoning="Hm."), user("C")]
    sent = {preset: body(preset, Request.of(talk))["messages"][1] for preset in ROWS}
    assert sent["openai"] == {"role": "assistant", "content": "B"}
    assert sent["llama-server"]["reasoning_content"] == "Hm."
    assert sent["vllm"]["reasoning"] == "Hm."
    assert [part["type"] for part in sent["mistral"]["content"]] == ["thinking", "text"]
    plain = body("deepseek", Request.of([user("A"), assistant("B"), user("C")]))["messages"]
    assert plain[1]["reasoning_content"] == ""
    assert "reasoning_content" not in plain[0]


def test_keepsakes_go_back_to_their_own_kind() -> None:
    """What a host wanted back is sent as it was, instead of the thoughts; others never see it."""
    kept = Keepsake("reasoning_details", '[{"type": "reasoning.text", "text": "Hm."}]')
    turn = Message("assistant", "B", reasoning="Hm.", keepsakes=[kept, Keepsake("x", "{}")])
    talk = Request.of([user("A"), turn, user("C")])
    sent = body("openrouter", talk)["messages"][1]
    assert sent["reasoning_details"] == [{"type": "reasoning.text", "text": "Hm."}]
    assert "reasoning" not in sent
    assert "reasoning_details" not in body("litellm", talk)["messages"][1]


def test_ids_of_calls_fit_the_host() -> None:
    """Mistral takes nine letters or digits: others become such, the same for call and result."""
    call = ToolCall("call_abc-1", "add", "{}")
    talk = [user("A"), Message("assistant", "", [call]), tool(call, "2")]
    messages = body("mistral", Request.of(talk))["messages"]
    made = messages[1]["tool_calls"][0]["id"]
    assert made == messages[2]["tool_call_id"]
    assert len(made) == 9
    assert made.isalnum()
    kept = [user("A"), Message("assistant", "", [ToolCall("abcDEF123", "add", "{}")])]
    assert body("mistral", Request.of(kept))["messages"][1]["tool_calls"][0]["id"] == "abcDEF123"
    assert body("together", Request.of(kept))["messages"][1]["tool_calls"][0]["index"] == 0


# -- tools -------------------------------------------------------------------------------------


def test_tools_are_sent_and_chosen() -> None:
    """A named tool is demanded by name, or by leaving the others out where names are unknown."""
    asked = Request.of("x", tools=[ADD, SUB], tool_choice="sub", parallel_tools=False)
    sent = body("vllm", asked)
    assert [each["function"]["name"] for each in sent["tools"]] == ["add", "sub"]
    assert sent["tools"][1]["function"] == {
        "name": "sub",
        "parameters": {"type": "object", "properties": {}},
    }
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "sub"}}
    assert sent["parallel_tool_calls"] is False
    sent = body("llama-server", asked)
    assert [each["function"]["name"] for each in sent["tools"]] == ["sub"]
    assert sent["tool_choice"] == "required"
    plain = body("openai", Request.of("x", tools=[ADD]))
    assert {*plain} & {"tool_choice", "parallel_tool_calls"} == set()
    assert body("llama-server", Request.of("x", tools=[ADD]))["parallel_tool_calls"] is True
    none = body("openai", Request.of("x", tools=[ADD], tool_choice="none"))
    assert none["tool_choice"] == "none"


# -- forms -------------------------------------------------------------------------------------

STRICT = {
    "type": "object",
    "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "required": ["a"],
    "additionalProperties": False,
}
LOOSE = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_forms_go_where_the_host_looks_for_them() -> None:
    """JSON, schemas and grammars have each their place."""
    json_ = Request.of("x", response_format=ResponseFormat("json"))
    assert body("openai", json_)["response_format"] == {"type": "json_object"}
    as_schema = body("lmstudio", json_)["response_format"]
    assert as_schema["json_schema"]["schema"] == {"type": "object"}
    for schema, strict in ((STRICT, True), (LOOSE, False)):
        named = body("openai", Request.of("x", schema=schema))["response_format"]["json_schema"]
        assert named == {"name": "reply", "schema": schema, "strict": strict}
    assert body("vllm", Request.of("x", schema=LOOSE))["response_format"]["json_schema"]["strict"]
    grammar = Request.of("x", response_format=ResponseFormat("grammar", grammar="root ::= x"))
    assert body("vllm", grammar)["structured_outputs"] == {"grammar": "root ::= x"}
    assert body("llama-server", grammar)["grammar"] == "root ::= x"


def test_forms_stand_beside_raw_prompts() -> None:
    """A raw prompt has other fields for them."""
    schema = Request(prompt="x", response_format=ResponseFormat("schema", LOOSE))
    assert body("llama-server", schema)["json_schema"] == LOOSE
    assert body("vllm", schema)["response_format"]["json_schema"]["schema"] == LOOSE
    loose = Request(prompt="x", response_format=ResponseFormat("json"))
    assert body("llama-server", loose)["json_schema"] == {"type": "object"}
    with pytest.raises(Unsupported, match="raw prompt"):
        body("together", schema)


def test_what_cannot_be_streamed_is_asked_for_whole() -> None:
    """Groq streams no JSON, and llama-server no log-probabilities beside tools."""
    asked = ask("groq", Request.of("x", schema=STRICT))
    assert not asked.streams
    assert asked.body is not None
    assert asked.body["stream"] is False
    assert ask("groq", Request.of("x")).streams
    both = ask("llama-server", Request.of("x", tools=[ADD], logprobs=1))
    assert not both.streams
    assert ask("llama-server", Request.of("x", logprobs=1)).streams


RULES = [
    (STRICT, True),
    (LOOSE, False),
    ({**STRICT, "required": []}, False),
    ({**STRICT, "additionalProperties": True}, False),
    ({**STRICT, "allOf": []}, False),
    ({**STRICT, "$defs": {"x": LOOSE}}, False),
    ({**STRICT, "properties": {"a": {"type": "array", "items": LOOSE}}}, False),
    ({**STRICT, "properties": {"a": {"type": "array", "items": STRICT}}}, True),
    ({"type": "array", "items": STRICT}, False),
    ({"type": "object", "additionalProperties": False}, True),
]


@pytest.mark.parametrize(("schema", "strict"), RULES)
def test_strict_is_asked_for_where_it_holds(schema: dict[str, Any], strict: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A schema that breaks OpenAI's rules would be refused as a strict one."""
    assert keeps_rules(schema) is strict


# -- thinking ----------------------------------------------------------------------------------

THINKING: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("openai", "gpt-5.2", {"reasoning": False}, {"reasoning_effort": "none"}),
    ("openai", "gpt-5", {"effort": "max"}, {"reasoning_effort": "high"}),
    ("openai", "gpt-5.2", {"temperature": 0.5}, {"reasoning_effort": "none"}),
    ("groq", "qwen/qwen3.8-27b", {"reasoning": False}, {"reasoning_effort": "none"}),
    ("groq", "qwen/qwen3.8-27b", {"effort": "minimal"}, {"reasoning_effort": "low"}),
    ("openrouter", "x/y", {"reasoning": True}, {"reasoning": {"enabled": True}}),
    (
        "openrouter",
        "x/y",
        {"reasoning": True, "effort": "max"},
        {"reasoning": {"enabled": True, "effort": "xhigh"}},
    ),
    ("deepseek", "deepseek-v4-pro", {"reasoning": False}, {"thinking": {"type": "disabled"}}),
    ("together", "x", {"reasoning": True}, {"reasoning": {"enabled": True}}),
    ("mistral", "mistral-medium-latest", {"effort": "low"}, {"reasoning_effort": "high"}),
    ("mistral", "mistral-medium-latest", {"reasoning": False}, {"reasoning_effort": "none"}),
    ("mistral", "mistral-large-latest", {"reasoning": False}, {"reasoning_effort": None}),
    (
        "vllm",
        "x",
        {"reasoning": False},
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    ),
    ("llama-server", "x", {"effort": "minimal"}, {"reasoning_effort": "low"}),
]


@pytest.mark.parametrize(("preset", "model", "options", "meant"), THINKING)
def test_thinking_is_switched_as_the_host_has_it(
    preset: str, model: str, options: dict[str, Any], meant: dict[str, Any]
) -> None:
    """Whether and how hard a model thinks has a field of its own at every host."""
    sent = body(preset, Request.of("x", **options), model)
    assert {name: sent.get(name) for name in meant} == meant


def test_the_system_is_the_developer_of_models_that_think() -> None:
    """OpenAI's thinking models are told by the developer what others are told by the system."""
    talk = Request.of([system("S"), user("A")])
    roles = [body("openai", talk, m)["messages"][0]["role"] for m in ("gpt-5", "gpt-4o")]
    assert roles == ["developer", "system"]
    assert body("vllm", talk, "gpt-5")["messages"][0]["role"] == "system"


def test_what_only_the_responses_endpoint_serves_goes_there() -> None:
    """OpenAI's newest models call tools only there while they think; other hosts have no such."""
    tools = Request.of("x", tools=[ADD])
    assert ask("openai", tools, "gpt-5.6-sol").path == "/responses"
    assert ask("azure", tools, "gpt-5.6-sol").path == "/responses"
    resting = Request.of("x", tools=[ADD], reasoning=False)
    assert ask("openai", resting, "gpt-5.6-sol").path == "/chat/completions"
    assert ask("openai", Request.of("x"), "gpt-5.6-sol").path == "/chat/completions"
    assert ask("openrouter", tools, "openai/gpt-5.6-sol").path == "/chat/completions"


# -- beginnings, ends, places ------------------------------------------------------------------


def test_a_prefill_is_continued() -> None:
    """Each host that can has its own way to be told; DeepSeek's is at another place."""
    asked = Request.of("x", prefill="It is")
    last = {"role": "assistant", "content": "It is"}
    sent = body("vllm", asked)
    assert sent["messages"][-1] == last
    assert sent["continue_final_message"] is True
    assert sent["add_generation_prompt"] is False
    assert body("mistral", asked)["messages"][-1] == {**last, "prefix": True}
    assert ask("deepseek", asked).path == "/beta/chat/completions"
    assert body("openrouter", asked)["messages"][-1] == last


def test_raw_prompts_and_gaps_have_their_own_places() -> None:
    """A raw prompt goes without messages, one with a suffix where gaps are filled."""
    raw = ask("vllm", Request(prompt="Once", max_tokens=5, logprobs=3, n=2, stop=["x"]))
    assert raw.path == "/completions"
    assert raw.body is not None
    given = {name: raw.body[name] for name in ("prompt", "max_tokens", "logprobs", "n", "stop")}
    assert given == {"prompt": "Once", "max_tokens": 5, "logprobs": 3, "n": 2, "stop": ["x"]}
    assert body("llama-server", Request(prompt="x", logprobs=0))["n_probs"] == 1
    gap = ask("mistral", Request(prompt="a", suffix="b"))
    assert gap.path == "/fim/completions"
    assert gap.body is not None
    assert gap.body["suffix"] == "b"


def test_log_probabilities_are_asked_for() -> None:
    """By a flag and a number, or by the number alone."""
    asked = Request.of("x", logprobs=0)
    assert body("vllm", asked)["top_logprobs"] == 0
    assert body("vllm", asked)["logprobs"] is True
    assert body("llama-server", asked)["top_logprobs"] == 1
    assert body("together", asked)["logprobs"] == 1
    insisting = body("openrouter", asked)
    assert insisting["provider"] == {"require_parameters": True}
    assert "provider" not in body("openrouter", Request.of("x"))


def test_deployments_are_in_the_path() -> None:
    """Azure's dated interface has the model in the path and the version in the query."""
    asked = ask("azure-dated", Request.of("x"), "my gpt/4")
    version = ROWS["azure-dated"].ways.api_version
    path = f"/deployments/my%20gpt%2F4/chat/completions?api-version={version}"
    assert asked.path == path
    assert wire("azure-dated").probe().path == f"/models?api-version={version}"


def test_queues_and_residence() -> None:
    """Where the lower number is served first, ours is negated; LM Studio is told how long."""
    assert body("vllm", Request.of("x", priority=3))["priority"] == -3
    assert "priority" not in body("openai", Request.of("x", priority=3))
    assert body("lmstudio", Request.of("x"), keep_alive_s=0.5)["ttl"] == 1
    with pytest.raises(BadRequest, match="keep_alive_s"):
        wire("vllm", keep_alive_s=5)


def test_extra_fields_go_along() -> None:
    """The caller's own fields are sent as they are, beside ours of the same name."""
    extra = {"provider": {"sort": "price"}, "user": "me"}
    sent = body("openrouter", Request.of("x", seed=1), extra=extra)
    assert sent["provider"] == {"require_parameters": True, "sort": "price"}
    assert sent["user"] == "me"


REFUSED: dict[str, tuple[str, Request, str]] = {
    "adapters": ("llama-server", Request.of("x", adapters=["a"]), "adapters"),
    "top_k": ("openai", Request.of("x", top_k=3), "top_k"),
    "seed": ("deepseek", Request.of("x", seed=3), "seed"),
    "stops": ("openai", Request.of("x", stop=["a", "b", "c", "d", "e"]), "at most 4"),
    "choices": ("groq", Request.of("x", n=2), "n is 2"),
    "logprobs": ("groq", Request.of("x", logprobs=2), "logprobs"),
    "raw": ("openai", Request(prompt="x"), "raw"),
    "suffix": ("vllm", Request(prompt="x", suffix="y"), "fills in"),
    "prefill": ("openai", Request.of("x", prefill="y"), "prefill"),
    "effort": ("lmstudio", Request.of("x", effort="low"), "effort"),
    "reasoning": ("lmstudio", Request.of("x", reasoning=True), "reasoning"),
    "schema": ("deepseek", Request.of("x", schema=STRICT), "json"),
    "grammar": (
        "openai",
        Request.of("x", response_format=ResponseFormat("grammar", grammar="root ::= x")),
        "grammar",
    ),
    "grammar and tools": (
        "llama-server",
        Request.of(
            "x", tools=[ADD], response_format=ResponseFormat("grammar", grammar="root ::= x")
        ),
        "no room",
    ),
    "pictures": ("deepseek", Request.of([PICTURE]), "pictures"),
    "addresses": (
        "llama-server",
        Request.of([Message("user", [Image(url="http://example.org/a.png")])]),
        "fetches nothing",
    ),
    "one call": ("lmstudio", Request.of("x", tools=[ADD], parallel_tools=False), "one call"),
    "a demand": ("deepseek", Request.of("x", tools=[ADD], tool_choice="required"), "thinks"),
}


@pytest.mark.parametrize(("preset", "request_", "match"), REFUSED.values(), ids=REFUSED)
def test_what_a_host_cannot_do_is_refused(preset: str, request_: Request, match: str) -> None:
    """What a host would refuse, or leave out without a word, does not go out."""
    with pytest.raises(Unsupported, match=match) as caught:
        ask(preset, request_)
    assert (caught.value.vendor, caught.value.model) == ("v", "model-1")


REFUSED_BY_MODEL: dict[str, tuple[str, Request, str]] = {
    "temperature": ("gpt-5", Request.of("x", temperature=0.5), "temperature"),
    "temperature while thinking": (
        "gpt-5.2",
        Request.of("x", temperature=0.5, effort="low"),
        "reasoning=False",
    ),
    "penalty": ("gpt-5", Request.of("x", presence_penalty=1), "presence_penalty"),
    "stop": ("gpt-5", Request.of("x", stop=["a"]), "stop"),
    "logprobs": ("gpt-5", Request.of("x", logprobs=1), "log-probabilities"),
    "not thinking": ("gpt-5", Request.of("x", reasoning=False), "minimal"),
    "thinking": ("gpt-4o", Request.of("x", reasoning=True), "does not think"),
}


@pytest.mark.parametrize(
    ("model", "request_", "match"), REFUSED_BY_MODEL.values(), ids=REFUSED_BY_MODEL
)
def test_what_a_model_cannot_do_is_refused(model: str, request_: Request, match: str) -> None:
    """What OpenAI's model would refuse does not go out."""
    with pytest.raises(Unsupported, match=match):
        ask("openai", request_, model)


def test_a_demand_is_served_where_the_model_rests() -> None:
    """DeepSeek's models can be held to a call while they do not think."""
    asked = Request.of("x", tools=[ADD], tool_choice="add", reasoning=False)
    assert body("deepseek", asked)["tool_choice"]["function"]["name"] == "add"


def test_other_ways_can_be_told() -> None:
    """A host of one's own is the nearest row with what differs."""
    ways = attrs.evolve(ROWS["openai-compatible"].ways, max_tokens="max_new_tokens")
    spoken = OpenAIWire(Site(vendor="v"), ways)
    (exchange,) = spoken.exchanges(Request.of("x", max_tokens=3), spoken.card("m"))
    assert exchange.ask.body is not None
    assert exchange.ask.body["max_new_tokens"] == 3
