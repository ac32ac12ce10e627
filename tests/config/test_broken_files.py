"""What is told of files that are wrong: every problem at once, each with its place and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdispatcher import ConfigError
from llmdispatcher.config import settings
from llmdispatcher.config.reading import MAX_BYTES

FOLDER = Path(__file__).parent.parent / "data" / "config"
FILES = sorted(FOLDER.glob("*.yaml"))
ENVIRONMENT = {"SET_HERE": "a-key"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_file_is_told_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The problems are those written down beside the file, word by word, in its order."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("SET_HERE", "a-key")

    with pytest.raises(ConfigError) as raised:
        settings.load(Path(path.name), ENVIRONMENT)

    assert f"{raised.value}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")
    places = [(problem.line or 0, problem.column or 0) for problem in raised.value.problems]
    assert places == sorted(places)
    assert {problem.file for problem in raised.value.problems} == {path.name}


def test_there_are_enough_of_them() -> None:
    """Each has its text, and no text is without a file."""
    assert len(FILES) >= 30
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in FILES}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.mkdir(), "is a folder; name the file in it"),
        (lambda path: path.write_bytes(b"a" * 10_000_000), "has more than 256 KiB"),
        (lambda path: path.write_bytes(b"a: b\n" * (MAX_BYTES // 5 + 1)), "has more than 256 KiB"),
        (lambda _: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00\x00v\x00\x00\x00"), "is UTF-32 text"),
        (lambda path: path.write_bytes(b"\x00\x01\x02"), "has the character U+0000"),
        (lambda path: path.write_bytes(b"a: *nobody"), "found undefined alias"),
        (lambda path: path.write_bytes(b"a: @b"), "cannot start any token"),
        (lambda path: path.write_bytes(b"%YAML 9.9\n---\na: b"), "found incompatible YAML"),
    ],
)
def test_what_is_no_configuration_is_told(tmp_path: Path, make: object, told: str) -> None:
    """Folders, huge files and other things end in an error that says what they are."""
    path = tmp_path / "llmdispatcher.yaml"
    make(path)  # type: ignore[operator]

    with pytest.raises(ConfigError, match=told.replace("+", r"\+")):
        settings.load(path, {})


def test_a_mark_in_front_of_the_text_is_none_of_it() -> None:
    """UTF-8 with the mark that some editors write is read as without it."""
    read = settings.parse(b"\xef\xbb\xbfvendors: {ollama: {}}", {})

    assert [spec.name for spec in read.specs] == ["ollama"]


def test_a_small_file_stays_small() -> None:
    """Ten levels of anchors, which stand for ten billion values, are refused in no time."""
    lines = ["a0: &a0 x"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]

    with pytest.raises(ConfigError, match="too often, by anchors"):
        settings.parse("\n".join(lines).encode(), {})
