"""The single operations of a training step, as problems."""

from __future__ import annotations

import numpy as np

from . import Problem


def _normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


# ---- attention, layernorm, GELU, cross-entropy, forward and backward


def _make_attention(rng, B, T, n_head, head_size):
    return {name: _normal(rng, B, T, n_head, head_size) for name in ("q", "k", "v", "dout")}


def _attention(ops, arrays, alloc):
    out, cache = ops.attention_forward(arrays["q"], arrays["k"], arrays["v"], alloc=alloc)
    return out, *ops.attention_backward(arrays["dout"], cache, alloc=alloc)


def _make_layernorm(rng, rows, columns):
    x, dout = _normal(rng, 2, rows, columns)
    weight, bias = 1 + 0.1 * _normal(rng, columns), _normal(rng, columns)
    return {"x": x, "weight": weight, "bias": bias, "dout": dout}


def _layernorm(ops, arrays, alloc):
    out, cache = ops.layernorm_forward(arrays["x"], arrays["weight"], arrays["bias"], alloc=alloc)
    return out, *ops.layernorm_backward(arrays["dout"], cache, alloc=alloc)


def _make_gelu(rng, rows, columns):
    return {"x": 2 * _normal(rng, rows, columns), "dout": _normal(rng, rows, columns)}


def _gelu(ops, arrays, alloc):
    out, cache = ops.gelu_forward(arrays["x"], alloc=alloc)
    return out, ops.gelu_backward(arrays["dout"], cache, alloc=alloc)


def _make_gelu_forward(rng, rows, columns):
    return {"x": 2 * _normal(rng, rows, columns)}


def _gelu_forward(ops, arrays, alloc):
    return (ops.gelu_forward(arrays["x"], alloc)[0],)


def _make_cross_entropy(rng, rows, vocab_size):
    return {"logits": _normal(rng, rows, vocab_size), "targets": rng.integers(0, vocab_size, rows)}


def _cross_entropy(ops, arrays, alloc):
    loss, cache = ops.cross_entropy_forward(arrays["logits"], arrays["targets"])
    return np.asarray(loss), ops.cross_entropy_backward(1.0, cache, alloc=alloc)


# ---- the head with the loss, and the optimizer


def _make_head(rng, rows, columns, vocab_size):
    x, wte = _normal(rng, 1, rows, columns), 0.1 * _normal(rng, vocab_size, columns)
    return {"x": x, "wte": wte, "targets": rng.integers(0, vocab_size, (1, rows))}


def _head(ops, arrays, alloc):
    return ops.lm_head_cross_entropy_gradients(arrays["x"], arrays["wte"], arrays["targets"], 1.0)


ADAMW = dict(learning_rate=1e-4, beta1=0.9, beta2=0.95, epsilon=1e-8, step=1)
DECAY = 0.1


def _make_adamw(rng, n):
    params, grads, first, second = _normal(rng, 4, n)
    return {"params": params, "grads": grads, "first": 0.1 * first, "second": 0.01 * second * second}


def _adamw(ops, arrays, alloc):
    """One step in place, as in training: params, first and second are changed and returned."""
    params, grads, first, second = arrays.values()
    ops.adamw_update(params, grads, first, second, np.array([0, params.size]), np.array([DECAY]), **ADAMW)
    return params, first, second


# ---- matrix products


def _make_gemm(rng, M, K, N):
    return {"a": _normal(rng, M, K), "b": _normal(rng, K, N), "bias": np.zeros(N, np.float32)}


def _gemm(ops, arrays, alloc):
    return (ops.linear_forward(arrays["a"], arrays["b"], arrays["bias"], alloc)[0],)


def _matrices_of_a_block(C):
    return dict(attn=(C, 3 * C), proj=(C, C), fc=(C, 4 * C), out=(4 * C, C))


def _make_block(rng, rows, columns):
    arrays = {}
    for name, (K, N) in _matrices_of_a_block(columns).items():
        arrays |= {f"{name} x": _normal(rng, rows, K), f"{name} weight": _normal(rng, K, N)}
        arrays |= {f"{name} dout": _normal(rng, rows, N)}
    return arrays


def products_of_a_block(arrays):
    """Each product of the problem ``block``: (title, a, b, a_transposed, b_transposed).

    These are all products of the linear layers of one block: x·W, dout·Wᵀ and xᵀ·dout, each for four matrices.
    """
    for name in dict.fromkeys(key.split()[0] for key in arrays):
        x, weight, dout = (arrays[f"{name} {part}"] for part in ("x", "weight", "dout"))
        yield f"{name} x·W", x, weight, False, False
        yield f"{name} dout·Wᵀ", dout, weight, False, True
        yield f"{name} xᵀ·dout", x, dout, True, False


def _block(ops, arrays, alloc):
    return tuple((a.T if a_t else a) @ (b.T if b_t else b) for _, a, b, a_t, b_t in products_of_a_block(arrays))


def _block_flops(rows, columns):
    return 6 * rows * sum(K * N for K, N in _matrices_of_a_block(columns).values())


def _block_bytes(rows, columns):
    return sum(4 * 3 * (rows * (K + N) + K * N) for K, N in _matrices_of_a_block(columns).values())


PROBLEMS = {
    "attention": Problem(
        "causal attention, forward and backward",
        _make_attention,
        _attention,
        # 2 products forward and 5 backward (the scores are computed again), each over half of T × T
        lambda B, T, n_head, head_size: 7 * B * n_head * T * (T + 1) * head_size,
        lambda B, T, n_head, head_size: 4 * 12 * B * T * n_head * head_size,
        2e-5,
    ),
    "layernorm": Problem(
        "layernorm, forward and backward",
        _make_layernorm,
        _layernorm,
        lambda rows, columns: 20 * rows * columns,
        lambda rows, columns: 4 * 5 * rows * columns,  # forward x → out, backward x, dout → dx
        2e-5,
    ),
    "gelu": Problem(
        "tanh-GELU, forward and backward",
        _make_gelu,
        _gelu,
        lambda rows, columns: 50 * rows * columns,
        lambda rows, columns: 4 * 5 * rows * columns,  # forward x → out, backward x, dout → dx
        2e-5,
    ),
    "gelu-forward": Problem(
        "tanh-GELU, forward",
        _make_gelu_forward,
        _gelu_forward,
        lambda rows, columns: 20 * rows * columns,  # a polynomial exp and a division, counted generously
        lambda rows, columns: 8 * rows * columns,
        2e-6,
    ),
    "cross-entropy": Problem(
        "softmax and cross-entropy, forward and backward",
        _make_cross_entropy,
        _cross_entropy,
        lambda rows, vocab_size: 20 * rows * vocab_size,
        lambda rows, vocab_size: 4 * 3 * rows * vocab_size,
        2e-5,
    ),
    "head-cross-entropy": Problem(
        "tied head and cross-entropy, loss and both gradients",
        _make_head,
        _head,
        lambda rows, columns, vocab_size: 6 * rows * columns * vocab_size,
        lambda rows, columns, vocab_size: 4 * columns * (2 * rows + 2 * vocab_size),
        2e-5,
    ),
    "adamw": Problem("AdamW", _make_adamw, _adamw, lambda n: 15 * n, lambda n: 4 * 7 * n, 2e-5),
    "gemm": Problem(
        "float32 matrix product",
        _make_gemm,
        _gemm,
        lambda M, K, N: 2 * M * K * N,
        lambda M, K, N: 4 * (M * K + K * N + M * N),
        1e-5,
    ),
    "block": Problem("products of a block's linear layers", _make_block, _block, _block_flops, _block_bytes, 2e-5),
}
