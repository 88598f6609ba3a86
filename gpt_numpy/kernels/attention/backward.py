"""The gradient of attention, tile by tile: the weights are computed again from the scores and each row's log Σ exp.

A task owns one head of keys and values, and the query heads that use it: no two tasks write to the same dq, dk or dv. It
takes the queries in groups that stay in the
second-level cache, and for each walks over the tiles of keys that the group sees. With P = exp(S − log Σ exp) and
P̃ = dropout(P), as ``layers.attention`` derives:

    dv += P̃ᵀ·dout,   dS = P ∘ (dropout(dout·vᵀ) − δ),   dk += dSᵀ·q,   dq += dS·k,

where δ = Σ_j dP_j P_j is, for each row, the same as Σ dout·out (Dao et al. 2022, section B.4), since out = P̃·v. The
sums of dq stay in cache for a group, those of dk and dv are kept for the whole head; scale is applied as they are
written out.

Where words hold two numbers (``runtime.bfloat16``), rows of weights are taken two at a time: P̃ᵀ·dout and dSᵀ·q need
words of two neighbouring queries, dS·k words of two neighbouring keys. All three fit where the scores of the two rows were.
"""

from typing import NamedTuple

import numpy as np

from ..dropout import Mask, keep_factors, row_hash
from ..runtime.bfloat16 import as_operand, numbers_in, store_paired, store_row
from ..runtime.decorators import part
from ..runtime.emitting import Rows
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
    add_weighted_turned,
    copy_rows,
    earliest_seen,
    end_of_weights,
    fetch_rows,
    fill_zeros,
    first_seen,
    head_rows,
    multiply_by_keys,
    pack_keys,
    pack_keys_turned,
    pack_strips,
    pair_rows,
    row_step,
    strip_ranges,
)

_AHEAD = 24  # rows of the next tile's keys and values to ask for with each block of queries


class Memory(NamedTuple):
    """A worker's scratch in the backward, with the first element of each part of it."""

    array: np.ndarray
    panels: np.ndarray  # the same memory, as operands: numbers or words
    ranges: np.ndarray  # (strips, RANGE_FIELDS): which part of the tile of keys each strip needs
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
    step = row_step(width, panel)
    return (2 * (n_keys + STRIP_ROWS) + 5 * group + 3 * KEYS) * step + group + 2 * QUERIES * SCORES_STEP


@part
def _memory_of(scratch, worker, width, n_keys, group):
    array = scratch.array[worker]
    step = width + lanes(array)
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
    dvalues = dkeys + (n_keys + STRIP_ROWS) * step
    deltas = dvalues + (n_keys + STRIP_ROWS) * step
    return Memory(
        array,
        scratch.panels[worker],
        scratch.ranges[worker],
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
    """One query's row of a tile: the keys from ``low`` to ``high`` of it are computed, those in ``seen`` have weight.

    Products read the weights of the keys up to ``end``.
    """

    scores: int
    dscores: int
    low: int
    high: int
    seen_low: int
    seen_high: int
    end: int
    log_sum: np.floating
    delta: np.floating
    hashed: np.uint32


@part
def _differentiate_vector(array, row, j, scale, mask, column):
    """The weights (after dropout) of a vector of scores, and the gradients of the scores from those of the weights."""
    weight = exp2_of_negative(fma(load(array, row.scores + j), broadcast(array, scale), broadcast(array, -row.log_sum)))
    dweight = load(array, row.dscores + j)
    if mask.threshold > 0:
        keep = keep_factors(array, mask, row.hashed, column + j)
        return weight * keep, weight * (dweight * keep - row.delta)
    return weight, weight * (dweight - row.delta)


@part
def _only_seen(x, row, j):
    """x, a vector of the row's keys from j on, with 0 for those that are not seen."""
    if row.seen_low <= j and j + lanes(x) <= row.seen_high:
        return x
    key = lane_index(x, np.int32) + j
    return where((key >= row.seen_low) & (key < row.seen_high), x, 0.0)


@part
def _fill_outside(memory, row, first):
    """Zeros in the row of a tile from ``first`` on for keys that are not computed, as far as products read them."""
    if row.low > 0:
        fill_zeros(memory, first, first + row.low)
    if row.high < row.end:
        fill_zeros(memory, first + row.high, first + row.end)


@part
def _differentiate_row(array, panels, row, scale, mask, column):
    """Scores become weights, and the weights' gradients become those of the scores. Keys that are not seen become 0."""
    for j in range(row.low, row.high, lanes(array)):
        weight, dscore = _differentiate_vector(array, row, j, scale, mask, column)
        store_row(panels, row.scores, j, _only_seen(weight, row, j))
        store_row(panels, row.dscores, j, _only_seen(dscore, row, j))
    _fill_outside(array, row, row.scores)
    _fill_outside(array, row, row.dscores)


@part
def _differentiate_pair(array, panels, one, two, scale, mask, column):
    """`_differentiate_row` of two neighbouring rows, into words of two numbers.

    Row one's scores become words of both rows' weights, row two's scores words of both rows' gradients; each row's
    dscores become words of its own gradients.
    """
    for j in range(one.low, one.high, lanes(array)):
        weight, dscore = _differentiate_vector(array, one, j, scale, mask, column)
        weight2, dscore2 = _differentiate_vector(array, two, j, scale, mask, column)
        dscore, dscore2 = _only_seen(dscore, one, j), _only_seen(dscore2, two, j)
        store_paired(panels, one.scores + j, _only_seen(weight, one, j), _only_seen(weight2, two, j))
        store_paired(panels, two.scores + j, dscore, dscore2)
        store_row(panels, one.dscores, j, dscore)
        store_row(panels, two.dscores, j, dscore2)
    _fill_outside(panels, one, one.scores)
    _fill_outside(panels, one, two.scores)


@part
def _row_of(shared, memory, queries, tile, first, r):
    """The ``Row`` of query r of a block, whose first row is ``first`` in the group."""
    strip = r // STRIP_ROWS
    end = end_of_weights(memory.ranges, strip, shared.first_key, queries, tile)
    low, high = memory.ranges[strip, IN_VECTORS], memory.ranges[strip, IN_VECTORS + 1]
    scores, dscores = memory.scores + r * SCORES_STEP, memory.dscores + r * SCORES_STEP
    i = queries.start + r
    if r >= queries.n_rows or low >= high:  # no key is seen
        none = shared.scale - shared.scale
        return Row(scores, dscores, 0, 0, 0, 0, end, none, none, np.uint32(0))
    seen_low = min(max(first_seen(shared.first_key, queries.sequence, i) - tile, low), high)
    seen_high = max(min(queries.offset + i + 1 - tile, high), seen_low)
    hashed = row_hash(shared.mask, queries.head_row + i) if shared.mask.threshold > 0 else np.uint32(0)
    log_sum, delta = shared.log_sums[queries.head_row + i], memory.array[memory.deltas + first + r]
    return Row(scores, dscores, low, high, seen_low, seen_high, end, log_sum, delta, hashed)


@part
def _differentiate_rows(shared, memory, queries, tile, first):
    """All rows of a block. Keys of the tile that a row does not see become 0, as do rows that fill up the last strip.

    ``first``: the block's first row in the group.
    """
    array, panels, scale, mask = memory.array, memory.panels, shared.scale, shared.mask
    together = numbers_in(panels)
    for r in range(0, (queries.n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS, together):
        one = _row_of(shared, memory, queries, tile, first, r)
        if together == 2:
            two = _row_of(shared, memory, queries, tile, first, r + 1)
            _differentiate_pair(array, panels, one, two, scale, mask, tile)
        else:
            _differentiate_row(array, panels, one, scale, mask, tile)


@part
def _row_products(memory, out, index, n_rows):
    """δ of each row: Σ dout·out, of dout as the products take it. ``index`` is where the first row of out is."""
    array, panels, (n_head, head_size) = memory.array, memory.panels, out.shape[2:]
    for r in range(n_rows):
        here = index + r * n_head * head_size
        row = memory.douts + r * memory.step
        total = broadcast(array, 0.0)
        fetch_rows(Rows(out, here + 4 * n_head * head_size, n_head * head_size), 1, head_size)
        j = 0
        while j + lanes(array) <= head_size:
            total = fma(as_operand(panels, load(array, row + j)), load(out, here + j), total)
            j += lanes(array)
        if j < head_size:
            dout = as_operand(panels, load(array, row + j))
            total = fma(dout, load_tail(out, here + j, head_size - j), total)
        array[memory.deltas + r] = add_lanes(total)


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
        if j < head_size:
            store_tail(target, to + j, load(array, row + j) * scale, head_size - j)


@part
def _pack_tile(memory, queries, k, v, tile, width):
    n_keys, head_size, panels = min(KEYS, k.shape[1] - tile), k.shape[3], memory.panels
    keys, values = (
        head_rows(k, queries.sequence, tile, queries.head),
        head_rows(v, queries.sequence, tile, queries.head),
    )
    pack_keys_turned(keys, n_keys, head_size, panels, memory.turned_keys, width)
    pack_keys(keys, n_keys, head_size, panels, memory.keys)
    pack_keys_turned(values, n_keys, head_size, panels, memory.turned_values, width)


@part
def _add_tile(shared, memory, group, k, v, tile):
    """One tile of keys against a group of queries: adds to the group's dq and the tile's dk and dv."""
    is_packed, ahead, head_size, width = False, tile + KEYS, k.shape[3], shared.width
    n_keys = min(KEYS, k.shape[1] - tile)
    dkeys = memory.dkeys + tile * memory.step
    dvalues = memory.dvalues + tile * memory.step
    array, panels, ranges, step = memory.array, memory.panels, memory.ranges, memory.step
    # Where the weights' gradients of two queries are side by side: see `_differentiate_pair`.
    dscores_down = memory.dscores if numbers_in(panels) == 1 else memory.scores + SCORES_STEP
    first = max(0, tile - group.offset - group.start) // STRIP_ROWS * STRIP_ROWS
    for r in range(first, group.n_rows, QUERIES):
        n_rows = min(QUERIES, group.n_rows - r)
        queries = Queries(group.sequence, group.head, group.start + r, n_rows, group.offset, group.head_row)
        if not strip_ranges(ranges, shared.first_key, queries, tile, array):
            continue
        if not is_packed:
            _pack_tile(memory, queries, k, v, tile, width)
            is_packed = True
        fetch_rows(head_rows(k, group.sequence, ahead, group.head), _AHEAD, head_size)
        fetch_rows(head_rows(v, group.sequence, ahead, group.head), _AHEAD, head_size)
        ahead += _AHEAD
        strips = (n_rows + STRIP_ROWS - 1) // STRIP_ROWS
        for left, right, out in (
            (memory.query_strips, memory.turned_keys, memory.scores),
            (memory.dout_strips, memory.turned_values, memory.dscores),
        ):
            multiply_by_keys(ranges, strips, array, panels, left + r * step, step, right, width, head_size, out)
        _differentiate_rows(shared, memory, queries, tile, r)
        for left, right, out in ((memory.scores, memory.douts, dvalues), (dscores_down, memory.queries, dkeys)):
            add_weighted_turned(ranges, strips, array, panels, left, right + r * step, n_keys, width, out, step)
        dqueries = memory.dqueries + r * step
        add_weighted(ranges, strips, array, panels, memory.dscores, memory.keys, width, dqueries, step)


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
def _backward_task(worker, task, arrays, shared, scale, group_rows, scratch):
    """One head of keys and values."""
    Tk, n_kv_head, head_size = arrays.k.shape[1:]
    b, kv_head = task // n_kv_head, task % n_kv_head
    memory = _memory_of(scratch, worker, shared.width, Tk, group_rows)
    array, step, sharing = memory.array, memory.step, arrays.q.shape[2] // n_kv_head
    fill_zeros(array, memory.dkeys, memory.deltas)
    for h in range(kv_head * sharing, (kv_head + 1) * sharing):
        _add_query_head(memory, arrays, shared, scale, group_rows, b, h, kv_head)
    one = array.dtype.type(1)
    _write_rows(Rows(array, memory.dkeys, step), Tk, scale, head_rows(arrays.dk, b, 0, kv_head), head_size)
    _write_rows(Rows(array, memory.dvalues, step), Tk, one, head_rows(arrays.dv, b, 0, kv_head), head_size)


@part
def _add_query_head(memory, arrays, shared, scale, group_rows, b, h, kv_head):
    """dq of one query head, and what it adds to dk and dv of the head of keys that it uses."""
    q, k, v, dout = arrays.q, arrays.k, arrays.v, arrays.dout
    (Tq, n_head, head_size), Tk, width = q.shape[1:], k.shape[1], shared.width
    array, step = memory.array, memory.step
    for start in range(0, Tq, group_rows):
        group = Queries(b, kv_head, start, min(group_rows, Tq - start), Tk - Tq, (b * n_head + h) * Tq)
        padded = (group.n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS
        dense = head_rows(dout, b, start, h)
        copy_rows(head_rows(q, b, start, h), group.n_rows, head_size, Rows(array, memory.queries, step), padded, width)
        copy_rows(dense, group.n_rows, head_size, Rows(array, memory.douts, step), padded, width)
        for rows, strips in ((memory.queries, memory.query_strips), (memory.douts, memory.dout_strips)):
            pack_strips(Rows(array, rows, step), group.n_rows, head_size, memory.panels, strips, step)
        _row_products(memory, arrays.out, dense.first, group.n_rows)
        for rows in (memory.queries, memory.douts):  # nothing reads the rows themselves from here on
            pair_rows(array, memory.panels, rows, padded, step, width)
        fill_zeros(array, memory.dqueries, memory.dqueries + padded * step)
        low = earliest_seen(shared.first_key, group)
        for tile in range(low // KEYS * KEYS, group.offset + start + group.n_rows, KEYS):
            _add_tile(shared, memory, group, k, v, tile)
        _write_rows(
            Rows(array, memory.dqueries, step), group.n_rows, scale, head_rows(arrays.dq, b, start, h), head_size
        )


_ARRAYS = len(Arrays._fields)


@launcher
def backward(n_tasks, scratch, panels, ranges, group_rows, scale, *fields):
    """A task is a head of keys and values.

    fields: those of ``Arrays``, then those of ``Shared`` with the fields of ``Mask`` instead of mask.

    panels: ``scratch`` itself, or its elements as words. scale: 1 / √head_size. group_rows: queries taken at a time.
    """
    arrays = Arrays(*fields[:_ARRAYS])
    rest = fields[_ARRAYS:]
    shared = Shared(rest[0], rest[1], Mask(*rest[2:SCALE]), rest[SCALE], rest[WIDTH])
    parallel_for(_backward_task, n_tasks, (arrays, shared, scale, group_rows, Scratch(scratch, panels, ranges)))
