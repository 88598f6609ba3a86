"""Attention for a few queries, as in writing a text token by token: each key and value is read once, where it lies.

Packing tiles pays when many queries share them. Here a query goes over all its keys, takes the softmax of their scores,
and goes over the values: the time is that of reading the cache. The sums are in another order than in
``attention_forward``, so the results differ from it in the last bits.
"""

import numpy as np

from ..dropout import row_hash
from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import add_lanes, broadcast, fma, lanes, load, load_tail, store, store_tail
from .forward import largest_score, weigh
from .score_tile import copy_rows, element_steps, first_seen

MOST_QUERIES = 4  # beyond, the tiles are faster


def scratch_size(n_keys, width, panel_columns):
    """Elements a worker needs: one query, and its scores."""
    return width + n_keys + 2 * panel_columns


@part
def _score_keys(s, k, index, step, n_keys, head_size, scores):
    """scores = the query at the beginning of s times each of ``n_keys`` keys."""
    for key in range(n_keys):
        total, here, j = broadcast(s, 0.0), index + key * step, 0
        while j + lanes(s) <= head_size:
            total = fma(load(s, j), load(k, here + j), total)
            j += lanes(s)
        if j < head_size:
            total = fma(load(s, j), load_tail(k, here + j, head_size - j), total)
        s[scores + key] = add_lanes(total)


@part
def _add_values(s, weights, v, index, step, n_keys, factor, out, to, head_size):
    """out = factor · Σ weight · value; two vectors of columns at a time, their sums in registers."""
    j = 0
    while j + 2 * lanes(s) <= head_size:
        first, second = broadcast(s, 0.0), broadcast(s, 0.0)
        for key in range(n_keys):
            weight, here = broadcast(s, s[weights + key]), index + key * step + j
            first, second = fma(weight, load(v, here), first), fma(weight, load(v, here + lanes(s)), second)
        store(out, to + j, first * factor)
        store(out, to + j + lanes(s), second * factor)
        j += 2 * lanes(s)
    while j < head_size:
        total = broadcast(s, 0.0)
        for key in range(n_keys):
            total = fma(broadcast(s, s[weights + key]), load_tail(v, index + key * step + j, head_size - j), total)
        store_tail(out, to + j, total * factor, head_size - j)
        j += lanes(s)


@part
def _decode_task(worker, task, q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges_of, width):
    (Tq, n_head, head_size), s, ranges, scores = q.shape[1:], scratch[worker], ranges_of[worker], width
    b, h = task // n_head, task % n_head
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h) = element_steps(q), element_steps(k), element_steps(v)
    for i in range(Tq):
        low, high, row = first_seen(first_key, b, i), k.shape[1] - Tq + i + 1, task * Tq + i
        start = low // lanes(s) * lanes(s)
        copy_rows(q, b * q_b + i * q_t + h * q_h, q_t, 1, head_size, s, 0, width, 1, width)
        _score_keys(s, k, b * k_b + start * k_t + h * k_h, k_t, high - start, head_size, scores)
        ranges[0, 0], ranges[0, 1] = 0, (high - start + lanes(s) - 1) // lanes(s) * lanes(s)
        m = largest_score(s, scores, 0, ranges[0, 1], low - start, high - start) * scale
        shift = m if m > -np.inf else s.dtype.type(0)
        hashed = row_hash(mask, row) if mask.threshold > 0 else np.uint32(0)
        total = weigh(s, scores, ranges, 0, scale, shift, mask, hashed, start)
        log_sums[row] = m + np.log2(total)
        _add_values(
            s,
            scores,
            v,
            b * v_b + start * v_t + h * v_h,
            v_t,
            high - start,
            s.dtype.type(1) / total,
            out,
            ((b * Tq + i) * n_head + h) * head_size,
            head_size,
        )


@launcher
def decode(n_tasks, q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges, width):
    parallel_for(_decode_task, n_tasks, (q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges, width))
