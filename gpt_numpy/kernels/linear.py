"""The affine map: three matrix products, with the bias and its gradient done in passing.

The twin of ``layers.linear``, which derives the gradients.
"""

from typing import NamedTuple

import numpy as np

from ..arguments import check_linear
from .gemm import BIAS, NOTHING, current_products, gemm, products_of
from .gemm.narrow import NARROW, narrow
from .runtime.checks import check_shape, contiguous, flat, given, gradients, matrix, one_dtype
from .runtime.remembering import remembered


class LinearCache(NamedTuple):
    x: np.ndarray  # (..., K), narrow or not
    weight: np.ndarray  # (K, N)
    biased: bool = True


@remembered(setting=current_products)
def linear_forward(x, weight, bias, alloc=np.empty):
    """out = x · weight + bias;  x (..., K), weight (K, N), bias (N,) or None, out (..., N)."""
    dtype = one_dtype(x=x, weight=weight, **given(bias=bias))
    check_linear(x, weight, bias)
    out = alloc((*x.shape[:-1], weight.shape[1]), dtype)
    gemm(matrix(x), matrix(weight), matrix(out), **bias_epilogue(bias))
    return out, LinearCache(x, weight, bias is not None)


def for_backward(x, alloc):
    """x as a product's cache may keep it: x itself, or for products in bfloat16 a narrow copy.

    The product rounds x in any case, forward and backward, so its results have the same bits.
    """
    return narrow(flat(x), alloc(x.shape, NARROW)) if products_of(x.dtype) == "bfloat16" else x


def bias_epilogue(bias):
    """The options of ``gemm`` that add ``bias``, which may be None."""
    return {"epilogue": NOTHING} if bias is None else {"epilogue": BIAS, "bias": contiguous(bias)}


@remembered(setting=current_products)
def linear_backward(dout, cache, alloc=np.empty, *, add=True, into=None):
    """Gradients dx (..., K), dweight (K, N), dbias (N,); the last two added to, or written to, those of ``into``."""
    x, weight, biased = cache
    dtype = one_dtype(weight=weight, dout=dout)
    K, N = weight.shape
    check_shape("dout", dout, (*x.shape[:-1], N))
    (dweight, dbias), add = gradients(into, dtype, add, dweight=(K, N), dbias=(N,) if biased else None)
    dx = alloc(x.shape, dtype)
    rows = matrix(dout)
    gemm(rows, matrix(weight), matrix(dx), b_transposed=True)
    gemm(matrix(x), rows, dweight, a_transposed=True, add=add, sums=dbias, add_sums=add)
    return dx, dweight, dbias
