"""GELU in its tanh form, forward and backward: one pass over memory each.

The twin of ``layers.gelu``, which derives the gradient; the polynomials are in ``vector_math``.
"""

from typing import NamedTuple

import numpy as np

from .runtime.checks import check_shape, flat, one_dtype
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import gelu, gelu_derivative, lanes, load, load_tail, store, store_tail

_BLOCK = 1 << 13  # elements a task, a multiple of every vector's length


class GeluCache(NamedTuple):
    x: np.ndarray  # any shape


@part
def _forward_block(worker, task, x, out):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    while i + lanes(x) <= stop:
        store(out, i, gelu(load(x, i)))
        i += lanes(x)
    if i < stop:
        store_tail(out, i, gelu(load_tail(x, i, stop - i)), stop - i)


@launcher
def _forward(n_tasks, x, out):
    parallel_for(_forward_block, n_tasks, (x, out))


@part
def _backward_block(worker, task, dout, x, dx):
    i, stop = task * _BLOCK, min(x.size, (task + 1) * _BLOCK)
    while i + lanes(x) <= stop:
        store(dx, i, load(dout, i) * gelu_derivative(load(x, i)))
        i += lanes(x)
    if i < stop:
        n = stop - i
        store_tail(dx, i, load_tail(dout, i, n) * gelu_derivative(load_tail(x, i, n)), n)


@launcher
def _backward(n_tasks, dout, x, dx):
    parallel_for(_backward_block, n_tasks, (dout, x, dx))


def gelu_forward(x, alloc=np.empty):
    """out = gelu(x), elementwise; −∞ gives its limit 0, +∞ gives +∞, NaN gives NaN."""
    dtype = one_dtype(x=x)
    out = alloc(x.shape, dtype)
    _forward(-(-x.size // _BLOCK), flat(x), out.reshape(-1))
    return out, GeluCache(x)


def gelu_backward(dout, cache, alloc=np.empty):
    """dx = dout · gelu'(x); see ``layers.gelu`` for the derivation."""
    dtype = one_dtype(x=cache.x, dout=dout)
    check_shape("dout", dout, cache.x.shape)
    dx = alloc(dout.shape, dtype)
    _backward(-(-dout.size // _BLOCK), flat(dout), flat(cache.x), dx.reshape(-1))
    return dx
