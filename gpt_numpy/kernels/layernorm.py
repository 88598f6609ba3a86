"""Layer normalisation: each row is read from memory once and stays in cache for its second pass.

The backward's sums over rows (dweight, dbias) are taken in blocks of rows, whose number depends on the shape
alone, and the blocks are added in order: the same bits for any number of threads. The twin of ``layers.layernorm``,
which derives the gradient.
"""

from typing import NamedTuple

import numpy as np

from .arguments import check_shape, flat, one_dtype, target
from .jit import part
from .simd import add_lanes, broadcast, fma, keep_first, lanes, load, load_tail, store, store_tail
from .threads import launcher, parallel_for

_TASK_ELEMENTS = 1 << 13
_BLOCKS = 64  # of rows, at most, in the backward
_LEAST_ROWS = 8  # in one of them


class LayernormCache(NamedTuple):
    x: np.ndarray  # (..., C)
    mean: np.ndarray  # (rows,)
    rstd: np.ndarray  # (rows,), 1 / standard deviation
    weight: np.ndarray  # (C,)


@part
def _row_mean(x, base, C):
    total, j = broadcast(x, 0.0), 0
    while j + lanes(x) <= C:
        total += load(x, base + j)
        j += lanes(x)
    return add_lanes(total + load_tail(x, base + j, C - j)) / x.dtype.type(C)


@part
def _row_variance(x, base, C, mean):
    total, j = broadcast(x, 0.0), 0
    while j + lanes(x) <= C:
        centred = load(x, base + j) - mean
        total = fma(centred, centred, total)
        j += lanes(x)
    centred = keep_first(load_tail(x, base + j, C - j) - mean, C - j, 0.0)
    return add_lanes(fma(centred, centred, total)) / x.dtype.type(C)


@part
def _forward_rows(worker, task, x, weight, bias, out, mean, rstd, rows, epsilon):
    C = weight.size
    for row in range(task * rows, min(mean.size, (task + 1) * rows)):
        base, j = row * C, 0
        m = _row_mean(x, base, C)
        r = x.dtype.type(1) / np.sqrt(_row_variance(x, base, C, m) + epsilon)
        mean[row], rstd[row] = m, r
        while j + lanes(x) <= C:
            store(out, base + j, fma((load(x, base + j) - m) * r, load(weight, j), load(bias, j)))
            j += lanes(x)
        n = C - j
        xhat = (load_tail(x, base + j, n) - m) * r
        store_tail(out, base + j, fma(xhat, load_tail(weight, j, n), load_tail(bias, j, n)), n)


@launcher
def _forward(n_tasks, x, weight, bias, out, mean, rstd, rows, epsilon):
    parallel_for(_forward_rows, n_tasks, (x, weight, bias, out, mean, rstd, rows, epsilon))


@part
def _backward_rows(worker, task, dout, x, mean, rstd, weight, dx, sums, rows):
    C = weight.size
    dweight, dbias = task * 2 * C, (task * 2 + 1) * C  # where this block's sums are
    sums[dweight:dweight + 2 * C] = 0
    for row in range(task * rows, min(mean.size, (task + 1) * rows)):
        base, m, r, j = row * C, mean[row], rstd[row], 0
        shift, stretch = broadcast(x, 0.0), broadcast(x, 0.0)
        while j + lanes(x) <= C:
            d, xhat = load(dout, base + j), (load(x, base + j) - m) * r
            dxhat = d * load(weight, j)
            shift += dxhat
            stretch = fma(dxhat, xhat, stretch)
            store(sums, dweight + j, fma(d, xhat, load(sums, dweight + j)))
            store(sums, dbias + j, load(sums, dbias + j) + d)
            j += lanes(x)
        n = C - j
        d, xhat = load_tail(dout, base + j, n), (load_tail(x, base + j, n) - m) * r
        dxhat = d * load_tail(weight, j, n)
        store_tail(sums, dweight + j, fma(d, xhat, load_tail(sums, dweight + j, n)), n)
        store_tail(sums, dbias + j, load_tail(sums, dbias + j, n) + d, n)
        shift_mean = add_lanes(shift + dxhat) / x.dtype.type(C)
        stretch_mean = add_lanes(fma(dxhat, xhat, stretch)) / x.dtype.type(C)
        _row_gradient(dout, x, weight, dx, base, C, m, r, shift_mean, stretch_mean)


@part
def _row_gradient(dout, x, weight, dx, base, C, m, r, shift, stretch):
    j = 0
    while j + lanes(x) <= C:
        dxhat, xhat = load(dout, base + j) * load(weight, j), (load(x, base + j) - m) * r
        store(dx, base + j, (dxhat - shift - xhat * stretch) * r)
        j += lanes(x)
    n = C - j
    dxhat, xhat = load_tail(dout, base + j, n) * load_tail(weight, j, n), (load_tail(x, base + j, n) - m) * r
    store_tail(dx, base + j, (dxhat - shift - xhat * stretch) * r, n)


@launcher
def _backward(n_tasks, dout, x, mean, rstd, weight, dx, sums, rows):
    parallel_for(_backward_rows, n_tasks, (dout, x, mean, rstd, weight, dx, sums, rows))


def layernorm_forward(x, weight, bias, epsilon=1e-5, alloc=np.empty):
    """out = xhat · weight + bias with xhat = (x − mean) · rstd, over the last axis of x (..., C)."""
    dtype = one_dtype(x=x, weight=weight, bias=bias)
    C = x.shape[-1]
    check_shape("weight", weight, (C,))
    check_shape("bias", bias, (C,))
    n_rows = x.size // C if C else 0
    out, mean, rstd = alloc(x.shape, dtype), np.empty(n_rows, dtype), np.empty(n_rows, dtype)
    rows = max(1, _TASK_ELEMENTS // max(C, 1))
    _forward(-(-n_rows // rows), flat(x), flat(weight), flat(bias), out.reshape(-1), mean, rstd, rows,
             dtype.type(epsilon))
    return out, LayernormCache(x, mean, rstd, weight)


def layernorm_backward(dout, cache, into=None, alloc=np.empty):
    """Gradients dx (..., C), dweight (C,), dbias (C,); the last two added to those of ``into`` where given."""
    x, mean, rstd, weight = cache
    dtype = one_dtype(x=x, dout=dout)
    check_shape("dout", dout, x.shape)
    C, dx = weight.size, alloc(x.shape, dtype)
    rows = max(_LEAST_ROWS, -(-mean.size // _BLOCKS))
    n_tasks = -(-mean.size // rows)
    sums = np.empty((n_tasks, 2, C), dtype)
    _backward(n_tasks, flat(dout), flat(x), mean, rstd, flat(weight), dx.reshape(-1), sums.reshape(-1), rows)
    dweight, dbias = np.add.reduce(sums, axis=0)
    if into is None:
        return dx, dweight, dbias
    for name, total, gradient in zip(("dweight", "dbias"), into, (dweight, dbias)):
        total = target(name, total, (C,), dtype)
        total += gradient
    return dx, *into
