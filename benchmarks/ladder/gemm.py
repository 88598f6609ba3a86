"""C = A · B, the operation that a training step spends its time on."""

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels

from ..problems.operations import PROBLEMS
from . import Case, Rung, by


def python_loops(inputs):
    a, b = inputs["a"].tolist(), inputs["b"].tolist()
    columns = list(zip(*b))
    return (np.array([[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]),)


@njit(cache=True)
def _dot_products(a, b, out):
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            out[i, j] = total


@njit(cache=True, parallel=True)
def _row_updates(a, b, out):
    # The inner loop runs along rows of b and out: contiguous, so that the compiler can use vectors.
    for i in prange(a.shape[0]):
        out[i] = 0
        for k in range(a.shape[1]):
            x = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += x * b[k, j]


@njit(cache=True, parallel=True, fastmath={"contract"})
def _tiled(a, b, out):
    # A block of b stays in the second-level cache for a group of rows, and four of the block's rows are taken at a time:
    # every sum is loaded and stored once for four products. Slices are used because the compiler does not use vectors
    # where an index may be negative.
    M, K = a.shape
    N = b.shape[1]
    group, depth, strip = 32, 64, 512
    for g in prange((M + group - 1) // group):
        rows = range(g * group, min((g + 1) * group, M))
        for i in rows:
            out[i] = 0
        for j0 in range(0, N, strip):
            for k0 in range(0, K, depth):
                k1 = min(k0 + depth, K)
                for i in rows:
                    sums = out[i, j0 : j0 + strip]
                    k = k0
                    while k + 4 <= k1:
                        x0, x1, x2, x3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                        b0, b1 = b[k, j0 : j0 + strip], b[k + 1, j0 : j0 + strip]
                        b2, b3 = b[k + 2, j0 : j0 + strip], b[k + 3, j0 : j0 + strip]
                        for j in range(sums.size):
                            sums[j] += x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j]
                        k += 4
                    while k < k1:
                        sums += a[i, k] * b[k, j0 : j0 + strip]
                        k += 1


def _with(kernel):
    def run(inputs):
        out = np.empty((inputs["a"].shape[0], inputs["b"].shape[1]), np.float32)
        kernel(inputs["a"], inputs["b"], out)
        return (out,)

    return run


_PROBLEM = PROBLEMS["gemm"]
CASE = Case(
    name="gemm",
    problem=_PROBLEM,
    size=dict(M=1024, K=768, N=3072),
    small_size=dict(M=64, K=96, N=128),
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numba, dot products", _with(_dot_products), small=True),
        Rung("numba, row updates", _with(_row_updates)),
        Rung("numba, tiled", _with(_tiled)),
        Rung("numpy (BLAS)", lambda inputs: (inputs["a"] @ inputs["b"],)),
        Rung("kernels (vectors)", by(_PROBLEM, kernels)),
    ],
)
