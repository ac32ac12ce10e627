"""Where programs keep GGUF files on this machine. Nothing is read but settings and pointers.

Each place is where the program itself looks:

- Ollama: ``OLLAMA_MODELS``, else ``models`` in ``~/.ollama`` (ollama/ollama, envconfig/config.go);
  its service on Linux has ``/usr/share/ollama/.ollama/models`` (the same, docs/faq.md).
- LM Studio: its home is ``LMSTUDIO_HOME``, else what ``~/.lmstudio-home-pointer`` says, else
  ``~/.cache/lm-studio`` where there is one, else ``~/.lmstudio`` (lmstudio-ai/lmstudio-js,
  lms-common-server/src/findLMStudioHome.ts). The models are in the ``downloadsFolder`` of
  ``settings.json`` there, else in ``models`` (lmstudio-ai/lms, src/modelsFolder.ts).
- Hugging Face: ``HF_HUB_CACHE``, ``HUGGINGFACE_HUB_CACHE``, ``hub`` in ``HF_HOME``, and
  ``huggingface/hub`` in ``XDG_CACHE_HOME`` or ``~/.cache`` (huggingface_hub 1.33, constants.py).
  llama.cpp keeps there what it fetches with ``-hf`` (common/hf-cache.cpp).
- llama.cpp: ``LLAMA_CACHE``, else ``llama.cpp`` in ``XDG_CACHE_HOME``, ``~/.cache`` or, on macOS,
  ``~/Library/Caches`` (common/common.cpp, fs_get_cache_directory).
- The user's own: ``LLMDISPATCHER_MODELS``, folders as in ``PATH``, and ``~/models``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

OLLAMA, LM_STUDIO, HUGGING_FACE, LLAMA_CPP, FOLDER = (
    "ollama",
    "lmstudio",
    "huggingface",
    "llama.cpp",
    "folder",
)

SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Of Ollama's service on Linux."""

MAX_SETTINGS_BYTES = 2**20
"""Of LM Studio's settings; real ones have some kilobytes."""


@attrs.frozen
class Place:
    """A folder to look in."""

    store: str
    """Whose it is: "ollama", "lmstudio", "huggingface", "llama.cpp" or "folder"."""
    folder: Path


def places(
    environment: Mapping[str, str], home: Path, folders: Iterable[Path] = ()
) -> tuple[Place, ...]:
    """Return where to look, each folder once: the user's own first.

    ``folders`` are those that the user names. Those that are not there are among them too.
    """
    named = [folder.expanduser() for folder in folders]
    named += [_path(each, home) for each in environment.get(MODELS, "").split(os.pathsep) if each]
    found = [Place(FOLDER, folder) for folder in (*named, home / "models")]
    found += [Place(OLLAMA, folder) for folder in _ollama(environment, home)]
    found.append(Place(LM_STUDIO, _lm_studio(environment, home)))
    found.append(Place(HUGGING_FACE, _hugging_face(environment, home)))
    found += [Place(LLAMA_CPP, folder) for folder in _llama_cpp(environment, home)]
    return tuple({os.path.realpath(place.folder): place for place in reversed(found)}.values())[
        ::-1
    ]


MODELS = "LLMDISPATCHER_MODELS"
"""The variable that names the user's own folders."""


def _path(given: str, home: Path) -> Path:
    """Return a path as a shell would take it."""
    if given == "~" or given.startswith("~/"):
        return home / given[2:]
    return Path(given)


def _told(environment: Mapping[str, str], home: Path, *names: str) -> Path | None:
    """Return the first of the variables that is set."""
    given = next((each for name in names if (each := environment.get(name, "").strip())), None)
    return None if given is None else _path(given, home)


def _ollama(environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    yield _told(environment, home, "OLLAMA_MODELS") or home / ".ollama" / "models"
    yield SERVICE


def _lm_studio(environment: Mapping[str, str], home: Path) -> Path:
    root = _told(environment, home, "LMSTUDIO_HOME")
    if root is None:
        pointed = _text(home / ".lmstudio-home-pointer").strip()
        cached = home / ".cache" / "lm-studio"
        usual = cached if os.path.isdir(cached) else home / ".lmstudio"  # noqa: PTH112 - never raises
        root = _path(pointed, home) if pointed else usual
    return _downloads(root, home) or root / "models"


def _downloads(root: Path, home: Path) -> Path | None:
    """Return the folder that LM Studio's settings name."""
    import json  # noqa: PLC0415 - few have such a file

    try:
        settings = json.loads(_text(root / "settings.json") or "null")
    except (ValueError, RecursionError):
        return None
    given = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return _path(given, home) if isinstance(given, str) and given else None


def _text(path: Path) -> str:
    """Return a small file's text; empty where there is none that can be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MAX_SETTINGS_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def _hugging_face(environment: Mapping[str, str], home: Path) -> Path:
    cache = _told(environment, home, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    if cache is not None:
        return cache
    if (root := _told(environment, home, "HF_HOME")) is not None:
        return root / "hub"
    return _cache(environment, home) / "huggingface" / "hub"


def _llama_cpp(environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    if (given := _told(environment, home, "LLAMA_CACHE")) is not None:
        yield given
        return
    yield _cache(environment, home) / "llama.cpp"
    yield home / "Library" / "Caches" / "llama.cpp"


def _cache(environment: Mapping[str, str], home: Path) -> Path:
    return _told(environment, home, "XDG_CACHE_HOME") or home / ".cache"
