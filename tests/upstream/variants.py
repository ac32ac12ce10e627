"""Copies of the embedded model that differ in one thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
from exact_gguf import exact_model

from llmdispatcher.vendors.llamacpp.vendor import embedded

MODEL = embedded().model_path
TRAINED_TOKENS = 512
STRETCHED_TOKENS = 2048


def stretched(folder: Path) -> Path:
    """Copy the embedded model with a context of STRETCHED_TOKENS in its header."""
    path = Path(shutil.copy(MODEL, folder / "stretched.gguf"))
    reader = gguf.GGUFReader(path, "r+")
    field = reader.fields["llama.context_length"]
    field.parts[field.data[0]][0] = STRETCHED_TOKENS
    reader.data.flush()
    return path


def in_f32(folder: Path) -> Path:
    """Copy ``stretched`` with its numbers written in full: the same values, in four bytes each.

    What is multiplied with weights of eight bits is rounded to eight bits too, and how, depends on
    what else is in the batch. With these weights it stays as exact as sums of floats are.
    """
    return exact_model(folder / "f32.gguf", stretched(folder))
