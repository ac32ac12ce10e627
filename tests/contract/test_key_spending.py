"""What a key spends is counted under its fingerprint, from the vendor to the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from books import audit, read
from loopback import Answer, Loopback

from llmdispatcher import (
    BudgetExceeded,
    Dispatcher,
    HttpVendor,
    Ledger,
    Ollama,
    OpenAI,
    OpenAICompatible,
    Scripted,
    SpendingCap,
    fingerprint,
)
from llmdispatcher.cli import main
from llmdispatcher.vendors.contract import Keyed

ONE, OTHER = "sk-one-0123456789", "sk-other-0123456789"
PRICE = {"input": 1, "output": 1}
CATALOG: dict[str, Any] = {"models": {"one/m": {"price": PRICE}, "other/m": {"price": PRICE}}}
REPLY = {
    "id": "r1",
    "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 40},
}


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that serves everybody."""
    with Loopback(lambda _: Answer.json(REPLY)) as made:
        yield made


@pytest.fixture
def vendor(server: Loopback) -> Callable[..., HttpVendor]:
    """Make vendors at the server, which is taken for one elsewhere."""

    def make(name: str, **options: Any) -> HttpVendor:
        given: dict[str, Any] = {"name": name, "base_url": server.url, "models": ["m"], **options}
        return OpenAICompatible(**given)

    return make


def test_a_cap_of_one_key_stops_that_key_alone(
    vendor: Callable[..., HttpVendor],
    server: Loopback,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When its money is spent the vendor with the other key serves, and the sums are by key."""
    path = tmp_path / "ledger.sqlite3"
    cap = SpendingCap("0.00035", period="ever", scope="key", name=fingerprint(ONE))
    vendors = vendor("one", api_key=ONE), vendor("other", api_key=OTHER)
    with closing(Ledger(path, caps=[cap])) as ledger:
        d = Dispatcher(*vendors, ledger=ledger, catalog=CATALOG)
        served = [d.send("hi", max_tokens=10).vendor for _ in range(3)]
        with d, pytest.raises(BudgetExceeded, match=fingerprint(ONE)):
            d.send("hi", max_tokens=10, vendor="one")

    assert served == ["one", "other", "other"]
    sent = [got.headers["authorization"].split()[1] for got in server.got]
    assert sent == [ONE, OTHER, OTHER]
    rows = read(path, "SELECT vendor, key_fingerprint FROM attempts ORDER BY id")
    assert rows == [
        ("one", fingerprint(ONE)),
        ("other", fingerprint(OTHER)),
        ("other", fingerprint(OTHER)),
    ]
    audit(path)
    assert main(["usage", "--by", "key", "--json", "--ledger", str(path)]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert {group["group"]: group["cost_microusd"] for group in groups} == {
        fingerprint(ONE): 80,
        fingerprint(OTHER): 160,
    }


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, ""),
        ({"api_key": ONE}, ONE),
        ({"api_key": f" {ONE}\n"}, ONE),
        ({"headers": {"Authorization": f"bearer  {OTHER}"}, "api_key": ONE}, OTHER),
        ({"headers": {"Authorization": OTHER}}, OTHER),
        ({"headers": {"x-api-key": OTHER}}, ""),
    ],
)
def test_the_fingerprint_is_that_of_the_key_that_is_sent(
    vendor: Callable[..., HttpVendor], options: dict[str, Any], key: str
) -> None:
    """A header of the user's goes before the key, and is told without its scheme."""
    with Dispatcher(Scripted("x")) as d:
        engine = d.register_vendor(vendor("one", **options))

        assert isinstance(engine, Keyed)
        assert engine.key_fingerprint == (fingerprint(key) if key else "")


def test_a_key_of_the_environment_has_one_too(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when the vendor is registered; one that is not sent there has none."""
    monkeypatch.setenv("OPENAI_API_KEY", ONE)
    monkeypatch.setenv("OLLAMA_API_KEY", ONE)
    with Dispatcher(Scripted("x")) as d:
        openai = d.register_vendor(OpenAI(models=["gpt-5.4-mini"]))
        ollama = d.register_vendor(Ollama(base_url=server.url, models=["m"]))

        assert isinstance(openai, Keyed)
        assert isinstance(ollama, Keyed)
        assert openai.key_fingerprint == fingerprint(ONE)
        assert ollama.key_fingerprint == ""
