"""Google's own SDK is the oracle of what is asked: it and we send to one server."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from asking_gemini import NEW, OLD, WHOLE, WIRE, sent
from google import genai
from google.genai import types
from loopback import Loopback

from llmdispatcher import Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import assistant, system, tool, user
from llmdispatcher.vendors.gemini import keepsakes

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ADD = ToolSpec("add", "Adds.", SCHEMA)
DECLARED = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="add", description="Adds.", parameters_json_schema=SCHEMA)
    ]
)
PIXEL = b"\x89PNG"
CALL = ToolCall("c1", "add", '{"x": 1}')
MANUAL = types.AutomaticFunctionCallingConfig(disable=True)
CONFIG = types.GenerateContentConfig

ALIKE: dict[str, tuple[str, Request, Any, types.GenerateContentConfig | None]] = {
    "text": (OLD, Request.of("x"), "x", None),
    "turns": (
        OLD,
        Request.of([system("S"), user("A"), assistant("B"), user("C")]),
        [
            types.UserContent("A"),
            types.ModelContent("B"),
            types.UserContent("C"),
        ],
        CONFIG(system_instruction="S"),
    ),
    "sampling": (
        OLD,
        Request.of(
            "x",
            temperature=0.5,
            top_p=0.25,
            top_k=4,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            max_tokens=9,
            stop=["a", "b"],
            n=2,
            logprobs=3,
        ),
        "x",
        CONFIG(
            temperature=0.5,
            top_p=0.25,
            top_k=4,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            max_output_tokens=9,
            stop_sequences=["a", "b"],
            candidate_count=2,
            response_logprobs=True,
            logprobs=3,
        ),
    ),
    "picture": (
        OLD,
        Request.of(user(["What?", Image(PIXEL), Image(url="https://x.test/a.png")])),
        [
            types.Content(
                role="user",
                parts=[
                    types.Part.from_text(text="What?"),
                    types.Part.from_bytes(data=PIXEL, mime_type="image/png"),
                    types.Part.from_uri(file_uri="https://x.test/a.png"),
                ],
            )
        ],
        None,
    ),
    "json": (
        OLD,
        Request.of("x", response_format=ResponseFormat("json")),
        "x",
        CONFIG(response_mime_type="application/json"),
    ),
    "schema": (
        OLD,
        Request.of("x", schema=SCHEMA),
        "x",
        CONFIG(response_mime_type="application/json", response_json_schema=SCHEMA),
    ),
    "tools": (
        NEW,
        Request.of("x", tools=[ADD], tool_choice="add"),
        "x",
        CONFIG(
            tools=[DECLARED],
            tool_config=types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(
                    mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["add"]
                )
            ),
            automatic_function_calling=MANUAL,
        ),
    ),
    "result": (
        NEW,
        Request.of(
            [
                user("A"),
                Message("assistant", "", [CALL], keepsakes=[keepsakes.of_call("c1", "c2ln")]),
                tool(CALL, '{"sum": 2}'),
            ],
            tools=[ADD],
        ),
        [
            types.UserContent("A"),
            types.Content(
                role="model",
                parts=[
                    types.Part(
                        function_call=types.FunctionCall(id="c1", name="add", args={"x": 1}),
                        thought_signature=b"sig",
                    )
                ],
            ),
            types.Content(
                role="user",
                parts=[
                    types.Part(
                        function_response=types.FunctionResponse(
                            id="c1", name="add", response={"sum": 2}
                        )
                    )
                ],
            ),
        ],
        CONFIG(tools=[DECLARED], automatic_function_calling=MANUAL),
    ),
    "budget": (
        OLD,
        Request.of("x", effort="low"),
        "x",
        CONFIG(thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)),
    ),
    "level": (
        NEW,
        Request.of("x", effort="high"),
        "x",
        CONFIG(
            thinking_config=types.ThinkingConfig(
                include_thoughts=True, thinking_level=types.ThinkingLevel.HIGH
            )
        ),
    ),
}


def _plain_base64(value: Any) -> Any:
    """Write bytes in one alphabet."""
    if isinstance(value, list):
        return [_plain_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.urlsafe_b64decode(each.replace("+", "-").replace("/", "_")).hex()
        if name in {"data", "thoughtSignature"}
        else _plain_base64(each)
        for name, each in value.items()
    }


def _camel_case(value: Any) -> Any:
    """Write names as Google's reference does; but not those of the caller's own JSON."""
    if isinstance(value, list):
        return [_camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, each in value.items():
        first, *rest = name.split("_")
        camel = first + "".join(map(str.capitalize, rest))
        is_callers = camel in {"args", "response", "responseJsonSchema", "parametersJsonSchema"}
        made[camel] = each if is_callers else _camel_case(each)
    return made


def _without_role(value: Any) -> Any:
    """Leave out who the system is."""
    if "systemInstruction" in value:
        value["systemInstruction"].pop("role", None)
    return value


def _without_nothing(value: Any) -> Any:
    """Leave out settings where none are set."""
    return {name: each for name, each in value.items() if name != "generationConfig" or each}


ALLOWED: dict[str, Callable[[Any], Any]] = {
    # Some names the SDK leaves in snake case; Google's JSON (protobuf's) reads both.
    "names": _camel_case,
    # The SDK gives the system a role, which Google ignores.
    "the system's role": _without_role,
    # The SDK sends empty settings where only others than these were given.
    "no settings": _without_nothing,
    # The SDK writes base64 for URLs; Google reads both.
    "base64": _plain_base64,
}
"""How the SDK's requests may differ from ours: what is done to both before they are compared."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", ALIKE)
def test_the_sdk_sends_the_same(
    server: Loopback,
    client: genai.Client,
    case: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """An equal request is sent to the same place with the same JSON, but for what is allowed."""
    model, request, contents, config = ALIKE[case]
    if streams and request.n > 1:
        return  # we stream one candidate only
    send = client.models.generate_content_stream if streams else client.models.generate_content
    answer: Any = send(model=model, contents=contents, config=config)
    _ = [*answer] if streams else None
    (exchange,) = (WIRE if streams else WHOLE).exchanges(request, WIRE.card(model))
    sent(server, exchange.ask)
    them, us = server.got
    assert (them.method, them.path, them.query) == (us.method, us.path, us.query)
    assert them.headers["x-goog-api-key"] == us.headers["x-goog-api-key"]
    bodies = [them.body, us.body]
    for made_alike in ALLOWED.values():
        bodies = [made_alike(body) for body in bodies]
    assert bodies[0] == bodies[1]
