"""Writes the folders that other programs keep their models in, as they lay them out themselves."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import llmdispatcher.models

DEMO = Path(llmdispatcher.models.__file__ or "").parent / "demo.gguf"
"""A real model that is always there."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class OllamaStore:
    """What ``ollama pull`` leaves behind."""

    def __init__(self, models: Path) -> None:
        self.models = models
        (models / "blobs").mkdir(parents=True)
        (models / "manifests").mkdir()

    def blob(self, source: Path) -> str:
        """Add a file, and return its digest."""
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        shutil.copyfile(source, self.models / "blobs" / f"sha256-{digest}")
        return f"sha256:{digest}"

    def pull(self, name: str, **files: Path) -> Path:
        """Add a model of some files by kind (``model``, ``projector``…); return its manifest."""
        layers = [
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": self.blob(source),
                "size": source.stat().st_size,
            }
            for kind, source in files.items()
        ]
        return self.write(name, {"schemaVersion": 2, "mediaType": _MANIFEST, "layers": layers})

    def write(self, name: str, manifest: Any) -> Path:
        """Write the manifest of a model, whatever it is."""
        model, _, tag = name.rpartition(":")
        parts = model.split("/")
        parts = [*["registry.ollama.ai", "library"][: 3 - len(parts)], *parts]
        path = self.models.joinpath("manifests", *parts, tag)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        path.write_text(text, encoding="utf-8")
        return path


def hub_file(hub: Path, repository: str, name: str, source: Path, commit: str = COMMIT) -> Path:
    """Download a file as huggingface_hub does: a blob, and a link in a snapshot; return the link.

    The first commit of a repository is its main one.
    """
    folder = hub / f"models--{repository.replace('/', '--')}"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    blob = folder / "blobs" / digest
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, blob)
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    main = folder / "refs" / "main"
    if not main.exists():
        main.parent.mkdir()
        main.write_text(commit, encoding="utf-8")
    return link


def file(path: Path, source: Path = DEMO) -> Path:
    """Put a copy of a model at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return path
