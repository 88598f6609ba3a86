"""The inner pieces of attention: products of small tiles that stay in cache, and the copies that feed them.

The tiles of ``gemm_tile`` want both operands packed. Attention's left operands are never used often enough to be
worth it: here a row of A is read where it lies, one number at a time, and only the right operand comes in panels of
`panel` columns. ``turned`` products read A down its columns, so that Pᵀ·dout needs no transposed copy of P.

Like there, each sum is one chain of fused multiply-adds in order of k: an element has the same bits wherever in
a tile it falls, and extra zeros at either end of k do not change it.
"""

import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..gemm.tile import TILE, pack_column_panels
from ..runtime import emitting
from ..runtime.decorators import part
from ..runtime.emitting import Lanes, native
from ..runtime.vectors import broadcast, lanes, load, load_tail, prefetch, store, store_tail

ROWS = TILE.rows
UNROLL = 2  # divides every tile's rows and columns, hence every depth there is

_I64 = ir.IntType(64)


@intrinsic
def panel(typingctx, like):
    """Columns of one product, for the element type of the array ``like``."""
    count = TILE.vectors * native(like.dtype).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


def _at(builder, pointer, *offsets):
    for offset in offsets:
        pointer = builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])
    return pointer


def _product(turned, add):
    """An intrinsic for ROWS rows of one panel; ``turned``: A's rows lie side by side; ``add``: out +=, not out =."""

    @intrinsic
    def product(typingctx, a, a_index, a_step, b, b_index, b_step, depth, out, out_index, out_step):
        """out[i, j] (+)= Σ_k A[i, k]·B[k, j] for ROWS × `panel` elements; k runs to ``depth``, a multiple of UNROLL.

        A[i, k] is a[a_index + i·a_step + k], or turned a[a_index + i + k·a_step]; B[k, j] is b[b_index + k·b_step + j];
        out[i, j] is out[out_index + i·out_step + j].
        """
        vector, size = native(b.dtype), types.int64
        sig = types.void(a, size, size, b, size, size, size, out, size, size)

        def codegen(context, builder, sig, args):
            a_first, b_first, out_first = (
                _at(builder, emitting.data_pointer(context, builder, sig.args[n], args[n]), args[n + 1])
                for n in (0, 3, 7)
            )
            places = [[cgutils.alloca_once(builder, vector.ir) for _ in range(TILE.vectors)] for _ in range(ROWS)]
            for place in sum(places, []):
                builder.store(ir.Constant(vector.ir, None), place)
            rows = [_at(builder, a_first, i if turned else builder.mul(_I64(i), args[2])) for i in range(ROWS)]
            with cgutils.for_range(builder, builder.udiv(args[6], _I64(UNROLL))) as loop:
                for step in range(UNROLL):
                    k = builder.add(builder.mul(loop.index, _I64(UNROLL)), _I64(step))
                    here = [_at(builder, row, builder.mul(k, args[2]) if turned else k) for row in rows]
                    _step(builder, here, _at(builder, b_first, builder.mul(k, args[5])), places, vector)
            for i in range(ROWS):
                row = _at(builder, out_first, builder.mul(_I64(i), args[9]))
                for j in range(TILE.vectors):
                    total = Lanes(builder, builder.load(places[i][j]), vector)
                    place = _at(builder, row, j * vector.lanes)
                    emitting.store_vector(emitting.load_vector(builder, place, vector) + total if add else total, place)
            return context.get_dummy_value()

        return sig, codegen

    return product


def _step(builder, numbers, columns, places, vector):
    """One k: every sum gains one product."""
    columns = [
        emitting.load_vector(builder, _at(builder, columns, j * vector.lanes), vector) for j in range(TILE.vectors)
    ]
    for number, row in zip(numbers, places):
        number = emitting.splat(builder, builder.load(number), vector)
        for column, place in zip(columns, row):
            builder.store(emitting.fma(number, column, Lanes(builder, builder.load(place), vector)).value, place)


product = _product(turned=False, add=False)
add_product = _product(turned=False, add=True)
add_turned_product = _product(turned=True, add=True)


def panel_columns(itemsize):
    """What `panel` is in compiled code."""
    return TILE.vectors * emitting.VECTOR_BYTES // itemsize


# Sizes of the tiles, in rows of the left operand: multiples of ROWS and, for keys, of the panel in either precision.
_PANEL = panel_columns(4)
_COMMON = math.lcm(_PANEL, ROWS)
KEYS = -(-96 // _COMMON) * _COMMON
QUERIES = -(-48 // ROWS) * ROWS
SCORES_STEP = KEYS + _PANEL  # elements between rows of scores: not a power of two, which would crowd the cache


_AHEAD = 4  # rows


@part
def fetch_rows(source, index, step, n_rows, count):
    """Ask for rows of ``count`` elements, ``step`` apart, ahead of their use; none need exist.

    A head's rows are short and far apart: the processor by itself does not see what will be read next.
    """
    for row in range(n_rows):
        start = index + row * step
        for i in range(start, start + count, 64 // source.itemsize):
            prefetch(source, i)


@part
def copy_rows(source, index, step, n_rows, count, out, place, out_step, n_padded, width):
    """Rows of ``count`` elements, ``step`` apart, to rows of ``width`` elements, ``out_step`` apart; the rest zeros."""
    for row in range(n_padded):
        fetch_rows(source, index + (row + _AHEAD) * step, step, 1, count)
        left, start, to, j = count if row < n_rows else 0, index + row * step, place + row * out_step, 0
        while j + lanes(out) <= left:
            store(out, to + j, load(source, start + j))
            j += lanes(out)
        while j < width:
            store(out, to + j, load_tail(source, start + j, left - j))
            j += lanes(out)


@part
def pack_keys(source, index, step, n_keys, count, out, place):
    """Panels of up to KEYS keys, or values, of ``count`` elements: panel p holds elements p·panel … of all of them."""
    pack_column_panels(source, index, step, False, count, n_keys, out, place, KEYS * panel(out))
    end = (n_keys + panel(out) - 1) // panel(out) * panel(out)
    for p in range(place, place + count * KEYS, KEYS * panel(out)):
        for i in range(p + n_keys * panel(out), p + end * panel(out), lanes(out)):
            store(out, i, broadcast(out, 0.0))


@part
def pack_keys_turned(source, index, step, n_keys, count, out, place, width):
    """Panels of the transpose: panel p holds keys p·panel …, element by element, ``width`` deep."""
    pack_column_panels(source, index, step, True, n_keys, count, out, place, width * panel(out))
    for p in range(place, place + n_keys * width, width * panel(out)):
        for i in range(p + count * panel(out), p + width * panel(out), lanes(out)):
            store(out, i, broadcast(out, 0.0))


@part
def fill_zeros(s, start, end):
    i = start
    while i + lanes(s) <= end:
        store(s, i, broadcast(s, 0.0))
        i += lanes(s)
    store_tail(s, i, broadcast(s, 0.0), end - i)


@part
def first_seen(first_key, b, i):
    """The first key that query i sees."""
    return first_key[b, i] if first_key.size else 0


@part
def strip_ranges(ranges, first_key, b, start, n_rows, offset, tile, step):
    """Which part of the key tile each strip of rows needs, in steps of a panel; (0, 0) where none. True if any does."""
    needed = False
    for strip in range((n_rows + ROWS - 1) // ROWS):
        i, end = start + strip * ROWS, start + min(n_rows, strip * ROWS + ROWS)
        low, high = first_seen(first_key, b, i), min(offset + end - tile, KEYS)
        for row in range(i + 1, end if first_key.size else i):
            low = min(low, first_key[b, row])
        low, high = max(low - tile, 0) // step * step, (high + step - 1) // step * step
        if low >= high:
            low = high = 0
        ranges[strip, 0], ranges[strip, 1] = low, high
        needed = needed or low < high
    return needed


@part
def multiply_by_keys(ranges, n_strips, s, rows, step, keys, width, scores):
    """scores = rows·keysᵀ for the parts of the tile that the strips need; ``keys`` in turned panels."""
    for p in range(0, KEYS, panel(s)):
        for strip in range(n_strips):
            if ranges[strip, 0] <= p < ranges[strip, 1]:
                row = strip * ROWS
                product(
                    s,
                    rows + row * step,
                    step,
                    s,
                    keys + p * width,
                    panel(s),
                    width,
                    s,
                    scores + row * SCORES_STEP + p,
                    SCORES_STEP,
                )


@part
def add_weighted(ranges, n_strips, s, weights, values, width, out, step):
    """out += weights·values over the part of the tile that each strip needs; ``values`` in plain panels."""
    for p in range(0, width, panel(s)):
        for strip in range(n_strips):
            low, high = ranges[strip, 0], ranges[strip, 1]
            if low < high:
                row = strip * ROWS
                add_product(
                    s,
                    weights + row * SCORES_STEP + low,
                    SCORES_STEP,
                    s,
                    values + p * KEYS + low * panel(s),
                    panel(s),
                    high - low,
                    s,
                    out + row * step + p,
                    step,
                )


@part
def add_weighted_turned(ranges, n_strips, s, weights, rows, n_keys, width, out, step):
    """out += weightsᵀ·rows for a tile's keys, each over the strips that see it; outside a row's range weights are 0."""
    for key in range(0, n_keys, ROWS):
        first, end = n_strips, 0
        for strip in range(n_strips):
            if ranges[strip, 0] < key + ROWS and key < ranges[strip, 1]:
                first, end = min(first, strip), strip + 1
        if first < end:
            row = first * ROWS
            for p in range(0, width, panel(s)):
                add_turned_product(
                    s,
                    weights + row * SCORES_STEP + key,
                    SCORES_STEP,
                    s,
                    rows + row * step + p,
                    step,
                    (end - first) * ROWS,
                    s,
                    out + key * step + p,
                    step,
                )


@part
def element_steps(x):
    """How many elements apart neighbours along the first three axes are."""
    return x.strides[0] // x.itemsize, x.strides[1] // x.itemsize, x.strides[2] // x.itemsize
