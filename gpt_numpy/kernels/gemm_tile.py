"""The two inner pieces of matrix multiplication: packing a panel, and multiplying two packed panels.

A *panel* holds ``width`` rows of A (or columns of B) so that the tile's loop reads memory in one straight line: at depth
k stand the ``width`` elements that are needed together, then those of k + 1. A is packed in panels of ``TILE.rows``
lanes, B in panels of ``tile_columns``. Lanes outside the matrix are zero, and so is the depth up to a multiple of
``UNROLL``, so that the loop has neither edges nor remainders.

The tile keeps ``rows × vectors`` sums in registers: for each k it loads the B vectors, and for each row broadcasts one
number of A and multiplies. How many sums fit depends on the CPU: as many as there are registers, less the B vectors and
one for A (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Every sum is added up in order
of k by one chain of fused multiply-adds, so an element has the same bits wherever in a tile it falls.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import lanes as ops
from .lanes import Lanes, Vector, native

UNROLL = 4


class Tile(NamedTuple):
    rows: int
    vectors: int


def choose_tile(vector_bytes, features):
    """The tile for registers of this width: AVX-512 and NEON have 32 of them, AVX2 and SSE 16."""
    if vector_bytes == 64:
        return Tile(14, 2)
    if vector_bytes == 16 and "neon" in features:
        return Tile(8, 3)
    return Tile(6, 2)


TILE = choose_tile(ops.VECTOR_BYTES, ops.cpu_features())


@intrinsic
def tile_columns(typingctx, like):
    """Columns of C that one tile covers, for the element type of the array ``like``."""
    count = TILE.vectors * native(like.dtype).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


_I64 = ir.IntType(64)


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


def _vector_at(builder, pointer, offset, vector):
    return ops.load_vector(builder, _at(builder, pointer, offset), vector)


@intrinsic
def multiply_tile(typingctx, panels, a_index, b_index, depth, out, out_index, row_step, add):
    """out[out_index + i·row_step + j] = Σ_k A[k, i]·B[k, j], or += where ``add``: one whole tile.

    ``panels`` holds the panel of A at ``a_index`` and that of B at ``b_index``; ``depth`` is a multiple of UNROLL.
    """
    vector = native(panels.dtype)
    size = types.int64
    sig = types.void(panels, size, size, size, out, size, size, types.boolean)

    def codegen(context, builder, sig, args):
        base = ops.data_pointer(context, builder, panels, args[0])
        a, b = _at(builder, base, args[1]), _at(builder, base, args[2])
        rows = [
            ops.element_pointer(
                context, builder, out, args[4], builder.add(args[5], builder.mul(_I64(i), args[6])),
                _I64(TILE.vectors * vector.lanes),
            )
            for i in range(TILE.rows)
        ]  # fmt: skip
        for row in rows:
            ops.prefetch(builder, row)
        sums = _sum_over_depth(builder, a, b, args[3], vector)
        for i, row in enumerate(rows):
            for j in range(TILE.vectors):
                place = _at(builder, row, j * vector.lanes)
                with builder.if_else(args[7]) as (adding, setting):
                    with adding:
                        before = ops.load_vector(builder, place, vector)
                        ops.store_vector(before + sums[i][j], place)
                    with setting:
                        ops.store_vector(sums[i][j], place)
        return context.get_dummy_value()

    return sig, codegen


def _sum_over_depth(builder, a, b, depth, vector):
    """The loop over k; returns the sums, rows × vectors."""
    width = TILE.vectors * vector.lanes
    places = [[cgutils.alloca_once(builder, vector.ir) for _ in range(TILE.vectors)] for _ in range(TILE.rows)]
    for place in sum(places, []):
        builder.store(ir.Constant(vector.ir, None), place)
    with cgutils.for_range(builder, builder.sdiv(depth, _I64(UNROLL))) as loop:
        a_here = _at(builder, a, builder.mul(loop.index, _I64(UNROLL * TILE.rows)))
        b_here = _at(builder, b, builder.mul(loop.index, _I64(UNROLL * width)))
        for k in range(UNROLL):
            columns = [_vector_at(builder, b_here, k * width + j * vector.lanes, vector) for j in range(TILE.vectors)]
            for i in range(TILE.rows):
                number = builder.load(_at(builder, a_here, k * TILE.rows + i))
                number = ops.splat(builder, number, vector)
                for j, column in enumerate(columns):
                    total = Lanes(builder, builder.load(places[i][j]), vector)
                    builder.store(ops.fma(number, column, total).value, places[i][j])
    return [[Lanes(builder, builder.load(place), vector) for place in row] for row in places]


# Packing.


def _transpose(vectors):
    """As many vectors as each has lanes, seen as the rows of a square: its columns."""
    builder, vector, count = vectors[0].builder, vectors[0].type, vectors[0].type.lanes
    index_type = ir.VectorType(ir.IntType(32), count)

    def shuffle(first, second, order):
        return first.like(builder.shuffle_vector(first.value, second.value, ir.Constant(index_type, order)))

    distance, vectors = 1, list(vectors)
    while distance < vector.lanes:
        for i in range(count):
            if not i & distance:
                low, high = vectors[i], vectors[i | distance]
                even = [lane if not lane & distance else count + (lane ^ distance) for lane in range(count)]
                odd = [lane | distance if not lane & distance else count + lane for lane in range(count)]
                vectors[i], vectors[i | distance] = shuffle(low, high, even), shuffle(low, high, odd)
        distance *= 2
    return vectors


def _groups(width, vector):
    """The lanes of a panel as (first, how many) for each vector it takes; only the last may be partial."""
    return [(first, min(vector.lanes, width - first)) for first in range(0, width, vector.lanes)]


def _emit_straight(builder, source, lane_count, row_step, depth, target, width, vector, whole):
    """Pack where the panel's lanes lie side by side in the source: copy ``width`` elements for each k."""
    masks = []
    for first, count in _groups(width, vector):
        limit = _I64(count)
        if not whole:
            left = builder.sub(lane_count, _I64(first))
            limit = builder.select(builder.icmp_signed("<", left, limit), left, limit)
        masks.append(None if whole and count == vector.lanes else ops.first_lanes(builder, limit, vector))
    with cgutils.for_range(builder, depth) as loop:
        row = _at(builder, source, builder.mul(loop.index, row_step))
        place = _at(builder, target, builder.mul(loop.index, _I64(width)))
        for (first, _), mask in zip(_groups(width, vector), masks):
            pointer = _at(builder, row, first)
            if mask is None:
                loaded = ops.load_vector(builder, pointer, vector)
            else:
                loaded = ops.load_masked(builder, pointer, vector, mask)
            # A partial vector spills over into the place of k + 1, which is written next.
            ops.store_vector(loaded, _at(builder, place, first))


def _emit_turned(builder, source, lane_count, row_step, depth, target, width, vector, whole):
    """Pack where the depth runs along the source's rows: transpose squares of as many k as a vector has lanes.

    ``whole`` says that neither lanes nor depth end inside the square; otherwise zeros fill it.
    """
    blocks = builder.sdiv(builder.add(depth, _I64(0 if whole else vector.lanes - 1)), _I64(vector.lanes))
    with cgutils.for_range(builder, blocks) as loop:
        k = builder.mul(loop.index, _I64(vector.lanes))
        squares = []
        for first, count in _groups(width, vector):
            rows = []
            for lane in range(vector.lanes):
                if lane >= count:
                    rows.append(Lanes(builder, ir.Constant(vector.ir, None), vector))
                    continue
                pointer = _at(builder, source, builder.add(builder.mul(_I64(first + lane), row_step), k))
                if whole:
                    rows.append(ops.load_vector(builder, pointer, vector))
                else:
                    inside = builder.icmp_signed("<", _I64(first + lane), lane_count)
                    left = builder.select(inside, builder.sub(depth, k), _I64(0))
                    mask = ops.first_lanes(builder, left, vector)
                    rows.append(ops.load_masked(builder, pointer, vector, mask))
            squares.append(_transpose(rows))
        for step in range(vector.lanes):
            place = _at(builder, target, builder.mul(builder.add(k, _I64(step)), _I64(width)))
            for (first, _), square in zip(_groups(width, vector), squares):
                ops.store_vector(square[step], _at(builder, place, first))


def _pack(width_of):
    """An intrinsic that packs one panel of ``width_of(vector)`` lanes."""

    @intrinsic
    def pack(typingctx, source, index, row_step, turned, lane_count, depth, panels, panel_index):
        """Pack the panel whose first element is source[index].

        Element (k, lane) is at index + k·row_step + lane, or where ``turned`` at index + lane·row_step + k. ``lane_count``
        lanes exist; the rest become 0, as do those of k beyond ``depth`` up to a multiple of UNROLL. Up to one vector
        more may be written behind the panel.
        """
        vector, size = native(source.dtype), types.int64
        width = width_of(vector)

        def codegen(context, builder, sig, args):
            _, index, row_step, turned, lane_count, depth, _, place = args
            _check_source(context, builder, sig, args)
            origin = _at(builder, ops.data_pointer(context, builder, source, args[0]), index)
            target = _at(builder, ops.data_pointer(context, builder, panels, args[6]), place)
            full = builder.icmp_signed(">=", lane_count, _I64(width))
            common = (builder, origin, lane_count, row_step, depth, target, width, vector)
            with builder.if_else(turned) as (columns, rows):
                with columns:
                    square = builder.icmp_signed("==", builder.srem(depth, _I64(vector.lanes)), _I64(0))
                    with builder.if_else(builder.and_(full, square)) as (inner, edge):
                        with inner:
                            _emit_turned(*common, whole=True)
                        with edge:
                            _emit_turned(*common, whole=False)
                with rows:
                    with builder.if_else(full) as (inner, edge):
                        with inner:
                            _emit_straight(*common, whole=True)
                        with edge:
                            _emit_straight(*common, whole=False)
            _zero_depth(builder, target, depth, width, vector)
            return context.get_dummy_value()

        return types.void(source, size, size, types.boolean, size, size, panels, size), codegen

    return pack


def _zero_depth(builder, target, depth, width, vector):
    """Zero the k from ``depth`` up to the next multiple of UNROLL."""
    end = builder.mul(builder.sdiv(builder.add(depth, _I64(UNROLL - 1)), _I64(UNROLL)), _I64(UNROLL))
    zero = Lanes(builder, ir.Constant(vector.ir, None), vector)
    with cgutils.for_range_slice(builder, depth, end, _I64(1), inc=True) as (k, _):
        for first, _ in _groups(width, vector):
            ops.store_vector(zero, _at(builder, target, builder.add(builder.mul(k, _I64(width)), _I64(first))))


def _check_source(context, builder, sig, args):
    """In a checked run: the last element that packing reads lies in the source."""
    if ops.CHECK_BOUNDS:
        _, index, row_step, turned, lane_count, depth, _, _ = args
        rows = builder.select(turned, lane_count, depth)
        length = builder.select(turned, depth, lane_count)
        last = builder.add(index, builder.mul(builder.sub(rows, _I64(1)), row_step))
        ops.element_pointer(context, builder, sig.args[0], args[0], last, length)


pack_rows_panel = _pack(lambda vector: TILE.rows)
pack_columns_panel = _pack(lambda vector: TILE.vectors * vector.lanes)
