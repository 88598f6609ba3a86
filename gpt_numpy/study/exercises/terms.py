"""The terms of each derivation, as numbers: the gradient is their sum.

If a reader's gradient is a combination of these terms with other factors than 1, a term is missing, or has the wrong
sign or size. The factors show which term.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ... import layers
from ...layers.gelu import CUBIC, SCALE


def of(layer: str, inputs: dict, dout) -> dict:
    """Gradient's name → label → array, for one case of a layer; {} where a derivation has no terms to add."""
    return _TERMS[layer](dout, **inputs) if layer in _TERMS else {}


def _layernorm(dout, x, weight, bias, epsilon=1e-5):
    centred = x - x.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    xhat, dxhat = centred * r, dout * weight
    ones = np.ones_like(x)
    return {
        "x": {
            "r · dxhat": r * dxhat,
            "−r · mean(dxhat)": -r * dxhat.mean(axis=-1, keepdims=True) * ones,
            "−r · xhat · mean(dxhat ∘ xhat)": -r * xhat * (dxhat * xhat).mean(axis=-1, keepdims=True),
        }
    }


def _rmsnorm(dout, x, weight, epsilon=1e-5):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
    xhat, dxhat = x * r, dout * weight
    return {
        "x": {
            "r · dxhat": r * dxhat,
            "−r · xhat · mean(dxhat ∘ xhat)": -r * xhat * (dxhat * xhat).mean(axis=-1, keepdims=True),
        }
    }


def _gelu(dout, x):
    t = np.tanh(SCALE * (x + CUBIC * x**3))
    inner = 0.5 * x * (1 - t * t) * SCALE
    return {
        "x": {
            "½ · dout": 0.5 * dout,
            "½ · t · dout": 0.5 * t * dout,
            "½ x (1 − t²) · √(2/π) · dout": inner * dout,
            "½ x (1 − t²) · √(2/π) · 3 · 0.044715 x² · dout": inner * 3 * CUBIC * x * x * dout,
        }
    }


def _cross_entropy(dloss, logits, targets, ignore_index=-1):
    counted = targets != ignore_index
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    scale = (counted * dloss / max(counted.sum(), 1))[..., None]
    one_hot = np.eye(logits.shape[-1])[np.where(counted, targets, 0)]
    return {"logits": {"p / N": p * scale, "−(one-hot of the target) / N": -one_hot * scale}}


def _multi_head(dout, x, attn_weight, attn_bias, proj_weight, proj_bias, n_head, first_key=None, dropout=None):
    arguments = (x, attn_weight, attn_bias, proj_weight, proj_bias, n_head, first_key, dropout)
    _, cache = layers.multi_head_attention_forward(*arguments)
    dheads = (dout @ proj_weight.T).reshape(cache.attention.q.shape)
    parts = layers.attention_backward(dheads, cache.attention)
    thirds = np.split(attn_weight, 3, axis=1)
    labels = ("dq · Wqᵀ", "dk · Wkᵀ", "dv · Wvᵀ")
    return {"x": {label: d.reshape(x.shape) @ W.T for label, d, W in zip(labels, parts, thirds)}}


def _attention(dout, q, k, v, first_key=None, dropout=None):
    _, cache = layers.attention_forward(q, k, v, first_key, dropout)
    dweights = np.einsum("bihd,bjhd->bhij", dout, v)
    if dropout is not None:
        dweights = layers.dropout_forward(dweights, dropout)[0]
    P, s = cache.weights, 1 / math.sqrt(q.shape[-1])
    diagonal, rows = s * P * dweights, -s * P * (P * dweights).sum(axis=-1, keepdims=True)
    found = {}
    for name, product, other in (("q", "bhij,bjhd->bihd", k), ("k", "bhij,bihd->bjhd", q)):
        found[name] = {
            f"the part of d{name} from P ∘ dP": np.einsum(product, diagonal, other),
            f"the part of d{name} from −P ∘ rowsum(dP ∘ P)": np.einsum(product, rows, other),
        }
    return found


_TERMS: dict[str, Callable[..., dict]] = {
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "gelu": _gelu,
    "cross-entropy": _cross_entropy,
    "multi-head": _multi_head,
    "attention": _attention,
}
