"""Files made to hurt: each is refused with one of our errors, quickly, in little memory."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fresh import in_a_new_process
from hostile_gguf import HOSTILE, HUGE, TEXT, array, counted, text, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import tiny_model

from llmdispatcher.models.errors import CorruptModel, ModelFileMissing, VendorError
from llmdispatcher.vendors.llamacpp.files import lookalike
from llmdispatcher.vendors.llamacpp.files.cursor import MAX_HEADER_BYTES
from llmdispatcher.vendors.llamacpp.files.gguf import read_header

RealLlama = Callable[..., list[dict[str, Any]]]

MIB = 2**20
SLOWEST_S = 20.0
"""A bound on what takes milliseconds, on a machine that is busy: a reader that a file could hold up
would be held up for ever."""
LARGEST_S = 100.0
"""The same for what takes seconds: a header of the largest size, passed over text by text."""
MEMORY_SLACK_BYTES = 4 * MIB
"""Over the size of the file: what the reader and the error take."""


def test_the_corpus_is_large_and_its_base_is_valid(tmp_path: Path) -> None:
    """What the hostile files are made from is accepted, so that each fails for its own reason."""
    path = tmp_path / "m.gguf"
    path.write_bytes(whole())
    assert read_header(path).block_count == 1
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    """Each is CorruptModel with the reason, in bounded time and memory."""
    data, reason = HOSTILE[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(CorruptModel) as caught:
            read_header(path)
        took_s, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert took_s < SLOWEST_S
    assert peak < len(data) + MEMORY_SLACK_BYTES


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file that ends early, anywhere, is not accepted."""
    path = tmp_path / "m.gguf"
    data = whole(array(b"a", TEXT, 65, text(b"a") * 65))
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptModel):
            read_header(path)
    path.write_bytes(data)
    assert read_header(path).file_size == len(data)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make the bytes of a model that llama.cpp loads."""
    return tiny_model(tmp_path_factory.mktemp("valid") / "m.gguf", vocab=260, layers=1).read_bytes()


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a file to write changed bytes to."""
    return tmp_path_factory.mktemp("victim") / "m.gguf"


def _header_size(data: bytes) -> int:
    """Find where the table of tensors ends, roughly: after the last tensor's name."""
    return data.rindex(b".weight") + 64


def _read_or_refuse(path: Path) -> None:
    """Read, or fail in the one way that is allowed: with an error of ours that names the file."""
    message = None
    try:
        read_header(path)
    except VendorError as error:
        message = str(error)
    assert message is None or str(path) in message


@settings(max_examples=4 * settings().max_examples)
@given(data=st.data())
def test_changed_bytes_raise_only_our_errors(
    data: st.DataObject, valid: bytes, victim: Path
) -> None:
    """Any bytes of the header may be any others: it is read, or refused, in no time."""
    size = _header_size(valid)
    changed = bytearray(valid)
    places = st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), max_size=8)
    for place, byte in data.draw(places):
        changed[place] = byte
    end = data.draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))
    victim.write_bytes(changed[:end])
    started = time.monotonic()
    _read_or_refuse(victim)
    assert time.monotonic() - started < SLOWEST_S


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(
    place=st.integers(4, 700),
    value=st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, HUGE, 2**64 - 1]),
    width=st.sampled_from(["<I", "<Q"]),
)
def test_extreme_numbers_raise_only_our_errors(
    place: int, value: int, width: str, valid: bytes, victim: Path
) -> None:
    """Every integer may be an extreme one."""
    raw = struct.pack(width, value % 2 ** (8 * struct.calcsize(width)))
    victim.write_bytes(valid[:place] + raw + valid[place + len(raw) :])
    _read_or_refuse(victim)


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(noise=st.binary(max_size=300), magic=st.booleans())
def test_noise_raises_only_our_errors(
    noise: bytes,
    magic: bool,  # noqa: FBT001 - drawn
    victim: Path,
) -> None:
    """Anything at all, with the magic number or without."""
    victim.write_bytes((b"GGUF\x03\x00\x00\x00" if magic else b"") + noise)
    with pytest.raises(CorruptModel):
        read_header(victim)


def test_a_huge_header_is_given_up(tmp_path: Path) -> None:
    """A file whose header never ends costs bounded memory and time, though it is large."""
    path = tmp_path / "m.gguf"
    count = 2**33
    path.write_bytes(counted(0, 1)[:24] + array(b"a", TEXT, count))
    os.truncate(path, count * 8 + 4096)  # a hole in the file, read as texts of no bytes
    started = time.monotonic()
    with pytest.raises(CorruptModel, match=str(MAX_HEADER_BYTES)):
        read_header(path)
    assert time.monotonic() - started < SLOWEST_S


def test_a_header_just_within_the_bound_is_quick(tmp_path: Path) -> None:
    """The worst header that is read to its end takes seconds, not minutes."""
    path = tmp_path / "m.gguf"
    count = MAX_HEADER_BYTES // 8 - 100
    path.write_bytes(counted(0, 1)[:24] + array(b"a", TEXT, count))
    os.truncate(path, MAX_HEADER_BYTES)
    code = (
        "from llmdispatcher.models.errors import CorruptModel\n"
        "from llmdispatcher.vendors.llamacpp.files.gguf import read_header\n"
        "try:\n"
        f"    read_header({str(path)!r})\n"
        "except CorruptModel as error:\n"
        "    print(error)\n"
    )
    started = time.monotonic()
    told = in_a_new_process(code)  # coverage would trace each of millions of steps
    assert time.monotonic() - started < LARGEST_S
    assert "does not say what it is" in told


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.soak)])
def test_llama_cpp_survives_what_is_accepted(
    count: int, valid: bytes, tmp_path: Path, real_llama: RealLlama
) -> None:
    """Whatever the reader lets through, llama.cpp loads or refuses; it does not abort."""
    random = Random(count)  # noqa: S311 - not for secrets
    vocabulary = range(valid.index(b"tokenizer.ggml.tokens"), valid.index(b"tokenizer.ggml.bos"))
    places = [place for place in range(24, _header_size(valid)) if place not in vocabulary]
    jobs: list[dict[str, Path]] = []
    while len(jobs) < count:
        changed = bytearray(valid)
        for place in random.sample(places, random.randint(1, 3)):
            changed[place] = random.choice([0, 1, 2, 128, 255, random.randrange(256)])
        path = tmp_path / f"{len(jobs)}.gguf"
        path.write_bytes(changed)
        try:
            read_header(path).check_generates()
        except VendorError:
            continue
        jobs.append({"path": path})
    for start in range(0, count, 100):
        assert len(real_llama(*jobs[start : start + 100])) == len(jobs[start : start + 100])


# -- what is not even a file -------------------------------------------------------------------


@pytest.fixture
def odd_paths(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Make things that are not regular files."""
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.gguf", "a.gguf", "note.txt"):
        (folder / name).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's whole path must be short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        yield {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "is a folder; there is no GGUF file in it"),
        ("folder", "is a folder; the GGUF files there are: a.gguf, b.gguf"),
        ("pipe", "not a regular file"),
        ("socket", "not a regular file"),
        ("loop", "cannot be read"),
        ("dangling", "there is no file"),
    ],
)
def test_odd_paths_are_refused(name: str, reason: str, odd_paths: dict[str, Path]) -> None:
    """A folder, a pipe, a socket and bad links are ModelFileMissing, without waiting."""
    with pytest.raises(ModelFileMissing, match=reason) as caught:
        read_header(odd_paths[name])
    assert caught.value.path == str(odd_paths[name])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty"),
        ("/nowhere/model.gguf", "there is no file"),
        ("/dev/null", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("a\0b.gguf", "cannot be read"),
        ("n" * 5000, "cannot be read"),
        ("/etc/passwd/model.gguf", "cannot be read"),
        ("~/surely-not-there.gguf", "there is no file /"),
        ("\udcff.gguf", "there is no file"),
    ],
)
def test_odd_names_are_refused(path: str, reason: str) -> None:
    """Names that lead nowhere are ModelFileMissing with the reason."""
    with pytest.raises(ModelFileMissing, match=reason):
        read_header(path)


def test_a_missing_file_is_told_with_its_neighbours(odd_paths: dict[str, Path]) -> None:
    """Someone who mistyped a name sees the names there are."""
    with pytest.raises(ModelFileMissing, match=r"the GGUF files there are: a\.gguf, b\.gguf"):
        read_header(odd_paths["folder"] / "c.gguf")


def test_forbidden_files_say_so(tmp_path: Path) -> None:
    """The way out of missing permissions is named; root may read all, so the reason is made up."""
    error = lookalike._cannot_open(str(tmp_path), PermissionError(13, "Permission denied"))
    assert isinstance(error, ModelFileMissing)
    assert "change its permissions" in str(error)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["a page", "version 1", "data beyond the end", "2,000 experts"])
def test_llama_cpp_never_sees_them(name: str, tmp_path: Path) -> None:
    """The engine refuses a corrupt file before the native library is even loaded."""
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[name][0])
    program = (
        "import sys\n"
        "from llmdispatcher.models.errors import CorruptModel\n"
        "from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp\n"
        "engine = LlamaCpp(sys.argv[1]).start(lambda event: None)\n"
        "error = engine.load('m').exception(60)\n"
        "engine.close()\n"
        "assert isinstance(error, CorruptModel), error\n"
        "assert not any(name.startswith('llama_cpp') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
