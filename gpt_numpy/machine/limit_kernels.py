"""The limits of the machine, as kernels: reading memory, and multiplying what is in registers, in either precision."""

import numpy as np

from ..kernels.runtime.bfloat16 import multiply_words
from ..kernels.runtime.decorators import part
from ..kernels.runtime.threads import launcher, parallel_for
from ..kernels.runtime.vectors import add_lanes, bits, broadcast, fma, lanes, load


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


CHAINS = 12  # chains of multiply-adds: enough to keep the units of any CPU busy, few enough for the registers


@part
def _multiply_add(worker, task, sums, rounds):
    """Each chain runs towards 1/2 and stays there: x ← x · 1/2 + 1/4."""
    half, quarter = broadcast(sums, np.float32(0.5)), broadcast(sums, np.float32(0.25))
    a = broadcast(sums, np.float32(task))
    b, c, d, e, f, g, h, i, j, k, m = a, a, a, a, a, a, a, a, a, a, a
    for _ in range(rounds):
        a, b, c, d = fma(a, half, quarter), fma(b, half, quarter), fma(c, half, quarter), fma(d, half, quarter)
        e, f, g, h = fma(e, half, quarter), fma(f, half, quarter), fma(g, half, quarter), fma(h, half, quarter)
        i, j, k, m = fma(i, half, quarter), fma(j, half, quarter), fma(k, half, quarter), fma(m, half, quarter)
    sums[task * 16] = add_lanes(((a + b) + (c + d)) + ((e + f) + (g + h)) + ((i + j) + (k + m)))


@launcher
def multiply_add(n_threads, sums, rounds):
    """``rounds`` times CHAINS vectors of fused multiply-adds a thread: what no matrix product can exceed."""
    parallel_for(_multiply_add, n_threads, (sums, rounds))


@part
def _multiply_word_chains(worker, task, sums, rounds):
    """Each chain adds products of words."""
    zero = broadcast(sums, np.float32(0))
    x, y = bits(zero + np.float32(task), np.uint32), bits(zero, np.uint32)
    a = zero
    b, c, d, e, f, g, h, i, j, k, m = a, a, a, a, a, a, a, a, a, a, a
    for _ in range(rounds):
        a, b, c, d = multiply_words(a, x, y), multiply_words(b, x, y), multiply_words(c, x, y), multiply_words(d, x, y)
        e, f, g, h = multiply_words(e, x, y), multiply_words(f, x, y), multiply_words(g, x, y), multiply_words(h, x, y)
        i, j, k, m = multiply_words(i, x, y), multiply_words(j, x, y), multiply_words(k, x, y), multiply_words(m, x, y)
    sums[task * 16] = add_lanes(((a + b) + (c + d)) + ((e + f) + (g + h)) + ((i + j) + (k + m)))


@launcher
def multiply_word_chains(n_threads, sums, rounds):
    """As `multiply_add` with words of numbers in bfloat16 (``runtime.bfloat16``): two operations for each number."""
    parallel_for(_multiply_word_chains, n_threads, (sums, rounds))
