"""The op ``attention_forward`` for a few queries: each key and value is read once, without packing.

Packing tiles pays when many queries share them. Here a query reads all its keys, takes the softmax of their scores,
and reads the values: the time is that of reading the cache. The sums are in another order than in ``forward``, so
the results of the two differ in the last bits.

This is an op: a launch of its own, with the arguments of every attention (strides, first_key, dropout, either type).
``decoding.cached_attention`` does the same inside the launch that decodes a whole token, where there is one query, and
keys lie densely in the decoder's cache.
"""

import numpy as np

from ..dropout import Mask, row_hash
from ..runtime.decorators import part
from ..runtime.emitting import Rows
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import add_lanes, broadcast, fma, lanes, load, load_tail, store, store_tail
from .forward import largest_score, weigh
from .score_tile import IN_VECTORS, SCALE, WIDTH, Shared, copy_rows, first_seen, head_rows

MOST_QUERIES = 4  # beyond, the tiles are faster


def scratch_size(n_keys, width, panel):
    """Elements a worker needs: one query, and its scores."""
    return width + n_keys + 2 * panel


@part
def _score_keys(memory, keys, n_keys, head_size, scores):
    """scores = the query at the beginning of ``memory`` times each of ``n_keys`` keys, given as ``Rows``."""
    for key in range(n_keys):
        here = keys.first + key * keys.step
        total = broadcast(memory, 0.0)
        j = 0
        while j + lanes(memory) <= head_size:
            total = fma(load(memory, j), load(keys.array, here + j), total)
            j += lanes(memory)
        if j < head_size:
            total = fma(load(memory, j), load_tail(keys.array, here + j, head_size - j), total)
        memory[scores + key] = add_lanes(total)


@part
def _add_values(memory, weights, values, n_keys, factor, out, to, head_size):
    """out = factor · Σ weight · value; two vectors of columns at a time, their sums in registers."""
    j, width = 0, lanes(memory)
    while j + 2 * width <= head_size:
        first, second = broadcast(memory, 0.0), broadcast(memory, 0.0)
        for key in range(n_keys):
            weight = broadcast(memory, memory[weights + key])
            here = values.first + key * values.step + j
            first = fma(weight, load(values.array, here), first)
            second = fma(weight, load(values.array, here + width), second)
        store(out, to + j, first * factor)
        store(out, to + j + width, second * factor)
        j += 2 * width
    while j < head_size:
        total = broadcast(memory, 0.0)
        for key in range(n_keys):
            weight = broadcast(memory, memory[weights + key])
            total = fma(weight, load_tail(values.array, values.first + key * values.step + j, head_size - j), total)
        store_tail(out, to + j, total * factor, head_size - j)
        j += width


@part
def _head_task(worker, task, q, k, v, out, shared, scratch, ranges_of):
    """All queries of one head."""
    (Tq, n_head, head_size), width = q.shape[1:], shared.width
    memory, ranges, scores = scratch[worker], ranges_of[worker], shared.width
    b, h = task // n_head, task % n_head
    kv_head = h // (n_head // k.shape[2])
    for i in range(Tq):
        low, high = first_seen(shared.first_key, b, i), k.shape[1] - Tq + i + 1
        start = low // lanes(memory) * lanes(memory)
        n_keys = high - start
        copy_rows(head_rows(q, b, i, h), 1, head_size, Rows(memory, 0, width), 1, width)
        _score_keys(memory, head_rows(k, b, start, kv_head), n_keys, head_size, scores)
        end = (n_keys + lanes(memory) - 1) // lanes(memory) * lanes(memory)
        ranges[0, IN_VECTORS], ranges[0, IN_VECTORS + 1] = 0, end
        m = largest_score(memory, scores, 0, end, low - start, n_keys) * shared.scale
        shift = m if m > -np.inf else memory.dtype.type(0)
        row = task * Tq + i
        hashed = row_hash(shared.mask, row) if shared.mask.threshold > 0 else np.uint32(0)
        total = weigh(memory, memory, scores, ranges, 0, shared.scale, shift, shared.mask, hashed, start)
        shared.log_sums[row] = m + np.log2(total)
        to = ((b * Tq + i) * n_head + h) * head_size
        factor = memory.dtype.type(1) / total
        _add_values(memory, scores, head_rows(v, b, start, kv_head), n_keys, factor, out, to, head_size)


@launcher
def forward_few(n_tasks, q, k, v, out, scratch, ranges, *shared):
    """A task is a head. ``shared``: the fields of ``Shared``, with the fields of ``Mask`` instead of mask."""
    together = Shared(shared[0], shared[1], Mask(*shared[2:SCALE]), shared[SCALE], shared[WIDTH])
    parallel_for(_head_task, n_tasks, (q, k, v, out, together, scratch, ranges))
