"""No secret is ever taken from a file, and none is ever shown."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import ConfigError, OpenAI
from llmdispatcher.config import settings as reader
from llmdispatcher.config import showing
from llmdispatcher.config.secrecy import is_key
from llmdispatcher.vendors.http.vendor import HttpVendor

LETTERS = string.ascii_letters + string.digits
MIXED = st.text(LETTERS, min_size=40, max_size=64).filter(
    lambda text: any(c.isdigit() for c in text) and text.lower() != text != text.upper()
)
KEYS = st.one_of(
    st.builds("sk-{}".format, st.text(LETTERS, min_size=20, max_size=48)),
    st.builds("sk-proj-{}".format, st.text(LETTERS + "_-", min_size=20, max_size=80)),
    st.builds("sk-ant-api03-{}".format, st.text(LETTERS, min_size=20, max_size=80)),
    st.builds("gsk_{}".format, st.text(LETTERS, min_size=20, max_size=52)),
    st.builds("AIza{}".format, st.text(LETTERS + "_-", min_size=35, max_size=35)),
    st.builds("ghp_{}".format, st.text(LETTERS, min_size=36, max_size=36)),
    st.text("0123456789abcdef", min_size=32, max_size=64).filter(
        lambda text: not text.isdigit() and not text.isalpha()
    ),
    MIXED.filter(lambda text: len(set(text)) > 25),
)
"""Keys as vendors make them."""

STORED = (
    "/home/Me/.cache/huggingface/hub/models--Qwen--Qwen2.5-7B-Instruct-GGUF/snapshots/"
    "bb5d59e06d9551d752d08b292a50eb208b07ab1f/qwen2.5-7b-instruct-q4_k_m.gguf"
)
"""Where a store of models has a file."""

PLACES = (
    "vendors.openai.api_key",
    "vendors.openai.api_key_env",
    "vendors.openai.apikey",
    "vendors.openai.base_url",
    "vendors.openai.models",
    "vendors.openai.models.0",
    "vendors.openai.headers.Authorization",
    "vendors.openai.headers.X-Title",
    "vendors.openai.extra.user",
    "vendors.openai.extra.deep.er",
    "vendors.openai.proxy",
    "vendors.openai.keep_alive_s",
    "vendors.openai.streaming",
    "vendors.openai.type",
    "vendors.openai.enabled",
    "vendors.openai",
    "providers.cloud.claude.api_key",
    "providers.cloud.claude.models",
    "providers.cloud.claude.cost_per_1k_input",
    "providers.cloud.claude.priority",
    "providers.cloud",
    "fallback.strategy",
    "fallback.max_retries",
    "strategy",
    "preset",
    "ledger",
    "limits.openai",
    "limits.openai.burst",
    "budgets",
    "budgets.0.usd",
    "budgets.0.name",
    "routing.priorities.openai",
    "routing.weights",
    "retry.attempts",
    "catalog.models.openai/x.quality",
    "catalog.models.openai/x.price.input",
    "catalog.models",
    "max_memory_mb",
    "allow_cloud",
    "offline",
    "nonsense",
    "nonsense.deeper.0",
)


def planted(place: str, what: object) -> object:
    """Make a file that has something at a place."""
    made: object = what
    for part in reversed(place.split(".")):
        made = [made] if part.isdecimal() else {part: made}
    return made


def all_told(text: str, tmp_path: Path | None = None) -> str:
    """Return everything that anybody is told of a file."""
    try:
        made = reader.parse(text.encode(), {}, "file.yaml")
    except ConfigError as error:
        return f"{error} {error!r} {error.problems!r} {error.__cause__!r} {error.__context__!r}"
    rows = showing.rows(made, {})
    return f"{rows} {made.hints} {list(made.specs)}"


def is_refused_unseen(place: str, key: str) -> None:
    """Check that a key at a place is an error that does not show it."""
    text = yaml.safe_dump(planted(place, key))

    with pytest.raises(ConfigError) as raised:
        reader.parse(text.encode(), {}, "file.yaml")

    assert key not in all_told(text)
    assert raised.value.problems


@settings(max_examples=40)
@given(place=st.sampled_from(PLACES), key=KEYS)
def test_a_key_is_refused_wherever_it_stands(place: str, key: str) -> None:
    """Whatever looks like a key is an error at any place, and no error shows it."""
    is_refused_unseen(place, key)


@pytest.mark.soak
@settings(max_examples=3000)
@given(place=st.sampled_from(PLACES), key=KEYS)
def test_thousands_of_keys_are_refused(place: str, key: str) -> None:
    """The same, often enough to meet every place with every form."""
    is_refused_unseen(place, key)


@settings(max_examples=30)
@given(place=st.sampled_from(PLACES), key=KEYS)
def test_a_key_in_the_place_of_a_name_is_not_shown(place: str, key: str) -> None:
    """A key that stands where a key of the mapping should is refused unseen."""
    text = yaml.safe_dump(planted(f"{place.rpartition('.')[0] or 'vendors'}.{key}", 1))

    assert key not in all_told(text)


@settings(max_examples=30)
@given(
    place=st.sampled_from(
        (
            "vendors.openai.api_key",
            "vendors.a.api_key",
            "vendors.openai.headers.Authorization",
            "vendors.openai.headers.X-Api-Key",
            "providers.cloud.claude.api_key",
            "vendors.openai.extra.password",
            "vendors.openai.extra.api_key",
        )
    ),
    word=st.text(string.ascii_lowercase, min_size=12, max_size=20),
)
def test_any_word_in_the_place_of_a_secret_is_hidden(place: str, word: str) -> None:
    """A password looks like any word, so what stands where secrets do is never shown."""
    text = yaml.safe_dump(planted(place, word))

    assert word not in all_told(text)


@settings(max_examples=30)
@given(text=st.text(max_size=40), key=KEYS)
def test_no_form_of_a_file_shows_a_key(text: str, key: str) -> None:
    """Whatever is around a key, be it YAML or not, no error has the key in it."""
    assert key not in all_told(f"vendors: {{openai: {{api_key: {text}{key}")
    assert key not in all_told(f"{text}\n{key}: {text}\n- {key}")
    assert key not in all_told(f"a: *{key}\nb: &{key} x\nc: &{key} y")


@pytest.mark.parametrize(
    "name",
    [
        "claude-sonnet-4-20250514",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "accounts/fireworks/models/llama4-maverick-instruct-basic",
        "hf-internal-testing/tiny-random-LlamaForCausalLM",
        "bartowski/DeepSeek-R1-Distill-Qwen-14B-GGUF",
        "xai-grok-4-fast-reasoning",
        "openai/gpt-5.4-mini-2026-03-17",
        "~/models/Meta-Llama-3.1-70B-Instruct-Q4_K_M-00001-of-00003.gguf",
        STORED,
        "https://my-resource-name.openai.azure.com/openai/v1",
        "https://user-4f9a2b.eu-central-1.inference.example.com:8443/v1/deployments/Chat2",
        "0123456789abcdef",
        "",
    ],
)
def test_names_of_models_and_files_are_no_keys(name: str) -> None:
    """Long names with digits and capitals are told from what was drawn at random."""
    assert not is_key(name)


def test_a_secret_is_named_by_its_variable() -> None:
    """``api_key: ${NAME}`` is ``api_key_env: NAME``, and a header may be put together."""
    made = reader.parse(
        b"vendors:\n  openai: {api_key: '${KEY}'}\n"
        b"  groq: {headers: {Authorization: 'Bearer ${KEY}', X-Title: mine}, proxy: '${PROXY}'}\n",
        {"KEY": "sk-1234567890abcdef", "PROXY": "http://me:hunter2@127.0.0.1:3128"},
    )

    openai, groq = made.specs
    assert openai == OpenAI(api_key_env="KEY")
    assert isinstance(groq, HttpVendor)
    assert groq.headers == {"Authorization": "Bearer sk-1234567890abcdef", "X-Title": "mine"}
    assert groq.proxy == "http://me:hunter2@127.0.0.1:3128"
    shown = str(showing.rows(made, {"KEY": "sk-1234567890abcdef"}))
    assert "sk-1234567890abcdef" not in shown
    assert "hunter2" not in shown
    assert "KEY (set)" in shown


def test_a_key_that_is_missing_is_told_and_no_error() -> None:
    """A vendor without its key is not there, as everywhere, and the file says so."""
    made = reader.parse(b"vendors: {openai: {api_key_env: NOBODY_SET_THIS}}", {})

    assert [hint.message for hint in made.hints] == [
        "the environment variable NOBODY_SET_THIS is not set"
    ]
    rows = {row.key: row.value for row in showing.rows(made, {})}
    assert rows["vendors.openai.api_key_env"] == "NOBODY_SET_THIS (missing)"
