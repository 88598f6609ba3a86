"""The output head tied to the token embedding, alone and together with the loss.

The twin of ``layers.lm_head``. With the loss, logits exist only for as many rows at a time as ``CHUNK_BYTES`` hold: a
chunk's logits are computed, replaced by their gradient in place, and multiplied into dx and dwte before the next chunk
begins. A forward alone keeps no logits: its backward computes them again.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_head, own_targets
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .gemm import gemm
from .runtime.checks import check_shape, gradients, matrix, one_dtype
from .runtime.scratch import op_scratch

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


def _logits_by_chunk(x, wte, targets, ignore_index):
    """For each chunk of rows: its slice, its logits (overwritten by the next chunk), its targets, how many count."""
    dtype, V = x.dtype, wte.shape[0]
    index, rows, wte = targets.reshape(-1), matrix(x), matrix(wte)
    count = max(1, -(-len(rows) * V * dtype.itemsize // CHUNK_BYTES))
    for i in range(count):
        part = slice(len(rows) * i // count, len(rows) * (i + 1) // count)
        if part.start < part.stop:
            (logits,) = op_scratch("lm_head", dtype, (part.stop - part.start, V))
            gemm(rows[part], wte, logits, b_transposed=True)
            yield part, logits, index[part], int(np.count_nonzero(index[part] != ignore_index))


def lm_head_cross_entropy_forward(x, wte, targets, ignore_index=-1, alloc=np.empty):
    """Mean cross-entropy of the head's logits with targets (B, T), over those that are not ``ignore_index``."""
    targets = _check(x, wte, targets, ignore_index)
    total, counted = 0.0, 0
    for _, logits, index, n in _logits_by_chunk(x, wte, targets, ignore_index):
        loss, _ = cross_entropy_forward(logits, index, ignore_index)
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
    targets, dtype = _check(x, wte, targets, ignore_index), x.dtype
    (dwte,), add = gradients(into, dtype, add, dwte=wte.shape)
    dx = alloc(x.shape, dtype)
    rows, dx_rows, weight = matrix(x), matrix(dx), matrix(wte)
    counted = max(int(np.count_nonzero(targets != ignore_index)), 1)
    total = 0.0
    for part, logits, index, n in _logits_by_chunk(x, wte, targets, ignore_index):
        loss, cache = cross_entropy_forward(logits, index, ignore_index)
        total += loss * n
        # A chunk's loss is the mean over its own n targets; over all targets it weighs n / counted.
        dlogits = cross_entropy_backward(dloss * n / counted, cache, alloc=lambda shape, dtype, memory=logits: memory)
        gemm(dlogits, weight, dx_rows[part])
        gemm(dlogits, rows[part], dwte, a_transposed=True, add=add or part.start > 0)
    if not len(rows) and not add:
        dwte.fill(0)
    return total / counted, dx, dwte
