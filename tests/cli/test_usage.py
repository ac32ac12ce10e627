"""``llmdispatcher usage`` and ``export``, as programs."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from books import ask, closed, opening

from llmdispatcher.ledger import Ledger

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with two attempts."""
    place = tmp_path / "llmdispatcher" / "ledger.sqlite3"
    ledger = Ledger(place)
    ledger.settle(ask(ledger, one=opening("openai", model="gpt", tags=("x",))), closed(1500))
    ledger.settle(ask(ledger, one=opening("ollama", model="llama\x1b[31m")), closed(0))
    ledger.close()
    return place


def test_usage_reads_the_ledger_of_the_user(run: Run, path: Path, tmp_path: Path) -> None:
    """Without options: the one in the data folder, a line for each model, and one for all."""
    done = run("usage", env={"XDG_DATA_HOME": str(tmp_path)})

    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].startswith("model")
    assert any("openai/gpt" in line and "$0.001500" in line for line in lines)
    assert b"\x1b" not in done.stdout


@pytest.mark.sampled(2)
@pytest.mark.parametrize("by", ["vendor", "model", "day", "tag", "key", "outcome"])
def test_usage_as_json(run: Run, path: Path, by: str) -> None:
    """Groups and their total, with numbers as numbers."""
    done = run("usage", "--by", by, "--json", "--ledger", str(path), "--since", "1d")

    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["by"] == by
    assert sum(group["attempts"] for group in told["groups"]) == 2
    assert told["total"]["cost_microusd"] == 1500


def test_what_was_asked_on_the_command_line_is_in_the_ledger(run: Run, tmp_path: Path) -> None:
    """``ask`` leaves a row, without a word of the question, unless it is told not to."""
    home = {"XDG_DATA_HOME": str(tmp_path)}
    first = run("ask", "private words", script="echo", env=home)
    second = run("ask", "--no-ledger", "private words", script="echo", env=home)
    usage = json.loads(run("usage", "--json", env=home).stdout)

    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, b"")
    assert usage["total"]["attempts"] == 1
    assert usage["total"]["completion_tokens"] > 0
    kept = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert b"private" not in kept


def test_no_ledger_costs_nobody_the_answer(run: Run, tmp_path: Path) -> None:
    """Where it cannot be, that is told, with the way out, and the answer comes all the same."""
    (tmp_path / "llmdispatcher").write_text("a file where a folder should be")
    done = run("ask", "words", script="echo", env={"XDG_DATA_HOME": str(tmp_path)})

    assert done.returncode == 0
    assert b"words" in done.stdout
    assert b"ledger" in done.stderr
    assert b"--no-ledger does without" in done.stderr


def test_nobody_is_asked_who_may_cost_more(run: Run, tmp_path: Path) -> None:
    """What the answer may cost is a limit of ours: exit code 3, and nothing was spent."""
    home = {"XDG_DATA_HOME": str(tmp_path)}
    dear = run("ask", "--max-cost", "0.000001", "words", script="priced", env=home)
    cheap = run("ask", "--max-cost=1", "--max-tokens=9", "words", script="priced", env=home)
    wrong = run("ask", "--max-cost", "much", "words", script="priced", env=home)

    assert (dear.returncode, cheap.returncode, wrong.returncode) == (3, 0, 2)
    assert b"max_cost_usd" in wrong.stderr
    assert json.loads(run("usage", "--json", env=home).stdout)["total"]["attempts"] == 1


def test_usage_of_nothing_says_so(run: Run, tmp_path: Path) -> None:
    """No file is no error, and is not made."""
    done = run("usage", env={"XDG_DATA_HOME": str(tmp_path)})
    as_json = run("usage", "--json", env={"XDG_DATA_HOME": str(tmp_path)})

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"there is nothing in the ledger" in done.stderr
    assert json.loads(as_json.stdout) == {"by": "model", "groups": [], "total": None}
    assert list(tmp_path.iterdir()) == []


def test_export_in_each_format(run: Run, path: Path) -> None:
    """JSON and CSV have the rows, Prometheus the sums."""
    as_json = run("export", "--format", "json", "--ledger", str(path))
    as_csv = run("export", "--format", "csv", "--ledger", str(path))
    sums = run("export", "--format", "prometheus", "--ledger", str(path))

    assert [row["vendor"] for row in json.loads(as_json.stdout)] == ["openai", "ollama"]
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout.decode(), newline="")))
    assert [row["cost_microusd"] for row in rows] == ["1500", "0"]
    assert as_csv.stdout.count(b"\r\n") == 3
    assert b'llmdispatcher_cost_usd_total{vendor="openai",model="gpt"} 0.0015' in sums.stdout
    assert as_json.returncode == as_csv.returncode == sums.returncode == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("usage", "--since", "yesterday"), b"since is 'yesterday'"),
        (("usage", "--by", "colour"), b"invalid choice: 'colour'"),
        (("export",), b"--format"),
        (("export", "--format", "xml"), b"invalid choice: 'xml'"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Run, args: tuple[str, ...], told: bytes) -> None:
    """With exit code 2."""
    done = run(*args)

    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_file_that_is_no_ledger_is_refused(run: Run, tmp_path: Path) -> None:
    """With exit code 3, the file and the way out."""
    path = tmp_path / "x"
    path.write_bytes(b"nothing of the kind " * 100)

    done = run("usage", "--ledger", str(path))

    assert done.returncode == 3
    assert str(path).encode() in done.stderr
