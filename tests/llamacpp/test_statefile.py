"""The file of a conversation's state: what is read back, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import BadRequest, ModelFileMissing, VendorError
from llmdispatcher.models.errors import StateUnusable
from llmdispatcher.vendors.llamacpp.files import statefile
from llmdispatcher.vendors.llamacpp.files.statefile import (
    HEAD_BYTES,
    MAX_LABEL_BYTES,
    SAMPLE_BYTES,
    SAMPLES,
    Origin,
    State,
    fingerprint,
    read,
    write,
)

HERE = Origin("12-ab", "b1234", "f16 full")
STATE = State(HERE, (1, 2, 2**31 - 1), b"\x00data" * 100, "tiny")
MOST = 10**6


def saved(folder: Path, state: State = STATE) -> Path:
    """Save a state in a folder and return its file."""
    write(folder / "state", state)
    return folder / "state"


def refusal(path: Path, origin: Origin = HERE, most_bytes: int = MOST) -> StateUnusable:
    """Return the error that reading a file raises."""
    with pytest.raises(StateUnusable) as caught:
        read(path, origin, most_bytes=most_bytes)
    assert caught.value.path == str(path)
    assert "again" in str(caught.value)
    return caught.value


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        State,
        st.builds(Origin, st.text(), st.text(), st.text()),
        st.lists(st.integers(0, 2**31 - 1)).map(tuple),
        st.binary().flatmap(lambda data: st.sampled_from([data, memoryview(data)])),
        st.text(),
    )
)
def test_what_was_saved_is_read_back(tmp_path_factory: Any, state: State) -> None:
    """Any texts, tokens and bytes, none of them as well; the size is that of the file."""
    path = tmp_path_factory.mktemp("states") / "state"

    size = write(path, state)

    assert size == path.stat().st_size
    assert read(path, state.origin, most_bytes=size) == state


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """It holds the conversation, whatever the umask says, and whatever was there before."""
    path = tmp_path / "state"
    path.write_text("old")
    path.chmod(0o666)

    saved(tmp_path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state"]  # noqa: PTH208 - hidden files as well


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("fingerprint", "another model file, 'tiny', which can read it"),
        ("build", "another llama.cpp ('b1234', and here is 'other')"),
        ("settings", "other settings ('f16 full', and here is 'other')"),
    ],
)
def test_a_state_from_elsewhere_is_refused(tmp_path: Path, part: str, told: str) -> None:
    """The error says which part differs, in words and as a fact, and what helps."""
    path = saved(tmp_path)

    error = refusal(path, attrs.evolve(HERE, **{part: "other"}))

    assert error.part == part
    assert told in str(error)


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    """Wherever a file is damaged, it is refused, and not as being from elsewhere."""
    path = saved(tmp_path, attrs.evolve(STATE, data=b"data" * 8))
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert refusal(path).part in {"damage", "format"}
        path.write_bytes(good[:at])
        assert refusal(path).part in {"damage", "format"}
    path.write_bytes(good + b"\0")
    assert refusal(path).part == "damage"


def start(version: int = 1, label: int = 0, tokens: int = 0, data: int = 0) -> bytes:
    """Return the beginning of a file."""
    return struct.pack("<8sIIQQ", b"LLMDSTAT", version, label, tokens, data)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "damage"),
        (b"GGUF" * 20, "format"),
        (start(version=2) + bytes(8), "format"),
        (start(label=2**32 - 1) + bytes(8), "damage"),
        (start(label=MAX_LABEL_BYTES + 1) + bytes(MAX_LABEL_BYTES + 9), "damage"),
        (start(tokens=2**64 - 1) + bytes(8), "damage"),
        (start(tokens=2**62) + bytes(8), "damage"),
        (start(data=2**64 - 1) + bytes(8), "damage"),
        (start(data=2**40) + bytes(8), "damage"),
    ],
)
def test_absurd_lengths_are_refused_before_anything_is_read(
    tmp_path: Path, content: bytes, part: str
) -> None:
    """Lengths are compared with the size of the file, so that no memory is asked for by them."""
    path = tmp_path / "state"
    path.write_bytes(content)

    assert refusal(path).part == part


def forged(label: object, tokens: bytes = b"") -> bytes:
    """Return a file whose checksums are right and whose content is odd."""
    text = label if isinstance(label, bytes) else json.dumps(label).encode()
    head = start(label=len(text), tokens=len(tokens) // 4) + text
    whole = head + struct.pack("<I", zlib.crc32(head)) + tokens
    return whole + struct.pack("<I", zlib.crc32(whole))


LABEL = {"model": "tiny", "fingerprint": "12-ab", "build": "b1234", "settings": "f16 full"}


@pytest.mark.parametrize(
    "content",
    [
        forged(b"\xff"),
        forged([]),
        forged({"model": "tiny"}),
        forged({**LABEL, "build": 7}),
        forged(b"[" * 60_000),
        forged(b"1" * 60_000),
        forged(LABEL, struct.pack("<i", -1)),
    ],
)
def test_a_file_with_right_checksums_is_not_believed_for_that(
    tmp_path: Path, content: bytes
) -> None:
    """Whoever can write a checksum can write anything before it."""
    path = tmp_path / "state"
    path.write_bytes(content)

    assert refusal(path).part == "damage"


def test_the_forger_is_right_about_the_format(tmp_path: Path) -> None:
    """What the test before writes is read, if nothing in it is odd."""
    path = tmp_path / "state"
    path.write_bytes(forged(LABEL, struct.pack("<i", 5)))

    assert read(path, HERE, most_bytes=MOST).tokens == (5,)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """The bound is for the whole file."""
    path = saved(tmp_path)
    size = path.stat().st_size

    assert refusal(path, most_bytes=size - 1).part == "size"
    assert read(path, HERE, most_bytes=size) == STATE


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, nothing, and a name that cannot be."""
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe", "missing", "a\0b"):
        assert refusal(tmp_path / name).part == "file"


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_take_it_is_told(tmp_path: Path, folder: str) -> None:
    """The error names the path and the system's reason."""
    (tmp_path / "file").touch()
    path = tmp_path / folder / "state"

    with pytest.raises(
        StateUnusable, match=f"{folder}/state: .*(No such file|Not a dir)"
    ) as caught:
        write(path, STATE)

    assert (caught.value.part, caught.value.path) == ("file", str(path))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A folder, a pipe or a device stays what it is, and nothing is left beside it."""
    make(tmp_path / "state")
    kind = (tmp_path / "state").stat().st_mode

    with pytest.raises(StateUnusable, match="no ordinary file"):
        write(tmp_path / "state", STATE)

    assert os.listdir(tmp_path) == ["state"]  # noqa: PTH208 - hidden files as well
    assert (tmp_path / "state").stat().st_mode == kind


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it points to is written."""
    (tmp_path / "link").symlink_to(tmp_path / "state")

    write(tmp_path / "link", STATE)

    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "state", HERE, most_bytes=MOST) == STATE


FULL = """
import os, resource, sys
from pathlib import Path
from llmdispatcher.vendors.llamacpp.files.statefile import Origin, State, StateUnusable, write

if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
elif os.getuid() == 0:
    os.setuid(65534)
try:
    write(Path(sys.argv[2]), State(Origin("", "", ""), (1,), bytes(10**6), ""))
except StateUnusable as error:
    print(error)
"""


@pytest.mark.parametrize(("case", "told"), [("full", "too large"), ("locked", "ermission")])
def test_no_room_and_no_permission_leave_the_old_file(tmp_path: Path, case: str, told: str) -> None:
    """A child may write no more, or not here: it is told, and the state from before is whole."""
    path = saved(tmp_path)
    tmp_path.chmod(0o700 if case == "full" else 0o500)

    done = subprocess.run(
        [sys.executable, "-c", FULL, case, str(path)], capture_output=True, text=True, check=False
    )

    tmp_path.chmod(0o700)
    assert told in done.stdout, done.stderr
    assert read(path, HERE, most_bytes=MOST) == STATE
    assert os.listdir(tmp_path) == ["state"]  # noqa: PTH208 - hidden files as well


@pytest.mark.parametrize("tokens", [(-1,), (2**31,)])
def test_tokens_that_have_no_place_are_refused(tmp_path: Path, tokens: tuple[int, ...]) -> None:
    """Tokens are 32-bit integers that are not negative, in llama.cpp and in the file."""
    with pytest.raises(BadRequest, match="tokens"):
        write(tmp_path / "state", attrs.evolve(STATE, tokens=tokens))


def test_a_label_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """What could not be read back is not written."""
    with pytest.raises(BadRequest, match="origin"):
        write(tmp_path / "state", attrs.evolve(STATE, model="x" * MAX_LABEL_BYTES))


def test_the_error_survives_pickling() -> None:
    """Its facts cross process boundaries."""
    error = pickle.loads(pickle.dumps(StateUnusable("no", path="p", part="size")))  # noqa: S301

    assert (str(error), error.path, error.part) == ("no", "p", "size")
    assert isinstance(error, VendorError)


def large(path: Path) -> Path:
    """Write a file of a gigabyte, most of it a hole."""
    with path.open("wb") as file:
        file.write(b"GGUF")
        file.truncate(2**30)
    return path


def change(path: Path, at: int) -> None:
    """Change a byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x01")


def test_a_fingerprint_depends_on_content_and_not_on_names(tmp_path: Path) -> None:
    """Two copies have one; another header, another sampled weight or another size has another."""
    path, copy = large(tmp_path / "a.gguf"), large(tmp_path / "b.gguf")
    own = fingerprint(path)
    changed = []
    for at in (100, HEAD_BYTES - 1, HEAD_BYTES, 2**30 - SAMPLE_BYTES, 2**30 - 1):
        change(copy, at)
        changed.append(fingerprint(copy))
    with copy.open("ab") as file:
        file.write(b"\0")

    assert fingerprint(large(tmp_path / "c.gguf")) == own
    assert len({own, *changed, fingerprint(copy)}) == 7


def test_samples_are_spread_over_all_of_a_file() -> None:
    """No gap between two of them is longer than a sixtieth of the file."""
    size = 10 * 2**30
    places = statefile._places(size)
    ends = [at + count for at, count in places]

    assert (places[0], ends[-1], len(places)) == ((0, HEAD_BYTES), size, SAMPLES + 1)
    assert all(0 <= b[0] - end <= size / 60 for b, end in zip(places[1:], ends, strict=False))
    assert sum(count for _, count in places) <= 20 * 2**20


def test_a_small_file_is_hashed_whole(tmp_path: Path) -> None:
    """Any change of it shows."""
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(HEAD_BYTES + 1000))
    before = fingerprint(path)
    change(path, HEAD_BYTES + 500)

    assert fingerprint(path) != before


def test_parts_of_a_model_count_in_their_order(tmp_path: Path) -> None:
    """A model of several files is told apart by all of them."""
    one, two = tmp_path / "1.gguf", tmp_path / "2.gguf"
    one.write_bytes(b"one")
    two.write_bytes(b"two")

    assert len({fingerprint(one), fingerprint(one, two), fingerprint(two, one)}) == 3


def test_a_missing_model_has_no_fingerprint(tmp_path: Path) -> None:
    """It is refused as it is when it is loaded."""
    with pytest.raises(ModelFileMissing):
        fingerprint(tmp_path / "missing.gguf")
