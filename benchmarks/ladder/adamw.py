"""AdamW over a flat array: four arrays read, three written, hardly any arithmetic."""

import math

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from . import Case, Rung

SETTINGS = dict(learning_rate=1e-3, beta1=0.9, beta2=0.95, epsilon=1e-8, step=3, gradient_scale=0.5)
DECAY = 0.1


def make(rng, n):
    params, grads, first = rng.standard_normal((3, n), np.float32)
    return {"params": params, "grads": grads, "first": 0.1 * first, "second": 0.01 * first * first}


def _updated(update, inputs):
    # In place, as in training: the ladder checks the first call of a rung on a copy, and times the later ones.
    update(inputs["params"], inputs["grads"], inputs["first"], inputs["second"])
    return inputs["params"], inputs["first"], inputs["second"]


def oracle(inputs):
    return _updated(_with_ops(layers), {name: value.astype(np.float64) for name, value in inputs.items()})


def _with_ops(ops):
    def update(params, grads, first, second):
        boundaries, decays = np.array([0, params.size]), np.array([DECAY])
        ops.adamw_update(params, grads, first, second, boundaries, decays, **SETTINGS)

    return update


def _loop(params, grads, first, second):
    lr, b1, b2, eps = 1e-3, 0.9, 0.95, 1e-8
    c1, c2 = 1 - b1**3, 1 - b2**3
    for i in prange(params.size):  # outside numba, prange is range
        g = grads[i] * 0.5
        first[i] = b1 * first[i] + (1 - b1) * g
        second[i] = b2 * second[i] + (1 - b2) * g * g
        params[i] -= lr * (first[i] / c1 / (math.sqrt(second[i] / c2) + eps) + 0.1 * params[i])


_compiled = njit(cache=True, parallel=True)(_loop)


CASE = Case(
    name="adamw",
    summary="AdamW update with clipping scale",
    size=dict(n=16 << 20),
    small_size=dict(n=4096),
    make=make,
    oracle=oracle,
    rungs=[
        Rung("python loops", lambda inputs: _updated(_loop, inputs), small=True),
        Rung("numpy (layers)", lambda inputs: _updated(_with_ops(layers), inputs)),
        Rung("numba, parallel loop", lambda inputs: _updated(_compiled, inputs)),
        Rung("kernels (vectors)", lambda inputs: _updated(_with_ops(kernels), inputs)),
    ],
    flops=lambda n: 15 * n,
    bytes=lambda n: 4 * 7 * n,
    tolerance=1e-5,
)
