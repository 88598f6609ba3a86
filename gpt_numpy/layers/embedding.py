"""Token and position embedding: two table look-ups, added; or that of tokens alone.

Its fast twin is ``kernels.embedding``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_shape, own_tokens
from .accumulate import adds_into


class EmbeddingCache(NamedTuple):
    tokens: np.ndarray  # (B, T) int64
    positions: np.ndarray | None  # (T,) or (B, T) int64
    wte_shape: tuple
    wpe_shape: tuple | None


def embedding_forward(tokens, positions, wte, wpe, alloc=np.empty):
    """out[b, t] = wte[tokens[b, t]] + wpe[positions[b, t]].

    tokens (B, T) and positions (T,) or (B, T) are integers; wte is (V, C), wpe (block_size, C); out (B, T, C).
    wpe None: no learned positions, out[b, t] = wte[tokens[b, t]].
    """
    tokens, positions = own_tokens(tokens, positions, wte, wpe)
    out = alloc((*tokens.shape, wte.shape[1]), wte.dtype)
    np.take(wte, tokens, axis=0, out=out)
    if wpe is None:
        return out, EmbeddingCache(tokens, None, wte.shape, None)
    out += wpe[positions]
    return out, EmbeddingCache(tokens, positions, wte.shape, wpe.shape)


@adds_into(2)
def embedding_backward(dout, cache):
    """Gradients of both tables: dwte (V, C), dwpe (block_size, C) or None.

    Row v of wte was copied to every (b, t) whose token is v, so its gradient is the sum of dout over those
    (b, t):  dwte[v] = Σ_{b,t : tokens[b,t] = v} dout[b, t].  Row p of wpe likewise receives the sum of dout over
    all (b, t) at position p. ``np.add.at`` is the unbuffered ``+=``: the plain ``dwte[tokens] += dout`` would
    count a repeated token once.
    """
    check_shape("dout", dout, (*cache.tokens.shape, cache.wte_shape[1]))
    dwte = np.zeros(cache.wte_shape, dout.dtype)
    np.add.at(dwte, cache.tokens, dout)
    if cache.wpe_shape is None:
        return dwte, None
    dwpe = np.zeros(cache.wpe_shape, dout.dtype)
    np.add.at(dwpe, np.broadcast_to(cache.positions, cache.tokens.shape), dout)
    return dwte, dwpe
