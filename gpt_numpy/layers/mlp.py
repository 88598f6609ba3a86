"""The position-wise feed-forward layer of a block: linear to W columns, an activation, linear back to C.

The functions here compose the small layers. In GPT-2, W = 4C and the activation is the tanh GELU. A gated activation
(``swiglu``) takes twice as many columns as it gives. The fast twin ``kernels.mlp`` fuses GELU into the matrix products.
"""

from typing import Any, NamedTuple

import numpy as np

from ..arguments import check_mlp
from ..config import GATED_ACTIVATIONS
from .accumulate import adds_into
from .activation import activation_backward, activation_forward, swiglu_backward, swiglu_forward
from .gelu import gelu_backward, gelu_forward
from .linear import LinearCache, linear_backward, linear_forward


class MLPCache(NamedTuple):
    fc: LinearCache  # x (..., C), weight (C, W), or (C, 2W) where gated
    gelu: Any  # the activation's own cache
    proj: LinearCache  # (..., W), weight (W, C)
    activation: str


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, alloc=np.empty, alloc_out=None, activation="gelu"):
    """out = f(x · fc_weight + fc_bias) · proj_weight + proj_bias;  x and out (..., C), proj_weight (W, C).

    fc_weight is (C, W), or for a gated activation (C, 2W): gate, then up. Biases may be None. alloc_out, where given,
    allocates ``out``: the backward does not read ``out``.
    """
    check_mlp(x, fc_weight, fc_bias, proj_weight, proj_bias, activation)
    hidden, fc_cache = linear_forward(x, fc_weight, fc_bias, alloc)
    activated, gelu_cache = activate(hidden, activation, alloc)
    out, proj_cache = linear_forward(activated, proj_weight, proj_bias, alloc_out or alloc)
    return out, MLPCache(fc_cache, gelu_cache, proj_cache, activation)


@adds_into(4)
def mlp_backward(dout, cache, alloc=np.empty):
    """Gradients dx (..., C), dfc_weight, dfc_bias, dproj_weight, dproj_bias: the forward's lines in reverse.

    The gradient of a bias that is None is None.
    """
    dactivated, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc)
    dhidden = activate_backward(dactivated, cache, alloc)
    dx, dfc_weight, dfc_bias = linear_backward(dhidden, cache.fc, alloc)
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias


def activate(hidden, activation, alloc):
    """(f(hidden), cache) of any activation, gated or not."""
    if activation == "gelu":
        return gelu_forward(hidden, alloc)
    if activation in GATED_ACTIVATIONS:
        return swiglu_forward(hidden, GATED_ACTIVATIONS[activation], alloc)
    return activation_forward(hidden, activation, alloc)


def activate_backward(dactivated, cache, alloc):
    """The gradient of ``hidden``, from an ``MLPCache``."""
    if cache.activation == "gelu":
        return gelu_backward(dactivated, cache.gelu, alloc)
    backward = swiglu_backward if cache.activation in GATED_ACTIVATIONS else activation_backward
    return backward(dactivated, cache.gelu, alloc)
