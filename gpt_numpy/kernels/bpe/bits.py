"""Words as machine integers: unaligned loads, bit counts and hashes for the tokenizer kernels.

Most pre-tokens are at most fifteen bytes long, so two 64-bit integers hold the whole word and its length:
comparing two words is then comparing two pairs of integers, and no bytes are read a second time. Every buffer
that reaches these kernels carries ``PAD`` zero bytes behind its last byte, so that a load may look past the end.

The helpers of those kernels are compiled without reference counting: numba would otherwise count a reference to every
array at every call, which costs more than looking up a word. So none of them allocates; work space is passed in.

Keys assume a little-endian machine, like all that numba supports.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime.decorators import part
from ..runtime.emitting import cpu_features, element_pointer

inlined = part(forceinline=True)  # for what every word needs
called = part(forceinline=False)  # for the rest; callees would inherit their caller's True

PAD = 16  # bytes that must be readable behind the text in every buffer
SHORT = 15  # longest word that a two-integer key can hold: its length takes the sixteenth byte

_MIX_A = np.uint64(0x9E3779B97F4A7C15)
_MIX_B = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_C = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(29)
_TOP_BYTE = np.uint64(56)


@intrinsic
def load_u64(typingctx, buffer, offset):
    """Eight bytes of the uint8 array ``buffer`` from ``offset`` on, as one uint64; no alignment needed."""
    if not (isinstance(buffer, types.Array) and buffer.dtype == types.uint8):
        return None

    def codegen(context, builder, signature, args):
        address = element_pointer(context, builder, signature.args[0], *args, ir.IntType(64)(8))
        word = builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(buffer, types.int64), codegen


@intrinsic
def trailing_zeros(typingctx, value):
    """Number of zero bits below the lowest set bit of a uint64; 64 for zero."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def leading_zeros(typingctx, value):
    """Number of zero bits above the highest set bit of a uint64; 64 for zero."""

    def codegen(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def count_bits(typingctx, value):
    """Number of set bits of a uint64."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def choose(typingctx, condition, yes, no):
    """``yes`` or ``no``, of one type, without a branch: both have been computed."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return (yes(types.boolean, yes, yes), codegen) if yes == no else None


@intrinsic
def copy_bytes(typingctx, target, target_start, source, source_start, size):
    """Copy ``size`` bytes between two uint8 arrays that do not overlap."""

    def codegen(context, builder, signature, args):
        target, target_start, source, source_start, size = args
        to = element_pointer(context, builder, signature.args[0], target, target_start, size)
        come = element_pointer(context, builder, signature.args[2], source, source_start, size)
        cgutils.raw_memcpy(builder, to, come, size, 1)
        return context.get_dummy_value()

    index = types.int64
    return types.void(target, index, source, index, index), codegen


def _copy_of(n_bytes):
    """A function for kernels that copies ``n_bytes`` from one array to another; indices count the items of each."""

    @intrinsic
    def copy(typingctx, source, index, out, at):
        def codegen(context, builder, signature, args):
            block = ir.VectorType(ir.IntType(64), n_bytes // 8)
            pointers = []
            for array_type, array, first in ((source, *args[:2]), (out, *args[2:])):
                n_items = ir.IntType(64)(n_bytes * 8 // array_type.dtype.bitwidth)
                pointer = element_pointer(context, builder, array_type, array, first, n_items)
                pointers.append(builder.bitcast(pointer, block.as_pointer()))
            items = builder.load(pointers[0])
            items.align = source.dtype.bitwidth // 8
            builder.store(items, pointers[1]).align = out.dtype.bitwidth // 8
            return context.get_dummy_value()

        return types.void(source, types.int64, out, types.int64), codegen

    return copy


ENTRY_BYTES, LINE_BYTES = 16, 64
copy_entry, copy_line = _copy_of(ENTRY_BYTES), _copy_of(LINE_BYTES)


@intrinsic
def first_bytes(typingctx, word, count):
    """The first ``count`` bytes of a uint64, the others 0: none below 1, all from 8 on (anything from 32 on)."""

    def codegen(context, builder, signature, args):
        word, count = args
        integer, none = ir.IntType(64), ir.IntType(64)(0)
        positive = builder.icmp_signed(">", count, none)
        bits = builder.shl(builder.select(positive, count, none), integer(3))
        if "bmi2" in cpu_features():
            kind = ir.FunctionType(integer, [integer, integer])
            keep = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.bmi.bzhi.64")
            return builder.call(keep, [word, bits])
        below = builder.and_(bits, integer(63))
        some = builder.and_(word, builder.sub(builder.shl(integer(1), below), integer(1)))
        return builder.select(builder.icmp_unsigned(">=", bits, integer(64)), word, some)

    return types.uint64(types.uint64, types.int64), codegen


@inlined
def short_key(buffer, start, length):
    """The two integers of a word of at most ``SHORT`` bytes; the second carries the length in bits 56 to 59.

    The four bits above are 0. For a longer word both are anything.
    """
    low = first_bytes(load_u64(buffer, start), length)
    high = first_bytes(load_u64(buffer, start + 8), length - 8) | np.uint64(length) << _TOP_BYTE
    return low, high


@inlined
def hash_key(low, high):
    """A 64-bit hash of a word's two integers, good in its high bits: cheaper than ``hash_pair``."""
    return low * _MIX_A + high * _MIX_B


@inlined
def hash_pair(first, second):
    """A 64-bit hash of two 64-bit integers; the high bits are the best mixed."""
    mixed = first * _MIX_A + second * _MIX_B
    mixed ^= mixed >> _SHIFT
    return mixed * _MIX_C


@called
def hash_bytes(buffer, start, length):
    """A 64-bit hash of ``length`` ≥ 8 bytes from ``start`` on; reads no others."""
    mixed = np.uint64(length) * _MIX_B
    position = start
    stop = start + length
    while position + 8 <= stop:
        mixed = (mixed ^ load_u64(buffer, position)) * _MIX_A
        mixed ^= mixed >> _SHIFT
        position += 8
    if position < stop:
        mixed = (mixed ^ load_u64(buffer, stop - 8)) * _MIX_A
        mixed ^= mixed >> _SHIFT
    return mixed * _MIX_C


@called
def same_bytes(buffer, start, other, other_start, length):
    """Whether two stretches of ``length`` ≥ 8 bytes are equal; reads no others."""
    offset = 0
    while offset + 8 <= length:
        if load_u64(buffer, start + offset) != load_u64(other, other_start + offset):
            return False
        offset += 8
    return load_u64(buffer, start + length - 8) == load_u64(other, other_start + length - 8)


@called
def copy_items(source, source_start, target, target_start, length):
    """Copy ``length`` items from one array to another; they do not overlap."""
    for i in range(length):
        target[target_start + i] = source[source_start + i]


def padded(data):
    """A uint8 array holding ``data`` (bytes-like) and ``PAD`` zero bytes behind it."""
    size = len(data)
    buffer = np.empty(size + PAD, dtype=np.uint8)
    buffer[:size] = np.frombuffer(data, dtype=np.uint8)
    buffer[size:] = 0
    return buffer
