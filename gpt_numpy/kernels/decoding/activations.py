"""The other operands of a panel's product: prepared rows of activations, and rows of sums that begin with biases."""

import numpy as np
from numba import types
from numba.extending import overload

from ..runtime.bfloat16 import store_row
from ..runtime.decorators import part
from ..runtime.vectors import (
    absolute,
    add_lanes,
    broadcast,
    convert,
    lanes,
    load_tail,
    max_lanes,
    maximum,
    store,
    store_tail,
    where,
)
from .panel_tile import BLOCK, NIBBLE_BLOCK, SCALES


def prepare(source, activations, scales):
    """Put a row of activations into the form that the weights' format is multiplied by, padded with zeros."""


@overload(prepare)
def _prepare(source, activations, scales):
    if activations.dtype is types.uint32:
        return _round_row
    return _quantise_row if activations.dtype.bitwidth == 16 else _copy_row


def _round_row(source, activations, scales):
    width, n = lanes(source), len(source)
    for i in range(0, n, width):
        store_row(activations, 0, i, load_tail(source, i, n - i))


def _copy_row(source, activations, scales):
    copy_numbers(source, 0, activations, 0, len(source))
    if len(source) % 2:
        activations[len(source)] = 0


@part
def copy_numbers(source, start, target, to, count):
    """target[to …] = ``count`` consecutive numbers source[start …]; indices count from each array's first element."""
    for i in range(0, count, lanes(source)):
        store_tail(target, to + i, load_tail(source, start + i, count - i), count - i)


def _quantise_row(source, activations, scales):
    width, n = lanes(source), len(source)
    for block in range((n + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        largest = broadcast(source, np.float32(0))
        for i in range(first, first + BLOCK, width):
            largest = maximum(absolute(load_tail(source, i, n - i)), largest)
        peak = max_lanes(largest)
        factor = np.float32(32767) / peak if peak > 0 else np.float32(0)
        scale = peak / np.float32(32767)
        scales[block * SCALES] = scale
        for half in range(BLOCK // NIBBLE_BLOCK):
            start = first + half * NIBBLE_BLOCK
            total = convert(broadcast(source, np.float32(0)), np.int32)
            for i in range(start, start + NIBBLE_BLOCK, width):
                scaled = load_tail(source, i, n - i) * factor
                # Conversion to integers rounds towards zero.
                nearest = scaled + where(scaled < 0, broadcast(source, np.float32(-0.5)), np.float32(0.5))
                number = convert(nearest, np.int32)
                total = total + number
                store(activations, i, convert(number, np.int16))
            scales[block * SCALES + 1 + half] = np.float32(add_lanes(total)) * scale


@part
def begin_sums(sums, first, step, rows, columns, vectors, bias, count):
    """Every row's sums begin with ``count`` biases, zeros in the rest of the columns; rows are ``step`` apart."""
    for row in range(rows):
        at = first + row * step
        if count < columns:
            for j in range(0, columns, lanes(sums)):
                store(sums, at + j, broadcast(sums, np.float32(0)))
        copy_numbers(vectors, bias, sums, at, count)
