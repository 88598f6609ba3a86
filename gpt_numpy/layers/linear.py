"""The affine map x · weight + bias on the last axis, or x · weight without a bias.

The weight is (in, out), as in GPT-2's checkpoints (there the layer is called Conv1D).
Its fast twin is ``kernels.linear``.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_linear, check_shape, rows_of
from .accumulate import adds_into


class LinearCache(NamedTuple):
    x: np.ndarray  # (..., K)
    weight: np.ndarray  # (K, N)
    biased: bool = True


def linear_forward(x, weight, bias, alloc=np.empty):
    """out = x · weight + bias;  x (..., K), weight (K, N), bias (N,) or None, out (..., N)."""
    check_linear(x, weight, bias)
    out = np.matmul(x, weight, out=alloc((*x.shape[:-1], weight.shape[1]), x.dtype))
    if bias is not None:
        out += bias
    return out, LinearCache(x, weight, bias is not None)


@adds_into(2)
def linear_backward(dout, cache, alloc=np.empty):
    """Gradients dx (..., K), dweight (K, N), dbias (N,), or None where there is no bias.

    For every row,  out_n = Σ_k x_k · weight_kn + bias_n,  so

        ∂L/∂x_k        = Σ_n dout_n · weight_kn           dx = dout · weightᵀ
        ∂L/∂weight_kn  = Σ_rows x_k · dout_n              dweight = xᵀ · dout
        ∂L/∂bias_n     = Σ_rows dout_n                    dbias = column sums of dout

    The shapes are a quick check without algebra: no other product of the same two arrays fits them.
    """
    x, weight, biased = cache
    check_shape("dout", dout, (*x.shape[:-1], weight.shape[1]))
    dx = np.matmul(dout, weight.T, out=alloc(x.shape, x.dtype))
    dweight = rows_of(x).T @ rows_of(dout)
    dbias = rows_of(dout).sum(axis=0) if biased else None
    return dx, dweight, dbias
