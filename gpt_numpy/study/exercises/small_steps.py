"""The layers that are parts of larger ones, taken apart into steps as ``study.steps`` takes the larger ones apart."""

from __future__ import annotations

import math

import numpy as np

from ...layers.activation import activation_forward
from ...layers.attention import softmax, softmax_backward, visible_keys
from ...layers.dropout import dropout_forward
from ...layers.gelu import CUBIC, SCALE
from ...layers.rotary import rotary_forward


def linear_steps(see, x, weight, bias):
    product = see("product", x @ weight)  # (..., N)
    return see("", product + bias)


def linear_step_gradients(dout, t, x, weight, bias):
    return {"": dout, "product": dout}


def gelu_steps(see, x):
    u = see("u", SCALE * (x + CUBIC * x**3))
    tanh = see("tanh", np.tanh(u))
    gate = see("gate", 0.5 * (1 + tanh))
    return see("", x * gate)


def gelu_step_gradients(dout, t, x):
    d = {"": dout, "gate": dout * x}
    d["tanh"] = d["gate"] * 0.5
    d["u"] = d["tanh"] * (1 - t["tanh"] ** 2)
    return d


def cross_entropy_steps(see, logits, targets, ignore_index=-1):
    maximum = logits.max(axis=-1, keepdims=True)
    log_normaliser = see("log_normaliser", maximum + np.log(np.exp(logits - maximum).sum(axis=-1, keepdims=True)))
    log_probabilities = see("log_probabilities", logits - log_normaliser)
    counted = targets != ignore_index
    at_target = np.take_along_axis(log_probabilities, np.where(counted, targets, 0)[..., None], axis=-1)[..., 0]
    losses = see("losses", np.where(counted, -at_target, 0))  # (B, T)
    return see("loss", np.asarray(losses.sum() / max(counted.sum(), 1)))


def cross_entropy_step_gradients(dloss, t, logits, targets, ignore_index=-1):
    counted = targets != ignore_index
    d = {"loss": np.asarray(dloss), "losses": np.full(targets.shape, dloss / max(counted.sum(), 1))}
    d["log_probabilities"] = np.zeros(logits.shape)
    index = np.where(counted, targets, 0)[..., None]
    np.put_along_axis(d["log_probabilities"], index, -(d["losses"] * counted)[..., None], axis=-1)
    d["log_normaliser"] = -d["log_probabilities"].sum(axis=-1, keepdims=True)
    return d


def attention_core_steps(see, q, k, v, first_key=None, dropout=None):
    products = see("products", _heads_first(q) @ _heads_first(k).swapaxes(-1, -2))  # (B, n_head, Tq, Tk)
    scores = see("scores", products / math.sqrt(q.shape[-1]))
    visible = visible_keys(q.shape[1], k.shape[1], first_key)
    weights = see("weights", softmax(np.where(visible, scores, -np.inf)))
    dropped = see("weights_dropped", weights if dropout is None else dropout_forward(weights, dropout)[0])
    return see("", _heads_first(dropped @ _heads_first(v)))


def attention_core_step_gradients(dout, t, q, k, v, first_key=None, dropout=None):
    d = {"": dout, "weights_dropped": _heads_first(dout) @ _heads_first(v).swapaxes(-1, -2)}
    d["weights"] = d["weights_dropped"] if dropout is None else dropout_forward(d["weights_dropped"], dropout)[0]
    d["scores"] = softmax_backward(d["weights"], t["weights"])
    d["products"] = d["scores"] / math.sqrt(q.shape[-1])
    return d


def swiglu_steps(see, hidden, activation="silu"):
    gate, up = np.split(hidden, 2, axis=-1)  # each (..., W)
    activated = see("activated", activation_forward(gate, activation)[0])
    return see("", activated * up)


def swiglu_step_gradients(dout, t, hidden, activation="silu"):
    return {"": dout, "activated": dout * np.split(hidden, 2, axis=-1)[1]}


def rotary_steps(see, x, rotation):
    return see("", rotary_forward(x, rotation)[0])


def rotary_step_gradients(dout, t, x, rotation):
    return {"": dout}


def _heads_first(x):
    return x.swapaxes(1, 2)
