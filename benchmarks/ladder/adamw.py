"""AdamW over a flat array: four arrays read, three written, hardly any arithmetic."""

import math

from numba import njit, prange

from gpt_numpy import kernels, layers

from ..problems.operations import ADAMW, DECAY, PROBLEMS
from . import Case, Rung, by

_LR, _BETA1, _BETA2, _EPSILON, _STEP = (ADAMW[name] for name in ADAMW)


def _loop(params, grads, first, second):
    c1, c2 = 1 - _BETA1**_STEP, 1 - _BETA2**_STEP
    for i in prange(params.size):  # outside numba, prange is range
        g = grads[i]
        first[i] = _BETA1 * first[i] + (1 - _BETA1) * g
        second[i] = _BETA2 * second[i] + (1 - _BETA2) * g * g
        params[i] -= _LR * (first[i] / c1 / (math.sqrt(second[i] / c2) + _EPSILON) + DECAY * params[i])


def _updated(update, inputs):
    # In place, as in training: the ladder checks the first call of a rung on a copy, and times the later ones.
    update(*inputs.values())
    return inputs["params"], inputs["first"], inputs["second"]


_compiled = njit(cache=True, parallel=True)(_loop)


_PROBLEM = PROBLEMS["adamw"]
CASE = Case(
    name="adamw",
    problem=_PROBLEM,
    size=dict(n=16 << 20),
    small_size=dict(n=4096),
    rungs=[
        Rung("python loops", lambda inputs: _updated(_loop, inputs), small=True),
        Rung("numpy (layers)", by(_PROBLEM, layers)),
        Rung("numba, parallel loop", lambda inputs: _updated(_compiled, inputs)),
        Rung("kernels (vectors)", by(_PROBLEM, kernels)),
    ],
)
