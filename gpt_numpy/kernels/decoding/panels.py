"""Making panels of weight matrices, in parallel. For the layout, see ``panel_tile``.

The source is flat: element (k, n) lies at k · k_step + n · n_step, so that a matrix and its transpose, wherever they
are kept, are read where they lie.
"""

import numpy as np

from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import lanes, load_tail, read, store, write
from .panel_tile import BLOCK, BLOCK_BYTES, PANEL


@part
def round_to_bfloat16(value):
    """The uint16 of the bfloat16 nearest to a finite float32, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@part
def widen_bfloat16(half):
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


@part
def _clear(data, start, stop):
    for i in range(start, stop):
        write(data, i, data.dtype.type(0))


@part
def _pack_float32(worker, panel, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    start, first = offset + panel * panel_size, panel * PANEL
    columns = min(PANEL, n_columns - first)
    if n_step == 1:
        for k in range(K):
            for j in range(0, PANEL, lanes(source)):
                store(data, start + k * PANEL + j, load_tail(source, k * k_step + first + j, columns - j))
        return
    if columns < PANEL:
        _clear(data, start, start + panel_size)
    for block in range(0, K, BLOCK):  # so many k of a panel stay in the nearest cache
        for j in range(columns):
            for k in range(block, min(K, block + BLOCK)):
                write(data, start + k * PANEL + j, read(source, k * k_step + (first + j) * n_step))


@part
def _pack_bfloat16(worker, panel, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    start, first = offset + panel * panel_size, panel * PANEL
    _clear(data, start, start + panel_size)
    for block in range(0, K, BLOCK):
        for j in range(min(PANEL, n_columns - first)):
            for k in range(block, min(K, block + BLOCK)):
                value = read(source, k * k_step + (first + j) * n_step)
                write(data, start + k // 2 * 2 * PANEL + 2 * j + k % 2, round_to_bfloat16(value))


@part
def _pack_int8(worker, panel, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    start = offset + panel * panel_size
    _clear(data, start, start + panel_size)
    for block in range((K + BLOCK - 1) // BLOCK):
        first = start + block * BLOCK_BYTES
        count = min(BLOCK, K - block * BLOCK)
        for j in range(min(PANEL, n_columns - panel * PANEL)):
            column = block * BLOCK * k_step + (panel * PANEL + j) * n_step
            peak = np.float32(0)
            for i in range(count):
                peak = max(peak, abs(read(source, column + i * k_step)))
            half = round_to_bfloat16(peak / np.float32(127))
            scale = widen_bfloat16(half)
            write(data, first + BLOCK * PANEL + 2 * j, np.int8(half & np.uint16(0xFF)))
            write(data, first + BLOCK * PANEL + 2 * j + 1, np.int8(half >> np.uint16(8)))
            for i in range(count):
                q = np.rint(read(source, column + i * k_step) / scale) if scale > 0 else np.float32(0)
                # The rounded scale may be a little small for the largest weight: it gets the largest number.
                write(data, first + i // 2 * 2 * PANEL + 2 * j + i % 2, np.int8(min(max(q, -127), 127)))


@launcher
def pack_float32(n_panels, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    """Panels of ``source`` (K, n_columns) at ``offset`` of ``data``."""
    parallel_for(_pack_float32, n_panels, (source, K, k_step, n_step, n_columns, data, offset, panel_size))


@launcher
def pack_bfloat16(n_panels, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    parallel_for(_pack_bfloat16, n_panels, (source, K, k_step, n_step, n_columns, data, offset, panel_size))


@launcher
def pack_int8(n_panels, source, K, k_step, n_step, n_columns, data, offset, panel_size):
    parallel_for(_pack_int8, n_panels, (source, K, k_step, n_step, n_columns, data, offset, panel_size))
