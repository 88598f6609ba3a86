"""Vectors inside numba kernels: arithmetic on several elements at once. A *lane* is one element of a vector.

numba vectorises a loop only where its compiler recognises the pattern. A kernel that must run at the machine's limit
uses explicit vectors. ``load`` reads a vector of consecutive elements. ``+ - * /``, shifts and comparisons work lane by
lane; a Python number on either side is put in every lane. ``store`` writes a vector to memory. An example:

    @kernel()
    def scale_and_shift(x, out, scale, shift, n):
        for i in range(0, n, lanes(x)):
            store_tail(out, i, fma(load_tail(x, i, n - i), scale, shift), n - i)

An index counts elements from the array's first one, whatever its shape and strides: a strided view is read by
computing that offset from its strides. There are no bounds checks and no wraparound. With ``GPT_NUMPY_CHECK_BOUNDS=1``
in the environment every access is checked against the array's extent, and the process dies at the first bad one.

The element type is the array's, float32 and float64 alike, and the width the CPU's (see ``lanes``, where each of these
operations is defined). ``add_lanes`` and its kind combine lanes in a fixed order: results do not vary from run to run.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic

from . import emitting, mathematics
from .emitting import Lanes, Vector, native


def _common(args):
    """The vector type that all args take: numbers are broadcast to the type of the first vector."""
    return next((a for a in args if isinstance(a, Vector)), None)


@lower_cast(types.Number, Vector)
@lower_cast(types.Boolean, Vector)
def _broadcast_number(context, builder, source, target, value):
    element = context.cast(builder, value, types.unliteral(source), target.element)
    return emitting.splat(builder, element, target).value


def _operator(symbol, emit):
    """Teach numba one operator between vectors, or a vector and a number; ``emit`` works on Lanes."""

    @infer_global(symbol)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            vector = _common(args)
            if vector is not None:
                return signature(_result(vector), *[vector] * len(args))

    compares = symbol in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)

    def _result(vector):
        return Vector(types.boolean, vector.lanes) if compares else vector

    def lower(context, builder, sig, args):
        return emit(*(Lanes(builder, value, type) for value, type in zip(args, sig.args))).value

    lower_builtin(symbol, *[Vector] * (1 if symbol is operator.neg else 2))(lower)


for _symbol in "add sub mul truediv and_ or_ xor lshift rshift neg lt le gt ge".split():
    _operator(getattr(operator, _symbol), getattr(operator, _symbol))
for _symbol in "add sub mul truediv and or xor lshift rshift".split():
    _operator(getattr(operator, "i" + _symbol), getattr(operator, "i" + _symbol))
_operator(operator.eq, Lanes.equals)
_operator(operator.ne, Lanes.differs)


def expose(emit, count, to_scalar=False):
    """A function for kernels from ``emit``, a function of ``count`` Lanes that returns Lanes (or a scalar)."""

    def generate(*args):
        vector = _common(args)
        if vector is None:
            return None
        sig = signature(vector.element if to_scalar else vector, *[vector] * count)

        def codegen(context, builder, sig, values):
            result = emit(*(Lanes(builder, value, type) for value, type in zip(values, sig.args)))
            return result if to_scalar else result.value

        return sig, codegen

    # numba reads an intrinsic's parameters from its signature, so each count needs its own.
    wrappers = {
        1: lambda typingctx, x: generate(x),
        2: lambda typingctx, x, y: generate(x, y),
        3: lambda typingctx, x, y, z: generate(x, y, z),
    }
    wrapper = wrappers[count]
    wrapper.__name__, wrapper.__doc__ = emit.__name__, emit.__doc__
    return intrinsic(wrapper)


def add_all(x):
    """The sum of all lanes."""
    return emitting.fold(x, operator.add)


def max_all(x):
    """The largest lane."""
    return emitting.fold(x, emitting.maximum)


def min_all(x):
    """The smallest lane."""
    return emitting.fold(x, emitting.minimum)


fma = expose(emitting.fma, 3)
maximum = expose(emitting.maximum, 2)
minimum = expose(emitting.minimum, 2)
absolute = expose(emitting.absolute, 1)
sqrt = expose(emitting.sqrt, 1)
exp = expose(mathematics.exp, 1)
exp2_of_negative = expose(mathematics.exp2_of_negative, 1)
tanh = expose(mathematics.tanh, 1)
gelu = expose(mathematics.gelu, 1)
gelu_derivative = expose(mathematics.gelu_derivative, 1)


@intrinsic
def gelu_and_derivative(typingctx, x):
    """The pair (gelu(x), its derivative), which share most of their work."""
    pair = types.UniTuple(x, 2)

    def codegen(context, builder, sig, args):
        values = mathematics.gelu_and_derivative(Lanes(builder, args[0], x))
        return context.make_tuple(builder, pair, [value.value for value in values])

    return pair(x), codegen


@intrinsic
def add_lanes_of_four(typingctx, x, y, z, w):
    """A vector whose first four lanes are ``add_lanes`` of each argument: the same bits in fewer steps, see ``fold_four``."""
    if x.lanes < 4:
        return None

    def codegen(context, builder, sig, args):
        return emitting.fold_four([Lanes(builder, value, x) for value in args], operator.add).value

    return x(x, x, x, x), codegen


add_lanes = expose(add_all, 1, to_scalar=True)
max_lanes = expose(max_all, 1, to_scalar=True)
min_lanes = expose(min_all, 1, to_scalar=True)


@intrinsic
def where(typingctx, mask, x, y):
    """x in the lanes where the mask (from a comparison) is on, y in the others; one of x, y may be a number."""
    vector = _common((x, y))
    if vector is None or not isinstance(mask, Vector):
        return None

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return vector(mask, vector, vector), codegen


@intrinsic
def convert(typingctx, x, dtype):
    """Each lane's value as ``dtype`` (a NumPy scalar type such as np.float64); the number of lanes stays."""
    return Vector(dtype.dtype, x.lanes)(
        x, dtype
    ), lambda context, builder, sig, args: Lanes(builder, args[0], x).convert(dtype.dtype).value


@intrinsic
def bits(typingctx, x, dtype):
    """The same bits as lanes of another ``dtype`` of the same size."""
    return Vector(dtype.dtype, x.lanes)(
        x, dtype
    ), lambda context, builder, sig, args: Lanes(builder, args[0], x).bits(dtype.dtype).value


def _vector_of(like):
    """The vector type meant by an example: an array's native vector, or a vector's own type."""
    return like if isinstance(like, Vector) else native(like.dtype)


@intrinsic
def lanes(typingctx, like):
    """How many elements of the array (or vector) ``like`` one vector holds: a compile-time constant."""
    count = _vector_of(like).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


@intrinsic
def broadcast(typingctx, like, number):
    """``number`` in every lane of a vector like the array's (or like the vector)."""
    vector = _vector_of(like)

    def codegen(context, builder, sig, args):
        return emitting.splat(builder, args[1], vector).value

    return vector(like, vector.element), codegen


@intrinsic
def lane_index(typingctx, like, dtype):
    """0, 1, 2, … as lanes of ``dtype``, as many as a vector of ``like`` has."""
    vector = Vector(dtype.dtype, _vector_of(like).lanes)

    def codegen(context, builder, sig, args):
        return vector.ir(list(range(vector.lanes)))

    return vector(like, dtype), codegen


# Memory.


def _pointer(context, builder, sig, args, count):
    count = count if not isinstance(count, int) else context.get_constant(types.int64, count)
    return emitting.element_pointer(context, builder, sig.args[0], args[0], args[1], count)


@intrinsic
def load(typingctx, array, index):
    """The vector that starts at element ``index``, counted from the array's first."""
    vector = native(array.dtype)

    def codegen(context, builder, sig, args):
        return emitting.load_vector(builder, _pointer(context, builder, sig, args, vector.lanes), vector).value

    return vector(array, types.int64), codegen


@intrinsic
def store(typingctx, array, index, vector):
    """Write a vector from element ``index`` on."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig, args, sig.args[2].lanes)
        emitting.store_vector(Lanes(builder, args[2], sig.args[2]), pointer)
        return context.get_dummy_value()

    target = vector if isinstance(vector, Vector) else native(array.dtype)
    if target.element != array.dtype:
        return None
    return types.void(array, types.int64, target), codegen


@intrinsic
def stream(typingctx, array, index, vector):
    """As ``store``, but past the caches, for what is not read again soon: memory is not read before it is written.

    The address must be a multiple of the vector's size; the process dies where it is not.
    """

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig, args, sig.args[2].lanes)
        store = builder.store(args[2], builder.bitcast(pointer, sig.args[2].ir.as_pointer()))
        store.align = sig.args[2].lanes * array.dtype.bitwidth // 8
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    if vector.element != array.dtype:
        return None
    return types.void(array, types.int64, vector), codegen


def _clip(builder, count, lanes):
    """min(count, lanes), for the check of a masked access."""
    limit = count.type(lanes)
    return builder.select(builder.icmp_signed("<", count, limit), count, limit)


@intrinsic
def load_tail(typingctx, array, index, count):
    """As ``load``, but reads only the first ``count`` elements (0 … any); the other lanes are 0.

    As fast as ``load`` where the vector is whole, so a loop need not treat its last vector apart.
    """
    vector = native(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig, args, _clip(builder, args[2], vector.lanes))
        whole = builder.icmp_signed(">=", args[2], args[2].type(vector.lanes))
        with builder.if_else(whole, likely=True) as (inner, edge):
            with inner:
                full, from_full = emitting.load_vector(builder, pointer, vector).value, builder.block
            with edge:
                mask = emitting.first_lanes(builder, args[2], vector)
                part, from_part = emitting.load_masked(builder, pointer, vector, mask).value, builder.block
        result = builder.phi(vector.ir)
        result.add_incoming(full, from_full)
        result.add_incoming(part, from_part)
        return result

    return vector(array, types.int64, types.int64), codegen


@intrinsic
def store_tail(typingctx, array, index, vector, count):
    """As ``store``, but writes only the first ``count`` lanes (0 … any)."""
    target = vector if isinstance(vector, Vector) else native(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig, args, _clip(builder, args[3], target.lanes))
        value = Lanes(builder, args[2], target)
        whole = builder.icmp_signed(">=", args[3], args[3].type(target.lanes))
        with builder.if_else(whole, likely=True) as (inner, edge):
            with inner:
                emitting.store_vector(value, pointer)
            with edge:
                emitting.store_masked(value, pointer, emitting.first_lanes(builder, args[3], target))
        return context.get_dummy_value()

    if target.element != array.dtype:
        return None
    return types.void(array, types.int64, target, types.int64), codegen


@intrinsic
def keep_first(typingctx, vector, count, other):
    """The first ``count`` lanes of ``vector``, ``other`` (a number, such as -inf) in the rest."""

    def codegen(context, builder, sig, args):
        return builder.select(emitting.first_lanes(builder, args[1], vector).value, args[0], args[2])

    return vector(vector, types.int64, vector), codegen


@intrinsic
def read(typingctx, array, index):
    """The single element ``index``, counted from the array's first."""

    def codegen(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig, args, 1))

    return array.dtype(array, types.int64), codegen


@intrinsic
def write(typingctx, array, index, value):
    """Set the single element ``index``."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig, args, 1))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of element ``index`` ahead of its use; never faults, whatever the index."""

    def codegen(context, builder, sig, args):
        address = builder.gep(emitting.data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        emitting.prefetch(builder, address)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen
