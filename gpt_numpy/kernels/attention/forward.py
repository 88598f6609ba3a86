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

For products in bfloat16, m is rounded up to an integer: e^(s − m), which is rounded, then differs only by a power of two
from what any other m would give, and its rounding does not depend on m. l is the sum of the numbers before rounding.
"""

from typing import NamedTuple

import numpy as np

from ..dropout import Mask, keep_factors, row_hash
from ..runtime.bfloat16 import is_rounded, store_row
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
    max_lanes,
    maximum,
    store,
    store_tail,
    where,
)
from .score_tile import (
    IN_VECTORS,
    KEYS,
    QUERIES,
    SCALE,
    SCORES_STEP,
    STRIP_ROWS,
    WIDTH,
    Queries,
    Scratch,
    Shared,
    add_weighted,
    earliest_seen,
    fetch_rows,
    fill_zeros,
    first_seen,
    head_rows,
    multiply_by_keys,
    pack_keys,
    pack_keys_turned,
    pack_strips,
    row_step,
    strip_ranges,
)

_AHEAD = 16  # rows of the next tile's keys and values to ask for with each block of queries
_SLACK = 8  # powers of two by which a score may exceed m: exponentials and their sums are far from overflow


def scratch_size(task_rows, width, panel):
    """Elements a worker needs: queries, sums and state of a task's rows, a tile of keys, of values and of scores."""
    step = row_step(width, panel)
    return task_rows * (2 * step + 2) + 2 * KEYS * step + QUERIES * SCORES_STEP


class Memory(NamedTuple):
    """A worker's scratch in the forward, with the first element of each part of it."""

    array: np.ndarray
    panels: np.ndarray  # the same memory, as operands: numbers or words
    ranges: np.ndarray  # (strips, RANGE_FIELDS): which part of the tile of keys each strip needs
    step: int  # between rows of queries and of sums
    keys: int  # a tile of them, in turned panels
    values: int  # likewise, in plain panels
    scores: int
    queries: int  # in strips
    sums: int  # o of each row
    state: int  # m and l of each row


@part
def largest_score(memory, row, low, high, seen_low, seen_high):
    """The largest score in [low, high) of a row; what lies outside [seen_low, seen_high) becomes −∞."""
    largest = broadcast(memory, -np.inf)
    if seen_low <= low and high <= seen_high:
        for j in range(low, high, lanes(memory)):
            largest = maximum(load(memory, row + j), largest)
        return max_lanes(largest)
    for j in range(low, high, lanes(memory)):
        score = load(memory, row + j)
        if j < seen_low or j + lanes(memory) > seen_high:
            column = lane_index(memory, np.int32) + j
            score = where((column >= seen_low) & (column < seen_high), score, -np.inf)
            store(memory, row + j, score)
        largest = maximum(score, largest)
    return max_lanes(largest)


@part
def weigh(memory, panels, row, ranges, strip, scale, shift, mask, hashed, column):
    """Turn a row of scores into weights relative to ``shift``, in ``panels``; returns their sum, which dropout does not change.

    The loop's end is read from memory in each iteration. If LLVM knew the number of iterations, LLVM would unroll the
    loop, and a third of the time would go into moving values that no longer fit the registers.
    """
    factor, offset, total = broadcast(memory, scale), broadcast(memory, -shift), broadcast(memory, 0.0)
    j = ranges[strip, IN_VECTORS]
    while j < ranges[strip, IN_VECTORS + 1]:
        weight = exp2_of_negative(fma(load(memory, row + j), factor, offset))
        total += weight
        if mask.threshold > 0:
            weight = weight * keep_factors(memory, mask, hashed, column + j)
        store_row(panels, row, j, weight)
        j += lanes(memory)
    return add_lanes(total)


@part
def _find_maxima(shared, memory, queries, tile, first):
    """Each row's running maximum m with this tile; its l and o are rescaled to it. ``first``: its row in the task."""
    array = memory.array
    for r in range(queries.n_rows):
        i = queries.start + r
        low, high = memory.ranges[r // STRIP_ROWS, IN_VECTORS], memory.ranges[r // STRIP_ROWS, IN_VECTORS + 1]
        seen_low = first_seen(shared.first_key, queries.sequence, i) - tile
        seen_high = queries.offset + i + 1 - tile
        state = memory.state + 2 * (first + r)
        before = array[state]
        largest = largest_score(array, memory.scores + r * SCORES_STEP, low, high, seen_low, seen_high)
        m = max(before, np.ceil(largest * shared.scale) if is_rounded(memory.panels) else largest * shared.scale)
        if m <= before + _SLACK:
            continue
        array[state] = m
        if before > -np.inf:
            shrink = np.exp2(before - m)
            row = memory.sums + (first + r) * memory.step
            for j in range(row, row + shared.width, lanes(array)):
                store(array, j, load(array, j) * shrink)
            array[state + 1] *= shrink


@part
def _soften_rows(shared, memory, queries, tile, first):
    """Scores become weights relative to each row's m, and are added to its l.

    A loop of its own, so that the processor need not wait for one row's maximum before it begins the next row's.
    """
    array = memory.array
    for r in range(queries.n_rows):
        state = memory.state + 2 * (first + r)
        m, hashed = array[state], np.uint32(0)
        if shared.mask.threshold > 0:
            hashed = row_hash(shared.mask, queries.head_row + queries.start + r)
        shift = m if m > -np.inf else array.dtype.type(0)  # nothing but −∞ so far: e^(−∞ − 0) is 0, not NaN
        row = memory.scores + r * SCORES_STEP
        array[state + 1] += weigh(
            array, memory.panels, row, memory.ranges, r // STRIP_ROWS, shared.scale, shift, shared.mask, hashed, tile
        )


@part
def _finish_rows(shared, memory, queries, out, head):
    """out = o / l and log Σ exp = m + log l, for the rows of a task."""
    array, head_size = memory.array, out.shape[3]
    for r in range(queries.n_rows):
        i = queries.start + r
        total = array[memory.state + 2 * r + 1]
        shared.log_sums[queries.head_row + i] = array[memory.state + 2 * r] + np.log2(total)
        inverse = array.dtype.type(1) / total
        to = ((queries.sequence * out.shape[1] + i) * out.shape[2] + head) * head_size
        row = memory.sums + r * memory.step
        j = 0
        while j + lanes(array) <= head_size:
            store(out, to + j, load(array, row + j) * inverse)
            j += lanes(array)
        if j < head_size:
            store_tail(out, to + j, load(array, row + j) * inverse, head_size - j)


@part
def _add_tile(shared, memory, queries, k, v, tile):
    """One tile of keys against the task's queries, as many at a time as have room for their scores."""
    array, panels, head_size = memory.array, memory.panels, k.shape[3]
    n_keys = min(KEYS, k.shape[1] - tile)
    pack_keys_turned(
        head_rows(k, queries.sequence, tile, queries.head), n_keys, head_size, panels, memory.keys, shared.width
    )
    pack_keys(head_rows(v, queries.sequence, tile, queries.head), n_keys, head_size, panels, memory.values)
    ahead = tile + KEYS
    first = max(0, tile - queries.offset - queries.start) // STRIP_ROWS * STRIP_ROWS
    for r in range(first, queries.n_rows, QUERIES):
        fetch_rows(head_rows(k, queries.sequence, ahead, queries.head), _AHEAD, head_size)
        fetch_rows(head_rows(v, queries.sequence, ahead, queries.head), _AHEAD, head_size)
        ahead += _AHEAD
        n_rows = min(QUERIES, queries.n_rows - r)
        some = Queries(queries.sequence, queries.head, queries.start + r, n_rows, queries.offset, queries.head_row)
        if strip_ranges(memory.ranges, shared.first_key, some, tile, array):
            strips = (n_rows + STRIP_ROWS - 1) // STRIP_ROWS
            row, step = r * memory.step, memory.step
            multiply_by_keys(
                memory.ranges,
                strips,
                array,
                panels,
                memory.queries + row,
                step,
                memory.keys,
                shared.width,
                head_size,
                memory.scores,
            )
            _find_maxima(shared, memory, some, tile, r)
            _soften_rows(shared, memory, some, tile, r)
            weights, sums = memory.scores, memory.sums + row
            add_weighted(memory.ranges, strips, array, panels, weights, memory.values, shared.width, sums, step)


@part
def _memory_of(scratch, worker, step, task_rows):
    keys = 0
    values = keys + KEYS * step
    scores = values + KEYS * step
    queries = scores + QUERIES * SCORES_STEP
    sums = queries + task_rows * step
    state = sums + task_rows * step
    mine = scratch.array[worker], scratch.panels[worker], scratch.ranges[worker]
    return Memory(*mine, step, keys, values, scores, queries, sums, state)


@part
def _forward_task(worker, task, q, k, v, out, shared, task_rows, scratch):
    (B, Tq, n_head, head_size), step = q.shape, shared.width + lanes(out)
    b, h = task % (B * n_head) // n_head, task % n_head
    n_blocks = (Tq + task_rows - 1) // task_rows
    start = (n_blocks - 1 - task // (B * n_head)) * task_rows  # the longest first
    kv_head = h // (n_head // k.shape[2])  # neighbouring query heads share a head of keys and values
    queries = Queries(b, kv_head, start, min(task_rows, Tq - start), k.shape[1] - Tq, (b * n_head + h) * Tq)
    memory = _memory_of(scratch, worker, step, task_rows)
    array, padded = memory.array, (queries.n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS
    pack_strips(head_rows(q, b, start, h), queries.n_rows, head_size, memory.panels, memory.queries, step)
    fill_zeros(array, memory.sums, memory.sums + padded * step)
    for r in range(queries.n_rows):
        array[memory.state + 2 * r], array[memory.state + 2 * r + 1] = -np.inf, 0
    low = earliest_seen(shared.first_key, queries)
    for tile in range(low // KEYS * KEYS, queries.offset + start + queries.n_rows, KEYS):
        _add_tile(shared, memory, queries, k, v, tile)
    _finish_rows(shared, memory, queries, out, h)


@launcher
def forward(n_tasks, q, k, v, out, scratch, panels, ranges, task_rows, *shared):
    """panels: ``scratch`` itself, or its elements as words.

    shared: the fields of ``Shared``, with the fields of ``Mask`` instead of mask.
    """
    together = Shared(shared[0], shared[1], Mask(*shared[2:SCALE]), shared[SCALE], shared[WIDTH])
    parallel_for(_forward_task, n_tasks, (q, k, v, out, together, task_rows, Scratch(scratch, panels, ranges)))
