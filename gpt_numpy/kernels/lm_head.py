"""The output head tied to the token embedding, alone and together with the loss.

The twin of ``layers.lm_head``. With the loss, logits exist only for as many rows at a time as ``CHUNK_BYTES`` hold: a
chunk's logits are computed, replaced by their gradient in place, and multiplied into dx and dwte before the next chunk
begins. A forward alone keeps no logits: its backward computes them again.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_head, own_targets
from .cross_entropy import cross_entropy_forward, replace_by_gradients
from .gemm import current_products, gemm
from .runtime.checks import check_shape, gradients, matrix, one_dtype
from .runtime.recording import not_only_launches
from .runtime.remembering import remembered
from .runtime.scratch import chunks, op_scratch

# Each chunk packs all of wte twice and adds to all of dwte: that must be little against its three products.
CHUNK_BYTES = 128 << 20


class LMHeadCache(NamedTuple):
    x: np.ndarray  # (B, T, C)
    wte: np.ndarray  # (V, C)


class LMHeadCrossEntropyCache(NamedTuple):
    x: np.ndarray  # (B, T, C)
    wte: np.ndarray  # (V, C)
    targets: np.ndarray  # (B, T) int64
    ignore_index: int


def lm_head_forward(x, wte, alloc=np.empty):
    """logits (B, T, V) = x (B, T, C) · wteᵀ, wte (V, C)."""
    dtype = one_dtype(x=x, wte=wte)
    check_head(x, wte)
    logits = alloc((*x.shape[:-1], wte.shape[0]), dtype)
    gemm(matrix(x), matrix(wte), matrix(logits), b_transposed=True)
    return logits, LMHeadCache(x, wte)


def lm_head_backward(dlogits, cache, alloc=np.empty, *, add=True, into=None):
    """Gradients dx (B, T, C) and dwte (V, C); dwte added to, or written to, that of ``into``."""
    x, wte = cache
    dtype = one_dtype(x=x, dlogits=dlogits)
    check_shape("dlogits", dlogits, (*x.shape[:-1], wte.shape[0]))
    (dwte,), add = gradients(into, dtype, add, dwte=wte.shape)
    dx = alloc(x.shape, dtype)
    rows = matrix(dlogits)
    gemm(rows, matrix(wte), matrix(dx))
    gemm(rows, matrix(x), dwte, a_transposed=True, add=add)
    return dx, dwte


def _check(x, wte, targets, ignore_index):
    """``targets`` as a new int64 array, once all four arguments are known to fit."""
    one_dtype(x=x, wte=wte)
    check_head(x, wte)
    return own_targets(targets, (*x.shape[:-1], wte.shape[0]), ignore_index)


def _chunks(rows, V, itemsize):
    """Slices of about equal length, whose logits take ``CHUNK_BYTES`` at most; none is empty."""
    return chunks(rows, max(1, -(-rows * V * itemsize // CHUNK_BYTES)))


def _logits_of(rows, wte):
    """The logits of some rows, overwritten by the next call."""
    (logits,) = op_scratch("lm_head", rows.dtype, (len(rows), wte.shape[0]))
    gemm(rows, wte, logits, b_transposed=True)
    return logits


def _counted(index, ignore_index):
    return int(np.count_nonzero(index != ignore_index))


def lm_head_cross_entropy_forward(x, wte, targets, ignore_index=-1, alloc=np.empty):
    """Mean cross-entropy of the head's logits with targets (B, T), over those that are not ``ignore_index``."""
    targets = _check(x, wte, targets, ignore_index)
    index, rows, weight = targets.reshape(-1), matrix(x), matrix(wte)
    total, counted = 0.0, 0
    for part in _chunks(len(rows), len(weight), x.itemsize):
        n = _counted(index[part], ignore_index)
        loss, _ = cross_entropy_forward(_logits_of(rows[part], weight), index[part], ignore_index)
        total, counted = total + loss * n, counted + n
    return total / max(counted, 1), LMHeadCrossEntropyCache(x, wte, targets, ignore_index)


def lm_head_cross_entropy_backward(dloss, cache, alloc=np.empty, *, add=True, into=None):
    """Gradients dx (B, T, C) and dwte (V, C) of the loss; the logits are computed again."""
    _, dx, dwte = lm_head_cross_entropy_gradients(
        cache.x, cache.wte, cache.targets, dloss, cache.ignore_index, alloc, into=into, add=add
    )
    return dx, dwte


def lm_head_cross_entropy_gradients(x, wte, targets, dloss, ignore_index=-1, alloc=np.empty, *, add=True, into=None):
    """Loss, dx and dwte at once, for a dloss known beforehand. A training step calls this function."""
    own, dtype = _check(x, wte, targets, ignore_index), x.dtype
    # In memory that is the same in every step, for what reads it.
    index, losses = alloc((own.size,), np.int64), alloc((own.size,), np.float64)
    index[...] = own.reshape(-1)
    parts = _chunks(index.size, len(wte), dtype.itemsize)
    counts = [_counted(index[part], ignore_index) for part in parts]
    counted, weights = max(sum(counts), 1), alloc((len(parts), 1), dtype)
    # A chunk's loss is the mean over its own n targets; over all targets it weighs n / counted.
    weights[:, 0] = [dloss * n / counted / max(n, 1) for n in counts]
    dx, dwte = _gradients(x, wte, index, int(ignore_index), losses, weights, alloc, into=into, add=add)
    total = sum(float(losses[part].sum()) / max(n, 1) * n for part, n in zip(parts, counts))
    return total / counted, dx, dwte


@remembered(setting=current_products)
def _gradients(x, wte, index, ignore_index, losses, weights, alloc=np.empty, *, add, into):
    """dx and dwte, and each row's loss in ``losses``; ``weights``: the gradient of each loss, for every chunk."""
    (dwte,), add = gradients(into, x.dtype, add, dwte=wte.shape)
    dx = alloc(x.shape, x.dtype)
    rows, dx_rows, weight = matrix(x), matrix(dx), matrix(wte)
    for number, part in enumerate(_chunks(len(rows), len(weight), x.itemsize)):
        logits = _logits_of(rows[part], weight)
        replace_by_gradients(logits, index[part], ignore_index, losses[part], weights[number])
        gemm(logits, weight, dx_rows[part])
        gemm(logits, rows[part], dwte, a_transposed=True, add=add or part.start > 0)
    if not len(rows) and not add:
        not_only_launches()
        dwte.fill(0)
    return dx, dwte
