"""The steps of every op of a model, GPT-2's and others; ``steps`` says what steps are, and has GPT-2's own.

An op with GPT-2's arguments is taken apart as GPT-2's; the functions here take apart every other form of it.
"""

from __future__ import annotations

import math

import numpy as np

from ..layers.attention import (
    heads_first,
    merge_heads,
    shared_heads,
    softmax,
    softmax_backward,
    split_heads,
    sum_shared,
    visible_keys,
)
from ..layers.dropout import dropout_forward
from ..layers.rmsnorm import rmsnorm_backward, rmsnorm_forward
from ..layers.rotary import rotary_backward, rotary_forward
from . import steps

_OPTIONS = ("n_kv_head", "rotation", "q_norm", "k_norm")


def _affine(x, weight, bias):
    return x @ weight if bias is None else x @ weight + bias


def any_attention_steps(
    see,
    x,
    attn_weight,
    attn_bias,
    proj_weight,
    proj_bias,
    n_head,
    first_key=None,
    dropout=None,
    *,
    scale=None,
    **options,
):
    """options: n_kv_head, rotation, q_norm, k_norm and epsilon, as ``layers.multi_head_attention_forward`` takes them."""
    T = x.shape[1]
    qkv = see("c_attn", _affine(x, attn_weight, attn_bias))  # (B, T, columns)
    parts = split_heads(qkv, n_head, options.get("n_kv_head"))
    q, k, v = (see(name, part) for name, part in zip("qkv", parts))  # (B, T, heads, head_size)
    q, k = (_prepare(see, name, part, options)[0] for name, part in (("q", q), ("k", k)))
    products = see("products", heads_first(q) @ shared_heads(k, q).swapaxes(-1, -2))  # (B, n_head, T, T)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = see("scores", products * x.dtype.type(scale))
    weights = see("weights", softmax(np.where(visible_keys(T, T, first_key), scores, -np.inf)))
    dropped = weights
    if dropout is not None:
        dropped = see("weights_dropped", dropout_forward(weights, dropout)[0])
    heads = see("heads", np.ascontiguousarray(heads_first(dropped @ shared_heads(v, q))))
    return see("", _affine(merge_heads(heads), proj_weight, proj_bias))


def _prepare(see, name, x, options):
    """Queries or keys as attention takes them: (x, cache of the norm, cache of the rotation)."""
    norm = turn = None
    if options.get(f"{name}_norm") is not None:
        x, norm = rmsnorm_forward(x, options[f"{name}_norm"], options.get("epsilon", 1e-5))
        x = see(f"{name}.normed", x)
    if options.get("rotation") is not None:
        x, turn = rotary_forward(x, options["rotation"])
        x = see(f"{name}.turned", x)
    return x, norm, turn


def any_attention_step_gradients(
    dout,
    t,
    x,
    attn_weight,
    attn_bias,
    proj_weight,
    proj_bias,
    n_head,
    first_key=None,
    dropout=None,
    *,
    scale=None,
    **options,
):
    d = {"": dout, "heads": (dout @ proj_weight.T).reshape(t["heads"].shape)}
    dropped = t["weights"] if dropout is None else t["weights_dropped"]
    q, k, caches = t["q"], t["k"], {}
    for name in "qk":
        caches[name] = _prepare(lambda _, value: value, name, t[name], options)[1:]
    q, k = (next(t[n] for n in (f"{c}.turned", f"{c}.normed", c) if n in t) for c in "qk")
    dheads = heads_first(d["heads"])
    d["v"] = heads_first(sum_shared(dropped.swapaxes(-1, -2) @ dheads, t["v"]))
    d["weights"] = dheads @ shared_heads(t["v"], q).swapaxes(-1, -2)
    if dropout is not None:
        d["weights_dropped"] = d["weights"]
        d["weights"] = dropout_forward(d["weights"], dropout)[0]
    d["scores"] = softmax_backward(d["weights"], t["weights"])
    d["products"] = d["scores"] * x.dtype.type(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    prepared = {
        "q": heads_first(d["products"] @ shared_heads(k, q)),
        "k": heads_first(sum_shared(d["products"].swapaxes(-1, -2) @ heads_first(q), k)),
    }
    for name, gradient in prepared.items():
        norm, turn = caches[name]
        if turn is not None:
            d[f"{name}.turned"] = gradient
            gradient = rotary_backward(gradient, turn)
        if norm is not None:
            d[f"{name}.normed"] = gradient
            gradient, _ = rmsnorm_backward(gradient, norm)
        d[name] = gradient
    B, T = x.shape[:2]
    d["c_attn"] = np.concatenate([d[name].reshape(B, T, -1) for name in "qkv"], axis=2)
    return d


def rmsnorm_steps(see, x, weight, epsilon=1e-5):
    square = see("square", np.mean(x * x, axis=-1, keepdims=True))  # (..., 1)
    rrms = see("rrms", 1 / np.sqrt(square + x.dtype.type(epsilon)))
    xhat = see("xhat", x * rrms)
    return see("", xhat * weight)


def rmsnorm_step_gradients(dout, t, x, weight, epsilon=1e-5):
    d = {"": dout, "xhat": dout * weight}
    d["rrms"] = (d["xhat"] * x).sum(axis=-1, keepdims=True)
    d["square"] = d["rrms"] * (-0.5) * t["rrms"] ** 3  # r = (s + ε)^(−1/2)
    return d


def _embedding_steps(see, tokens, positions, wte, wpe):
    return see("", see("tokens", wte[tokens]))


def _embedding_step_gradients(dout, t, tokens, positions, wte, wpe):
    return {"": dout, "tokens": dout}


def _layernorm_steps(see, x, weight, bias, epsilon=1e-5):
    return steps.layernorm_steps(see, x, weight, x.dtype.type(0), epsilon)


def _layernorm_step_gradients(dout, t, x, weight, bias, epsilon=1e-5):
    return steps.layernorm_step_gradients(dout, t, x, weight, x.dtype.type(0), epsilon)


def _chosen(is_gpt2, own, general):
    """A pair of functions: ``own`` where the op's arguments (by name) are GPT-2's, else ``general``."""

    def choose(arguments):
        if not is_gpt2(arguments):
            return general, arguments
        return own, {name: value for name, value in arguments.items() if name not in _OPTIONS}

    def forward(see, **arguments):
        (steps_of, _), arguments = choose(arguments)
        return steps_of(see, **arguments)

    def gradients(dout, t, **arguments):
        (_, gradients_of), arguments = choose(arguments)
        return gradients_of(dout, t, **arguments)

    return forward, gradients


def _is_plain_attention(arguments):
    return all(arguments.get(name) is None for name in _OPTIONS)


# op of the model → its steps and their gradients
STEPS = {
    **steps.STEPS,
    "embedding": _chosen(
        lambda a: a["wpe"] is not None, steps.STEPS["embedding"], (_embedding_steps, _embedding_step_gradients)
    ),
    "layernorm": _chosen(
        lambda a: a["bias"] is not None, steps.STEPS["layernorm"], (_layernorm_steps, _layernorm_step_gradients)
    ),
    "rmsnorm": (rmsnorm_steps, rmsnorm_step_gradients),
    "multi_head_attention": _chosen(
        _is_plain_attention, steps.STEPS["multi_head_attention"], (any_attention_steps, any_attention_step_gradients)
    ),
}
