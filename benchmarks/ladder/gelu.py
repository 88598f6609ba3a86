"""tanh-GELU forward: one transcendental function an element, at best as fast as memory."""

import math

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from . import Case, Rung, keeping

SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715


def make(rng, rows, columns):
    return {"x": 2 * rng.standard_normal((rows, columns), np.float32)}


def oracle(inputs):
    return (layers.gelu_forward(inputs["x"].astype(np.float64))[0],)


def python_loops(inputs):
    def gelu(x):
        return 0.5 * x * (1 + math.tanh(SCALE * (x + CUBIC * x**3)))

    return (np.array([[gelu(x) for x in row] for row in inputs["x"].tolist()]),)


@njit(cache=True)
def _scalar(x, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[i, j]
            u = np.float32(SCALE) * (v + np.float32(CUBIC) * v * v * v)
            out[i, j] = np.float32(0.5) * v * (np.float32(1) + np.tanh(u))


@njit(cache=True, parallel=True)
def _parallel(x, out):
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[i, j]
            u = np.float32(SCALE) * (v + np.float32(CUBIC) * v * v * v)
            out[i, j] = np.float32(0.5) * v * (np.float32(1) + np.tanh(u))


def _with(kernel):
    def run(inputs):
        out = np.empty_like(inputs["x"])
        kernel(inputs["x"], out)
        return (out,)

    return run


CASE = Case(
    name="gelu",
    summary="tanh-GELU forward",
    size=dict(rows=4096, columns=3072),
    small_size=dict(rows=64, columns=96),
    make=make,
    oracle=oracle,
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numpy (layers)", lambda inputs: (layers.gelu_forward(inputs["x"])[0],)),
        Rung("numba, libm tanh", _with(_scalar)),
        Rung("numba, parallel", _with(_parallel)),
        Rung("kernels (vectors)", lambda inputs: (kernels.gelu_forward(inputs["x"])[0],)),
        Rung("kernels, memory kept", keeping(lambda inputs, alloc: (kernels.gelu_forward(inputs["x"], alloc)[0],))),
    ],
    flops=lambda rows, columns: 20 * rows * columns,  # a polynomial exp and a division, counted generously
    bytes=lambda rows, columns: 8 * rows * columns,
    tolerance=2e-6,
)
