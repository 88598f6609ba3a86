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
from .plan import DEPTH_STEP


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
SHORT_ROWS = TILE.rows // 3  # of the tile for what is left of C's rows where that is little


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
_A_AHEAD, _B_AHEAD = 24, 16  # k: how far ahead of their use a tile's loop asks for the panels


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


def _vector_at(builder, pointer, offset, vector):
    return emitting.load_vector(builder, _at(builder, pointer, offset), vector)


def _tile_of(n_rows):
    """An intrinsic for the first ``n_rows`` rows of a tile."""

    @intrinsic
    def multiply(typingctx, panels, target, shift, ahead):
        """target[i, j] = or += Σ_k A[k, i]·B[k, j], plus the shift of column j: all columns of a tile.

        panels: ``Panels``; target: ``Target``; shift: ``Shift``; ahead: ``Ahead``.
        """
        vector = native(target.types[0].dtype)

        def codegen(context, builder, sig, args):
            (array_type, array), (_, a_index), (_, b_index), (_, depth) = unpack(builder, panels, args[0])
            (_, out), (_, first), (_, step), (_, add) = unpack(builder, target, args[1])
            (_, bias), (_, bias_index), (_, biased) = unpack(builder, shift, args[2])
            base = emitting.data_pointer(context, builder, array_type, array)
            width = _I64(TILE.vectors * vector.lanes)
            rows = []
            for i in range(n_rows):
                index = builder.add(first, builder.mul(_I64(i), step))
                rows.append(emitting.element_pointer(context, builder, target.types[0], out, index, width))
                for j in range(0, TILE.vectors * emitting.VECTOR_BYTES, _LINE_BYTES):
                    emitting.prefetch(builder, _at(builder, rows[-1], j * vector.lanes // emitting.VECTOR_BYTES))
            a, b = _at(builder, base, a_index), _at(builder, base, b_index)
            soon = _Soon.of(context, builder, ahead, args[3])
            sums = _sum_over_depth(builder, a, b, depth, n_rows, vector, in_words(array_type), soon)
            with builder.if_then(biased):
                pointer = emitting.element_pointer(context, builder, shift.types[0], bias, bias_index, width)
                for j in range(TILE.vectors):
                    number = _vector_at(builder, pointer, j * vector.lanes, vector)
                    for row in sums:
                        builder.store((Lanes(builder, builder.load(row[j]), vector) + number).value, row[j])
            _store_tile(builder, sums, rows, add, vector)
            return context.get_dummy_value()

        return types.void(panels, target, shift, ahead), codegen

    return multiply


multiply_tile = _tile_of(TILE.rows)
multiply_short_tile = _tile_of(SHORT_ROWS)


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
        for j in range(TILE.vectors):
            pointer = _at(builder, row, j * vector.lanes)
            with builder.if_else(add) as (adding, setting):
                with adding:
                    before = emitting.load_vector(builder, pointer, vector)
                    emitting.store_vector(before + sums[i][j], pointer)
                with setting:
                    emitting.store_vector(sums[i][j], pointer)


def _sum_over_depth(builder, a, b, depth, n_rows, vector, rounded, soon):
    """The loop over the depth of two panels, of words where ``rounded``; returns pointers to the sums, rows × vectors.

    LLVM keeps the sums in registers. Both panels are asked for some steps ahead: they stream from the second-level cache.
    """
    width = TILE.vectors * vector.lanes
    pointers = [[cgutils.alloca_once(builder, vector.ir) for _ in range(TILE.vectors)] for _ in range(n_rows)]
    for pointer in sum(pointers, []):
        builder.store(ir.Constant(vector.ir, None), pointer)
    with cgutils.for_range(builder, builder.sdiv(depth, _I64(DEPTH_STEP))) as loop:
        a_here = _at(builder, a, builder.mul(loop.index, _I64(DEPTH_STEP * TILE.rows)))
        b_here = _at(builder, b, builder.mul(loop.index, _I64(DEPTH_STEP * width)))
        soon.ask(builder, loop.index)
        _ask_for_step(builder, a_here, _A_AHEAD, TILE.rows, vector)
        _ask_for_step(builder, b_here, _B_AHEAD, width, vector)
        for k in range(DEPTH_STEP):
            numbers = [_at(builder, a_here, k * TILE.rows + i) for i in range(n_rows)]
            add_products(builder, numbers, _at(builder, b_here, k * width), pointers, vector, rounded)
    return pointers


def _ask_for_step(builder, panel, ahead, width, vector):
    """Prefetch what a step of the loop reads of a panel, ``ahead`` k on."""
    line = _LINE_BYTES * 8 // vector.element.bitwidth
    for i in range(0, DEPTH_STEP * width, line):
        emitting.prefetch(builder, _at(builder, panel, ahead * width + i))


def add_products(builder, numbers, columns, sums, vector, rounded):
    """One element of each line: each sum gains the product of its row's and its column's.

    numbers: a pointer for each row; columns: the pointer to the first of TILE.vectors vectors; sums: pointers to vectors,
    rows × TILE.vectors. Where ``rounded``, numbers and columns are words.
    """
    element = Vector(types.uint32, vector.lanes) if rounded else vector
    columns = [_vector_at(builder, columns, j * vector.lanes, element) for j in range(TILE.vectors)]
    for number, row in zip(numbers, sums):
        number = emitting.splat(builder, builder.load(number), element)
        for column, pointer in zip(columns, row):
            total = Lanes(builder, builder.load(pointer), vector)
            total = dot_words(total, number, column) if rounded else emitting.fma(number, column, total)
            builder.store(total.value, pointer)
