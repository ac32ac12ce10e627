"""Copies of the embedded model that differ in one thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np

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
    reader = gguf.GGUFReader(stretched(folder))
    path = folder / "f32.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            element = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
