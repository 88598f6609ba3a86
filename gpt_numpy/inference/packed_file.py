"""Packed weights on the disk: ``config.json`` as ever, and ``packed.safetensors`` in place of the model's own file.

The panels are stored as they are computed with, so that loading is reading. Only gpt_numpy opens such a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import CheckpointMismatch
from ..files.durable import replace_files
from ..interop import huggingface
from ..interop.safetensors import SafetensorsFile
from .packed import BLOCK, DTYPES, PANEL, PackedWeights

NAME = "packed.safetensors"
_TENSORS = ("data", "vectors", "positions")


def save_packed(folder, weights):
    """Write ``PackedWeights`` into ``folder``."""
    from safetensors.numpy import save_file

    metadata = {"format": weights.format, "panel": str(PANEL), "block": str(BLOCK), "version": "1"}
    tensors = {name: getattr(weights, name) for name in _TENSORS}
    text = json.dumps(huggingface.config_fields(weights.config), indent=2) + "\n"
    replace_files(
        folder,
        {
            NAME: lambda path: save_file(tensors, path, metadata=metadata),
            huggingface.CONFIG: lambda path: path.write_text(text, encoding="utf-8"),
        },
    )


def load_packed(folder):
    """``PackedWeights`` from ``folder``; the errors are those of ``huggingface.load``."""
    folder = Path(folder)
    config, _ = huggingface.load_config(folder)
    path = folder / NAME
    with SafetensorsFile(path) as file:
        format = file.metadata.get("format")
        layout = {name: file.metadata.get(name) for name in ("panel", "block", "version")}
        expected = {"panel": str(PANEL), "block": str(BLOCK), "version": "1"}
        if format not in DTYPES or layout != expected:
            raise CheckpointMismatch("packed in another way", path=path, found=file.metadata, expected=str(expected))
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        C = config.n_embd
        wanted = {
            "data": (PackedWeights.data_size(config, format),),
            "positions": (config.block_size, C),
            "vectors": ((13 * config.n_layer + 2) * C,),
        }
        if shapes != wanted:
            raise CheckpointMismatch("not the tensors of this model", path=path, found=shapes, expected=str(wanted))
        weights = PackedWeights(config, format)
        for name in ("vectors", "positions"):
            file.read_into(name, getattr(weights, name))
        file.read_exactly("data", weights.data)
    _check_finite(weights, path)
    return weights


def _check_finite(weights, path):
    # float32 and bfloat16 have infinities and NaNs, all of whose exponent bits are set; int8's scales are bfloat16.
    if weights.format == "float32":
        sound = np.isfinite(weights.data).all()
    elif weights.format == "bfloat16":
        sound = np.all(weights.data & 0x7F80 != 0x7F80)
    else:
        blocks = weights.data.reshape(-1, PANEL * BLOCK + 2 * PANEL)
        scales = np.ascontiguousarray(blocks[:, PANEL * BLOCK :]).view(np.uint16)
        sound = np.all(scales & 0x7F80 != 0x7F80)
    if not sound:
        raise CheckpointMismatch("not a finite number", path=path, field="data")
