"""Vectors for what is compared at once: the keys of a word's pairs, a bucket of pairs, a cache line of words.

The sixteen keys, integers of 32 bits, stay in registers. In memory, each replacement of one would be a narrow store that
the next wide load has to wait for.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime.emitting import Vector, element_pointer

LANES = 16
BUCKET = 8  # pairs that are compared at once: a cache line
_KEYS = Vector(types.uint32, LANES)
_INDEX = ir.IntType(32)


@intrinsic
def load_keys(typingctx, keys, first):
    """The LANES items of the uint32 array ``keys`` from ``first`` on."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(context, builder, signature.args[0], *args, ir.IntType(64)(LANES))
        vector = builder.load(builder.bitcast(pointer, _KEYS.ir.as_pointer()))
        vector.align = 4
        return vector

    return _KEYS(keys, types.int64), codegen


@intrinsic
def least_key(typingctx, keys):
    """The least of the keys."""

    def codegen(context, builder, signature, args):
        return _reduced(builder, args[0], f"llvm.vector.reduce.umin.v{LANES}i32")

    return types.uint32(_KEYS), codegen


@intrinsic
def with_key(typingctx, keys, lane, key):
    """The keys with ``key`` in a lane; unchanged if there is no such lane."""

    def codegen(context, builder, signature, args):
        vector, lane, key = args
        lanes = ir.Constant(_KEYS.ir, list(range(LANES)))
        chosen = builder.icmp_unsigned("==", lanes, _everywhere(builder, builder.trunc(lane, _INDEX)))
        return builder.select(chosen, _everywhere(builder, key), vector)

    return _KEYS(_KEYS, types.int64, types.uint32), codegen


@intrinsic
def keep_keys(typingctx, keys, count, other):
    """The first ``count`` keys, and ``other`` in the lanes behind them."""

    def codegen(context, builder, signature, args):
        vector, count, other = args
        lanes = ir.Constant(_KEYS.ir, list(range(LANES)))
        kept = builder.icmp_signed("<", lanes, _everywhere(builder, builder.trunc(count, _INDEX)))
        return builder.select(kept, vector, _everywhere(builder, other))

    return _KEYS(_KEYS, types.int64, types.uint32), codegen


@intrinsic
def nearest(typingctx, slots, first, key):
    """The least of the BUCKET integers of 63 bits from ``first`` on (the top bits do not count), each xor ``key``."""

    def codegen(context, builder, signature, args):
        bucket = ir.VectorType(ir.IntType(64), BUCKET)
        slots, first, key = args
        pointer = element_pointer(context, builder, signature.args[0], slots, first, ir.IntType(64)(BUCKET))
        vector = builder.load(builder.bitcast(pointer, bucket.as_pointer()))
        vector.align = 8
        differences = builder.xor(vector, _everywhere(builder, key, bucket))
        differences = builder.and_(differences, ir.Constant(bucket, [2**63 - 1] * BUCKET))
        return _reduced(builder, differences, f"llvm.vector.reduce.umin.v{BUCKET}i64")

    return types.uint64(slots, types.int64, types.uint64), codegen


@intrinsic
def same_entries(typingctx, lines, line, words, word):
    """Which of the two entries of a cache line have the key of a word: bit 0 for the first, bit 4 for the second.

    An entry is four integers: the key's two, of which the second has something else in its upper four bits, and two more.
    """

    def codegen(context, builder, signature, args):
        integer, block = ir.IntType(64), ir.VectorType(ir.IntType(64), BUCKET)
        vectors = []
        for array_type, array, first, count in ((lines, *args[:2], BUCKET), (words, *args[2:], 2)):
            pointer = element_pointer(context, builder, array_type, array, first, integer(count))
            vector = builder.load(builder.bitcast(pointer, ir.VectorType(integer, count).as_pointer()))
            vector.align = 8
            vectors.append(vector)
        order = ir.Constant(ir.VectorType(_INDEX, BUCKET), [0, 1] * (BUCKET // 2))
        key = builder.shuffle_vector(vectors[1], ir.Constant(vectors[1].type, ir.Undefined), order)
        counted = ir.Constant(block, [2**64 - 1, 2**60 - 1, 0, 0] * 2)
        different = builder.and_(builder.xor(vectors[0], key), counted)
        equal = builder.icmp_unsigned("==", different, ir.Constant(block, None))
        bits = builder.zext(builder.bitcast(equal, ir.IntType(BUCKET)), integer)
        return builder.and_(builder.and_(bits, builder.lshr(bits, integer(1))), integer(0x11))

    return types.uint64(lines, types.int64, words, types.int64), codegen


def _reduced(builder, vector, name):
    kind = ir.FunctionType(vector.type.element, [vector.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])


def _everywhere(builder, value, type=_KEYS.ir):
    undefined = ir.Constant(type, ir.Undefined)
    first = builder.insert_element(undefined, value, _INDEX(0))
    zeros = ir.Constant(ir.VectorType(_INDEX, type.count), [0] * type.count)
    return builder.shuffle_vector(first, undefined, zeros)
