"""Vectors while machine code is being generated: Python operators append LLVM instructions.

A *lane* is one element of a vector; ``lanes`` is the number of a vector's elements.

``vectors`` (what kernels call), ``mathematics`` and the tiles of ``gemm`` are all written with ``Lanes``. A function of
``Lanes`` runs once, when a kernel is compiled; its Python loops are unrolled into straight-line code, which LLVM
compiles quickly, where numba would spend its time on typing the same loop.

A ``Vector`` is an LLVM vector type, portable by itself: on a CPU with narrower registers LLVM splits it. The width
follows the CPU (``VECTOR_BYTES``), so the same source is 16 lanes of float32 under AVX-512, 8 under AVX2, 4 under NEON.
``GPT_NUMPY_VECTOR_BYTES`` overrides it: the tests run every width on any machine.
"""

import os
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typeconv import Conversion
from numba.extending import register_model

from ...errors import ConfigError

CHECK_BOUNDS = os.environ.get("GPT_NUMPY_CHECK_BOUNDS", "0") == "1"


def cpu_features():
    """Names of the instruction sets that this CPU has, as LLVM calls them; empty where LLVM cannot tell."""
    try:
        return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    except RuntimeError:
        return frozenset()


def _vector_bytes():
    forced = os.environ.get("GPT_NUMPY_VECTOR_BYTES")
    if forced is not None:
        if forced not in ("16", "32", "64"):
            raise ValueError(f"GPT_NUMPY_VECTOR_BYTES: found {forced!r}; expected 16, 32 or 64")
        return int(forced)
    features = cpu_features()
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


VECTOR_BYTES = _vector_bytes()


def has_bfloat16(features, vector_bytes, wanted):
    """Whether pairs are multiplied by ``vdpbf16ps``. ``wanted``: the setting GPT_NUMPY_BFLOAT16, or None."""
    if wanted not in (None, "widened", "instruction"):
        raise ConfigError(
            "no such product", field="GPT_NUMPY_BFLOAT16", found=wanted, expected="widened or instruction"
        )
    return vector_bytes == 64 and "avx512bf16" in features and wanted != "widened"


HAS_BFLOAT16 = has_bfloat16(cpu_features(), VECTOR_BYTES, os.environ.get("GPT_NUMPY_BFLOAT16"))


class Vector(types.Type):
    """The numba type of ``lanes`` values of ``element``; a comparison gives a Vector of booleans."""

    def __init__(self, element, lanes):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")

    def can_convert_from(self, typingctx, other):
        is_number = isinstance(other, (types.Integer, types.Float, types.Boolean))
        return Conversion.promote if is_number else None

    @property
    def ir(self):
        if self.element is types.boolean:
            return ir.VectorType(ir.IntType(1), self.lanes)
        if isinstance(self.element, types.Float):
            return ir.VectorType(ir.FloatType() if self.element.bitwidth == 32 else ir.DoubleType(), self.lanes)
        return ir.VectorType(ir.IntType(self.element.bitwidth), self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


def native(element, vector_bytes=None):
    """The widest Vector of ``element`` that one register of this CPU holds."""
    return Vector(element, (vector_bytes or VECTOR_BYTES) * 8 // element.bitwidth)


class Lanes:
    """A vector while code is being generated: operators append the instruction and return its result."""

    def __init__(self, builder, value, type):
        self.builder, self.value, self.type = builder, value, type
        self.is_float = isinstance(type.element, types.Float)

    def like(self, value, type=None):
        return Lanes(self.builder, value, type or self.type)

    def constant(self, number):
        """The same Python number in every lane of a vector of this type."""
        return self.like(ir.Constant(self.type.ir, [number] * self.type.lanes))

    def call(self, name, *others):
        """An LLVM intrinsic that takes and returns vectors of this type."""
        return self.like(call_intrinsic(self.builder, name, self.type.ir, [self.value, *(o.value for o in others)]))

    def bits(self, element):
        """The same bits read as lanes of another type of the same size."""
        type = Vector(element, self.type.lanes)
        return self.like(self.builder.bitcast(self.value, type.ir), type)

    def convert(self, element):
        """Each lane's value as another type."""
        builder, target = self.builder, Vector(element, self.type.lanes)
        signed = getattr(self.type.element, "signed", False)
        to_float, bits = isinstance(element, types.Float), (element.bitwidth, self.type.element.bitwidth)
        if bits[0] == bits[1] and to_float == self.is_float:
            return self.like(self.value, target)
        if self.is_float and to_float:
            emit = builder.fpext if bits[0] > bits[1] else builder.fptrunc
        elif self.is_float:
            emit = builder.fptosi if element.signed else builder.fptoui
        elif to_float:
            emit = builder.sitofp if signed else builder.uitofp
        else:
            emit = builder.trunc if bits[0] < bits[1] else builder.sext if signed else builder.zext
        return self.like(emit(self.value, target.ir), target)

    def _pick(self, other, for_float, for_int):
        other = other if isinstance(other, Lanes) else self.constant(other)
        return self.like((for_float if self.is_float else for_int)(self.value, other.value))

    def _compare(self, other, relation):
        b = self.builder
        other = other if isinstance(other, Lanes) else self.constant(other)
        if self.is_float:
            compare = b.fcmp_unordered if relation == "!=" else b.fcmp_ordered
        else:
            compare = b.icmp_signed if self.type.element.signed else b.icmp_unsigned
        return self.like(compare(relation, self.value, other.value), Vector(types.boolean, self.type.lanes))

    def __add__(self, other):
        return self._pick(other, self.builder.fadd, self.builder.add)

    def __sub__(self, other):
        return self._pick(other, self.builder.fsub, self.builder.sub)

    def __mul__(self, other):
        return self._pick(other, self.builder.fmul, self.builder.mul)

    def __truediv__(self, other):
        return self._pick(other, self.builder.fdiv, None)

    def __and__(self, other):
        return self._pick(other, None, self.builder.and_)

    def __or__(self, other):
        return self._pick(other, None, self.builder.or_)

    def __xor__(self, other):
        return self._pick(other, None, self.builder.xor)

    def __lshift__(self, other):
        return self._pick(other, None, self.builder.shl)

    def __rshift__(self, other):
        signed = getattr(self.type.element, "signed", False)
        return self._pick(other, None, self.builder.ashr if signed else self.builder.lshr)

    def __neg__(self):
        return self.like(self.builder.fneg(self.value)) if self.is_float else self.constant(0) - self

    def __lt__(self, other):
        return self._compare(other, "<")

    def __le__(self, other):
        return self._compare(other, "<=")

    def __gt__(self, other):
        return self._compare(other, ">")

    def __ge__(self, other):
        return self._compare(other, ">=")

    def equals(self, other):
        return self._compare(other, "==")

    def differs(self, other):
        return self._compare(other, "!=")


def call_intrinsic(builder, name, result, values):
    """Call ``llvm.NAME.<suffix of the result type>``."""
    suffix = f"v{result.count}" if isinstance(result, ir.VectorType) else ""
    element = result.element if suffix else result
    kind = {"float": "f32", "double": "f64"}.get(str(element), str(element))
    function_type = ir.FunctionType(result, [v.type for v in values])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{suffix}{kind}")
    return builder.call(function, values)


# Arithmetic on Lanes.


def fma(x, y, z):
    """x·y + z, rounded once where the CPU has a fused instruction."""
    return x.call("fmuladd", y, z)


def select(mask, x, y):
    return x.like(x.builder.select(mask.value, x.value, y.value))


def maximum(x, y):
    """The larger of each pair; y where either is NaN."""
    return select(x > y, x, y)


def minimum(x, y):
    """The smaller of each pair; y where either is NaN."""
    return select(x < y, x, y)


def absolute(x):
    return x.call("fabs")


def sqrt(x):
    return x.call("sqrt")


def splat(builder, scalar, type):
    """The scalar in every lane."""
    vector = builder.insert_element(ir.Constant(type.ir, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), type.lanes), [0] * type.lanes)
    return Lanes(builder, builder.shuffle_vector(vector, ir.Constant(type.ir, ir.Undefined), zeros), type)


def fold(x, combine):
    """One scalar from all lanes, always in the same order: the upper half onto the lower until one is left."""
    builder, count = x.builder, x.type.lanes
    while count > 1:
        count //= 2
        order = [[lane + start for lane in range(count)] for start in (0, count)]
        halves = [ir.Constant(ir.VectorType(ir.IntType(32), count), half) for half in order]
        type, undefined = Vector(x.type.element, count), ir.Constant(x.type.ir, ir.Undefined)
        low, high = (x.like(builder.shuffle_vector(x.value, undefined, half), type) for half in halves)
        x = combine(low, high)
    return builder.extract_element(x.value, ir.Constant(ir.IntType(32), 0))


def fold_four(vectors, combine):
    """A vector whose first four lanes are ``fold`` of each of four ``vectors``; the other lanes are undefined.

    The combinations are those of ``fold``, in about half as many steps: halves of two vectors lie side by side in one. The
    vectors have four lanes or more.
    """
    lanes = group = vectors[0].type.lanes  # group: lanes that are left of each of the four
    while len(vectors) > 1:
        parts = [(vector, part) for vector in (0, lanes) for part in range(0, lanes, group)]
        group //= 2
        low = [vector + part + lane for vector, part in parts for lane in range(group)]
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        vectors = [combine(_shuffled(a, b, low), _shuffled(a, b, [lane + group for lane in low])) for a, b in pairs]
    (x,), apart = vectors, group
    while group > 1:
        group //= 2
        x = combine(x, _shuffled(x, x, [(lane + group) % lanes for lane in range(lanes)]))
    return _shuffled(x, x, [min(lane, 3) * apart for lane in range(lanes)])


def _shuffled(a, b, order):
    """The lanes of a, followed by those of b, in another order."""
    indices = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return a.like(a.builder.shuffle_vector(a.value, b.value, indices))


def first_lanes(builder, count, type):
    """The mask whose first ``count`` lanes (an i64) are on."""
    index = Vector(types.int64, type.lanes)
    lane = Lanes(builder, ir.Constant(index.ir, list(range(type.lanes))), index)
    return lane < splat(builder, count, index)


# Memory.


def data_pointer(context, builder, array_type, array):
    """The address of the array's first element, as a pointer to its element type."""
    return context.make_array(array_type)(context, builder, array).data


def element_pointer(context, builder, array_type, array, index, count):
    """The address of element ``index``; in a checked run, ``count`` elements from there must lie in the array."""
    if CHECK_BOUNDS:
        _check_extent(context, builder, array_type, array, index, count)
    return builder.gep(data_pointer(context, builder, array_type, array), [index])


def _check_extent(context, builder, array_type, array, index, count):
    fields, i64 = context.make_array(array_type)(context, builder, array), ir.IntType(64)
    shape, strides = (cgutils.unpack_tuple(builder, field) for field in (fields.shape, fields.strides))
    low, high = i64(0), fields.itemsize  # bytes from the first element; a stride below 0 goes back from it
    for length, stride in zip(shape, strides):
        reach = builder.mul(builder.sub(length, i64(1)), stride)
        back = builder.icmp_signed("<", reach, i64(0))
        low = builder.add(low, builder.select(back, reach, i64(0)))
        high = builder.add(high, builder.select(back, i64(0), reach))
    high = builder.select(builder.icmp_signed(">", fields.nitems, i64(0)), high, low)
    start = builder.mul(index, fields.itemsize)
    end = builder.mul(builder.add(index, count), fields.itemsize)
    empty = builder.icmp_signed("<=", count, i64(0))
    inside = builder.and_(builder.icmp_signed(">=", start, low), builder.icmp_signed("<=", end, high))
    with builder.if_then(builder.not_(builder.or_(empty, inside)), likely=False):
        message = f"kernel access outside {array_type}: elements %lld + %lld, bytes %lld to %lld\n"
        cgutils.printf(builder, message, index, count, low, high)
        # A pipe gets what C's streams hold when they are flushed, which a trap does not do.
        every_stream = ir.Constant(ir.IntType(8).as_pointer(), None)
        flush_type = ir.FunctionType(ir.IntType(32), [every_stream.type])
        builder.call(cgutils.get_or_insert_function(builder.module, flush_type, "fflush"), [every_stream])
        trap = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.trap")
        builder.call(trap, [])


class Rows(NamedTuple):
    """Rows of a flat array, the argument of a tile: number j of row i is array[first + i · step + j]."""

    array: np.ndarray
    first: int
    step: int


def unpack(builder, kind, value):
    """The fields of a NamedTuple argument, in order: for each its numba type and its value."""
    return [(field, builder.extract_value(value, i)) for i, field in enumerate(kind.types)]


def unpack_rows(context, builder, kind, value):
    """Of an argument ``Rows``: the pointer to its first number, and its step."""
    (array_type, array), (_, first), (_, step) = unpack(builder, kind, value)
    return builder.gep(data_pointer(context, builder, array_type, array), [first]), step


def load_vector(builder, pointer, type):
    """Unaligned vector load."""
    value = builder.load(builder.bitcast(pointer, type.ir.as_pointer()))
    value.align = type.element.bitwidth // 8
    return Lanes(builder, value, type)


def store_vector(x, pointer):
    """Unaligned vector store."""
    store = x.builder.store(x.value, x.builder.bitcast(pointer, x.type.ir.as_pointer()))
    store.align = x.type.element.bitwidth // 8


def _masked(builder, operation, pointer, type, mask, vector):
    """llvm.masked.load or .store: touches only the lanes that are on; a load gives zero in the others."""
    suffix = f"v{type.lanes}{'f' if isinstance(type.element, types.Float) else 'i'}{type.element.bitwidth}.p0"
    pointer = builder.bitcast(pointer, type.ir.as_pointer())
    align = ir.Constant(ir.IntType(32), type.element.bitwidth // 8)
    if operation == "load":
        result, values = type.ir, [pointer, align, mask.value, vector]
    else:
        result, values = ir.VoidType(), [vector, pointer, align, mask.value]
    function_type = ir.FunctionType(result, [v.type for v in values])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.{operation}.{suffix}")
    return builder.call(function, values)


def load_masked(builder, pointer, type, mask):
    return Lanes(builder, _masked(builder, "load", pointer, type, mask, ir.Constant(type.ir, None)), type)


def store_masked(x, pointer, mask):
    _masked(x.builder, "store", pointer, x.type, mask, x.value)


def prefetch(builder, pointer, locality=3):
    """Bring the cache line of ``pointer`` close, for reading; locality 2: not into the first-level cache."""
    i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(pointer, byte), i32(0), i32(locality), i32(1)])
