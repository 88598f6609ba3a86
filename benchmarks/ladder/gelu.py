"""tanh-GELU forward: one transcendental function an element, limited by the speed of memory."""

import math

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from ..problems.operations import PROBLEMS
from . import Case, Rung, by, keeping

SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715


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


_PROBLEM = PROBLEMS["gelu-forward"]
CASE = Case(
    name="gelu",
    problem=_PROBLEM,
    size=dict(rows=4096, columns=3072),
    small_size=dict(rows=64, columns=96),
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numpy (layers)", by(_PROBLEM, layers)),
        Rung("numba, libm tanh", _with(_scalar)),
        Rung("numba, parallel", _with(_parallel)),
        Rung("kernels (vectors)", by(_PROBLEM, kernels)),
        Rung("kernels, memory kept", keeping(_PROBLEM, kernels)),
    ],
)
