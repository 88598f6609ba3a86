"""The gradient check of the whole model: every parameter, and the embedding's output.

Layers that pass alone can still be combined wrongly: a residual that is not added back, a tied weight that
gets one of its two gradients, two layernorms exchanged. This check differentiates the loss of a small model of
two blocks with respect to all parameters.
"""

from __future__ import annotations

import types

import numpy as np

from ..config import GPTConfig
from ..model import GPT, DropoutAt
from .cases import BLOCK_SIZE, N_HEAD, B, C, T, V
from .gradients import check_gradients

EMBEDDING_OUTPUT = "embedding"  # the name under which the input of the first block is checked


def check_model(ops, variant="", seed=0, gpt=GPT, **options):
    """``check_gradients`` of a model of two blocks; variant is one of ``model_variants()``. A ``GradientReport``.

    gpt: the model's class, where another than ``GPT`` is to be checked.
    """
    pair = pair_of(ops, variant, seed, gpt)
    if variant:  # the plain form checks every entry; its variants differ only in how the layers are combined
        options = {"max_entries": 150, **options}
    return check_gradients(pair.forward, pair.backward, pair.inputs, seed=seed, **options)


def pair_of(ops, variant="", seed=0, gpt=GPT):
    """The ``ModelPair`` that ``check_model`` differentiates."""
    return ModelPair(ops, seed, gpt, **_VARIANTS[variant])


def model_variants():
    """The forms in which the model is checked."""
    return tuple(_VARIANTS)


_FIRST_KEY = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 1, 4]])
_VARIANTS = {
    "": {},
    "dropout, documents": {"dropout": 0.2, "first_key": _FIRST_KEY},
    "at once, recomputed": {"at_once": True, "recompute": True, "dropout": 0.2},
    "llama, documents": {
        "first_key": _FIRST_KEY,
        "parts": dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=9, bias=False, n_kv_head=1, tied=False),
    },
}


class ModelPair:
    """A model as a forward and a backward, functions of its parameters and of the embedding's output."""

    def __init__(self, ops, seed=0, gpt=GPT, dropout=0.0, first_key=None, at_once=False, recompute=False, parts=None):
        config = GPTConfig(V, BLOCK_SIZE, n_layer=2, n_head=N_HEAD, n_embd=C, dropout=dropout, **(parts or {}))
        self.model = gpt(config, dtype=np.float64, ops=shift_embedding(ops, self), recompute=recompute)
        self.at_once, self.shift = at_once, None
        rng = np.random.default_rng(seed)
        unit_scale(self.model.params, rng)
        self.tokens, self.targets = rng.integers(0, V, (2, B, T))
        self.targets[1, 0] = -1
        self.options = {"first_key": first_key, "dropout_at": DropoutAt(seed, 3, 1) if dropout else None}
        # The embedding's output is checked as a shift of it, at 0.
        self.inputs = {EMBEDDING_OUTPUT: np.zeros((B, T, C)), **{n: p.copy() for n, p in self.model.params.items()}}

    def forward(self, **inputs):
        self.shift = inputs.pop(EMBEDDING_OUTPUT)
        for name, value in inputs.items():
            self.model.params[name][...] = value
        return self.model.loss(self.tokens, self.targets, **self.options), None

    def backward(self, dloss, cache):
        self.forward(**self.inputs)
        self.model.zero_gradients()
        if self.at_once:
            dembedding = self._backward_at_once(dloss)
        else:
            dembedding = self.model.backward(dloss)
        return dembedding, *(g.copy() for g in self.model.grads.values())

    def _backward_at_once(self, dloss):
        # loss_and_gradients keeps the embedding's gradient to itself; it passes through embedding_backward.
        self.model.loss_and_gradients(self.tokens, self.targets, dloss, **self.options)
        return self.dembedding


def shift_embedding(ops, pair):
    """``ops`` with an embedding whose output has ``pair.shift`` added, and whose dout is kept in ``pair``."""

    def embedding_forward(*args, **kwargs):
        out, cache = ops.embedding_forward(*args, **kwargs)
        return out + pair.shift, cache

    def embedding_backward(dout, cache, into=None):
        pair.dembedding = dout
        return ops.embedding_backward(dout, cache, into=into)

    names = {name: getattr(ops, name) for name in ops.__all__}
    return types.SimpleNamespace(
        **{**names, "embedding_forward": embedding_forward, "embedding_backward": embedding_backward}
    )


def unit_scale(params, rng):
    """Fill ``params`` so that every activation is of unit scale and no parameter has a neutral value."""
    for name, view in params.items():
        view[...] = rng.standard_normal(view.shape)
        if view.ndim == 2 and "wpe" not in name:
            view /= np.sqrt(view.shape[1] if "wte" in name or "lm_head" in name else view.shape[0])
        elif "_norm." in name or ".ln_" in f".{name}" and name.endswith(".weight"):
            view *= 0.5
            view += 1
