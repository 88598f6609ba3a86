"""The output head, tied to the token embedding, alone and together with the loss.

logits = x · wteᵀ: the logit of a token is the product of the final state with that token's own embedding
(Press and Wolf 2017). Because the weight is shared, ``wte`` receives a gradient here and another one from
the embedding; the model adds the two.

The forms with the loss are compositions here. Their fast twins in ``kernels.lm_head`` never hold the
(B·T, V) logits, which for GPT-2 would be the largest array of the whole step.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_head, check_shape, rows_of
from .accumulate import adds_into
from .cross_entropy import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward


class LMHeadCache(NamedTuple):
    x: np.ndarray  # (B, T, C)
    wte: np.ndarray  # (V, C)


class LMHeadCrossEntropyCache(NamedTuple):
    head: LMHeadCache
    cross_entropy: CrossEntropyCache


def lm_head_forward(x, wte, alloc=np.empty):
    """logits (B, T, V) = x (B, T, C) · wteᵀ, wte (V, C)."""
    check_head(x, wte)
    logits = np.matmul(x, wte.T, out=alloc((*x.shape[:-1], wte.shape[0]), x.dtype))
    return logits, LMHeadCache(x, wte)


@adds_into(1)
def lm_head_backward(dlogits, cache, alloc=np.empty):
    """Gradients dx (B, T, C) and dwte (V, C).

    logits_v = Σ_c x_c · wte_vc, so  dx = dlogits · wte  and  dwte = dlogitsᵀ · x, summed over all rows.
    """
    x, wte = cache
    check_shape("dlogits", dlogits, (*x.shape[:-1], wte.shape[0]))
    dx = np.matmul(dlogits, wte, out=alloc(x.shape, x.dtype))
    dwte = rows_of(dlogits).T @ rows_of(x)
    return dx, dwte


def lm_head_cross_entropy_forward(x, wte, targets, ignore_index=-1, alloc=np.empty):
    """The loss of the head's logits: ``cross_entropy_forward`` of ``lm_head_forward``."""
    logits, head_cache = lm_head_forward(x, wte, alloc)
    loss, loss_cache = cross_entropy_forward(logits, targets, ignore_index, alloc)
    return loss, LMHeadCrossEntropyCache(head_cache, loss_cache)


@adds_into(1)
def lm_head_cross_entropy_backward(dloss, cache, alloc=np.empty):
    """Gradients dx (B, T, C) and dwte (V, C) of the loss: the two backwards in reverse order."""
    dlogits = cross_entropy_backward(dloss, cache.cross_entropy, alloc)
    return lm_head_backward(dlogits, cache.head, alloc)


@adds_into(1)
def lm_head_cross_entropy_gradients(x, wte, targets, dloss, ignore_index=-1, alloc=np.empty):
    """Loss, dx and dwte at once, for a dloss known beforehand. A training step calls this function.

    dloss is known before the forward pass, so the backward of the head can follow at once. The
    kernels use this to compute the gradients of each chunk of logits while the chunk is still in the CPU's cache.
    """
    loss, cache = lm_head_cross_entropy_forward(x, wte, targets, ignore_index, alloc)
    return loss, *lm_head_cross_entropy_backward(dloss, cache, alloc)
