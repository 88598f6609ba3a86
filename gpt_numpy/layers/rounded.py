"""The layers with products in bfloat16: the same functions, whose matrix products take rounded operands.

This module is the oracle of ``kernels.rounded``. Each function below is the function of the same name in ``layers``
with ``round_to_bfloat16`` applied to the operands of its products, forward and backward. ``gpt_numpy.products`` lists
what is rounded and what is not. Run in float64, the products are exact enough to test the kernels against.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import layers
from ..arguments import check_attention, check_shape, own_first_key
from ..layers import activation_backward as activation_backward
from ..layers import activation_forward as activation_forward
from ..layers import adamw_update as adamw_update
from ..layers import clear_gradients as clear_gradients
from ..layers import cross_entropy_backward as cross_entropy_backward
from ..layers import cross_entropy_forward as cross_entropy_forward
from ..layers import dropout_backward as dropout_backward
from ..layers import dropout_forward as dropout_forward
from ..layers import embedding_backward as embedding_backward
from ..layers import embedding_forward as embedding_forward
from ..layers import gelu_backward as gelu_backward
from ..layers import gelu_forward as gelu_forward
from ..layers import gradient_norm as gradient_norm
from ..layers import layernorm_backward as layernorm_backward
from ..layers import layernorm_forward as layernorm_forward
from ..layers import residual_backward as residual_backward
from ..layers import residual_forward as residual_forward
from ..layers import rmsnorm_backward as rmsnorm_backward
from ..layers import rmsnorm_forward as rmsnorm_forward
from ..layers import rotary_backward as rotary_backward
from ..layers import rotary_forward as rotary_forward
from ..layers import swiglu_backward as swiglu_backward
from ..layers import swiglu_forward as swiglu_forward
from ..products import round_to_bfloat16
from .accumulate import adds_into
from .attention import (
    MultiHeadAttentionCache,
    heads_first,
    merge_heads,
    prepare_heads,
    prepare_heads_backward,
    shared_heads,
    split_heads,
    sum_shared,
    visible_keys,
)
from .lm_head import LMHeadCrossEntropyCache
from .mlp import MLPCache, activate, activate_backward


def linear_forward(x, weight, bias, alloc=np.empty):
    """`layers.linear_forward` of rounded x and weight. The cache holds x and weight unrounded."""
    out, cache = layers.linear_forward(round_to_bfloat16(x), round_to_bfloat16(weight), bias, alloc)
    return out, cache._replace(x=x, weight=weight)


@adds_into(2)
def linear_backward(dout, cache, alloc=np.empty):
    """`layers.linear_backward` of rounded operands; dbias is the sum of unrounded rows."""
    rounded = cache._replace(x=round_to_bfloat16(cache.x), weight=round_to_bfloat16(cache.weight))
    dx, dweight, _ = layers.linear_backward(round_to_bfloat16(dout), rounded, alloc)
    return dx, dweight, dout.reshape(-1, dout.shape[-1]).sum(axis=0) if cache.biased else None


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, alloc=np.empty, alloc_out=None, activation="gelu"):
    """`layers.mlp_forward` with rounded operands.

    The activation's input is rounded for the backward alone, which takes both the activation and its slope there.
    """
    hidden, fc_cache = linear_forward(x, fc_weight, fc_bias, alloc)
    activated, _ = activate(hidden, activation, alloc)
    out, proj_cache = linear_forward(activated, proj_weight, proj_bias, alloc_out or alloc)
    activated, gelu_cache = activate(round_to_bfloat16(hidden), activation, alloc)
    return out, MLPCache(fc_cache, gelu_cache, proj_cache._replace(x=activated), activation)


@adds_into(4)
def mlp_backward(dout, cache, alloc=np.empty):
    """`layers.mlp_backward` with rounded operands."""
    dactivated, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc)
    dhidden = activate_backward(dactivated, cache, alloc)
    dx, dfc_weight, dfc_bias = linear_backward(dhidden, cache.fc, alloc)
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias


class AttentionCache(NamedTuple):
    q: np.ndarray  # (B, Tq, n_head, head_size)
    k: np.ndarray  # (B, Tk, n_head, head_size)
    v: np.ndarray  # (B, Tk, n_head, head_size)
    out: np.ndarray  # (B, Tq, n_head, head_size)
    weights: np.ndarray  # (B, n_head, Tq, Tk), before dropout and unrounded
    dropout_cache: tuple | None
    scale: float | None


def attention_forward(q, k, v, first_key=None, dropout=None, alloc=np.empty, scale=None):
    """`layers.attention_forward` with rounded operands in both products.

    The weights that meet v are rounded before they are divided by their sum: as e^s / 2ⁿ, with n the smallest integer for
    which none exceeds 1. The sum is of unrounded weights.
    """
    check_attention(q, k, v)
    first_key = own_first_key(first_key, *q.shape[:2], k.shape[1])
    scores = heads_first(round_to_bfloat16(q)) @ shared_heads(round_to_bfloat16(k), q).swapaxes(-1, -2)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores *= q.dtype.type(math.log2(math.e) * scale)  # for powers of two
    scores = np.where(visible_keys(q.shape[1], k.shape[1], first_key), scores, -np.inf)
    powers = np.exp2(scores - np.ceil(scores.max(axis=-1, keepdims=True, initial=-np.inf)))
    total = powers.sum(axis=-1, keepdims=True)
    dropped, dropout_cache = (powers, None) if dropout is None else dropout_forward(powers, dropout)
    out = alloc(q.shape, q.dtype)
    heads_first(out)[...] = round_to_bfloat16(dropped) @ shared_heads(round_to_bfloat16(v), q) / total
    return out, AttentionCache(q, k, v, out, powers / total, dropout_cache, scale)


def attention_backward(dout, cache, alloc=np.empty):
    """`layers.attention_backward` with rounded operands in all products.

    The rows' sums Σ_j dP_j P_j are taken as Σ dout · out, with dout rounded and out as it is. The scores' gradients are
    rounded before they are scaled.
    """
    q, k, v, out, weights, dropout_cache, scale = cache
    check_shape("dout", dout, q.shape)
    dout, k, v = heads_first(round_to_bfloat16(dout)), *(shared_heads(round_to_bfloat16(x), q) for x in (k, v))
    q = heads_first(round_to_bfloat16(q))
    sums = (dout * heads_first(out)).sum(axis=-1, keepdims=True)
    dropped = weights if dropout_cache is None else dropout_forward(weights, dropout_cache.dropout)[0]
    dweights = dout @ v.swapaxes(-1, -2)
    if dropout_cache is not None:
        dweights = dropout_backward(dweights, dropout_cache)
    dscores, dropped = round_to_bfloat16(weights * (dweights - sums)), round_to_bfloat16(dropped)
    scale = dscores.dtype.type(scale)
    gradients = dscores @ k * scale, dscores.swapaxes(-1, -2) @ q * scale, dropped.swapaxes(-1, -2) @ dout
    arrays = tuple(alloc(x.shape, x.dtype) for x in cache[:3])
    for array, gradient in zip(arrays, gradients):
        heads_first(array)[...] = sum_shared(gradient, array)
    return arrays


def multi_head_attention_forward(
    x,
    attn_weight,
    attn_bias,
    proj_weight,
    proj_bias,
    n_head,
    first_key=None,
    dropout=None,
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
    """`layers.multi_head_attention_forward` with rounded operands in both projections and in attention."""
    qkv, attn_cache = linear_forward(x, attn_weight, attn_bias, alloc)
    q, k, v = split_heads(qkv, n_head, n_kv_head)
    q, q_cache = prepare_heads(q, q_norm, epsilon, rotation)
    k, k_cache = prepare_heads(k, k_norm, epsilon, rotation)
    heads, attention_cache = attention_forward(q, k, v, first_key, dropout, alloc, scale)
    out, proj_cache = linear_forward(merge_heads(heads), proj_weight, proj_bias, alloc_out or alloc)
    return out, MultiHeadAttentionCache(attn_cache, attention_cache, proj_cache, q_cache, k_cache)


@adds_into(None)
def multi_head_attention_backward(dout, cache, alloc=np.empty):
    """`layers.multi_head_attention_backward` with rounded operands in both projections and in attention."""
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


def lm_head_forward(x, wte, alloc=np.empty):
    """`layers.lm_head_forward` of rounded x and wte."""
    logits, cache = layers.lm_head_forward(round_to_bfloat16(x), round_to_bfloat16(wte), alloc)
    return logits, cache._replace(x=x, wte=wte)


@adds_into(1)
def lm_head_backward(dlogits, cache, alloc=np.empty):
    """`layers.lm_head_backward` of rounded operands."""
    rounded = cache._replace(x=round_to_bfloat16(cache.x), wte=round_to_bfloat16(cache.wte))
    return layers.lm_head_backward(round_to_bfloat16(dlogits), rounded, alloc)


def lm_head_cross_entropy_forward(x, wte, targets, ignore_index=-1, alloc=np.empty):
    """`layers.lm_head_cross_entropy_forward` of rounded x and wte."""
    logits, head_cache = lm_head_forward(x, wte, alloc)
    loss, loss_cache = cross_entropy_forward(logits, targets, ignore_index, alloc)
    return loss, LMHeadCrossEntropyCache(head_cache, loss_cache)


@adds_into(1)
def lm_head_cross_entropy_backward(dloss, cache, alloc=np.empty):
    """`layers.lm_head_cross_entropy_backward` with rounded operands."""
    dlogits = cross_entropy_backward(dloss, cache.cross_entropy, alloc)
    return lm_head_backward(dlogits, cache.head, alloc)


@adds_into(1)
def lm_head_cross_entropy_gradients(x, wte, targets, dloss, ignore_index=-1, alloc=np.empty):
    """`layers.lm_head_cross_entropy_gradients` with rounded operands."""
    loss, cache = lm_head_cross_entropy_forward(x, wte, targets, ignore_index, alloc)
    return loss, *lm_head_cross_entropy_backward(dloss, cache, alloc)


__all__ = list(layers.__all__)
