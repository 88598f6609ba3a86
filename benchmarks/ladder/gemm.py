"""C = A · B, the operation that a training step spends its time on."""

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels

from . import Case, Rung


def make(rng, M, K, N):
    return {
        "a": rng.standard_normal((M, K), np.float32),
        "b": rng.standard_normal((K, N), np.float32),
        "bias": np.zeros(N, np.float32),
    }


def oracle(inputs):
    return (inputs["a"].astype(np.float64) @ inputs["b"].astype(np.float64),)


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


@njit(cache=True, parallel=True, fastmath={"contract", "reassoc"})
def _tiled(a, b, out):
    # Four rows and a strip of b that stays in the nearest cache; every loaded b serves four products.
    M, K = a.shape
    N = b.shape[1]
    strip, depth = 512, 64
    for group in prange((M + 3) // 4):
        i0 = 4 * group
        rows = min(4, M - i0)
        out[i0 : i0 + rows] = 0
        for j0 in range(0, N, strip):
            j1 = min(j0 + strip, N)
            for k0 in range(0, K, depth):
                for k in range(k0, min(k0 + depth, K)):
                    if rows == 4:
                        x0, x1, x2, x3 = a[i0, k], a[i0 + 1, k], a[i0 + 2, k], a[i0 + 3, k]
                        for j in range(j0, j1):
                            y = b[k, j]
                            out[i0, j] += x0 * y
                            out[i0 + 1, j] += x1 * y
                            out[i0 + 2, j] += x2 * y
                            out[i0 + 3, j] += x3 * y
                    else:
                        for r in range(rows):
                            for j in range(j0, j1):
                                out[i0 + r, j] += a[i0 + r, k] * b[k, j]


def _with(kernel):
    def run(inputs):
        out = np.empty((inputs["a"].shape[0], inputs["b"].shape[1]), np.float32)
        kernel(inputs["a"], inputs["b"], out)
        return (out,)

    return run


CASE = Case(
    name="gemm",
    summary="float32 matrix product",
    size=dict(M=1024, K=768, N=3072),
    small_size=dict(M=64, K=96, N=128),
    make=make,
    oracle=oracle,
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numba, dot products", _with(_dot_products), small=True),
        Rung("numba, row updates", _with(_row_updates)),
        Rung("numba, tiled", _with(_tiled)),
        Rung("numpy (BLAS)", lambda inputs: (inputs["a"] @ inputs["b"],)),
        Rung("kernels (vectors)", lambda i: (kernels.linear_forward(i["a"], i["b"], i["bias"])[0],)),
    ],
    flops=lambda M, K, N: 2 * M * K * N,
    bytes=lambda M, K, N: 4 * (M * K + K * N + M * N),
    tolerance=1e-5,
)
