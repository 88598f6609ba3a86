"""The inner loop of inference: a few rows of activations times one packed panel of weights, in four number formats.

A *panel* is ``PANEL`` columns of a weight matrix, laid out so that the loop over k reads it in one straight line, once:

    float32   [k][column]                                     4 bytes a weight
    bfloat16  [k // 2][column][k % 2]                         2 bytes; the upper half of a float32
    int8      blocks of ``BLOCK`` k: [k // 2][column][k % 2], then a bfloat16 scale for each column    1.03 bytes
    int4      blocks of ``NIBBLE_BLOCK`` k: [k // 8][column] words of eight numbers, then 16 bits for each column    0.56 bytes

A single row of activations uses each weight once, so that the time is that of reading the weights: the format's size is
the speed. Memory is read faster in a few streams than in one, so a few panels are taken side by side, as many as have
room for their columns' sums in registers. Each sum is one chain of additions in the order of k, and so has the same
bits for any number of rows; a text does not depend on what else is in its batch.

int8: weight = scale · q with q in −127 … 127. The activations are quantised as well, but to 16 bits with a scale for
each block, so that what is lost is the weights' rounding alone: a pair of products fits 32 bits exactly, and so does a
block's sum (64 · 127 · 32767 < 2³¹). The layout puts the pair in neighbouring elements of a vector because the CPU
multiplies and adds such pairs in one instruction (pmaddwd).

int4: weight = step · (q − zero), with q and zero in 0 … 15. The 16 bits of a column are 12 bits of the step, a float32 without
its sign and its last bits, and 4 bits of the zero. Number k of a word lies at bit 4 (k // 2 + 4 (k % 2)), so that one
shift and one mask leave a pair for each column in the two halves of a lane. The activations are those of int8. A block's
sum is step · Σ q·x − step · zero · Σ x, so the sums of the activations are kept beside their scales.

bfloat16 weights may also meet activations in words (``runtime.bfloat16``): products in bfloat16, for prompts, which
arithmetic limits.

The specification is ``inference.packed``, which unpacks a panel again.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..runtime import emitting
from ..runtime.bfloat16 import TOGETHER, dot_words
from ..runtime.emitting import VECTOR_BYTES, Lanes, Vector

PANEL = 16  # columns: a cache line of float32
BLOCK = 64  # k in one int8 block
BLOCK_BYTES = BLOCK * PANEL + 2 * PANEL
NIBBLE_BLOCK = 32  # k in one int4 block
NIBBLE_BYTES = NIBBLE_BLOCK * PANEL // 2 + 2 * PANEL
STEP_MASK = 0xFFF0  # of a column's 16 bits: the step's; the others are the zero's
SCALES = 3  # numbers for each BLOCK of activations: their scale, and the sums of its two halves
TILE_ROWS = {64: 12, 32: 6, 16: 3}[VECTOR_BYTES]  # rows of sums that fit the registers, beside weights and activations

_FLOATS = Vector(types.float32, VECTOR_BYTES // 4)
_WORDS = Vector(types.uint32, _FLOATS.lanes)
_INTEGERS = Vector(types.int32, _FLOATS.lanes)
_VECTORS = PANEL // _FLOATS.lanes
_K_TOGETHER = 4  # of the float32 loop
_CACHE_LINE = 64
_AHEAD_ROWS = 2  # of a tile that asks for panels ahead: with more, arithmetic takes longer than reading
STREAMS = 4  # panels read side by side, where the sums of that many fit
_I64 = ir.IntType(64)


def _at(builder, pointer, offset):
    return builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])


def _cast(builder, pointer, element):
    return builder.bitcast(pointer, element.as_pointer())


def _for_each_size(builder, rows, panels, emit):
    """Run-time choice between the code of ``emit(rows, panels)`` for all that `panel_tile` takes."""
    done = builder.append_basic_block("tile_done")
    switch = builder.switch(builder.add(builder.mul(panels, _I64(TILE_ROWS + 1)), rows), done)
    for width in range(1, STREAMS + 1):
        for count in range(1, TILE_ROWS // width + 1):
            block = builder.append_basic_block(f"tile_{count}_{width}")
            switch.add_case(_I64(width * (TILE_ROWS + 1) + count), block)
            builder.position_at_end(block)
            emit(count, width)
            builder.branch(done)
    builder.position_at_end(done)


class _Sums:
    """rows × panels · PANEL running sums: in registers while a tile runs, in the array ``out`` before and after."""

    def __init__(self, builder, rows, panels, out, row_step):
        self.builder, vectors = builder, panels * _VECTORS
        self.pointers = [
            [
                _at(builder, out, builder.add(builder.mul(_I64(i), row_step), _I64(j * _FLOATS.lanes)))
                for j in range(vectors)
            ]
            for i in range(rows)
        ]
        self.slots = [[cgutils.alloca_once(builder, _FLOATS.ir) for _ in range(vectors)] for _ in range(rows)]
        self._each(lambda pointer, slot: builder.store(emitting.load_vector(builder, pointer, _FLOATS).value, slot))

    def add_product(self, i, j, x, weight):
        slot = self.slots[i][j]
        total = Lanes(self.builder, self.builder.load(slot), _FLOATS)
        self.builder.store(emitting.fma(x, weight, total).value, slot)

    def add_pairs(self, i, j, x, weight):
        slot = self.slots[i][j]
        total = Lanes(self.builder, self.builder.load(slot), _FLOATS)
        self.builder.store(dot_words(total, x, weight).value, slot)

    def write_back(self):
        self._each(
            lambda pointer, slot: emitting.store_vector(Lanes(self.builder, self.builder.load(slot), _FLOATS), pointer)
        )

    def _each(self, act):
        for pointers, slots in zip(self.pointers, self.slots):
            for pointer, slot in zip(pointers, slots):
                act(pointer, slot)


def _rows_of(builder, x, rows, row_step):
    return [_at(builder, x, builder.mul(_I64(i), row_step)) for i in range(rows)]


def _vectors_at(builder, panels, offset, type):
    """A line of each panel, from element ``offset`` of it on: the vectors of all columns."""
    lines = [_at(builder, panel, offset) for panel in panels]
    pointers = [_at(builder, line, j * type.lanes) for line in lines for j in range(_VECTORS)]
    return [emitting.load_vector(builder, pointer, type) for pointer in pointers]


def _splat_at(builder, pointer, index):
    return emitting.splat(builder, builder.load(_at(builder, pointer, index)), _FLOATS)


def _prefetch(builder, panels, offset, count, ahead):
    """Ask for ``count`` bytes of each panel from byte ``offset`` on, ``ahead`` bytes further on."""
    if ahead is not None:
        for panel in panels:
            line = _at(builder, panel, builder.add(offset, ahead))
            for i in range(0, count, _CACHE_LINE):
                emitting.prefetch(builder, _at(builder, line, i), locality=2)


def _emit_float32(builder, rows, panels, x, x_step, depth, out, out_step, ahead):
    sums, x_rows = _Sums(builder, rows, len(panels), out, out_step), _rows_of(builder, x, rows, x_step)

    def one(k):
        columns = _vectors_at(builder, panels, builder.mul(k, _I64(PANEL)), _FLOATS)
        for i, row in enumerate(x_rows):
            number = _splat_at(builder, row, k)
            for j, column in enumerate(columns):
                sums.add_product(i, j, number, column)

    unrolled = builder.sdiv(depth, _I64(_K_TOGETHER))
    with cgutils.for_range(builder, unrolled) as loop:
        first = builder.mul(loop.index, _I64(_K_TOGETHER))
        for k in range(_K_TOGETHER):
            one(builder.add(first, _I64(k)))
    with cgutils.for_range(builder, depth, start=builder.mul(unrolled, _I64(_K_TOGETHER))) as loop:
        one(loop.index)
    sums.write_back()


def _emit_bfloat16(builder, rows, panels, x, x_step, depth, out, out_step, ahead):
    sums, x_rows = _Sums(builder, rows, len(panels), out, out_step), _rows_of(builder, x, rows, x_step)
    panels = [_cast(builder, panel, ir.IntType(32)) for panel in panels]
    pairs = builder.sdiv(builder.add(depth, _I64(1)), _I64(2))
    with cgutils.for_range(builder, pairs) as loop:
        k = builder.mul(loop.index, _I64(2))
        words = _vectors_at(builder, panels, builder.mul(loop.index, _I64(PANEL)), _WORDS)
        halves = [[(w << 16).bits(types.float32) for w in words], [(w & 0xFFFF0000).bits(types.float32) for w in words]]
        for parity, columns in enumerate(halves):
            for i, row in enumerate(x_rows):
                number = _splat_at(builder, row, builder.add(k, _I64(parity)))
                for j, column in enumerate(columns):
                    sums.add_product(i, j, number, column)
    sums.write_back()


def _emit_words(builder, rows, panels, x, x_step, depth, out, out_step, ahead):
    if TOGETHER == 1:
        x = _cast(builder, x, ir.FloatType())
        return _emit_bfloat16(builder, rows, panels, x, x_step, depth, out, out_step, ahead)
    sums, x_rows = _Sums(builder, rows, len(panels), out, out_step), _rows_of(builder, x, rows, x_step)
    panels = [_cast(builder, panel, ir.IntType(32)) for panel in panels]
    with cgutils.for_range(builder, builder.sdiv(builder.add(depth, _I64(1)), _I64(2))) as loop:
        columns = _vectors_at(builder, panels, builder.mul(loop.index, _I64(PANEL)), _WORDS)
        for i, row in enumerate(x_rows):
            number = emitting.splat(builder, builder.load(_at(builder, row, loop.index)), _WORDS)
            for j, column in enumerate(columns):
                sums.add_pairs(i, j, number, column)
    sums.write_back()


def _multiply_pairs(x, y):
    """x and y, lanes of int16: the int32 sums of neighbouring products. LLVM makes pmaddwd of it where it can."""
    builder, count = x.builder, x.type.lanes
    product = x.convert(types.int32) * y.convert(types.int32)
    index = ir.VectorType(ir.IntType(32), count // 2)
    even, odd = (
        builder.shuffle_vector(
            product.value, ir.Constant(product.type.ir, ir.Undefined), ir.Constant(index, list(range(start, count, 2)))
        )
        for start in (0, 1)
    )
    return Lanes(builder, builder.add(even, odd), _INTEGERS)


def _splat_pair(builder, row, k, type):
    """Activations k and k + 1 of a row in the two halves of every lane, as lanes of int16 (``type``)."""
    number = builder.load(_cast(builder, _at(builder, row, k), ir.IntType(32)), align=2)
    return Lanes(builder, builder.bitcast(emitting.splat(builder, number, _INTEGERS).value, type.ir), type)


def _block_sums(builder, blocks, x_rows, k0):
    """int32 sums over one block of k of each panel, rows × vectors."""
    slots = [[cgutils.alloca_once(builder, _INTEGERS.ir) for _ in range(_VECTORS * len(blocks))] for _ in x_rows]
    for slot in sum(slots, []):
        builder.store(ir.Constant(_INTEGERS.ir, None), slot)
    weights8 = Vector(types.int8, 2 * _FLOATS.lanes)
    with cgutils.for_range(builder, _I64(BLOCK // 2 // _K_TOGETHER)) as loop:
        for step in range(_K_TOGETHER):
            half = builder.add(builder.mul(loop.index, _I64(_K_TOGETHER)), _I64(step))
            columns = _vectors_at(builder, blocks, builder.mul(half, _I64(2 * PANEL)), weights8)
            columns = [column.convert(types.int16) for column in columns]
            k = builder.add(k0, builder.mul(half, _I64(2)))
            for i, row in enumerate(x_rows):
                number = _splat_pair(builder, row, k, columns[0].type)
                for j, column in enumerate(columns):
                    total = Lanes(builder, builder.load(slots[i][j]), _INTEGERS)
                    builder.store((total + _multiply_pairs(column, number)).value, slots[i][j])
    return [[Lanes(builder, builder.load(slot), _INTEGERS) for slot in row] for row in slots]


def _emit_int8(builder, rows, panels, x, x_step, depth, out, out_step, ahead, scales):
    sums, x_rows = _Sums(builder, rows, len(panels), out, out_step), _rows_of(builder, x, rows, x_step)
    scale_rows = _rows_of(builder, scales[0], rows, scales[1])
    halves = Vector(types.uint16, _FLOATS.lanes)
    with cgutils.for_range(builder, builder.sdiv(builder.add(depth, _I64(BLOCK - 1)), _I64(BLOCK))) as loop:
        blocks = [_at(builder, panel, builder.mul(loop.index, _I64(BLOCK_BYTES))) for panel in panels]
        _prefetch(builder, panels, builder.mul(loop.index, _I64(BLOCK_BYTES)), BLOCK_BYTES, ahead)
        totals = _block_sums(builder, blocks, x_rows, builder.mul(loop.index, _I64(BLOCK)))
        own_scales = [_cast(builder, _at(builder, block, BLOCK * PANEL), ir.IntType(16)) for block in blocks]
        for j, half in enumerate(_vectors_at(builder, own_scales, 0, halves)):
            scale = (half.convert(types.uint32) << 16).bits(types.float32)
            for i, row in enumerate(scale_rows):
                weight = scale * _splat_at(builder, row, builder.mul(loop.index, _I64(SCALES)))
                sums.add_product(i, j, totals[i][j].convert(types.float32), weight)
    sums.write_back()


def _nibble_sums(builder, blocks, x_rows, k0):
    """int32 sums of q · x over one block of k of each panel, rows × vectors."""
    slots = [[cgutils.alloca_once(builder, _INTEGERS.ir) for _ in range(_VECTORS * len(blocks))] for _ in x_rows]
    for slot in sum(slots, []):
        builder.store(ir.Constant(_INTEGERS.ir, None), slot)
    pairs = Vector(types.int16, 2 * _FLOATS.lanes)
    with cgutils.for_range(builder, _I64(NIBBLE_BLOCK // 8)) as loop:
        words = _vectors_at(builder, blocks, builder.mul(loop.index, _I64(PANEL)), _WORDS)
        k = builder.add(k0, builder.mul(loop.index, _I64(8)))
        for step in range(4):
            columns = [(word >> (4 * step)) & 0x000F000F for word in words]
            columns = [column.like(builder.bitcast(column.value, pairs.ir), pairs) for column in columns]
            for i, row in enumerate(x_rows):
                number = _splat_pair(builder, row, builder.add(k, _I64(2 * step)), pairs)
                for j, column in enumerate(columns):
                    total = Lanes(builder, builder.load(slots[i][j]), _INTEGERS)
                    builder.store((total + _multiply_pairs(column, number)).value, slots[i][j])
    return [[Lanes(builder, builder.load(slot), _INTEGERS) for slot in row] for row in slots]


def _steps_and_zeros(builder, blocks):
    """Of each vector of columns of the blocks: the steps, and minus steps · zeros."""
    halves = [_cast(builder, _at(builder, block, NIBBLE_BLOCK * PANEL // 2), ir.IntType(16)) for block in blocks]
    found = []
    for half in _vectors_at(builder, halves, 0, Vector(types.uint16, _FLOATS.lanes)):
        word = half.convert(types.uint32)
        step = ((word & STEP_MASK) << 15).bits(types.float32)
        zero = (word & 15).bits(types.int32).convert(types.float32)
        found.append((step, step * -zero))
    return found


def _emit_int4(builder, rows, panels, x, x_step, depth, out, out_step, ahead, scales):
    sums, x_rows = _Sums(builder, rows, len(panels), out, out_step), _rows_of(builder, x, rows, x_step)
    scale_rows = _rows_of(builder, scales[0], rows, scales[1])
    with cgutils.for_range(builder, builder.sdiv(builder.add(depth, _I64(BLOCK - 1)), _I64(BLOCK))) as loop:
        first, size = builder.mul(loop.index, _I64(SCALES)), BLOCK // NIBBLE_BLOCK * NIBBLE_BYTES
        _prefetch(builder, panels, builder.mul(loop.index, _I64(size)), size, ahead)
        for half in range(BLOCK // NIBBLE_BLOCK):
            number = builder.add(builder.mul(loop.index, _I64(BLOCK // NIBBLE_BLOCK)), _I64(half))
            blocks = [_at(builder, panel, builder.mul(number, _I64(NIBBLE_BYTES))) for panel in panels]
            words = [_cast(builder, block, ir.IntType(32)) for block in blocks]
            totals = _nibble_sums(builder, words, x_rows, builder.mul(number, _I64(NIBBLE_BLOCK)))
            for j, (step, minus) in enumerate(_steps_and_zeros(builder, blocks)):
                for i, row in enumerate(scale_rows):
                    scale = _splat_at(builder, row, first)
                    total = _splat_at(builder, row, builder.add(first, _I64(1 + half)))
                    sums.add_product(i, j, totals[i][j].convert(types.float32), step * scale)
                    sums.add_product(i, j, minus, total)
    sums.write_back()


@intrinsic
def panel_tile(typingctx, rows, panels, weights, x, scales, depth, out, ahead):
    """out[i, p · PANEL + column] += Σ_k x[i, k] · panel p[k, column]; rows · panels <= TILE_ROWS, panels <= STREAMS.

    ``weights``, ``x``, ``scales`` and ``out`` are ``Rows``; a row of ``weights`` is a panel. The format is told by the
    element types: weights float32, uint16 (bfloat16), int8 or uint8 (int4); x float32, or int16 for integers, or for bfloat16
    words (uint32). x is padded with zeros to the format's multiple of k. scales are read for int16 only: SCALES numbers
    for each BLOCK.
    """
    size = types.int64
    sig = types.void(size, size, weights, x, scales, size, out, size)
    emitters = {
        types.float32: _emit_float32,
        types.uint16: _emit_bfloat16,
        types.int8: _emit_int8,
        types.uint8: _emit_int4,
    }
    emit = _emit_words if x.types[0].dtype is types.uint32 else emitters[weights.types[0].dtype]

    def codegen(context, builder, sig, args):
        (first, w_step), (x_first, x_step), (scales_first, scales_step), (out_first, out_step) = (
            emitting.unpack_rows(context, builder, sig.args[n], args[n]) for n in (2, 3, 4, 6)
        )
        fixed = [x_first, x_step, args[5], out_first, out_step]
        extra = ((scales_first, scales_step),) if emit in (_emit_int8, _emit_int4) else ()

        def emit_size(rows, count):
            panels = [_at(builder, first, builder.mul(_I64(p), w_step)) for p in range(count)]
            emit(builder, rows, panels, *fixed, args[7] if rows <= _AHEAD_ROWS else None, *extra)

        _for_each_size(builder, args[0], args[1], emit_size)
        return context.get_dummy_value()

    return sig, codegen
