"""Softmax and cross-entropy in one: the mean negative log-likelihood of the targets.

Its fast twin is ``kernels.cross_entropy``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_axes, own_targets, rows_of


class CrossEntropyCache(NamedTuple):
    logits: np.ndarray  # (..., V)
    maximum: np.ndarray  # (N, 1), the largest logit of each row
    total: np.ndarray  # (N, 1), Σ exp(logits − maximum)
    targets: np.ndarray  # (N,) int64
    counted: np.ndarray  # (N,) bool, False where the target is ignored


def cross_entropy_forward(logits, targets, ignore_index=-1, alloc=np.empty):
    """Mean over the counted rows of −log softmax(logits)[target].

    logits (..., V); targets (...) int, where ``ignore_index`` takes a row out of the mean. Returns the loss, a Python
    float summed in float64, and the cache. If no row counts, the loss and every gradient are 0.
    """
    check_axes(1, logits=logits)
    rows, targets = rows_of(logits), own_targets(targets, logits.shape, ignore_index).reshape(-1)
    counted = targets != ignore_index
    # log Σ exp(x) = m + log Σ exp(x − m) for any m; with m the maximum no exponential overflows. The sum m + log Σ is
    # never computed alone: for a large m its rounding would lose the digits of log Σ.
    maximum = rows.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = np.subtract(rows, maximum, out=alloc(rows.shape, rows.dtype))
    np.exp(shifted, out=shifted)
    total = shifted.sum(axis=-1, keepdims=True)
    index = np.flatnonzero(counted)
    losses = np.log(total[index, 0]) + (maximum[index, 0] - rows[index, targets[index]])
    loss = float(losses.sum(dtype=np.float64)) / max(len(index), 1)
    return loss, CrossEntropyCache(logits, maximum, total, targets, counted)


def cross_entropy_backward(dloss, cache, alloc=np.empty):
    """dlogits (..., V), given the loss's own gradient dloss (a number, usually 1).

    For one row with target y,  loss = log Σ_j exp(x_j) − x_y,  so

        ∂loss/∂x_i = exp(x_i) / Σ_j exp(x_j) − δ_iy = softmax(x)_i − δ_iy,

    weighted by 1/N, where N is the number of rows in the mean. An ignored row gets zeros.
    """
    logits, maximum, total, targets, counted = cache
    rows = rows_of(logits)
    dlogits = np.subtract(rows, maximum, out=alloc(rows.shape, rows.dtype))
    np.exp(dlogits, out=dlogits)
    dlogits /= total
    index = np.flatnonzero(counted)
    dlogits[index, targets[index]] -= 1
    dlogits *= rows.dtype.type(dloss / max(len(index), 1))
    dlogits[~counted] = 0  # written, not multiplied: 0 · NaN is NaN
    return dlogits.reshape(logits.shape)
