"""Planted bugs for ops whose source cannot be patched in a line: the same mistakes, made at the interface.

``kernels`` compute with fused, compiled code. In this module, a mistake is a wrapper around a layer's forward and backward
that changes the arguments or the results. It can therefore be planted in any module of ops, ``layers`` as well. Each
mistake has the name of its twin in ``BUGS`` and must be caught by the same check. The bugs of ``model.py`` need no
twin: the broken model runs on any ops.
"""

from __future__ import annotations

import types

import numpy as np

from ... import layers
from ...errors import ConfigError

WRAPPERS: dict = {}


def plant_in(ops, name):
    """``ops`` with the bug ``name`` (of ``WRAPPERS``) in it."""
    layer, wrapper = WRAPPERS[name]
    functions = {n: getattr(ops, n) for n in ops.__all__}
    functions.update(wrapper(ops, layer))
    return types.SimpleNamespace(**functions, __all__=ops.__all__)


def _bug(name, layer):
    def register(wrapper):
        WRAPPERS[name] = layer, wrapper
        return wrapper

    return register


def _changed_gradients(name, layer):
    """A bug that turns right gradients into wrong ones: decorates ``change(gradients, dout, inputs) -> gradients``.

    The gradients are added to the arrays of ``into``, as in the layers.
    """

    def register(change):
        def wrapper(ops, layer):
            forward, backward = getattr(ops, f"{layer}_forward"), getattr(ops, f"{layer}_backward")

            def wrapped_forward(*args, **kwargs):
                out, cache = forward(*args, **kwargs)
                return out, (cache, {**kwargs, **dict(enumerate(args))})

            def wrapped_backward(dout, cache, alloc=np.empty, into=None):
                gradients = backward(dout, cache[0])
                wrong = change(gradients, dout, cache[1])
                return wrong if into is None else _added(wrong, into)

            return {f"{layer}_forward": wrapped_forward, f"{layer}_backward": wrapped_backward}

        WRAPPERS[name] = layer, wrapper
        return change

    return register


def with_functions(**functions):
    """``layers`` with some functions replaced by others of the same names, as a namespace for ``GPT(config, ops=…)``.

    A backward in ``functions`` need not have the keyword ``into``, which is added here. Raises ``ConfigError`` for a name
    that ``layers`` does not have.
    """
    unknown = sorted(set(functions) - set(layers.__all__))
    if unknown:
        raise ConfigError("not a function of layers", found=", ".join(unknown), expected=", ".join(layers.__all__))
    names = {name: getattr(layers, name) for name in layers.__all__}
    for name, function in functions.items():
        own = function is not names[name] and ("backward" in name or "gradients" in name)
        names[name] = with_into(function) if own else function
    return types.SimpleNamespace(**names, __all__=layers.__all__)


def with_into(backward):
    """``backward`` with the keyword ``into``: the last gradients are added to its arrays; and with a norm's ``dstream``."""

    def with_keyword(*args, into=None, dstream=None, **kwargs):
        gradients = backward(*args, **kwargs)
        if dstream is not None:
            gradients = gradients[0] + dstream, *gradients[1:]
        return gradients if into is None else _added(gradients, into)

    return with_keyword


def _added(gradients, into):
    n_inputs = len(gradients) - len(into)
    for accumulated, gradient in zip(into, gradients[n_inputs:]):
        accumulated += gradient
    return (*gradients[:n_inputs], *into)


# ---- wrong gradients ----------------------------------------------------------------------------------------------


@_changed_gradients("attention-scale-forgotten-in-backward", "attention")
def _no_scale(gradients, dout, inputs):
    dq, dk, dv = gradients
    root = np.sqrt(dout.shape[-1])
    return dq * root, dk * root, dv


@_changed_gradients("attention-scale-not-a-root", "attention")
def _scale_not_a_root(gradients, dout, inputs):
    dq, dk, dv = gradients
    root = np.sqrt(dout.shape[-1])
    return dq / root, dk / root, dv


@_changed_gradients("multi-head-thirds-exchanged", "multi_head_attention")
def _thirds_exchanged(gradients, dout, inputs):
    dx, dattn_weight, dattn_bias, dproj_weight, dproj_bias = gradients
    C = dout.shape[-1]
    order = np.r_[C : 2 * C, 0:C, 2 * C : 3 * C]
    return dx, dattn_weight[:, order], dattn_bias[order], dproj_weight, dproj_bias


@_changed_gradients("layernorm-mean-term-forgotten", "layernorm")
def _mean_term(gradients, dout, inputs):
    dx, dweight, dbias = gradients
    _, rstd = _normalised(inputs)
    return dx + rstd * (dout * inputs["weight"]).mean(axis=-1, keepdims=True), dweight, dbias


@_changed_gradients("layernorm-variance-term-forgotten", "layernorm")
def _variance_term(gradients, dout, inputs):
    dx, dweight, dbias = gradients
    xhat, rstd = _normalised(inputs)
    stretch = (dout * inputs["weight"] * xhat).mean(axis=-1, keepdims=True)
    return dx + rstd * xhat * stretch, dweight, dbias


@_changed_gradients("layernorm-dweight-from-x", "layernorm")
def _dweight_from_x(gradients, dout, inputs):
    dx, _, dbias = gradients
    return dx, (dout * inputs["x"]).reshape(-1, dout.shape[-1]).sum(axis=0), dbias


@_changed_gradients("layernorm-bias-gradient-averaged", "layernorm")
def _layernorm_bias_averaged(gradients, dout, inputs):
    dx, dweight, dbias = gradients
    return dx, dweight, dbias / (dout.size / dout.shape[-1])


@_changed_gradients("linear-bias-gradient-averaged", "linear")
def _linear_bias_averaged(gradients, dout, inputs):
    dx, dweight, dbias = gradients
    return dx, dweight, dbias / (dout.size / dout.shape[-1])


@_changed_gradients("linear-last-sequence-only", "linear")
def _last_sequence(gradients, dout, inputs):
    dx, _, dbias = gradients
    return dx, inputs["x"][-1].T @ dout[-1], dbias


@_changed_gradients("residual-stream-dropped", "residual")
def _stream_dropped(gradients, dout, inputs):
    return gradients[1], gradients[1]


@_changed_gradients("residual-dropout-not-passed-back", "residual")
def _dropout_not_passed_back(gradients, dout, inputs):
    return gradients[0], dout


@_changed_gradients("embedding-overwrites-repeated-tokens", "embedding")
def _overwrites(gradients, dout, inputs):
    dwte = np.zeros_like(gradients[0])
    dwte[inputs["tokens"]] += dout
    return dwte, gradients[1]


@_changed_gradients("cross-entropy-target-not-subtracted", "cross_entropy")
def _target_not_subtracted(dlogits, dloss, inputs):
    counted = inputs["targets"] != inputs.get("ignore_index", -1)
    wrong = dlogits.copy()
    wrong[(*np.nonzero(counted), inputs["targets"][counted])] += dloss / counted.sum()
    return wrong


@_changed_gradients("cross-entropy-mean-over-ignored-rows", "cross_entropy")
def _mean_over_ignored(dlogits, dloss, inputs):
    counted = inputs["targets"] != inputs.get("ignore_index", -1)
    return dlogits * counted.mean()


@_changed_gradients("cross-entropy-dloss-ignored", "cross_entropy")
def _dloss_ignored(dlogits, dloss, inputs):
    return dlogits / dloss


@_changed_gradients("lm-head-dwte-transposed", "lm_head")
def _dwte_transposed(gradients, dlogits, inputs):
    return gradients[0], np.ascontiguousarray(gradients[1].T)


def _normalised(inputs):
    x = inputs["x"]
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + inputs.get("epsilon", 1e-5))
    return centred * rstd, rstd


# ---- wrong calls ---------------------------------------------------------------------------------------------------


@_bug("attention-documents-not-kept-apart", "attention")
def _documents_joined(ops, layer):
    def attention_forward(*args, **kwargs):
        return ops.attention_forward(*args, **{**kwargs, "first_key": None})

    return {"attention_forward": attention_forward}


@_bug("attention-dropout-mask-drawn-again", "attention")
def _mask_drawn_again(ops, layer):
    def attention_forward(**kwargs):
        out, cache = ops.attention_forward(**kwargs)
        dropout = kwargs.get("dropout")
        if dropout is None:
            return out, (cache, cache)
        return out, (cache, ops.attention_forward(**{**kwargs, "dropout": dropout._replace(key=dropout.key + 1)})[1])

    def attention_backward(dout, caches):
        return (*ops.attention_backward(dout, caches[0])[:2], ops.attention_backward(dout, caches[1])[2])

    return {"attention_forward": attention_forward, "attention_backward": attention_backward}


@_bug("layernorm-weight-forgotten", "layernorm")
def _weight_forgotten(ops, layer):
    def layernorm_forward(x, weight, bias, epsilon=1e-5):
        out, cache = ops.layernorm_forward(x, weight, bias, epsilon)
        return out, (cache, ops.layernorm_forward(x, np.ones_like(weight), bias, epsilon)[1])

    def layernorm_backward(dout, caches, into=None):
        gradients = ops.layernorm_backward(dout, caches[1])[0], *ops.layernorm_backward(dout, caches[0])[1:]
        return gradients if into is None else _added(gradients, into)

    return {"layernorm_forward": layernorm_forward, "layernorm_backward": layernorm_backward}


@_bug("linear-bias-added-twice", "linear")
def _bias_twice(ops, layer):
    def linear_forward(x, weight, bias):
        return ops.linear_forward(x, weight, 2 * bias)

    return {"linear_forward": linear_forward}


@_bug("dropout-another-mask-in-backward", "dropout")
def _another_mask(ops, layer):
    def dropout_forward(x, dropout):
        cache = ops.dropout_forward(x, dropout._replace(first_sequence=0))[1]
        return ops.dropout_forward(x, dropout)[0], cache

    return {"dropout_forward": dropout_forward}


@_bug("cross-entropy-sum-for-mean", "cross_entropy")
def _sum_for_mean(ops, layer):
    def cross_entropy_forward(logits, targets, ignore_index=-1):
        loss, cache = ops.cross_entropy_forward(logits, targets, ignore_index)
        return loss * (targets != ignore_index).sum(), cache

    return {"cross_entropy_forward": cross_entropy_forward}


@_bug("lm-head-dloss-forgotten-at-once", "lm_head_cross_entropy")
def _dloss_forgotten(ops, layer):
    def gradients(x, wte, targets, dloss, **kwargs):
        return ops.lm_head_cross_entropy_gradients(x, wte, targets, 1.0, **kwargs)

    return {"lm_head_cross_entropy_gradients": gradients}


@_bug("accumulation-overwrites", "linear")
def _overwriting(ops, layer):
    def linear_backward(dout, cache, into=None):
        gradients = ops.linear_backward(dout, cache)
        for accumulated, gradient in zip(into or (), gradients[1:]):
            accumulated[...] = gradient
        return gradients if into is None else (gradients[0], *into)

    return {"linear_backward": linear_backward}
