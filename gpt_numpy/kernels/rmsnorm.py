"""Root-mean-square normalisation: each row is read from memory once and stays in cache for its second pass.

The backward's sums over rows are taken in blocks of rows, as ``kernels.layernorm`` does: the same bits for any number of
threads. The twin of ``layers.rmsnorm``, which derives the gradient.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_rmsnorm
from .runtime.block_sums import add_blocks
from .runtime.checks import check_shape, flat, flat_like, given, gradients, one_dtype
from .runtime.decorators import part
from .runtime.remembering import remembered
from .runtime.scratch import op_scratch
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import add_lanes, broadcast, fma, lanes, load_tail, store_tail

_TASK_ELEMENTS = 1 << 13
_BLOCKS = 64  # of rows, at most, in the backward


class RmsnormCache(NamedTuple):
    x: np.ndarray  # (..., C)
    rrms: np.ndarray  # (rows,), 1 / root mean square
    weight: np.ndarray  # (C,)


@part
def mean_square(x, base, C):
    """The mean of the squares of the C numbers from element ``base`` on."""
    step, j = lanes(x), 0
    first = second = third = fourth = broadcast(x, 0.0)
    while j < C:
        a, b = load_tail(x, base + j, C - j), load_tail(x, base + j + step, C - j - step)
        c, d = load_tail(x, base + j + 2 * step, C - j - 2 * step), load_tail(x, base + j + 3 * step, C - j - 3 * step)
        first, second, third, fourth = fma(a, a, first), fma(b, b, second), fma(c, c, third), fma(d, d, fourth)
        j += 4 * step
    return add_lanes((first + second) + (third + fourth)) / x.dtype.type(C)


@part
def _forward_rows(worker, task, x, weight, out, rrms, rows, epsilon):
    C = weight.size
    for row in range(task * rows, min(rrms.size, (task + 1) * rows)):
        base = row * C
        r = x.dtype.type(1) / np.sqrt(mean_square(x, base, C) + epsilon)
        rrms[row] = r
        for j in range(0, C, lanes(x)):
            n = C - j
            store_tail(out, base + j, load_tail(x, base + j, n) * r * load_tail(weight, j, n), n)


@launcher
def launch_forward(n_tasks, x, weight, out, rrms, rows, epsilon):
    parallel_for(_forward_rows, n_tasks, (x, weight, out, rrms, rows, epsilon))


@part
def _row_stretch(dout, x, weight, base, r):
    """The mean over a row of dxhat · xhat."""
    C, step, j = weight.size, lanes(x), 0
    first = second = broadcast(x, 0.0)
    while j < C:
        n, here = C - j, base + j
        d = load_tail(dout, here, n) * load_tail(weight, j, n)
        first = fma(d, load_tail(x, here, n), first)
        d = load_tail(dout, here + step, n - step) * load_tail(weight, j + step, n - step)
        second = fma(d, load_tail(x, here + step, n - step), second)
        j += 2 * step
    return add_lanes(first + second) * r / x.dtype.type(C)


@part
def _backward_rows(worker, task, dout, x, rrms, weight, dstream, dx, sums, rows):
    C = weight.size
    total = task * C  # where this block's dweight is
    sums[total : total + C] = 0
    for row in range(task * rows, min(rrms.size, (task + 1) * rows)):
        base, r = row * C, rrms[row]
        stretch = _row_stretch(dout, x, weight, base, r)
        for j in range(0, C, lanes(x)):
            n, here = C - j, base + j
            d, xhat = load_tail(dout, here, n), load_tail(x, here, n) * r
            store_tail(sums, total + j, fma(d, xhat, load_tail(sums, total + j, n)), n)
            gradient = (d * load_tail(weight, j, n) - xhat * stretch) * r
            if dstream.size > 0:
                gradient += load_tail(dstream, here, n)
            store_tail(dx, here, gradient, n)


@launcher
def launch_backward(n_tasks, dout, x, rrms, weight, dstream, dx, sums, rows):
    parallel_for(_backward_rows, n_tasks, (dout, x, rrms, weight, dstream, dx, sums, rows))


@remembered()
def rmsnorm_forward(x, weight, epsilon=1e-5, alloc=np.empty):
    """out = xhat · weight with xhat = x · rrms, over the last axis of x (..., C);  rrms = 1/√(mean(x²) + ε)."""
    dtype = one_dtype(x=x, weight=weight)
    check_rmsnorm(x, weight)
    C = x.shape[-1]
    n_rows = x.size // C
    out, rrms = alloc(x.shape, dtype), np.empty(n_rows, dtype)
    rows = max(1, _TASK_ELEMENTS // C)
    launch_forward(-(-n_rows // rows), flat(x), flat(weight), out.reshape(-1), rrms, rows, dtype.type(epsilon))
    return out, RmsnormCache(x, rrms, weight)


@remembered()
def rmsnorm_backward(dout, cache, alloc=np.empty, *, dstream=None, add=True, into=None):
    """Gradients dx (..., C) and dweight (C,); the last is added to, or written to, that of ``into``.

    dstream, where given, is added to dx: the gradient of x that passed the branch by.
    """
    x, rrms, weight = cache
    dtype = one_dtype(x=x, dout=dout, **given(dstream=dstream))
    check_shape("dout", dout, x.shape)
    passed = flat_like("dstream", dstream, x)
    C = weight.size
    (dweight,), add = gradients(into, dtype, add, dweight=(C,))
    dx = alloc(x.shape, dtype)
    rows = max(_TASK_ELEMENTS // C, -(-rrms.size // _BLOCKS), 1)
    n_tasks = -(-rrms.size // rows)
    (sums,) = op_scratch("rmsnorm", dtype, (n_tasks * C,))
    launch_backward(n_tasks, flat(dout), flat(x), rrms, flat(weight), passed, dx.reshape(-1), sums, rows)
    add_blocks(sums, n_tasks, (dweight,), add)
    return dx, dweight
