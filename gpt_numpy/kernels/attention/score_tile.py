"""The inner pieces of attention: products of small tiles that stay in cache, and the copies that feed them.

The tiles of ``gemm`` need both operands packed, which pays only for operands that are used often. Where attention's left
operand is the weights, a row is read unpacked, one number at a time, and only the right operand is packed, in
panels. Here a *panel* is `tile_columns` columns. ``turned`` products read A down its columns, so that Pᵀ·dout needs no
transposed copy of P. The scores are products of ``gemm``'s own tile: queries or rows of dout are multiplied by all keys.

Queries are taken in *strips* of STRIP_ROWS, the rows of one product; keys in *tiles* of KEYS. As in ``gemm``, each sum
is one chain of fused multiply-adds in order of k: an element has the same bits wherever in a tile it falls, and extra
zeros at either end of k do not change it.

Operands lie in ``panels``, the worker's scratch memory once more: the same array, or for products in bfloat16 its elements
as words (``runtime.bfloat16``). A part of the scratch holds numbers or words and begins at the same element either way;
words of two numbers take half of it. Scores become words in their own place when they become weights.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..dropout import Mask
from ..gemm.packing import Source, pack_column_panels, pack_row_panels
from ..gemm.tile import (
    TILE,
    Ahead,
    Panels,
    Shift,
    Target,
    add_products,
    columns_of,
    multiply_narrow_tile,
    multiply_tile,
    tile_columns,
    words_of,
)
from ..runtime import emitting
from ..runtime.bfloat16 import (
    TOGETHER,
    in_words,
    is_rounded,
    load_number,
    load_number_tail,
    numbers_in,
    store_paired,
    store_row,
)
from ..runtime.decorators import part
from ..runtime.emitting import Lanes, Rows, native
from ..runtime.vectors import broadcast, lanes, load, prefetch, store, store_tail

STRIP_ROWS = TILE.rows
_K_TOGETHER = 2  # of a product's loop: divides every tile's rows and columns, and each range of keys is rounded to it

# The part of a tile of keys that each strip needs, as (first, end): columns of an array of ranges, a row to a strip.
IN_PANELS = 0  # in whole panels: what scores are computed for, up to a vector
IN_VECTORS = 2  # in whole vectors: what the softmax goes over
IN_KEYS = 4  # to the key, in whole pairs: what is multiplied by values, and by rows
RANGE_FIELDS = 6

_I64 = ir.IntType(64)


class Shared(NamedTuple):
    """What all tasks of a launch read, beside q, k and v (B, T, n_head, head_size)."""

    first_key: np.ndarray  # (B, Tq) int64, or (0, 0) for none
    log_sums: np.ndarray  # (B · n_head · Tq,): written by the forward
    mask: Mask  # dropout's
    scale: np.floating  # of the scores, for powers of two: log₂ e / √head_size
    width: int  # head_size, padded to whole panels


# Position of each field in a launcher's arguments, which are the fields of ``Shared`` with those of ``Mask`` for mask.
SCALE = 2 + len(Mask._fields)
WIDTH = SCALE + 1


class Scratch(NamedTuple):
    """The memory of all workers, a row of each array for each."""

    array: np.ndarray
    panels: np.ndarray  # ``array`` itself, or its elements as words
    ranges: np.ndarray


class Queries(NamedTuple):
    """Some neighbouring queries of one head."""

    sequence: int
    head: int
    start: int  # the first query
    n_rows: int
    offset: int  # Tk − Tq: query i sees the keys up to offset + i
    head_row: int  # the number of the head's first query among those of all heads


def _at(builder, pointer, *offsets):
    for offset in offsets:
        pointer = builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])
    return pointer


def _product(turned):
    """An intrinsic for STRIP_ROWS rows of one panel. turned: A's rows lie side by side."""

    @intrinsic
    def product(typingctx, a, b, depth, out):
        """out[i, j] += Σ_k A[i, k]·B[k, j] for STRIP_ROWS × `tile_columns` elements, all three given as ``Rows``.

        Row k of ``b`` is B[k]; row i of ``a`` is A[i], or where turned row k of ``a`` is A[:, k]. ``depth`` counts rows of
        ``b``, in numbers a multiple of _K_TOGETHER. ``a`` and ``b`` may be of words.
        """
        vector = native(out.types[0].dtype)
        rounded = in_words(b.types[0])
        together = 1 if rounded and TOGETHER == 2 else _K_TOGETHER

        def codegen(context, builder, sig, args):
            (a_first, a_step), (b_first, b_step), (out_first, out_step) = (
                emitting.unpack_rows(context, builder, sig.args[n], args[n]) for n in (0, 1, 3)
            )
            pointers = [
                [cgutils.alloca_once(builder, vector.ir) for _ in range(TILE.vectors)] for _ in range(STRIP_ROWS)
            ]
            for pointer in sum(pointers, []):
                builder.store(ir.Constant(vector.ir, None), pointer)
            rows = [_at(builder, a_first, i if turned else builder.mul(_I64(i), a_step)) for i in range(STRIP_ROWS)]
            with cgutils.for_range(builder, builder.udiv(args[2], _I64(together))) as loop:
                for step in range(together):
                    k = builder.add(builder.mul(loop.index, _I64(together)), _I64(step))
                    here = [_at(builder, row, builder.mul(k, a_step) if turned else k) for row in rows]
                    columns = _at(builder, b_first, builder.mul(k, b_step))
                    add_products(builder, here, columns, pointers, vector, rounded)
            for i in range(STRIP_ROWS):
                row = _at(builder, out_first, builder.mul(_I64(i), out_step))
                for j in range(TILE.vectors):
                    total = Lanes(builder, builder.load(pointers[i][j]), vector)
                    pointer = _at(builder, row, j * vector.lanes)
                    emitting.store_vector(emitting.load_vector(builder, pointer, vector) + total, pointer)
            return context.get_dummy_value()

        return types.void(a, b, types.int64, out), codegen

    return product


add_product = _product(turned=False)
add_turned_product = _product(turned=True)


# Sizes of the tiles: multiples of STRIP_ROWS and, for keys, of the panel in either precision.
_PANEL = columns_of(4)
_COMMON = math.lcm(_PANEL, STRIP_ROWS)
KEYS = -(-96 // _COMMON) * _COMMON
QUERIES = -(-48 // STRIP_ROWS) * STRIP_ROWS
# Elements between rows of scores: an odd number of cache lines, so that rows spread over a cache.
SCORES_STEP = KEYS + 16

_AHEAD = 4  # rows


def row_step(width, columns):
    """Elements between rows of ``width``: a vector more, so that few of their lines fall into the same set of a cache.

    columns: `tile_columns`. Kernels write width + lanes(array).
    """
    return width + columns // TILE.vectors


@part
def fetch_rows(rows, n_rows, count):
    """Ask for ``n_rows`` rows of ``count`` elements ahead of their use; none need exist.

    A head's rows are short and far apart: the processor by itself does not see what will be read next.
    """
    for row in range(n_rows):
        start = rows.first + row * rows.step
        for i in range(start, start + count, 64 // rows.array.itemsize):
            prefetch(rows.array, i)


@part
def copy_rows(source, n_rows, count, target, n_padded, width):
    """``n_rows`` rows of ``count`` elements to ``n_padded`` rows of ``width`` numbers; the rest zeros."""
    for row in range(n_padded):
        start = source.first + row * source.step
        to = target.first + row * target.step
        left = count if row < n_rows else 0
        fetch_rows(Rows(source.array, start + _AHEAD * source.step, source.step), 1, count)
        j = 0
        while j + lanes(target.array) <= left:
            store(target.array, to + j, load_number(source.array, start + j))
            j += lanes(target.array)
        while j < width:
            store(target.array, to + j, load_number_tail(source.array, start + j, left - j))
            j += lanes(target.array)


@part
def pack_keys(source, n_keys, count, panels, first):
    """Panels of up to KEYS keys, or values, of ``count`` elements: panel p holds columns p·tile_columns … of all."""
    panel, together = tile_columns(panels), numbers_in(panels)
    block = Source(source.array, source.first, source.step, False, count, n_keys)
    pack_column_panels(block, Rows(panels, first, KEYS * panel))
    start = (n_keys + together - 1) // together
    end = (n_keys + panel - 1) // panel * panel // together
    for p in range(first, first + count * KEYS, KEYS * panel):
        fill_zeros(panels, p + start * panel, p + end * panel)


@part
def pack_keys_turned(source, n_keys, count, panels, first, width):
    """Panels of the transpose: panel p holds keys p·tile_columns …, element by element, with room for ``width``."""
    block = Source(source.array, source.first, source.step, True, n_keys, count)
    pack_column_panels(block, Rows(panels, first, width * tile_columns(panels)))


@part
def pair_rows(array, panels, first, n_rows, step, width):
    """Rows of ``array`` become words, where panels hold words.

    Words of two numbers, those of rows 2r and 2r + 1, lie in the place of row 2r; words of one lie where the numbers were.
    """
    if numbers_in(panels) == 2:
        for row in range(first, first + n_rows * step, 2 * step):
            for j in range(row, row + width, lanes(array)):
                store_paired(panels, j, load(array, j), load(array, j + step))
    elif is_rounded(panels):
        for row in range(first, first + n_rows * step, step):
            for j in range(0, width, lanes(array)):
                store_row(panels, row, j, load(array, row + j))


@part
def fill_zeros(memory, start, end):
    """memory[start : end] = 0."""
    i, zero = start, broadcast(memory, memory.dtype.type(0))
    while i + lanes(memory) <= end:
        store(memory, i, zero)
        i += lanes(memory)
    store_tail(memory, i, zero, end - i)


@part
def first_seen(first_key, b, i):
    """The first key that query i sees."""
    return first_key[b, i] if first_key.size else 0


@part
def _set_range(ranges, strip, kind, low, high, step):
    """The range from ``low`` to ``high`` in whole steps."""
    ranges[strip, kind] = low // step * step
    ranges[strip, kind + 1] = (high + step - 1) // step * step


@part
def strip_ranges(ranges, first_key, queries, tile, like):
    """Which part of a tile of keys each strip needs, in all three forms; (0, 0) for none. True if any does.

    like: an array whose element type decides the size of vectors and panels.
    """
    needed = False
    for strip in range((queries.n_rows + STRIP_ROWS - 1) // STRIP_ROWS):
        i = queries.start + strip * STRIP_ROWS
        end = queries.start + min(queries.n_rows, strip * STRIP_ROWS + STRIP_ROWS)
        low = first_seen(first_key, queries.sequence, i)
        high = min(queries.offset + end - tile, KEYS)
        for row in range(i + 1, end if first_key.size else i):
            low = min(low, first_key[queries.sequence, row])
        low = max(low - tile, 0)
        if low >= high:
            low = high = 0
        _set_range(ranges, strip, IN_PANELS, low, high, tile_columns(like))
        _set_range(ranges, strip, IN_VECTORS, low, high, lanes(like))
        _set_range(ranges, strip, IN_KEYS, low, high, _K_TOGETHER)
        needed = needed or low < high
    return needed


@part
def end_of_weights(ranges, strip, first_key, queries, tile):
    """The end of the keys of a tile whose weights `add_weighted_turned` reads in a strip, in whole strips.

    A strip is read where it sees keys, or where strips before and after it do, which takes documents to happen.
    """
    end = ranges[strip, IN_KEYS + 1]
    if first_key.size:
        end = min(queries.offset + queries.start + queries.n_rows - tile, KEYS)
    return (end + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS


@part
def earliest_seen(first_key, queries):
    """The first key that any of the queries sees."""
    low = queries.offset + queries.start
    for r in range(queries.n_rows):
        low = min(low, first_seen(first_key, queries.sequence, queries.start + r))
    return low


@part
def pack_strips(source, n_rows, head_size, panels, strips, step):
    """Rows (of queries, or of dout) into strips, each STRIP_ROWS · ``step`` elements on from the one before."""
    block = Source(source.array, source.first, source.step, True, n_rows, head_size)
    pack_row_panels(block, Rows(panels, strips, STRIP_ROWS * step))


@part
def multiply_by_keys(ranges, n_strips, memory, panels, strips, step, keys, width, head_size, scores):
    """scores = rows·keysᵀ for the parts of the tile that the strips need; the rows in strips, ``keys`` in turned panels."""
    none, nothing = Shift(memory, 0, False), Ahead(memory, scores, 0)
    for p in range(0, KEYS, tile_columns(memory)):
        for strip in range(n_strips):
            if ranges[strip, IN_PANELS] <= p < ranges[strip, IN_PANELS + 1]:
                row = strip * STRIP_ROWS
                both = Panels(panels, strips + row * step, keys + p * width, words_of(panels, head_size))
                target = Target(memory, scores + row * SCORES_STEP + p, SCORES_STEP, False)
                if ranges[strip, IN_VECTORS + 1] <= p + lanes(memory):
                    multiply_narrow_tile(both, target, none, nothing)
                else:
                    multiply_tile(both, target, none, nothing)


@part
def add_weighted(ranges, n_strips, memory, panels, weights, values, width, out, step):
    """out += weights·values over the part of the tile that each strip needs; ``values`` in plain panels."""
    panel, together = tile_columns(memory), numbers_in(panels)
    for p in range(0, width, panel):
        for strip in range(n_strips):
            low, high = ranges[strip, IN_KEYS] // together, ranges[strip, IN_KEYS + 1] // together
            if low < high:
                row = strip * STRIP_ROWS
                left = Rows(panels, weights + row * SCORES_STEP + low, SCORES_STEP)
                right = Rows(panels, values + p * KEYS + low * panel, panel)
                add_product(left, right, high - low, Rows(memory, out + row * step + p, step))


@part
def add_weighted_turned(ranges, n_strips, memory, panels, weights, rows, n_keys, width, out, step):
    """out += weightsᵀ·rows for a tile's keys, each over the strips that see it; outside a row's range weights are 0.

    Where ``panels`` holds words of two numbers, a word has the weights of rows 2r and 2r + 1 (see `pair_rows` for ``rows``).
    """
    together = numbers_in(panels)
    for key in range(0, n_keys, STRIP_ROWS):
        first, end = n_strips, 0
        for strip in range(n_strips):
            if ranges[strip, IN_KEYS] < key + STRIP_ROWS and key < ranges[strip, IN_KEYS + 1]:
                first, end = min(first, strip), strip + 1
        if first < end:
            row, depth = first * STRIP_ROWS, (end - first) * STRIP_ROWS // together
            left = Rows(panels, weights + row * SCORES_STEP + key, SCORES_STEP * together)
            for p in range(0, width, tile_columns(memory)):
                right = Rows(panels, rows + row * step + p, step * together)
                add_turned_product(left, right, depth, Rows(memory, out + key * step + p, step))


@part
def head_rows(x, b, t, h):
    """The ``Rows`` of head h of batch b of x (B, T, n_head, head_size), from position t on."""
    first, step = b * (x.strides[0] // x.itemsize) + h * (x.strides[2] // x.itemsize), x.strides[1] // x.itemsize
    return Rows(x, first + t * step, step)
