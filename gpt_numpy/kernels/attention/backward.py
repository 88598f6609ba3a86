"""The gradient of attention, tile by tile: the weights are computed again from the scores and each row's log Σ exp.

A task owns one head: no two tasks write to the same dq, dk or dv. It takes the queries in groups that stay in the
second-level cache, and for each walks over the tiles of keys that the group sees. With P = exp(S − log Σ exp) and
P̃ = dropout(P), as ``layers.attention`` derives:

    dv += P̃ᵀ·dout,   dS = P ∘ (dropout(dout·vᵀ) − δ),   dk += dSᵀ·q,   dq += dS·k,

where δ = Σ_j dP_j P_j is, for each row, the same as Σ dout·out (Dao et al. 2022, section B.4), since out = P̃·v. The
sums of dq stay in cache for a group, those of dk and dv are kept for the whole head; scale is applied as they are
written out.
"""

from typing import NamedTuple

import numpy as np

from ..dropout import Mask, keep_factors, row_hash
from ..gemm.tile import tile_columns
from ..runtime.decorators import part
from ..runtime.emitting import Rows
from ..runtime.threads import launcher, parallel_for
from ..runtime.vectors import add_lanes, broadcast, exp2_of_negative, fma, lanes, load, load_tail, store, store_tail
from .score_tile import (
    KEYS,
    QUERIES,
    SCALE,
    SCORES_STEP,
    STRIP_ROWS,
    WIDTH,
    Queries,
    Shared,
    add_weighted,
    add_weighted_turned,
    copy_rows,
    earliest_seen,
    fetch_rows,
    fill_zeros,
    first_seen,
    head_rows,
    multiply_by_keys,
    pack_keys,
    pack_keys_turned,
    pack_strips,
    strip_ranges,
)

_AHEAD = 24  # rows of the next tile's keys and values to ask for with each block of queries


class Memory(NamedTuple):
    """A worker's scratch in the backward, with the first element of each part of it."""

    array: np.ndarray
    ranges: np.ndarray  # (strips, 2): which part of the tile of keys each strip needs
    step: int  # between rows of all that are head_size long
    keys: int  # a tile of them, in plain panels
    turned_keys: int
    turned_values: int
    scores: int
    dscores: int
    queries: int  # of a group, as are the next six
    douts: int
    query_strips: int  # the same rows once more, in strips
    dout_strips: int
    dqueries: int
    deltas: int
    dkeys: int  # of the whole head
    dvalues: int


def scratch_size(n_keys, group, width, panel):
    """Elements a worker needs: dk and dv of all keys; q, dout (each twice), dq, δ of a group; tiles of keys and scores."""
    step = width + panel
    return (2 * (n_keys + KEYS) + 5 * group + 3 * KEYS) * step + group + 2 * QUERIES * SCORES_STEP


@part
def _memory_of(array, ranges, width, n_keys, group):
    step = width + tile_columns(array)
    turned_keys = 0
    keys = turned_keys + KEYS * width
    turned_values = keys + KEYS * width
    scores = 3 * KEYS * step
    dscores = scores + QUERIES * SCORES_STEP
    queries = dscores + QUERIES * SCORES_STEP
    douts = queries + group * step
    query_strips = douts + group * step
    dout_strips = query_strips + group * step
    dqueries = dout_strips + group * step
    dkeys = dqueries + group * step
    dvalues = dkeys + (n_keys + KEYS) * step
    deltas = dvalues + (n_keys + KEYS) * step
    return Memory(
        array,
        ranges,
        step,
        keys,
        turned_keys,
        turned_values,
        scores,
        dscores,
        queries,
        douts,
        query_strips,
        dout_strips,
        dqueries,
        deltas,
        dkeys,
        dvalues,
    )


class Row(NamedTuple):
    """One query's row of a tile: the keys from ``low`` to ``high`` of it."""

    scores: int
    dscores: int
    low: int
    high: int
    log_sum: np.floating
    delta: np.floating
    hashed: np.uint32


@part
def _differentiate_row(array, row, scale, mask, column):
    """Scores become weights (after dropout), and the weights' gradients become those of the scores."""
    factor, offset = broadcast(array, scale), broadcast(array, -row.log_sum)
    for j in range(row.low, row.high, lanes(array)):
        weight = exp2_of_negative(fma(load(array, row.scores + j), factor, offset))
        dweight = load(array, row.dscores + j)
        if mask.threshold > 0:
            keep = keep_factors(array, mask, row.hashed, column + j)
            store(array, row.scores + j, weight * keep)
            dweight = dweight * keep
        else:
            store(array, row.scores + j, weight)
        store(array, row.dscores + j, weight * (dweight - row.delta))


@part
def _differentiate_rows(shared, memory, queries, tile, first):
    """All rows of a block. Keys of the tile that a row does not see become 0, as do rows that fill up the last strip.

    ``first``: the block's first row in the group.
    """
    array, scale, mask = memory.array, shared.scale, shared.mask
    for r in range((queries.n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS):
        i = queries.start + r
        low, high = memory.ranges[r // STRIP_ROWS, 0], memory.ranges[r // STRIP_ROWS, 1]
        scores = memory.scores + r * SCORES_STEP
        dscores = memory.dscores + r * SCORES_STEP
        seen_low = seen_high = 0
        if r < queries.n_rows and low < high:
            seen_low = min(max(first_seen(shared.first_key, queries.sequence, i) - tile, low), high)
            seen_high = max(min(queries.offset + i + 1 - tile, high), seen_low)
            hashed = row_hash(mask, queries.head_row + i) if mask.threshold > 0 else np.uint32(0)
            log_sum, delta = shared.log_sums[queries.head_row + i], array[memory.deltas + first + r]
            _differentiate_row(array, Row(scores, dscores, low, high, log_sum, delta, hashed), scale, mask, tile)
        if seen_low > 0 or seen_high < KEYS:
            for row in (scores, dscores):
                fill_zeros(array, row, row + seen_low)
                fill_zeros(array, row + seen_high, row + KEYS)


@part
def _row_products(memory, out, index, n_rows):
    """δ of each row: Σ dout·out. ``index`` is where the first row of out is."""
    array, (n_head, head_size) = memory.array, out.shape[2:]
    for r in range(n_rows):
        here = index + r * n_head * head_size
        row = memory.douts + r * memory.step
        total = broadcast(array, 0.0)
        fetch_rows(Rows(out, here + 4 * n_head * head_size, n_head * head_size), 1, head_size)
        j = 0
        while j + lanes(array) <= head_size:
            total = fma(load(array, row + j), load(out, here + j), total)
            j += lanes(array)
        array[memory.deltas + r] = add_lanes(fma(load(array, row + j), load_tail(out, here + j, head_size - j), total))


@part
def _write_rows(sums, n_rows, scale, out, head_size):
    """out = scale · sums, row by row; both ``Rows``."""
    array, target = sums.array, out.array
    for r in range(n_rows):
        row = sums.first + r * sums.step
        to = out.first + r * out.step
        j = 0
        while j + lanes(array) <= head_size:
            store(target, to + j, load(array, row + j) * scale)
            j += lanes(array)
        store_tail(target, to + j, load_tail(array, row + j, head_size - j) * scale, head_size - j)


@part
def _pack_tile(memory, queries, k, v, tile, width):
    n_keys, head_size, array = min(KEYS, k.shape[1] - tile), k.shape[3], memory.array
    keys, values = (
        head_rows(k, queries.sequence, tile, queries.head),
        head_rows(v, queries.sequence, tile, queries.head),
    )
    pack_keys_turned(keys, n_keys, head_size, array, memory.turned_keys, width)
    pack_keys(keys, n_keys, head_size, array, memory.keys)
    pack_keys_turned(values, n_keys, head_size, array, memory.turned_values, width)


@part
def _add_tile(shared, memory, group, k, v, tile):
    """One tile of keys against a group of queries: adds to the group's dq and the tile's dk and dv."""
    is_packed, ahead, head_size, width = False, tile + KEYS, k.shape[3], shared.width
    n_keys = min(KEYS, k.shape[1] - tile)
    dkeys = memory.dkeys + tile * memory.step
    dvalues = memory.dvalues + tile * memory.step
    array, ranges, step = memory.array, memory.ranges, memory.step
    first = max(0, tile - group.offset - group.start) // STRIP_ROWS * STRIP_ROWS
    for r in range(first, group.n_rows, QUERIES):
        n_rows = min(QUERIES, group.n_rows - r)
        queries = Queries(group.sequence, group.head, group.start + r, n_rows, group.offset, group.head_row)
        if not strip_ranges(ranges, shared.first_key, queries, tile, tile_columns(array)):
            continue
        if not is_packed:
            _pack_tile(memory, queries, k, v, tile, width)
            is_packed = True
        fetch_rows(head_rows(k, group.sequence, ahead, group.head), _AHEAD, head_size)
        fetch_rows(head_rows(v, group.sequence, ahead, group.head), _AHEAD, head_size)
        ahead += _AHEAD
        strips = (n_rows + STRIP_ROWS - 1) // STRIP_ROWS
        q_rows = memory.queries + r * step
        dout_rows = memory.douts + r * step
        q_strips, dout_strips = memory.query_strips + r * step, memory.dout_strips + r * step
        multiply_by_keys(ranges, strips, array, q_strips, step, memory.turned_keys, width, head_size, memory.scores)
        multiply_by_keys(
            ranges, strips, array, dout_strips, step, memory.turned_values, width, head_size, memory.dscores
        )
        _differentiate_rows(shared, memory, queries, tile, r)
        add_weighted_turned(ranges, strips, array, memory.scores, dout_rows, n_keys, width, dvalues, step)
        add_weighted_turned(ranges, strips, array, memory.dscores, q_rows, n_keys, width, dkeys, step)
        add_weighted(ranges, strips, array, memory.dscores, memory.keys, width, memory.dqueries + r * step, step)


class Arrays(NamedTuple):
    """All (B, T, n_head, head_size); ``out`` and ``dout`` contiguous, the others of any strides but the last axis'."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    out: np.ndarray
    dout: np.ndarray
    dq: np.ndarray
    dk: np.ndarray
    dv: np.ndarray


@part
def _backward_task(worker, task, arrays, shared, scale, group_rows, scratch, ranges):
    """One head."""
    q, k, v, dout = arrays.q, arrays.k, arrays.v, arrays.dout
    (Tq, n_head, head_size), Tk, width = q.shape[1:], k.shape[1], shared.width
    b, h = task // n_head, task % n_head
    memory = _memory_of(scratch[worker], ranges[worker], width, Tk, group_rows)
    array, step = memory.array, memory.step
    fill_zeros(array, memory.dkeys, memory.deltas)
    for start in range(0, Tq, group_rows):
        group = Queries(b, h, start, min(group_rows, Tq - start), Tk - Tq, task * Tq)
        padded = (group.n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS
        dense = head_rows(dout, b, start, h)
        copy_rows(head_rows(q, b, start, h), group.n_rows, head_size, Rows(array, memory.queries, step), padded, width)
        copy_rows(dense, group.n_rows, head_size, Rows(array, memory.douts, step), padded, width)
        for rows, strips in ((memory.queries, memory.query_strips), (memory.douts, memory.dout_strips)):
            pack_strips(Rows(array, rows, step), group.n_rows, head_size, array, strips, step)
        _row_products(memory, arrays.out, dense.first, group.n_rows)
        fill_zeros(array, memory.dqueries, memory.dqueries + padded * step)
        low = earliest_seen(shared.first_key, group)
        for tile in range(low // KEYS * KEYS, group.offset + start + group.n_rows, KEYS):
            _add_tile(shared, memory, group, k, v, tile)
        _write_rows(
            Rows(array, memory.dqueries, step), group.n_rows, scale, head_rows(arrays.dq, b, start, h), head_size
        )
    one = q.dtype.type(1)
    _write_rows(Rows(array, memory.dkeys, step), Tk, scale, head_rows(arrays.dk, b, 0, h), head_size)
    _write_rows(Rows(array, memory.dvalues, step), Tk, one, head_rows(arrays.dv, b, 0, h), head_size)


_ARRAYS = len(Arrays._fields)


@launcher
def backward(n_tasks, scratch, ranges, group_rows, scale, *fields):
    """A task is a head. ``fields``: those of ``Arrays``, then those of ``Shared`` with the fields of ``Mask`` instead of mask.

    scale: 1 / √head_size. group_rows: queries that are taken at a time.
    """
    arrays = Arrays(*fields[:_ARRAYS])
    rest = fields[_ARRAYS:]
    shared = Shared(rest[0], rest[1], Mask(*rest[2:SCALE]), rest[SCALE], rest[WIDTH])
    parallel_for(_backward_task, n_tasks, (arrays, shared, scale, group_rows, scratch, ranges))
