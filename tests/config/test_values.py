"""What may be said in a file, and what it comes to."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmdispatcher import (
    Cascade,
    Chain,
    ConfigError,
    Deadlines,
    Limits,
    LlamaCpp,
    Ollama,
    OpenAI,
    Price,
    Routing,
    SpendingCap,
    Step,
    Strategy,
)
from llmdispatcher.config import arguments, settings
from llmdispatcher.config.scalars import meaning
from llmdispatcher.config.sections import Replies
from llmdispatcher.config.settings import Settings
from llmdispatcher.models.policy import BreakerPolicy, RetryPolicy
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.llamacpp.vendor import embedded

OLDER = """
providers:
  cloud:
    claude: {enabled: true, api_key_env: ANTHROPIC_API_KEY, models: [claude-sonnet-4-20250514],
             priority: 1, cost_per_1k_input: 0.003, cost_per_1k_output: 0.015}
  local:
    ollama: {enabled: true, base_url: "http://localhost:11434", models: [codestral], priority: 3,
             cost_per_1k_input: 0, cost_per_1k_output: 0}
    llamacpp: {enabled: true, model_path: ~/models/llama2-7b.gguf, max_memory_mb: 8192,
               max_threads: 8, max_gpu_layers: 32}
    lmstudio: {enabled: false, base_url: "http://localhost:1234", models: [], priority: 5}
fallback: {strategy: priority, max_retries: 3, timeout_seconds: 30, retry_delay_seconds: 1}
"""

OURS = """
vendors:
  claude: {type: anthropic, api_key_env: ANTHROPIC_API_KEY, models: [claude-sonnet-4-20250514]}
  ollama: {base_url: "http://localhost:11434", models: codestral}
  llamacpp: {model_path: ~/models/llama2-7b.gguf, max_memory_mb: 8192, max_threads: 8,
             max_gpu_layers: 32}
  lmstudio: {enabled: false, base_url: "http://localhost:1234"}
strategy: priority
routing: {priorities: {claude: 1, ollama: 3, lmstudio: 5}}
retry: {attempts: 4, total_s: 30, backoff_s: 1}
deadlines: {total_s: 30}
catalog:
  models:
    claude/*: {price: {input: "3.000", output: "15.000"}}
    ollama/*: {price: {input: "0", output: "0"}}
"""


def read(text: str, **environment: str) -> Settings:
    """Read a file."""
    return settings.parse(text.encode(), environment)


def problems(text: str) -> list[str]:
    """Return what is wrong with a file."""
    with pytest.raises(ConfigError) as raised:
        read(text)
    return [str(problem) for problem in raised.value.problems]


def test_the_older_form_says_what_ours_says() -> None:
    """The file of the older documentation and its translation are the same configuration."""
    older, ours = read(OLDER), read(OURS)

    assert older.sections == ours.sections
    assert older.specs == ours.specs
    assert [spec.name for spec in older.specs] == ["claude", "ollama", "llamacpp"]


def test_the_older_form_means_what_it_meant() -> None:
    """Retries are attempts beyond the first, and dollars are exact."""
    read_as = read(OLDER)

    assert read_as.sections.retry == RetryPolicy(attempts=4, backoff_s=1, total_s=30)
    assert read_as.sections.deadlines == Deadlines(total_s=30)
    facts = read_as.sections.catalog["models"]
    assert Price.per_million(**facts["claude/*"]["price"]) == Price.per_million(3, 15)
    assert Price.per_million(**facts["ollama/*"]["price"]).is_free
    assert read_as.specs[2] == LlamaCpp(
        "~/models/llama2-7b.gguf", max_memory_mb=8192, max_threads=8, max_gpu_layers=32
    )


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (999, 1000)])
def test_retries_are_attempts_beyond_the_first(retries: int, attempts: int) -> None:
    """So that none means a single attempt."""
    text = f"providers: {{local: {{ollama: {{}}}}}}\nfallback: {{max_retries: {retries}}}"

    assert read(text).sections.retry.attempts == attempts


def test_a_long_pause_is_not_cut() -> None:
    """A delay longer than the usual longest pause is that pause."""
    retry = read("fallback: {retry_delay_seconds: 20}").sections.retry

    assert (retry.backoff_s, retry.backoff_cap_s) == (20, 20)


def test_a_thousandth_of_a_cent_is_exact() -> None:
    """A price of the older form keeps all of its digits."""
    text = "{cost_per_1k_input: 0.000000001, cost_per_1k_output: 0.123456789}"
    catalog = read(f"providers: {{cloud: {{openai: {text}}}}}").sections.catalog

    price = catalog["models"]["openai/*"]["price"]
    assert Decimal(price["input"]) == Decimal("0.000001")
    assert Decimal(price["output"]) == Decimal("123.456789")


def test_sections_come_to_policies() -> None:
    """What a section says is what the policy of that name takes."""
    made = read("""
      vendors: {openai: {}}
      strategy: {order: latency, least_quality: 3}
      routing: {weights: {openai: 2}, value_of_time_usd: 20.5, explore: 0.1}
      limits: {openai: {requests_per_minute: 1e3, waits: false}, openai/gpt-5.4: {concurrency: 2}}
      budgets:
        - {usd: 5.10, period: day}
        - {usd: "1", period: month, scope: tag, name: nightly, unknown_price: allow}
      breaker: {failures: 2, open_s: 1}
      deadlines: {first_token_s: null, whole_s: 5}
      ledger: {path: /tmp/books.db, share: true}
      cache: {path: /tmp/replies.db, ttl_s: 60, store_sampled: true}
      max_memory_mb: 0x1000
    """).sections

    assert made.strategy == Strategy(order="latency", least_quality=3)
    assert made.routing == Routing(weights={"openai": 2}, value_of_time_usd="20.5", explore=0.1)
    assert made.limits == {
        "openai": Limits(requests_per_minute=1000, waits=False),
        "openai/gpt-5.4": Limits(concurrency=2),
    }
    assert made.budgets == (
        SpendingCap("5.10", period="day"),
        SpendingCap(1, period="month", scope="tag", name="nightly", unknown_price="allow"),
    )
    assert made.breaker == BreakerPolicy(failures=2, open_s=1)
    assert made.deadlines == Deadlines(first_token_s=None, whole_s=5)
    assert made.ledger is not None
    assert (made.ledger.path, made.ledger.share) == (Path("/tmp/books.db"), True)  # noqa: S108
    assert made.cache == Replies(
        path=Path("/tmp/replies.db"),  # noqa: S108 - a text
        ttl_s=60,
        store_sampled=True,
    )
    assert made.max_memory_mb == 4096


def test_a_vendor_is_what_its_spec_would_be() -> None:
    """The keys are the arguments of the spec, and the key of the table is the name."""
    made = read("""
      vendors:
        fast: {type: openai, base_url: https://eu.api.openai.com/v1, models: [a, 5.4],
               extra: {service_tier: flex, n_best: [1, 2]}, streaming: true, local: false}
        ollama:
        mine: {type: llamacpp, model_path: /m/x.gguf, adapters: {style: /m/s.gguf}, price: null,
               worker_command: [python, worker.py], keep_alive_s: 1.5}
        embedded: {max_threads: 2, isolation: thread}
    """).specs

    assert made[0] == OpenAI(
        name="fast",
        base_url="https://eu.api.openai.com/v1",
        models=["a", "5.4"],
        extra={"service_tier": "flex", "n_best": [1, 2]},
        streaming=True,
        local=False,
    )
    assert made[1] == Ollama()
    assert made[2] == LlamaCpp(
        "/m/x.gguf",
        name="mine",
        adapters={"style": "/m/s.gguf"},
        price=None,
        worker_command=["python", "worker.py"],
        keep_alive_s=1.5,
    )
    assert (made[3].name, made[3].max_threads) == ("embedded", 2)  # type: ignore[attr-defined]
    assert made[3].model_path == embedded().model_path  # type: ignore[attr-defined]


def test_every_argument_of_every_vendor_can_be_said_or_is_for_programs() -> None:
    """No installed vendor has an argument that a file knows nothing of."""
    unsaid = {"load_error"}
    for kind in discovery.names():
        maker = arguments.maker(discovery.find(kind))
        assert maker.arguments or kind == "embedded"
        for name, argument in maker.arguments.items():
            assert argument.kind is not Any or name in unsaid, (kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "budgets: [{usd: 5, period: day}]",
        "ledger: true",
        "ledger: {}",
    ],
)
def test_budgets_have_a_ledger(text: str) -> None:
    """Where there are budgets there is a ledger, said or not."""
    assert read(text).sections.ledger is not None
    assert read("ledger: false").sections.ledger is None
    assert read("strategy: cost").sections.ledger is None


def test_a_preset_lies_under_the_file() -> None:
    """What the file says itself goes before the preset, key by key."""
    made = read("preset: speed_first\nretry: {attempts: 9}\nvendors: {ollama: {}}").sections

    assert (made.retry.attempts, made.retry.same_target, made.retry.total_s) == (9, 0, 30)
    assert made.strategy.order == "latency"
    assert read("preset: speed_first\nstrategy: quality").sections.strategy.order == "quality"


def test_a_strategy_is_said_as_a_whole() -> None:
    """One of the file takes the place of the preset's, be it a mapping or a plan."""
    text = "preset: critical\nstrategy: {}\nvendors: {{ollama: {{}}}}"

    assert read("preset: critical").sections.strategy == Strategy(order="cost", least_quality=4)
    assert read(text.format("{only: local}")).sections.strategy == Strategy(only="local")
    assert read(text.format("cascade")).sections.strategy == Strategy(plan=Cascade())
    assert read(text.format("{plan: cascade}")).sections.strategy == Strategy(plan=Cascade())


def test_plans_are_said_with_their_fields() -> None:
    """Their steps by a word or by their own fields, and strategies within them by name."""
    made = read(
        "strategy: {plan: chain, rounds: 2, steps: [draft, {role: refine, strategy: quality,"
        " vendor: a, max_tokens: 9}]}"
    ).sections.strategy
    refine = Step("refine", strategy="quality", vendor="a", max_tokens=9)
    assert made == Strategy(plan=Chain(steps=["draft", refine], rounds=2))

    text = "strategy: {plan: cascade, hand_over: true, threshold: 0.7, tiers: [a, b]}"
    plan = Cascade(hand_over=True, threshold=0.7, tiers=["a", "b"])
    assert read(text).sections.strategy == Strategy(plan=plan)
    (told,) = problems("strategy: {plan: chain, steps: [draft, {role: dance}]}")
    assert "strategy.steps[1].role: is 'dance'; must be" in told


def test_a_preset_and_a_file_can_be_at_odds() -> None:
    """A cap that is below what the preset says is told where the file says it."""
    (told,) = problems("preset: speed_first\nbreaker: {cap_s: 2}")

    assert told.startswith("2:18: breaker.cap_s: is 2; must be at least open_s, which is 10") or (
        ":2:18: " in f":{told}"
    )


def test_paths_begin_in_the_folder_of_the_file(tmp_path: Path) -> None:
    """A relative path means the same from wherever the program is started."""
    file = tmp_path / "llmdispatcher.yaml"
    file.write_text("vendors: {a: {type: llamacpp, model_path: m/a.gguf}}\nledger: books.db")

    made = settings.load(file, {})

    assert made.specs[0].model_path == tmp_path / "m" / "a.gguf"  # type: ignore[attr-defined]
    assert made.sections.ledger is not None
    assert made.sections.ledger.path == tmp_path / "books.db"
    assert any("there is no file" in hint.message for hint in made.hints)


def test_a_file_that_may_be_a_strangers_starts_no_program(tmp_path: Path) -> None:
    """Found in the current folder, it may not name programs; named by the user, it may."""
    file = tmp_path / "llmdispatcher.yaml"
    file.write_text("vendors: {a: {type: llamacpp, model_path: a.gguf, executable: ./run}}")

    settings.load(file, {})
    with pytest.raises(ConfigError, match="names a program"):
        settings.load(file, {}, is_strange=True)


ELSEWHERE = "base_url: 'https://evil.example.com'"
STOLEN = (
    f"{{type: openai, {ELSEWHERE}, api_key_env: OPENAI_API_KEY}}",
    f"{{type: vllm, {ELSEWHERE}, api_key_env: GROQ_API_KEY}}",
    f"{{type: vllm, {ELSEWHERE}, headers: {{Authorization: 'Bearer ${{ANTHROPIC_API_KEY}}'}}}}",
)
OWN = (
    "{type: openai, api_key_env: OPENAI_API_KEY}",
    "{type: openai, base_url: 'https://eu.api.openai.com', api_key: '${OPENAI_API_KEY}'}",
    "{type: litellm, base_url: 'http://127.0.0.1:4000', api_key_env: OPENAI_API_KEY}",
    "{type: openai-compatible, base_url: 'https://gw.example.com', api_key_env: GW_KEY}",
)


@pytest.mark.parametrize("vendor", [*STOLEN, *OWN])
def test_a_file_that_may_be_a_strangers_sends_no_key_of_a_cloud_elsewhere(
    tmp_path: Path, vendor: str
) -> None:
    """A key that a cloud's own client reads goes to that cloud, and to servers of one's own."""
    file = tmp_path / "llmdispatcher.yaml"
    file.write_text(f"vendors: {{a: {vendor}}}")
    environment = dict.fromkeys(("OPENAI_API_KEY", "GROQ_API_KEY", "ANTHROPIC_API_KEY"), "a-key")

    settings.load(file, environment)
    if vendor in OWN:
        settings.load(file, environment, is_strange=True)
    else:
        with pytest.raises(ConfigError, match=r"_API_KEY to evil\.example\.com, which only a file"):
            settings.load(file, environment, is_strange=True)


def test_anchors_and_merge_keys_work() -> None:
    """What is said once can be used twice, and said otherwise in places."""
    made = read("""
      vendors:
        one: &one {type: vllm, base_url: "http://127.0.0.1:8001", models: [m]}
        two: {<<: *one, base_url: "http://127.0.0.1:8002"}
    """).specs

    assert [(s.name, s.base_url, s.models) for s in made] == [  # type: ignore[attr-defined]
        ("one", "http://127.0.0.1:8001", ("m",)),
        ("two", "http://127.0.0.1:8002", ("m",)),
    ]


def test_words_that_yaml_1_1_takes_for_switches_are_words() -> None:
    """A vendor may be called no or on, and a version is no number."""
    made = read(
        "vendors: {no: {type: ollama}, on: {type: azure, base_url: https://a.openai.azure.com,"
        " api_version: 2024-10-21}}"
    ).specs

    assert [spec.name for spec in made] == ["no", "on"]
    assert made[1].api_version == "2024-10-21"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", -3),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", "010"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("Null", None),
        (".inf", float("inf")),
        ("9" * 50, "9" * 50),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text: str, value: object) -> None:
    """Numbers are those of YAML 1.2; whatever looks otherwise is text."""
    assert meaning(text) == value
    assert type(meaning(text)) is type(value)


def test_plain_files_read_as_other_readers_do() -> None:
    """Of a file without traps, our values are those of PyYAML."""
    text = OURS.replace('"3.000"', "3.0").replace('"15.000"', "15")

    assert read(text).top.bare() == yaml.safe_load(text)


def test_names_of_nobody_are_hinted_at() -> None:
    """A limit for a vendor that the file does not name may be a slip, and is no error."""
    made = read("vendors: {openai: {}}\nlimits: {opnai: {concurrency: 1}}", OPENAI_API_KEY="x")

    assert [hint.message for hint in made.hints] == [
        "no vendor of this file is called so; did you mean 'openai'?"
    ]
