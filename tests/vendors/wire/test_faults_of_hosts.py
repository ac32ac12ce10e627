"""Errors of the hosts that speak OpenAI's dialect, and of gateways, and what each stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
    Unreachable,
    Unsupported,
)
from llmdispatcher.vendors.wire.faults import Habits

Row = tuple[str, int, Any, type[DispatcherError], dict[str, Any], dict[str, str]]


def openai(message: str, kind: str | None = None, code: object = None, **more: Any) -> Any:
    """Return an error in the shape of OpenAI."""
    return {"error": {"message": message, "type": kind, "code": code, **more}}


def mistral(message: object, kind: str, code: str | None = None, **more: Any) -> Any:
    """Return an error in the flat shape of Mistral."""
    return {
        "object": "error",
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
        **more,
    }


def routed(message: str, code: int, **metadata: Any) -> Any:
    """Return an error in the shape of OpenRouter."""
    error: dict[str, Any] = {"message": message, "code": code}
    return {"error": {**error, "metadata": metadata} if metadata else error}


INVALID = "invalid_request_error"
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"  # 1795168800 s since 1970

GROQ: list[Row] = [
    ("2.10 key", 401, openai("Invalid API Key", INVALID, "invalid_api_key"), AuthRejected, {}, {}),
    (
        "1.6 rate",
        429,
        openai(
            "Rate limit reached for model `llama-3.1-8b-instant` in organization `org_01` service"
            " tier `on_demand` on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443."
            " Please try again in 4.77s. Need more tokens? Upgrade to Dev Tier today at"
            " https://console.groq.com/settings/billing",
            "tokens",
            "rate_limit_exceeded",
        ),
        RateLimited,
        {"retry_after_s": 4.77},
        {},
    ),
    (
        "1.6 a day's rate",
        429,
        openai(
            "Rate limit reached on tokens per day (TPD): Limit 500000, Used 499800, Requested 2700."
            " Please try again in 7m12.5s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        RateLimited,
        {"retry_after_s": 432.5},
        {},
    ),
    (
        "1.6 header",
        429,
        openai("Rate limit reached", "requests", "rate_limit_exceeded"),
        RateLimited,
        {"retry_after_s": 2.0},
        {"retry-after": "2", "x-ratelimit-reset-requests": "2m59.56s"},
    ),
    (
        "2.10 flex has no machine",
        498,
        openai("Flex tier is at capacity.", "capacity", "capacity_exceeded"),
        Overloaded,
        {"status": 498},
        {},
    ),
    (
        "1.7 context",
        400,
        openai(
            "Please reduce the length of the messages or completion.",
            INVALID,
            "context_length_exceeded",
            param="messages",
        ),
        ContextOverflow,
        {"needed_tokens": None},
        {},
    ),
    (
        "2.10 a call that cannot be read",
        400,
        openai(
            "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more"
            " details.",
            INVALID,
            "tool_use_failed",
            failed_generation='<function=search>{"query": "x"',
        ),
        BadReply,
        {"status": 400, "is_unfit": True},
        {},
    ),
    (
        "2.10 the same in a stream",
        200,
        openai("Failed to call a function.", INVALID, "tool_use_failed", status_code=400),
        BadReply,
        {"status": 400},
        {},
    ),
    (
        "2.10 JSON that is none",
        400,
        openai("Failed to validate JSON.", INVALID, "json_validate_failed", failed_generation="{"),
        BadReply,
        {"is_unfit": True},
        {},
    ),
    (
        "2.10 a model that is gone",
        400,
        openai("The model `x` has been decommissioned.", INVALID, "model_decommissioned"),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.10 terms",
        400,
        openai("The model requires terms acceptance.", INVALID, "model_terms_required"),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.10 over capacity",
        503,
        openai("qwen is currently over capacity. Please back off.", "internal_server_error"),
        Overloaded,
        {},
        {},
    ),
    (
        "2.10 log-probs",
        400,
        openai("`logprobs` is not supported with this model", INVALID, param="logprobs"),
        Unsupported,
        {"feature": "logprobs"},
        {},
    ),
    ("1.5 in a chunk", 200, {"x_groq": {"error": "over capacity"}}, Overloaded, {}, {}),
]

TOO_LARGE = openai(
    "Request too large for model `llama-3.3-70b-versatile` in organization `org_01` service tier"
    " `on_demand` on tokens per minute (TPM): Limit 12000, Requested 14137, please reduce your"
    " message size and try again. Need more tokens? Upgrade at"
    " https://console.groq.com/settings/billing",
    "tokens",
    "rate_limit_exceeded",
)
GROQ_LARGE: Row = (
    "1.6 larger than a minute's limit",
    413,
    TOO_LARGE,
    ContextOverflow,
    {"needed_tokens": 14137, "limit_tokens": 12000, "status": 413},
    {},
)

TOGETHER: list[Row] = [
    (
        "2.11 key",
        401,
        openai("Invalid API key provided.", INVALID, "invalid_api_key"),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.11 money",
        402,
        openai("Credit limit exceeded, please navigate to your settings.", "credit_limit"),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.7 sum",
        422,
        openai(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 65537. Given:"
            " 79993 `inputs` tokens and 1024 `max_new_tokens`",
            INVALID,
        ),
        ContextOverflow,
        {"needed_tokens": 81017, "limit_tokens": 65537},
        {},
    ),
    (
        "2.11 model",
        404,
        openai("Unable to access model x.", INVALID, "model_not_available"),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.11 overloaded",
        503,
        openai("The server is overloaded or not ready yet.", "service_unavailable"),
        Overloaded,
        {},
        {},
    ),
    ("2.11 rate", 429, openai("Slower.", "model_rate_limit"), RateLimited, {}, {}),
]
TOGETHER_FORBIDDEN: list[Row] = [
    ("2.11 too long", 403, openai("Forbidden", INVALID), ContextOverflow, {"status": 403}, {}),
    (
        "2.11 a key all the same",
        403,
        openai("Invalid API key provided.", INVALID, "invalid_api_key"),
        AuthRejected,
        {},
        {},
    ),
]

MISTRAL: list[Row] = [
    ("2.12 key", 401, {"detail": "Unauthorized"}, AuthRejected, {}, {}),
    (
        "2.12 key at the gateway",
        401,
        {"message": "Unauthorized", "request_id": "0a1b"},
        AuthRejected,
        {"request_id": "0a1b"},
        {},
    ),
    (
        "1.6 rate",
        429,
        mistral("Rate limit exceeded", "rate_limited", "1300", raw_status_code=429),
        RateLimited,
        {"retry_after_s": 3.0},
        {"retry-after": "3"},
    ),
    (
        "1.6 rate at the gateway",
        429,
        {"message": "Requests rate limit exceeded"},
        RateLimited,
        {"retry_after_s": 41.0},
        {"ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "41"},
    ),
    (
        "2.12 no machine",
        429,
        mistral("Service tier capacity exceeded for this model.", INVALID),
        Overloaded,
        {},
        {},
    ),
    (
        "2.12 no machine, by name",
        429,
        mistral("Service tier capacity exceeded.", "service_tier_capacity_exceeded", "3505"),
        Overloaded,
        {},
        {},
    ),
    (
        "1.7 context",
        400,
        mistral(
            "Prompt contains 140000 tokens and 12 draft tokens, too large for model with 131072"
            " maximum context length",
            "invalid_request_prompt",
            "3051",
        ),
        ContextOverflow,
        {"needed_tokens": 140012, "limit_tokens": 131072},
        {},
    ),
    (
        "2.12 model",
        400,
        mistral("Invalid model: x", "invalid_model", "1500"),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.12 order",
        400,
        mistral(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got"
            " assistant",
            "invalid_request_message_order",
            "3230",
        ),
        BadRequest,
        {"field": "request", "says": "Expected last role"},
        {},
    ),
    (
        "1.6 FastAPI",
        422,
        {
            "detail": [
                {
                    "type": "less_than_equal",
                    "loc": ["body", "temperature"],
                    "msg": "Input should be less than or equal to 1.5",
                    "input": 3,
                }
            ]
        },
        BadRequest,
        {"field": "temperature", "says": "less than or equal to 1.5"},
        {},
    ),
    (
        "1.6 FastAPI in a message; a long text is no long prompt",
        422,
        mistral(
            {
                "detail": [
                    {
                        "type": "string_too_long",
                        "loc": ["body", "user"],
                        "msg": "String should have at most 64 characters",
                        "input": "the prompt",
                    }
                ]
            },
            "invalid_request_error",
        ),
        BadRequest,
        {"field": "user"},
        {},
    ),
    (
        "1.6 FastAPI, unknown field",
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                    "input": 1,
                }
            ]
        },
        Unsupported,
        {"feature": "seed"},
        {},
    ),
    (
        "2.12 unavailable",
        500,
        mistral("Service unavailable.", "internal_server_error", "1000"),
        Overloaded,
        {},
        {},
    ),
]

DEEPSEEK: list[Row] = [
    (
        "2.13 key",
        401,
        openai(
            "Authentication Fails, Your api key: ****abcd is invalid",
            "authentication_error",
            INVALID,
        ),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.13 money",
        402,
        openai("Insufficient Balance", "unknown_error", INVALID),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.7 context",
        400,
        openai(
            "This model's maximum context length is 65536 tokens. However, you requested 70123"
            " tokens (62123 in the messages, 8000 in the completion).",
            INVALID,
            INVALID,
        ),
        ContextOverflow,
        {"needed_tokens": 70123, "limit_tokens": 65536},
        {},
    ),
    ("2.13 filter", 400, openai("Content Exists Risk", INVALID), ContentRefused, {}, {}),
    (
        "2.13 range",
        400,
        openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", INVALID),
        BadRequest,
        {},
        {},
    ),
    ("2.13 busy", 503, openai("Service is too busy.", "server_error"), Overloaded, {}, {}),
]

OPENROUTER: list[Row] = [
    (
        "2.14 key",
        401,
        routed("User not found.", 401),
        AuthRejected,
        {"request_id": "gen-1"},
        {"x-generation-id": "gen-1"},
    ),
    ("2.14 money", 402, routed("Insufficient credits. Add more.", 402), QuotaExhausted, {}, {}),
    (
        "2.14 money that is held",
        402,
        routed("Held.", 402, error_type="in_flight_budget_exhausted"),
        RateLimited,
        {},
        {},
    ),
    (
        "2.14 money that never suffices",
        402,
        routed("Too dear.", 402, error_type="weight_exceeds_budget"),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.8 moderation; what was flagged is not repeated",
        403,
        routed(
            'x requires moderation. Your input was flagged for "violence".',
            403,
            reasons=["violence"],
            flagged_input="how to",
            provider_name="X",
        ),
        ContentRefused,
        {},
        {},
    ),
    (
        "2.14 no tools",
        404,
        routed("No endpoints found that support tool use.", 404),
        Unsupported,
        {"feature": "tools"},
        {},
    ),
    ("2.14 no model", 404, routed("No endpoints found for x/y.", 404), ModelNotFound, {}, {}),
    (
        "2.14 a name that is none",
        400,
        routed("x/y is not a valid model ID", 400),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.14 the vendor behind, in a 200",
        200,
        routed(
            "Provider returned error",
            429,
            raw="z-ai/glm is temporarily rate-limited upstream. Please retry shortly.",
            provider_name="BaseTen",
        ),
        RateLimited,
        {"status": 429, "says": "rate-limited upstream"},
        {},
    ),
    (
        "2.14 the vendor behind, as JSON in a text",
        200,
        routed(
            "Provider returned error",
            400,
            raw=json.dumps(
                openai(
                    "This endpoint's maximum context length is 131072 tokens. However, you"
                    " requested about 200000 tokens.",
                    INVALID,
                )
            ),
        ),
        ContextOverflow,
        {"needed_tokens": 200000, "limit_tokens": 131072, "status": 400},
        {},
    ),
    (
        "1.7 by type",
        400,
        routed("Provider returned error", 400, error_type="token_limit_exceeded"),
        ContextOverflow,
        {},
        {},
    ),
    (
        "1.7 a text that is too long",
        400,
        routed("Too long", 400, error_type="string_too_long"),
        ContextOverflow,
        {},
        {},
    ),
    (
        "2.14 free of charge, a day's",
        429,
        routed(
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 requests",
            429,
            headers={
                "X-RateLimit-Limit": "50",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": "1795172400000",
            },
        ),
        RateLimited,
        {"retry_after_s": 3600.0},
        {"date": DATE},
    ),
    (
        "2.14 vendor down",
        502,
        routed("Provider returned error", 502, error_type="provider_unavailable"),
        Overloaded,
        {},
        {},
    ),
    (
        "2.14 vendor full",
        529,
        routed("Provider returned error", 529, error_type="provider_overloaded"),
        Overloaded,
        {"retry_after_s": 8.0},
        {"retry-after": "8"},
    ),
    ("2.14 edge", 524, routed("A timeout occurred", 524), Overloaded, {"status": 524}, {}),
    ("2.14 late", 408, routed("Late", 408, error_type="timeout"), Overloaded, {}, {}),
    (
        "2.14 policy",
        400,
        routed("No.", 400, error_type="content_policy_violation"),
        ContentRefused,
        {},
        {},
    ),
    ("2.14 a cut", 200, {**routed("Failed", 500), "choices": []}, BadReply, {"status": 500}, {}),
]

LITELLM: list[Row] = [
    (
        "2.15 rate",
        429,
        openai(
            "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached for"
            " gpt-4. Please try again in 1m30s.",
            "throttling_error",
            "429",
            param=None,
        ),
        RateLimited,
        {"retry_after_s": 90.0, "request_id": "call-1"},
        {"x-litellm-call-id": "call-1"},
    ),
    (
        "2.15 money behind",
        429,
        openai(
            "litellm.RateLimitError: RateLimitError: OpenAIException - Error code: 429 -"
            " {'error': {'message': 'You exceeded your current quota', 'type':"
            " 'insufficient_quota'}}",
            "throttling_error",
            "429",
        ),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.7 by class",
        400,
        openai(
            "litellm.ContextWindowExceededError: litellm.BadRequestError:"
            " ContextWindowExceededError: OpenAIException - This model's maximum context length is"
            " 8192 tokens. However, your messages resulted in 9000 tokens.",
            None,
            "400",
        ),
        ContextOverflow,
        {"needed_tokens": 9000, "limit_tokens": 8192},
        {},
    ),
    (
        "2.15 budget",
        400,
        openai(
            "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", "budget_exceeded", "400"
        ),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "2.15 key",
        401,
        openai(
            "Authentication Error, Invalid proxy server token passed. Received API Key ="
            " sk-...1234, Key Hash (Token) ="
            " 88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b. Unable to find"
            " token in cache or `LiteLLM_VerificationTokenTable`",
            "token_not_found_in_db",
            "401",
            param="key",
        ),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.15 a key for other models",
        401,
        openai("key not allowed to access model.", "key_model_access_denied", "401"),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.15 model",
        400,
        openai(
            "/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view"
            " available models for your key.",
            INVALID,
            "400",
        ),
        ModelNotFound,
        {},
        {},
    ),
    (
        "2.15 nobody left",
        429,
        openai(
            "No deployments available for selected model, Try again in 60 seconds.",
            "None",
            "429",
            param="None",
        ),
        RateLimited,
        {"retry_after_s": 60.0},
        {},
    ),
    (
        "2.15 policy",
        400,
        openai(
            "litellm.ContentPolicyViolationError: litellm.BadRequestError: AzureException - no.",
            None,
            "400",
        ),
        ContentRefused,
        {},
        {},
    ),
    (
        "2.15 an answer inside a message",
        400,
        openai(
            json.dumps(
                {
                    "type": "error",
                    "error": {
                        "type": INVALID,
                        "message": "prompt is too long: 210000 tokens > 200000 maximum",
                    },
                    "request_id": "req_2",
                }
            )
            + ". Received Model Group=claude\nAvailable Model Group Fallbacks=None",
            "None",
            "400",
            param="None",
        ),
        ContextOverflow,
        {"needed_tokens": 210000, "request_id": "req_2"},
        {},
    ),
    (
        "2.15 nobody there",
        500,
        openai("litellm.APIConnectionError: OllamaException - refused", None, "500"),
        Unreachable,
        {},
        {},
    ),
    (
        "2.15 late",
        408,
        openai("litellm.Timeout: APITimeoutError - Request timed out.", None, "408"),
        Overloaded,
        {},
        {},
    ),
    (
        "2.15 in a stream",
        200,
        openai("litellm.ServiceUnavailableError: gone", None, "503", param=None),
        Overloaded,
        {"status": 503},
        {},
    ),
    (
        "2.15 parameter",
        400,
        openai(
            "litellm.UnsupportedParamsError: ollama does not support parameters: ['logprobs'],"
            " for model=x.",
            None,
            "400",
        ),
        Unsupported,
        {"feature": "logprobs"},
        {},
    ),
]

ROWS = [*GROQ, *TOGETHER, *MISTRAL, *DEEPSEEK, *OPENROUTER, *LITELLM]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_an_error_stands_for_this(row: Row, judge: Any) -> None:
    """The class and the facts are those of the row; its number is the section it comes from."""
    judge(row)


@pytest.mark.parametrize("habits", [None, Habits(too_large_is_rate=True)])
def test_more_than_a_minutes_limit_never_fits(habits: Habits | None, judge: Any) -> None:
    """Waiting does not help a request that is larger than the limit: it needs another model."""
    judge(GROQ_LARGE, habits)


def test_less_than_a_minutes_limit_fits_later(judge: Any) -> None:
    """A size that the limit allows is a matter of time."""
    said = openai("Tokens per minute: Limit 6000, Requested 900. Try again in 3s.", "tokens")
    row: Row = ("1.6", 413, said, RateLimited, {"retry_after_s": 3.0}, {})

    judge(row, Habits(too_large_is_rate=True))


@pytest.mark.parametrize("row", TOGETHER_FORBIDDEN, ids=[row[0] for row in TOGETHER_FORBIDDEN])
def test_where_forbidden_means_too_long(row: Row, judge: Any) -> None:
    """A habit turns 403 into an overflow, unless the vendor speaks of the key."""
    judge(row, Habits(forbidden_is_overflow=True))
