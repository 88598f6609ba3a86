"""Softmax and cross-entropy: the logits are read once forward, and read once and written once backward.

A row's log Σ exp is taken chunk by chunk: the chunk's maximum, then its sum of exponentials while it is
still in cache; what was summed before is rescaled when the maximum grows (Milakov and Gimelshein 2018). The twin of
``layers.cross_entropy``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import own_targets
from .runtime.checks import flat, one_dtype
from .runtime.decorators import part
from .runtime.threads import launcher, parallel_for
from .runtime.vectors import (
    add_lanes,
    broadcast,
    exp2_of_negative,
    keep_first,
    lanes,
    load,
    load_tail,
    max_lanes,
    maximum,
    store,
    store_tail,
)

_CHUNK = 4096  # logits, a multiple of every vector's length
_TASK_ELEMENTS = 1 << 12
_LOG2_E = 1.4426950408889634


class CrossEntropyCache(NamedTuple):
    logits: np.ndarray  # (..., V)
    largest: np.ndarray  # (N,), each row's largest logit
    total: np.ndarray  # (N,) float64, Σ exp(logits − largest)
    targets: np.ndarray  # (N,) int64
    counted: np.ndarray  # (N,) bool, False where the target is ignored


@part
def _weight(x, largest):
    """exp(x − largest): a subtraction first, which is exact where it matters."""
    return exp2_of_negative((x - largest) * _LOG2_E)


@part
def row_normaliser(x, base, n):
    """The largest of the n elements from ``base`` on and Σ exp(x − largest), in float64; NaN if one is NaN."""
    largest, total = -np.inf, 0.0
    for start in range(0, n, _CHUNK):
        stop, i = min(n, start + _CHUNK), start
        high = high2 = broadcast(x, largest)
        while i + 2 * lanes(x) <= stop:
            high, high2 = maximum(load(x, base + i), high), maximum(load(x, base + i + lanes(x)), high2)
            i += 2 * lanes(x)
        while i < stop:
            high = maximum(keep_first(load_tail(x, base + i, stop - i), stop - i, -np.inf), high)
            i += lanes(x)
        high = maximum(high, high2)
        before, largest = largest, np.float64(max_lanes(high))
        shift = largest if largest > -np.inf else 0.0  # all −∞ so far: exp(−∞ − 0) = 0
        chunk, i = broadcast(x, 0.0), start
        while i + lanes(x) <= stop:
            chunk += _weight(load(x, base + i), shift)
            i += lanes(x)
        if i < stop:
            chunk += keep_first(_weight(load_tail(x, base + i, stop - i), shift), stop - i, 0.0)
        total = (total * np.exp(before - shift) if start > 0 else 0.0) + np.float64(add_lanes(chunk))
    return largest, total


@part
def _forward_rows(worker, task, logits, targets, counted, largest, total, losses, rows):
    V = logits.size // targets.size
    for row in range(task * rows, min(targets.size, (task + 1) * rows)):
        largest[row], total[row] = row_normaliser(logits, row * V, V)
        if counted[row]:
            losses[row] = np.log(total[row]) + (np.float64(largest[row]) - logits[row * V + targets[row]])
        else:
            losses[row] = 0


@launcher
def _forward(n_tasks, logits, targets, counted, largest, total, losses, rows):
    parallel_for(_forward_rows, n_tasks, (logits, targets, counted, largest, total, losses, rows))


@part
def _write_gradients(logits, base, V, target, shift, scale, weight, dlogits):
    """dlogits = exp(logits − shift) · scale − weight · one-hot(target), of the row of V that begins at ``base``."""
    i = 0
    while i + lanes(logits) <= V:
        store(dlogits, base + i, _weight(load(logits, base + i), shift) * scale)
        i += lanes(logits)
    store_tail(dlogits, base + i, _weight(load_tail(logits, base + i, V - i), shift) * scale, V - i)
    dlogits[base + target] -= weight


@part
def _backward_rows(worker, task, logits, targets, counted, largest, total, dlogits, rows, weight):
    V = logits.size // targets.size
    for row in range(task * rows, min(targets.size, (task + 1) * rows)):
        base = row * V
        if not counted[row]:
            dlogits[base : base + V] = 0
            continue
        scale = logits.dtype.type(weight / total[row])
        _write_gradients(logits, base, V, targets[row], largest[row], scale, weight, dlogits)


@launcher
def _backward(n_tasks, logits, targets, counted, largest, total, dlogits, rows, weight):
    parallel_for(_backward_rows, n_tasks, (logits, targets, counted, largest, total, dlogits, rows, weight))


@part
def _gradient_rows(worker, task, logits, targets, ignore_index, losses, rows, weight):
    V = logits.size // targets.size
    for row in range(task * rows, min(targets.size, (task + 1) * rows)):
        base, target = row * V, targets[row]
        if target == ignore_index:
            losses[row] = 0
            logits[base : base + V] = 0
            continue
        largest, total = row_normaliser(logits, base, V)
        losses[row] = np.log(total) + (largest - logits[base + target])
        shift, scale = logits.dtype.type(largest), logits.dtype.type(weight[0] / total)
        _write_gradients(logits, base, V, target, shift, scale, weight[0], logits)


@launcher
def _gradients(n_tasks, logits, targets, ignore_index, losses, rows, weight):
    parallel_for(_gradient_rows, n_tasks, (logits, targets, ignore_index, losses, rows, weight))


def replace_by_gradients(logits, targets, ignore_index, losses, weight):
    """losses = −log softmax(logits)[target], and logits (N, V) become their gradients; both 0 where target is ignored.

    targets (N,) int64, losses (N,) float64; weight (1,), like logits: the gradient of each loss. All are contiguous; no
    argument is checked here. The bits are those of `cross_entropy_forward` and `cross_entropy_backward`.
    """
    rows = _rows_per_task(logits.shape[-1])
    _gradients(-(-targets.size // rows), logits.reshape(-1), targets, ignore_index, losses, rows, weight)


def _rows_per_task(V):
    return max(1, _TASK_ELEMENTS // max(V, 1))


def cross_entropy_forward(logits, targets, ignore_index=-1, alloc=np.empty):
    """Mean over the counted rows of −log softmax(logits)[target].

    logits (..., V); targets (...) int, where ``ignore_index`` takes a row out of the mean. Returns a Python
    float, summed in float64; with no counted row at all the loss is 0 and so is every gradient.
    """
    dtype = one_dtype(1, logits=logits)
    index = own_targets(targets, logits.shape, ignore_index).reshape(-1)
    counted = index != ignore_index
    largest, (total, losses) = np.empty(index.size, dtype), np.empty((2, index.size), np.float64)
    rows = _rows_per_task(logits.shape[-1])
    _forward(-(-index.size // rows), flat(logits), index, counted, largest, total, losses, rows)
    loss = float(losses.sum()) / max(int(np.count_nonzero(counted)), 1)
    return loss, CrossEntropyCache(logits, largest, total, index, counted)


def cross_entropy_backward(dloss, cache, alloc=np.empty):
    """dlogits (..., V) = (softmax(logits) − one-hot target) · dloss / N; an ignored row gets zeros."""
    logits, largest, total, targets, counted = cache
    dlogits = alloc(logits.shape, logits.dtype)
    weight = logits.dtype.type(dloss / max(int(np.count_nonzero(counted)), 1))
    rows = _rows_per_task(logits.shape[-1])
    _backward(
        -(-targets.size // rows), flat(logits), targets, counted, largest, total, dlogits.reshape(-1), rows, weight
    )
    return dlogits
