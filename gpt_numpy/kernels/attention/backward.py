"""The gradient of attention, tile by tile: the weights are computed again from the scores and each row's log Σ exp.

A task owns one head: no two tasks write to the same dq, dk or dv. It takes the queries in groups that stay in the
second-level cache, and for each walks over the tiles of keys that the group sees. With P = exp(S − log Σ exp) and
P̃ = dropout(P), as ``layers.attention`` derives:

    dv += P̃ᵀ·dout,   dS = P ∘ (dropout(dout·vᵀ) − δ),   dk += dSᵀ·q,   dq += dS·k,

where δ = Σ_j dP_j P_j is, for each row, the same as Σ dout·out (Dao et al. 2022, section B.4), since out = P̃·v. The
sums of dq stay in cache for a group, those of dk and dv are kept for the whole head; scale is applied as they are
written out.
"""

import numpy as np

from ..dropout import keep_factors, row_hash
from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import add_lanes, broadcast, exp2_of_negative, fma, lanes, load, load_tail, store, store_tail
from .score_tile import (
    KEYS,
    QUERIES,
    ROWS,
    SCORES_STEP,
    add_weighted,
    add_weighted_turned,
    copy_rows,
    element_steps,
    fetch_rows,
    fill_zeros,
    first_seen,
    multiply_by_keys,
    pack_keys,
    pack_keys_turned,
    panel,
    strip_ranges,
)

_AHEAD = 24  # rows of the next tile's keys and values to ask for with each block of queries


def scratch_size(n_keys, group, width, panel_columns):
    """Elements a worker needs: dk and dv of all keys; q, dout, dq, δ of a group; three packed tiles, two of scores."""
    step = width + panel_columns
    return (2 * (n_keys + KEYS) + 3 * (group + KEYS)) * step + group + 2 * QUERIES * SCORES_STEP


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
def _differentiate_rows(
    s, scores, dscores, ranges, first_key, b, head_row, start, n_rows, offset, tile, scale, mask, log_sums, deltas
):
    """All rows of a block; what a row does not see of the tile becomes 0, as do rows that fill up the last strip."""
    for r in range((n_rows + ROWS - 1) // ROWS * ROWS):
        i, (low, high), row = start + r, (ranges[r // ROWS, 0], ranges[r // ROWS, 1]), r * SCORES_STEP
        seen_low = seen_high = 0
        if r < n_rows and low < high:
            seen_low = min(max(first_seen(first_key, b, i) - tile, low), high)
            seen_high = max(min(offset + i + 1 - tile, high), seen_low)
            hashed = row_hash(mask, head_row + i) if mask.threshold > 0 else np.uint32(0)
            _differentiate_row(
                s,
                scores + row,
                dscores + row,
                low,
                high,
                scale,
                log_sums[head_row + i],
                s[deltas + r],
                mask,
                hashed,
                tile,
            )
        if seen_low > 0 or seen_high < KEYS:
            for matrix in (scores, dscores):
                fill_zeros(s, matrix + row, matrix + row + seen_low)
                fill_zeros(s, matrix + row + seen_high, matrix + row + KEYS)


@part
def _row_products(s, douts, step, out, index, n_rows, deltas):
    """δ of each row: Σ dout·out. ``index`` is where the first row of out is."""
    n_head, head_size = out.shape[2:]
    for r in range(n_rows):
        here, row, total, j = index + r * n_head * head_size, douts + r * step, broadcast(s, 0.0), 0
        fetch_rows(out, here + 4 * n_head * head_size, n_head * head_size, 1, head_size)
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
def _add_tile(
    s,
    ranges,
    packed,
    k,
    v,
    k_index,
    v_index,
    n_keys,
    head_size,
    width,
    queries,
    douts,
    dqueries,
    deltas,
    rows,
    dkeys,
    dvalues,
    scores,
    first_key,
    b,
    head_row,
    start,
    offset,
    tile,
    scale,
    mask,
    log_sums,
):
    """One tile of keys against a group of ``rows`` queries: adds to the group's dq and the tile's dk and dv."""
    step, is_packed, ahead = width + panel(s), False, KEYS
    plain_keys, turned_values = packed + KEYS * width, packed + 2 * KEYS * width
    dscores = scores + QUERIES * SCORES_STEP
    for r in range(max(0, tile - offset - start) // ROWS * ROWS, rows, QUERIES):
        n_rows = min(QUERIES, rows - r)
        if not strip_ranges(ranges, first_key, b, start + r, n_rows, offset, tile, panel(s)):
            continue
        if not is_packed:
            pack_keys_turned(k, k_index, element_steps(k)[1], n_keys, head_size, s, packed, width)
            pack_keys(k, k_index, element_steps(k)[1], n_keys, head_size, s, plain_keys)
            pack_keys_turned(v, v_index, element_steps(v)[1], n_keys, head_size, s, turned_values, width)
            is_packed = True
        fetch_rows(k, k_index + ahead * element_steps(k)[1], element_steps(k)[1], _AHEAD, head_size)
        fetch_rows(v, v_index + ahead * element_steps(v)[1], element_steps(v)[1], _AHEAD, head_size)
        ahead += _AHEAD
        strips, q_rows, dout_rows = (n_rows + ROWS - 1) // ROWS, queries + r * step, douts + r * step
        multiply_by_keys(ranges, strips, s, q_rows, step, packed, width, scores)
        multiply_by_keys(ranges, strips, s, dout_rows, step, turned_values, width, dscores)
        _differentiate_rows(
            s,
            scores,
            dscores,
            ranges,
            first_key,
            b,
            head_row,
            start + r,
            n_rows,
            offset,
            tile,
            scale,
            mask,
            log_sums,
            deltas + r,
        )
        add_weighted_turned(ranges, strips, s, scores, dout_rows, n_keys, width, dvalues, step)
        add_weighted_turned(ranges, strips, s, dscores, q_rows, n_keys, width, dkeys, step)
        add_weighted(ranges, strips, s, dscores, plain_keys, width, dqueries + r * step, step)


@part
def _backward_task(
    worker, task, q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges_of, width, group
):
    (Tq, n_head, head_size), Tk, step, one = q.shape[1:], k.shape[1], width + panel(q), q.dtype.type(1)
    b, h, offset, head_row = task // n_head, task % n_head, Tk - Tq, task * Tq
    s, ranges = scratch[worker], ranges_of[worker]
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h) = element_steps(q), element_steps(k), element_steps(v)
    (dq_b, dq_t, dq_h), (dk_b, dk_t, dk_h), (dv_b, dv_t, dv_h) = element_steps(dq), element_steps(dk), element_steps(dv)
    packed, scores = 0, 3 * KEYS * step
    queries = scores + 2 * QUERIES * SCORES_STEP
    douts, dqueries, dkeys = queries + group * step, queries + 2 * group * step, queries + 3 * group * step
    dvalues = dkeys + (Tk + KEYS) * step
    deltas = dvalues + (Tk + KEYS) * step
    fill_zeros(s, dkeys, deltas)
    base2 = scale * q.dtype.type(1.4426950408889634)  # log₂ e
    for start in range(0, Tq, group):
        rows, low = min(group, Tq - start), offset + start
        padded, here = (rows + ROWS - 1) // ROWS * ROWS, ((b * Tq + start) * n_head + h) * head_size
        copy_rows(q, b * q_b + start * q_t + h * q_h, q_t, rows, head_size, s, queries, step, padded, width)
        copy_rows(dout, here, n_head * head_size, rows, head_size, s, douts, step, padded, width)
        _row_products(s, douts, step, out, here, rows, deltas)
        fill_zeros(s, dqueries, dqueries + padded * step)
        for r in range(rows):
            low = min(low, first_seen(first_key, b, start + r))
        for tile in range(low // KEYS * KEYS, offset + start + rows, KEYS):
            _add_tile(
                s,
                ranges,
                packed,
                k,
                v,
                b * k_b + tile * k_t + h * k_h,
                b * v_b + tile * v_t + h * v_h,
                min(KEYS, Tk - tile),
                head_size,
                width,
                queries,
                douts,
                dqueries,
                deltas,
                rows,
                dkeys + tile * step,
                dvalues + tile * step,
                scores,
                first_key,
                b,
                head_row,
                start,
                offset,
                tile,
                base2,
                mask,
                log_sums,
            )
        _write_rows(s, dqueries, step, rows, scale, dq, b * dq_b + start * dq_t + h * dq_h, dq_t)
    _write_rows(s, dkeys, step, Tk, scale, dk, b * dk_b + h * dk_h, dk_t)
    _write_rows(s, dvalues, step, Tk, one, dv, b * dv_b + h * dv_h, dv_t)


@launcher
def backward(n_tasks, q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges, width, group):
    parallel_for(
        _backward_task,
        n_tasks,
        (q, k, v, first_key, out, log_sums, dout, dq, dk, dv, mask, scale, scratch, ranges, width, group),
    )
