"""Which file counts, and what a dispatcher is without any."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llmdispatcher import AsyncDispatcher, ConfigError, Dispatcher, NoCandidate, Scripted
from llmdispatcher.config import places
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.http import preset, scout

FILE = "vendors: {{{name}: {{type: scripted, replies: [{name}]}}}}\n"


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of this machine is found, whatever runs on it."""
    monkeypatch.setattr(scout, "shared", lambda: scout.Scout([]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, an empty configuration folder, and no keys."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for name in discovery.names():
        for variable in getattr(_row(name), "key_env", ()):
            monkeypatch.delenv(variable, raising=False)
    return tmp_path


def _row(name: str) -> Any:
    try:
        return preset.row(name)
    except ConfigError:
        return None


def write(path: Path, name: str) -> Path:
    """Write a configuration whose only vendor has a name, and says it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE.format(name=name))
    return path


def test_the_first_place_that_has_a_file_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argument, variable, current folder, the user's folder: in this order."""
    given, named = write(folder / "given.yaml", "given"), write(folder / "named.yaml", "named")
    write(folder / "here" / "llmdispatcher.yaml", "here")
    write(folder / "config" / "llmdispatcher" / "llmdispatcher.yaml", "user")
    monkeypatch.setenv("LLMDISPATCHER_CONFIG", str(named))

    said = []
    for path in (given, None):
        with Dispatcher.from_config(path) as d:
            said.append(d.send("Who?").text)
    monkeypatch.delenv("LLMDISPATCHER_CONFIG")
    with Dispatcher.from_config() as d:
        said.append(d.send("Who?").text)
    (folder / "here" / "llmdispatcher.yaml").unlink()
    with Dispatcher.from_config() as d:
        said.append(d.send("Who?").text)

    assert said == ["given", "named", "here", "user"]


def test_the_file_stays_the_same_in_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that changes its current folder reloads what it has read."""
    write(folder / "here" / "llmdispatcher.yaml", "one")
    write(folder / "llmdispatcher.yaml", "stranger")
    with Dispatcher.from_config() as d:
        monkeypatch.chdir(folder)
        write(folder / "here" / "llmdispatcher.yaml", "two")
        assert d.reload().file == str(folder / "here" / "llmdispatcher.yaml")
        assert d.send("Who?").text == "two"


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_file_that_is_named_must_be_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A name that leads nowhere is an error, and nothing else is read instead."""
    write(folder / "here" / "llmdispatcher.yaml", "here")
    monkeypatch.setenv("LLMDISPATCHER_CONFIG", "nowhere.yaml" if how == "variable" else "")

    with pytest.raises(ConfigError, match="there is no such file"):
        Dispatcher.from_config("nowhere.yaml" if how == "argument" else None)


@pytest.mark.usefixtures("folder")
def test_without_a_file_the_embedded_model_answers() -> None:
    """It is real inference, and nothing is asked of the network."""
    with Dispatcher.from_config() as d:
        assert [vendor.name for vendor in d.vendors()] == ["embedded"]
        assert "Paris" in d.send("What is the capital of France?", temperature=0).text


@pytest.mark.usefixtures("folder")
def test_clouds_join_only_where_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment is no leave to send text anywhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890abcdef")
    monkeypatch.setenv("GEMINI_API_KEY", "AIza1234567890abcdef")

    with Dispatcher.from_config() as d:
        assert [vendor.name for vendor in d.vendors()] == ["embedded"]
    with Dispatcher.from_config(allow_cloud=True) as d:
        assert [vendor.name for vendor in d.vendors()] == ["embedded", "gemini", "openai"]


@pytest.mark.usefixtures("folder")
def test_a_file_without_vendors_sets_how_those_that_are_found_are_asked() -> None:
    """Its policies hold, and allow_cloud in it is as good as the argument."""
    Path("llmdispatcher.yaml").write_text("deadlines: {total_s: 77}\nallow_cloud: true\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROQ_API_KEY", "gsk_1234567890abcdef")
        with Dispatcher.from_config() as d:
            assert [vendor.name for vendor in d.vendors()] == ["embedded", "groq"]
            engine = d.register_vendor(Scripted("x", name="mine"))
            d.send("Hi", vendor="mine")

    assert engine.requests[0].deadlines.total_s == pytest.approx(77, abs=10)  # type: ignore[attr-defined]


def test_a_file_that_comes_and_goes_is_followed(folder: Path) -> None:
    """What was found makes way for what a file names, and comes back when it names nobody."""
    path = folder / "here" / "llmdispatcher.yaml"
    with Dispatcher.from_config() as d:
        d.register_vendor(Scripted("x", name="mine"))
        write(path, "named")
        event = d.reload()
        assert (event.started, event.closed) == (("named",), ("embedded",))
        assert [vendor.name for vendor in d.vendors()] == ["mine", "named"]
        assert d.send("Who?", vendor="named").text == "named"
        path.write_text("strategy: latency")
        d.reload()
        assert [vendor.name for vendor in d.vendors()] == ["mine", "embedded"]


def test_clouds_that_a_file_names_are_refused_where_none_is_allowed(folder: Path) -> None:
    """The argument goes before the file."""
    path = folder / "file.yaml"
    path.write_text("vendors: {openai: {}}\nallow_cloud: true\n")

    with pytest.raises(ConfigError, match="allow_cloud is false"):
        Dispatcher.from_config(path, allow_cloud=False)


def test_a_file_may_keep_it_offline(folder: Path) -> None:
    """Vendors that are elsewhere are there and have no models; that cannot change meanwhile."""
    path = folder / "file.yaml"
    text = "vendors: {a: {type: openai, base_url: 'https://example.com', models: [m]}, embedded: }"
    path.write_text(f"{text}\noffline: true\n")
    with Dispatcher.from_config(path) as d:
        away, here = d.vendors()
        assert "offline" in away.status.detail
        assert here.cards
        with pytest.raises(NoCandidate, match="offline"):
            d.send("Hi", vendor="a")
        path.write_text(f"{text}\noffline: false\n")
        with pytest.raises(ConfigError, match=r"file\.yaml:2:10: offline: cannot change"):
            d.reload()


def test_an_event_loop_has_the_same(folder: Path) -> None:
    """``AsyncDispatcher`` is made of the same file, and reloaded in the same way."""
    path = folder / "file.yaml"
    path.write_text("vendors: {one: {type: scripted, replies: [before]}}")

    async def ask() -> list[str]:
        async with AsyncDispatcher.from_config(path) as d:
            said = [(await d.send("Who?")).text]
            path.write_text("vendors: {one: {type: scripted, replies: [after]}}")
            d.reload()
            return [*said, (await d.send("Who?")).text]

    assert asyncio.run(ask()) == ["before", "after"]


def test_the_user_folder_is_of_this_program(folder: Path) -> None:
    """Platformdirs says where it is, by the standard of the system."""
    assert places.user_folder() == folder / "config" / "llmdispatcher"
