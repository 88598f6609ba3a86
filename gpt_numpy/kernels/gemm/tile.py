"""The innermost loop of matrix multiplication: one tile of C from two packed panels.

The tile keeps ``rows × vectors`` sums in registers: for each k it loads the B vectors, and for each row broadcasts one
number of A and multiplies. How many sums fit depends on the CPU: as many as there are registers, less the B vectors and
one for A (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Every sum is added up in
order of k by one chain of fused multiply-adds, so an element has the same bits wherever in a tile it falls.

Where the panels hold words of numbers rounded to bfloat16 (``runtime.bfloat16``), the tile multiplies words: pairs with
``vdpbf16ps`` where the CPU has it (AVX512_BF16), else numbers with the multiply-add of float32. Both multiply the same
operands and add up in float32, the instruction with the two products of a pair in the other order, with denormals taken
as 0 on both sides, and each addition rounded to nearest: their results differ by rounding, within the same bound.
``GPT_NUMPY_BFLOAT16=widened`` asks for the second way where the CPU has the first.

``packing`` describes the panels.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime import emitting
from ..runtime.bfloat16 import TOGETHER, dot_words, in_words
from ..runtime.emitting import Lanes, Vector, native, unpack
from .plan import DEPTH_STEP, short_rows


class Tile(NamedTuple):
    rows: int
    vectors: int  # of columns


class Panels(NamedTuple):
    """A packed panel of A and one of B, in the same array."""

    array: np.ndarray
    a: int  # where the panel of A begins
    b: int  # where the panel of B begins
    depth: int  # a multiple of DEPTH_STEP


class Target(NamedTuple):
    """The tile of C: element (i, j) is array[first + i · step + j]."""

    array: np.ndarray
    first: int
    step: int
    add: bool  # +=, not =


class Ahead(NamedTuple):
    """Memory that will be read soon: step i of a tile's loop asks for the cache line of array[first + i · step]."""

    array: np.ndarray
    first: int
    step: int


class Shift(NamedTuple):
    """bias[first + j] is added to column j of a tile, if ``present``."""

    bias: np.ndarray
    first: int
    present: bool


def choose_tile(vector_bytes, features):
    """The tile for registers of this width: AVX-512 and NEON have 32 of them, AVX2 and SSE 16."""
    if vector_bytes == 64:
        return Tile(14, 2)
    if vector_bytes == 16 and "neon" in features:
        return Tile(8, 3)
    return Tile(6, 2)


TILE = choose_tile(emitting.VECTOR_BYTES, emitting.cpu_features())
SHORT_ROWS = short_rows(TILE.rows)


def columns_of(itemsize):
    """Columns of C that one tile covers, for elements of so many bytes."""
    return TILE.vectors * emitting.VECTOR_BYTES // itemsize


@intrinsic
def words_of(typingctx, panels, depth):
    """Elements that ``depth`` k of a line take in an array of panels, up to a multiple of DEPTH_STEP."""
    per_word = TOGETHER if in_words(panels) else 1

    def codegen(context, builder, sig, args):
        step = _I64(per_word * DEPTH_STEP)
        steps = builder.sdiv(builder.add(args[1], _I64(per_word * DEPTH_STEP - 1)), step)
        return builder.mul(steps, _I64(DEPTH_STEP))

    return types.int64(panels, types.int64), codegen


@intrinsic
def tile_columns(typingctx, like):
    """`columns_of` the element type of the array ``like``: a compile-time constant."""
    count = TILE.vectors * native(like.dtype).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


_I64 = ir.IntType(64)
_LINE_BYTES = 64
_A_AHEAD, _B_AHEAD, _PLAIN_AHEAD = 24, 16, 16  # k: how far ahead of their use a tile's loop asks for panels and rows


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


def _vector_at(builder, pointer, offset, vector):
    return emitting.load_vector(builder, _at(builder, pointer, offset), vector)


def _emit_tile(context, builder, left, panels, target, shift, ahead, tile):
    """target[i, j] = or += Σ_k A[i, k]·B[k, j], plus the shift of column j.

    left: ``_Panel`` or ``_PlainRows``; the other arguments but ``tile`` are pairs (numba type, value).
    """
    vector = native(target[0].types[0].dtype)
    (array_type, array), _, (_, b_index), (_, depth) = unpack(builder, *panels)
    (_, out), (_, first), (_, step), (_, add) = unpack(builder, *target)
    (_, bias), (_, bias_index), (_, biased) = unpack(builder, *shift)
    width = _I64(tile.vectors * vector.lanes)
    rows = []
    for i in range(tile.rows):
        index = builder.add(first, builder.mul(_I64(i), step))
        rows.append(emitting.element_pointer(context, builder, target[0].types[0], out, index, width))
        for j in range(0, tile.vectors * emitting.VECTOR_BYTES, _LINE_BYTES):
            emitting.prefetch(builder, _at(builder, rows[-1], j * vector.lanes // emitting.VECTOR_BYTES))
    b = _at(builder, emitting.data_pointer(context, builder, array_type, array), b_index)
    soon = _Soon.of(context, builder, *ahead)
    sums = _sum_over_depth(builder, left, b, depth, tile, vector, in_words(array_type), soon)
    with builder.if_then(biased):
        pointer = emitting.element_pointer(context, builder, shift[0].types[0], bias, bias_index, width)
        for j in range(tile.vectors):
            number = _vector_at(builder, pointer, j * vector.lanes, vector)
            for row in sums:
                builder.store((Lanes(builder, builder.load(row[j]), vector) + number).value, row[j])
    _store_tile(builder, sums, rows, add, vector)


def _tile_of(n_rows, n_vectors=TILE.vectors):
    """An intrinsic for the first ``n_rows`` rows and ``n_vectors`` vectors of a tile."""

    @intrinsic
    def multiply(typingctx, panels, target, shift, ahead):
        """target[i, j] = or += Σ_k A[k, i]·B[k, j], plus the shift of column j.

        panels: ``Panels``; target: ``Target``; shift: ``Shift``; ahead: ``Ahead``.
        """

        def codegen(context, builder, sig, args):
            (array_type, array), (_, a_index), _, _ = unpack(builder, panels, args[0])
            left = _Panel(_at(builder, emitting.data_pointer(context, builder, array_type, array), a_index), n_rows)
            _emit_tile(context, builder, left, *zip(sig.args, args), Tile(n_rows, n_vectors))
            return context.get_dummy_value()

        return types.void(panels, target, shift, ahead), codegen

    return multiply


multiply_tile = _tile_of(TILE.rows)
multiply_short_tile = _tile_of(SHORT_ROWS)
multiply_narrow_tile = _tile_of(TILE.rows, 1)


@intrinsic
def multiply_plain_tile(typingctx, rows, panels, target, shift, ahead):
    """`multiply_tile` with the rows of A where they lie: rows (``Rows``), from the block's first k on.

    Only for panels of numbers; ``panels.a`` is not read.
    """

    def codegen(context, builder, sig, args):
        if not in_words(panels.types[0]):
            (array_type, array), (_, first), (_, step) = unpack(builder, rows, args[0])
            depth = builder.extract_value(args[1], 3)
            pointers = []
            for i in range(TILE.rows):
                index = builder.add(first, builder.mul(_I64(i), step))
                pointers.append(emitting.element_pointer(context, builder, array_type, array, index, depth))
            _emit_tile(context, builder, _PlainRows(pointers), *list(zip(sig.args, args))[1:], TILE)
        return context.get_dummy_value()

    return types.void(rows, panels, target, shift, ahead), codegen


class _Panel(NamedTuple):
    """A packed panel of A, for the code that is being emitted."""

    pointer: ir.Value
    n_rows: int

    def step(self, builder, index, vector):
        """For each k of step ``index`` of a tile's loop the pointers to the rows' numbers; what comes soon is asked for."""
        here = _at(builder, self.pointer, builder.mul(index, _I64(DEPTH_STEP * TILE.rows)))
        _ask_for_step(builder, here, _A_AHEAD, TILE.rows, vector)
        return [[_at(builder, here, k * TILE.rows + i) for i in range(self.n_rows)] for k in range(DEPTH_STEP)]


class _PlainRows(NamedTuple):
    """Rows of A where they lie, likewise."""

    pointers: list[ir.Value]

    def step(self, builder, index, vector):
        here = [_at(builder, pointer, builder.mul(index, _I64(DEPTH_STEP))) for pointer in self.pointers]
        for pointer in here:
            emitting.prefetch(builder, _at(builder, pointer, _PLAIN_AHEAD))
        return [[_at(builder, pointer, k) for pointer in here] for k in range(DEPTH_STEP)]


class _Soon(NamedTuple):
    """The memory of ``Ahead``, for the code that is being emitted."""

    pointer: ir.Value
    step: ir.Value

    @classmethod
    def of(cls, context, builder, ahead, value):
        (array_type, array), (_, first), (_, step) = unpack(builder, ahead, value)
        return cls(_at(builder, emitting.data_pointer(context, builder, array_type, array), first), step)

    def ask(self, builder, i):
        emitting.prefetch(builder, _at(builder, self.pointer, builder.mul(i, self.step)), locality=2)


def _store_tile(builder, sums, rows, add, vector):
    """Store the sums to ``rows`` of C, or add them."""
    sums = [[Lanes(builder, builder.load(pointer), vector) for pointer in row] for row in sums]
    for i, row in enumerate(rows):
        for j in range(len(sums[i])):
            pointer = _at(builder, row, j * vector.lanes)
            with builder.if_else(add) as (adding, setting):
                with adding:
                    before = emitting.load_vector(builder, pointer, vector)
                    emitting.store_vector(before + sums[i][j], pointer)
                with setting:
                    emitting.store_vector(sums[i][j], pointer)


def _sum_over_depth(builder, left, b, depth, tile, vector, rounded, soon):
    """The loop over the depth of two panels, of words where ``rounded``; returns pointers to the sums of ``tile``.

    LLVM keeps the sums in registers. Both panels are asked for some steps ahead: they stream from the second-level cache.
    """
    width = TILE.vectors * vector.lanes
    pointers = [[cgutils.alloca_once(builder, vector.ir) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    for pointer in sum(pointers, []):
        builder.store(ir.Constant(vector.ir, None), pointer)
    with cgutils.for_range(builder, builder.sdiv(depth, _I64(DEPTH_STEP))) as loop:
        b_here = _at(builder, b, builder.mul(loop.index, _I64(DEPTH_STEP * width)))
        soon.ask(builder, loop.index)
        numbers_of = left.step(builder, loop.index, vector)
        _ask_for_step(builder, b_here, _B_AHEAD, width, vector)
        for k, numbers in enumerate(numbers_of):
            add_products(builder, numbers, _at(builder, b_here, k * width), pointers, vector, rounded)
    return pointers


def _ask_for_step(builder, panel, ahead, width, vector):
    """Prefetch what a step of the loop reads of a panel, ``ahead`` k on."""
    line = _LINE_BYTES * 8 // vector.element.bitwidth
    for i in range(0, DEPTH_STEP * width, line):
        emitting.prefetch(builder, _at(builder, panel, ahead * width + i))


def add_products(builder, numbers, columns, sums, vector, rounded):
    """One element of each line: each sum gains the product of its row's and its column's.

    numbers: a pointer for each row; columns: the pointer to the first vector of columns; sums: pointers to vectors, rows ×
    vectors. Where ``rounded``, numbers and columns are words.
    """
    element = Vector(types.uint32, vector.lanes) if rounded else vector
    columns = [_vector_at(builder, columns, j * vector.lanes, element) for j in range(len(sums[0]))]
    for number, row in zip(numbers, sums):
        number = emitting.splat(builder, builder.load(number), element)
        for column, pointer in zip(columns, row):
            total = Lanes(builder, builder.load(pointer), vector)
            total = dot_words(total, number, column) if rounded else emitting.fma(number, column, total)
            builder.store(total.value, pointer)
