"""The two limits of the machine, as kernels: reading memory, and multiplying what is in the nearest cache."""

import numpy as np

from .jit import part
from .panel_tile import PANEL, TILE_ROWS, panel_tile
from .simd import add_lanes, broadcast, lanes, load
from .threads import launcher, parallel_for


@part
def _read(worker, task, data, sums):
    """Add up one thread's share of the array, in eight independent sums."""
    width, share = lanes(data), len(data) // (len(sums) // 16)
    i, stop = task * share, (task + 1) * share
    a = broadcast(data, np.float32(0))
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    while i + 8 * width <= stop:
        a += load(data, i)
        b += load(data, i + width)
        c += load(data, i + 2 * width)
        d += load(data, i + 3 * width)
        e += load(data, i + 4 * width)
        f += load(data, i + 5 * width)
        g += load(data, i + 6 * width)
        h += load(data, i + 7 * width)
        i += 8 * width
    sums[task * 16] = add_lanes(((a + b) + (c + d)) + ((e + f) + (g + h)))


@launcher
def read_all(n_threads, data, sums):
    """Read ``data`` once, in equal parts; sums (16 a thread) keeps the work from being optimised away."""
    parallel_for(_read, n_threads, (data, sums))


@part
def _multiply(worker, task, weights, x, out, rounds):
    depth = x.shape[2]
    for _ in range(rounds):
        panel_tile(
            TILE_ROWS, weights, task * depth * PANEL, x, task * TILE_ROWS * depth, depth, x, 0, 0, depth,
            out, task * TILE_ROWS * PANEL, PANEL,
        )  # fmt: skip


@launcher
def multiply_cached(n_threads, weights, x, out, rounds):
    """``rounds`` tiles a thread, each TILE_ROWS × depth × PANEL: the fastest that a matrix product could be."""
    parallel_for(_multiply, n_threads, (weights, x, out, rounds))
