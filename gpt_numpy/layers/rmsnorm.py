"""Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019), with a weight and no bias.

A layernorm without the mean: rows are scaled to a mean square of 1, not centred. Its fast twin is ``kernels.rmsnorm``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_rmsnorm, check_shape
from .accumulate import adds_into


class RmsnormCache(NamedTuple):
    x: np.ndarray  # (..., C)
    rrms: np.ndarray  # (..., 1), 1 / root mean square
    weight: np.ndarray  # (C,)


def rmsnorm_forward(x, weight, epsilon=1e-5, alloc=np.empty):
    """out = xhat · weight with xhat = x · rrms, over the last axis of x (..., C);  rrms = 1/√(mean(x²) + ε)."""
    check_rmsnorm(x, weight)
    square = np.mean(x * x, axis=-1, keepdims=True)
    rrms = 1 / np.sqrt(square + x.dtype.type(epsilon))
    out = np.multiply(x, rrms, out=alloc(x.shape, x.dtype))
    out *= weight
    return out, RmsnormCache(x, rrms, weight)


@adds_into(1, dstream=True)
def rmsnorm_backward(dout, cache, alloc=np.empty):
    """Gradients dx (..., C) and dweight (C,); xhat is recomputed.

    out = xhat · weight    gives  dweight = Σ_rows dout · xhat,  dxhat = dout · weight.

    Within one row, xhat_i = x_i · r with r = (s + ε)^(−1/2) and s = mean(x²). Every x_j moves r:

        ∂r/∂x_j = −½ (s + ε)^(−3/2) · ∂s/∂x_j = −½ r³ · (2/C) x_j = −r² · xhat_j / C,

        ∂xhat_i/∂x_j = r · δ_ij + x_i · ∂r/∂x_j = r · (δ_ij − xhat_i · xhat_j / C),

        dx_j = Σ_i dxhat_i · ∂xhat_i/∂x_j = r · (dxhat_j − xhat_j · mean(dxhat · xhat)).

    This is the backward of layernorm without the term of the mean: the gradient has no component along the row itself,
    because scaling the row does not change the output (exactly only for ε = 0). A shift of the row does.
    """
    x, rrms, weight = cache
    check_shape("dout", dout, x.shape)
    xhat = x * rrms
    dweight = (dout * xhat).sum(axis=tuple(range(x.ndim - 1)))
    dxhat = np.multiply(dout, weight, out=alloc(x.shape, x.dtype))
    stretch = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = dxhat
    xhat *= stretch
    dx -= xhat
    dx *= rrms
    return dx, dweight
