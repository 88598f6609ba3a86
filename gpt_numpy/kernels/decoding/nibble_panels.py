"""Making int4 panels: 4 bits a weight, and 16 bits for the step and the zero of every ``NIBBLE_BLOCK`` inputs of a column.

A weight of a block is step · (q − zero), with q and zero whole numbers in 0 … 15. The step is a float32 cut to 12 bits.
Step and zero of a block are those with the least error Σ importance · (weight − its rounded value)²: of all steps from
the one that covers the block's range down to about two thirds of it (a step that clips the largest weights a little is
often better for all others), with the zero of the range and its two neighbours. For the layout, see ``panel_tile``;
``inference.packed`` unpacks it.
"""

import numpy as np

from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import (
    bits,
    broadcast,
    convert,
    fma,
    lanes,
    load,
    load_tail,
    maximum,
    minimum,
    read,
    store,
    where,
)
from .panel_tile import NIBBLE_BLOCK, NIBBLE_BYTES, PANEL

STEPS = 10  # that are tried for each zero
_TOGETHER = 8  # numbers in a word
_STEP_SHIFT = 19  # the lowest bit of a float32 that a step has


@part
def _number(weight, inverse, zero):
    """q of a vector of weights, as float32. Conversion to integers rounds towards zero, and nothing is below it."""
    position = minimum(maximum(fma(weight, inverse, zero), zero * 0), zero * 0 + np.float32(15))
    return convert(convert(position + np.float32(0.5), np.int32), np.float32)


@part
def _error(block, importance, first, count, step, zero):
    """Σ importance · (weight − step · (q − zero))² of ``count`` rows of ``block``."""
    inverse = where(step > 0, broadcast(block, np.float32(1)) / step, np.float32(0))
    total = broadcast(block, np.float32(0))
    for i in range(count):
        weight = load(block, i * lanes(block))
        off = weight - (_number(weight, inverse, zero) - zero) * step
        total = fma(off * off, broadcast(block, read(importance, first + i)), total)
    return total


@part
def _choose(block, importance, first, count):
    """(step, zero) of the columns of ``block``: ``count`` rows of a vector each, rows ``first`` … of the matrix."""
    low = broadcast(block, np.float32(0))
    high = broadcast(block, np.float32(0))
    for i in range(count):
        weight = load(block, i * lanes(block))
        low, high = minimum(weight, low), maximum(weight, high)
    widest = (high - low) * np.float32(1 / 15)
    middle = where(widest > 0, (low * 0 - low) / widest, np.float32(0))
    covering = (bits(widest, np.uint32) >> np.uint32(_STEP_SHIFT)) + np.uint32(1)
    best_step, best_zero = widest * 0, widest * 0
    best = broadcast(block, np.float32(np.inf))
    for shift in range(-1, 2):
        zero = convert(convert(middle + np.float32(0.5), np.int32), np.float32) + np.float32(shift)
        zero = minimum(maximum(zero, zero * 0), zero * 0 + np.float32(15))
        for below in range(STEPS):
            code = where(covering > np.uint32(below), covering - np.uint32(below), np.uint32(0))
            step = where(widest > 0, bits(code << np.uint32(_STEP_SHIFT), np.float32), np.float32(0))
            error = _error(block, importance, first, count, step, zero)
            better = error < best
            best = where(better, error, best)
            best_step, best_zero = where(better, step, best_step), where(better, zero, best_zero)
    return best_step, best_zero


@part
def _write(block, count, step, zero, words, halves, word, half):
    """The numbers q of a block of columns, eight in a word, and its steps and zeros."""
    inverse = where(step > 0, broadcast(block, np.float32(1)) / step, np.float32(0))
    for group in range(NIBBLE_BLOCK // _TOGETHER):
        packed = bits(step, np.uint32) * np.uint32(0)
        for k in range(_TOGETHER):
            i = group * _TOGETHER + k
            number = (
                convert(_number(load(block, i * lanes(block)), inverse, zero), np.uint32) if i < count else packed * 0
            )
            packed = packed | number << np.uint32(4 * (k // 2 + k % 2 * 4))
        store(words, word + group * PANEL, packed)
    said = bits(step, np.uint32) >> np.uint32(15) | convert(zero, np.uint32)
    store(halves, half, convert(said, np.uint16))


@part
def _pack_panel(worker, panel, source, importance, N, words, halves, offset, panel_size, scratch):
    block, K = scratch[worker], len(importance)
    for b in range(panel_size // NIBBLE_BYTES):
        first = b * NIBBLE_BLOCK
        count = min(NIBBLE_BLOCK, max(K - first, 0))
        start = offset + panel * panel_size + b * NIBBLE_BYTES
        for j in range(0, PANEL, lanes(block)):
            column = panel * PANEL + j
            for i in range(count):
                store(block, i * lanes(block), load_tail(source, (first + i) * N + column, max(N - column, 0)))
            step, zero = _choose(block, importance, first, count)
            word, half = start // 4 + j, (start + NIBBLE_BLOCK * PANEL // 2) // 2 + j
            _write(block, count, step, zero, words, halves, word, half)


@launcher
def pack_int4(n_panels, source, importance, N, words, halves, offset, panel_size, scratch):
    """Panels of ``source`` (K, N), flat, from byte ``offset`` on of the memory of ``words`` and ``halves``, which is one.

    importance (K,): the weight of each input's errors. scratch (threads, NIBBLE_BLOCK · PANEL) float32.
    """
    parallel_for(_pack_panel, n_panels, (source, importance, N, words, halves, offset, panel_size, scratch))
