"""Pairs of bfloat16 in 32-bit words: rounding float32 into them, and the product of two words.

A *word* holds two numbers, the first in its lower half. With AVX512_BF16 one instruction rounds two vectors
(``vcvtne2ps2bf16``), and one adds the products of a pair to a float32 sum (``vdpbf16ps``); both take denormals as 0. Other
CPUs round in integers and widen each half to a float32 in a register. `emitting.HAS_BFLOAT16` says which way is compiled.

Panels and tiles of scores are arrays either of numbers or of words. The operations for kernels below take both, so that a
kernel is written once: `numbers_in` is 1 or 2, and a constant to the compiler.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import emitting
from .emitting import Lanes, Vector

# Before LLVM 16 the operands of the instructions were integers.
_OLD_LLVM = llvm.llvm_version_info < (16,)


class _Bfloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    intrinsic_name = "bf16"

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _Bfloat)

    def __hash__(self):
        return hash(_Bfloat)


_HALF = ir.IntType(16) if _OLD_LLVM else _Bfloat()


def _call(builder, name, result, values):
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512bf16.{name}"), values)


def dot_pairs(total, x, y):
    """total + x₀·y₀ + x₁·y₁ for words x and y, each product of a pair added to a sum of float32."""
    if not emitting.HAS_BFLOAT16:
        for left, right in zip(halves(x), halves(y)):
            total = emitting.fma(left, right, total)
        return total
    builder, lanes = total.builder, total.type.lanes
    pairs = ir.VectorType(ir.IntType(32), lanes) if _OLD_LLVM else ir.VectorType(_HALF, 2 * lanes)
    x, y = (builder.bitcast(words.value, pairs) for words in (x, y))
    return total.like(_call(builder, "dpbf16ps.512", total.type.ir, [total.value, x, y]))


def halves(words):
    """The two numbers of each word, as float32."""
    return (words << 16).bits(types.float32), (words & 0xFFFF0000).bits(types.float32)


def round_bits(x):
    """Lanes of float32 as uint32 whose upper half is the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = x.bits(types.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return emitting.select(x.differs(x), bits | 0x400000, rounded)


def _round_two(low, high):
    """The lanes of ``low``, then those of ``high``, as bfloat16 in lanes of 16 bits."""
    builder, count = low.builder, low.type.lanes
    halves_of_both = ir.VectorType(ir.IntType(16), 2 * count)
    if emitting.HAS_BFLOAT16:
        both = _call(builder, "cvtne2ps2bf16.512", ir.VectorType(_HALF, 2 * count), [high.value, low.value])
        return builder.bitcast(both, halves_of_both)
    parts = [(round_bits(x) >> 16).convert(types.uint16) for x in (low, high)]
    return builder.shuffle_vector(*(part.value for part in parts), _order(range(2 * count)))


def _order(lanes):
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)


def _words(like, value, count):
    words = Vector(types.uint32, count)
    return Lanes(like.builder, like.builder.bitcast(value, words.ir), words)


def pair_neighbours(low, high):
    """Words of the neighbouring lanes of ``low``, then of those of ``high``: as many as one of the two has lanes."""
    return _words(low, _round_two(low, high), low.type.lanes)


def pair_lanes(first, second):
    """Words of the same lane of two vectors, ``first`` in the lower half."""
    count, builder = first.type.lanes, first.builder
    if not emitting.HAS_BFLOAT16:
        return (round_bits(second) & 0xFFFF0000) | (round_bits(first) >> 16)
    both = _round_two(first, second)
    mixed = [lane // 2 + lane % 2 * count for lane in range(2 * count)]
    return _words(first, builder.shuffle_vector(both, both, _order(mixed)), count)


# For kernels.


@intrinsic
def numbers_in(typingctx, array):
    """How many numbers each element of ``array`` holds: 2 in an array of words, else 1. A compile-time constant."""
    count = 2 if array.dtype is types.uint32 else 1
    return types.int64(array), lambda context, builder, sig, args: context.get_constant(types.int64, count)


@intrinsic
def as_operand(typingctx, array, x):
    """x, a vector of float32, as ``array`` can hold it: rounded to bfloat16 where that is an array of words."""

    def codegen(context, builder, sig, args):
        if array.dtype is not types.uint32:
            return args[1]
        return (round_bits(Lanes(builder, args[1], x)) & 0xFFFF0000).bits(types.float32).value

    return x(array, x), codegen


@intrinsic
def multiply_words(typingctx, total, x, y):
    """total + x₀·y₀ + x₁·y₁, lane by lane, for a vector of float32 and two of words."""

    def codegen(context, builder, sig, args):
        return dot_pairs(*(Lanes(builder, value, type) for value, type in zip(args, sig.args))).value

    return total(total, x, y), codegen


@intrinsic
def store_row(typingctx, array, row, j, vector):
    """Store numbers j … of the row that begins at element ``row``: a vector, or half as many words. j is even."""

    def codegen(context, builder, sig, args):
        array_type, x = sig.args[0], Lanes(builder, args[3], sig.args[3])
        offset, count = args[2], x.type.lanes
        if array_type.dtype is types.uint32:
            offset, count = builder.sdiv(offset, ir.IntType(64)(2)), count // 2
            words = pair_neighbours(x, x)
            low = builder.shuffle_vector(words.value, words.value, _order(range(count)))
            x = words.like(low, Vector(types.uint32, count))
        index = builder.add(args[1], offset)
        pointer = emitting.element_pointer(context, builder, array_type, args[0], index, ir.IntType(64)(count))
        emitting.store_vector(x, pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, vector), codegen


@intrinsic
def store_paired(typingctx, array, index, first, second):
    """Store the words of the same lanes of two vectors from element ``index`` on; nothing where the array has numbers."""

    def codegen(context, builder, sig, args):
        array_type = sig.args[0]
        if array_type.dtype is types.uint32:
            words = pair_lanes(*(Lanes(builder, value, first) for value in args[2:]))
            count = ir.IntType(64)(words.type.lanes)
            pointer = emitting.element_pointer(context, builder, array_type, args[0], args[1], count)
            emitting.store_vector(words, pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, first, second), codegen
