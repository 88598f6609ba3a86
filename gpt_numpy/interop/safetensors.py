"""Reading safetensors files from any source.

A file is eight bytes of header length, a JSON header that gives each tensor's dtype, shape and position, and
then the bytes of all tensors without a gap. Every field of the header is checked here before anything is
allocated, so that a broken or hostile file ends in an error that names the tensor and its fault. Tensors are then
read straight into their final arrays.

The ``safetensors`` library writes our files, but does not read them here: the library has no NumPy type for BF16,
and its errors do not name the tensor. The format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
from typing import NamedTuple

import numpy as np

from ..errors import CheckpointCorrupt, CheckpointMismatch, ModelNotFound
from ..files.regular import open_regular
from ..products import bfloat16_to_float32 as bfloat16_to_float32

_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "U8": "u1", "U16": "<u2", "BF16": "<u2"}
_FLOATS = ("F64", "F32", "F16", "BF16")
_HEADER_LIMIT = 100_000_000  # bytes; the library's own limit
_CHUNK = 1 << 22  # elements converted at a time


class Tensor(NamedTuple):
    """The type, shape and position of one tensor in a file."""

    dtype: str  # the format's own name, such as "BF16"
    shape: tuple
    start: int  # first byte, counted from the beginning of the file
    stop: int


class SafetensorsFile:
    """An opened file. ``tensors`` maps name → ``Tensor``; ``metadata`` is a dict of strings.

    Raises ``CheckpointCorrupt`` where the file breaks the format, ``ModelNotFound`` where the file is missing.
    Use as a context manager.
    """

    def __init__(self, path):
        self.path = path
        self._file = open_weights(path)  # closed by __exit__
        self._map = None  # of the whole file, made for the first view; the map lives as long as its views
        try:
            self.tensors, self.metadata = _read_header(self._file, path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill ``out``, a C-contiguous float array of the tensor's shape, converting from F64, F32, F16 or BF16.

        Raises ``CheckpointMismatch`` for a tensor that does not hold floating-point numbers or holds a
        NaN or an infinity.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _FLOATS:
            raise CheckpointMismatch(
                "weights must be floating-point numbers",
                path=self.path,
                field=name,
                found=tensor.dtype,
                expected=", ".join(_FLOATS),
            )
        flat = out.reshape(-1)
        stored = np.dtype(_NUMPY[tensor.dtype])
        self._file.seek(tensor.start)
        for first in range(0, len(flat), _CHUNK):
            part = flat[first : first + _CHUNK]
            if stored == part.dtype:
                self._fill(part, name)
            else:
                raw = np.empty(len(part), stored)
                self._fill(raw, name)
                part[...] = bfloat16_to_float32(raw) if tensor.dtype == "BF16" else raw
            self._check_finite(name, part, first)

    def view(self, name: str) -> np.ndarray:
        """The tensor as a float32 array: mapped from the file where the file holds aligned float32; else a copy.

        Raises as ``read_into`` does. Truncating the file while it is mapped ends the process.
        """
        tensor = self.tensors[name]
        if tensor.dtype != "F32" or sys.byteorder != "little" or tensor.start % 4 or tensor.start == tensor.stop:
            out = np.empty(tensor.shape, np.float32)
            self.read_into(name, out)
            return out
        if self._map is None:  # copy on write: a caller that writes to the array does not change the file
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        flat = np.frombuffer(self._map, np.float32, math.prod(tensor.shape), tensor.start)
        for first in range(0, len(flat), _CHUNK):
            self._check_finite(name, flat[first : first + _CHUNK], first)
        return flat.reshape(tensor.shape)

    def _check_finite(self, name, part, first):
        finite = np.isfinite(part)
        if not finite.all():
            worst = int(np.argmin(finite))
            where = ", ".join(str(int(i)) for i in np.unravel_index(first + worst, self.tensors[name].shape))
            raise CheckpointMismatch(
                "not a finite number", path=self.path, field=f"{name}[{where}]", found=float(part[worst])
            )

    def read_exactly(self, name: str, out: np.ndarray) -> None:
        """Fill ``out``, C-contiguous, of the tensor's shape and type (BF16 and U16: uint16)."""
        tensor = self.tensors[name]
        if _NUMPY.get(tensor.dtype) is None or np.dtype(_NUMPY[tensor.dtype]) != out.dtype:
            raise CheckpointMismatch(
                "another type", path=self.path, field=name, found=tensor.dtype, expected=str(out.dtype)
            )
        self._file.seek(tensor.start)
        self._fill(out.reshape(-1), name)

    def _fill(self, flat, name):
        got = self._file.readinto(memoryview(flat).cast("B")) if len(flat) else 0
        if got != flat.nbytes:  # the file was cut after its header had been checked
            raise CheckpointCorrupt("the file ends inside a tensor", path=self.path, field=name)


def open_weights(path):
    """The file of weights at ``path``, opened for reading bytes; ``ModelNotFound`` where there is none."""
    try:
        return open_regular(path, CheckpointCorrupt)
    except FileNotFoundError:
        raise ModelNotFound("there is no such file", path=path) from None


def float32_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """uint16 bits of the bfloat16 nearest to each float32, ties to even (finite values)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _read_header(file, path):
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise CheckpointCorrupt("no safetensors header", path=path, found=f"{size} bytes", expected="at least 8 bytes")
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
        limit = f"2 to {min(size - 8, _HEADER_LIMIT)} in a file of {size} bytes"
        raise CheckpointCorrupt("impossible header length", path=path, offset=0, found=length, expected=limit)
    header = _parse_header(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointCorrupt("not a mapping of strings", path=path, field="__metadata__")
    tensors = {name: _check_entry(name, entry, 8 + length, path) for name, entry in header.items()}
    _check_cover(tensors, 8 + length, size, path)
    return tensors, metadata


def _parse_header(raw, path):
    def no_duplicates(pairs):
        table, seen = dict(pairs), set()
        if len(table) < len(pairs):
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise CheckpointCorrupt("appears twice in the header", path=path, field=twice)
        return table

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"the header is not JSON ({error})", path=path, offset=8) from None
    if not isinstance(header, dict):
        raise CheckpointCorrupt("the header is not a JSON object", path=path, offset=8)
    return header


def _check_entry(name, entry, data_start, path):
    def bad(message, **details):
        return CheckpointCorrupt(message, path=path, field=name, **details)

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} == set(entry):
        raise bad("malformed header entry", expected="dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise bad("unknown dtype", found=dtype, expected=", ".join(_ITEM_BYTES))
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_is_size, shape)):
        raise bad("not a shape", found=shape)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise bad("not a pair of offsets", found=offsets)
    start, stop = offsets
    needed = math.prod(shape) * _ITEM_BYTES[dtype]
    if stop - start != needed:
        raise bad(f"data_offsets do not fit {dtype} {shape}", found=offsets, expected=f"a length of {needed} bytes")
    return Tensor(dtype, tuple(shape), data_start + start, data_start + stop)


def _is_size(value):
    return type(value) is int and 0 <= value < 1 << 63


def _check_cover(tensors, data_start, size, path):
    # The format asks for one tensor right behind another, from the header to the end of the file.
    end = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.start != end:
            fault = "overlaps the tensor before it" if tensor.start < end else "leaves a hole before it"
            raise CheckpointCorrupt(fault, path=path, field=name, found=tensor.start, expected=f"byte {end}")
        end = tensor.stop
    if end != size:
        fault = "the file is truncated" if end > size else "bytes after the last tensor"
        raise CheckpointCorrupt(fault, path=path, found=f"{size} bytes", expected=f"{end} bytes")
