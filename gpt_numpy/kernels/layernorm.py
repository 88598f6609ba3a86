"""Layer normalisation: each row is read from memory once and stays in cache for its second pass.

The backward's sums over rows (dweight, dbias) are taken in blocks of rows, whose number depends on the shape
alone, and the blocks are added in order: the same bits for any number of threads. The twin of ``layers.layernorm``,
which derives the gradient.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_layernorm
from .runtime.block_sums import add_blocks
from .runtime.checks import check_shape, flat, flat_like, given, gradients, one_dtype
from .runtime.decorators import part
from .runtime.remembering import remembered
from .runtime.scratch import op_scratch
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import add_lanes, broadcast, fma, keep_first, lanes, load, load_tail, store, store_tail

_TASK_ELEMENTS = 1 << 13
_BLOCKS = 64  # of rows, at most, in the backward
_GROUP = 4  # rows that the backward takes at a time: they stay in the first-level cache for its second pass


class LayernormCache(NamedTuple):
    x: np.ndarray  # (..., C)
    mean: np.ndarray  # (rows,)
    rstd: np.ndarray  # (rows,), 1 / standard deviation
    weight: np.ndarray  # (C,)
    biased: bool = True


@part
def _row_mean(x, base, C):
    step, j = lanes(x), 0
    first = second = third = fourth = broadcast(x, 0.0)  # four sums: an addition takes as long as four loads
    while j + 4 * step <= C:
        first += load(x, base + j)
        second += load(x, base + j + step)
        third += load(x, base + j + 2 * step)
        fourth += load(x, base + j + 3 * step)
        j += 4 * step
    while j < C:
        first += load_tail(x, base + j, C - j)
        j += step
    return add_lanes((first + second) + (third + fourth)) / x.dtype.type(C)


@part
def _row_variance(x, base, C, mean):
    step, j = lanes(x), 0
    first = second = third = fourth = broadcast(x, 0.0)
    while j + 4 * step <= C:
        a, b = load(x, base + j) - mean, load(x, base + j + step) - mean
        c, d = load(x, base + j + 2 * step) - mean, load(x, base + j + 3 * step) - mean
        first, second = fma(a, a, first), fma(b, b, second)
        third, fourth = fma(c, c, third), fma(d, d, fourth)
        j += 4 * step
    while j < C:
        a = keep_first(load_tail(x, base + j, C - j) - mean, C - j, 0.0)
        first = fma(a, a, first)
        j += step
    return add_lanes((first + second) + (third + fourth)) / x.dtype.type(C)


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
def launch_forward(n_tasks, x, weight, bias, out, mean, rstd, rows, epsilon):
    parallel_for(_forward_rows, n_tasks, (x, weight, bias, out, mean, rstd, rows, epsilon))


@part
def _row_sums(dout, x, weight, base, m, r):
    """The means over a row of dxhat = dout · weight and of dxhat · xhat."""
    C, step, j = weight.size, lanes(x), 0
    shift = shift2 = stretch = stretch2 = broadcast(x, 0.0)
    while j + 2 * step <= C:
        dxhat = load(dout, base + j) * load(weight, j)
        dxhat2 = load(dout, base + j + step) * load(weight, j + step)
        shift, stretch = shift + dxhat, fma(dxhat, (load(x, base + j) - m) * r, stretch)
        shift2, stretch2 = shift2 + dxhat2, fma(dxhat2, (load(x, base + j + step) - m) * r, stretch2)
        j += 2 * step
    while j < C:
        dxhat = load_tail(dout, base + j, C - j) * load_tail(weight, j, C - j)
        shift, stretch = shift + dxhat, fma(dxhat, (load_tail(x, base + j, C - j) - m) * r, stretch)
        j += step
    return add_lanes(shift + shift2) / x.dtype.type(C), add_lanes(stretch + stretch2) / x.dtype.type(C)


class Backward(NamedTuple):
    """What the tasks of the backward share; all flat."""

    dout: np.ndarray
    x: np.ndarray
    mean: np.ndarray  # (rows,)
    rstd: np.ndarray  # (rows,)
    weight: np.ndarray  # (C,)
    dstream: np.ndarray  # like x, or empty
    means: np.ndarray  # (2 rows,): each row's two means, see `_row_sums`
    dx: np.ndarray
    sums: np.ndarray  # for each block of rows: dweight (C,), then dbias (C,)


@part
def _column_gradients(arrays, dweight, row, rows, j):
    """One vector of columns of ``rows`` rows: their dx, and what they add to dweight and dbias."""
    C, means, sums = arrays.weight.size, arrays.means, arrays.sums
    left = C - j
    dbias = dweight + C
    w = load_tail(arrays.weight, j, left)
    dw, db = load_tail(sums, dweight + j, left), load_tail(sums, dbias + j, left)
    for i in range(row, row + rows):
        here, r = i * C + j, arrays.rstd[i]
        d = load_tail(arrays.dout, here, left)
        xhat = (load_tail(arrays.x, here, left) - arrays.mean[i]) * r
        dw, db = fma(d, xhat, dw), db + d
        dx = (d * w - means[2 * i] - xhat * means[2 * i + 1]) * r
        if arrays.dstream.size > 0:
            dx += load_tail(arrays.dstream, here, left)
        store_tail(arrays.dx, here, dx, left)
    store_tail(sums, dweight + j, dw, left)
    store_tail(sums, dbias + j, db, left)


@part
def _backward_rows(worker, task, arrays, rows):
    C, mean, rstd = arrays.weight.size, arrays.mean, arrays.rstd
    dweight = task * 2 * C  # where this block's sums are: dweight, then dbias
    arrays.sums[dweight : dweight + 2 * C] = 0
    stop = min(mean.size, (task + 1) * rows)
    for row in range(task * rows, stop, _GROUP):
        n_rows = min(_GROUP, stop - row)
        for i in range(row, row + n_rows):
            shift, stretch = _row_sums(arrays.dout, arrays.x, arrays.weight, i * C, mean[i], rstd[i])
            arrays.means[2 * i], arrays.means[2 * i + 1] = shift, stretch
        for j in range(0, C, lanes(arrays.x)):
            _column_gradients(arrays, dweight, row, n_rows, j)


@launcher
def launch_backward(n_tasks, rows, *arrays):
    """``arrays``: the fields of ``Backward``."""
    parallel_for(_backward_rows, n_tasks, (Backward(*arrays), rows))


@remembered()
def layernorm_forward(x, weight, bias, epsilon=1e-5, alloc=np.empty):
    """out = xhat · weight + bias with xhat = (x − mean) · rstd, over the last axis of x (..., C); bias (C,) or None."""
    dtype = one_dtype(x=x, weight=weight, **given(bias=bias))
    check_layernorm(x, weight, bias)
    C, biased = x.shape[-1], bias is not None
    bias = bias if biased else np.zeros(C, dtype)
    n_rows = x.size // C
    out, mean, rstd = alloc(x.shape, dtype), np.empty(n_rows, dtype), np.empty(n_rows, dtype)
    rows = max(1, _TASK_ELEMENTS // max(C, 1))
    launch_forward(
        -(-n_rows // rows), flat(x), flat(weight), flat(bias), out.reshape(-1), mean, rstd, rows, dtype.type(epsilon)
    )
    return out, LayernormCache(x, mean, rstd, weight, biased)


@remembered()
def layernorm_backward(dout, cache, alloc=np.empty, *, dstream=None, add=True, into=None):
    """Gradients dx (..., C), dweight (C,), dbias (C,); the last two added to, or written to, those of ``into``.

    dstream, where given, is added to dx: the gradient of x that passed the branch by.
    """
    x, mean, rstd, weight, biased = cache
    dtype = one_dtype(x=x, dout=dout, **given(dstream=dstream))
    check_shape("dout", dout, x.shape)
    passed = flat_like("dstream", dstream, x)
    C = weight.size
    arrays, add = gradients(into, dtype, add, dweight=(C,), dbias=(C,) if biased else None)
    dx = alloc(x.shape, dtype)
    rows = max(_TASK_ELEMENTS // max(C, 1), -(-mean.size // _BLOCKS), 1)
    n_tasks = -(-mean.size // rows)
    means, sums = op_scratch("layernorm", dtype, (2 * mean.size,), (n_tasks * 2 * C,))
    inputs = flat(dout), flat(x), mean, rstd, flat(weight), passed
    launch_backward(n_tasks, rows, *inputs, means, dx.reshape(-1), sums)
    add_blocks(sums, n_tasks, arrays, add)
    return dx, *arrays
