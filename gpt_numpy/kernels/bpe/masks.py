"""Sixty-four bytes of text as bit masks: bit i of a mask says something of byte i.

Classifying a block costs some thirty instructions, whatever it holds. Where words begin is then a matter of shifts and
boolean algebra on 64-bit integers (``scanner``). The vectors are LLVM's ``<64 x i8>``: one register with AVX-512, two
with AVX2, four with NEON, from one source.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime.emitting import VECTOR_BYTES, cpu_features, element_pointer

BLOCK = 64  # bytes whose masks fill an integer
_BYTES = ir.VectorType(ir.IntType(8), BLOCK)
_WORD = ir.IntType(64)
_FACTORS = tuple(pow(0x9E3779B97F4A7C15, n, 1 << 64) for n in range(1, 9))  # odd, of random bits
_CONTRACTIONS = ("s", "d", "m", "t"), ("ll", "ve", "re")
_COMPRESSES = "avx512vbmi2" in cpu_features() and VECTOR_BYTES == BLOCK
LOOKS_UP = "avx512vbmi" in cpu_features() and VECTOR_BYTES == BLOCK  # 64 bytes in a table of 64


def _load(context, builder, array_type, array, offset):
    """The 64 bytes from ``offset`` on."""
    pointer = element_pointer(context, builder, array_type, array, offset, _WORD(BLOCK))
    block = builder.load(builder.bitcast(pointer, _BYTES.as_pointer()))
    block.align = 1
    return block


def _same(number):
    return ir.Constant(_BYTES, [number] * BLOCK)


class _Compare:
    """Comparisons of all bytes of a block with one byte, or with a range of them; each gives a mask of 64 bits."""

    def __init__(self, builder, block):
        self.builder, self.block = builder, block

    def _mask(self, booleans):
        return self.builder.bitcast(booleans, _WORD)

    def equal(self, byte):
        return self._mask(self.builder.icmp_unsigned("==", self.block, _same(byte)))

    def inside(self, first, last):
        """As a vector of booleans."""
        if first == last:
            return self.builder.icmp_unsigned("==", self.block, _same(first))
        if last == 0xBF and first > 0x80:
            return self.builder.icmp_unsigned(">=", self.block, _same(first))  # of a continuation byte
        shifted = self.builder.sub(self.block, _same(first))
        return self.builder.icmp_unsigned("<=", shifted, _same(last - first))

    def between(self, first, last):
        return self._mask(self.inside(first, last))

    def at_least(self, byte):
        return self._mask(self.builder.icmp_unsigned(">=", self.block, _same(byte)))

    def letter(self):
        lower = self.builder.or_(self.block, _same(0x20))
        shifted = self.builder.sub(lower, _same(ord("a")))
        return self._mask(self.builder.icmp_unsigned("<", shifted, _same(26)))

    def any_of(self, characters):
        masks = [self.equal(ord(character)) for character in characters]
        return _united(self.builder, masks)


def _united(builder, masks):
    result = masks[0]
    for mask in masks[1:]:
        result = builder.or_(result, mask)
    return result


def _results(context, builder, masks):
    return context.make_tuple(builder, types.UniTuple(types.uint64, len(masks)), masks)


@intrinsic
def ascii_masks(typingctx, text, offset):
    """(letters, digits, blanks, white space, quotes, bytes of wide characters) of the block at ``offset``.

    The first five are of ASCII's characters alone; white space has the blanks as well.
    """

    def codegen(context, builder, signature, args):
        compare = _Compare(builder, _load(context, builder, signature.args[0], *args))
        blanks = compare.equal(0x20)
        white = builder.or_(blanks, compare.between(0x09, 0x0D))
        masks = [compare.letter(), compare.between(0x30, 0x39), blanks, white, compare.equal(0x27)]
        return _results(context, builder, [*masks, compare.at_least(0x80)])

    return types.UniTuple(types.uint64, 6)(text, types.int64), codegen


@intrinsic
def contraction_masks(typingctx, text, offset):
    """Bytes of the block at ``offset`` that are followed by (one of s d m t, one of ll ve re)."""

    def codegen(context, builder, signature, args):
        text_type, (array, start) = signature.args[0], args
        first = _Compare(builder, _load(context, builder, text_type, array, builder.add(start, _WORD(1))))
        second = _Compare(builder, _load(context, builder, text_type, array, builder.add(start, _WORD(2))))
        short, long = _CONTRACTIONS
        pairs = [builder.and_(first.equal(ord(a)), second.equal(ord(b))) for a, b in long]
        return _results(context, builder, [first.any_of(short), _united(builder, pairs)])

    return types.UniTuple(types.uint64, 2)(text, types.int64), codegen


# Code points [first, stop) whose class the comparisons of ``lead_masks`` know: the most frequent ones of many scripts.
# ``character_classes`` checks that its table agrees.
KNOWN_LETTERS = (
    *((0xC0, 0xD7), (0xD8, 0xF7), (0xF8, 0x280), (0x400, 0x480)),  # Latin, Cyrillic
    *((0x3041, 0x3097), (0x309D, 0x30A0), (0x30A1, 0x30FB), (0x30FC, 0x3100)),  # kana
    *((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD780)),  # Han, Hangul
)
KNOWN_OTHERS = (
    *((0x200B, 0x2028), (0x2500, 0x2740), (0x3001, 0x3005), (0x3008, 0x3021)),  # quotes and dashes, symbols, 、 and 。
    *((0xFE00, 0xFE40), (0xFF01, 0xFF10), (0xFF1A, 0xFF21), (0x1F1C0, 0x1F200), (0x1F300, 0x1F700), (0x1F900, 0x1FA00)),
)


def _boxes(ranges):
    """length → the characters of that many bytes in ``ranges``, as boxes: the (least, greatest) of each of their bytes.

    Every combination of a box's bytes is a character of the range.
    """
    found = {2: [], 3: [], 4: []}
    for first, stop in ranges:
        while first < stop:
            size = 1  # code points that have all but their last bytes in common
            while first % (size * 64) == 0 and first + size * 64 <= stop:
                size *= 64
            count = min((stop - first) // size, 64 - first // size % 64)
            least, greatest = chr(first).encode(), chr(first + count * size - 1).encode()
            found[len(least)].append(list(zip(least, greatest, strict=True)))
            first += count * size
    return found


@intrinsic
def lead_masks(typingctx, text, offset):
    """Lead bytes of the block at ``offset``.

    (all, those of known letters of two bytes, those of known letters of three bytes, those of known others)
    """

    def codegen(context, builder, signature, args):
        text_type, (array, start) = signature.args[0], args
        bytes_of = [
            _Compare(builder, _load(context, builder, text_type, array, builder.add(start, _WORD(n)))) for n in range(3)
        ]

        def any_of(boxes):
            """Lead bytes of characters in one of the ``boxes``."""
            flags = []
            for box in boxes:
                inside = None
                for compare, (least, greatest) in zip(bytes_of, box, strict=False):
                    if (least, greatest) != (0x80, 0xBF):
                        flag = compare.inside(least, greatest)
                        inside = flag if inside is None else builder.and_(inside, flag)
                flags.append(inside)
            return builder.bitcast(_united(builder, flags), _WORD)

        letters, others = _boxes(KNOWN_LETTERS), _boxes(KNOWN_OTHERS)
        masks = [bytes_of[0].at_least(0xC0), any_of(letters[2]), any_of(letters[3]), any_of(others[3] + others[4])]
        return _results(context, builder, masks)

    return types.UniTuple(types.uint64, 4)(text, types.int64), codegen


@intrinsic
def joined_leads(typingctx, text, offset, joins, first):
    """Bytes of the block at ``offset`` that a merge may join to the lead byte behind them; where LOOKS_UP.

    The eight integers of ``joins`` from ``first`` on are 64 bytes: bit k of byte b for bytes whose low six bits are b and
    lead bytes whose low three bits are k.
    """

    def codegen(context, builder, signature, args):
        text_type, _, joins_type, _ = signature.args
        text, start, joins, first = args
        kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
        look_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.qi.512")
        pointer = element_pointer(context, builder, joins_type, joins, first, _WORD(BLOCK // 8))
        table = builder.load(builder.bitcast(pointer, _BYTES.as_pointer()))
        table.align = 8
        block = _load(context, builder, text_type, text, start)
        behind = _load(context, builder, text_type, text, builder.add(start, _WORD(1)))
        bit_of = ir.Constant(_BYTES, [1 << number % 8 for number in range(BLOCK)])
        joined = builder.and_(builder.call(look_up, [table, block]), builder.call(look_up, [bit_of, behind]))
        return builder.bitcast(builder.icmp_unsigned("!=", joined, _same(0)), _WORD)

    return types.uint64(text, types.int64, joins, types.int64), codegen


@intrinsic
def character_starts(typingctx, text, offset):
    """Number of characters that begin in the block at ``offset``."""

    def codegen(context, builder, signature, args):
        compare = _Compare(builder, _load(context, builder, signature.args[0], *args))
        return builder.ctpop(builder.not_(compare.between(0x80, 0xBF)))

    return types.int64(text, types.int64), codegen


@intrinsic
def equal_bytes(typingctx, text, offset, other, other_offset):
    """The bytes of the block of ``text`` at ``offset`` that equal those of ``other`` at ``other_offset``."""

    def codegen(context, builder, signature, args):
        first = _load(context, builder, signature.args[0], *args[:2])
        second = _load(context, builder, signature.args[2], *args[2:])
        return builder.bitcast(builder.icmp_unsigned("==", first, second), _WORD)

    return types.uint64(text, types.int64, other, types.int64), codegen


@intrinsic
def hash_block(typingctx, text, offset, length):
    """A 64-bit hash of the ``length`` ≤ BLOCK bytes at ``offset``, good in its high bits; reads BLOCK bytes."""

    def codegen(context, builder, signature, args):
        array, start, count = args
        block = _load(context, builder, signature.args[0], array, start)
        indices = ir.Constant(_BYTES, list(range(BLOCK)))
        size = builder.trunc(count, ir.IntType(8))
        first = builder.insert_element(ir.Constant(_BYTES, ir.Undefined), size, ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        inside = builder.icmp_unsigned("<", indices, builder.shuffle_vector(first, first, order))
        kept = builder.select(inside, block, ir.Constant(_BYTES, [0] * BLOCK))
        words = ir.VectorType(_WORD, BLOCK // 8)
        products = builder.mul(builder.bitcast(kept, words), ir.Constant(words, list(_FACTORS)))
        kind = ir.FunctionType(_WORD, [words])
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{BLOCK // 8}i64")
        total = builder.add(builder.call(add, [products]), builder.mul(count, _WORD(_FACTORS[1])))
        return builder.mul(builder.xor(total, builder.lshr(total, _WORD(32))), _WORD(_FACTORS[0]))

    return types.uint64(text, types.int64, types.int64), codegen


@intrinsic
def far_leads(typingctx, text, offset):
    """Lead bytes of the characters from U+3000 on in the block at ``offset``."""

    def codegen(context, builder, signature, args):
        compare = _Compare(builder, _load(context, builder, signature.args[0], *args))
        return compare.at_least(0xE3)

    return types.uint64(text, types.int64), codegen


@intrinsic
def write_positions(typingctx, positions, at, base, mask):
    """Write ``base`` + i for each bit i of ``mask`` to ``positions`` (uint16) from ``at`` on; returns the end.

    Up to 64 entries behind the end are overwritten with anything.
    """

    def codegen(context, builder, signature, args):
        array, start, first, mask = args
        pointer = element_pointer(context, builder, signature.args[0], array, start, _WORD(BLOCK))
        count = builder.ctpop(mask)
        emit = _write_compressed if _COMPRESSES else _write_by_scanning
        emit(builder, pointer, builder.trunc(first, ir.IntType(16)), mask, count)
        return builder.add(start, count)

    return types.int64(positions, types.int64, types.int64, types.uint64), codegen


def _write_compressed(builder, pointer, base, mask, count):
    """With AVX-512 VBMI2: squeeze the indices whose bits are on together, widen, add the base."""
    flags = ir.VectorType(ir.IntType(1), BLOCK)
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES, flags])
    compress = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.mask.compress.v64i8")
    indices = ir.Constant(_BYTES, list(range(BLOCK)))
    squeezed = builder.call(compress, [indices, ir.Constant(_BYTES, None), builder.bitcast(mask, flags)])
    _store_half(builder, pointer, base, squeezed, 0)
    with builder.if_then(builder.icmp_unsigned(">", count, _WORD(BLOCK // 2)), likely=False):
        _store_half(builder, pointer, base, squeezed, BLOCK // 2)


def _store_half(builder, pointer, base, squeezed, start):
    wide = ir.VectorType(ir.IntType(16), BLOCK // 2)
    order = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK // 2), list(range(start, start + BLOCK // 2)))
    half = builder.shuffle_vector(squeezed, ir.Constant(_BYTES, ir.Undefined), order)
    undefined = ir.Constant(wide, ir.Undefined)
    lowest = builder.insert_element(undefined, base, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK // 2), [0] * (BLOCK // 2))
    bases = builder.shuffle_vector(lowest, undefined, everywhere)
    target = builder.bitcast(builder.gep(pointer, [_WORD(start)]), wide.as_pointer())
    builder.store(builder.add(builder.zext(half, wide), bases), target).align = 2


def _write_by_scanning(builder, pointer, base, mask, count):
    """Anywhere else: find the lowest bit, clear it; eight at a time, so that the loop's end is seldom mistaken."""
    index, rest = (cgutils.alloca_once(builder, _WORD) for _ in range(2))
    builder.store(_WORD(0), index)
    builder.store(mask, rest)
    loop, body, done = (builder.append_basic_block(name) for name in ("scan", "eight", "scanned"))
    builder.branch(loop)
    builder.position_at_end(loop)
    builder.cbranch(builder.icmp_unsigned("<", builder.load(index), count), body, done)
    builder.position_at_end(body)
    start, bits = builder.load(index), builder.load(rest)
    for step in range(8):
        position = builder.trunc(builder.cttz(bits, ir.IntType(1)(0)), ir.IntType(16))
        builder.store(builder.add(position, base), builder.gep(pointer, [builder.add(start, _WORD(step))]))
        bits = builder.and_(bits, builder.sub(bits, _WORD(1)))
    builder.store(builder.add(start, _WORD(8)), index)
    builder.store(bits, rest)
    builder.branch(loop)
    builder.position_at_end(done)
