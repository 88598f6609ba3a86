"""Packed weights on the disk: ``config.json``, and ``packed.safetensors`` instead of ``model.safetensors``.

The panels are stored as the kernels read them, so loading needs no conversion. Only gpt_numpy opens such a folder. The
file's metadata holds a hash of each tensor: every byte of an integer is a valid number, so nothing else would show a
flipped bit.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

from ..errors import CheckpointCorrupt, CheckpointMismatch
from ..files.durable import replace_files
from ..interop import huggingface
from ..interop.beside import NOTHING
from ..interop.safetensors import SafetensorsFile
from .packed import BLOCK, BLOCK_BYTES, DTYPES, NIBBLE_BLOCK, NIBBLE_BYTES, PANEL, PackedWeights, kind_format

NAME = "packed.safetensors"
_VERSIONS = ("1", "2", "3")  # 1 had no hashes; 3 added int4 and the shapes of other models than GPT-2
_LAYOUT = {"panel": str(PANEL), "block": str(BLOCK), "version": "3"}


def _tensors(weights):
    """name → array of all that is written; a model with rotary positions has no ``positions``."""
    tensors = {name: getattr(weights, name) for name in ("data", "vectors", "positions")}
    return {name: array for name, array in tensors.items() if array.size}


def save_packed(folder, weights, eos_token_id=None, beside=NOTHING):
    """Write ``PackedWeights`` into ``folder``. eos_token_id and beside: as in ``huggingface.save``."""
    from safetensors.numpy import save_file

    tensors = _tensors(weights)
    metadata = {"format": weights.format, **_LAYOUT, **huggingface.identity(weights.config)}
    metadata |= {f"sha256 {name}": _hash(array) for name, array in tensors.items()}
    fields = huggingface.config_fields(weights.config, eos_token_id=eos_token_id)
    write = functools.partial(save_file, tensors, metadata=metadata)
    replace_files(folder, {NAME: write, **huggingface.writers_beside(fields, beside)})


def load_packed(folder):
    """``PackedWeights`` from ``folder``; the errors are those of ``huggingface.load``."""
    folder = Path(folder)
    config, _ = huggingface.load_config(folder)
    path = folder / NAME
    with SafetensorsFile(path) as file:
        format = file.metadata.get("format")
        layout = {name: file.metadata.get(name) for name in _LAYOUT}
        if format not in DTYPES or layout not in [{**_LAYOUT, "version": version} for version in _VERSIONS]:
            raise CheckpointMismatch("packed in another way", path=path, found=file.metadata, expected=str(_LAYOUT))
        huggingface.check_identity(config, file.metadata, path)
        huggingface.check_identity(config, file.metadata, path, parts=True)
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        wanted = {"data": (PackedWeights.data_size(config, format),), "vectors": (PackedWeights.vectors_size(config),)}
        if config.positions == "learned":
            wanted["positions"] = (config.block_size, config.n_embd)
        if shapes != wanted:
            raise CheckpointMismatch("not the tensors of this model", path=path, found=shapes, expected=str(wanted))
        weights = PackedWeights(config, format)
        for name in wanted.keys() - {"data"}:
            file.read_into(name, getattr(weights, name))
        file.read_exactly("data", weights.data)
    _check_finite(weights, path)
    _check_hashes(weights, file.metadata, path)
    return weights


def _hash(array):
    return hashlib.sha256(memoryview(array).cast("B")).hexdigest()


def _check_hashes(weights, metadata, path):
    hashes = {name: metadata.get(f"sha256 {name}") for name in _tensors(weights)}
    if metadata["version"] == "1" and not any(hashes.values()):
        return  # written before packed folders had hashes
    for name, expected in hashes.items():
        if _hash(getattr(weights, name)) != expected:
            raise CheckpointCorrupt("its bytes are not those that were written", path=path, field=name)


def _check_finite(weights, path):
    head = int(weights.offsets[4 * weights.config.n_layer])  # with int4, another format begins here
    for kind, data in ((0, weights.data[:head]), (4, weights.data[head:])):
        if not _is_finite(data, kind_format(weights.format, kind)):
            raise CheckpointMismatch("not a finite number", path=path, field="data")


def _is_finite(data, format):
    # An infinity or NaN has all exponent bits set. The scales of int8 are bfloat16; int4's steps have no sign.
    if format == "float32":
        return np.isfinite(data).all()
    if format == "bfloat16":
        return np.all(data & 0x7F80 != 0x7F80)
    size, start, exponent = {
        "int8": (BLOCK_BYTES, BLOCK * PANEL, 0x7F80),
        "int4": (NIBBLE_BYTES, NIBBLE_BLOCK * PANEL // 2, 0xFF00),
    }[format]
    scales = np.ascontiguousarray(data.reshape(-1, size)[:, start:]).view(np.uint16)
    return np.all(scales & exponent != exponent)
