"""The two inner pieces of matrix multiplication: packing a panel, and multiplying two packed panels.

A *panel* holds ``width`` rows of A (or columns of B) so that the tile's loop reads memory in one straight line: at
depth k stand the ``width`` elements that are needed together, then those of k + 1. A is packed in panels of
``TILE.rows`` lanes, B in panels of ``tile_columns``. Lanes outside the matrix are zero, and so is the depth up to a
multiple of ``UNROLL``, so that the loop has neither edges nor remainders.

The tile keeps ``rows × vectors`` sums in registers: for each k it loads the B vectors, and for each row broadcasts one
number of A and multiplies. How many sums fit depends on the CPU: as many as there are registers, less the B vectors and
one for A (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Every sum is added up in
order of k by one chain of fused multiply-adds, so an element has the same bits wherever in a tile it falls.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime import emitting
from ..runtime.emitting import Lanes, native

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


TILE = choose_tile(emitting.VECTOR_BYTES, emitting.cpu_features())


@intrinsic
def tile_columns(typingctx, like):
    """Columns of C that one tile covers, for the element type of the array ``like``."""
    count = TILE.vectors * native(like.dtype).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


_I64 = ir.IntType(64)


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


def _vector_at(builder, pointer, offset, vector):
    return emitting.load_vector(builder, _at(builder, pointer, offset), vector)


@intrinsic
def multiply_tile(typingctx, panels, a_index, b_index, depth, out, out_index, row_step, add, bias, bias_index, biased):
    """out[out_index + i·row_step + j] = Σ_k A[k, i]·B[k, j], or += where ``add``: one whole tile.

    ``panels`` holds the panel of A at ``a_index`` and that of B at ``b_index``; ``depth`` is a multiple of UNROLL.
    Where ``biased``, bias[bias_index + j] is added too.
    """
    vector = native(panels.dtype)
    size = types.int64
    sig = types.void(panels, size, size, size, out, size, size, types.boolean, bias, size, types.boolean)

    def codegen(context, builder, sig, args):
        base = emitting.data_pointer(context, builder, panels, args[0])
        a, b = _at(builder, base, args[1]), _at(builder, base, args[2])
        rows = [
            emitting.element_pointer(
                context,
                builder,
                out,
                args[4],
                builder.add(args[5], builder.mul(_I64(i), args[6])),
                _I64(TILE.vectors * vector.lanes),
            )
            for i in range(TILE.rows)
        ]
        for row in rows:
            emitting.prefetch(builder, row)
        sums = _sum_over_depth(builder, a, b, args[3], vector)
        with builder.if_then(args[10]):
            index, count = args[9], _I64(TILE.vectors * vector.lanes)
            pointer = emitting.element_pointer(context, builder, bias, args[8], index, count)
            for j in range(TILE.vectors):
                shift = _vector_at(builder, pointer, j * vector.lanes, vector)
                for row in sums:
                    builder.store((Lanes(builder, builder.load(row[j]), vector) + shift).value, row[j])
        sums = [[Lanes(builder, builder.load(place), vector) for place in row] for row in sums]
        for i, row in enumerate(rows):
            for j in range(TILE.vectors):
                place = _at(builder, row, j * vector.lanes)
                with builder.if_else(args[7]) as (adding, setting):
                    with adding:
                        before = emitting.load_vector(builder, place, vector)
                        emitting.store_vector(before + sums[i][j], place)
                    with setting:
                        emitting.store_vector(sums[i][j], place)
        return context.get_dummy_value()

    return sig, codegen


def _sum_over_depth(builder, a, b, depth, vector):
    """The loop over k; returns where the sums are, rows × vectors (registers, once LLVM has been over it)."""
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
                number = emitting.splat(builder, number, vector)
                for j, column in enumerate(columns):
                    total = Lanes(builder, builder.load(places[i][j]), vector)
                    builder.store(emitting.fma(number, column, total).value, places[i][j])
    return places


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


class _Packer(NamedTuple):
    """What emitting the code that packs needs to know: the shape of a panel, and where source and panels are."""

    builder: ir.IRBuilder
    vector: emitting.Vector
    width: int
    source: ir.Value  # pointer to the element at lane 0, k = 0
    row_step: ir.Value
    depth: ir.Value
    target: ir.Value  # pointer to the first panel
    panel_step: ir.Value

    def pieces(self):
        """The lanes of a panel as (first, how many) for each vector it takes; only the last may be partial."""
        lanes = self.vector.lanes
        return [(first, min(lanes, self.width - first)) for first in range(0, self.width, lanes)]

    def element(self, lane, k, turned):
        lane, k = (_I64(i) if isinstance(i, int) else i for i in (lane, k))
        row, column = (lane, k) if turned else (k, lane)
        return _at(self.builder, self.source, self.builder.add(self.builder.mul(row, self.row_step), column))

    def place(self, panel, k, lane):
        offset = self.builder.add(self.builder.mul(panel, self.panel_step), self.builder.mul(k, _I64(self.width)))
        return _at(self.builder, _at(self.builder, self.target, offset), lane)


def _copy_rows(packer, panel, count, lanes_left=None):
    """Pack ``count`` panels where lanes lie side by side in the source: for each k, copy as much of its row.

    ``lanes_left`` is given for a single panel that is not whole.
    """
    builder, vector = packer.builder, packer.vector
    masks = []
    for first, lanes in packer.pieces():
        limit = _I64(lanes)
        if lanes_left is not None:
            left = builder.sub(lanes_left, _I64(first))
            limit = builder.select(builder.icmp_signed("<", left, limit), left, limit)
        whole = lanes_left is None and lanes == vector.lanes
        masks.append(None if whole else emitting.first_lanes(builder, limit, vector))
    lane = builder.mul(panel, _I64(packer.width))
    with cgutils.for_range(builder, packer.depth) as loop:
        for i in range(count):
            row = packer.element(builder.add(lane, _I64(i * packer.width)), loop.index, turned=False)
            for (first, _), mask in zip(packer.pieces(), masks):
                pointer = _at(builder, row, first)
                if mask is None:
                    loaded = emitting.load_vector(builder, pointer, vector)
                else:
                    loaded = emitting.load_masked(builder, pointer, vector, mask)
                # A partial vector spills over into the place of k + 1, which is written next.
                emitting.store_vector(loaded, packer.place(builder.add(panel, _I64(i)), loop.index, first))


def _turn_square(packer, panel, k, lanes_left=None, depth_left=None):
    """Pack as many k as a vector has lanes where depth runs along the source's rows; zeros beyond what is left."""
    builder, vector = packer.builder, packer.vector
    origin, squares = builder.mul(panel, _I64(packer.width)), []
    for first, lanes in packer.pieces():
        rows = []
        for lane in range(first, first + vector.lanes):
            if lane >= first + lanes:
                rows.append(Lanes(builder, ir.Constant(vector.ir, None), vector))
                continue
            pointer = packer.element(builder.add(origin, _I64(lane)), k, turned=True)
            if depth_left is None:
                rows.append(emitting.load_vector(builder, pointer, vector))
            else:
                inside = builder.icmp_signed("<", _I64(lane), lanes_left)
                mask = emitting.first_lanes(builder, builder.select(inside, depth_left, _I64(0)), vector)
                rows.append(emitting.load_masked(builder, pointer, vector, mask))
        squares.append(_transpose(rows))
    for step in range(vector.lanes):
        for (first, _), square in zip(packer.pieces(), squares):
            emitting.store_vector(square[step], packer.place(panel, builder.add(k, _I64(step)), first))


_SIDE_BY_SIDE = 4  # panels packed together, so that each visit to a row of the source takes whole cache lines


def _pack_straight(packer, whole, rest):
    builder = packer.builder
    together = builder.mul(builder.sdiv(whole, _I64(_SIDE_BY_SIDE)), _I64(_SIDE_BY_SIDE))
    with cgutils.for_range_slice(builder, _I64(0), together, _I64(_SIDE_BY_SIDE), inc=True) as (panel, _):
        _copy_rows(packer, panel, _SIDE_BY_SIDE)
    with cgutils.for_range_slice(builder, together, whole, _I64(1), inc=True) as (panel, _):
        _copy_rows(packer, panel, 1)
    with builder.if_then(builder.icmp_signed(">", rest, _I64(0))):
        _copy_rows(packer, whole, 1, lanes_left=rest)


def _pack_turned(packer, whole, rest):
    builder, step = packer.builder, _I64(packer.vector.lanes)
    depth_left = builder.srem(packer.depth, step)
    even = builder.sub(packer.depth, depth_left)
    with cgutils.for_range(builder, whole) as panels:
        with cgutils.for_range_slice(builder, _I64(0), even, step, inc=True) as (k, _):
            _turn_square(packer, panels.index, k)
        with builder.if_then(builder.icmp_signed(">", depth_left, _I64(0))):
            _turn_square(packer, panels.index, even, _I64(packer.width), depth_left)
    with builder.if_then(builder.icmp_signed(">", rest, _I64(0))):
        with cgutils.for_range_slice(builder, _I64(0), packer.depth, step, inc=True) as (k, _):
            _turn_square(packer, whole, k, rest, builder.sub(packer.depth, k))


def _zero_depth(packer, panels):
    """Zero the k from ``depth`` up to the next multiple of UNROLL."""
    builder, vector = packer.builder, packer.vector
    end = builder.mul(builder.sdiv(builder.add(packer.depth, _I64(UNROLL - 1)), _I64(UNROLL)), _I64(UNROLL))
    zero = Lanes(builder, ir.Constant(vector.ir, None), vector)
    with builder.if_then(builder.icmp_signed("<", packer.depth, end)):
        with cgutils.for_range(builder, panels) as loop:
            with cgutils.for_range_slice(builder, packer.depth, end, _I64(1), inc=True) as (k, _):
                for first, _ in packer.pieces():
                    emitting.store_vector(zero, packer.place(loop.index, k, first))


def _check_source(context, builder, sig, args):
    """In a checked run: the last element that packing reads lies in the source."""
    if emitting.CHECK_BOUNDS:
        _, index, row_step, turned, lane_count, depth, _, _, _ = args
        rows = builder.select(turned, lane_count, depth)
        length = builder.select(turned, depth, lane_count)
        last = builder.add(index, builder.mul(builder.sub(rows, _I64(1)), row_step))
        emitting.element_pointer(context, builder, sig.args[0], args[0], last, length)


def _pack(width_of):
    """An intrinsic that packs panels of ``width_of(vector)`` lanes."""

    @intrinsic
    def pack(typingctx, source, index, row_step, turned, lane_count, depth, panels, panel_index, panel_step):
        """Pack ``lane_count`` lanes, from source[index] on, into one panel after the other.

        Element (k, lane) is at index + k·row_step + lane, or where ``turned`` at index + lane·row_step + k. The last
        panel's missing lanes become 0, as do k beyond ``depth`` up to a multiple of UNROLL. Panels begin
        ``panel_step`` apart, which must leave room behind each for one vector more than it holds.
        """
        vector, size = native(source.dtype), types.int64
        width = width_of(vector)

        def codegen(context, builder, sig, args):
            _, index, row_step, turned, lane_count, depth, _, place, panel_step = args
            _check_source(context, builder, sig, args)
            origin = _at(builder, emitting.data_pointer(context, builder, source, args[0]), index)
            target = _at(builder, emitting.data_pointer(context, builder, panels, args[6]), place)
            packer = _Packer(builder, vector, width, origin, row_step, depth, target, panel_step)
            whole, rest = builder.sdiv(lane_count, _I64(width)), builder.srem(lane_count, _I64(width))
            with builder.if_else(turned) as (columns, rows):
                with columns:
                    _pack_turned(packer, whole, rest)
                with rows:
                    _pack_straight(packer, whole, rest)
            _zero_depth(packer, builder.sdiv(builder.add(lane_count, _I64(width - 1)), _I64(width)))
            return context.get_dummy_value()

        return types.void(source, size, size, types.boolean, size, size, panels, size, size), codegen

    return pack


pack_row_panels = _pack(lambda vector: TILE.rows)
pack_column_panels = _pack(lambda vector: TILE.vectors * vector.lanes)
