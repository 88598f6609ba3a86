"""Dropout by the counter hash of ``layers.dropout``, bit for bit: eight elements' hashes at a time.

Nothing is stored between forward and backward; attention uses the same functions for its weights.
"""

from typing import NamedTuple

import numpy as np

from ..errors import KernelError
from ..randomness import Dropout
from .runtime.checks import flat, one_dtype
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import broadcast, lane_index, lanes, load, load_tail, store, store_tail, where

_GOLDEN = 0x9E3779B9
_ROWS = 16  # rows a task


class DropoutCache(NamedTuple):
    dropout: Dropout


class Mask(NamedTuple):
    """A ``Dropout`` in the kernels' form; ``first_row`` is the number of the array's first row in the global batch."""

    threshold: np.uint32  # keep where the hash is not below
    scale: np.floating  # 1 / (1 − p)
    key_low: np.uint32
    key_high: np.uint32
    first_row: np.int64


def mask_of(dropout, rows_per_sequence, dtype):
    """The Mask of ``dropout`` for an array of ``rows_per_sequence`` rows a sequence."""
    if not 0 <= dropout.probability < 1:
        raise KernelError(
            "a dropout probability is out of range",
            field="dropout.probability",
            found=dropout.probability,
            expected="0 <= p < 1",
        )
    threshold = min(round(dropout.probability * 2**32), 2**32 - 1)
    scale = dtype.type(1 / (1 - dropout.probability))
    return Mask(
        np.uint32(threshold),
        scale,
        np.uint32(dropout.key & 0xFFFFFFFF),
        np.uint32(dropout.key >> 32),
        np.int64(dropout.first_sequence * rows_per_sequence),
    )


@part
def _mix32(x):
    # numba widens uint32 arithmetic to 64 bits; casting back is what wraps it around.
    x = np.uint32(x ^ (x >> 16))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> 15))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> 16))


@part
def row_hash(mask, row):
    """The hash of row ``row`` of the array at hand."""
    return _mix32(np.uint32(_mix32(np.uint32(np.uint32(mask.first_row + row) + mask.key_low)) ^ mask.key_high))


@part
def keep_factors(like, mask, hashed_row, column):
    """For the columns from ``column`` on, a vector of 1 / (1 − p) where the element stays and 0 where it does not."""
    start = np.uint32(hashed_row + np.uint32(column) * np.uint32(_GOLDEN))
    x = lane_index(like, np.uint32) * _GOLDEN + start
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    x = x ^ (x >> 16)
    return where(x >= mask.threshold, broadcast(like, mask.scale), 0.0)


@part
def _drop_rows(worker, task, x, out, n_rows, mask):
    columns = x.size // n_rows
    for row in range(task * _ROWS, min(n_rows, (task + 1) * _ROWS)):
        hashed, base, j = row_hash(mask, row), row * columns, 0
        while j + lanes(x) <= columns:
            store(out, base + j, load(x, base + j) * keep_factors(x, mask, hashed, j))
            j += lanes(x)
        if j < columns:
            n = columns - j
            store_tail(out, base + j, load_tail(x, base + j, n) * keep_factors(x, mask, hashed, j), n)


@launcher
def _drop(n_tasks, x, out, n_rows, mask):
    parallel_for(_drop_rows, n_tasks, (x, out, n_rows, mask))


def rows_of(shape):
    """Number of rows (last axis) in all and in one sequence (axis 0), as ``layers.dropout`` counts them."""
    n_rows = int(np.prod(shape[:-1], dtype=np.int64))
    return n_rows, n_rows // max(shape[0], 1) if len(shape) > 1 else 1


def dropout_forward(x, dropout, alloc=np.empty):
    """out = x / (1 − p) where the mask keeps, 0 elsewhere.  x (B, ..., last axis)."""
    dtype = one_dtype(1, x=x)
    n_rows, rows_per_sequence = rows_of(x.shape)
    mask = mask_of(dropout, rows_per_sequence, dtype)
    out = alloc(x.shape, dtype)
    if x.size:
        _drop(-(-n_rows // _ROWS), flat(x), out.reshape(-1), n_rows, mask)
    return out, DropoutCache(dropout)


def dropout_backward(dout, cache, alloc=np.empty):
    """dx = dout / (1 − p) where the mask kept, 0 elsewhere."""
    return dropout_forward(dout, cache.dropout, alloc)[0]
