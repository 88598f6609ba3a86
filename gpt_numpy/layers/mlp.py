"""The position-wise feed-forward layer of a block: linear to 4C, GELU, linear back to C.

The functions here compose the small layers. The fast twin ``kernels.mlp`` fuses GELU into the matrix products.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_mlp
from .accumulate import adds_into
from .gelu import GeluCache, gelu_backward, gelu_forward
from .linear import LinearCache, linear_backward, linear_forward


class MLPCache(NamedTuple):
    fc: LinearCache  # x (..., C), weight (C, 4C)
    gelu: GeluCache  # (..., 4C)
    proj: LinearCache  # (..., 4C), weight (4C, C)


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, alloc=np.empty, alloc_out=None):
    """out = gelu(x · fc_weight + fc_bias) · proj_weight + proj_bias;  x and out (..., C), fc_weight (C, 4C).

    alloc_out, where given, allocates ``out``: the backward does not read ``out``.
    """
    check_mlp(x, fc_weight, fc_bias, proj_weight, proj_bias)
    hidden, fc_cache = linear_forward(x, fc_weight, fc_bias, alloc)
    activation, gelu_cache = gelu_forward(hidden, alloc)
    out, proj_cache = linear_forward(activation, proj_weight, proj_bias, alloc_out or alloc)
    return out, MLPCache(fc_cache, gelu_cache, proj_cache)


@adds_into(4)
def mlp_backward(dout, cache, alloc=np.empty):
    """Gradients dx (..., C), dfc_weight, dfc_bias, dproj_weight, dproj_bias: the forward's lines in reverse."""
    dactivation, dproj_weight, dproj_bias = linear_backward(dout, cache.proj, alloc)
    dhidden = gelu_backward(dactivation, cache.gelu, alloc)
    dx, dfc_weight, dfc_bias = linear_backward(dhidden, cache.fc, alloc)
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias
