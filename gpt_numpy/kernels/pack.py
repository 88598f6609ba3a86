"""Making panels of weight matrices, in parallel. For the layout, see ``panel_tile``."""

import numpy as np

from .jit import part
from .panel_tile import BLOCK, BLOCK_BYTES, PANEL
from .threads import launcher, parallel_for


@part
def round_to_bfloat16(value):
    """The uint16 of the bfloat16 nearest to a finite float32, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@part
def widen_bfloat16(half):
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


@part
def _pack_float32(worker, panel, source, n_columns, data, offset, panel_size):
    place = offset + panel * panel_size
    for k in range(source.shape[0]):
        for j in range(PANEL):
            n = panel * PANEL + j
            data[place] = source[k, n] if n < n_columns else np.float32(0)
            place += 1


@part
def _pack_bfloat16(worker, panel, source, n_columns, data, offset, panel_size):
    start = offset + panel * panel_size
    for i in range(start, start + panel_size):
        data[i] = 0
    for k in range(source.shape[0]):
        for j in range(min(PANEL, n_columns - panel * PANEL)):
            place = start + (k // 2) * 2 * PANEL + 2 * j + k % 2
            data[place] = round_to_bfloat16(source[k, panel * PANEL + j])


@part
def _pack_int8(worker, panel, source, n_columns, data, offset, panel_size):
    start, K = offset + panel * panel_size, source.shape[0]
    for i in range(start, start + panel_size):
        data[i] = 0
    for block in range((K + BLOCK - 1) // BLOCK):
        place = start + block * BLOCK_BYTES
        last = min(K, block * BLOCK + BLOCK)
        for j in range(min(PANEL, n_columns - panel * PANEL)):
            n = panel * PANEL + j
            peak = np.float32(0)
            for k in range(block * BLOCK, last):
                peak = max(peak, abs(source[k, n]))
            half = round_to_bfloat16(peak / np.float32(127))
            scale = widen_bfloat16(half)
            data[place + BLOCK * PANEL + 2 * j] = np.int8(half & np.uint16(0xFF))
            data[place + BLOCK * PANEL + 2 * j + 1] = np.int8(half >> np.uint16(8))
            for k in range(block * BLOCK, last):
                q = np.rint(source[k, n] / scale) if scale > 0 else np.float32(0)
                i = k - block * BLOCK
                # The rounded scale may be a little small for the largest weight: it gets the largest number.
                data[place + (i // 2) * 2 * PANEL + 2 * j + i % 2] = np.int8(min(max(q, -127), 127))


@launcher
def pack_float32(n_panels, source, n_columns, data, offset, panel_size):
    """Panels of ``source`` (K, n_columns) at ``offset`` of ``data``."""
    parallel_for(_pack_float32, n_panels, (source, n_columns, data, offset, panel_size))


@launcher
def pack_bfloat16(n_panels, source, n_columns, data, offset, panel_size):
    parallel_for(_pack_bfloat16, n_panels, (source, n_columns, data, offset, panel_size))


@launcher
def pack_int8(n_panels, source, n_columns, data, offset, panel_size):
    parallel_for(_pack_int8, n_panels, (source, n_columns, data, offset, panel_size))
