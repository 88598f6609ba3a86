"""Causal attention forward and backward: the quadratic part of a transformer, without its quadratic memory."""

import math

import numpy as np
from numba import njit, prange

from gpt_numpy import kernels, layers

from . import Case, Rung, keeping


def make(rng, B, T, n_head, head_size):
    q, k, v, dout = rng.standard_normal((4, B, T, n_head, head_size), np.float32)
    return {"q": q, "k": k, "v": v, "dout": dout}


def _through(ops, q, k, v, dout, alloc=np.empty):
    out, cache = ops.attention_forward(q, k, v, alloc=alloc)
    return out, *ops.attention_backward(dout, cache, alloc=alloc)


def oracle(inputs):
    return _through(layers, **{name: value.astype(np.float64) for name, value in inputs.items()})


def _one_head(q, k, v, dout, out, dq, dk, dv):
    """Query by query; its weights are a row of T numbers, nothing (T, T) is kept."""
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


CASE = Case(
    name="attention",
    summary="causal attention forward and backward",
    size=dict(B=4, T=1024, n_head=12, head_size=64),
    small_size=dict(B=1, T=24, n_head=2, head_size=16),
    make=make,
    oracle=oracle,
    rungs=[
        Rung("python loops", python_loops, small=True),
        Rung("numba loops, one query", numba_loops),
        Rung("numpy (layers)", lambda inputs: _through(layers, **inputs)),
        Rung("kernels (tiles, vectors)", lambda inputs: _through(kernels, **inputs)),
        Rung("kernels, memory kept", keeping(lambda inputs, alloc: _through(kernels, **inputs, alloc=alloc))),
    ],
    # 2 products forward and 5 backward (the scores are made again), each over half of T × T
    flops=lambda B, T, n_head, head_size: 7 * B * n_head * T * (T + 1) * head_size,
    bytes=lambda B, T, n_head, head_size: 4 * 12 * B * T * n_head * head_size,
    tolerance=2e-5,
)
