"""Layer normalisation forward and backward: two reductions a row, limited by the speed of memory."""

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from ..problems.operations import PROBLEMS
from . import Case, Rung, by, keeping

EPSILON = 1e-5


def python_loops(inputs):
    x, dout, weight, bias = (inputs[name].tolist() for name in ("x", "dout", "weight", "bias"))
    C = len(weight)
    out, dx, dweight, dbias = [], [], [0.0] * C, [0.0] * C
    for row, drow in zip(x, dout):
        mean = sum(row) / C
        rstd = (sum((v - mean) ** 2 for v in row) / C + EPSILON) ** -0.5
        xhat = [(v - mean) * rstd for v in row]
        out.append([h * w + b for h, w, b in zip(xhat, weight, bias)])
        dxhat = [d * w for d, w in zip(drow, weight)]
        shift, stretch = sum(dxhat) / C, sum(d * h for d, h in zip(dxhat, xhat)) / C
        dx.append([rstd * (d - shift - h * stretch) for d, h in zip(dxhat, xhat)])
        dweight = [t + d * h for t, d, h in zip(dweight, drow, xhat)]
        dbias = [t + d for t, d in zip(dbias, drow)]
    return tuple(np.array(result) for result in (out, dx, dweight, dbias))


@njit(cache=True, parallel=True, fastmath={"reassoc", "contract"})
def _row_by_row(x, dout, weight, bias, out, dx, partial):
    n_rows, C = x.shape
    n_blocks = partial.shape[0]
    per_block = (n_rows + n_blocks - 1) // n_blocks
    for block in prange(n_blocks):
        partial[block] = 0
        for i in range(block * per_block, min((block + 1) * per_block, n_rows)):
            mean = np.float32(0)
            for j in range(C):
                mean += x[i, j]
            mean /= C
            variance = np.float32(0)
            for j in range(C):
                variance += (x[i, j] - mean) ** 2
            rstd = np.float32(1) / np.sqrt(variance / C + np.float32(EPSILON))
            shift, stretch = np.float32(0), np.float32(0)
            for j in range(C):
                xhat = (x[i, j] - mean) * rstd
                out[i, j] = xhat * weight[j] + bias[j]
                partial[block, 0, j] += dout[i, j] * xhat
                partial[block, 1, j] += dout[i, j]
                shift += dout[i, j] * weight[j]
                stretch += dout[i, j] * weight[j] * xhat
            for j in range(C):
                xhat = (x[i, j] - mean) * rstd
                dx[i, j] = rstd * (dout[i, j] * weight[j] - shift / C - xhat * (stretch / C))


def numba_rows(inputs):
    x = inputs["x"]
    out, dx = np.empty_like(x), np.empty_like(x)
    partial = np.empty((8, 2, x.shape[1]), np.float32)
    _row_by_row(x, inputs["dout"], inputs["weight"], inputs["bias"], out, dx, partial)
    dweight, dbias = partial.sum(axis=0)
    return out, dx, dweight, dbias


_PROBLEM = PROBLEMS["layernorm"]
CASE = Case(
    name="layernorm",
    problem=_PROBLEM,
    size=dict(rows=4096, columns=768),
    small_size=dict(rows=64, columns=96),
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numpy (layers)", by(_PROBLEM, layers)),
        Rung("numba, row by row", numba_rows),
        Rung("kernels (vectors)", by(_PROBLEM, kernels)),
        Rung("kernels, memory kept", keeping(_PROBLEM, kernels)),
    ],
)
