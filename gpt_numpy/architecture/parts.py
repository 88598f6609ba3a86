"""The parts of a model, chosen once from its configuration: embedding, norm, attention, feed-forward layer and head.

A part binds a pair of functions of ``ops`` to the names of their parameters and to the options that the configuration
fixes. The model calls every part in the same two ways, whatever the part is:

    out, cache = part.forward(x, params, name, …)      params[name + "weight"] and so on are read
    dx = part.backward(dout, cache, grads, name, …)    the gradients are added to grads[name + "weight"] and so on,
                                                       or written there first: see ``parameters.Gradients``

A norm's backward also takes ``dstream``, the gradient that passed the norm's branch by, and adds it to dx.

So a block reads the same for every architecture, and no line of a block asks which one it is:

    normed = norm("ln_1.")                 layernorm or rmsnorm
    x      = x + attention("attn.")        with positions that are learned or rotary, heads that share keys, a window
    normed = norm("ln_2.")
    x      = x + mlp("mlp.")               any activation, gated or not
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..config import GPTConfig
from ..parameters import Gradients, Parameters, head_name
from .rotation import Rotation, frequencies, rotation_of

EMBEDDING = ("wte.weight", "wpe.weight")
NORM = ("weight", "bias")
ATTENTION = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")
QK_NORM = ("q_norm.weight", "k_norm.weight")
MLP = ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")


class Parts(NamedTuple):
    """The parts of the model with this configuration, made of the functions of ``ops``."""

    embedding: Embedding
    norm: Layernorm | RMSNorm
    attention: Attention
    mlp: MLPPart
    head: Head

    @classmethod
    def of(cls, config: GPTConfig, ops: Any) -> Parts:
        """Choose the parts."""
        norm = RMSNorm(config, ops) if config.norm == "rmsnorm" else Layernorm(config, ops)
        return cls(Embedding(config, ops), norm, Attention(config, ops), MLPPart(config, ops), Head(config, ops))


class Embedding:
    """Token embeddings, with those of the positions where positions are learned."""

    def __init__(self, config, ops):
        self._ops = ops

    def forward(self, tokens, positions, p, alloc):
        return self._ops.embedding_forward(tokens, positions, *_all(p, "", EMBEDDING), alloc)

    def backward(self, dout, cache, g):
        self._ops.embedding_backward(dout, cache, **_into(g, "", EMBEDDING))


class Layernorm:
    """A layernorm with a weight and a bias or none."""

    def __init__(self, config, ops):
        self._ops, self._epsilon = ops, config.norm_epsilon

    def forward(self, x, p, name, alloc):
        return self._ops.layernorm_forward(x, *_all(p, name, NORM), self._epsilon, alloc=alloc)

    def backward(self, dout, cache, g, name, alloc, **dstream):
        dx, *_ = self._ops.layernorm_backward(dout, cache, **_into(g, name, NORM), alloc=alloc, **dstream)
        return dx


class RMSNorm:
    """An rmsnorm with its weight."""

    def __init__(self, config, ops):
        self._ops, self._epsilon = ops, config.norm_epsilon

    def forward(self, x, p, name, alloc):
        return self._ops.rmsnorm_forward(x, p[name + "weight"], self._epsilon, alloc=alloc)

    def backward(self, dout, cache, g, name, alloc, **dstream):
        dx, _ = self._ops.rmsnorm_backward(dout, cache, **_into(g, name, NORM[:1]), alloc=alloc, **dstream)
        return dx


class Seen(NamedTuple):
    """What attention needs to know of the positions of a pass: who sees whom, and by which angles to turn."""

    first_key: Any  # (B, T) or None
    in_window: Any  # the same for blocks with a sliding window
    rotation: Rotation | None


class Attention:
    """Multi-head attention with its projections, and with norms, rotation, groups and a window as configured."""

    def __init__(self, config, ops):
        self._ops, self._config = ops, config
        self._names = (*ATTENTION, *QK_NORM) if config.qk_norm else ATTENTION
        self._scales = [config.attention_scale(layer) for layer in range(config.n_layer)]
        self._windows = [config.window(layer) for layer in range(config.n_layer)]
        self._omega, self._newest = None, None  # the newest rotation, with what it was made of
        if config.positions == "rotary":
            self._omega = frequencies(config.head_size, config.rope_theta, config.rope_scaling)

    def seen(self, positions, first_key, shape, dtype) -> Seen:
        """The ``Seen`` of a pass over tokens of ``shape`` (B, T)."""
        rotation, in_window = None, first_key
        if self._omega is not None:
            rotation = self._rotation(positions, dtype)
        if self._config.sliding_window is not None and self._config.sliding_window < shape[1]:
            start = np.maximum(np.arange(shape[1]) - self._config.sliding_window + 1, 0)
            in_window = np.broadcast_to(start, shape) if first_key is None else np.maximum(first_key, start)
        return Seen(first_key, in_window, rotation)

    def _rotation(self, positions, dtype):
        """The ``Rotation`` of these positions, the same object as before where the positions are those of before."""
        newest = self._newest
        if newest is None or newest[1] != dtype or not np.array_equal(newest[0], positions):
            rotation = rotation_of(positions, self._omega, dtype, self._config.rope_pairing)
            newest = self._newest = np.array(positions), dtype, rotation
        return newest[2]

    def options(self, p, name, layer, rotation):
        """The keyword options of the op."""
        config = self._config
        options = dict(scale=self._scales[layer], n_kv_head=config.n_kv_head, rotation=rotation)
        if config.qk_norm:
            norms = (p[name + norm] for norm in QK_NORM)
            options.update(zip(("q_norm", "k_norm"), norms), epsilon=config.norm_epsilon)
        return options

    def forward(self, x, p, name, layer, seen, dropout, alloc, alloc_out):
        first_key = seen.first_key if self._windows[layer] is None else seen.in_window
        weights, options = _all(p, name, ATTENTION), self.options(p, name, layer, seen.rotation)
        return self._ops.multi_head_attention_forward(
            x, *weights, self._config.n_head, first_key, dropout, alloc, alloc_out, **options
        )

    def backward(self, dout, cache, g, name, alloc):
        dx, *_ = self._ops.multi_head_attention_backward(dout, cache, **_into(g, name, self._names), alloc=alloc)
        return dx


class MLPPart:
    """The feed-forward layer with the activation of the configuration."""

    def __init__(self, config, ops):
        self._ops, self._activation = ops, config.mlp

    def forward(self, x, p, name, alloc, alloc_out):
        return self._ops.mlp_forward(x, *_all(p, name, MLP), alloc, alloc_out, self._activation)

    def backward(self, dout, cache, g, name, alloc):
        dx, *_ = self._ops.mlp_backward(dout, cache, **_into(g, name, MLP), alloc=alloc)
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
        dx, _ = backward(dout, cache, **_into(g, "", (self._name,)), alloc=alloc)
        return dx

    def loss_and_gradients(self, x, p, g, targets, dloss, ignore_index, alloc):
        """(loss, dx) in one call."""
        loss, dx, _ = self._ops.lm_head_cross_entropy_gradients(
            x, p[self._name], targets, dloss, ignore_index, **_into(g, "", (self._name,)), alloc=alloc
        )
        return loss, dx


def _all(tensors, prefix, names):
    """The tensors of these names; None for one that the model does not have."""
    if isinstance(tensors, Parameters):
        return tensors.together(prefix, names)
    return tuple(tensors.get(prefix + name) for name in names)


def _into(grads, prefix, names):
    """The options of a backward that say where its parameter gradients go, and whether they replace what is there.

    ``add`` is given only where it is False: a reader's own backward (``gpt-numpy study exercise``) need not have it.
    """
    into = _all(grads, prefix, names)
    if isinstance(grads, Gradients) and grads.take_first(prefix, names):
        return {"into": into, "add": False}
    return {"into": into}
