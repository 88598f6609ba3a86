"""Token and position embedding: two table look-ups, added.

Its fast twin is ``kernels.embedding``.
"""

from typing import NamedTuple

import numpy as np

from ._accumulate import adds_into


class EmbeddingCache(NamedTuple):
    tokens: np.ndarray  # (B, T) int
    positions: np.ndarray  # (T,) or (B, T) int
    wte_shape: tuple
    wpe_shape: tuple


def embedding_forward(tokens, positions, wte, wpe, alloc=np.empty):
    """out[b, t] = wte[tokens[b, t]] + wpe[positions[b, t]].

    tokens (B, T) and positions (T,) or (B, T) are integers; wte is (V, C), wpe (block_size, C); out (B, T, C).
    """
    out = alloc((*tokens.shape, wte.shape[1]), wte.dtype)
    np.take(wte, tokens, axis=0, out=out)
    out += wpe[positions]
    return out, EmbeddingCache(tokens, positions, wte.shape, wpe.shape)


@adds_into
def embedding_backward(dout, cache):
    """Gradients of both tables: dwte (V, C), dwpe (block_size, C).

    Row v of wte was copied to every (b, t) whose token is v, so its gradient is the sum of dout over those
    places:  dwte[v] = Σ_{b,t : tokens[b,t] = v} dout[b, t].  Likewise for positions; a position that all
    sequences share receives the sum over the batch. ``np.add.at`` is the unbuffered ``+=``: the plain
    ``dwte[tokens] += dout`` would count a repeated token once.
    """
    dwte = np.zeros(cache.wte_shape, dout.dtype)
    np.add.at(dwte, cache.tokens, dout)
    dwpe = np.zeros(cache.wpe_shape, dout.dtype)
    np.add.at(dwpe, np.broadcast_to(cache.positions, cache.tokens.shape), dout)
    return dwte, dwpe
