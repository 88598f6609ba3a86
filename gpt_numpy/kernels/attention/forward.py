"""Causal attention, tile by tile: no (T, T) array exists, and no tile that no query sees is computed.

A task takes one head's block of queries, and walks over the keys a tile at a time (Dao et al. 2022,
"FlashAttention"; Milakov and Gimelshein 2018 for the running softmax). For each row it keeps the largest score so
far m, the sum of exponentials l, and the weighted sum of values o; a tile with a larger score rescales the rest:

    m' = max(m, max s),   l' = l·e^(m − m') + Σ e^(s − m'),   o' = o·e^(m − m') + Σ e^(s − m')·v.

At the end out = o / l, and log Σ exp = m + log l is what the backward needs of the softmax. (The code takes all powers
and logarithms to base 2, with the scores scaled to it: that is one multiplication less for each.) Which keys a row sees
is a range, so masks are loop bounds: what lies outside a strip's range (a strip is the rows of one product) is
never computed, above the diagonal as before a document's start.

Key tiles begin at multiples of KEYS, so that a row's sums do not depend on how queries are cut into tasks.
"""

import numpy as np

from ..dropout import keep_factors, row_hash
from ..runtime.decorators import part
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import (
    add_lanes,
    broadcast,
    exp2_of_negative,
    fma,
    lane_index,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    store,
    store_tail,
    where,
)
from .score_tile import (
    KEYS,
    QUERIES,
    ROWS,
    SCORES_STEP,
    add_weighted,
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

_AHEAD = 16  # rows of the next tile's keys and values to ask for with each block of queries
_SLACK = 8  # powers of two by which a score may exceed m: exponentials and their sums are far from overflow


def scratch_size(task_rows, width, panel_columns):
    """Elements a worker needs: queries, sums and state of a task's rows, a tile of keys, of values and of scores."""
    return task_rows * (2 * (width + panel_columns) + 2) + 2 * KEYS * (width + panel_columns) + QUERIES * SCORES_STEP


@part
def largest_score(s, row, low, high, seen_low, seen_high):
    """The largest score in [low, high) of a row; what lies outside [seen_low, seen_high) becomes −∞."""
    largest = broadcast(s, -np.inf)
    if seen_low <= low and high <= seen_high:
        for j in range(low, high, lanes(s)):
            largest = maximum(load(s, row + j), largest)
        return max_lanes(largest)
    for j in range(low, high, lanes(s)):
        score = load(s, row + j)
        if j < seen_low or j + lanes(s) > seen_high:
            column = lane_index(s, np.int32) + j
            score = where((column >= seen_low) & (column < seen_high), score, -np.inf)
            store(s, row + j, score)
        largest = maximum(score, largest)
    return max_lanes(largest)


@part
def weigh(s, row, ranges, strip, scale, shift, mask, hashed, column):
    """Turn a row of scores into weights relative to ``shift``; returns their sum, which dropout does not change.

    The loop's end is read from memory each time round: LLVM would unroll it if it knew how often it runs, and then
    spend a third of the time on moving what no longer fits the registers.
    """
    factor, offset, total = broadcast(s, scale), broadcast(s, -shift), broadcast(s, 0.0)
    j = ranges[strip, 0]
    while j < ranges[strip, 1]:
        weight = exp2_of_negative(fma(load(s, row + j), factor, offset))
        total += weight
        if mask.threshold > 0:
            weight = weight * keep_factors(s, mask, hashed, column + j)
        store(s, row + j, weight)
        j += lanes(s)
    return add_lanes(total)


@part
def _find_maxima(s, scores, ranges, first_key, b, start, n_rows, offset, tile, scale, sums, step, width, state):
    """Each row's running maximum m with this tile; its l and o (state: m, l of each row) are rescaled to it."""
    for r in range(n_rows):
        i, low, high = start + r, ranges[r // ROWS, 0], ranges[r // ROWS, 1]
        seen_low, seen_high = first_seen(first_key, b, i) - tile, offset + i + 1 - tile
        before, place = s[state + 2 * r], sums + r * step
        m = max(before, largest_score(s, scores + r * SCORES_STEP, low, high, seen_low, seen_high) * scale)
        if m <= before + _SLACK:
            continue
        s[state + 2 * r] = m
        if before > -np.inf:
            shrink = np.exp2(before - m)
            for j in range(place, place + width, lanes(s)):
                store(s, j, load(s, j) * shrink)
            s[state + 2 * r + 1] *= shrink


@part
def _soften_rows(s, scores, ranges, head_row, start, n_rows, tile, scale, mask, state):
    """Scores become weights relative to each row's m, and are added to its l.

    A loop of its own, so that the processor need not wait for one row's maximum before it begins the next row's.
    """
    for r in range(n_rows):
        m, row, hashed = s[state + 2 * r], scores + r * SCORES_STEP, np.uint32(0)
        if mask.threshold > 0:
            hashed = row_hash(mask, head_row + start + r)
        shift = m if m > -np.inf else s.dtype.type(0)  # nothing but −∞ so far: e^(−∞ − 0) is 0, not NaN
        s[state + 2 * r + 1] += weigh(s, row, ranges, r // ROWS, scale, shift, mask, hashed, tile)


@part
def _finish_rows(s, sums, step, state, n_rows, out, log_sums, b, h, start, head_row):
    """out = o / l and log Σ exp = m + log l, for the rows of a task."""
    head_size = out.shape[3]
    for r in range(n_rows):
        total = s[state + 2 * r + 1]
        log_sums[head_row + start + r] = s[state + 2 * r] + np.log2(total)
        inverse, to, j = s.dtype.type(1) / total, ((b * out.shape[1] + start + r) * out.shape[2] + h) * head_size, 0
        while j + lanes(s) <= head_size:
            store(out, to + j, load(s, sums + r * step + j) * inverse)
            j += lanes(s)
        store_tail(out, to + j, load_tail(s, sums + r * step + j, head_size - j) * inverse, head_size - j)


@part
def _forward_task(worker, task, q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges_of, width, task_rows):
    (B, Tq, n_head, head_size), Tk, step = q.shape, k.shape[1], width + panel(q)
    n_blocks, offset = (Tq + task_rows - 1) // task_rows, Tk - Tq
    b, h = task % (B * n_head) // n_head, task % n_head
    start = (n_blocks - 1 - task // (B * n_head)) * task_rows  # the longest first
    n_rows, head_row = min(task_rows, Tq - start), (b * n_head + h) * Tq
    s, ranges, (q_b, q_t, q_h) = scratch[worker], ranges_of[worker], element_steps(q)
    (k_b, k_t, k_h), (v_b, v_t, v_h) = element_steps(k), element_steps(v)
    keys, values = 0, KEYS * step
    scores = 2 * KEYS * step
    queries = scores + QUERIES * SCORES_STEP
    sums, state = queries + task_rows * step, queries + 2 * task_rows * step
    padded = (n_rows + ROWS - 1) // ROWS * ROWS
    copy_rows(q, b * q_b + start * q_t + h * q_h, q_t, n_rows, head_size, s, queries, step, padded, width)
    fill_zeros(s, sums, sums + padded * step)
    low = offset + start
    for r in range(n_rows):
        s[state + 2 * r], s[state + 2 * r + 1] = -np.inf, 0
        low = min(low, first_seen(first_key, b, start + r))
    for tile in range(low // KEYS * KEYS, offset + start + n_rows, KEYS):
        n_keys = min(KEYS, Tk - tile)
        pack_keys_turned(k, b * k_b + tile * k_t + h * k_h, k_t, n_keys, head_size, s, keys, width)
        pack_keys(v, b * v_b + tile * v_t + h * v_h, v_t, n_keys, head_size, s, values)
        ahead = tile + KEYS
        for r in range(max(0, tile - offset - start) // ROWS * ROWS, n_rows, QUERIES):
            fetch_rows(k, b * k_b + ahead * k_t + h * k_h, k_t, _AHEAD, head_size)
            fetch_rows(v, b * v_b + ahead * v_t + h * v_h, v_t, _AHEAD, head_size)
            rows, ahead = min(QUERIES, n_rows - r), ahead + _AHEAD
            if strip_ranges(ranges, first_key, b, start + r, rows, offset, tile, panel(q)):
                strips, at = (rows + ROWS - 1) // ROWS, sums + r * step
                multiply_by_keys(ranges, strips, s, queries + r * step, step, keys, width, scores)
                _find_maxima(
                    s,
                    scores,
                    ranges,
                    first_key,
                    b,
                    start + r,
                    rows,
                    offset,
                    tile,
                    scale,
                    at,
                    step,
                    width,
                    state + 2 * r,
                )
                _soften_rows(s, scores, ranges, head_row, start + r, rows, tile, scale, mask, state + 2 * r)
                add_weighted(ranges, strips, s, scores, values, width, at, step)
    _finish_rows(s, sums, step, state, n_rows, out, log_sums, b, h, start, head_row)


@launcher
def forward(n_tasks, q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges, width, task_rows):
    parallel_for(
        _forward_task, n_tasks, (q, k, v, first_key, out, log_sums, mask, scale, scratch, ranges, width, task_rows)
    )
