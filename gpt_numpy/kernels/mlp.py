"""The feed-forward layer of a block, with GELU and its derivative applied as the matrix products end.

The twin is ``layers.mlp``. The cache for the backward holds x and the activation's input alone. The backward computes the
activation again together with its derivative, which needs the same exponential. Rows are taken in chunks, so that
the wide arrays between the two products (``CHUNK_ROWS`` × W) are scratch that stays in the last-level cache. Activations
other than the tanh GELU are a pass of their own over that scratch.

With products in bfloat16 the cache holds both in bfloat16, half the memory: ``gpt_numpy.products`` says what follows.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_mlp
from ..config import GATED_ACTIVATIONS
from .activation import ActivationCache, activation_backward, activation_forward, gate_rows, gate_rows_backward
from .gemm import BIAS_GELU_KEEP, GELU_BACKWARD, current_products, gemm
from .gemm.narrow import NARROW, narrow, widen
from .linear import bias_epilogue, for_backward
from .runtime.checks import check_shape, contiguous, given, gradients, matrix, one_dtype
from .runtime.remembering import remembered
from .runtime.scratch import chunks, op_scratch

CHUNK_ROWS = 1024  # rows at a time


class MLPCache(NamedTuple):
    x: np.ndarray  # (..., C), or a narrow copy
    hidden: np.ndarray  # (rows, W), or (rows, 2W) where gated: before the activation; narrow or not
    fc_weight: np.ndarray  # (C, W) or (C, 2W)
    proj_weight: np.ndarray  # (W, C)
    activation: str
    biased: tuple[bool, bool]


def _chunks(rows):
    """Slices of about equal length, none longer than ``CHUNK_ROWS``."""
    return chunks(rows, -(-rows // CHUNK_ROWS))


def _activate(rows, fc_weight, fc_bias, activation, kept, out):
    """kept = rows · fc_weight + fc_bias, and out = its activation."""
    if activation == "gelu" and fc_bias is not None:
        gemm(rows, fc_weight, out, epilogue=BIAS_GELU_KEEP, bias=fc_bias, extra=kept)
        return
    hidden = _as_floats(kept, out.dtype)
    gemm(rows, fc_weight, hidden, **bias_epilogue(fc_bias))
    if hidden is not kept:
        narrow(hidden, kept)
    if activation in GATED_ACTIVATIONS:
        gate_rows(hidden, GATED_ACTIVATIONS[activation], out)
    else:
        activation_forward(hidden, activation, alloc=lambda *_: out)


def _as_floats(kept, dtype):
    """``kept`` itself, or where it is narrow, scratch of its shape for the same numbers in ``dtype``."""
    return op_scratch("mlp hidden", dtype, kept.shape)[0] if kept.dtype == NARROW else kept


def _differentiate(dout, proj_weight, activation, kept, activated, dhidden):
    """dhidden from dout, and ``activated`` again, of one chunk of rows."""
    if activation == "gelu":
        options = dict(epilogue=GELU_BACKWARD, extra=kept, activation=activated)
        gemm(dout, proj_weight, dhidden, b_transposed=True, **options)
        return
    hidden = _as_floats(kept, dout.dtype)
    if hidden is not kept:
        widen(kept, hidden)
    if activation in GATED_ACTIVATIONS:
        (dactivated,) = op_scratch("mlp gate", dout.dtype, activated.shape)
        gemm(dout, proj_weight, dactivated, b_transposed=True)
        gate_rows_backward(dactivated, hidden, GATED_ACTIVATIONS[activation], dhidden, activated)
        return
    gemm(dout, proj_weight, dhidden, b_transposed=True)
    activation_forward(hidden, activation, alloc=lambda *_: activated)
    activation_backward(dhidden, ActivationCache(hidden, activation), alloc=lambda *_: dhidden)


@remembered(setting=current_products)
def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, alloc=np.empty, alloc_out=None, activation="gelu"):
    """out = f(x · fc_weight + fc_bias) · proj_weight + proj_bias;  x and out (..., C), proj_weight (W, C).

    fc_weight is (C, W), or for a gated activation (C, 2W): gate, then up. Biases may be None.
    """
    biases = given(fc_bias=fc_bias, proj_bias=proj_bias)
    dtype = one_dtype(x=x, fc_weight=fc_weight, proj_weight=proj_weight, **biases)
    check_mlp(x, fc_weight, fc_bias, proj_weight, proj_bias, activation)
    wide, N = proj_weight.shape
    x = for_backward(x, alloc)
    rows, out = matrix(x), (alloc_out or alloc)((*x.shape[:-1], N), dtype)
    hidden, out_rows = alloc((len(rows), fc_weight.shape[1]), x.dtype), matrix(out)
    fc_weight, proj_weight = matrix(fc_weight), matrix(proj_weight)
    fc_bias = contiguous(fc_bias)
    for part in _chunks(len(rows)):
        (activated,) = op_scratch("mlp", dtype, (part.stop - part.start, wide))
        _activate(rows[part], fc_weight, fc_bias, activation, hidden[part], activated)
        gemm(activated, proj_weight, out_rows[part], **bias_epilogue(proj_bias))
    biased = fc_bias is not None, proj_bias is not None
    return out, MLPCache(x, hidden, fc_weight, proj_weight, activation, biased)


@remembered(setting=current_products)
def mlp_backward(dout, cache, alloc=np.empty, *, add=True, into=None):
    """Gradients dx (..., C), dfc_weight, dfc_bias, dproj_weight, dproj_bias; see ``layers.mlp``."""
    x, hidden, fc_weight, proj_weight, kind, (fc_biased, proj_biased) = cache
    dtype = one_dtype(fc_weight=fc_weight, dout=dout)
    wide, N = proj_weight.shape
    check_shape("dout", dout, (*x.shape[:-1], N))
    arrays, add = gradients(
        into,
        dtype,
        add,
        dfc_weight=fc_weight.shape,
        dfc_bias=fc_weight.shape[1:] if fc_biased else None,
        dproj_weight=(wide, N),
        dproj_bias=(N,) if proj_biased else None,
    )
    dfc_weight, dfc_bias, dproj_weight, dproj_bias = arrays
    dx = alloc(x.shape, dtype)
    rows, dout_rows, dx_rows = matrix(x), matrix(dout), matrix(dx)
    if not len(rows) and not add:
        for array in given(**dict(zip("abcd", arrays))).values():
            array.fill(0)
    for part in _chunks(len(rows)):
        count = part.stop - part.start
        activated, dhidden = op_scratch("mlp", dtype, (count, wide), (count, hidden.shape[1]))
        _differentiate(dout_rows[part], proj_weight, kind, hidden[part], activated, dhidden)
        more = add or part.start > 0
        gemm(activated, dout_rows[part], dproj_weight, a_transposed=True, add=more, sums=dproj_bias, add_sums=more)
        gemm(dhidden, fc_weight, dx_rows[part], b_transposed=True)
        gemm(rows[part], dhidden, dfc_weight, a_transposed=True, add=more, sums=dfc_bias, add_sums=more)
    return dx, *arrays
