"""The gradient of attention, tile by tile: the weights are computed again from the scores and each row's log Σ exp.

A task owns one head: no two tasks write to the same dq, dk or dv. It walks over tiles of keys, and for each over the
blocks of queries that see it. With P = exp(S − log Σ exp) and P̃ = dropout(P), as ``layers.attention`` derives:

    dv += P̃ᵀ·dout,   dS = P ∘ (dropout(dout·vᵀ) − δ),   dk += dSᵀ·q,   dq += dS·k,

where δ = Σ_j dP_j P_j is, for each row, the same as Σ dout·out (Dao et al. 2022, section B.4), since out = P̃·v. The sums of
dk and dv stay in cache for a tile, those of dq for the task; scale is applied as they are written out.
"""

import numpy as np

from .attention_tile import (
    KEYS, QUERIES, ROWS, SCORES_STEP, add_weighted, add_weighted_turned, copy_rows, element_steps, first_seen,
    multiply_by_keys, pack_keys, pack_keys_turned, panel, strip_ranges,
)  # fmt: skip
from .dropout import keep_factors, row_hash
from .jit import part
from .simd import add_lanes, broadcast, exp2_of_negative, fma, lanes, load, load_tail, store, store_tail
from .threads import launcher, parallel_for


def scratch_size(n_rows, width, panel_columns):
    """Elements a worker needs: q, dout and dq of all rows, five tiles of keys and values, two of scores."""
    step = width + panel_columns
    return (n_rows + ROWS) * (3 * step + 1) + 5 * KEYS * step + 2 * QUERIES * SCORES_STEP


@part
def _fill_zeros(s, start, end):
    i = start
    while i + lanes(s) <= end:
        store(s, i, broadcast(s, 0.0))
        i += lanes(s)
    store_tail(s, i, broadcast(s, 0.0), end - i)


@part
def _differentiate_row(s, row, drow, low, high, scale, log_sum, delta, mask, hashed, column):
    """Scores become weights (after dropout), and the weights' gradients become those of the scores."""
    factor, offset = broadcast(s, scale), broadcast(s, -log_sum)
    for j in range(low, high, lanes(s)):
        weight, dweight = exp2_of_negative(fma(load(s, row + j), factor, offset)), load(s, drow + j)
        if mask.threshold > 0:
            keep = keep_factors(s, mask, hashed, column + j)
            store(s, row + j, weight * keep)
            dweight = dweight * keep
        else:
            store(s, row + j, weight)
        store(s, drow + j, weight * (dweight - delta))


@part
def _differentiate_rows(s, scores, dscores, ranges, first_key, b, head_row, start, n_rows, offset, tile, scale, mask,
                        log_sums, deltas):
    """All rows of a block; what a row does not see of the tile becomes 0, as do the rows that fill up the last strip."""
    for r in range((n_rows + ROWS - 1) // ROWS * ROWS):
        i, (low, high), row = start + r, (ranges[r // ROWS, 0], ranges[r // ROWS, 1]), r * SCORES_STEP
        seen_low = seen_high = 0
        if r < n_rows and low < high:
            seen_low = min(max(first_seen(first_key, b, i) - tile, low), high)
            seen_high = max(min(offset + i + 1 - tile, high), seen_low)
            hashed = row_hash(mask, head_row + i) if mask.threshold > 0 else np.uint32(0)
            _differentiate_row(s, scores + row, dscores + row, low, high, scale, log_sums[head_row + i], s[deltas + r],
                               mask, hashed, tile)
        for matrix in (scores, dscores):
            _fill_zeros(s, matrix + row, matrix + row + seen_low)
            _fill_zeros(s, matrix + row + seen_high, matrix + row + KEYS)


@part
def _row_products(s, douts, step, out, b, h, n_rows, deltas):
    """δ of each row: Σ dout·out."""
    head_size = out.shape[3]
    for r in range(n_rows):
        here, row, total, j = ((b * out.shape[1] + r) * out.shape[2] + h) * head_size, douts + r * step, 0, 0
        total = broadcast(s, 0.0)
        while j + lanes(s) <= head_size:
            total = fma(load(s, row + j), load(out, here + j), total)
            j += lanes(s)
        s[deltas + r] = add_lanes(fma(load(s, row + j), load_tail(out, here + j, head_size - j), total))


@part
def _write_rows(s, sums, step, n_rows, scale, out, index, out_step):
    """out = scale · sums, row by row of ``out``'s last axis."""
    head_size = out.shape[3]
    for r in range(n_rows):
        row, to, j = sums + r * step, index + r * out_step, 0
        while j + lanes(s) <= head_size:
            store(out, to + j, load(s, row + j) * scale)
            j += lanes(s)
        store_tail(out, to + j, load_tail(s, row + j, head_size - j) * scale, head_size - j)


@part
def _backward_task(worker, task, q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges_of,
                   width):
    (B, Tq, n_head, head_size), Tk, step, one = q.shape, k.shape[1], width + panel(q), q.dtype.type(1)
    b, h, offset, padded = task // n_head, task % n_head, Tk - Tq, (Tq + ROWS - 1) // ROWS * ROWS
    s, ranges, head_row = scratch[worker], ranges_of[worker], task * Tq
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h) = element_steps(q), element_steps(k), element_steps(v)
    (dq_b, dq_t, dq_h), (dk_b, dk_t, dk_h), (dv_b, dv_t, dv_h) = element_steps(dq), element_steps(dk), element_steps(dv)
    turned_keys, plain_keys, turned_values, dkeys, dvalues = 0, KEYS * step, 2 * KEYS * step, 3 * KEYS * step, \
        4 * KEYS * step
    scores, dscores = 5 * KEYS * step, 5 * KEYS * step + QUERIES * SCORES_STEP
    queries = dscores + QUERIES * SCORES_STEP
    douts, dqueries, deltas = queries + padded * step, queries + 2 * padded * step, queries + 3 * padded * step
    copy_rows(q, b * q_b + h * q_h, q_t, Tq, head_size, s, queries, step, padded, width)
    dout_step = n_head * head_size
    copy_rows(dout, b * Tq * dout_step + h * head_size, dout_step, Tq, head_size, s, douts, step, padded, width)
    _row_products(s, douts, step, out, b, h, Tq, deltas)
    s[dqueries:dqueries + padded * step] = 0
    base2 = scale * q.dtype.type(1.4426950408889634)  # log₂ e
    for tile in range(0, Tk, KEYS):
        n_keys, packed = min(KEYS, Tk - tile), False
        s[dkeys:dkeys + 2 * KEYS * step] = 0
        for r in range(max(0, tile - offset) // ROWS * ROWS, Tq, QUERIES):
            rows = min(QUERIES, Tq - r)
            if strip_ranges(ranges, first_key, b, r, rows, offset, tile, panel(q)):
                if not packed:
                    k_here, v_here, packed = b * k_b + tile * k_t + h * k_h, b * v_b + tile * v_t + h * v_h, True
                    pack_keys_turned(k, k_here, k_t, n_keys, head_size, s, turned_keys, width)
                    pack_keys(k, k_here, k_t, n_keys, head_size, s, plain_keys)
                    pack_keys_turned(v, v_here, v_t, n_keys, head_size, s, turned_values, width)
                strips, q_rows, dout_rows = (rows + ROWS - 1) // ROWS, queries + r * step, douts + r * step
                multiply_by_keys(ranges, strips, s, q_rows, step, turned_keys, width, scores)
                multiply_by_keys(ranges, strips, s, dout_rows, step, turned_values, width, dscores)
                _differentiate_rows(s, scores, dscores, ranges, first_key, b, head_row, r, rows, offset, tile, base2,
                                    mask, log_sums, deltas + r)
                add_weighted_turned(ranges, strips, s, scores, dout_rows, n_keys, width, dvalues, step)
                add_weighted_turned(ranges, strips, s, dscores, q_rows, n_keys, width, dkeys, step)
                add_weighted(ranges, strips, s, dscores, plain_keys, width, dqueries + r * step, step)
        _write_rows(s, dkeys, step, n_keys, scale, dk, b * dk_b + tile * dk_t + h * dk_h, dk_t)
        _write_rows(s, dvalues, step, n_keys, one, dv, b * dv_b + tile * dv_t + h * dv_h, dv_t)
    _write_rows(s, dqueries, step, Tq, scale, dq, b * dq_b + h * dq_h, dq_t)


@launcher
def backward(n_tasks, q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges, width):
    parallel_for(_backward_task, n_tasks, (
        q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges, width,
    ))  # fmt: skip
