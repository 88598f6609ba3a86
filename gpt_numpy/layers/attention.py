"""Scaled dot-product attention, causal, and the multi-head layer around it (Vaswani et al. 2017, section 3.2).

Queries, keys and values are (B, T, n_head, head_size). The layer's one (B, T, 3C) product already has this order
in memory, so splitting and merging heads copies nothing.

The mask is a range of keys for each query, never a number added to a score: query i of Tq sees the keys
first_key[b, i] <= j <= Tk − Tq + i. The upper end is causality; it also serves a key-value cache, where there
are more keys than queries. The lower end, 0 by default, separates documents that share a block. The
fast twin ``kernels.attention`` turns the same range into loop bounds.
"""

import math
from typing import NamedTuple

import numpy as np

from ..arguments import check_attention, check_axes, check_heads, check_shape, own_first_key
from ..randomness import Dropout
from .accumulate import adds_into
from .dropout import dropout_backward, dropout_forward
from .linear import LinearCache, linear_backward, linear_forward
from .rmsnorm import RmsnormCache, rmsnorm_backward, rmsnorm_forward
from .rotary import RotaryCache, rotary_backward, rotary_forward


class AttentionCache(NamedTuple):
    q: np.ndarray  # (B, Tq, n_head, head_size)
    k: np.ndarray  # (B, Tk, n_kv_head, head_size)
    v: np.ndarray  # (B, Tk, n_kv_head, head_size)
    weights: np.ndarray  # (B, n_head, Tq, Tk), before dropout
    dropout_cache: tuple | None
    scale: np.floating


class HeadsCache(NamedTuple):
    norm: RmsnormCache | None
    turn: RotaryCache | None


class MultiHeadAttentionCache(NamedTuple):
    attn: LinearCache  # x (B, T, C), weight (C, 3C)
    attention: AttentionCache
    proj: LinearCache  # heads side by side (B, T, C), weight (C, C)
    q: HeadsCache
    k: HeadsCache


def visible_keys(Tq, Tk, first_key=None):
    """Mask, True where the query sees the key: bool (1 or B, 1, Tq, Tk), from the two ends of each query's range."""
    key = np.arange(Tk)
    last_key = np.arange(Tk - Tq, Tk)[:, None]
    visible = (key <= last_key)[None, None]
    if first_key is not None:
        visible = visible & (key >= first_key[:, None, :, None])
    return visible


def softmax(scores):
    """Softmax over the last axis; a score of −∞ has weight exactly 0. The maximum is subtracted before exp."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def softmax_backward(dweights, weights):
    """Gradient of the scores, from that of the weights p = softmax(s).

    ∂p_i/∂s_j = p_i (δ_ij − p_j), so  ds_j = Σ_i dp_i · p_i (δ_ij − p_j) = p_j · (dp_j − Σ_i dp_i · p_i).

    The row sum is subtracted from every score's gradient because the weights always add up to 1. Where p is
    exactly 0 (a key that is not seen) the gradient is exactly 0.
    """
    return weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))


def attention_forward(q, k, v, first_key=None, dropout=None, alloc=np.empty, scale=None):
    """out = softmax(q · kᵀ · scale) · v, each query over the keys that it sees.

    q (B, Tq, n_head, head_size); k and v (B, Tk, n_kv_head, head_size) with Tk >= Tq; out like q. Where n_kv_head is
    smaller, each head of k and v serves n_head / n_kv_head neighbouring query heads (Ainslie et al. 2023).
    first_key (B, Tq): the first key that each query sees, at most the query's own position. dropout: a
    ``randomness.Dropout`` for the attention weights, or None. scale: a number; None is 1/√head_size.
    """
    check_attention(q, k, v)
    first_key = own_first_key(first_key, *q.shape[:2], k.shape[1])
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = heads_first(q) @ shared_heads(k, q).swapaxes(-1, -2)  # (B, n_head, Tq, Tk)
    scores *= scale
    visible = visible_keys(q.shape[1], k.shape[1], first_key)
    weights = softmax(np.where(visible, scores, -np.inf))
    dropped, dropout_cache = weights, None
    if dropout is not None:
        dropped, dropout_cache = dropout_forward(weights, dropout)
    out = alloc(q.shape, q.dtype)
    np.matmul(dropped, shared_heads(v, q), out=heads_first(out))
    return out, AttentionCache(q, k, v, weights, dropout_cache, scale)


def attention_backward(dout, cache, alloc=np.empty):
    """Gradients dq (B, Tq, n_head, head_size), dk and dv (B, Tk, n_kv_head, head_size).

    For one head, with scores S = q kᵀ · s where s is the scale, weights P = softmax(S) over the visible keys, and
    P̃ = dropout(P):

        out = P̃ v         dP̃ = dout · vᵀ,   dv = P̃ᵀ · dout
        P̃ = dropout(P)    dP  = dropout's backward of dP̃
        P = softmax(S)    dS  = P ∘ (dP − rowsum(dP ∘ P))     see ``softmax_backward``
        S = s · q kᵀ      dq  = s · dS · k,   dk = s · dSᵀ · q

    A key after its query has P = 0 and so dS = 0: its gradient from that query is exactly 0. A head of keys that several
    query heads use gets the sum of their gradients.
    """
    q, k, v, weights, dropout_cache, scale = cache
    check_shape("dout", dout, q.shape)
    dout = heads_first(dout)
    dropped = weights if dropout_cache is None else dropout_forward(weights, dropout_cache.dropout)[0]
    dv = alloc(v.shape, v.dtype)
    heads_first(dv)[...] = sum_shared(dropped.swapaxes(-1, -2) @ dout, v)
    dweights = dout @ shared_heads(v, q).swapaxes(-1, -2)
    if dropout_cache is not None:
        dweights = dropout_backward(dweights, dropout_cache)
    dscores = softmax_backward(dweights, weights)
    dscores *= scale
    dq = alloc(q.shape, q.dtype)
    np.matmul(dscores, shared_heads(k, q), out=heads_first(dq))
    dk = alloc(k.shape, k.dtype)
    heads_first(dk)[...] = sum_shared(dscores.swapaxes(-1, -2) @ heads_first(q), k)
    return dq, dk, dv


def multi_head_attention_forward(
    x,
    attn_weight,
    attn_bias,
    proj_weight,
    proj_bias,
    n_head,
    first_key=None,
    dropout: Dropout | None = None,
    alloc=np.empty,
    alloc_out=None,
    *,
    scale=None,
    n_kv_head=None,
    rotation=None,
    q_norm=None,
    k_norm=None,
    epsilon=1e-5,
):
    """Project x to queries, keys and values, attend in each head, project the heads' outputs back.

    x and out (B, T, C); attn_weight and attn_bias hold the three projections side by side, (C, 3C) and (3C,) where there
    are as many heads of keys as of queries; proj_weight (n_head · head_size, C), proj_bias (C,). Head h owns columns
    h · head_size … of each part. Biases may be None. alloc_out, where given, allocates ``out``: the backward does not read
    ``out``, so its memory may be reused before the backward. scale: what scores are multiplied by; None is 1/√head_size.

    n_kv_head        heads of keys and of values, a divisor of n_head; None: n_head
    q_norm, k_norm   weights (head_size,) of an rmsnorm of each query and key, with ``epsilon``; None: no norm
    rotation         angles by which queries and keys are turned, after the norm; None: they are not
    """
    check_axes(2, x=x, attn_weight=attn_weight)
    n_head = check_heads(n_head, attn_weight.shape[-1], n_kv_head)
    qkv, attn_cache = linear_forward(x, attn_weight, attn_bias, alloc)
    q, k, v = split_heads(qkv, n_head, n_kv_head)
    q, q_cache = prepare_heads(q, q_norm, epsilon, rotation)
    k, k_cache = prepare_heads(k, k_norm, epsilon, rotation)
    heads, attention_cache = attention_forward(q, k, v, first_key, dropout, alloc, scale)
    out, proj_cache = linear_forward(merge_heads(heads), proj_weight, proj_bias, alloc_out or alloc)
    return out, MultiHeadAttentionCache(attn_cache, attention_cache, proj_cache, q_cache, k_cache)


@adds_into(None)
def multi_head_attention_backward(dout, cache, alloc=np.empty):
    """Gradients dx (B, T, C), dattn_weight, dattn_bias, dproj_weight, dproj_bias: the forward in reverse.

    Where queries and keys have norms, the gradients of their weights follow: dq_norm, dk_norm. The forward cut one array
    into three views. The gradient of that array is therefore the three gradients side by side: each is written into its
    view of one array.
    """
    dheads, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc)
    dq, dk, dv = attention_backward(dheads.reshape(cache.attention.q.shape), cache.attention, alloc)
    dq, dq_norm = prepare_heads_backward(dq, cache.q)
    dk, dk_norm = prepare_heads_backward(dk, cache.k)
    dqkv = alloc((*dout.shape[:2], cache.attn.weight.shape[1]), dout.dtype)
    for view, gradient in zip(split_heads(dqkv, dq.shape[2], dk.shape[2]), (dq, dk, dv)):
        view[...] = gradient
    dx, dattn_weight, dattn_bias = linear_backward(dqkv, cache.attn, alloc)
    norms = () if cache.q.norm is None else (dq_norm, dk_norm)
    return dx, dattn_weight, dattn_bias, dproj_weight, dproj_bias, *norms


def prepare_heads(x, weight, epsilon, rotation):
    """What stands between a projection and attention: x (B, T, heads, head_size) normalised and turned, where asked."""
    norm = turn = None
    if weight is not None:
        x, norm = rmsnorm_forward(x, weight, epsilon)
    if rotation is not None:
        x, turn = rotary_forward(x, rotation)
    return x, HeadsCache(norm, turn)


def prepare_heads_backward(dx, cache):
    """(gradient of ``prepare_heads``' x, that of its weight or None) from dx, the gradient of its output."""
    dweight = None
    if cache.turn is not None:
        dx = rotary_backward(dx, cache.turn)
    if cache.norm is not None:
        dx, dweight = rmsnorm_backward(dx, cache.norm)
    return dx, dweight


def split_heads(qkv, n_head, n_kv_head=None):
    """Views q (B, T, n_head, head_size) and k, v (B, T, n_kv_head, head_size) of one (B, T, columns) array."""
    B, T, columns = qkv.shape
    check_heads(n_head, columns, n_kv_head)
    n_kv_head = n_head if n_kv_head is None else n_kv_head
    n_heads = n_head + 2 * n_kv_head
    heads = qkv.reshape(B, T, n_heads, columns // n_heads)
    return heads[:, :, :n_head], heads[:, :, n_head:-n_kv_head], heads[:, :, -n_kv_head:]


def merge_heads(heads):
    """(B, T, n_head · head_size): the heads side by side."""
    return heads.reshape(*heads.shape[:2], heads.shape[2] * heads.shape[3])


def shared_heads(x, q):
    """k or v (B, Tk, n_kv_head, head_size) with a head for each query head of q, heads first: (B, n_head, Tk, head_size).

    Neighbouring query heads share a head: of n_head = 6 and n_kv_head = 2, query heads 0, 1 and 2 use head 0.
    """
    groups = q.shape[-2] // x.shape[-2]
    return heads_first(x if groups == 1 else np.repeat(x, groups, axis=2))


def sum_shared(gradient, x):
    """The gradient of x, k or v (B, Tk, n_kv_head, head_size), heads first: (B, n_kv_head, Tk, head_size).

    gradient (B, n_head, Tk, head_size) is that of ``shared_heads``' output. Several query heads use one head of x, so its
    gradient is the sum of theirs.
    """
    B, n_head, Tk, head_size = gradient.shape
    n_kv_head = x.shape[2]
    return gradient.reshape(B, n_kv_head, n_head // n_kv_head, Tk, head_size).sum(axis=2)


def heads_first(x):
    """A view (B, n_head, T, head_size) of x (B, T, n_head, head_size): matmul multiplies the last two axes of each head."""
    return x.swapaxes(1, 2)
