"""Every layer taken apart into elementary steps, each with a name, a value and a gradient of its own.

The layers keep only what their backward needs, and fuse what can be fused: a layernorm never forms the gradient
of its mean. Here the same mathematics is written one operation a line, so that a trace can show
every step. A layer has two functions. ``X_steps(see, …)`` runs forward and passes each value to
``see(name, value)``, which returns the value, or a replacement whose effect is to be seen.
``X_step_gradients(dout, t, …)`` goes back through the values ``t``, naming each gradient like its value. The gradient
of a value that is used twice is the sum of two. The result of a layer itself has the empty name.

The tests compare the outputs and input gradients with those of the layers, and every step's gradient with
difference quotients.
"""

from __future__ import annotations

import math

import numpy as np

from ..config import GATED_ACTIVATIONS
from ..layers.activation import ACTIVATIONS
from ..layers.attention import softmax, softmax_backward, split_heads, visible_keys
from ..layers.dropout import dropout_forward
from ..layers.gelu import CUBIC, SCALE, gelu_backward, gelu_forward


def embedding_steps(see, tokens, positions, wte, wpe):
    tokens = see("tokens", wte[tokens])  # (B, T, C)
    positions = see("positions", wpe[positions])  # (T, C) or (B, T, C)
    return see("", tokens + positions)


def embedding_step_gradients(dout, t, tokens, positions, wte, wpe):
    shared = t["positions"].ndim == 2  # one row for all sequences: their gradients add up
    return {"": dout, "tokens": dout, "positions": dout.sum(axis=0) if shared else dout}


def dropout_steps(see, x, dropout):
    return see("", dropout_forward(x, dropout)[0])


def dropout_step_gradients(dout, t, x, dropout):
    return {"": dout}


def layernorm_steps(see, x, weight, bias, epsilon=1e-5):
    mean = see("mean", x.mean(axis=-1, keepdims=True))  # (..., 1)
    centred = see("centred", x - mean)  # (..., C)
    variance = see("variance", np.mean(centred * centred, axis=-1, keepdims=True))
    rstd = see("rstd", 1 / np.sqrt(variance + x.dtype.type(epsilon)))
    xhat = see("xhat", centred * rstd)
    scaled = see("scaled", xhat * weight)
    return see("", scaled + bias)


def layernorm_step_gradients(dout, t, x, weight, bias, epsilon=1e-5):
    C = x.shape[-1]
    d = {"": dout, "scaled": dout}
    d["xhat"] = d["scaled"] * weight
    d["rstd"] = (d["xhat"] * t["centred"]).sum(axis=-1, keepdims=True)
    d["variance"] = d["rstd"] * (-0.5) * t["rstd"] ** 3  # r = (v + ε)^(−1/2)
    # centred is used twice: for xhat, and squared for the variance
    d["centred"] = d["xhat"] * t["rstd"] + d["variance"] * (2 / C) * t["centred"]
    d["mean"] = -d["centred"].sum(axis=-1, keepdims=True)
    return d


def _affine(x, weight, bias):
    return x @ weight if bias is None else x @ weight + bias


def attention_steps(
    see, x, attn_weight, attn_bias, proj_weight, proj_bias, n_head, first_key=None, dropout=None, *, scale=None
):
    B, T, C = x.shape
    qkv = see("c_attn", _affine(x, attn_weight, attn_bias))  # (B, T, 3C)
    q, k, v = (see(name, part) for name, part in zip("qkv", split_heads(qkv, n_head)))  # (B, T, n_head, head_size)
    products = see("products", _heads_first(q) @ _heads_first(k).swapaxes(-1, -2))  # (B, n_head, T, T)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = see("scores", products * x.dtype.type(scale))
    weights = see("weights", softmax(np.where(visible_keys(T, T, first_key), scores, -np.inf)))
    dropped = weights
    if dropout is not None:
        dropped = see("weights_dropped", dropout_forward(weights, dropout)[0])
    heads = see("heads", np.ascontiguousarray(_heads_first(dropped @ _heads_first(v))))
    return see("", _affine(heads.reshape(B, T, C), proj_weight, proj_bias))


def attention_step_gradients(
    dout, t, x, attn_weight, attn_bias, proj_weight, proj_bias, n_head, first_key=None, dropout=None, *, scale=None
):
    B, T, C = x.shape
    d = {"": dout, "heads": (dout @ proj_weight.T).reshape(t["heads"].shape)}
    dropped = t["weights"] if dropout is None else t["weights_dropped"]
    dheads = _heads_first(d["heads"])
    d["v"] = _heads_first(dropped.swapaxes(-1, -2) @ dheads)
    d["weights"] = dheads @ _heads_first(t["v"]).swapaxes(-1, -2)
    if dropout is not None:
        d["weights_dropped"] = d["weights"]
        d["weights"] = dropout_forward(d["weights"], dropout)[0]
    d["scores"] = softmax_backward(d["weights"], t["weights"])
    d["products"] = d["scores"] * x.dtype.type(1 / math.sqrt(t["q"].shape[-1]) if scale is None else scale)
    d["q"] = _heads_first(d["products"] @ _heads_first(t["k"]))
    d["k"] = _heads_first(d["products"].swapaxes(-1, -2) @ _heads_first(t["q"]))
    d["c_attn"] = np.stack([d["q"], d["k"], d["v"]], axis=2).reshape(B, T, 3 * C)
    return d


def mlp_steps(see, x, fc_weight, fc_bias, proj_weight, proj_bias, activation="gelu"):
    hidden = see("c_fc", _affine(x, fc_weight, fc_bias))  # (..., W), or (..., 2W): gate, then up
    if activation == "gelu":
        activated = gelu_steps(see, hidden)
    elif activation in GATED_ACTIVATIONS:
        gate, up = (see(name, half) for name, half in zip(("gate", "up"), np.split(hidden, 2, axis=-1)))
        opened = see("gate.activated", _value(GATED_ACTIVATIONS[activation], gate))
        activated = see("activation", opened * up)
    else:
        activated = see("activation", _value(activation, hidden))
    return see("", _affine(activated, proj_weight, proj_bias))


def _value(activation, x):
    return gelu_forward(x)[0] if activation == "gelu" else ACTIVATIONS[activation].value(x)


def _times_slope(dout, activation, x):
    if activation == "gelu":
        return gelu_backward(dout, gelu_forward(x)[1])
    return dout * ACTIVATIONS[activation].slope(x)


def gelu_steps(see, hidden):
    u = see("gelu.u", SCALE * (hidden + CUBIC * hidden**3))
    tanh = see("gelu.tanh", np.tanh(u))
    gate = see("gelu.gate", 0.5 * (1 + tanh))
    return see("gelu", hidden * gate)


def mlp_step_gradients(dout, t, x, fc_weight, fc_bias, proj_weight, proj_bias, activation="gelu"):
    if activation != "gelu":
        return other_mlp_step_gradients(dout, t, proj_weight, activation)
    d = {"": dout, "gelu": dout @ proj_weight.T}
    d["gelu.gate"] = d["gelu"] * t["c_fc"]
    d["gelu.tanh"] = d["gelu.gate"] * 0.5
    d["gelu.u"] = d["gelu.tanh"] * (1 - t["gelu.tanh"] ** 2)
    # hidden is used twice: as a factor, and inside u
    d["c_fc"] = d["gelu"] * t["gelu.gate"] + d["gelu.u"] * SCALE * (1 + 3 * CUBIC * t["c_fc"] ** 2)
    return d


def other_mlp_step_gradients(dout, t, proj_weight, activation):
    d = {"": dout, "activation": dout @ proj_weight.T}
    if activation not in GATED_ACTIVATIONS:
        d["c_fc"] = _times_slope(d["activation"], activation, t["c_fc"])
        return d
    d["gate.activated"] = d["activation"] * t["up"]
    d["up"] = d["activation"] * t["gate.activated"]
    d["gate"] = _times_slope(d["gate.activated"], GATED_ACTIVATIONS[activation], t["gate"])
    d["c_fc"] = np.concatenate([d["gate"], d["up"]], axis=-1)
    return d


def residual_steps(see, x, branch, dropout=None):
    if dropout is not None:
        branch = see("dropped", dropout_forward(branch, dropout)[0])
    return see("", x + branch)


def residual_step_gradients(dout, t, x, branch, dropout=None):
    return {"": dout} if dropout is None else {"": dout, "dropped": dout}


def lm_head_steps(see, x, wte):
    return see("logits", x @ wte.T)


def lm_head_step_gradients(dlogits, t, x, wte):
    return {"logits": dlogits}


def loss_steps(see, x, wte, targets, ignore_index=-1):
    logits = see("logits", x @ wte.T)  # (B, T, V)
    maximum = logits.max(axis=-1, keepdims=True)
    log_normaliser = see("log_normaliser", maximum + np.log(np.exp(logits - maximum).sum(axis=-1, keepdims=True)))
    log_probabilities = see("log_probabilities", logits - log_normaliser)
    counted = targets != ignore_index
    at_target = np.take_along_axis(log_probabilities, np.where(counted, targets, 0)[..., None], axis=-1)[..., 0]
    losses = see("losses", np.where(counted, -at_target, 0))  # (B, T)
    return see("loss", np.asarray(losses.sum(dtype=np.float64) / max(counted.sum(), 1)))


def loss_step_gradients(dloss, t, x, wte, targets, ignore_index=-1):
    counted = targets != ignore_index
    dtype = t["logits"].dtype
    d = {"loss": np.asarray(dloss)}
    d["losses"] = np.full(targets.shape, dloss / max(counted.sum(), 1), dtype)
    d["log_probabilities"] = np.zeros(t["logits"].shape, dtype)
    index = np.where(counted, targets, 0)[..., None]
    np.put_along_axis(d["log_probabilities"], index, -(d["losses"] * counted)[..., None], axis=-1)
    d["log_normaliser"] = -d["log_probabilities"].sum(axis=-1, keepdims=True)
    probabilities = np.exp(t["log_probabilities"])  # ∂ log Σ exp(x) / ∂x_i
    d["logits"] = d["log_probabilities"] + d["log_normaliser"] * probabilities
    return d


def _heads_first(x):
    return x.swapaxes(1, 2)


# op of the model → its steps and their gradients
STEPS = {
    "embedding": (embedding_steps, embedding_step_gradients),
    "dropout": (dropout_steps, dropout_step_gradients),
    "layernorm": (layernorm_steps, layernorm_step_gradients),
    "multi_head_attention": (attention_steps, attention_step_gradients),
    "mlp": (mlp_steps, mlp_step_gradients),
    "residual": (residual_steps, residual_step_gradients),
    "lm_head": (lm_head_steps, lm_head_step_gradients),
    "lm_head_cross_entropy": (loss_steps, loss_step_gradients),
}
