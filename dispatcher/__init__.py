"""Send each prompt to the cheapest language model that can answer it, and fall back when one fails.

    from llmdispatcher import Dispatcher, LlamaCpp

    with Dispatcher(LlamaCpp("model.gguf")) as d:
        print(d.send("Name three uses of a paperclip."))

Importing this package loads neither an engine nor an HTTP client; those load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmdispatcher.facade import AsyncDispatcher, AsyncStream, Dispatcher, Stream, Vendor
from llmdispatcher.models.budget import SpendingCap, fingerprint
from llmdispatcher.models.card import FREE, Capability, ModelCard, Price
from llmdispatcher.models.count import TokenCount
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.embedding import Embeddings, EmbedRequest, Reranked, RerankRequest
from llmdispatcher.models.errors import (
    AllVendorsFailed,
    AuthRejected,
    BadReply,
    BadRequest,
    BreakerOpen,
    BudgetExceeded,
    Cancelled,
    ConfigError,
    ContentRefused,
    ContextOverflow,
    CorruptModel,
    DispatcherError,
    EngineCrashed,
    ExecutableNotFound,
    InvalidGrammar,
    LedgerUnusable,
    LimitReached,
    ModelFileMissing,
    ModelNotFound,
    ModelTooLarge,
    NoCandidate,
    OfflineRefused,
    OutOfMemory,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Refused,
    RequestError,
    StateUnusable,
    StreamInterrupted,
    TimedOut,
    Unreachable,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.models.event import (
    AttemptEnded,
    AttemptStarted,
    BreakerMoved,
    BudgetAlert,
    CacheTrouble,
    ConfigRefused,
    ConfigReloaded,
    EngineDied,
    Event,
    Fallback,
    LedgerTrouble,
    LoadProgress,
    ModelUnloaded,
    Restarted,
    Retried,
)
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import (
    Image,
    Keepsake,
    Message,
    Text,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)
from llmdispatcher.models.plan import Plan
from llmdispatcher.models.policy import BreakerPolicy, Limits, RetryPolicy
from llmdispatcher.models.release import VERSION
from llmdispatcher.models.reply import (
    CallDelta,
    Choice,
    Delta,
    FinishReason,
    Reply,
    Saved,
    TokenLogprob,
    Usage,
)
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.models.routing import Routing
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.models.strategy import Strategy
from llmdispatcher.models.task import Reading, Task, TaskRule
from llmdispatcher.usage import Figures, Stats

if TYPE_CHECKING:
    from llmdispatcher.cache import Cache
    from llmdispatcher.ledger import Ledger
    from llmdispatcher.models.race import Ensemble, Hedge, NoGoodAnswer, Parallel
    from llmdispatcher.models.stages import Cascade, Chain, Step
    from llmdispatcher.vendors.http.preset import (
        VLLM,
        Anthropic,
        Azure,
        DeepSeek,
        Gemini,
        Groq,
        Lightning,
        LiteLLM,
        LlamaServer,
        LMStudio,
        LocalAI,
        Mistral,
        Ollama,
        OpenAI,
        OpenAICompatible,
        OpenRouter,
        Together,
    )
    from llmdispatcher.vendors.http.secret import Secret
    from llmdispatcher.vendors.http.vendor import HttpVendor
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp
    from llmdispatcher.vendors.scripted import Scripted

__version__ = VERSION

_PRESETS = "llmdispatcher.vendors.http.preset"
_LATE = {
    "Cache": "llmdispatcher.cache",
    "Ledger": "llmdispatcher.ledger",
    "Cascade": "llmdispatcher.models.stages",
    "Chain": "llmdispatcher.models.stages",
    "Step": "llmdispatcher.models.stages",
    **dict.fromkeys(
        (
            "Anthropic",
            "Azure",
            "DeepSeek",
            "Gemini",
            "Groq",
            "LMStudio",
            "Lightning",
            "LiteLLM",
            "LlamaServer",
            "LocalAI",
            "Mistral",
            "Ollama",
            "OpenAI",
            "OpenAICompatible",
            "OpenRouter",
            "Together",
            "VLLM",
        ),
        _PRESETS,
    ),
    **dict.fromkeys(("Ensemble", "Hedge", "NoGoodAnswer", "Parallel"), "llmdispatcher.models.race"),
    "HttpVendor": "llmdispatcher.vendors.http.vendor",
    "Secret": "llmdispatcher.vendors.http.secret",
    "LlamaCpp": "llmdispatcher.vendors.llamacpp.vendor",
    "Scripted": "llmdispatcher.vendors.scripted",
}
"""These load when they are first named, so that importing the package stays cheap."""


def __getattr__(name: str) -> object:
    """Import a vendor, a plan or the ledger when it is first named."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only here

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    """List the public names, those that load late included."""
    return sorted(__all__)


__all__ = [
    "FREE",
    "VLLM",
    "AllVendorsFailed",
    "Anthropic",
    "AsyncDispatcher",
    "AsyncStream",
    "AttemptEnded",
    "AttemptStarted",
    "AuthRejected",
    "Azure",
    "BadReply",
    "BadRequest",
    "BreakerMoved",
    "BreakerOpen",
    "BreakerPolicy",
    "BudgetAlert",
    "BudgetExceeded",
    "Cache",
    "CacheTrouble",
    "CallDelta",
    "Cancelled",
    "Capability",
    "Cascade",
    "Chain",
    "Choice",
    "ConfigError",
    "ConfigRefused",
    "ConfigReloaded",
    "ContentRefused",
    "ContextOverflow",
    "CorruptModel",
    "Deadlines",
    "Decision",
    "DeepSeek",
    "Delta",
    "Dispatcher",
    "DispatcherError",
    "EmbedRequest",
    "Embeddings",
    "EngineCrashed",
    "EngineDied",
    "Ensemble",
    "Event",
    "ExecutableNotFound",
    "Fallback",
    "Figures",
    "FinishReason",
    "Gemini",
    "Groq",
    "Hedge",
    "HttpVendor",
    "Image",
    "InvalidGrammar",
    "Keepsake",
    "LMStudio",
    "Ledger",
    "LedgerTrouble",
    "LedgerUnusable",
    "Lightning",
    "LimitReached",
    "Limits",
    "LiteLLM",
    "LlamaCpp",
    "LlamaServer",
    "LoadProgress",
    "LocalAI",
    "Message",
    "Mistral",
    "ModelCard",
    "ModelFileMissing",
    "ModelNotFound",
    "ModelTooLarge",
    "ModelUnloaded",
    "NoCandidate",
    "NoGoodAnswer",
    "OfflineRefused",
    "Ollama",
    "OpenAI",
    "OpenAICompatible",
    "OpenRouter",
    "OutOfMemory",
    "Overloaded",
    "Parallel",
    "Plan",
    "Price",
    "QuotaExhausted",
    "RateLimited",
    "Reading",
    "Refused",
    "Reply",
    "Request",
    "RequestError",
    "RerankRequest",
    "Reranked",
    "ResponseFormat",
    "Restarted",
    "Retried",
    "RetryPolicy",
    "Routing",
    "Sampling",
    "Saved",
    "Scripted",
    "Secret",
    "SpendingCap",
    "StateUnusable",
    "Stats",
    "Step",
    "Strategy",
    "Stream",
    "StreamInterrupted",
    "Task",
    "TaskRule",
    "Text",
    "TimedOut",
    "Together",
    "TokenCount",
    "TokenLogprob",
    "ToolCall",
    "ToolSpec",
    "Unreachable",
    "Unsupported",
    "UnsupportedArchitecture",
    "Usage",
    "Vendor",
    "VendorError",
    "__version__",
    "assistant",
    "fingerprint",
    "system",
    "tool",
    "user",
]
