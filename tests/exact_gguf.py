"""The embedded model with its weights as F32, of the same values: for comparing to the last token.

Quantised files multiply in whole numbers, whose rounding depends on how many rows are multiplied
at once; F32 leaves errors of a millionth, far below what decides between two tokens of a trained
model.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

import llmdispatcher.models

EMBEDDED = Path(llmdispatcher.models.__file__ or "").parent / "demo.gguf"


def exact_model(target: Path, source: Path = EMBEDDED) -> Path:
    """Write a copy of a model with all its tensors as F32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in {"general.architecture", "general.file_type"}:
            continue
        kind, *element = field.types
        writer.add_key_value(key, field.contents(), kind, sub_type=element[0] if element else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
