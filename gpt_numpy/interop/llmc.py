"""llm.c's ``.bin`` checkpoints, in and out.

A file is 256 little-endian int32 (magic, version, positions, vocabulary, layers, heads, width, padded vocabulary)
and then the parameters, one kind after the other, each for all layers at once. Matrices are (out, in), the
transpose of ours, and the embedding's rows are padded to a multiple of 128 so that a GPU's tiles fit.

    version 1   float32, the vocabulary as it is
    version 2   bfloat16, but layernorms in float32, the vocabulary as it is
    version 3   float32, padded
    version 4   bfloat16, but layernorms in float32, padded
    version 5   bfloat16, padded

llm.c's history defines versions 1, 3 and 5. Versions 2 and 4 follow from its remark on 5 ("layernorms also in bf16").
All five are read here. Versions 3 and 5 are written, because llm.c itself still reads only these. Version 7 (float16, of
some descendants of llm.c) is neither read nor written. Everything is checked before anything is allocated: a file has
exactly the size that its header implies.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..config import GPTConfig
from ..errors import CheckpointCorrupt, CheckpointMismatch, ConfigError
from ..files.durable import replace_files
from ..parameters import Parameters
from .safetensors import bfloat16_to_float32, float32_to_bfloat16, open_weights

MAGIC = 20240326
_HEADER_INTS = 256
_MULTIPLE = 128
_VERSIONS = (1, 2, 3, 4, 5)
_LAYER_TENSORS = (
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
)


def _names(config):
    """Our names in the order of the file."""
    layers = [f"h.{i}.{name}" for name in _LAYER_TENSORS for i in range(config.n_layer)]
    return ["wte.weight", "wpe.weight", *layers, "ln_f.weight", "ln_f.bias"]


def save(path: str | os.PathLike, config: GPTConfig, params: Parameters, dtype: str = "float32") -> None:
    """Write ``config`` and ``params`` to the file ``path``, in float32 (version 3) or bfloat16 (version 5)."""
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError("llm.c has no such format", field="dtype", found=dtype, expected="float32 or bfloat16")
    if config.differing():
        name, value = next(iter(config.differing().items()))
        raise ConfigError("llm.c's files hold GPT-2 alone", field=name, found=value)
    path = Path(path)
    padded = -(-config.vocab_size // _MULTIPLE) * _MULTIPLE
    header = np.zeros(_HEADER_INTS, "<i4")
    header[:8] = (
        MAGIC,
        3 if dtype == "float32" else 5,
        config.block_size,
        config.vocab_size,
        config.n_layer,
        config.n_head,
        config.n_embd,
        padded,
    )

    def write(temporary):
        with open(temporary, "wb") as file:
            file.write(header)
            for name in _names(config):
                values = np.asarray(params[name], np.float32)
                if name == "wte.weight":
                    values = np.pad(values, ((0, padded - config.vocab_size), (0, 0)))
                elif values.ndim == 2 and name != "wpe.weight":
                    values = values.T
                values = np.ascontiguousarray(values)
                file.write(values if dtype == "float32" else float32_to_bfloat16(values))

    replace_files(path.parent, {path.name: write})


def load(path: str | os.PathLike, dtype: Any = np.float32) -> tuple[GPTConfig, Parameters]:
    """``(GPTConfig, Parameters)`` of an llm.c file."""
    with open_weights(path) as file:
        config, version, rows = _read_header(file, path)
        params = Parameters(config, dtype)
        for name in _names(config):
            view = params[name]
            shape = (rows, view.shape[1]) if name == "wte.weight" else view.shape
            transposed = view.ndim == 2 and name not in ("wte.weight", "wpe.weight")
            values = _read_array(file, path, name, math.prod(shape), _stored(version, name))
            if not np.isfinite(values).all():
                raise CheckpointMismatch("not a finite number", path=path, field=name)
            view[...] = values.reshape(shape[::-1]).T if transposed else values.reshape(shape)[: view.shape[0]]
    return config, params


def _stored(version, name):
    """The type of a tensor's numbers in a file of this version."""
    whole = version in (1, 3) or (version in (2, 4) and ".ln_" in f".{name}")
    return "float32" if whole else "bfloat16"


def _read_header(file, path):
    size = os.fstat(file.fileno()).st_size
    raw = file.read(4 * _HEADER_INTS)
    if len(raw) < 4 * _HEADER_INTS:
        raise CheckpointCorrupt("the file ends in its header", path=path, found=f"{size} bytes")
    magic, version, *sizes = np.frombuffer(raw, "<i4")[:8].tolist()
    if magic != MAGIC:
        raise CheckpointCorrupt("not a checkpoint of llm.c", path=path, offset=0, found=magic, expected=str(MAGIC))
    if version not in _VERSIONS:
        raise CheckpointMismatch("unknown version", path=path, offset=4, found=version, expected="1 to 5")
    block_size, vocab_size, n_layer, n_head, n_embd, padded = sizes
    try:
        config = GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd)
    except ConfigError as error:
        raise CheckpointCorrupt(str(error), path=path) from None
    rows = vocab_size if version < 3 else padded
    if rows < vocab_size:
        raise CheckpointCorrupt(
            "padded to less than the vocabulary", path=path, offset=28, found=padded, expected=f"at least {vocab_size}"
        )
    C = n_embd
    layernorms = (4 * n_layer + 2) * C
    numbers = (rows + block_size) * C + n_layer * (12 * C * C + 9 * C)
    expected = 4 * _HEADER_INTS + numbers * (4 if version in (1, 3) else 2) + layernorms * (2 if version == 5 else 4)
    if size != expected:
        raise CheckpointCorrupt(
            "the size is not what the header says", path=path, found=f"{size} bytes", expected=f"{expected} bytes"
        )
    return config, version, rows


def _read_array(file, path, name, count, stored):
    values = np.fromfile(file, "<f4" if stored == "float32" else "<u2", count)
    if len(values) < count:
        raise CheckpointCorrupt("the file ends inside a tensor", path=path, field=name)
    return values if stored == "float32" else bfloat16_to_float32(values)
