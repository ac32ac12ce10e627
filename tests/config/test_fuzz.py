"""Whatever stands in a file, it is read or refused with a ConfigError: nothing else is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import ConfigError
from llmdispatcher.config import arguments, showing
from llmdispatcher.config import settings as reader
from llmdispatcher.models.errors import Problem
from llmdispatcher.vendors import discovery

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "cost", "cascade", "openai", "ollama", "5", "yes", "~", "${A}", "a/b"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

VENDORS: dict[str, list[str]] = {
    kind: ["type", "enabled", *arguments.maker(discovery.find(kind)).arguments]
    for kind in ("openai", "azure", "ollama", "llamacpp", "embedded", "scripted")
}
"""All that can be said of a vendor: of each kind that is made in its own way."""

MOST = 5
"""Keys of a vendor in a file: where many are wrong at once, one hides another."""

SECTIONS: dict[str, list[str]] = {
    "retry": ["attempts", "total_s", "backoff_s", "max_cost_usd"],
    "breaker": ["cap_s", "open_s"],
    "deadlines": ["total_s", "idle_s"],
    "routing": ["priorities", "weights", "value_of_time_usd", "explore"],
    "ledger": ["path", "share", "expire_s"],
    "strategy": ["order", "plan", "only"],
    "limits": ["openai", "a/b"],
    "catalog": ["models"],
    "fallback": ["strategy", "max_retries", "timeout_seconds", "retry_delay_seconds"],
    "providers": ["cloud", "local"],
}


def mapping(keys: list[str]) -> st.SearchStrategy[Any]:
    """Make a mapping with some of its keys, and now and then something else."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, VALUES)) | VALUES


def files() -> st.SearchStrategy[Any]:
    """Make files whose keys are right and whose values are anything."""
    vendors = {
        name: st.dictionaries(st.sampled_from(keys), VALUES, max_size=MOST) | VALUES
        for name, keys in VENDORS.items()
    }
    whole = {name: mapping(keys) for name, keys in SECTIONS.items()}
    whole |= {
        "vendors": st.fixed_dictionaries({}, optional=vendors),
        "budgets": st.lists(mapping(["usd", "period", "scope", "name"]), max_size=2),
        "preset": VALUES,
        "max_memory_mb": VALUES,
        "allow_cloud": VALUES,
    }
    return st.fixed_dictionaries({}, optional=whole)


def is_read_or_refused(text: bytes) -> None:
    """Check that reading ends in one of two ways, and that what was read can be shown."""
    problems: tuple[Problem, ...] | None = None
    try:
        made = reader.parse(text, {}, "file.yaml")
    except ConfigError as error:
        problems = error.problems
    if problems is None:
        assert showing.rows(made, {})
    else:
        assert problems
        assert all(problem.message for problem in problems)


@settings(max_examples=60)
@given(file=files())
def test_any_values_are_read_or_refused(file: Any) -> None:
    """Under keys that are right."""
    is_read_or_refused(yaml.safe_dump(file, allow_unicode=True).encode())


@settings(max_examples=40)
@given(file=files(), at=st.integers(0, 10**6), junk=st.binary(max_size=3))
def test_any_damage_is_read_or_refused(file: Any, at: int, junk: bytes) -> None:
    """A file with some bytes changed."""
    text = json.dumps(file, default=str).encode()
    place = at % (len(text) + 1)

    is_read_or_refused(text[:place] + junk + text[place + len(junk) :])


@settings(max_examples=40)
@given(text=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Files that never were a configuration."""
    is_read_or_refused(text)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@settings(max_examples=5000)
@given(file=files())
def test_many_values_are_read_or_refused(file: Any) -> None:
    """The first rule, often."""
    is_read_or_refused(yaml.safe_dump(file, allow_unicode=True).encode())
