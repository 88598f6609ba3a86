"""Layer normalisation over the last axis (Ba, Kiros and Hinton 2016), with a weight and a bias or none.

Its fast twin is ``kernels.layernorm``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_layernorm, check_shape
from .accumulate import adds_into


class LayernormCache(NamedTuple):
    x: np.ndarray  # (..., C)
    mean: np.ndarray  # (..., 1)
    rstd: np.ndarray  # (..., 1), 1 / standard deviation
    weight: np.ndarray  # (C,)
    biased: bool = True


def layernorm_forward(x, weight, bias, epsilon=1e-5, alloc=np.empty):
    """out = xhat · weight + bias with xhat = (x − mean) · rstd, over the last axis of x (..., C).

    rstd = 1/√(variance + ε) with the biased variance (divided by C, not C − 1), as in GPT-2. bias: (C,) or None.
    """
    check_layernorm(x, weight, bias)
    mean = x.mean(axis=-1, keepdims=True)
    centred = np.subtract(x, mean, out=alloc(x.shape, x.dtype))
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    out = centred
    out *= rstd
    out *= weight
    if bias is not None:
        out += bias
    return out, LayernormCache(x, mean, rstd, weight, bias is not None)


@adds_into(2, dstream=True)
def layernorm_backward(dout, cache, alloc=np.empty):
    """Gradients dx (..., C), dweight (C,), dbias (C,), or None where there is no bias.

    xhat is recomputed, which costs two passes over x. Keeping xhat would cost another array of the size of x.

    out = xhat · weight + bias    gives  dbias = Σ_rows dout,  dweight = Σ_rows dout · xhat,
                                         dxhat = dout · weight.

    Within one row, xhat_i = (x_i − m) · r, with m the mean and r = (v + ε)^(−1/2). Its derivative is

        ∂xhat_i/∂x_j = r · (δ_ij − 1/C) + (x_i − m) · ∂r/∂x_j,

        ∂r/∂x_j = −½ (v + ε)^(−3/2) · ∂v/∂x_j = −½ r³ · (2/C)(x_j − m) = −r² · xhat_j / C,

    where ∂v/∂x_j has no term from the mean because Σ_i (x_i − m) = 0. Hence

        ∂xhat_i/∂x_j = r · (δ_ij − 1/C − xhat_i · xhat_j / C),

        dx_j = Σ_i dxhat_i · ∂xhat_i/∂x_j = r · (dxhat_j − mean(dxhat) − xhat_j · mean(dxhat · xhat)).

    Subtracting the two means removes the gradient's components along a shift and along a scaling of the row, which do
    not change the output (the second exactly only for ε = 0).
    """
    x, mean, rstd, weight, biased = cache
    check_shape("dout", dout, x.shape)
    xhat = (x - mean) * rstd
    rows = tuple(range(x.ndim - 1))
    dbias = dout.sum(axis=rows) if biased else None
    dweight = (dout * xhat).sum(axis=rows)
    dxhat = np.multiply(dout, weight, out=alloc(x.shape, x.dtype))
    shift = dxhat.mean(axis=-1, keepdims=True)
    stretch = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = dxhat
    dx -= shift
    xhat *= stretch
    dx -= xhat
    dx *= rstd
    return dx, dweight, dbias
