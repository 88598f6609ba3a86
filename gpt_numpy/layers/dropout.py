"""Dropout, with a mask that is a function of each element's position (see ``randomness``).

The mask is never stored: forward and backward both call ``keep_mask``. The hash is Chris Wellons's 32-bit
integer mixer "lowbias32" over a key, a row and a column; the kernels compute the same bits.
Its fast twin is ``kernels.dropout``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_axes
from ..randomness import Dropout


class DropoutCache(NamedTuple):
    dropout: Dropout


def mix32(x):
    """Scramble uint32 values, one to one."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def keep_mask(shape, dropout):
    """Mask of the elements that stay: bool of ``shape``, True with probability 1 − p.

    The array is treated as rows of its last axis. Axis 0 is the sequence in the batch, so the first row's
    number is ``dropout.first_sequence`` times the number of rows of one sequence.
    """
    n_rows = int(np.prod(shape[:-1], dtype=np.int64))
    rows_per_sequence = n_rows // max(shape[0], 1) if len(shape) > 1 else 1
    rows = np.arange(n_rows, dtype=np.uint64) + np.uint64(dropout.first_sequence * rows_per_sequence)
    low, high = np.uint32(dropout.key & 0xFFFFFFFF), np.uint32(dropout.key >> 32)
    row_hash = mix32(mix32(rows.astype(np.uint32) + low) ^ high)
    columns = np.arange(shape[-1], dtype=np.uint32) * np.uint32(0x9E3779B9)
    bits = mix32(row_hash[:, None] + columns)
    threshold = np.uint32(min(round(dropout.probability * 2**32), 2**32 - 1))
    return (bits >= threshold).reshape(shape)


def dropout_forward(x, dropout, alloc=np.empty):
    """out = x / (1 − p) where the mask is True, 0 elsewhere; its expectation is x.  x (B, ..., last axis)."""
    check_axes(1, x=x)
    out = alloc(x.shape, x.dtype)
    np.multiply(x, keep_mask(x.shape, dropout), out=out)
    out *= x.dtype.type(1 / (1 - dropout.probability))
    return out, DropoutCache(dropout)


def dropout_backward(dout, cache, alloc=np.empty):
    """dx = dout / (1 − p) where the mask is True, 0 elsewhere: the map is linear and diagonal, its own transpose."""
    return dropout_forward(dout, cache.dropout, alloc)[0]
