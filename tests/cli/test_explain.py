"""``llmdispatcher explain``: who would be asked, told to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdispatcher import Price, Scripted
from llmdispatcher.cli import main

VENDORS = (
    Scripted("dear", name="dear", price=Price.per_million(2, 10), local=False),
    Scripted("cheap", name="cheap", price=Price.per_million(1, 4), local=False),
    Scripted("here", name="here", price=Price.per_million(9, 9)),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder that has no configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)


def test_people_see_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each model, the first to be asked first, with its cost and its arithmetic."""
    assert main(["explain", "hi", "--max-tokens", "5"], vendors=VENDORS) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "cheap/script", "$0.000027"],
        ["2", "dear/script", "$0.000065"],
        ["3", "here/script", "$0.000068"],
    ]
    assert "~1 tokens in + 5 out = 21 µ$" in lines[1]


def test_programs_read_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are stable, and money is decimal dollars."""
    assert main(["explain", "--json", "hi", "--strategy", "local_only"], vendors=VENDORS) == 0

    told = json.loads(capsys.readouterr().out)
    assert [each["vendor"] for each in told["candidates"]] == ["here"]
    assert told["candidates"][0]["expected_cost_usd"] == "0.002892"
    assert {each["vendor"] for each in told["excluded"]} == {"dear", "cheap"}
    assert told["notes"] == []


def test_a_task_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What the request was taken for stands below."""
    options = ["--strategy", "auto", "--task", "summarisation"]
    assert main(["explain", "hi", *options], vendors=VENDORS) == 0

    assert "taken for summarisation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--strategy", "cheapest"], "known: auto, cascade"),
        (["--strategy", "latencyy"], "did you mean 'latency'?"),
        (["--task", "sumarisation"], "did you mean 'summarisation'?"),
    ],
)
def test_what_is_misspelt_is_an_error(
    capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    """Names that nobody knows end with exit code 2, and the nearest that is known."""
    assert main(["explain", "hi", *options], vendors=VENDORS) == 2

    assert told in capsys.readouterr().err


def test_nobody_who_could_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is told with its reason."""
    assert main(["explain", "hi", "--strategy", "cloud_only"], vendors=VENDORS[2:]) == 3

    assert "the strategy takes cloud models only" in capsys.readouterr().out
