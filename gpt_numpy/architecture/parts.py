"""The parts of a model, chosen once from its configuration: norm, attention, feed-forward layer and head.

A part binds a pair of functions of ``ops`` to the names of their parameters and to the options that the configuration
fixes. The model calls every part in the same two ways, whatever the part is:

    out, cache = part.forward(x, params, name, …)      params[name + "weight"] and so on are read
    dx = part.backward(dout, cache, grads, name, …)    the gradients are added to grads[name + "weight"] and so on

So a block reads the same for every architecture, and no line of a block asks which one it is:

    normed = norm("ln_1.")                 layernorm
    x      = x + attention("attn.")        heads
    normed = norm("ln_2.")
    x      = x + mlp("mlp.")               any activation, gated or not
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..config import GPTConfig
from ..parameters import head_name

NORM = ("weight", "bias")
ATTENTION = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")
MLP = ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")


class Parts(NamedTuple):
    """The parts of the model with this configuration, made of the functions of ``ops``."""

    norm: Norm
    attention: Attention
    mlp: MLPPart
    head: Head

    @classmethod
    def of(cls, config: GPTConfig, ops: Any) -> Parts:
        """Choose the parts."""
        return cls(Norm(config, ops), Attention(config, ops), MLPPart(config, ops), Head(config, ops))


class Norm:
    """A layernorm with weight and bias."""

    def __init__(self, config, ops):
        self._ops, self._epsilon = ops, config.norm_epsilon

    def forward(self, x, p, name, alloc):
        return self._ops.layernorm_forward(x, *_all(p, name, NORM), self._epsilon, alloc=alloc)

    def backward(self, dout, cache, g, name, alloc):
        dx, *_ = self._ops.layernorm_backward(dout, cache, into=_all(g, name, NORM), alloc=alloc)
        return dx


class Attention:
    """Multi-head attention with its projections."""

    def __init__(self, config, ops):
        self._ops, self._n_head, self._scale = ops, config.n_head, config.attention_scale

    def forward(self, x, p, name, layer, first_key, dropout, alloc, alloc_out):
        weights = _all(p, name, ATTENTION)
        scale = self._scale(layer)
        return self._ops.multi_head_attention_forward(
            x, *weights, self._n_head, first_key, dropout, alloc, alloc_out, scale=scale
        )

    def backward(self, dout, cache, g, name, alloc):
        dx, *_ = self._ops.multi_head_attention_backward(dout, cache, into=_all(g, name, ATTENTION), alloc=alloc)
        return dx


class MLPPart:
    """The feed-forward layer with the activation of the configuration."""

    def __init__(self, config, ops):
        self._ops, self._activation = ops, config.mlp

    def forward(self, x, p, name, alloc, alloc_out):
        return self._ops.mlp_forward(x, *_all(p, name, MLP), alloc, alloc_out, self._activation)

    def backward(self, dout, cache, g, name, alloc):
        dx, *_ = self._ops.mlp_backward(dout, cache, into=_all(g, name, MLP), alloc=alloc)
        return dx


class Head:
    """The output head, whose weight is the token embedding or a tensor of its own; alone and with the loss."""

    def __init__(self, config, ops):
        self._ops, self._name = ops, head_name(config)

    def forward(self, x, p):
        """(logits, (the backward that belongs to them, its cache))."""
        logits, cache = self._ops.lm_head_forward(x, p[self._name])
        return logits, (self._ops.lm_head_backward, cache)

    def loss(self, x, p, targets, ignore_index, alloc):
        """(loss, (the backward that belongs to it, its cache))."""
        loss, cache = self._ops.lm_head_cross_entropy_forward(x, p[self._name], targets, ignore_index, alloc)
        return loss, (self._ops.lm_head_cross_entropy_backward, cache)

    def backward(self, dout, cache, g, alloc):
        backward, cache = cache
        dx, _ = backward(dout, cache, into=(g[self._name],), alloc=alloc)
        return dx

    def loss_and_gradients(self, x, p, g, targets, dloss, ignore_index, alloc):
        """(loss, dx) in one call."""
        weight, into = p[self._name], (g[self._name],)
        loss, dx, _ = self._ops.lm_head_cross_entropy_gradients(
            x, weight, targets, dloss, ignore_index, into=into, alloc=alloc
        )
        return loss, dx


def _all(tensors, prefix, names):
    """The tensors of these names; None for one that the model does not have."""
    return tuple(tensors.get(prefix + name) for name in names)
