"""Words: operands of a product that are rounded to bfloat16, in arrays of uint32.

With AVX512_BF16 a word holds two numbers, the first in its lower half. One instruction rounds two vectors
(``vcvtne2ps2bf16``), and one adds the products of a pair to a float32 sum (``vdpbf16ps``); both take denormals as 0. On other
CPUs a word holds one number, as the float32 that it is once rounded, and the product is a float32 multiply-add: to widen
halves in the inner loop takes registers and half of its time. `emitting.HAS_BFLOAT16` says which way is compiled.

Panels and tiles of scores are arrays either of float32 or float64, or of words. The operations for kernels below take
both, so that a kernel is written once: `numbers_in` is 1 or 2, and a constant to the compiler.

*Narrow* arrays keep numbers in memory as bfloat16, two bytes each: an element of uint16 is the upper half of a float32. A
product rounds its operands in any case, so an operand that was kept narrow gives the same bits as one kept in float32.
Packing takes narrow sources too, and `load_number` and `store_number` take narrow arrays and floating-point ones alike.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import emitting
from .emitting import Lanes, Vector, native

TOGETHER = 2 if emitting.HAS_BFLOAT16 else 1  # numbers in a word
_I64 = ir.IntType(64)

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


def dot_words(total, x, y):
    """total + x · y for words x and y; of pairs, total + x₀·y₀ + x₁·y₁, each product added to a sum of float32."""
    if not emitting.HAS_BFLOAT16:
        return emitting.fma(x.bits(types.float32), y.bits(types.float32), total)
    builder, lanes = total.builder, total.type.lanes
    pairs = ir.VectorType(ir.IntType(32), lanes) if _OLD_LLVM else ir.VectorType(_HALF, 2 * lanes)
    x, y = (builder.bitcast(words.value, pairs) for words in (x, y))
    return total.like(_call(builder, "dpbf16ps.512", total.type.ir, [total.value, x, y]))


def round_number(x):
    """Words of one number: lanes of float32 as uint32, those of the nearest bfloat16, ties to even; NaN stays NaN.

    x may be narrow (uint16), as may be the arguments of `pair_neighbours` and `pair_lanes`.
    """
    if _holds_narrow(x):
        return x.convert(types.uint32) << 16
    bits = x.bits(types.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return emitting.select(x.differs(x), bits | 0x400000, rounded)


def _holds_narrow(x):
    return x.type.element is types.uint16


def narrowed(x):
    """Lanes of float32 as narrow ones, rounded as words are."""
    if not emitting.HAS_BFLOAT16:
        return (round_number(x) >> 16).convert(types.uint16)
    narrow = Vector(types.uint16, x.type.lanes)
    rounded = _call(x.builder, "cvtneps2bf16.512", ir.VectorType(_HALF, narrow.lanes), [x.value])
    return x.like(x.builder.bitcast(rounded, narrow.ir), narrow)


def _round_two(low, high):
    """The lanes of ``low``, then those of ``high``, as bfloat16 in lanes of 16 bits."""
    builder, count = low.builder, low.type.lanes
    if _holds_narrow(low):
        return builder.shuffle_vector(low.value, high.value, _order(range(2 * count)))
    both = _call(builder, "cvtne2ps2bf16.512", ir.VectorType(_HALF, 2 * count), [high.value, low.value])
    return builder.bitcast(both, ir.VectorType(ir.IntType(16), 2 * count))


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
    both = _round_two(first, second)
    mixed = [lane // 2 + lane % 2 * count for lane in range(2 * count)]
    return _words(first, builder.shuffle_vector(both, both, _order(mixed)), count)


# For kernels.


def in_words(array):
    """Whether the numba type of an array is that of words."""
    return array.dtype is types.uint32


def is_narrow(array):
    """Whether the numba type of an array is that of narrow ones."""
    return array.dtype is types.uint16


def numbers_of(array):
    """The type of a vector of the array's numbers: of float32 where the array is narrow."""
    return native(types.float32 if is_narrow(array) else array.dtype)


def elements_of(array):
    """The type of a vector of the array's elements, of as many lanes as `numbers_of` has."""
    return Vector(array.dtype, numbers_of(array).lanes)


def _first_elements(context, builder, sig, args, count):
    """The pointer to an array's element ``args[1]``, and the mask of the first ``count`` elements from there."""
    vector = elements_of(sig.args[0])
    most = _I64(vector.lanes)
    within = builder.select(builder.icmp_signed("<", count, most), count, most)
    pointer = emitting.element_pointer(context, builder, sig.args[0], args[0], args[1], within)
    return pointer, emitting.first_lanes(builder, count, vector)


@intrinsic
def load_number(typingctx, array, index):
    """``vectors.load``, as float32 where ``array`` is narrow."""
    vector = numbers_of(array)

    def codegen(context, builder, sig, args):
        pointer = emitting.element_pointer(context, builder, sig.args[0], args[0], args[1], _I64(vector.lanes))
        x = emitting.load_vector(builder, pointer, elements_of(array))
        return round_number(x).bits(types.float32).value if is_narrow(array) else x.value

    return vector(array, types.int64), codegen


@intrinsic
def load_number_tail(typingctx, array, index, count):
    """`load_number`, but of the first ``count`` elements (0 … any); the other lanes are 0."""
    vector = numbers_of(array)

    def codegen(context, builder, sig, args):
        pointer, mask = _first_elements(context, builder, sig, args, args[2])
        x = emitting.load_masked(builder, pointer, elements_of(array), mask)
        return round_number(x).bits(types.float32).value if is_narrow(array) else x.value

    return vector(array, types.int64, types.int64), codegen


@intrinsic
def store_number(typingctx, array, index, vector):
    """``vectors.store``, rounded to bfloat16 where ``array`` is narrow."""

    def codegen(context, builder, sig, args):
        x = Lanes(builder, args[2], vector)
        pointer = emitting.element_pointer(context, builder, sig.args[0], args[0], args[1], _I64(vector.lanes))
        emitting.store_vector(narrowed(x) if is_narrow(array) else x, pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


@intrinsic
def store_number_tail(typingctx, array, index, vector, count):
    """`store_number`, but of the first ``count`` lanes (0 … any)."""

    def codegen(context, builder, sig, args):
        x = Lanes(builder, args[2], vector)
        pointer, mask = _first_elements(context, builder, sig, args, args[3])
        emitting.store_masked(narrowed(x) if is_narrow(array) else x, pointer, mask)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), codegen


@intrinsic
def is_rounded(typingctx, array):
    """Whether ``array`` holds words. A compile-time constant."""
    value = in_words(array)
    return types.boolean(array), lambda context, builder, sig, args: context.get_constant(types.boolean, value)


@intrinsic
def numbers_in(typingctx, array):
    """How many numbers each element of ``array`` holds: in words TOGETHER, else 1. A compile-time constant."""
    count = TOGETHER if in_words(array) else 1
    return types.int64(array), lambda context, builder, sig, args: context.get_constant(types.int64, count)


@intrinsic
def as_operand(typingctx, array, x):
    """x, a vector of float32, as ``array`` can hold it: rounded to bfloat16 where that is an array of words."""

    def codegen(context, builder, sig, args):
        return round_number(Lanes(builder, args[1], x)).bits(types.float32).value if in_words(array) else args[1]

    return x(array, x), codegen


@intrinsic
def multiply_words(typingctx, total, x, y):
    """`dot_words`, lane by lane, for a vector of float32 and two of words."""

    def codegen(context, builder, sig, args):
        return dot_words(*(Lanes(builder, value, type) for value, type in zip(args, sig.args))).value

    return total(total, x, y), codegen


@intrinsic
def store_row(typingctx, array, row, j, vector):
    """Store numbers j … of the row that begins at element ``row``, in words where ``array`` is of words. j is even."""

    def codegen(context, builder, sig, args):
        array_type, x = sig.args[0], Lanes(builder, args[3], sig.args[3])
        offset, count = args[2], x.type.lanes
        if in_words(array_type) and TOGETHER == 1:
            x = round_number(x)
        elif in_words(array_type):
            offset, count = builder.sdiv(offset, _I64(2)), count // 2
            words = pair_neighbours(x, x)
            low = builder.shuffle_vector(words.value, words.value, _order(range(count)))
            x = words.like(low, Vector(types.uint32, count))
        index = builder.add(args[1], offset)
        pointer = emitting.element_pointer(context, builder, array_type, args[0], index, _I64(count))
        emitting.store_vector(x, pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, vector), codegen


@intrinsic
def store_paired(typingctx, array, index, first, second):
    """Store the pairs of the same lanes of two vectors from element ``index`` on; nothing where an element is a number."""

    def codegen(context, builder, sig, args):
        array_type = sig.args[0]
        if in_words(array_type) and TOGETHER == 2:
            words = pair_lanes(*(Lanes(builder, value, first) for value in args[2:]))
            pointer = emitting.element_pointer(context, builder, array_type, args[0], args[1], _I64(words.type.lanes))
            emitting.store_vector(words, pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, first, second), codegen
