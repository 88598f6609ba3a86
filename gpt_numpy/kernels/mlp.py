"""The feed-forward layer of a block, with GELU and its derivative applied as the matrix products end.

The twin is ``layers.mlp``. The cache for the backward holds GELU's input alone. The backward computes the activation
again together with GELU's derivative, which needs the same exponential. Rows are taken in chunks, so that
the wide arrays between the two products (``CHUNK_ROWS`` × 4C) are scratch that stays in the last-level cache.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_mlp
from .gemm import BIAS, BIAS_GELU_KEEP, GELU_BACKWARD, gemm
from .runtime.checks import check_shape, gradients, matrix, one_dtype
from .runtime.scratch import op_scratch

CHUNK_ROWS = 1024  # rows at a time


class MLPCache(NamedTuple):
    x: np.ndarray  # (..., C)
    hidden: np.ndarray  # (rows, 4C), before GELU
    fc_weight: np.ndarray  # (C, 4C)
    proj_weight: np.ndarray  # (4C, C)


def _chunks(rows):
    """Slices of about equal length, none longer than ``CHUNK_ROWS``."""
    count = -(-rows // CHUNK_ROWS)
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, alloc=np.empty, alloc_out=None):
    """out = gelu(x · fc_weight + fc_bias) · proj_weight + proj_bias;  x and out (..., C), fc_weight (C, 4C)."""
    dtype = one_dtype(x=x, fc_weight=fc_weight, fc_bias=fc_bias, proj_weight=proj_weight, proj_bias=proj_bias)
    check_mlp(x, fc_weight, fc_bias, proj_weight, proj_bias)
    wide, N = proj_weight.shape
    rows, out = matrix(x), (alloc_out or alloc)((*x.shape[:-1], N), dtype)
    hidden, out_rows = alloc((len(rows), wide), dtype), matrix(out)
    fc_weight, proj_weight = matrix(fc_weight), matrix(proj_weight)
    fc_bias, proj_bias = np.ascontiguousarray(fc_bias), np.ascontiguousarray(proj_bias)
    for part in _chunks(len(rows)):
        (activation,) = op_scratch("mlp", dtype, (part.stop - part.start, wide))
        gemm(rows[part], fc_weight, activation, epilogue=BIAS_GELU_KEEP, bias=fc_bias, extra=hidden[part])
        gemm(activation, proj_weight, out_rows[part], epilogue=BIAS, bias=proj_bias)
    return out, MLPCache(x, hidden, fc_weight, proj_weight)


def mlp_backward(dout, cache, alloc=np.empty, *, into=None):
    """Gradients dx (..., C), dfc_weight, dfc_bias, dproj_weight, dproj_bias; see ``layers.mlp``."""
    x, hidden, fc_weight, proj_weight = cache
    dtype = one_dtype(x=x, dout=dout)
    wide, N = proj_weight.shape
    check_shape("dout", dout, (*x.shape[:-1], N))
    arrays, add = gradients(
        into, dtype, dfc_weight=fc_weight.shape, dfc_bias=(wide,), dproj_weight=(wide, N), dproj_bias=(N,)
    )
    dfc_weight, dfc_bias, dproj_weight, dproj_bias = arrays
    dx = alloc(x.shape, dtype)
    rows, dout_rows, dx_rows = matrix(x), matrix(dout), matrix(dx)
    if not len(rows) and not add:
        for array in arrays:
            array.fill(0)
    for part in _chunks(len(rows)):
        shape = part.stop - part.start, wide
        activation, dhidden = op_scratch("mlp", dtype, shape, shape)
        gemm(
            dout_rows[part],
            proj_weight,
            dhidden,
            b_transposed=True,
            epilogue=GELU_BACKWARD,
            extra=hidden[part],
            activation=activation,
        )
        more = add or part.start > 0
        gemm(activation, dout_rows[part], dproj_weight, a_transposed=True, add=more, sums=dproj_bias, add_sums=more)
        gemm(dhidden, fc_weight, dx_rows[part], b_transposed=True)
        gemm(rows[part], dhidden, dfc_weight, a_transposed=True, add=more, sums=dfc_bias, add_sums=more)
    return dx, *arrays
