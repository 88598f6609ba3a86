"""The activations by name, forward and backward: one pass over memory each. The twin of ``layers.activation``.

The gated form's backward writes dgate and dup, and on request out again: the feed-forward layer keeps ``hidden`` alone.

The name reaches compiled code as a type (a NamedTuple class of ``KINDS``), so that each activation is compiled alone, when
first used, without a branch in a loop. ``activate`` and ``slope`` are its value and derivative on a vector.
"""

import collections
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from ..arguments import check_choice, halves
from ..config import PLAIN_ACTIVATIONS
from .runtime.checks import check_shape, flat, one_dtype
from .runtime.curves import CURVES
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import expose, lanes, load, load_tail, store, store_tail

_BLOCK = 1 << 13  # elements a task, a multiple of every vector's length


def _kind(name):
    cls = collections.namedtuple(f"Kind_{name}", "unused", module=__name__)
    globals()[cls.__name__] = cls  # where a pickled type is looked up
    return cls(0)


KINDS = {name: _kind(name) for name in PLAIN_ACTIVATIONS}
_EMITTED = {
    type(KINDS[name]): {field: expose(emit, 1) for field, emit in curve._asdict().items()}
    for name, curve in CURVES.items()
}


def activate(kind, x):
    """The activation of a vector; kind is a value of ``KINDS``."""


def slope(kind, x):
    """The activation's derivative at a vector."""


@overload(activate)
def _activate(kind, x):
    value = _EMITTED[kind.instance_class]["value"]
    return lambda kind, x: value(x)


@overload(slope)
def _slope(kind, x):
    derivative = _EMITTED[kind.instance_class]["slope"]
    return lambda kind, x: derivative(x)


class ActivationCache(NamedTuple):
    x: np.ndarray  # any shape
    name: str


class SwigluCache(NamedTuple):
    hidden: np.ndarray  # (..., 2W): gate, then up
    activation: str


@part
def _forward_block(worker, task, kind, x, out):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    while i + lanes(x) <= stop:
        store(out, i, activate(kind, load(x, i)))
        i += lanes(x)
    if i < stop:
        store_tail(out, i, activate(kind, load_tail(x, i, stop - i)), stop - i)


@launcher
def _forward(n_tasks, kind, x, out):
    parallel_for(_forward_block, n_tasks, (kind, x, out))


@part
def _backward_block(worker, task, kind, dout, x, dx):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    while i + lanes(x) <= stop:
        store(dx, i, load(dout, i) * slope(kind, load(x, i)))
        i += lanes(x)
    if i < stop:
        n = stop - i
        store_tail(dx, i, load_tail(dout, i, n) * slope(kind, load_tail(x, i, n)), n)


@launcher
def _backward(n_tasks, kind, dout, x, dx):
    parallel_for(_backward_block, n_tasks, (kind, dout, x, dx))


def activation_forward(x, name, alloc=np.empty):
    """out = f(x), elementwise, with f the function of that name."""
    dtype = one_dtype(x=x)
    check_choice("name", name, PLAIN_ACTIVATIONS)
    out = alloc(x.shape, dtype)
    _forward(-(-x.size // _BLOCK), KINDS[name], flat(x), out.reshape(-1))
    return out, ActivationCache(x, name)


def activation_backward(dout, cache, alloc=np.empty):
    """dx = dout · f′(x); see ``layers.activation`` for the derivatives."""
    dtype = one_dtype(x=cache.x, dout=dout)
    check_shape("dout", dout, cache.x.shape)
    dx = alloc(dout.shape, dtype)
    _backward(-(-dout.size // _BLOCK), KINDS[cache.name], flat(dout), flat(cache.x), dx.reshape(-1))
    return dx


@part
def _gate_rows(worker, task, kind, rows, width, hidden, out):
    for row in range(task * rows, min(out.size // width, (task + 1) * rows)):
        gate, to = 2 * row * width, row * width
        for j in range(0, width, lanes(hidden)):
            n = width - j
            value = activate(kind, load_tail(hidden, gate + j, n)) * load_tail(hidden, gate + width + j, n)
            store_tail(out, to + j, value, n)


@launcher
def _gate(n_tasks, kind, rows, width, hidden, out):
    parallel_for(_gate_rows, n_tasks, (kind, rows, width, hidden, out))


@part
def _gate_rows_backward(worker, task, kind, rows, width, dout, hidden, dhidden, out):
    for row in range(task * rows, min(dout.size // width, (task + 1) * rows)):
        gate, here = 2 * row * width, row * width
        for j in range(0, width, lanes(hidden)):
            n = width - j
            g, up, d = (
                load_tail(hidden, gate + j, n),
                load_tail(hidden, gate + width + j, n),
                load_tail(dout, here + j, n),
            )
            activated = activate(kind, g)
            store_tail(dhidden, gate + j, d * up * slope(kind, g), n)
            store_tail(dhidden, gate + width + j, d * activated, n)
            if out.size > 0:
                store_tail(out, here + j, activated * up, n)


@launcher
def _gate_backward(n_tasks, kind, rows, width, dout, hidden, dhidden, out):
    parallel_for(_gate_rows_backward, n_tasks, (kind, rows, width, dout, hidden, dhidden, out))


def _tasks(elements, width):
    rows = max(1, _BLOCK // max(width, 1))
    return -(-(elements // max(width, 1)) // rows), rows


def gate_rows(hidden, activation, out):
    """out (rows, W) = f(gate) · up of hidden (rows, 2W); contiguous arrays, whose shapes the caller has checked."""
    n_tasks, rows = _tasks(out.size, out.shape[-1])
    _gate(n_tasks, KINDS[activation], rows, out.shape[-1], hidden.reshape(-1), out.reshape(-1))


def gate_rows_backward(dout, hidden, activation, dhidden, out=None):
    """dhidden (rows, 2W) from dout (rows, W), and ``out``, where given, again; contiguous arrays of checked shapes."""
    n_tasks, rows = _tasks(dout.size, dout.shape[-1])
    again = np.empty(0, dout.dtype) if out is None else out.reshape(-1)
    arrays = dout.reshape(-1), hidden.reshape(-1), dhidden.reshape(-1), again
    _gate_backward(n_tasks, KINDS[activation], rows, dout.shape[-1], *arrays)


def swiglu_forward(hidden, activation="silu", alloc=np.empty):
    """out (..., W) = f(gate) · up, elementwise, for hidden (..., 2W) = gate | up."""
    dtype = one_dtype(hidden=hidden)
    gate, _ = halves(hidden)
    check_choice("name", activation, PLAIN_ACTIVATIONS)
    out = alloc(gate.shape, dtype)
    gate_rows(flat(hidden), activation, out)
    return out, SwigluCache(hidden, activation)


def swiglu_backward(dout, cache, alloc=np.empty):
    """dhidden (..., 2W) = dgate | dup; see ``layers.activation`` for the derivation."""
    hidden, activation = cache
    dtype = one_dtype(hidden=hidden, dout=dout)
    gate, _ = halves(hidden)
    check_shape("dout", dout, gate.shape)
    dhidden = alloc(hidden.shape, dtype)
    gate_rows_backward(np.ascontiguousarray(dout), flat(hidden), activation, dhidden)
    return dhidden
