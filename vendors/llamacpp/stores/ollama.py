"""Reads Ollama's store: which file each of its models is.

``manifests/HOST/NAMESPACE/MODEL/TAG`` is a JSON object with ``layers``; the one whose media type is
``application/vnd.ollama.image.model`` names the GGUF file by its digest, which lies in
``blobs/sha256-…`` (ollama/ollama, manifest/paths.go; server/modelpath.go for the short names).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdispatcher.vendors.llamacpp.stores.walk import Candidate, Walk

MAX_MANIFEST_BYTES = 2**20
"""Real ones have a kilobyte; of a model that is kept as single tensors some hundred."""

HOST, NAMESPACE = "registry.ollama.ai", "library"
"""Left out of names."""

_LEVELS = 4
"""HOST, NAMESPACE, MODEL, TAG."""

_KIND = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def is_store(folder: Path) -> bool:
    """Whether a folder is laid out as Ollama's models are."""
    return all(os.path.isdir(folder / name) for name in ("manifests", "blobs"))  # noqa: PTH112 - never raises


def candidates(folder: Path, walk: Walk) -> list[Candidate]:
    """Return the models of a store, in the order of their names."""
    found = [
        _candidate(folder, name, manifest)
        for name, manifest in _manifests(folder / "manifests", walk)
    ]
    return sorted(found, key=lambda each: each.name)


def _manifests(root: Path, walk: Walk) -> Iterator[tuple[str, Path]]:
    """Yield the short name and the manifest of each model."""
    for inner, names in walk.folders(root, _LEVELS - 1):
        parts = inner.relative_to(root).parts
        if len(parts) != _LEVELS - 1:
            continue
        host, namespace, model = parts
        before = [] if host == HOST else [host]
        before += [] if not before and namespace == NAMESPACE else [namespace]
        for tag in names:
            if not tag.startswith("."):
                yield f"{'/'.join([*before, model])}:{tag}", inner / tag


def _candidate(folder: Path, name: str, manifest: Path) -> Candidate:
    try:
        layers = _layers(manifest)
    except (OSError, ValueError, RecursionError) as error:
        why = f"Ollama's manifest of it cannot be read ({error}): ollama pull {name}"
        return Candidate(name=name, path=manifest, problem=why)
    models = [path for kind, path in _files(folder, layers) if kind == "model"]
    others = {kind: path for kind, path in _files(folder, layers) if kind != "model"}
    problem = ""
    if not models:
        problem = "it has no GGUF file here: it runs in a cloud, or is kept in another format"
    elif len(models) > 1:
        problem = "it is in several files, which only Ollama puts together"
    elif "adapter" in others:
        problem = "it is changed by an adapter beside it, which only Ollama applies"
    elif not os.path.isfile(models[0]):  # noqa: PTH113 - never raises
        problem = f"its file {models[0]} is not there: ollama pull {name}"
    path = models[0] if models else manifest
    return Candidate(name=name, path=path, projector=others.get("projector"), problem=problem)


def _layers(manifest: Path) -> list[Any]:
    with manifest.open("rb") as file:
        text = file.read(MAX_MANIFEST_BYTES + 1)
    if len(text) > MAX_MANIFEST_BYTES:
        raise ValueError(f"longer than {MAX_MANIFEST_BYTES} bytes")
    told = json.loads(text)
    layers = told.get("layers") if isinstance(told, dict) else None
    if not isinstance(layers, list):
        raise ValueError("no JSON object with layers")  # noqa: TRY004 - it is the value that is bad
    return layers


def _files(folder: Path, layers: list[Any]) -> Iterator[tuple[str, Path]]:
    """Yield the kind and the file of each layer that is told rightly."""
    for layer in layers:
        told = layer if isinstance(layer, dict) else {}
        kind = str(told.get("mediaType", "")).partition(";")[0].strip()
        digest = _DIGEST.fullmatch(str(told.get("digest", "")))
        if kind.startswith(_KIND) and digest is not None:
            yield kind.removeprefix(_KIND), folder / "blobs" / f"sha256-{digest[1]}"
