"""What is known of Ollama's models by their names, and by what the server calls their abilities.

Names are those of ollama.com/library. What a server tells of a model counts more: those before
0.30 tell no abilities in their list, and only those need the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmdispatcher.models.card import Capability

WRITES = frozenset(
    {
        Capability.CHAT,
        Capability.COMPLETION,
        Capability.JSON,
        Capability.SCHEMA,
        Capability.LOGPROBS,
    }
)
"""What every model that writes can do: the server itself holds it to a form and tells
log-probabilities."""

NOT_IN_CLOUD = frozenset({Capability.JSON, Capability.SCHEMA, Capability.LOGPROBS})
"""What Ollama's cloud does not do: docs/capabilities/structured-outputs.mdx in Ollama's sources."""

TOLD: dict[str, frozenset[Capability]] = {
    "completion": WRITES,
    "tools": frozenset({Capability.TOOLS}),
    "insert": frozenset({Capability.INFILL}),
    "vision": frozenset({Capability.VISION}),
    "embedding": frozenset({Capability.EMBED}),
    "thinking": frozenset({Capability.EFFORT}),
}
"""By the words of ``types/model/capability.go`` in Ollama's sources."""

FAMILIES: dict[str, frozenset[Capability]] = {
    "bert": frozenset({Capability.EMBED}),
    "nomic-bert": frozenset({Capability.EMBED}),
    "clip": frozenset({Capability.VISION}),
    "mllama": frozenset({Capability.VISION}),
}
"""By the architectures that lists told before they told abilities."""

NAMES: tuple[tuple[re.Pattern[str], frozenset[Capability]], ...] = (
    (
        re.compile(r"embed|minilm|^bge-|^paraphrase-"),
        frozenset({Capability.EMBED}),
    ),
    (
        re.compile(r"llava|vision|moondream|minicpm-v|vl\b|^gemma3(?!:(1b|270m))|^llama4"),
        frozenset({Capability.VISION}),
    ),
    (
        re.compile(r"^(qwen3(?!-coder|-embedding)|gpt-oss|deepseek-(r1|v3\.1)|magistral|qwq)"),
        frozenset({Capability.EFFORT}),
    ),
    (
        re.compile(r"^(qwen2\.5-coder|starcoder2|codestral|deepseek-coder-v2)|^codegemma.*code"),
        frozenset({Capability.INFILL}),
    ),
)
"""By patterns in the name, behind the namespace, with what the family can do besides."""


def is_cloud(model: str) -> bool:
    """Whether the name asks for Ollama's cloud: ``gpt-oss:120b-cloud``, ``kimi-k2:cloud``.

    So does ``internal/modelref`` in Ollama's sources.
    """
    tag = model.strip().lower().rpartition(":")[2] if ":" in model else ""
    return tag == "cloud" or ("/" not in tag and tag.endswith("-cloud"))


def by_name(model: str) -> frozenset[Capability]:
    """Return what a model can do, as far as its name and family tell.

    Tools are on every list: a model that has no place for them is refused by the server before it
    is loaded, where a list that lacks them would keep them from a model that has one.
    """
    name = model.lower().rpartition("/")[2]
    found = frozenset[Capability]().union(*(can for form, can in NAMES if form.search(name)))
    return found if Capability.EMBED in found else found | WRITES | {Capability.TOOLS}


def by_families(model: str, families: Iterable[str]) -> frozenset[Capability]:
    """Return what a model can do by its name and the architectures that it is made of."""
    found = frozenset[Capability]().union(*(FAMILIES.get(each, frozenset()) for each in families))
    return found if Capability.EMBED in found else found | by_name(model)


def by_words(words: Iterable[str]) -> frozenset[Capability]:
    """Return what a model can do by what the server says; unknown words say nothing."""
    return frozenset[Capability]().union(*(TOLD.get(word, frozenset()) for word in words))
