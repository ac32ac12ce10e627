"""Errors of OpenAI, Azure, Anthropic and Gemini, as they answer them, and what each stands for."""

from __future__ import annotations

from typing import Any

import pytest

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    InvalidGrammar,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Unsupported,
)

Row = tuple[str, int, Any, type[DispatcherError], dict[str, Any], dict[str, str]]


def openai(message: str, kind: str, code: str | None = None, param: str | None = None) -> Any:
    """Return an error in the shape of OpenAI."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic(kind: str, message: str, **details: Any) -> Any:
    """Return an error in the shape of Anthropic."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if details:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": "req_011CTest"}


def gemini(code: int, status: str, message: str, *details: Any) -> Any:
    """Return an error in the shape of Google's interfaces."""
    error = {"code": code, "message": message, "status": status}
    return {"error": {**error, "details": list(details)} if details else error}


def google(kind: str, **fields: Any) -> Any:
    """Return a detail of such an error."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


INVALID = "invalid_request_error"
ID = {"x-request-id": "req_7"}
DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
PER_MINUTE = google(
    "QuotaFailure",
    violations=[
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "10",
        }
    ],
)
PER_DAY = google(
    "QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]
)
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."

OPENAI: list[Row] = [
    (
        "1.6 bad key, whose ends are echoed",
        401,
        openai(
            "Incorrect API key provided: sk-abcde************************wxyz. You can find your"
            " API key at https://platform.openai.com/account/api-keys.",
            INVALID,
            "invalid_api_key",
        ),
        AuthRejected,
        {"request_id": "req_7", "says": "provided: [redacted]"},
        ID,
    ),
    (
        "1.6 no scope",
        401,
        openai("You have insufficient permissions for this operation.", INVALID),
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 region",
        403,
        openai(
            "Country, region, or territory not supported",
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 rate in words",
        429,
        openai(
            "Rate limit reached for gpt-4 in organization org-x on requests per min (RPM): Limit 3,"
            " Used 3, Requested 1. Please try again in 20s. You can increase your rate limit by"
            " adding a payment method to your account at"
            " https://platform.openai.com/account/billing.",
            "requests",
            "rate_limit_exceeded",
        ),
        RateLimited,
        {"retry_after_s": 20.0},
        {},
    ),
    (
        "1.6 rate with the finer header",
        429,
        openai("Rate limit reached", "tokens", "rate_limit_exceeded"),
        RateLimited,
        {"retry_after_s": 0.25},
        {"retry-after-ms": "250", "retry-after": "1"},
    ),
    (
        "1.6 rate with what is left",
        429,
        openai("Rate limit reached", "tokens", "rate_limit_exceeded"),
        RateLimited,
        {"retry_after_s": 360.0},
        {
            "x-ratelimit-remaining-requests": "9",
            "x-ratelimit-reset-requests": "12h0m0s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
        },
    ),
    (
        "1.6 larger than a minute's limit",
        429,
        openai(
            "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit"
            " 30000, Requested 30601. The input or output tokens must be reduced in order to run"
            " successfully. Visit https://platform.openai.com/account/rate-limits to learn more.",
            "tokens",
            "rate_limit_exceeded",
        ),
        ContextOverflow,
        {"needed_tokens": 30601, "limit_tokens": 30000},
        {},
    ),
    (
        "1.6 no money",
        429,
        openai(EXCEEDED, "insufficient_quota", "insufficient_quota"),
        QuotaExhausted,
        {"retry_after_s": None},
        {"x-ratelimit-reset-tokens": "1s"},
    ),
    (
        "1.6 credit",
        429,
        openai("No credit.", "insufficient_quota", "credit_balance_exhausted"),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 spend limit of a project",
        429,
        openai("Spent.", "insufficient_quota", "project_spend_limit_exceeded"),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 slow down",
        503,
        openai("Slow down.", "rate_limit_error", "slow_down"),
        RateLimited,
        {"retry_after_s": 5.0},
        {"retry-after": "5"},
    ),
    (
        "1.6 overloaded",
        503,
        openai("Busy.", "service_unavailable_error", "server_is_overloaded"),
        Overloaded,
        {},
        {},
    ),
    (
        "1.6 its own failure",
        500,
        openai("The server had an error while processing your request.", "server_error"),
        BadReply,
        {"request_id": "req_7"},
        ID,
    ),
    (
        "1.7 overflow by name",
        400,
        openai(
            "This model's maximum context length is 128000 tokens. However, your messages resulted"
            " in 150,123 tokens. Please reduce the length of the messages.",
            INVALID,
            "context_length_exceeded",
            "messages",
        ),
        ContextOverflow,
        {"needed_tokens": 150123, "limit_tokens": 128000, "request_id": "req_7"},
        ID,
    ),
    (
        "1.7 overflow with the completion",
        400,
        openai(
            "This model's maximum context length is 4097 tokens. However, you requested 5360 tokens"
            " (360 in the messages, 5000 in the completion).",
            INVALID,
        ),
        ContextOverflow,
        {"needed_tokens": 5360, "limit_tokens": 4097},
        {},
    ),
    (
        "1.7 configured limit",
        400,
        openai(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in"
            " 300000 tokens. Please reduce the length of the messages.",
            INVALID,
            "context_length_exceeded",
            "messages",
        ),
        ContextOverflow,
        {"needed_tokens": 300000, "limit_tokens": 272000},
        {},
    ),
    (
        "1.7 responses, no numbers",
        400,
        openai(
            "Your input exceeds the context window of this model. Please adjust your input and try"
            " again.",
            INVALID,
            "context_length_exceeded",
            "input",
        ),
        ContextOverflow,
        {"needed_tokens": None, "limit_tokens": None},
        {},
    ),
    (
        "1.7 a long field is no context",
        400,
        openai(
            "Invalid 'user': string too long. Expected a string with maximum length 64.",
            INVALID,
            "string_above_max_length",
            "user",
        ),
        BadRequest,
        {"field": "user"},
        {},
    ),
    (
        "1.8 policy",
        400,
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            INVALID,
            "invalid_prompt",
        ),
        ContentRefused,
        {},
        {},
    ),
    (
        "1.8 policy of images",
        400,
        openai("Blocked.", "image_generation_user_error", "image_content_policy_violation"),
        ContentRefused,
        {},
        {},
    ),
    (
        "1.6 no such model",
        404,
        openai(
            "The model `gpt-9` does not exist or you do not have access to it.",
            INVALID,
            "model_not_found",
        ),
        ModelNotFound,
        {"says": "`gpt-9`"},
        {},
    ),
    (
        "1.6 a model that a project may not use",
        403,
        openai(
            "Project `proj_x` does not have access to model `gpt-4`", INVALID, "model_not_found"
        ),
        ModelNotFound,
        {},
        {},
    ),
    (
        "1.6 no such path",
        404,
        openai("Invalid URL (POST /v1/chat)", INVALID),
        Unsupported,
        {"feature": "endpoint", "says": "/v1"},
        {},
    ),
    (
        "2.1 max_tokens of reasoning models",
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
            INVALID,
            "unsupported_parameter",
            "max_tokens",
        ),
        Unsupported,
        {"feature": "max_tokens"},
        {},
    ),
    (
        "2.1 temperature of reasoning models",
        400,
        openai(
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the"
            " default (1) value is supported.",
            INVALID,
            "unsupported_value",
            "temperature",
        ),
        Unsupported,
        {"feature": "temperature"},
        {},
    ),
    (
        "2.1 unknown parameter",
        400,
        openai("Unrecognized request argument supplied: top_k", INVALID),
        Unsupported,
        {"feature": "top_k"},
        {},
    ),
    (
        "2.1 out of range",
        400,
        openai(
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0"
            " instead.",
            INVALID,
            "integer_below_min_value",
            "max_tokens",
        ),
        BadRequest,
        {"field": "max_tokens"},
        {},
    ),
    (
        "2.1 schema",
        400,
        openai(
            "Invalid schema for response_format 'x': In context=(), 'additionalProperties' is"
            " required to be supplied and to be false.",
            INVALID,
            None,
            "response_format",
        ),
        InvalidGrammar,
        {"status": 400},
        {},
    ),
    (
        "2.1 schema of a tool",
        400,
        openai(
            "Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"'.",
            INVALID,
            "invalid_function_parameters",
            "tools[0].function.parameters",
        ),
        InvalidGrammar,
        {},
        {},
    ),
    (
        "2.1 a model without schemas",
        400,
        openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this"
            " model.",
            INVALID,
            None,
            "response_format",
        ),
        Unsupported,
        {"feature": "response_format"},
        {},
    ),
    (
        "1.5 an error event of responses",
        200,
        {
            "type": "error",
            "code": "rate_limit_exceeded",
            "message": "Slower.",
            "param": None,
            "sequence_number": 3,
        },
        RateLimited,
        {"status": None},
        {},
    ),
    (
        "1.5 a failed response",
        200,
        {
            "type": "response.failed",
            "response": {
                "id": "resp_1",
                "status": "failed",
                "error": {"code": "server_error", "message": "Sorry."},
                "output": [],
            },
        },
        BadReply,
        {"says": "Sorry."},
        {},
    ),
]

AZURE: list[Row] = [
    (
        "1.8 prompt filtered",
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's"
                " content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
                },
            }
        },
        ContentRefused,
        {"request_id": "apim-1"},
        {"apim-request-id": "apim-1"},
    ),
    (
        "1.8 the inner error alone tells",
        400,
        {"error": {"code": "BadRequest", "inner_error": {"code": "ResponsibleAIPolicyViolation"}}},
        ContentRefused,
        {},
        {},
    ),
    (
        "1.6 deployment",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        ModelNotFound,
        {},
        {},
    ),
    (
        "1.6 wrong address",
        404,
        {"error": {"code": "404", "message": "Resource not found"}},
        Unsupported,
        {"feature": "endpoint"},
        {},
    ),
    (
        "1.6 key",
        401,
        {
            "error": {
                "code": "401",
                "message": "Access denied due to invalid subscription key or wrong API endpoint.",
            }
        },
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 gateway of the cloud",
        401,
        {"statusCode": 401, "message": "Unauthorized. Access token is missing or invalid."},
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 a day's wait",
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded token"
                " rate limit of your current OpenAI S0 pricing tier. Please retry after 86400"
                " seconds.",
            }
        },
        RateLimited,
        {"retry_after_s": 86400.0},
        {},
    ),
    (
        "2.2 high demand is no rate",
        429,
        {
            "error": {
                "code": "429",
                "message": "The system is currently experiencing high demand and cannot process"
                " your request. Please retry after 20 seconds.",
            }
        },
        Overloaded,
        {"retry_after_s": 20.0},
        {},
    ),
    (
        "1.6 resets of nothing",
        429,
        {"error": {"code": "too_many_requests", "message": "Too Many Requests"}},
        RateLimited,
        {"retry_after_s": None},
        {"x-ratelimit-reset-tokens": "-1", "x-ratelimit-remaining-tokens": "-1"},
    ),
    (
        "2.2 a model for something else",
        400,
        {
            "error": {
                "code": "OperationNotSupported",
                "message": "The chatCompletion operation does not work with the specified model.",
            }
        },
        Unsupported,
        {},
        {},
    ),
]

ANTHROPIC: list[Row] = [
    (
        "2.3 key",
        401,
        anthropic("authentication_error", "invalid x-api-key"),
        AuthRejected,
        {"request_id": "req_011CTest"},
        {},
    ),
    (
        "2.3 permission",
        403,
        anthropic("permission_error", "Your API key may not."),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.3 bill",
        402,
        anthropic("billing_error", "Your payment is overdue."),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 credit in words",
        400,
        anthropic(
            INVALID,
            "Your credit balance is too low to access the Anthropic API. Please go to"
            " Plans & Billing to upgrade or purchase credits.",
        ),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 the customer's own limit",
        400,
        anthropic(
            INVALID,
            "You have reached your specified API usage limits. You will regain access on"
            " 2026-12-01 at 00:00 UTC.",
        ),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 spend limit by its code",
        429,
        anthropic("rate_limit_error", "Limit.", error_code="enforced_spend_limit_reached"),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "2.3 ramp",
        429,
        anthropic("rate_limit_error", "Too fast.", error_code="ramp_limit_exceeded"),
        RateLimited,
        {"retry_after_s": 12.0},
        {"retry-after": "12"},
    ),
    (
        "1.6 rate with times of day",
        429,
        anthropic("rate_limit_error", "This request would exceed the rate limit."),
        RateLimited,
        {"retry_after_s": 37.0},
        {
            "date": DATE,
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-20T10:30:00Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-20T10:00:37Z",
        },
    ),
    (
        "1.6 overloaded",
        529,
        anthropic("overloaded_error", "Overloaded"),
        Overloaded,
        {"request_id": "req_8"},
        {"request-id": "req_8"},
    ),
    (
        "1.5 overloaded in a stream",
        200,
        anthropic("overloaded_error", "Overloaded"),
        Overloaded,
        {"status": None, "request_id": "req_011CTest"},
        {},
    ),
    ("2.3 its own failure", 500, anthropic("api_error", "Internal server error"), BadReply, {}, {}),
    (
        "2.3 its own deadline",
        504,
        anthropic("timeout_error", "Timed out."),
        Overloaded,
        {"status": 504, "says": "deadline"},
        {},
    ),
    ("2.3 conflict", 409, anthropic("conflict_error", "Again."), Overloaded, {}, {}),
    ("2.3 model", 404, anthropic("not_found_error", "model: claude-9"), ModelNotFound, {}, {}),
    (
        "1.7 prompt",
        400,
        anthropic(INVALID, "prompt is too long: 215000 tokens > 200000 maximum"),
        ContextOverflow,
        {"needed_tokens": 215000, "limit_tokens": 200000, "request_id": "req_011CTest"},
        {},
    ),
    (
        "1.7 prompt and reply",
        400,
        anthropic(
            INVALID,
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease"
            " input length or `max_tokens` and try again",
        ),
        ContextOverflow,
        {"needed_tokens": 210000, "limit_tokens": 200000},
        {},
    ),
    (
        "1.7 bytes",
        413,
        anthropic("request_too_large", "Request exceeds the maximum size"),
        ContextOverflow,
        {"needed_tokens": None, "limit_tokens": None},
        {},
    ),
    (
        "1.8 filter",
        400,
        anthropic(INVALID, "Output blocked by content filtering policy"),
        ContentRefused,
        {},
        {},
    ),
    (
        "2.3 sampling of new models",
        400,
        anthropic(INVALID, "`temperature` is deprecated for this model."),
        Unsupported,
        {"feature": "temperature"},
        {},
    ),
    (
        "2.3 too many tokens to write",
        400,
        anthropic(
            INVALID,
            "max_tokens: 21333 > 4096, which is the maximum allowed number of output tokens",
        ),
        BadRequest,
        {"field": "max_tokens"},
        {},
    ),
    (
        "2.3 a field of a message",
        400,
        anthropic(INVALID, "messages.1.content: Input should be a valid list"),
        BadRequest,
        {"field": "messages.1.content"},
        {},
    ),
    (
        "2.3 on hold",
        400,
        anthropic(INVALID, "On hold.", error_code="organization_on_hold"),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.3 unknown field",
        400,
        anthropic(INVALID, "top_a: Extra inputs are not permitted"),
        Unsupported,
        {"feature": "top_a"},
        {},
    ),
]

GEMINI: list[Row] = [
    (
        "2.4 a bad key is a bad request",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            google("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com"),
        ),
        AuthRejected,
        {},
        {},
    ),
    (
        "2.4 region",
        400,
        gemini(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 switched off",
        403,
        gemini(
            403,
            "PERMISSION_DENIED",
            "Generative Language API has not been used in project 1 before or it is disabled.",
            google("ErrorInfo", reason="SERVICE_DISABLED"),
        ),
        AuthRejected,
        {},
        {},
    ),
    (
        "1.6 a minute's limit, whose words are those of an empty account",
        429,
        gemini(
            429, "RESOURCE_EXHAUSTED", EXCEEDED, PER_MINUTE, google("RetryInfo", retryDelay="37s")
        ),
        RateLimited,
        {"retry_after_s": 37.0},
        {},
    ),
    (
        "1.6 the wait in words",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", f"{EXCEEDED} Please retry in 37.21s.", PER_MINUTE),
        RateLimited,
        {"retry_after_s": 37.21},
        {},
    ),
    (
        "1.6 a day's limit beside a minute's",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            EXCEEDED,
            PER_MINUTE,
            PER_DAY,
            google("RetryInfo", retryDelay="5s"),
        ),
        QuotaExhausted,
        {"retry_after_s": None},
        {},
    ),
    (
        "1.6 prepaid",
        429,
        gemini(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
        QuotaExhausted,
        {},
        {},
    ),
    (
        "1.6 no machine",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            "No capacity available for model gemini-3-pro on the server",
            google("ErrorInfo", reason="MODEL_CAPACITY_EXHAUSTED"),
        ),
        Overloaded,
        {},
        {},
    ),
    (
        "1.7 in a list",
        400,
        [
            gemini(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200293) exceeds the maximum number of tokens allowed"
                " (1048576).",
            )
        ],
        ContextOverflow,
        {"needed_tokens": 1200293, "limit_tokens": 1048576},
        {},
    ),
    (
        "1.7 bytes",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "Request payload size exceeds the limit: 20971520 bytes.",
        ),
        ContextOverflow,
        {"needed_tokens": None, "limit_tokens": None},
        {},
    ),
    (
        "1.6 model",
        404,
        gemini(
            404,
            "NOT_FOUND",
            "models/gemini-9 is not found for API version v1beta, or is not supported for"
            " generateContent. Call ListModels to see the list of available models.",
        ),
        ModelNotFound,
        {},
        {},
    ),
    (
        "1.6 overloaded",
        503,
        gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        Overloaded,
        {},
        {},
    ),
    ("1.6 its own failure", 500, gemini(500, "INTERNAL", "An internal error."), BadReply, {}, {}),
    ("1.6 its own deadline", 504, gemini(504, "DEADLINE_EXCEEDED", "Late."), Overloaded, {}, {}),
    (
        "2.4 a field that is named",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "Request contains an invalid argument.",
            google(
                "BadRequest",
                fieldViolations=[{"field": "contents", "description": "contents is not specified"}],
            ),
        ),
        BadRequest,
        {"field": "contents", "says": "contents is not specified"},
        {},
    ),
    (
        "2.4 penalties",
        400,
        gemini(400, "INVALID_ARGUMENT", "Penalty is not enabled for models/gemini-3.5-flash"),
        Unsupported,
        {},
        {},
    ),
    (
        "2.4 schema",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The specified schema produces a constraint that has too many states for serving.",
        ),
        InvalidGrammar,
        {},
        {},
    ),
    (
        "1.5 in a stream, as its client tells it",
        200,
        {
            "error": {
                "message": '{\n  "error": {\n    "code": 429,\n    "message": "Resource has been'
                ' exhausted (e.g. check quota).",\n    "status": "RESOURCE_EXHAUSTED"\n  }\n}\n',
                "code": 429,
                "status": "Too Many Requests",
            }
        },
        RateLimited,
        {"status": 429, "says": "Resource has been exhausted"},
        {},
    ),
]

ROWS = [*OPENAI, *AZURE, *ANTHROPIC, *GEMINI]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_an_error_stands_for_this(row: Row, judge: Any) -> None:
    """The class and the facts are those of the row; its number is the section it comes from."""
    judge(row)
