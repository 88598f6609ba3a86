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
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_WITHOUT_COUNTING = {"_nrt": False, "error_model": "numpy", "boundscheck": False}
inlined = njit(forceinline=True, **_WITHOUT_COUNTING)  # for what every word needs
called = njit(forceinline=False, **_WITHOUT_COUNTING)  # for the rest; callees would inherit their caller's True

PAD = 16  # zero bytes that must follow the text in every buffer
SHORT = 15  # longest word that a two-integer key can hold: its length takes the sixteenth byte

_MIX_A = np.uint64(0x9E3779B97F4A7C15)
_MIX_B = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_C = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(29)


def _byte_mask(count):
    return (1 << (8 * count)) - 1


# _LOW[n] and _HIGH[n] keep the first min(n, 8) bytes of a word and the bytes that follow those.
_LOW = np.array([_byte_mask(min(n, 8)) for n in range(SHORT + 1)], dtype=np.uint64)
_HIGH = np.array([_byte_mask(max(n - 8, 0)) for n in range(SHORT + 1)], dtype=np.uint64)
_LENGTH = np.array([n << 56 for n in range(SHORT + 1)], dtype=np.uint64)


@intrinsic
def load_u64(typingctx, buffer, offset):
    """Eight bytes of the uint8 array ``buffer`` from ``offset`` on, as one uint64; no alignment, no checks."""
    if not (isinstance(buffer, types.Array) and buffer.dtype == types.uint8):
        return None

    def codegen(context, builder, signature, args):
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0])
        address = builder.gep(array.data, [args[1]])
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


@inlined
def short_key(buffer, start, length):
    """The two integers of a word of at most ``SHORT`` bytes; the second carries the length in its top byte."""
    low = load_u64(buffer, start) & _LOW[length]
    high = load_u64(buffer, start + 8) & _HIGH[length] | _LENGTH[length]
    return low, high


@inlined
def hash_pair(first, second):
    """A 64-bit hash of two 64-bit integers; the high bits are the best mixed."""
    mixed = first * _MIX_A + second * _MIX_B
    mixed ^= mixed >> _SHIFT
    return mixed * _MIX_C


@called
def hash_bytes(buffer, start, length):
    """A 64-bit hash of ``length`` bytes from ``start`` on."""
    mixed = np.uint64(length) * _MIX_B
    position = start
    stop = start + length
    while position + 8 <= stop:
        mixed = (mixed ^ load_u64(buffer, position)) * _MIX_A
        mixed ^= mixed >> _SHIFT
        position += 8
    if position < stop:
        mixed = (mixed ^ (load_u64(buffer, position) & _LOW[stop - position])) * _MIX_A
        mixed ^= mixed >> _SHIFT
    return mixed * _MIX_C


@called
def same_bytes(buffer, start, other, other_start, length):
    """Whether two stretches of ``length`` bytes are equal."""
    offset = 0
    while offset + 8 <= length:
        if load_u64(buffer, start + offset) != load_u64(other, other_start + offset):
            return False
        offset += 8
    if offset < length:
        difference = load_u64(buffer, start + offset) ^ load_u64(other, other_start + offset)
        return difference & _LOW[length - offset] == 0
    return True


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
