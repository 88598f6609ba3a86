"""The cases of the layers that GPT-2 does not have; ``cases`` lists them after GPT-2's own."""

from __future__ import annotations

import numpy as np

from ..architecture.rotation import frequencies, rotation_of
from ..config import PLAIN_ACTIVATIONS
from ..randomness import Dropout
from .case import HEAD_SIZE, LONG_C, LONG_ROWS, N_HEAD, B, C, Case, T, V, visible, without


def _activation(ops, draw):
    x = 2 * draw.normal(B, T, C)
    x[0, 0, :5] = 0.25, -0.75, 3.5, -4.5, 1e-3  # away from the corners, where no derivative exists
    pair = ops.activation_forward, ops.activation_backward
    cases = [Case("activation", name, dict(x=x, name=name), *pair) for name in PLAIN_ACTIVATIONS]
    wide = dict(x=2 * draw.normal(1, LONG_ROWS, LONG_C), name="silu")
    return [*cases, Case("activation", "long", wide, *pair)]


def _swiglu(ops, draw):
    pair = ops.swiglu_forward, ops.swiglu_backward
    inputs = dict(hidden=2 * draw.normal(B, T, 2 * C))
    return [
        Case("swiglu", "", inputs, *pair),
        Case("swiglu", "gate of gelu_erf", dict(**inputs, activation="gelu_erf"), *pair),
        Case("swiglu", "long", dict(hidden=draw.normal(1, LONG_ROWS, 2 * LONG_C)), *pair),
    ]


def _rmsnorm(ops, draw):
    inputs = dict(x=draw.normal(B, T, C) + 0.5, weight=draw.around_one(C))
    flat = {**inputs, "x": 0.01 * inputs["x"], "epsilon": 1e-4}  # ε is as large as the mean square
    wide = dict(x=draw.normal(1, LONG_ROWS, LONG_C), weight=draw.around_one(LONG_C))
    pair = ops.rmsnorm_forward, ops.rmsnorm_backward
    return [
        Case("rmsnorm", "", inputs, *pair, 1),
        Case("rmsnorm", "large ε", flat, *pair, 1),
        Case("rmsnorm", "long", wide, *pair, 1),
    ]


def _rotation(positions, head_size, pairing="halves"):
    return rotation_of(positions, frequencies(head_size, 50.0), np.float64, pairing)


def _rotary(ops, draw):
    x = draw.normal(B, T, N_HEAD, HEAD_SIZE)
    pair = ops.rotary_forward, ops.rotary_backward
    own = draw.rng.integers(0, 50, (B, T))
    wide = dict(x=draw.normal(1, LONG_ROWS, 2, 38), rotation=_rotation(np.arange(LONG_ROWS), 38))
    return [
        Case("rotary", "", dict(x=x, rotation=_rotation(np.arange(3, 3 + T), HEAD_SIZE)), *pair, value=turned_by_hand),
        Case("rotary", "own positions", dict(x=x, rotation=_rotation(own, HEAD_SIZE)), *pair, value=turned_by_hand),
        Case(
            "rotary",
            "neighbours",
            dict(x=x, rotation=_rotation(np.arange(T), HEAD_SIZE, "neighbours")),
            *pair,
            value=turned_by_hand,
        ),
        Case("rotary", "long", wide, *pair),
    ]


def turned_by_hand(x, rotation):
    """The rotary embedding, number by number, as a product of complex numbers."""
    out, half = x.copy(), x.shape[-1] // 2
    angles = np.broadcast_to(rotation.cos + 1j * rotation.sin, (len(x), *rotation.cos.shape[-2:]))
    for b, t, h, i in np.ndindex(*x.shape[:3], half):
        first, second = (i, i + half) if rotation.pairing == "halves" else (2 * i, 2 * i + 1)
        turned = complex(x[b, t, h, first], x[b, t, h, second]) * angles[b, t, i]
        out[b, t, h, first], out[b, t, h, second] = turned.real, turned.imag
    return out


def _grouped(ops, draw):
    """Attention whose query heads share heads of keys: six query heads, two heads of keys."""
    pair, heads = (ops.attention_forward, ops.attention_backward), 6
    q, k, v = (draw.normal(B, T, n, HEAD_SIZE) for n in (heads, 2, 2))
    plain = dict(q=q, k=k, v=v)
    everything = dict(
        plain,
        k=draw.normal(B, T + 3, 2, HEAD_SIZE),
        v=draw.normal(B, T + 3, 2, HEAD_SIZE),
        first_key=np.array([[0, 0, 2, 2, 2], [0, 1, 1, 3, 3]]),
        dropout=Dropout(0.3, 0x5EED_0123_4567_89AB),
    )
    few = dict(q=draw.normal(1, 2, 4, 19), k=draw.normal(1, 37, 2, 19), v=draw.normal(1, 37, 2, 19))
    many = {name: draw.normal(1, LONG_ROWS, n, 19) for name, n in (("q", 4), ("k", 2), ("v", 2))}
    many["first_key"] = np.maximum(0, np.arange(LONG_ROWS)[None] - 101)  # a sliding window
    return [
        Case("grouped attention", "", plain, *pair, visible=visible(T, T)),
        Case("grouped attention", "Tk > Tq, first_key, dropout", everything, *pair),
        Case("grouped attention", "few queries", few, *pair),
        Case("grouped attention", "long, window", many, *pair),
    ]


def _llama_attention(ops, draw):
    """Multi-head attention as today's models have it: 6 query heads, 2 heads of keys, norms, angles, a window."""
    heads, kv_heads = 6, 2
    columns = (heads + 2 * kv_heads) * HEAD_SIZE
    inputs = dict(
        x=draw.normal(B, T, C),
        attn_weight=draw.weight(C, columns),
        attn_bias=draw.normal(columns),
        proj_weight=draw.weight(heads * HEAD_SIZE, C),
        proj_bias=draw.normal(C),
        n_head=heads,
        n_kv_head=kv_heads,
        rotation=_rotation(np.arange(T), HEAD_SIZE),
    )
    normed = dict(
        inputs, q_norm=draw.around_one(HEAD_SIZE), k_norm=draw.around_one(HEAD_SIZE), epsilon=1e-3, rotation=None
    )
    window = np.maximum(np.arange(T) - 2, 0)[None].repeat(B, axis=0)
    everything = dict(without(normed, "attn_bias", "proj_bias"), rotation=inputs["rotation"], first_key=window)
    pair = ops.multi_head_attention_forward, ops.multi_head_attention_backward
    return [
        Case("llama attention", "", inputs, *pair, 4, visible=visible(T, T)),
        Case("llama attention", "norms", normed, *pair, 6, visible=visible(T, T)),
        Case("llama attention", "norms, window, no bias", everything, *pair, 6, visible=visible(T, T, window)),
    ]


def _embedding(ops, draw):
    inputs = dict(tokens=draw.rng.integers(0, V, (B, T)), positions=np.arange(T), wte=draw.normal(V, C), wpe=None)
    return [Case("token embedding", "", inputs, ops.embedding_forward, ops.embedding_backward, 2)]


def _layernorm(ops, draw):
    inputs = dict(x=draw.normal(B, T, C) + 0.5, weight=draw.around_one(C), bias=None)
    return [Case("layernorm without bias", "", inputs, ops.layernorm_forward, ops.layernorm_backward, 2)]


MAKERS = {
    "activation": _activation,
    "swiglu": _swiglu,
    "rmsnorm": _rmsnorm,
    "rotary": _rotary,
    "grouped attention": _grouped,
    "llama attention": _llama_attention,
    "token embedding": _embedding,
    "layernorm without bias": _layernorm,
}
