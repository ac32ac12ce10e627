"""``--model NAME``: finds a model that lies on this machine, where no path was given."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from llmdispatcher.models.errors import RequestError
from llmdispatcher.vendors.llamacpp.stores import look
from llmdispatcher.vendors.llamacpp.stores.places import Place, places
from llmdispatcher.vendors.llamacpp.stores.walk import Candidate

MAX_SHOWN = 6
"""Names in an error."""

_PATHS = ("/", "./", "../", "~", ".\\", "..\\")


def here(folders: Iterable[Path] = ()) -> tuple[Place, ...]:
    """Return where models may lie on this machine, for this user."""
    return places(os.environ, Path.home(), folders)


@attrs.frozen
class Named:
    """The file that ``--model`` means."""

    path: str
    name: str | None = None
    """Of the model, where it was found by its name."""


def model_file(given: str, where: Iterable[Place] | None = None) -> Named:
    """Return the file that ``--model`` means.

    What is a path stays one, and so does what only could be one and is the name of no model. Raises
    RequestError for a name that no model has, or several, or of one that cannot be used.
    """
    is_there, is_folder = os.path.exists(given), os.path.isdir(given)  # noqa: PTH110, PTH112 - odd paths as they are
    if given.startswith(_PATHS) or (is_there and not is_folder) or "\0" in given:
        return Named(given)
    found = look.names(here() if where is None else where)
    meant = _meant(given, found)
    if not meant:
        if is_folder or given.lower().endswith(".gguf"):
            return Named(given)
        raise RequestError(_unknown(given, found))
    if len({_file(each) for _, each in meant}) > 1:
        shown = _listed([f"{store}/{each.name}" for store, each in meant])
        raise RequestError(
            f"--model {given}: several are called that: {shown}; name one, or give its path"
        )
    store, model = meant[0]
    if model.problem:
        raise RequestError(f"--model {given}: {store}/{model.name}: {model.problem}")
    return Named(str(model.path), printable(model.name))


def printable(name: str) -> str:
    """Return a name as text: a system may allow bytes in it that are none."""
    return name.encode(errors="replace").decode()


def _file(each: Candidate) -> str:
    return os.path.realpath(each.path)


Found = Sequence[tuple[str, Candidate]]


def _meant(given: str, found: Found) -> Found:
    """Return those that a name means: by the whole name first, then by its end, then by a part."""
    wanted = given.lower().removesuffix(".gguf")
    for means in (_is_whole, _is_end, _is_part):
        meant = [(store, each) for store, each in found if means(wanted, _full(store, each))]
        if meant:
            return meant
    return ()


def _full(store: str, each: Candidate) -> str:
    return f"{store}/{each.name}".lower()


def _is_whole(wanted: str, full: str) -> bool:
    name = full.partition("/")[2]
    return wanted in (full, name, full.removesuffix(":latest"), name.removesuffix(":latest"))


def _is_end(wanted: str, full: str) -> bool:
    return full.endswith((f"/{wanted}", f"/{wanted}:latest"))


def _is_part(wanted: str, full: str) -> bool:
    """Whether it names a folder that the model is in, or a model of Ollama without its tag."""
    return f"/{wanted}/" in f"/{full.partition('/')[2].partition(':')[0]}/"


def _unknown(given: str, found: Found) -> str:
    """Say that there is no such model, and which were probably meant."""
    named = {name: full for full in _names(found) for name in (full, full.rpartition("/")[2])}
    lower = {name.lower(): full for name, full in named.items()}
    near = difflib.get_close_matches(given.lower(), lower, n=MAX_SHOWN, cutoff=0.5)
    near += [name for name in lower if given.lower() in name and name not in near]
    if near:
        hint = f"did you mean {_listed(list(dict.fromkeys(lower[name] for name in near)))}?"
    elif found:
        hint = "llmdispatcher models lists those that are there"
    else:
        hint = (
            "give the path of a GGUF file, or a name from the store of Ollama, LM Studio, Hugging"
            " Face or llama.cpp, in which none was found"
        )
    return (
        f"--model {given}: there is no such file, and no model on this machine is called so; {hint}"
    )


def _names(found: Found) -> list[str]:
    return [each.name for _, each in found]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
