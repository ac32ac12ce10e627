"""Walks folders for GGUF files within bounds, and names what it finds. Opens no model.

A walk goes into no folder twice, so that links in a circle end; into no hidden one; and no deeper,
longer or further than its bounds, which it tells where it stopped at one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

MAX_DEPTH = 8
"""Folders below the first; the cache of Hugging Face has five."""

MAX_ENTRIES = 200_000
"""Names that are looked at in all: a folder of a photo library is no folder of models."""

WALK_S = 5.0
"""For all folders together: a disk over the network may take seconds for each."""

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
"""How llama.cpp names the files of a model that is split, without their ending."""

_REPOSITORY = "models--"
_MAX_REF_BYTES = 256


@attrs.frozen(kw_only=True)
class Candidate:
    """A file that may be a model."""

    name: str
    """By which the user asks for it."""
    path: Path
    """Of a model in several files, the first."""
    projector: Path | None = None
    """What lets it see, where the store tells."""
    problem: str = ""
    """Why it cannot be used, where that is known without reading it."""
    rank: int = 0
    """Of two of one name the lower is taken."""


class Walk:
    """One look, in as many folders as there are, within the same bounds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        limit_s: float = WALK_S,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._clock, self._until_s, self._limit_s = clock, clock() + limit_s, limit_s
        self._left = self._max_entries = max_entries
        self.notes: list[str] = []
        """What was not looked at, and why, in words."""

    def folders(self, root: Path, max_depth: int = MAX_DEPTH) -> Iterator[tuple[Path, list[str]]]:
        """Yield each folder below ``root``, and itself, with the names of its files, sorted."""
        waiting, seen = [(root, 0)], set[tuple[int, int]]()
        while waiting and not self._is_over(root):
            folder, depth = waiting.pop()
            key = self._key(folder)
            if key is None or key in seen:
                continue
            seen.add(key)
            below, names = self._listed(folder)
            yield folder, names
            if depth < max_depth:
                waiting += [(folder / name, depth + 1) for name in reversed(below)]
            elif below:
                self.notes.append(f"{folder}: not looked at deeper, {max_depth} folders down")

    def _is_over(self, root: Path) -> bool:
        if self._left <= 0:
            why = f"after {self._max_entries:,} files and folders"
        elif self._clock() > self._until_s:
            why = f"after {self._limit_s:g} s"
        else:
            return False
        self.notes.append(f"{root}: not looked at to the end, but stopped {why}")
        return True

    def _key(self, folder: Path) -> tuple[int, int] | None:
        """Return what tells a folder from all others; None for one that is not there."""
        try:
            told = folder.stat()
        except PermissionError:
            self.notes.append(f"{folder}: you may not read it")
            return None
        except (OSError, ValueError):
            return None
        return told.st_dev, told.st_ino

    def _listed(self, folder: Path) -> tuple[list[str], list[str]]:
        """Return the names of a folder's folders, without hidden ones, and of its files."""
        below: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        break
                    if not _is_folder(entry):
                        names.append(entry.name)
                    elif not entry.name.startswith("."):
                        below.append(entry.name)
        except OSError as error:
            self.notes.append(f"{folder}: cannot be read: {error.strerror or error}")
        return sorted(below), sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


# -- files by name -----------------------------------------------------------------------------


def candidates(root: Path, walk: Walk) -> list[Candidate]:
    """Return the GGUF files below a folder: one for each model, in the order of their names."""
    found: dict[str, Candidate] = {}
    mains: dict[Path, str] = {}
    for folder, names in walk.folders(root):
        for stem, file in _models(names):
            candidate = _named(root, folder, stem, file, mains)
            known = found.get(candidate.name)
            if known is None or candidate.rank < known.rank:
                found[candidate.name] = candidate
    return [found[name] for name in sorted(found)]


def _models(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each model among files: its name without ending, and its (first) file."""
    parts: set[tuple[str, str]] = set()
    for name in names:
        if name.startswith(".") or not name.lower().endswith(".gguf"):
            continue
        stem = name[: -len(".gguf")]
        split = _PART.fullmatch(stem)
        if split is None:
            yield stem, name
        elif (key := (split["stem"], split["count"])) not in parts:
            parts.add(key)  # names are sorted: this is the first that is there
            yield split["stem"], name


def _named(root: Path, folder: Path, stem: str, file: str, mains: dict[Path, str]) -> Candidate:
    """Name a file by where it lies: ``PUBLISHER/REPOSITORY/FILE`` in the stores that do so.

    The cache of Hugging Face has ``models--ORG--NAME/snapshots/COMMIT/FILE``, where ``refs/main``
    holds the commit that is current.
    """
    inner = folder.relative_to(root).parts
    at = next((i for i, part in enumerate(inner) if part.startswith(_REPOSITORY)), None)
    rank = 0
    if at is not None and inner[at + 1 : at + 2] == ("snapshots",):
        repository = root.joinpath(*inner[: at + 1])
        if repository not in mains:
            mains[repository] = _main(repository)
        rank = int(inner[at + 2 : at + 3] != (mains[repository],))
        inner = (*inner[at].removeprefix(_REPOSITORY).split("--"), *inner[at + 3 :])
    return Candidate(name="/".join((*inner, stem)), path=folder / file, rank=rank)


def _main(repository: Path) -> str:
    try:
        with (repository / "refs" / "main").open("rb") as file:
            return file.read(_MAX_REF_BYTES).decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""
