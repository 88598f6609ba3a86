"""AdamW over the flat arrays in one pass (four reads, three writes an element), and the gradient's norm and zeroing.

The twin is ``layers.adamw``, whose docstring has the update rule. Clipping needs no pass of its own: its factor is
applied when the gradient is read.
"""

import math
from typing import NamedTuple

import numpy as np

from ..arguments import check_step
from .runtime.checks import flat, one_dtype, target
from .runtime.decorators import part
from .runtime.emitting import VECTOR_BYTES
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import add_lanes, broadcast, convert, fma, lanes, load, load_tail, sqrt, store, store_tail, stream

_BLOCK = 1 << 14  # elements a task
_CACHED = 16 << 20  # bytes of gradients that may still be in the caches when they are used again


class Rule(NamedTuple):
    """The numbers of one step, in the arrays' type."""

    gradient_scale: np.floating
    beta1: np.floating
    new1: np.floating  # 1 − β₁
    beta2: np.floating
    new2: np.floating  # 1 − β₂
    rate: np.floating  # learning rate / (1 − β₁ᵗ)
    correction2: np.floating  # 1 / (1 − β₂ᵗ)
    epsilon: np.floating


@part
def _moved(p, g, m, v, keep, rule):
    """Parameters and moments of one vector after the step; ``keep`` is what weight decay leaves of a parameter."""
    g = g * rule.gradient_scale
    m = fma(m, broadcast(m, rule.beta1), g * rule.new1)
    v = fma(v, broadcast(v, rule.beta2), g * g * rule.new2)
    return p * keep - m * rule.rate / (sqrt(v * rule.correction2) + rule.epsilon), m, v


@part
def _update_block(worker, task, params, grads, moments1, moments2, boundaries, keeps, rule):
    i, end = task * _BLOCK, min(params.size, (task + 1) * _BLOCK)
    segment = np.searchsorted(boundaries, i, "right") - 1
    while i < end:
        stop, keep = min(end, boundaries[segment + 1]), keeps[segment]
        while i + lanes(params) <= stop:
            p, m, v = _moved(load(params, i), load(grads, i), load(moments1, i), load(moments2, i), keep, rule)
            store(params, i, p)
            store(moments1, i, m)
            store(moments2, i, v)
            i += lanes(params)
        n = stop - i
        if n > 0:
            p, m, v = _moved(
                load_tail(params, i, n),
                load_tail(grads, i, n),
                load_tail(moments1, i, n),
                load_tail(moments2, i, n),
                keep,
                rule,
            )
            store_tail(params, i, p, n)
            store_tail(moments1, i, m, n)
            store_tail(moments2, i, v, n)
        i, segment = stop, segment + 1


@launcher
def _update(n_tasks, params, grads, moments1, moments2, boundaries, keeps, rule):
    parallel_for(_update_block, n_tasks, (params, grads, moments1, moments2, boundaries, keeps, rule))


@part
def _square_block(worker, task, grads, sums):
    i, stop, step = task * _BLOCK, min(grads.size, (task + 1) * _BLOCK), lanes(grads)
    first = second = convert(broadcast(grads, 0.0), np.float64)
    while i + 2 * step <= stop:
        a, b = convert(load(grads, i), np.float64), convert(load(grads, i + step), np.float64)
        first, second = fma(a, a, first), fma(b, b, second)
        i += 2 * step
    while i < stop:
        a = convert(load_tail(grads, i, stop - i), np.float64)
        first = fma(a, a, first)
        i += step
    sums[task] = add_lanes(first + second)


@launcher
def _squares(n_tasks, grads, sums):
    parallel_for(_square_block, n_tasks, (grads, sums))


@part
def _clear_block(worker, task, grads, aligned, past_caches):
    """Block ``task`` of those that begin at element ``aligned``; the first also clears what lies before."""
    if task == 0:
        store_tail(grads, 0, broadcast(grads, 0.0), aligned)
    i, stop, step = aligned + task * _BLOCK, min(grads.size, aligned + (task + 1) * _BLOCK), lanes(grads)
    while past_caches and i + step <= stop:
        stream(grads, i, broadcast(grads, 0.0))
        i += step
    while i + step <= stop:
        store(grads, i, broadcast(grads, 0.0))
        i += step
    store_tail(grads, i, broadcast(grads, 0.0), stop - i)


@launcher
def _clear(n_tasks, grads, aligned, past_caches):
    parallel_for(_clear_block, n_tasks, (grads, aligned, past_caches))


def clear_gradients(grads):
    """Set a flat array (N,) to zero, in place."""
    grads = target("grads", grads, (grads.size,), one_dtype(1, grads=grads))
    aligned = min(-grads.ctypes.data % VECTOR_BYTES // grads.itemsize, grads.size)
    _clear(max(1, -(-(grads.size - aligned) // _BLOCK)), grads, aligned, grads.nbytes > _CACHED)


def adamw_update(
    params,
    grads,
    first_moments,
    second_moments,
    boundaries,
    decays,
    learning_rate,
    beta1,
    beta2,
    epsilon,
    step,
    gradient_scale=1.0,
):
    """Move ``params`` one step, in place, and both moments with them; all four arrays are flat, (N,).

    boundaries (S + 1,) int and decays (S,) float64: elements boundaries[i] to boundaries[i + 1] have weight
    decay decays[i]. step counts from 1. Every gradient is multiplied by gradient_scale first (clipping).
    """
    dtype = one_dtype(params=params, grads=grads, first_moments=first_moments, second_moments=second_moments)
    boundaries, decays = check_step(params, grads, first_moments, second_moments, boundaries, decays)
    N = params.size
    written = {"params": params, "first_moments": first_moments, "second_moments": second_moments}
    params, moments1, moments2 = (target(name, array, (N,), dtype) for name, array in written.items())
    grads = flat(grads)
    rule = Rule(
        *map(
            dtype.type,
            (
                gradient_scale,
                beta1,
                1 - beta1,
                beta2,
                1 - beta2,
                learning_rate / (1 - beta1**step),
                1 / (1 - beta2**step),
                epsilon,
            ),
        )
    )
    keeps = (1 - learning_rate * decays).astype(dtype)
    _update(-(-N // _BLOCK), params, grads, moments1, moments2, boundaries, keeps, rule)


def gradient_norm(grads):
    """Euclidean norm of a flat array (N,), summed in float64 block by block, in order."""
    one_dtype(1, grads=grads)
    sums = np.empty(-(-grads.size // _BLOCK), np.float64)
    _squares(sums.size, flat(grads), sums)
    return math.sqrt(float(sums.sum()))
