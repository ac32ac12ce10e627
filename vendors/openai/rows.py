"""The hosts that are known to speak the chat-completions dialect: where they are, and their ways.

A new host is a new row. Sources are the vendors' references and SDKs and the servers' own sources,
as of November 2026; what a host does not document is taken as not there, so that a request for it
is refused here and not dropped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.openai.ways import (
    ALIKE,
    Choosing,
    JsonMode,
    Logprobs,
    Pictures,
    Place,
    Prefill,
    Prices,
    Thinking,
    Ways,
)
from llmdispatcher.vendors.wire.faults import Habits


@attrs.frozen(kw_only=True)
class Row:
    """A preset: how to reach a host, and its ways."""

    name: str
    base_url: str = ""
    """Scheme and host; empty where every user has another."""
    api_path: str = "/v1"
    """What the paths of the dialect are behind."""
    key_env: tuple[str, ...] = ()
    """Environment variables that hold the key, the first that is set."""
    key_header: str = "authorization"
    """``authorization`` takes the key behind ``Bearer``, others take it as it is."""
    local: bool = False
    """Its usual address is this machine, and so its models are."""
    streams_always: bool = False
    """It notices that a caller has gone only while it streams, and would write on for nobody."""
    idempotency_header: str = ""
    """In which a request is named so that it is done once, however often it is sent. Empty in every
    row: the hosts document none for replies, and their own clients send none there."""
    ways: Ways = attrs.field(factory=Ways)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in (*ALIKE, *names)}


_PENALTY = {"repeat_penalty": "repetition_penalty"}
_BY_WORD = Thinking(by_model=True, effort=("reasoning_effort",))
_UP_TO_HIGH = ("low", "medium", "high")
_SWITCHED = Thinking(
    on={"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
    off={"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    effort=("reasoning_effort",),
    words=_UP_TO_HIGH,
)
"""Templates know the switch by one of two names."""

_CONTINUED = Prefill(body={"continue_final_message": True, "add_generation_prompt": False})

_OPENAI = Ways(
    responses=True,
    max_tokens="max_completion_tokens",
    stream_options={"include_usage": True, "include_obfuscation": False},
    refuses_by_model=True,
    max_stops=4,
    thinking=_BY_WORD,
    developer_role=True,
    max_texts=2048,
    packed_vectors=True,
)
_AZURE = attrs.evolve(_OPENAI, stream_options={"include_usage": True})

_OPENAI_ROW = Row(
    name="openai",
    base_url="https://api.openai.com",
    key_env=("OPENAI_API_KEY",),
    ways=_OPENAI,
)
_AZURE_ROW = Row(
    name="azure",
    api_path="/openai/v1",
    key_env=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
    key_header="api-key",
    ways=_AZURE,
)
_AZURE_DATED_ROW = attrs.evolve(
    _AZURE_ROW,
    name="azure-dated",
    api_path="/openai",
    ways=attrs.evolve(
        _AZURE,
        route="/deployments/{model}{endpoint}?api-version={version}",
        plain_route="{endpoint}?api-version={version}",
        api_version="2025-02-01-preview",
        responses=False,
        listing=None,  # its list is of models, and what can be asked are deployments of them
    ),
)

_VLLM_ROW = Row(
    name="vllm",
    base_url="http://127.0.0.1:8000",
    key_env=("VLLM_API_KEY", "HOSTED_VLLM_API_KEY"),
    local=True,
    ways=Ways(
        raw="/completions",
        rerank="/rerank",
        probe=Place(path="/health", at_root=True),
        count_chat=Place(path="/tokenize", at_root=True),
        count_raw=Place(path="/tokenize", at_root=True),
        sampling=_same("top_k", "min_p") | _PENALTY,
        max_stops=4,
        strict_by_rules=False,
        grammar=("structured_outputs", "grammar"),
        raw_schema="response_format",
        thinking=_SWITCHED,
        thoughts="reasoning",
        prefill=_CONTINUED,
        priority=True,
        max_texts=256,
        packed_vectors=True,
        sizes_by_name=False,
    ),
)
_LMSTUDIO_ROW = Row(
    name="lmstudio",
    base_url="http://127.0.0.1:1234",
    key_env=("LM_API_TOKEN", "LM_STUDIO_API_KEY"),
    local=True,
    ways=Ways(
        raw="/completions",
        listing=Place(path="/api/v1/models", at_root=True),
        tells_loaded=True,
        loads_by_chat=True,  # its own endpoint would load a second copy of a loaded model
        sampling=_same("top_k", "repeat_penalty"),
        max_choices=1,
        logprobs=Logprobs.NEVER,
        choosing=Choosing.WORDS,
        parallel=False,
        json=JsonMode.SCHEMA,
        strict_by_rules=False,
        thinking=Thinking(),
        pictures=Pictures.DATA,
        keep_alive="ttl",
        max_texts=64,
        sizes_by_name=False,
    ),
)
_LOCALAI_ROW = Row(
    name="localai",
    base_url="http://127.0.0.1:8080",
    key_env=("LOCALAI_API_KEY",),
    local=True,
    ways=Ways(
        raw="/completions",
        rerank="/rerank",
        listing=Place(path="/models/capabilities"),
        probe=Place(path="/readyz", at_root=True),
        sampling=_same("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
        parallel=False,
        strict_by_rules=False,
        grammar=("grammar",),
        thinking=Thinking(),
        max_texts=64,
        sizes_by_name=False,
    ),
)
_LLAMA_SERVER_ROW = Row(
    name="llama-server",
    base_url="http://127.0.0.1:8080",
    key_env=("LLAMA_API_KEY",),
    local=True,
    streams_always=True,
    ways=Ways(
        raw="/completions",
        rerank="/rerank",
        tells_loaded=True,
        probe=Place(path="/health", at_root=True),
        loading=Place(path="/props?model={model}", at_root=True),
        count_chat=Place(path="/chat/completions/input_tokens"),
        count_raw=Place(path="/tokenize", at_root=True),
        always={"return_progress": True},
        sampling={field.name: field.name for field in attrs.fields(Sampling)},
        raw_logprobs="n_probs",
        least_logprobs=1,  # asked for none, it would tell of no token at all
        logprobs_beside_tools=False,
        choosing=Choosing.WORDS,
        says_parallel=True,
        json=JsonMode.SCHEMA,
        strict_by_rules=False,
        grammar=("grammar",),
        raw_schema="json_schema",
        thinking=_SWITCHED,
        thoughts="reasoning_content",
        pictures=Pictures.DATA,
        prefill=attrs.evolve(_CONTINUED, repeats_whole=True),
        usage_per_choice=True,
        piece_is_token=True,
        max_texts=32,
        packed_vectors=True,
        normalize={True: {"embd_normalize": 2}, False: {"embd_normalize": -1}},
        sizes_by_name=False,
    ),
)

_GROQ_ROW = Row(
    name="groq",
    base_url="https://api.groq.com",
    api_path="/openai/v1",
    key_env=("GROQ_API_KEY",),
    ways=Ways(
        embeddings="",
        max_tokens="max_completion_tokens",
        stream_options=None,  # comes as x_groq.usage
        of_models=(("*qwen*", {"reasoning_format": "parsed"}),),  # else the text holds thoughts
        sampling={name: name for name in ("temperature", "top_p", "seed")},
        max_stops=4,
        max_choices=1,
        logprobs=Logprobs.NEVER,
        streams_forms=False,
        thinking=attrs.evolve(_BY_WORD, words=_UP_TO_HIGH),
        thoughts="reasoning",
        habits=Habits(too_large_is_rate=True),
    ),
)
_TOGETHER_ROW = Row(
    name="together",
    base_url="https://api.together.ai",
    key_env=("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
    ways=Ways(
        raw="/completions",
        rerank="/rerank",
        sampling=_same("top_k", "min_p") | _PENALTY,
        logprobs=Logprobs.NUMBER,
        thinking=Thinking(
            on={"reasoning": {"enabled": True}},
            off={"reasoning": {"enabled": False}},
            effort=("reasoning_effort",),
            words=_UP_TO_HIGH,
        ),
        thoughts="reasoning",
        numbered_calls=True,
        prices=Prices.PER_MILLION,
        habits=Habits(forbidden_is_overflow=True),
    ),
)
_MISTRAL_ROW = Row(
    name="mistral",
    base_url="https://api.mistral.ai",
    key_env=("MISTRAL_API_KEY",),
    ways=Ways(
        infill="/fim/completions",
        stream_options=None,
        sampling=_same("top_k") | {"seed": "random_seed"} | _PENALTY,
        thinking=Thinking(
            on={"reasoning_effort": "high"},
            off={"reasoning_effort": "none"},
            effort=("reasoning_effort",),
            words=("high",),
        ),
        thoughts="content",
        prefill=Prefill(message={"prefix": True}, repeats=True),
        short_ids=True,
    ),
)
_DEEPSEEK_ROW = Row(
    name="deepseek",
    base_url="https://api.deepseek.com",
    api_path="",
    key_env=("DEEPSEEK_API_KEY",),
    ways=Ways(
        infill="/beta/completions",
        embeddings="",
        sampling={name: name for name in ("temperature", "top_p")},  # penalties have no effect
        max_stops=16,
        max_choices=1,
        parallel=False,
        schema=False,
        thinking=Thinking(
            on={"thinking": {"type": "enabled"}},
            off={"thinking": {"type": "disabled"}},
            effort=("reasoning_effort",),
            words=("low", "medium", "high", "xhigh", "max"),
            by_default=True,
            forbids_demands=True,
        ),
        thoughts="reasoning_content",
        thoughts_always=True,
        pictures=Pictures.NEVER,
        prefill=Prefill(message={"prefix": True}, endpoint="/beta/chat/completions"),
    ),
)
_OPENROUTER_ROW = Row(
    name="openrouter",
    base_url="https://openrouter.ai",
    api_path="/api/v1",
    key_env=("OPENROUTER_API_KEY",),
    ways=Ways(
        insists={"provider": {"require_parameters": True}},
        stream_options=None,
        sampling=_same("top_k", "min_p") | _PENALTY,
        max_stops=4,
        max_choices=1,
        thinking=Thinking(
            on={"reasoning": {"enabled": True}},
            off={"reasoning": {"enabled": False}},
            effort=("reasoning", "effort"),
            words=("minimal", *_UP_TO_HIGH, "xhigh"),
        ),
        thoughts="reasoning",
        keepsake="reasoning_details",
        prefill=Prefill(),
        charges=True,
        prices=Prices.PER_TOKEN,
    ),
)
_LIGHTNING_ROW = Row(
    name="lightning",
    base_url="https://lightning.ai",
    api_path="/api/v1",
    key_env=("LIGHTNING_API_KEY", "LIGHTNING_MODEL_API_KEY", "LIT_API_KEY"),
    ways=Ways(
        embeddings="",
        max_tokens="max_completion_tokens",
        max_stops=4,
        max_choices=1,
        logprobs=Logprobs.NEVER,
        thinking=_BY_WORD,
    ),
)
_LITELLM_ROW = Row(
    name="litellm",
    base_url="http://127.0.0.1:4000",
    key_env=("LITELLM_PROXY_API_KEY", "LITELLM_API_KEY", "LITELLM_MASTER_KEY"),
    ways=Ways(
        raw="/completions",
        rerank="/rerank",
        probe=Place(path="/health/readiness", at_root=True),
        thinking=_BY_WORD,
        thoughts="reasoning_content",
        keepsake="thinking_blocks",
        streams_choices=False,  # it mixes their pieces up
        charges=True,
        sizes_by_name=False,
    ),
)
_COMPATIBLE_ROW = Row(
    name="openai-compatible",
    ways=Ways(raw="/completions", sizes_by_name=False),
)

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            _OPENAI_ROW,
            _AZURE_ROW,
            _AZURE_DATED_ROW,
            _VLLM_ROW,
            _LMSTUDIO_ROW,
            _LOCALAI_ROW,
            _LLAMA_SERVER_ROW,
            _GROQ_ROW,
            _TOGETHER_ROW,
            _MISTRAL_ROW,
            _DEEPSEEK_ROW,
            _OPENROUTER_ROW,
            _LIGHTNING_ROW,
            _LITELLM_ROW,
            _COMPATIBLE_ROW,
        )
    }
)
"""By their names."""
