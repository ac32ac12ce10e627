"""Finds the models that lie on this machine, and reads what each file says of itself.

Only headers are read. Whatever a file is, it costs no exception: what cannot be used is found with
the reason in words.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.files.header import Header, Kind
from llmdispatcher.vendors.llamacpp.stores import ollama
from llmdispatcher.vendors.llamacpp.stores.places import FOLDER, LLAMA_CPP, OLLAMA, Place
from llmdispatcher.vendors.llamacpp.stores.walk import Candidate, Walk, candidates

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.plan.fits import Fit

READ_S = 20.0
"""For the headers of all files together. One takes a millisecond, and those with a vocabulary of
200,000 tokens fifty."""

_STORED = re.compile(r"[-_.]?(bf16|f16|f32|i?q\d\w*)$", re.IGNORECASE)
"""How a file is stored, at the end of its name."""


@attrs.frozen(kw_only=True)
class FoundModel:
    """A model that lies on this machine. None and empty are "not known"."""

    name: str
    """By which it can be asked for."""
    path: Path
    """The file to load; of several, the first."""
    store: str
    """Where it was found; see ``Place.store``."""
    size_bytes: int | None = None
    """Of all its files."""
    architecture: str = ""
    context_tokens: int | None = None
    """What it was trained for."""
    quantisation: str = ""
    parameters: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    """What it can do here."""
    projector: Path | None = None
    """The file (mmproj) that lets it see."""
    fit: Fit | None = None
    """Whether it fits, where that was asked."""
    problem: str = ""
    """Why it cannot be used, in words; empty where it can."""


@attrs.frozen
class Findings:
    """What a look found."""

    models: tuple[FoundModel, ...] = ()
    """By store and name, those that cannot be used among them."""
    notes: tuple[str, ...] = ()
    """What was not looked at, and why."""


Weigh = Callable[[Header], "Fit"]


def names(places: Iterable[Place], walk: Walk | None = None) -> list[tuple[str, Candidate]]:
    """Return what may be a model, each with its store, without reading any of it."""
    return [each for each in _gathered(places, walk or Walk()) if not _is_projector(each[1].path)]


def look(
    places: Iterable[Place],
    weigh: Weigh | None = None,
    clock: Callable[[], float] = time.monotonic,
    *,
    limit_s: float = READ_S,
) -> Findings:
    """Return the models in some places; ``weigh`` says of each whether it fits.

    What was not read within ``limit_s`` seconds is found without its facts, and says so.
    """
    walk, until_s = Walk(clock), clock() + limit_s
    found: list[FoundModel] = []
    projectors: list[Path] = []
    for store, each in _gathered(places, walk):
        if _is_projector(each.path):
            projectors.append(each.path)
            continue
        model, is_eye = _read(each, store, weigh, is_late=clock() > until_s)
        if not is_eye:
            found.append(model)
        elif store != OLLAMA:
            projectors.append(each.path)
    return Findings(tuple(_seeing(found, projectors)), tuple(walk.notes))


def _gathered(places: Iterable[Place], walk: Walk) -> list[tuple[str, Candidate]]:
    """Return what may be a model or belong to one; a file in several places by its shortest name.

    Names of Ollama are kept, also where several are names of one file.
    """
    found: dict[tuple[str, str], tuple[str, Candidate]] = {}
    for place in places:
        is_ollama = ollama.is_store(place.folder)
        for each in (ollama.candidates if is_ollama else candidates)(place.folder, walk):
            if is_ollama:
                found[each.name, str(each.path)] = (OLLAMA, each)
                continue
            key = ("", os.path.join(os.path.realpath(each.path.parent), each.path.name))  # noqa: PTH118 - odd paths as they are
            known = found.get(key)
            if known is None or len(each.name) < len(known[1].name):
                found[key] = (place.store, each)
    return list(found.values())


def _read(
    each: Candidate, store: str, weigh: Weigh | None, *, is_late: bool
) -> tuple[FoundModel, bool]:
    """Read one file; the second says that it is a projector, and so no model."""
    bare = FoundModel(
        name=each.name,
        path=each.path,
        store=store,
        projector=each.projector,
        size_bytes=_size(each.path),
        problem=each.problem,
    )
    if each.problem:
        return bare, False
    if is_late:
        return attrs.evolve(bare, problem="not read: there are too many files"), False
    try:
        header = read_header(each.path)
        if header.kind is Kind.MMPROJ:
            return bare, True
        return _told(bare, header, weigh), False
    except DispatcherError as error:
        return attrs.evolve(bare, problem=str(error)), False


def _told(bare: FoundModel, header: Header, weigh: Weigh | None) -> FoundModel:
    """Add what a header says. Raises UnsupportedArchitecture for what is no model."""
    from llmdispatcher.vendors.llamacpp.vendor import abilities  # noqa: PLC0415 - it reads files

    if header.kind is not Kind.EMBEDDING:
        header.check_generates()
    return attrs.evolve(
        bare,
        size_bytes=header.file_size,
        architecture=header.architecture,
        context_tokens=header.context_length,
        quantisation=header.quantisation,
        parameters=header.parameter_count,
        capabilities=abilities(header),
        fit=None if weigh is None else weigh(header),
    )


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - takes odd paths as they are
    except (OSError, ValueError):
        return None


# -- what lets models see ----------------------------------------------------------------------


def _is_projector(path: Path) -> bool:
    """Whether a file is one by its name, by which llama.cpp knows them (common/download.cpp)."""
    return "mmproj" in path.name.lower()


def _seeing(models: Sequence[FoundModel], projectors: Sequence[Path]) -> list[FoundModel]:
    """Give each model the projector that lies with it."""
    folders: dict[Path, list[Path]] = {}
    for path in projectors:
        folders.setdefault(path.parent, []).append(path)
    return [_with_projector(each, folders.get(each.path.parent, ())) for each in models]


def _with_projector(model: FoundModel, beside: Sequence[Path]) -> FoundModel:
    """Take one that lies beside it and was made for it.

    A folder of a repository holds the files of one model; in any other the names must say it.
    """
    if model.store in (FOLDER, LLAMA_CPP):
        own = _stem(model.path)
        beside = [path for path in beside if (stem := _stem(path)) and stem in own]
    if not beside or model.problem or model.projector is not None:
        return model
    able = model.capabilities | {Capability.VISION}
    return attrs.evolve(model, projector=min(beside, key=_preference), capabilities=able)


def _stem(path: Path) -> str:
    """Return what a file's name says of the model: without how it is stored, and "mmproj"."""
    name = path.name.lower().removesuffix(".gguf").replace("mmproj", "")
    return _STORED.sub("", name.strip("-_.")).strip("-_.")


def _preference(path: Path) -> tuple[bool, str]:
    """Half precision first: it is what most are made in, and half as large as the whole."""
    return "f16" not in path.name.lower().replace("bf16", ""), path.name
