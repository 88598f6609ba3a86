"""Causal attention forward and backward: the quadratic part of a transformer, without its quadratic memory."""

import math

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from ..problems.operations import PROBLEMS
from . import Case, Rung, by, keeping


def _one_head(q, k, v, dout, out, dq, dk, dv):
    """Query by query: the weights of a query are a row of T numbers, and no (T, T) array is kept."""
    T, head_size = q.shape
    scale = 1 / math.sqrt(head_size)
    p = np.empty(T, q.dtype)
    dp = np.empty(T, q.dtype)
    dk[:] = 0
    dv[:] = 0
    for i in range(T):
        highest = -np.inf
        for j in range(i + 1):
            score = q.dtype.type(0)
            for d in range(head_size):
                score += q[i, d] * k[j, d]
            p[j] = score * scale
            highest = max(highest, p[j])
        total = 0.0
        for j in range(i + 1):
            p[j] = math.exp(p[j] - highest)
            total += p[j]
        out[i] = 0
        shared = 0.0
        for j in range(i + 1):
            p[j] /= total
            dweight = q.dtype.type(0)
            for d in range(head_size):
                out[i, d] += p[j] * v[j, d]
                dweight += dout[i, d] * v[j, d]
            dp[j] = dweight
            shared += dweight * p[j]
        dq[i] = 0
        for j in range(i + 1):
            dscore = p[j] * (dp[j] - shared) * scale
            for d in range(head_size):
                dq[i, d] += dscore * k[j, d]
                dk[j, d] += dscore * q[i, d]
                dv[j, d] += p[j] * dout[i, d]


_one_head_compiled = njit(cache=True, fastmath={"reassoc", "contract"})(_one_head)


@njit(cache=True, parallel=True)
def _all_heads(q, k, v, dout, out, dq, dk, dv):
    B, _, n_head, _ = q.shape
    for pair in prange(B * n_head):
        b, h = pair // n_head, pair % n_head
        _one_head_compiled(
            q[b, :, h], k[b, :, h], v[b, :, h], dout[b, :, h], out[b, :, h], dq[b, :, h], dk[b, :, h], dv[b, :, h]
        )


def python_loops(inputs):
    results = [np.empty_like(inputs["q"]) for _ in range(4)]
    B, _, n_head, _ = inputs["q"].shape
    for b in range(B):
        for h in range(n_head):
            _one_head(*(array[b, :, h] for array in (*inputs.values(), *results)))
    return tuple(results)


def numba_loops(inputs):
    results = [np.empty_like(inputs["q"]) for _ in range(4)]
    _all_heads(*inputs.values(), *results)
    return tuple(results)


_PROBLEM = PROBLEMS["attention"]
CASE = Case(
    name="attention",
    problem=_PROBLEM,
    size=dict(B=4, T=1024, n_head=12, head_size=64),
    small_size=dict(B=1, T=24, n_head=2, head_size=16),
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numba loops, one query", numba_loops),
        Rung("numpy (layers)", by(_PROBLEM, layers)),
        Rung("kernels (tiles, vectors)", by(_PROBLEM, kernels)),
        Rung("kernels, memory kept", keeping(_PROBLEM, kernels)),
    ],
)
