"""Packing a block of A or B into panels, which the tile's loop reads in one straight line.

A *line* is a row of A or a column of B; k is the index within a line. A *panel* holds ``width`` neighbouring lines: the
``width`` elements of depth k are side by side, then those of k + 1. A is packed in panels of ``TILE.rows``
lines, B in panels of ``tile_columns``. Lines outside the matrix are zero, and so is the depth up to a multiple of
``DEPTH_STEP``, so that the tile's loop has neither edges nor remainders.

Products in bfloat16 have panels of words: one or two neighbouring k of a line, rounded to nearest, ties to even, on their
way from the float32 source (``runtime.bfloat16``). Depth in a panel then counts words.

The source is *deep* where k runs along its rows (A as it is, B transposed): packing then transposes small squares in
registers. Where it is not, lines lie side by side, and packing copies pieces of rows. A narrow source
(uint16) is packed into words without a change of its numbers.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime import emitting
from ..runtime.bfloat16 import TOGETHER, elements_of, in_words, numbers_of, pair_lanes, pair_neighbours, round_number
from ..runtime.emitting import Lanes, Vector, unpack
from .plan import DEPTH_STEP
from .tile import TILE

_I64 = ir.IntType(64)


class Source(NamedTuple):
    """A block of a matrix: element (k, line) is array[first + k · step + line].

    Where ``deep``, it is array[first + line · step + k].
    """

    array: np.ndarray
    first: int
    step: int
    deep: bool
    lines: int
    depth: int


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


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
    """What the code that is being emitted packs: the shape of a panel, and where source and panels are."""

    builder: ir.IRBuilder
    vector: emitting.Vector  # of numbers
    elements: emitting.Vector  # of the source: narrow, or the same as ``vector``
    width: int
    source: ir.Value  # pointer to the element of line 0 and k = 0
    step: ir.Value
    depth: ir.Value
    target: ir.Value  # pointer to the first panel
    panel_step: ir.Value
    rounded: bool  # panels are of words

    @property
    def pairs(self):
        """Whether each element of a panel has two k."""
        return self.rounded and TOGETHER == 2

    @property
    def panel_vector(self):
        """The vector type of a panel's elements."""
        return Vector(types.uint32, self.vector.lanes) if self.rounded else self.vector

    def panel_depth(self):
        """Elements of a line in a panel."""
        if not self.pairs:
            return self.depth
        return self.builder.sdiv(self.builder.add(self.depth, _I64(1)), _I64(2))

    def load(self, pointer, mask=None):
        """A vector of the source; only where the mask is on, if there is one."""
        if mask is None:
            return emitting.load_vector(self.builder, pointer, self.elements)
        return emitting.load_masked(self.builder, pointer, self.elements, mask)

    def load_number(self, pointer, mask=None):
        """`load`, as elements of a panel that each hold one number."""
        x = self.load(pointer, mask)
        return round_number(x) if self.rounded else x

    def pieces(self):
        """The lines of a panel as (first, how many) for each vector of them; only the last may be partial."""
        lanes = self.vector.lanes
        return [(first, min(lanes, self.width - first)) for first in range(0, self.width, lanes)]

    def element(self, line, k, deep):
        line, k = (_I64(i) if isinstance(i, int) else i for i in (line, k))
        row, column = (line, k) if deep else (k, line)
        return _at(self.builder, self.source, self.builder.add(self.builder.mul(row, self.step), column))

    def pointer_to(self, panel, k, line):
        offset = self.builder.add(self.builder.mul(panel, self.panel_step), self.builder.mul(k, _I64(self.width)))
        return _at(self.builder, _at(self.builder, self.target, offset), line)


def _copy_rows(packer, panel, count, lines_left=None):
    """Pack ``count`` panels where lines lie side by side in the source: for each k, copy as much of its row.

    ``lines_left`` is given for a single panel that is not whole.
    """
    builder, vector = packer.builder, packer.vector
    masks = []
    for first, lines in packer.pieces():
        limit = _I64(lines)
        if lines_left is not None:
            left = builder.sub(lines_left, _I64(first))
            limit = builder.select(builder.icmp_signed("<", left, limit), left, limit)
        whole = lines_left is None and lines == vector.lanes
        masks.append(None if whole else emitting.first_lanes(builder, limit, vector))
    line = builder.mul(panel, _I64(packer.width))
    with cgutils.for_range(builder, packer.panel_depth()) as loop:
        for i in range(count):
            here = builder.add(line, _I64(i * packer.width))
            for (first, _), mask in zip(packer.pieces(), masks):
                if packer.pairs:
                    packed = _pair_of_rows(packer, here, loop.index, first, mask)
                else:
                    pointer = _at(builder, packer.element(here, loop.index, deep=False), first)
                    packed = packer.load_number(pointer, mask)
                # A partial vector overwrites the first elements of the next k, which are written next.
                emitting.store_vector(packed, packer.pointer_to(builder.add(panel, _I64(i)), loop.index, first))


def _pair_of_rows(packer, line, index, first, mask):
    """Words of k = 2 · index and the one after it, from two rows of the source; beyond the depth, of 0."""
    builder = packer.builder
    low = builder.mul(index, _I64(2))
    high = builder.add(low, _I64(1))
    inside = builder.icmp_signed("<", high, packer.depth)
    below = packer.load(_at(builder, packer.element(line, low, deep=False), first), mask)
    row = builder.select(inside, high, low)  # what lies beyond is not read
    above = packer.load(_at(builder, packer.element(line, row, deep=False), first), mask)
    above = above.like(builder.select(inside, above.value, ir.Constant(above.type.ir, None)))
    return pair_lanes(below, above)


def _turn_square(packer, panel, k, lines_left=None, depth_left=None):
    """Pack as many elements of lines as a vector has lanes, where k runs along the source's rows.

    ``lines_left`` and ``depth_left`` (in k) are given where the source ends; what lies beyond becomes 0.
    """
    builder, vector = packer.builder, packer.vector
    wanted = packer.panel_vector
    origin, squares = builder.mul(panel, _I64(packer.width)), []
    for first, lines in packer.pieces():
        rows = []
        for line in range(first, first + vector.lanes):
            if line >= first + lines:
                rows.append(Lanes(builder, ir.Constant(wanted.ir, None), wanted))
                continue
            pointer = packer.element(builder.add(origin, _I64(line)), k, deep=True)
            parts, load = [], packer.load if packer.pairs else packer.load_number
            for start in (0, vector.lanes) if packer.pairs else (0,):
                mask = None
                if depth_left is not None:
                    inside = builder.icmp_signed("<", _I64(line), lines_left)
                    count = builder.select(inside, builder.sub(depth_left, _I64(start)), _I64(0))
                    mask = emitting.first_lanes(builder, count, vector)
                parts.append(load(_at(builder, pointer, start), mask))
            rows.append(pair_neighbours(*parts) if packer.pairs else parts[0])
        squares.append(_transpose(rows))
    entry = builder.sdiv(k, _I64(2)) if packer.pairs else k
    for step in range(vector.lanes):
        for (first, _), square in zip(packer.pieces(), squares):
            emitting.store_vector(square[step], packer.pointer_to(panel, builder.add(entry, _I64(step)), first))


_SIDE_BY_SIDE = 4  # panels packed together, so that each visit to a row of the source takes whole cache lines


def _pack_side_by_side(packer, whole, rest):
    builder = packer.builder
    together = builder.mul(builder.sdiv(whole, _I64(_SIDE_BY_SIDE)), _I64(_SIDE_BY_SIDE))
    with cgutils.for_range_slice(builder, _I64(0), together, _I64(_SIDE_BY_SIDE), inc=True) as (panel, _):
        _copy_rows(packer, panel, _SIDE_BY_SIDE)
    with cgutils.for_range_slice(builder, together, whole, _I64(1), inc=True) as (panel, _):
        _copy_rows(packer, panel, 1)
    with builder.if_then(builder.icmp_signed(">", rest, _I64(0))):
        _copy_rows(packer, whole, 1, lines_left=rest)


def _pack_deep(packer, whole, rest):
    builder, step = packer.builder, _I64(packer.vector.lanes * (2 if packer.pairs else 1))
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
    """Zero what lies in the panels from their depth up to the next multiple of DEPTH_STEP."""
    builder, depth = packer.builder, packer.panel_depth()
    end = builder.mul(builder.sdiv(builder.add(depth, _I64(DEPTH_STEP - 1)), _I64(DEPTH_STEP)), _I64(DEPTH_STEP))
    vector = packer.panel_vector
    zero = Lanes(builder, ir.Constant(vector.ir, None), vector)
    with builder.if_then(builder.icmp_signed("<", depth, end)):
        with cgutils.for_range(builder, panels) as loop:
            with cgutils.for_range_slice(builder, depth, end, _I64(1), inc=True) as (k, _):
                for first, _ in packer.pieces():
                    emitting.store_vector(zero, packer.pointer_to(loop.index, k, first))


def _pack(width_of):
    """An intrinsic that packs panels of ``width_of(vector)`` lines."""

    @intrinsic
    def pack(typingctx, source, panels):
        """Pack the block ``source`` (``Source``) into one panel after the other.

        panels: ``Rows``, a panel to a row. Behind each there must be room for one vector more than it holds. The last
        panel's missing lines become 0, as do k beyond the depth up to a multiple of DEPTH_STEP.
        """
        vector, elements = numbers_of(source.types[0]), elements_of(source.types[0])
        width = width_of(vector)

        def codegen(context, builder, sig, args):
            (array_type, array), (_, index), (_, step), (_, deep), (_, lines), (_, depth) = unpack(
                builder, source, args[0]
            )
            if emitting.CHECK_BOUNDS:  # the last element that is read
                rows, length = builder.select(deep, lines, depth), builder.select(deep, depth, lines)
                last = builder.add(index, builder.mul(builder.sub(rows, _I64(1)), step))
                emitting.element_pointer(context, builder, array_type, array, last, length)
            origin = _at(builder, emitting.data_pointer(context, builder, array_type, array), index)
            target, panel_step = emitting.unpack_rows(context, builder, panels, args[1])
            rounded = in_words(panels.types[0])
            packer = _Packer(builder, vector, elements, width, origin, step, depth, target, panel_step, rounded)
            whole, rest = builder.sdiv(lines, _I64(width)), builder.srem(lines, _I64(width))
            with builder.if_else(deep) as (along, across):
                with along:
                    _pack_deep(packer, whole, rest)
                with across:
                    _pack_side_by_side(packer, whole, rest)
            _zero_depth(packer, builder.sdiv(builder.add(lines, _I64(width - 1)), _I64(width)))
            return context.get_dummy_value()

        return types.void(source, panels), codegen

    return pack


pack_row_panels = _pack(lambda vector: TILE.rows)
pack_column_panels = _pack(lambda vector: TILE.vectors * vector.lanes)
